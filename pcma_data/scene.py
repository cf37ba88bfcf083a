"""Composes one audio-visual clip: objects that move over a background, some of which sound.

A clip is 5 frames, one a second, and 5 s of sound. What makes it a task for the ear as well as the eye: every clip
holds at least one visible object that never sounds, sources start and stop between seconds, some sounds come from off
screen, and some clips are silent. Which object sounds is drawn after everything that can be seen of it, so nothing in
the picture gives it away. No two objects of a clip are of one class: a silent bell beside a ringing one looks the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image

from .backgrounds import procedural_background
from .mixing import SECONDS, mix_sounds

SPLITS = ("train", "val", "test", "test_photographs", "test_sounds")  # the last two are for the stamps alone
KIND_SHARES = {"single": 0.35, "multi": 0.43, "offscreen": 0.12, "silent": 0.10}
OFFSCREEN_SHARE = 0.3
LEAST_VISIBLE = 0.4
SIZE_RANGE = {2: (0.32, 0.55), 3: (0.28, 0.48), 4: (0.25, 0.40)}
MOST_VISIBLE = max(SIZE_RANGE)
Background = Callable[[np.random.Generator, int], np.ndarray]


class ObjectKind(Protocol):
    """What can be put into a scene. `demo.py` draws and synthesises it, `stamps.py` reads it from files.

    Attributes:
        name: of this one object, such as "cow_white".
        class_name: of its class, such as "cow"; `label2idx.json` numbers the classes.
        tilt: it is turned by up to this many degrees to either side.
    """

    name: str
    class_name: str
    tilt: float

    def picture(self, rng: np.random.Generator, pixels: int) -> Image.Image:
        """RGBA picture cut to the object's edge, its longer side `pixels` long."""

    def sound(self, rng: np.random.Generator, seconds: int, split: str) -> np.ndarray:
        """[seconds * 16000] float32 of RMS 1, audible in every second."""

    def heard_in_training(self, split: str) -> bool:
        """Whether the sound that `split` uses is also used in training clips."""


@dataclass
class Clip:
    """One composed clip; the objects on screen come first, in the order in which they were drawn.

    Shapes:
        frames: [5, size, size, 3] uint8.
        instances: [5, size, size] uint8; i + 1 where object i is the one seen, 0 for background.
        mixture: [80000] int16, what is heard.
        sources: [80000, objects] int16, each object as if it sounded throughout, at its level in the mixture.
        objects: a dictionary each, as written to `objects.json`.
    """

    kind: str
    frames: np.ndarray
    instances: np.ndarray
    mixture: np.ndarray
    sources: np.ndarray
    objects: list[dict] = field(default_factory=list)


def clip_rng(seed: int, split: str, index: int) -> np.random.Generator:
    """A clip's own random numbers: they depend on nothing but the seed, the split and the index."""
    return np.random.default_rng(np.random.SeedSequence([seed, SPLITS.index(split), index]))


def clip_kind(seed: int, split: str, index: int) -> str:
    """The kind of clip `index`; steps of the golden ratio keep close to `KIND_SHARES` however few clips there are."""
    start = np.random.default_rng(np.random.SeedSequence([seed, SPLITS.index(split)])).uniform()
    position = (start + index * (np.sqrt(5) - 1) / 2) % 1
    edges = np.cumsum(list(KIND_SHARES.values()))
    return list(KIND_SHARES)[int(np.searchsorted(edges[:-1], position, side="right"))]


def draw_pattern(rng: np.random.Generator, fewest: int) -> np.ndarray:
    """An on/off pattern that changes: [5] of 0 and 1, with at least `fewest` and at most 4 seconds on."""
    pattern = np.zeros(SECONDS, int)
    pattern[rng.permutation(SECONDS)[: rng.integers(fewest, SECONDS)]] = 1
    return pattern


