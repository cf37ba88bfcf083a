"""Mixes the sounds of a clip: each object's own sound, switched on and off by the second, over background noise."""

from __future__ import annotations

import numpy as np

from pcma_lib.data.controls import gate
from pcma_lib.data.files import SAMPLE_RATE

SECONDS = 5


def background_noise(rng: np.random.Generator, samples: int) -> np.ndarray:
    """White or pink noise of -60 to -45 dBFS RMS, [samples] float64."""
    noise = rng.standard_normal(samples)
    if rng.uniform() < 0.5:
        spectrum = np.fft.rfft(noise)
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 20 * samples / SAMPLE_RATE))
        noise = np.fft.irfft(spectrum, samples)
    return noise / np.sqrt(np.mean(noise**2)) * 10 ** (rng.uniform(-60, -45) / 20)


def mix_sounds(
    rng: np.random.Generator, waveforms: np.ndarray, decibels: np.ndarray, sounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mixes gated sounds with background noise.

    Where the sum or a sound alone would clip, everything is made quieter by one factor, so that the mixture stays the gated
    sum of the written sources plus the noise.

    Args:
        waveforms: [objects, 80000] of RMS 1.
        decibels: [objects] level of each, dBFS RMS.
        sounds: [objects, 5] of 0 and 1.

    Returns:
        mixture [80000] int16 and sources [80000, objects] int16.
    """
    sources = waveforms.astype(np.float64) * 10 ** (decibels[:, None] / 20)
    gates = np.stack([gate(pattern) for pattern in sounds])
    noise = background_noise(rng, sources.shape[1])
    peak = max(np.abs(sources).max(), np.abs((sources * gates).sum(0) + noise).max())
    scale = 32767 * min(1.0, 0.98 / peak)
    written = np.round(sources * scale).astype(np.int16)
    mixture = np.round((written * gates).sum(0) + noise * scale).astype(np.int16)
    return mixture, written.T
