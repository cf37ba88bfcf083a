"""What a checkpoint says of its model: what it was shown, and where it comes from."""

import hashlib
import json
import subprocess
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pcma_lib

from ..use.inputs import ASSUMED, FRAME_AT

ORIGIN = ("version", "commit", "preset", "data", "seed", "seconds", "steps")


def describe(config, data):
    """What a checkpoint says of its model: `inputs` and `origin` of an `AudioVisualModel` that a `TrainConfig` trains.

    A composed frame stands for its whole second, and so for the middle. data: any split of what it is trained on.
    """
    names = sorted(data.classes, key=data.classes.get) if config.semantic else None
    frame_at = FRAME_AT if data.objects(0) is None else ASSUMED["frame_at"]
    counts = sorted(Counter(row["split"] for row in data.read_index(data.root)).items())
    fingerprint = hashlib.sha256((data.root / data.index_file).read_bytes() + json.dumps(counts).encode())
    origin = {"version": pcma_lib.__version__, "commit": _commit(), "preset": config.preset_name}
    origin |= {"data": fingerprint.hexdigest()[:12], "seed": config.seed, "seconds": 0.0, "steps": 0}
    return {**ASSUMED, "image_size": config.image_size, "frame_at": frame_at, "classes": names}, origin


@lru_cache(maxsize=1)
def _commit():
    """The commit of the checkout that this package lies in, or None outside of one."""
    root = Path(pcma_lib.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", root, "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
