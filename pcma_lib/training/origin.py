"""What a checkpoint says of its model: what it was shown, and where it comes from."""

import ast
import hashlib
import subprocess
from functools import lru_cache
from pathlib import Path

from torch.utils.data import Dataset

import pcma_lib

from ..use.inputs import ASSUMED, FRAME_AT
from .config import TrainConfig
from .data import clip_names

DECISIVE = ("network", "data", "training", "measure")
TYPED = ("commands.py", "__main__.py")  # what only reads a command line
ORIGIN = ("version", "commit", "code", "preset", "data", "seed", "seconds", "steps")


def describe(config: TrainConfig, data: Dataset) -> tuple[dict, dict]:
    """What a checkpoint says of its model: `inputs` and `origin` of an `AudioVisualModel` that a `TrainConfig` trains.

    A composed frame stands for its whole second, and so for the middle. data: any split of what it is trained on.
    """
    classes = getattr(data, "classes", {}) if data.num_classes > 1 else {}
    composed = hasattr(data, "objects") and data.objects(0) is not None
    names = sorted(classes, key=classes.get) or None
    inputs = {"image_size": getattr(data, "image_size", config.image_size), "classes": names}
    inputs["frame_at"] = ASSUMED["frame_at"] if composed else FRAME_AT
    if hasattr(data, "fingerprint"):
        fingerprint = data.fingerprint()
    else:
        fingerprint = hashlib.sha256("\n".join(clip_names(data)).encode()).hexdigest()[:12]
    origin = {**code(), "preset": config.preset_name, "data": fingerprint, "seed": config.seed, "seconds": 0.0, "steps": 0}
    return ASSUMED | inputs, origin


def code() -> dict:
    """The version of this package, the commit, and a hash of the code that a run's result depends on."""
    return {"version": pcma_lib.__version__, "commit": _commit(), "code": code_hash()}


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Changes when the network, the data, the training or the measures do.

    Comments, docstrings, type hints, the layout of the lines and the version of Python change nothing.
    """
    root, found = Path(pcma_lib.__file__).parent, hashlib.sha256()
    paths = sorted(p for room in DECISIVE for p in (root / room).glob("*.py") if p.name not in TYPED)
    for path in [root / "losses.py", *paths]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
            if isinstance(node, ast.FunctionDef):
                node.returns = None
            if isinstance(node, ast.arg):
                node.annotation = None
        found.update(f"{path.name} {_spelt(tree)}".encode())
    return found.hexdigest()[:12]


def _spelt(node):
    """A syntax tree without its empty fields, of which each version of Python has others."""
    if isinstance(node, list):
        return [_spelt(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
    return type(node).__name__, {name: _spelt(value) for name, value in fields.items()}


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