def draw_sounding(rng: np.random.Generator, kind: str, visible: int) -> np.ndarray:
    """Which of the visible objects sounds when: [visible, 5] of 0 and 1, with at least one row of zeros."""
    sounds = np.zeros((visible, SECONDS), int)
    order = rng.permutation(visible)
    if kind == "single":
        sounds[order[0]] = 1
    elif kind == "multi" and (visible == 2 or rng.uniform() < 0.3):
        sounds[order[0]] = draw_pattern(rng, 3)
    elif kind == "multi":
        while True:
            pair = np.stack([draw_pattern(rng, 2), draw_pattern(rng, 2)])
            if np.sum(pair.sum(0) == 0) <= 1 and (pair[0] != pair[1]).any():
                break
        sounds[order[:2]] = pair
    return sounds


@dataclass
class Path:
    """Where an object is: centres [5, 2] and sizes [5] as fractions of the frame's side, angles [5] in radians."""

    centres: np.ndarray
    sizes: np.ndarray
    angles: np.ndarray


def draw_path(rng: np.random.Generator, size: float, tilt: float) -> Path:
    """A smooth way through the frame: a line with a bend, slow turning and scaling. A quarter of the objects rest."""
    time = np.linspace(0, 1, SECONDS)
    moving = rng.uniform() < 0.75
    growth = rng.uniform(-0.12, 0.12) * moving
    sizes = size * (1 + growth * (2 * time - 1))
    margin = 0.42 * sizes.max()
    start = rng.uniform(margin, 1 - margin, 2)
    end = start + rng.uniform(-0.4, 0.4, 2) * moving
    bend = rng.uniform(-0.08, 0.08, 2) * moving
    centres = start + (end - start) * time[:, None] + bend * np.sin(np.pi * time)[:, None]
    angle = rng.uniform(-tilt, tilt)
    other = np.clip(angle + rng.uniform(-tilt, tilt) * moving, -tilt, tilt)
    return Path(np.clip(centres, margin, 1 - margin), sizes, np.deg2rad(angle + (other - angle) * time))


def place(sprite: Image.Image, path: Path, frame: int, side: int) -> Image.Image:
    """The sprite at its place in an otherwise transparent RGBA picture of `side` by `side` pixels."""
    scale = max(sprite.size) / (path.sizes[frame] * side)
    cos, sin = scale * np.cos(path.angles[frame]), scale * np.sin(path.angles[frame])
    x, y = path.centres[frame] * side
    left, top = sprite.width / 2 - cos * x - sin * y, sprite.height / 2 + sin * x - cos * y
    return sprite.transform((side, side), Image.Transform.AFFINE, (cos, sin, left, -sin, cos, top), Image.Resampling.BICUBIC)


