"""Draws filled shapes in unit coordinates, large, and reduces the picture to an anti-aliased cut-out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .backgrounds import fractal_noise, random_colour

Points = Sequence[tuple[float, float]] | np.ndarray
Paint = np.ndarray | Image.Image


def smooth(points: Points, steps: int = 12) -> np.ndarray:
    """A closed Catmull-Rom curve through the points, [len(points) * steps, 2]."""
    p = np.asarray(points, float)
    before, after, second = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = (np.arange(steps) / steps)[:, None, None]
    curve = p + 0.5 * t * (
        after - before + t * (2 * before - 5 * p + 4 * after - second + t * (3 * (p - after) + second - before))
    )
    return curve.transpose(1, 0, 2).reshape(-1, 2)


def arc(centre: tuple[float, float], radii: float | tuple[float, float], first: float = 0, last: float = 360) -> np.ndarray:
    """Points along an ellipse from `first` to `last` degrees, clockwise from the right; [65, 2]."""
    angle = np.deg2rad(np.linspace(first, last, 65))
    return np.asarray(centre) + np.stack([np.cos(angle), np.sin(angle)], 1) * radii


def turned(points: Points, degrees: float, centre: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
    """The points turned clockwise about `centre`."""
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (np.asarray(points, float) - centre) @ matrix + centre


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """The corners of a rectangle."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def shade(colour: np.ndarray, factor: float) -> np.ndarray:
    """A darker (factor below 1) or lighter (above 1) colour, [3] in 0..1."""
    return np.clip(colour * factor if factor <= 1 else 1 - (1 - colour) / factor, 0, 1)


class Pen:
    """A transparent picture five times as large as asked for; 0 to 1 span its middle, with a margin of an eighth around.

    Args:
        rng: decides the outline, the surface and the light.
        pixels: longer side of the finished cut-out.
    """

    ENLARGED = 5
    MARGIN = 0.125

    def __init__(self, rng: np.random.Generator, pixels: int) -> None:
        self.rng, self.pixels = rng, pixels
        self.side = self.ENLARGED * pixels
        self.unit = self.side / (1 + 2 * self.MARGIN)
        self.image = Image.new("RGBA", (self.side, self.side))
        self.outline = rng.uniform(0.006, 0.016)
        self.ink = random_colour(rng, (0, 0.6), (0.02, 0.25))

    def surface(self, colour: np.ndarray) -> Image.Image:
        """A colour varied by a random surface (plain, mottled, striped, spotted), an RGB picture to fill with."""
        rng, side = self.rng, self.side
        style = rng.integers(4)
        if style == 1:
            pattern = fractal_noise(rng, side, side, int(rng.integers(4, 10)), 3, 0.6)
        elif style == 2:
            y, x = np.mgrid[0:side, 0:side] / side
            angle = rng.uniform(0, np.pi)
            pattern = np.sin(2 * np.pi * rng.uniform(6, 14) * (x * np.cos(angle) + y * np.sin(angle))) > 0
        elif style == 3:
            y, x = np.mgrid[0:side, 0:side] / side * rng.uniform(7, 12)
            pattern = np.hypot((x + 0.5 * (np.floor(y) % 2)) % 1 - 0.5, y % 1 - 0.5) < rng.uniform(0.2, 0.35)
        else:
            pattern = np.zeros((side, side))
        other = shade(colour, rng.choice([rng.uniform(0.6, 0.8), rng.uniform(1.3, 1.8)]))
        filled = colour + (other - colour) * np.asarray(pattern, np.float32)[..., None]
        return Image.fromarray(np.round(255 * filled).astype(np.uint8))

    def _corners(self, points: Points) -> list[tuple[float, float]]:
        return [tuple(point) for point in (np.asarray(points, float) + self.MARGIN) * self.unit]

    def _paste(self, mask: Image.Image, paint: Paint, opacity: float = 1) -> None:
        if not isinstance(paint, Image.Image):
            paint = Image.new("RGB", self.image.size, tuple(int(round(255 * c)) for c in paint))
        top = paint.convert("RGBA")
        top.putalpha(mask.point(lambda value: round(value * opacity)))
        self.image.alpha_composite(top)

    def fill(self, points: Points, paint: Paint, outline: bool = True, opacity: float = 1) -> None:
        """Fills a polygon with a colour or a surface, and draws its edge."""
        corners = self._corners(points)
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(corners, fill=255)
        self._paste(mask, paint, opacity)
        if outline:
            self.line(list(points) + [points[0]], self.outline, self.ink)

    def line(self, points: Points, width: float, paint: Paint) -> None:
        """A line with round joints and ends."""
        corners = self._corners(points)
        mask = Image.new("L", self.image.size)
        draw, radius = ImageDraw.Draw(mask), max(1, width * self.unit / 2)
        draw.line(corners, fill=255, width=round(2 * radius))
        for x, y in corners:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        self._paste(mask, paint)

    def dot(
        self, centre: tuple[float, float], radii: float | tuple[float, float], paint: Paint, outline: bool = False
    ) -> None:
        """A filled ellipse."""
        self.fill(arc(centre, radii), paint, outline)

    def finish(self) -> Image.Image:
        """Light from a random side, a random mirror image, cut to the edge and reduced to `pixels`."""
        array = np.asarray(self.image, np.float32)
        y, x = np.mgrid[0 : self.side, 0 : self.side] / self.side - 0.5
        angle = self.rng.uniform(0, 2 * np.pi)
        light = 1 + self.rng.uniform(0.1, 0.5) * (x * np.cos(angle) + y * np.sin(angle))
        array[..., :3] = np.clip(array[..., :3] * light[..., None], 0, 255)
        image = Image.fromarray(np.round(array).astype(np.uint8))
        if self.rng.uniform() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return cut_out(image, self.pixels)


def cut_out(image: Image.Image, pixels: int) -> Image.Image:
    """Cuts an RGBA picture to what is opaque and resizes its longer side to `pixels`."""
    image = image.crop(image.getchannel("A").point(lambda value: 255 * (value >= 16)).getbbox())
    scale = pixels / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS)
