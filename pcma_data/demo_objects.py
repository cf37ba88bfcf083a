"""Ten things that make a sound, drawn from simple shapes with random colours, surfaces and proportions.

Only the shape tells what a thing is: colours come from the whole circle of hues. Every function draws with a `Pen` inside
the unit square, x to the right and y down.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from .backgrounds import random_colour
from .pen import Pen, arc, box, shade, smooth, turned

WHITE, BLACK = np.ones(3) * 0.96, np.ones(3) * 0.07


def vivid(rng: np.random.Generator) -> np.ndarray:
    """A strong colour of any hue."""
    return random_colour(rng, (0.35, 0.95), (0.5, 0.98))


def guitar(pen: Pen, rng: np.random.Generator) -> None:
    """A body with a waist, a sound hole, a long neck and a head with pegs; aslant."""
    angle, waist = rng.uniform(20, 50), rng.uniform(0.125, 0.155)
    colour, dark = vivid(rng), random_colour(rng, (0.3, 0.7), (0.1, 0.35))

    def turn(points):
        return turned(points, angle)

    half = [
        (0.5, 0.425),
        (0.62, 0.42),
        (0.69, 0.5),
        (0.5 + waist, 0.61),
        (0.72, 0.74),
        (0.755, 0.87),
        (0.65, 0.99),
        (0.5, 1.005),
    ]
    outline = smooth(half + [(1 - x, y) for x, y in half[-2:0:-1]])
    for y in (0.03, 0.075, 0.12):
        pen.line(turn([(0.41, y), (0.59, y)]), 0.025, shade(dark, 1.6))
    pen.fill(turn(outline), pen.surface(colour))
    pen.fill(turn(box(0.455, 0.15, 0.545, 0.62)), dark)
    pen.fill(turn([(0.44, 0.0), (0.56, 0.0), (0.545, 0.16), (0.455, 0.16)]), dark)
    pen.fill(turn(arc((0.5, 0.65), 0.085)), BLACK)
    pen.fill(turn(box(0.41, 0.83, 0.59, 0.865)), dark)
    for x in (0.478, 0.5, 0.522):
        pen.line(turn([(x, 0.02), (x, 0.85)]), 0.005, WHITE)


def bell(pen: Pen, rng: np.random.Generator) -> None:
    """A wide-mouthed bell with a loop on top and a clapper below."""
    flare, colour = rng.uniform(0.36, 0.44), vivid(rng)
    pen.line(arc((0.5, 0.1), 0.07), 0.04, shade(colour, 0.6))
    pen.dot((0.5, 0.9), 0.085, shade(colour, 0.5), True)
    half = [(0.56, 0.155), (0.66, 0.21), (0.72, 0.34), (0.74, 0.52), (0.78, 0.68), (0.5 + flare, 0.82)]
    side = smooth([(1 - x, y) for x, y in half] + half[::-1])
    pen.fill(side, pen.surface(colour))
    pen.fill(arc((0.5, 0.82), (flare, 0.055)), shade(colour, 0.7))
    pen.line([(0.275, 0.62), (0.725, 0.62)], 0.03, shade(colour, 0.65))
    pen.line([(0.37, 0.3), (0.34, 0.42), (0.33, 0.54)], 0.04, shade(colour, 2.2))


def drum(pen: Pen, rng: np.random.Generator) -> None:
    """A drum seen from above its edge: pale skin, two hoops, zigzag cords, two crossed sticks."""
    bottom, colour, hoop = rng.uniform(0.74, 0.86), vivid(rng), vivid(rng)
    top, rim = 0.4, (0.44, 0.14)
    pen.fill(np.vstack([arc((0.5, bottom), rim, 0, 180), arc((0.5, top), rim, 180, 360)]), pen.surface(colour))
    for y in (bottom, top + 0.02):
        pen.line(arc((0.5, y), rim, 0, 180), 0.06, hoop)
    angles = np.deg2rad(np.linspace(8, 172, 9))
    zigzag = [
        (0.5 + rim[0] * np.cos(a), (top + 0.05 if i % 2 else bottom - 0.03) + rim[1] * np.sin(a))
        for i, a in enumerate(angles)
    ]
    pen.line(zigzag, 0.02, WHITE)
    pen.dot((0.5, top), rim, shade(random_colour(rng, (0, 0.2), (0.85, 1)), 1), True)
    wood = random_colour(rng, (0.3, 0.6), (0.3, 0.6))
    for start, tip in (((0.12, 0.06), (0.58, 0.4)), ((0.88, 0.06), (0.42, 0.4))):
        pen.line([start, tip], 0.04, pen.ink)
        pen.line([start, tip], 0.026, wood)
        pen.dot(tip, 0.035, wood, True)


def siren(pen: Pen, rng: np.random.Generator) -> None:
    """A warning lamp: a glowing dome on a wide foot, rays of light around it."""
    colour, foot = vivid(rng), random_colour(rng, (0, 0.3), (0.12, 0.5))
    ray = shade(colour, rng.uniform(1.2, 1.8))
    for angle in (-170, -140, -113, -67, -40, -10):
        direction = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
        pen.line([np.array([0.5, 0.52]) + direction * 0.33, np.array([0.5, 0.52]) + direction * 0.47], 0.05, ray)
    dome = np.vstack([arc((0.5, 0.48), (0.25, 0.26), 180, 360), [(0.76, 0.74), (0.24, 0.74)]])
    pen.fill(dome, pen.surface(colour))
    pen.fill(arc((0.5, 0.52), (0.1, 0.12)), shade(colour, 4), False)
    pen.fill(arc((0.5, 0.52), (0.05, 0.065)), WHITE, False)
    pen.line(arc((0.5, 0.48), (0.19, 0.2), 200, 250), 0.025, WHITE)
    pen.fill(box(0.17, 0.73, 0.83, 0.82), foot)
    pen.fill(box(0.1, 0.82, 0.9, 0.93), shade(foot, 0.7))


def bird(pen: Pen, rng: np.random.Generator) -> None:
    """A perching bird from the side: round head, open beak, wing, long tail, two thin legs."""
    colour, wing = vivid(rng), vivid(rng)
    belly = shade(random_colour(rng, (0.1, 0.5), (0.7, 1)), 1)
    for x in (0.5, 0.58):
        pen.line([(x, 0.74), (x + 0.02, 0.93), (x + 0.1, 0.94)], 0.022, shade(wing, 0.5))
    pen.fill([(0.3, 0.58), (0.02, 0.72), (0.0, 0.8), (0.1, 0.83), (0.4, 0.74)], shade(wing, 0.8))
    body = smooth(
        [
            (0.24, 0.62),
            (0.4, 0.44),
            (0.56, 0.32),
            (0.62, 0.17),
            (0.74, 0.13),
            (0.84, 0.22),
            (0.83, 0.4),
            (0.76, 0.62),
            (0.56, 0.78),
            (0.36, 0.74),
        ]
    )
    pen.fill(body, pen.surface(colour))
    pen.fill(smooth([(0.62, 0.74), (0.77, 0.56), (0.8, 0.42), (0.7, 0.5), (0.55, 0.7)]), belly, False)
    beak = random_colour(rng, (0.6, 0.95), (0.6, 1))
    pen.fill([(0.83, 0.2), (0.99, 0.16), (0.85, 0.27)], beak)
    pen.fill([(0.84, 0.28), (0.96, 0.32), (0.82, 0.33)], shade(beak, 0.75))
    pen.fill(smooth([(0.22, 0.66), (0.42, 0.44), (0.6, 0.42), (0.62, 0.54), (0.48, 0.66), (0.3, 0.71)]), pen.surface(wing))
    pen.dot((0.74, 0.23), 0.042, WHITE, True)
    pen.dot((0.75, 0.23), 0.022, BLACK)


def engine(pen: Pen, rng: np.random.Generator) -> None:
    """A tractor: one large and one small wheel, a cab with a window, a bonnet with an exhaust pipe."""
    colour, rim = vivid(rng), vivid(rng)
    pen.line([(0.78, 0.45), (0.78, 0.2), (0.83, 0.17)], 0.05, shade(colour, 0.35))
    pen.fill([(0.45, 0.42), (0.9, 0.45), (0.96, 0.5), (0.96, 0.74), (0.3, 0.74), (0.3, 0.42)], pen.surface(colour))
    pen.fill([(0.12, 0.42), (0.2, 0.12), (0.53, 0.12), (0.58, 0.45), (0.5, 0.6), (0.12, 0.5)], shade(colour, 0.75))
    pen.fill([(0.21, 0.38), (0.26, 0.2), (0.48, 0.2), (0.51, 0.42)], random_colour(rng, (0.1, 0.3), (0.8, 1)))
    pen.fill(box(0.14, 0.07, 0.6, 0.13), shade(colour, 0.5))
    for y in (0.53, 0.59, 0.65):
        pen.line([(0.66, y), (0.88, y)], 0.016, shade(colour, 0.4))
    for centre, radius in (((0.29, 0.69), 0.275), ((0.81, 0.79), 0.17)):
        pen.dot(centre, radius, BLACK * 2, True)
        for angle in np.arange(0, 360, 30):
            pen.line(
                turned([(centre[0], centre[1] - radius * 0.82), (centre[0], centre[1] - radius)], angle, centre),
                0.022,
                BLACK * 4,
            )
        pen.dot(centre, radius * 0.58, rim, True)
        pen.dot(centre, radius * 0.2, shade(rim, 0.5))


def clock(pen: Pen, rng: np.random.Generator) -> None:
    """A round clock on two feet: pale face, twelve marks, two hands at any time of day, a button on top."""
    colour, face = vivid(rng), random_colour(rng, (0, 0.2), (0.88, 1))
    for x in (0.24, 0.76):
        pen.line([(0.5 + (x - 0.5) * 0.6, 0.75), (x, 0.96)], 0.065, shade(colour, 0.5))
    pen.line([(0.5, 0.15), (0.5, 0.05)], 0.06, shade(colour, 0.5))
    pen.line([(0.42, 0.04), (0.58, 0.04)], 0.05, shade(colour, 0.5))
    pen.dot((0.5, 0.53), 0.42, pen.surface(colour), True)
    pen.dot((0.5, 0.53), 0.32, face, True)
    for hour in range(12):
        inner = 0.23 if hour % 3 == 0 else 0.26
        pen.line(turned([(0.5, 0.53 - inner), (0.5, 0.53 - 0.285)], 30 * hour, (0.5, 0.53)), 0.024, BLACK)
    minutes = rng.uniform(0, 720)
    pen.line(turned([(0.5, 0.53), (0.5, 0.37)], minutes / 2, (0.5, 0.53)), 0.045, BLACK)
    pen.line(turned([(0.5, 0.56), (0.5, 0.29)], 6 * minutes, (0.5, 0.53)), 0.03, BLACK)
    pen.dot((0.5, 0.53), 0.035, colour, True)


def flute(pen: Pen, rng: np.random.Generator) -> None:
    """A recorder, the straight flute: beak, window, a row of holes, a flared foot, two rings; aslant."""
    angle, colour = rng.uniform(35, 55), vivid(rng)
    wood, ring = pen.surface(colour), random_colour(rng, (0, 0.3), (0.75, 1))

    def turn(points):
        return turned(points, angle)

    pen.fill(turn([(0.44, -0.11), (0.54, -0.11), (0.605, -0.02), (0.61, 0.2), (0.39, 0.2), (0.395, 0.0)]), wood)
    pen.fill(turn([(0.41, 0.2), (0.59, 0.2), (0.575, 0.86), (0.425, 0.86)]), wood)
    pen.fill(turn([(0.42, 0.86), (0.58, 0.86), (0.63, 1.05), (0.59, 1.11), (0.41, 1.11), (0.37, 1.05)]), wood)
    for y, half in ((0.2, 0.125), (0.86, 0.105)):
        pen.fill(turn(box(0.5 - half, y - 0.025, 0.5 + half, y + 0.025)), ring)
    pen.fill(turn(box(0.455, 0.02, 0.545, 0.09)), BLACK)
    for y in np.linspace(0.31, 0.77, 6):
        pen.fill(turn(arc((0.5, y), 0.037)), BLACK, False)
    pen.fill(turn(arc((0.5, 0.97), 0.037)), BLACK, False)


def frog(pen: Pen, rng: np.random.Generator) -> None:
    """A sitting frog from the front: eyes on top of a wide head, a wide mouth, folded hind legs, splayed feet."""
    colour = vivid(rng)
    skin, belly = pen.surface(colour), shade(random_colour(rng, (0.1, 0.4), (0.8, 1)), 1)
    for s in (-1, 1):

        def mirrored(points, s=s):
            return [(0.5 + s * (x - 0.5), y) for x, y in points]

        pen.fill(
            smooth(mirrored([(0.68, 0.62), (0.84, 0.5), (0.96, 0.62), (0.95, 0.8), (0.82, 0.88), (0.68, 0.86)])),
            shade(colour, 0.75),
        )
        pen.fill(smooth(mirrored([(0.7, 0.86), (0.88, 0.84), (1.0, 0.9), (0.98, 0.95), (0.72, 0.95)])), shade(colour, 0.6))
    pen.fill(
        smooth([(0.5, 0.38), (0.7, 0.5), (0.76, 0.74), (0.68, 0.92), (0.5, 0.95), (0.32, 0.92), (0.24, 0.74), (0.3, 0.5)]),
        skin,
    )
    pen.fill(smooth([(0.5, 0.55), (0.62, 0.64), (0.64, 0.8), (0.5, 0.91), (0.36, 0.8), (0.38, 0.64)]), belly, False)
    for s in (-1, 1):
        pen.line([(0.5 + s * 0.16, 0.66), (0.5 + s * 0.12, 0.92)], 0.06, shade(colour, 0.7))
        pen.fill(arc((0.5 + s * 0.13, 0.95), (0.1, 0.04)), shade(colour, 0.7))
    for s in (-1, 1):
        pen.dot((0.5 + s * 0.2, 0.17), 0.125, skin, True)
    pen.fill(
        smooth(
            [(0.5, 0.17), (0.72, 0.21), (0.84, 0.36), (0.75, 0.51), (0.5, 0.56), (0.25, 0.51), (0.16, 0.36), (0.28, 0.21)]
        ),
        skin,
    )
    for s in (-1, 1):
        pen.dot((0.5 + s * 0.2, 0.17), 0.085, WHITE, True)
        pen.dot((0.5 + s * 0.2, 0.18), 0.045, BLACK)
    pen.line(arc((0.5, 0.3), (0.27, 0.16), 15, 165), 0.028, BLACK)


def kettle(pen: Pen, rng: np.random.Generator) -> None:
    """A kettle: a round pot with a flat bottom, a spout, an arched handle, a lid with a knob."""
    colour, dark = vivid(rng), random_colour(rng, (0, 0.5), (0.1, 0.35))
    pen.line(arc((0.46, 0.42), (0.25, 0.36), 185, 355), 0.06, dark)
    pen.fill([(0.66, 0.62), (0.82, 0.48), (0.86, 0.32), (0.98, 0.3), (0.94, 0.52), (0.76, 0.8)], shade(colour, 0.8))
    pot = smooth(
        [
            (0.46, 0.37),
            (0.62, 0.39),
            (0.75, 0.52),
            (0.8, 0.76),
            (0.74, 0.93),
            (0.46, 0.945),
            (0.18, 0.93),
            (0.12, 0.76),
            (0.17, 0.52),
            (0.3, 0.39),
        ]
    )
    pen.fill(pot, pen.surface(colour))
    pen.fill(arc((0.46, 0.4), (0.19, 0.055)), shade(colour, 0.7))
    pen.dot((0.46, 0.315), 0.05, dark, True)
    pen.line([(0.19, 0.9), (0.73, 0.9)], 0.025, shade(colour, 0.55))
    pen.line([(0.25, 0.56), (0.21, 0.68), (0.21, 0.78)], 0.045, shade(colour, 2.5))


DRAWINGS: dict[str, Callable[[Pen, np.random.Generator], None]] = {
    f.__name__: f for f in (guitar, bell, drum, siren, bird, engine, clock, flute, frog, kettle)
}


def draw(name: str, rng: np.random.Generator, pixels: int) -> Image.Image:
    """An RGBA picture of class `name`, cut to its edge, its longer side `pixels` long."""
    pen = Pen(rng, pixels)
    DRAWINGS[name](pen, rng)
    return pen.finish()
