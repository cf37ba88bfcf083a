"""Weights on disk: safetensors with the model's settings inside, written beside and renamed."""

import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ..data.files import write_atomically


def write_tensors(path, write):
    """`write_atomically` for torch's and safetensors' writers, whose errors of a full disk name neither it nor the file."""
    try:
        write_atomically(path, write)
    except (RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(Path(path).parent).free
        raise OSError(f"{path} could not be written, {free} bytes are free ({error}); the old one is kept") from None


def write_json(path, content):
    write_atomically(path, lambda p: Path(p).write_text(json.dumps(content, indent=2) + "\n"))


def load_tensors(path):
    """Tensors by name from a .safetensors file, or from a .pth/.pt file without running the code a pickle may hold.

    Raises:
        FileNotFoundError: no such file. ValueError: not a readable checkpoint of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is not a readable checkpoint ({type(error).__name__}: {error})") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(f"{path} holds {type(state).__name__}, expected tensors by name")
    return state


def save_model(path, model, settings, metrics=None, half=False):
    """Write the model's parameters and, inside the same file, what it takes to build it again.

    half=True stores 16-bit floats: half the size, for sharing; loading gives 32-bit parameters again.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    metadata = {"settings": json.dumps(settings), "metrics": json.dumps(metrics or {})}
    write_tensors(path, lambda p: save_file(state, p, metadata=metadata))


def read_settings(path):
    """The settings and the metrics that `save_model` put into the file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        settings, metrics = json.loads(metadata["settings"]), json.loads(metadata["metrics"])
    except (SafetensorError, KeyError, ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is not a checkpoint of this project ({type(error).__name__}: {error})") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is not a checkpoint of this project (its settings are {type(settings).__name__})")
    return settings, metrics
