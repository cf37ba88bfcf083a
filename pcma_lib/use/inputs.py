"""What a model was shown in training, which using it needs to know."""

import warnings
from pathlib import Path

from ..data.clip import MEAN, STD

# What a model is shown unless its checkpoint says otherwise: pixels a side, ImageNet's normalisation, where in its second a
# frame lies, and the names of the classes, None for a mask of what sounds.
ASSUMED = {
    "image_size": 224,
    "mean": [round(v, 6) for v in MEAN.flatten().tolist()],
    "std": [round(v, 6) for v in STD.flatten().tolist()],
    "frame_at": 0.5,
    "classes": None,
}
FRAME_AT = 15 / 16  # of AVSBench's frames, as its script for S4 and MS3 takes them; AVSS does not tell


def check_inputs(path: str | Path, inputs: dict | None) -> dict:
    """What a checkpoint says of its model's inputs; ASSUMED, with a warning, where it says nothing.

    Raises:
        ValueError: values that make no sense, or a normalisation that is not this project's.
    """
    if inputs is None:
        warnings.warn(
            f"{path} does not say what its model was shown in training. Assumed are pictures of {ASSUMED['image_size']} px, "
            "from the middle of each second. Give the right size by hand, or set model.inputs and save the model again.",
            stacklevel=4,
        )
        return dict(ASSUMED)
    if not isinstance(inputs, dict):
        raise ValueError(f"{path} has inputs of the type {type(inputs).__name__}, expected a dict")
    inputs = {**ASSUMED, **inputs}
    size, at, classes = (inputs[k] for k in ("image_size", "frame_at", "classes"))
    fits = {
        "image_size": type(size) is int and size > 0 and size % 32 == 0,
        "frame_at": type(at) in (int, float) and 0 <= at < 1,
        "classes": classes is None or isinstance(classes, list) and all(isinstance(c, str) for c in classes),
    }
    if wrong := [f"{k} {inputs[k]!r}" for k, fit in fits.items() if not fit]:
        raise ValueError(f"{path} has inputs that no model takes: {', '.join(wrong)}")
    for key in ("mean", "std"):
        if inputs[key] != ASSUMED[key]:
            raise ValueError(
                f"{path} takes frames normalised with {key} {inputs[key]}; this project's have ImageNet's {ASSUMED[key]}"
            )
    return inputs
