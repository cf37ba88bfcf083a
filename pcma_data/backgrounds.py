"""Backgrounds drawn from random numbers: colours and textures that say nothing about which object sounds."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image


def random_colour(
    rng: np.random.Generator, saturation: tuple[float, float] = (0.1, 0.8), value: tuple[float, float] = (0.25, 0.95)
) -> np.ndarray:
    """A colour of random hue, [3] float in 0..1; `saturation` and `value` are ranges."""
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value)))


def resized(field: np.ndarray, height: int, width: int) -> np.ndarray:
    """A float field [h, w] enlarged smoothly to [height, width]."""
    image = Image.fromarray(field.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def fractal_noise(
    rng: np.random.Generator, height: int, width: int, coarsest: int, octaves: int, falloff: float
) -> np.ndarray:
    """Sum of smooth noises, each twice as fine and `falloff` times as strong as the one before; [height, width] in 0..1.

    Args:
        coarsest: number of grid cells along each side of the coarsest octave.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cells = coarsest * 2**octave
        if cells > max(height, width):
            break
        total += falloff**octave * resized(rng.standard_normal((cells + 1, cells + 1)), height, width)
    low, high = np.percentile(total, (2, 98))
    return np.clip((total - low) / max(high - low, 1e-6), 0, 1)


def _grid(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of every pixel in -0.5..0.5, turned by a random angle."""
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _gradient(rng, size):
    u, v = _grid(rng, size)
    if rng.uniform() < 0.5:
        return u + 0.5
    return np.clip(1.6 * np.hypot(u - rng.uniform(-0.3, 0.3), v - rng.uniform(-0.3, 0.3)), 0, 1)


def _noise(rng, size):
    return fractal_noise(rng, size, size, int(rng.integers(2, 12)), int(rng.integers(2, 6)), rng.uniform(0.45, 0.85))


def _soft_step(wave: np.ndarray, sharpness: float) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(sharpness * wave)


def _stripes(rng, size):
    u, v = _grid(rng, size)
    bend = rng.uniform(0, 0.06) * np.sin(2 * np.pi * rng.uniform(1, 3) * v)
    return _soft_step(np.sin(2 * np.pi * rng.uniform(2, 11) * (u + bend)), rng.uniform(0.7, 8))


def _checkers(rng, size):
    u, v = _grid(rng, size)
    count = rng.uniform(1.5, 6)
    return _soft_step(np.sin(2 * np.pi * count * u) * np.sin(2 * np.pi * count * v), rng.uniform(3, 20))


def _blobs(rng, size):
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    field = np.zeros((size, size))
    for _ in range(int(rng.integers(4, 16))):
        (cx, cy), radius = rng.uniform(-0.1, 1.1, 2), rng.uniform(0.06, 0.3)
        distance = np.hypot(x - cx, (y - cy) * rng.uniform(0.6, 1.6)) / radius
        field += rng.uniform(-1, 1) * _soft_step(1 - distance, rng.uniform(2, 10))
    return (field - field.min()) / max(np.ptp(field), 1e-6)


PATTERNS = (_gradient, _noise, _noise, _stripes, _checkers, _blobs)


def procedural_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """One or two patterns between random colours, under a slow change of light.

    Shapes:
        returns: [size, size, 3] float32 in 0..1.
    """
    image = np.empty((size, size, 3))
    image[:] = random_colour(rng)
    for _ in range(int(rng.integers(1, 3))):
        pattern = PATTERNS[int(rng.integers(len(PATTERNS)))](rng, size)[..., None]
        strength = rng.uniform(0.35, 1)
        image = image * (1 - strength * pattern) + random_colour(rng) * strength * pattern
    light = fractal_noise(rng, size, size, 2, 2, 0.5)[..., None]
    image = image * (1 + rng.uniform(0, 0.35) * (light - 0.5))
    image += rng.uniform(0, 0.03) * rng.standard_normal((size, size, 1))
    return np.clip(image, 0, 1).astype(np.float32)
