"""Other sounds for a clip: the controls that tell a model which listens from one which only looks.

The sound is changed as a waveform and goes through the same front end as every other. `other_sound` gives the mask that
the result is compared with: the object's own for "other_object", else the clip's original one (an empty prediction is
the right answer to all but the mixed controls, and its distance from the original mask is what shows it).
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .files import SAMPLE_RATE

if TYPE_CHECKING:
    from torch import Tensor

    from .avsbench import AVSBench
    from .clip import Raw

# name: what is heard
CONTROLS = {
    "muted": "zeros",
    "noise": "white noise at the clip's own level",
    "noise_mixed": "the clip's own sound with white noise 10 dB below it",
    "swapped": "another clip's sound, of a category that is not in this clip",
    "other_object": "a silent object of the same picture (composed data)",
    "off_screen": "a source that is not in the picture (composed data)",
    "off_screen_mixed": "the clip's own sound with a source that is not in the picture, at half its level",
}
COMPOSED_ONLY = ("other_object", "off_screen")
MIXED = ("noise_mixed", "off_screen_mixed")
FADE_SECONDS = 0.02


def right_to_mark(masks: "Tensor", control: str | None) -> "Tensor":
    """The pixels to mark under a control, or None for the clip's own sound: none where nothing visible sounds.

    Args:
        masks: of the clip as it is heard under the control, any shape.
    """
    return (masks > 0) & (control in (None, "other_object", *MIXED))


def rms(wave: np.ndarray) -> float:
    """The root mean square of a waveform [N], 0 for an empty one."""
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) if wave.size else 0.0


def other_sound(control: str, dataset: "AVSBench", index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The clip's waveform under a control and the mask to compare with.

    Args:
        control: a key of CONTROLS. dataset: an AVSBench. index: of the clip. rng: numpy Generator.

    Returns:
        wave [N] float32 and masks uint8 [T, H, W].

    Raises:
        ValueError: a control that is not known, or that has no answer for this clip.
    """
    raw = dataset.raw(index)
    wave, masks = raw.wave, raw.masks
    if control not in CONTROLS:
        raise ValueError(f"unknown control {control!r}; one of {', '.join(CONTROLS)}")
    if control == "muted":
        return np.zeros_like(wave), masks
    if control.startswith("noise"):
        level = rms(wave) * (10 ** (-10 / 20) if control in MIXED else 1)
        noise = rng.standard_normal(len(wave)).astype(np.float32) * level
        return (wave + noise if control in MIXED else noise), masks
    if control in COMPOSED_ONLY and raw.objects is None:
        raise ValueError(f"{dataset.name(index)}: control {control!r} needs composed data, with each object's sound alone")
    if control == "other_object":
        silent = silent_objects(raw)
        if not silent:
            raise ValueError(f"{dataset.name(index)} has no visible object that is silent throughout")
        chosen = int(rng.choice(silent))
        number = 1 if not dataset.semantic else dataset.classes[raw.objects[chosen]["class"]]
        return raw.object_waves[chosen], ((raw.instances == chosen + 1) * number).astype(np.uint8)
    foreign = _foreign_wave(dataset, index, rng, alone=control != "swapped")
    if control in MIXED:
        return wave + foreign * (0.5 * rms(wave) / max(rms(foreign), 1e-8)), masks
    return foreign, masks


def silent_objects(raw: "Raw") -> list[int]:
    """Numbers of the visible objects that sound in no second."""
    return [i for i, o in enumerate(raw.objects) if o["on_screen"] and not any(o["sounds"])]


def _foreign_wave(dataset, index, rng, alone):
    """The sound of another clip that shares no category with this one; alone=True takes one object's, where it can."""
    raw = dataset.raw(index)
    here = _heard(dataset, index) | {o["class"] for o in raw.objects or ()}
    for other in rng.permutation(len(dataset)):
        other = int(other)
        there = _heard(dataset, other)
        if other == index or not there:
            continue
        objects = dataset.objects(other) if alone else None
        if objects is not None:
            candidates = [i for i, o in enumerate(objects) if o["class"] not in here]
            if candidates:
                return np.resize(dataset.object_waves(other)[int(rng.choice(candidates))], len(raw.wave))
        elif not here & there:
            return np.resize(dataset.stored_wave(other), len(raw.wave))
    raise ValueError(f"no clip of split {dataset.split!r} has a category that is not in {dataset.name(index)}")


def _heard(dataset, index):
    """The categories that a clip's index says sound; where the index has none, the clip itself stands for one."""
    category = dataset.category(index) or dataset.name(index)
    return set(category.split("_and_")) - {"none"}


def gate(sounds: ArrayLike) -> np.ndarray:
    """The on/off curve of a sound, one switch a second: [T] of 0 and 1 -> [T * 16000] float64.

    A second that is off is exactly 0. Where one that is on borders on it, a raised-cosine fade of 20 ms lies inside the one
    that is on. A sound that is on at the edge of the clip is cut, not faded.
    """
    fade = round(FADE_SECONDS * SAMPLE_RATE)
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)
    curve = np.repeat(np.asarray(sounds, np.float64)[:, None], SAMPLE_RATE, axis=1)
    changes = np.diff(np.asarray(sounds, int))
    curve[1:][changes > 0, :fade] = rise
    curve[:-1][changes < 0, -fade:] = rise[::-1]
    return curve.ravel()


def remix(raw: "Raw", classes: dict | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw anew which objects of a composed clip sound, and when.

    The same picture with another sound and another truth is what a model that only looks can't get right.

    Args:
        raw: a composed `Raw`. classes: class numbers by name for semantic masks, None for binary ones.

    Returns:
        wave [N] float32, masks uint8 [T, H, W].
    """
    seconds = len(raw.frames)
    chosen = rng.permutation(len(raw.objects))[: rng.choice([0, 1, 2], p=[0.05, 0.6, 0.35])]
    wave = np.zeros_like(raw.wave)
    masks = np.zeros_like(raw.masks)
    for i in map(int, chosen):
        sounds = np.ones(seconds, int) if rng.random() < 0.5 else rng.integers(0, 2, seconds)
        wave += raw.object_waves[i] * gate(sounds) * rng.uniform(0.6, 1.2)
        number = 1 if classes is None else classes[raw.objects[i]["class"]]
        masks[(raw.instances == i + 1) & (sounds[:, None, None] > 0)] = number
    wave += rng.standard_normal(len(wave)).astype(np.float32) * 10 ** (rng.uniform(-65, -45) / 20)
    return wave, masks
