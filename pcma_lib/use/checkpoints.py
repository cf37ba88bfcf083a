"""Weights on disk: safetensors with the model's settings inside, written beside and renamed."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ..data.files import write_atomically
from ..network.audio import VGGish


def write_tensors(path: str | Path, write: Callable[[str], object]) -> None:
    """`write_atomically` for torch's and safetensors' writers, whose errors of a full disk name neither it nor the file."""
    try:
        write_atomically(path, write)
    except (RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(Path(path).parent).free
        raise OSError(f"{path} could not be written, {free} bytes are free ({error}); the old one is kept") from None


def write_json(path: str | Path, content: object) -> None:
    """Write a JSON file whole or not at all."""
    write_atomically(path, lambda p: Path(p).write_text(json.dumps(content, indent=2) + "\n"))


def read_pickle(path: str | Path) -> Any:
    """What torch.save wrote to a file: tensors, numbers, text, lists and dicts; no code of the file is run.

    Raises:
        ValueError: not such a file, or it holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        found = str(error)
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in found:  # torch's advice is to run its code
            kind = re.search(r"GLOBAL (\S+)", found)
            found = f"it asks for {kind[1]}" if kind else "it is damaged, or holds code"
            found += (
                ". More than tensors is not read, as it could run any program that the file brings. "
                "Save the tensors alone where the file comes from: torch.save(model.state_dict(), 'weights.pth')"
            )
        raise ValueError(f"{path} is not a readable checkpoint ({type(error).__name__}: {found})") from None


def load_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Tensors by name from a .safetensors file, or from a .pth/.pt file without running the code a pickle may hold.

    Raises:
        FileNotFoundError: no such file. ValueError: not a readable checkpoint of tensors, or one with NaN or infinities.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except Exception as error:
            raise ValueError(f"{path} is not a readable checkpoint ({type(error).__name__}: {error})") from None
    else:
        state = read_pickle(path)
    for name in ("model", "model_state_dict", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(f"{path} holds {type(state).__name__}, expected tensors by name")
    if broken := _not_finite(state):
        raise ValueError(f"{path} holds NaN or infinities in {broken}; its training failed or the file is damaged")
    return state


def _not_finite(state):
    """The names of tensors with NaN or infinities, the first three of them spelt out."""
    names = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    return ", ".join(map(str, names[:3])) + f" and {len(names) - 3} more" * (len(names) > 3)


def save_model(
    path: str | Path, model: torch.nn.Module, settings: dict, metrics: dict | None = None, half: bool = False, **said: Any
) -> None:
    """Write the model's parameters and, inside the same file, what it takes to build it again.

    half=True stores 16-bit floats: half the size, for sharing; loading gives 32-bit parameters again.
    said: more to tell as JSON, such as inputs and origin; None is left out.

    Raises:
        ValueError: parameters beyond the range of 16-bit floats.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        if broken := _not_finite(state):
            raise ValueError(f"{path} was not written: {broken} would be infinite in 16 bits")
    said = {"settings": settings, "metrics": metrics or {}, **{k: v for k, v in said.items() if v is not None}}
    metadata = {k: json.dumps(v) for k, v in said.items()}
    write_tensors(path, lambda p: save_file(state, p, metadata=metadata))


def read_settings(path: str | Path) -> tuple[dict, dict, dict | None, dict | None]:
    """The settings, metrics, inputs and origin that `save_model` put into the file. The last two may be None."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        settings, metrics = json.loads(metadata["settings"]), json.loads(metadata["metrics"])
        inputs, origin = (json.loads(metadata.get(k, "null")) for k in ("inputs", "origin"))
    except (SafetensorError, KeyError, ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is not a checkpoint of this project ({type(error).__name__}: {error})") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is not a checkpoint of this project (its settings are {type(settings).__name__})")
    return settings, metrics, inputs, origin


def load_vggish(path: str | Path) -> VGGish:
    """VGGish with the released weights from a local file (safetensors, or a .pth read without unpickling code).

    Raises:
        FileNotFoundError: no such file. ValueError: not VGGish's parameters.
    """
    model = VGGish()
    state = {k: v for k, v in load_tensors(path).items() if not k.startswith("pproc.")}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold VGGish's parameters: {error}") from None
    return model.eval()