def stack_instances(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Instance map [H, W] uint8 of alpha layers [H, W], later ones on top."""
    instances = np.zeros(layers[0].shape, np.uint8)
    for number, alpha in enumerate(layers, 1):
        instances[alpha >= 128] = number
    return instances


def draw_layers(
    rng: np.random.Generator, sprites: Sequence[Image.Image], sizes: Sequence[float], tilts: Sequence[float], side: int
) -> tuple[list[list[Image.Image]], np.ndarray]:
    """Paths on which every sprite keeps at least 40 % of its pixels in sight in every frame, and the sprites placed on them.

    Returns:
        layers, 5 lists of one RGBA picture for each sprite, and instances [5, side, side] uint8.
    """
    opaque = [np.mean(np.asarray(sprite.getchannel("A")) >= 128) * sprite.width * sprite.height for sprite in sprites]
    sizes = np.array(sizes)
    for attempt in range(1000):
        paths = [draw_path(rng, size, tilt) for size, tilt in zip(sizes, tilts)]
        layers, instances = [], []
        for frame in range(SECONDS):
            layers.append([place(sprite, path, frame, side) for sprite, path in zip(sprites, paths)])
            instances.append(stack_instances([np.asarray(layer.getchannel("A")) for layer in layers[-1]]))
            seen = np.bincount(instances[-1].ravel(), minlength=len(sprites) + 1)[1:]
            whole = [
                area * (path.sizes[frame] * side / max(sprite.size)) ** 2
                for area, path, sprite in zip(opaque, paths, sprites)
            ]
            if (seen < LEAST_VISIBLE * np.array(whole)).any():
                break
        else:
            return layers, np.stack(instances)
        if attempt % 50 == 49:
            sizes = np.maximum(sizes * 0.95, 0.25)
    raise RuntimeError(f"no places found for {len(sprites)} objects of sizes {sizes} in a frame of {side} pixels")


def render(rng: np.random.Generator, layers: Sequence[Sequence[Image.Image]], background: np.ndarray) -> np.ndarray:
    """Puts the layers over a background that drifts slowly, then varies exposure, contrast, white balance and grain.

    Shapes:
        background: [S, S, 3] float32 in 0..1, S at least the frame's side; the surplus is what the camera moves over.
        returns: [5, side, side, 3] uint8.
    """
    side = layers[0][0].width
    first, last = rng.uniform(0, background.shape[0] - side, (2, 2))
    gain, contrast = rng.uniform(0.88, 1.12) * rng.uniform(0.96, 1.04, 3), rng.uniform(0.88, 1.12)
    grain = rng.uniform(0, 0.02)
    frames = []
    for frame, sprites in enumerate(layers):
        left, top = np.round(first + (last - first) * frame / (SECONDS - 1)).astype(int)
        picture = background[top : top + side, left : left + side]
        for sprite in sprites:
            colour = np.asarray(sprite, np.float32) / 255
            picture = picture + (colour[..., :3] - picture) * colour[..., 3:]
        picture = gain * ((picture - 0.5) * contrast + 0.5) + grain * rng.standard_normal((side, side, 1))
        frames.append(np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8))
    return np.stack(frames)


def compose(
    rng: np.random.Generator,
    kinds: Sequence[ObjectKind],
    size: int,
    split: str,
    kind: str,
    background: Background = procedural_background,
) -> Clip:
    """Composes a clip of the given kind from objects of different classes.

    Args:
        kinds: what there is to choose from, of at least 5 classes; a class is drawn first, then one of its objects.
        size: side of the square frames, pixels.
        split: one of `SPLITS`; decides which part of a recording may be used.
        kind: "single" (one visible source throughout), "multi" (one or two that start and stop), "offscreen" (sound without
            a visible source) or "silent".
        background: called with random numbers and a side in pixels; returns [side, side, 3] float32 in 0..1.
    """
    classes = sorted({item.class_name for item in kinds})
    visible = int(rng.choice(list(SIZE_RANGE), p=[0.35, 0.45, 0.2]))
    members = [
        [item for item in kinds if item.class_name == classes[i]] for i in rng.permutation(len(classes))[: visible + 1]
    ]
    chosen = [options[int(rng.integers(len(options)))] for options in members]

    fractions = rng.uniform(*SIZE_RANGE[visible], visible)
    sprites = [item.picture(rng, int(np.ceil(1.12 * fraction * size))) for item, fraction in zip(chosen, fractions)]
    layers, instances = draw_layers(rng, sprites, fractions, [item.tilt for item in chosen[:visible]], size)
    frames = render(rng, layers, background(rng, int(np.ceil(1.15 * size))))

    sounds = draw_sounding(rng, kind, visible)
    decibels = rng.uniform(-24, -14, visible)
    if kind == "offscreen" or (kind in ("single", "multi") and rng.uniform() < OFFSCREEN_SHARE):
        throughout = kind == "offscreen" and rng.uniform() < 0.5
        sounds = np.vstack([sounds, np.ones(SECONDS, int) if throughout else draw_pattern(rng, 2)])
        decibels = np.append(decibels, rng.uniform(-24, -14) - (0 if kind == "offscreen" else 6))
    chosen = chosen[: len(sounds)]
    waveforms = np.stack([item.sound(rng, SECONDS, split) for item in chosen])
    mixture, sources = mix_sounds(rng, waveforms, decibels, sounds)
    objects = [
        {
            "name": item.name,
            "class": item.class_name,
            "on_screen": number < visible,
            "sounds": pattern.tolist(),
            "heard_in_training": item.heard_in_training(split),
        }
        for number, (item, pattern) in enumerate(zip(chosen, sounds))
    ]
    return Clip(kind, frames, instances, mixture, sources, objects)
