"""Synthesised sounds for the drawn objects, each of its own physical kind, with random pitch, tempo and timbre.

Every function returns [seconds * 16000] float64 that can be heard in every second. Their spectra lie where VGGish's mel
bands are, 125 to 7500 Hz. Sources: K. Karplus and A. Strong, "Digital synthesis of plucked-string and drum timbres",
Computer Music Journal 7(2), 1983; J.-C. Risset, "An introductory catalogue of computer synthesized sounds", Bell
Laboratories, 1969; N. H. Fletcher and T. D. Rossing, "The Physics of Musical Instruments", 2nd ed., Springer, 1998.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pcma_lib.data.files import SAMPLE_RATE as RATE

NYQUIST = RATE / 2
PENTATONIC = 2 ** (np.array([0, 2, 4, 7, 9, 12]) / 12)


def band_limited(signal: np.ndarray, low: float, high: float, order: float = 4) -> np.ndarray:
    """Passes `low` to `high` Hz, with edges that fall by `order` powers of the frequency; by FFT, so zero-phase."""
    frequency = np.fft.rfftfreq(len(signal), 1 / RATE)
    response = 1 / (1 + (frequency / high) ** order)
    response *= 1 - 1 / (1 + (np.maximum(frequency, 1e-3) / low) ** order)
    return np.fft.irfft(np.fft.rfft(signal) * response, len(signal))


def slow_noise(rng: np.random.Generator, samples: int, hertz: float) -> np.ndarray:
    """Noise of unit RMS with nothing above about `hertz`."""
    noise = band_limited(rng.standard_normal(samples), 1e-2, hertz)
    return noise / np.sqrt(np.mean(noise**2))


def oscillator(frequency: np.ndarray) -> np.ndarray:
    """Phase in radians of a tone whose frequency in Hz may change from sample to sample."""
    return 2 * np.pi * np.cumsum(frequency) / RATE


def envelope(samples: int, attack: float, release: float) -> np.ndarray:
    """1 between a linear attack and a linear release, both in seconds."""
    time = np.arange(samples) / RATE
    return np.clip(np.minimum((time + 1 / RATE) / attack, (samples / RATE - time) / release), 0, 1)


def onsets(rng: np.random.Generator, seconds: float, rate: float, jitter: float) -> Iterator[int]:
    """Samples at which events begin: `rate` a second, each gap off by up to the fraction `jitter`."""
    time = rng.uniform(-0.9, 0) / rate
    while time < seconds:
        if time >= 0:
            yield int(time * RATE)
        time += (1 + jitter * rng.uniform(-1, 1)) / rate


def add(track: np.ndarray, start: int, event: np.ndarray) -> None:
    """Adds `event` to `track` in place, cut at the end of the track."""
    end = min(len(track), start + len(event))
    track[start:end] += event[: end - start]


def plucked_string(rng: np.random.Generator, frequency: float, seconds: float, brightness: float, keep: float) -> np.ndarray:
    """A plucked string: a burst of noise that runs round a delay line through a two-point average (Karplus and Strong 1983).

    y[n] = keep * (y[n - P] + y[n - P - 1]) / 2. A sample depends on nothing later than P before it, so a whole period is
    computed at a time.
    """
    period = max(2, round(RATE / frequency - 0.5))
    burst = rng.uniform(-1, 1, period)
    for _ in range(int(round(3 * (1 - brightness)))):
        burst = 0.5 * (burst + np.roll(burst, 1))
    count = int(np.ceil(seconds * RATE / period))
    string = np.zeros((count + 1) * period + 1)
    string[1 : period + 1] = burst - burst.mean()
    for start in range(period + 1, len(string), period):
        string[start : start + period] = (
            0.5 * keep * (string[start - period : start] + string[start - period - 1 : start - 1])
        )
    return string[1 : 1 + int(seconds * RATE)] / np.sqrt(np.mean(burst**2))


def guitar(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """Plucked strings that ring into one another, 3 to 5 a second, coloured by two resonances of a wooden body."""
    track = np.zeros(seconds * RATE)
    lowest, brightness, keep = rng.uniform(110, 260), rng.uniform(0, 1), rng.uniform(0.985, 0.998)
    for start in onsets(rng, seconds, rng.uniform(3, 5), 0.15):
        note = plucked_string(rng, lowest * rng.choice(PENTATONIC), 1.2, brightness, keep)
        add(track, start, rng.uniform(0.7, 1) * note * envelope(len(note), 0.001, 0.1))
    return track + band_limited(track, 90, 130) + 0.7 * band_limited(track, 180, 260)


RISSET_BELL = np.array([  # frequency ratio, beat in Hz, amplitude, duration
    [0.56, 0, 1, 1], [0.56, 1, 0.67, 0.9], [0.92, 0, 1, 0.65], [0.92, 1.7, 1.8, 0.55], [1.19, 0, 2.67, 0.325],
    [1.7, 0, 1.67, 0.35], [2, 0, 1.46, 0.25], [2.74, 0, 1.33, 0.2], [3, 0, 1.33, 0.15], [3.76, 0, 1, 0.1],
    [4.07, 0, 1.33, 0.075],
])  # fmt: skip


def bell(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """A struck bell from the eleven inharmonic partials of Risset's catalogue (1969), each with its own decay."""
    track = np.zeros(seconds * RATE)
    ratio, beat, amplitude, duration = RISSET_BELL.T
    frequency = rng.uniform(550, 1100) * ratio * rng.uniform(0.98, 1.02, len(ratio)) + beat
    amplitude = amplitude * rng.uniform(0.5, 1.5, len(ratio))
    time = np.arange(int(3.0 * RATE)) / RATE
    decay = rng.uniform(2.0, 3.5) / 6.9 * duration
    strike = (amplitude[:, None] * np.exp(-time / decay[:, None]) * np.sin(2 * np.pi * frequency[:, None] * time)).sum(0)
    for start in onsets(rng, seconds, rng.uniform(1.3, 2.4), 0.08):
        add(track, start, rng.uniform(0.7, 1) * strike * envelope(len(strike), 0.002, 0.2))
    return track


