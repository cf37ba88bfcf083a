"""Makes a sound as long as a clip from a recording of any length: trimmed, divided among the splits, repeated."""

from __future__ import annotations

import numpy as np

from pcma_lib.data.files import SAMPLE_RATE as RATE

SHORTEST_DIVIDED = 3.0
SPLIT_PARTS = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
LOUDEST_PAUSE = 10 ** (-35 / 20)
LONGEST_PAUSE = 0.25
FADE = 160


def loudness(samples: np.ndarray, seconds: float = 0.03) -> np.ndarray:
    """RMS over a window that slides with its middle on each sample, shorter at the ends; [N]."""
    half, place = max(1, int(seconds * RATE / 2)), np.arange(len(samples))
    energy = np.concatenate([[0], np.cumsum(samples.astype(np.float64) ** 2)])
    first, last = np.maximum(place - half, 0), np.minimum(place + half, len(samples))
    return np.sqrt(np.maximum(energy[last] - energy[first], 0) / (last - first))


def trim(samples: np.ndarray) -> np.ndarray:
    """Without what is 35 dB or more below the loudest part at either end, and with pauses in between cut to 0.25 s."""
    level = loudness(samples)
    loud = np.flatnonzero(level > LOUDEST_PAUSE * level.max())
    keep = np.zeros(len(samples), bool)
    starts = np.flatnonzero(np.diff(loud, prepend=-RATE) > LONGEST_PAUSE * RATE)
    for run in np.split(loud, starts[1:]):
        keep[run[0] : run[-1] + 1 + int(LONGEST_PAUSE * RATE)] = True
    keep[loud[-1] + 1 :] = False
    return samples[keep]


def is_divided(recording: np.ndarray) -> bool:
    """Whether the splits use different parts of it: there are at least 3 s after trimming."""
    return len(trim(recording)) >= SHORTEST_DIVIDED * RATE


def segment(recording: np.ndarray, split: str) -> np.ndarray:
    """What a split may use: the first 60 %, the next or the last 20 % of at least 3 s, or all of a shorter recording."""
    samples = trim(recording)
    if len(samples) < SHORTEST_DIVIDED * RATE:
        return samples
    first, last = (round(part * len(samples)) for part in SPLIT_PARTS[split])
    return trim(samples[first:last])


def resampled(samples: np.ndarray, speed: float) -> np.ndarray:
    """Played `speed` times as fast, and so higher; by FFT."""
    count = max(1, round(len(samples) / speed))
    spectrum = np.fft.rfft(samples)
    return np.fft.irfft(spectrum[: count // 2 + 1], count) * count / len(samples)


def faded(samples: np.ndarray) -> np.ndarray:
    """With 10 ms raised-cosine fades at both ends."""
    fade = min(FADE, len(samples) // 2)
    curve = np.ones(len(samples))
    curve[:fade] = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / max(fade, 1))
    return samples * curve * curve[::-1]


def play(rng: np.random.Generator, samples: np.ndarray, seconds: int) -> np.ndarray:
    """A sound of `seconds`, up to 6 % faster or slower, that can be heard in every second.

    From 5 s up a random window is taken. What is shorter follows itself, after pauses of up to 0.3 s if it is below 2 s, and
    starts in the middle. Half of the difference in level between loud and quiet parts is taken out, and peaks are rounded
    off at 12 dB over the RMS.

    Args:
        samples: [N], trimmed.

    Returns:
        [seconds * 16000] float32 of RMS 1.
    """
    length = seconds * RATE
    sound = faded(resampled(samples, rng.uniform(0.94, 1.06)))
    if len(sound) < length:
        longest_pause = 0.3 if len(sound) < 2 * RATE else 0.0
        parts, total = [], 0
        while total < length + len(sound) + RATE:
            parts += [sound, np.zeros(int(rng.uniform(0, longest_pause) * RATE))]
            total += len(parts[-2]) + len(parts[-1])
        sound = np.concatenate(parts)
        start = int(rng.integers(len(parts[0]) + 1))
    else:
        start = int(rng.integers(len(sound) - length + 1))
    sound = sound[start : start + length]
    level = loudness(sound, 0.2)
    sound = sound / np.sqrt(np.maximum(level, 0.03 * level.max()))
    ceiling = 4 * np.sqrt(np.mean(sound**2))
    sound = ceiling * np.tanh(sound / ceiling)
    return (sound / np.sqrt(np.mean(sound**2))).astype(np.float32)