MEMBRANE_RATIOS = np.array([1, 1.594, 2.136, 2.296, 2.653, 2.918, 3.156, 3.501, 3.6])


def drum(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """A struck membrane: modes at zeros of Bessel functions (Fletcher and Rossing, ch. 3), a falling pitch, noise."""
    track = np.zeros(seconds * RATE)
    fundamental, noise_level = rng.uniform(90, 190), rng.uniform(0.15, 0.5)
    amplitude = rng.uniform(0.4, 1, len(MEMBRANE_RATIOS)) / MEMBRANE_RATIOS**0.7
    decay = rng.uniform(0.07, 0.16) / MEMBRANE_RATIOS**0.6
    time = np.arange(int(0.5 * RATE)) / RATE
    phase = oscillator(fundamental * (1 + rng.uniform(0.1, 0.4) * np.exp(-time / 0.03)))
    modes = (amplitude[:, None] * np.exp(-time / decay[:, None]) * np.sin(MEMBRANE_RATIOS[:, None] * phase)).sum(0)
    colour = rng.uniform(1500, 5000)
    for start in onsets(rng, seconds, rng.uniform(2.5, 5), 0.2):
        burst = band_limited(rng.standard_normal(len(time)), 200, colour) * np.exp(-time / 0.025)
        add(
            track, start, rng.uniform(0.6, 1) * (modes + noise_level * burst / burst.std()) * envelope(len(time), 0.001, 0.1)
        )
    return track


def siren(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """An alarm: a tone of five harmonics that sweeps up and down 1.2 to 3 times a second (frequency modulation)."""
    time = np.arange(seconds * RATE) / RATE
    low = rng.uniform(450, 750)
    high = low * rng.uniform(1.8, 2.4)
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * rng.uniform(1.2, 3) * time + rng.uniform(0, 2 * np.pi))
    phase = oscillator(low * (high / low) ** (sweep ** rng.uniform(0.6, 1.6)))
    strength = 1 / np.arange(1, 6) ** rng.uniform(0.7, 1.5)
    return sum(level * np.sin(number * phase) for number, level in enumerate(strength, 1) if number * high < NYQUIST)


def bird(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """Song of 5 to 9 short syllables a second, two or three in turn, each a tone that glides between 1.8 and 6.8 kHz."""
    track = np.zeros(seconds * RATE)
    syllables = []
    for _ in range(int(rng.integers(2, 4))):
        time = np.linspace(0, 1, int(rng.uniform(0.05, 0.12) * RATE))
        first, last = rng.uniform(2200, 6000, 2)
        frequency = first + (last - first) * time + rng.uniform(-800, 800) * np.sin(np.pi * time)
        frequency += rng.choice([0, 350]) * np.sin(2 * np.pi * rng.uniform(3, 6) * time)
        phase = oscillator(np.clip(frequency, 1800, 6800))
        syllables.append((np.sin(phase) + rng.uniform(0, 0.1) * np.sin(0.5 * phase)) * np.sin(np.pi * time) ** 0.7)
    for number, start in enumerate(onsets(rng, seconds, rng.uniform(5, 9), 0.25)):
        add(track, start, rng.uniform(0.6, 1) * syllables[number % len(syllables)])
    return track


def engine(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """An idling engine: 14 to 30 uneven explosions a second, each a burst through the resonances of exhaust and body."""
    samples = seconds * RATE
    cylinders = rng.uniform(0.6, 1, int(rng.integers(2, 5)))
    pulses = np.zeros(samples)
    for number, start in enumerate(onsets(rng, seconds, rng.uniform(14, 30), 0.12)):
        pulses[start] = cylinders[number % len(cylinders)] * rng.uniform(0.8, 1.2)
    time = np.arange(int(0.12 * RATE)) / RATE
    response = np.zeros(len(time))
    for frequency, decay in zip(rng.uniform([130, 280, 550, 1000], [220, 450, 900, 1800]), (0.02, 0.014, 0.009, 0.005)):
        response += rng.uniform(0.4, 1) * np.exp(-time / decay) * np.sin(2 * np.pi * frequency * time)
    size = samples + len(time)
    explosions = np.fft.irfft(np.fft.rfft(pulses, size) * np.fft.rfft(response, size), size)[:samples]
    rattle = band_limited(rng.standard_normal(samples), 300, 2500) * (0.2 + np.abs(explosions))
    return explosions + rng.uniform(0.15, 0.5) * rattle


def clock(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """Tick and tock in turn, 3 to 5.5 a second: clicks that make four resonances of metal and wood ring briefly."""
    track = np.zeros(seconds * RATE)
    time = np.arange(int(0.12 * RATE)) / RATE
    frequency = rng.uniform([900, 1700, 2800, 4200], [1600, 2700, 4000, 6500])
    decay = rng.uniform([0.012, 0.009, 0.006, 0.004], [0.03, 0.02, 0.012, 0.008])
    beats = []
    for _ in range(2):
        amplitude = rng.uniform(0.3, 1, 4)
        beat = (amplitude[:, None] * np.exp(-time / decay[:, None]) * np.sin(2 * np.pi * frequency[:, None] * time)).sum(0)
        beats.append(beat + 0.5 * np.exp(-time / 0.002) * rng.standard_normal(len(time)))
        frequency = frequency * rng.uniform(0.75, 0.95)
    for number, start in enumerate(onsets(rng, seconds, rng.uniform(3, 5.5), 0.01)):
        add(track, start, beats[number % 2])
    return track


def flute(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """Long tones with few harmonics, vibrato of 4.5 to 6.5 Hz and the breath's noise (Fletcher and Rossing, ch. 16)."""
    samples = seconds * RATE
    track = np.zeros(samples)
    lowest, strength = (
        rng.uniform(480, 800),
        np.array([1, rng.uniform(0.15, 0.5), rng.uniform(0.05, 0.2), rng.uniform(0, 0.05)]),
    )
    vibrato, depth, breath = rng.uniform(4.5, 6.5), rng.uniform(0.004, 0.012), rng.uniform(0.03, 0.12)
    start = 0
    while start < samples:
        count = int(rng.uniform(0.3, 0.8) * RATE)
        time = np.arange(count + RATE // 25) / RATE
        swing = np.sin(2 * np.pi * vibrato * time)
        phase = oscillator(lowest * rng.choice(PENTATONIC) * (1 + depth * swing))
        note = sum(level * np.sin(number * phase) for number, level in enumerate(strength, 1))
        add(track, start, note * (1 + 0.15 * swing) * envelope(len(time), 0.05, 0.05))
        start += count
    return track + breath * band_limited(rng.standard_normal(samples), 700, 4000, 2)


def frog(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """Croaks, 2 to 3.5 a second: a low tone through two resonances, in 25 to 50 pulses a second (amplitude modulation)."""
    track = np.zeros(seconds * RATE)
    throat, pulse_rate = rng.uniform(90, 160), rng.uniform(25, 50)
    formants = rng.uniform([350, 900], [650, 1600])
    for start in onsets(rng, seconds, rng.uniform(2, 3.5), 0.15):
        time = np.arange(int(rng.uniform(0.16, 0.3) * RATE)) / RATE
        phase = oscillator(throat * (1 + 0.15 * np.sin(np.pi * time / time[-1])))
        croak = np.zeros(len(time))
        for number in range(2, 25):
            distance = np.abs(number * throat - formants) / (0.12 * formants + 60)
            croak += np.exp(-(distance**2)).sum() * np.sin(number * phase)
        pulses = np.abs(np.sin(np.pi * pulse_rate * time)) ** 3
        add(track, start, rng.uniform(0.7, 1) * croak * pulses * envelope(len(time), 0.02, 0.05))
    return track


def kettle(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """A whistling kettle: a tone of 2 to 3.6 kHz and its octave, blurred into narrow bands of noise, over hissing steam."""
    samples = seconds * RATE
    wander = rng.uniform(0.003, 0.008) * slow_noise(rng, samples, 4) + rng.uniform(0.0005, 0.002) * slow_noise(
        rng, samples, 60
    )
    phase = oscillator(rng.uniform(2000, 3600) * (1 + wander))
    flutter = 1 + 0.3 * slow_noise(rng, samples, 25)
    whistle = np.sin(phase) + rng.uniform(0.1, 0.4) * np.sin(2 * phase)
    return whistle * flutter + rng.uniform(0.1, 0.35) * band_limited(rng.standard_normal(samples), 1500, 7000, 2)


SOUNDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    f.__name__: f for f in (guitar, bell, drum, siren, bird, engine, clock, flute, frog, kettle)
}


def synthesise(name: str, rng: np.random.Generator, seconds: int) -> np.ndarray:
    """The sound of class `name` with a random tilt of its spectrum, [seconds * 16000] float32 of RMS 1.

    It has been going on for a second when it begins. Peaks are rounded off at 12 dB over the RMS, as a limiter would, so
    that clicks and strikes can be as loud as tones without clipping.
    """
    sound = SOUNDS[name](rng, seconds + 1)[RATE:]
    frequency = np.maximum(np.fft.rfftfreq(len(sound), 1 / RATE), 60)
    sound = np.fft.irfft(np.fft.rfft(sound) * (frequency / 1000) ** rng.uniform(-0.3, 0.3), len(sound))
    ceiling = 4 * np.sqrt(np.mean(sound**2))
    sound = ceiling * np.tanh(sound / ceiling)
    return (sound / np.sqrt(np.mean(sound**2))).astype(np.float32)
