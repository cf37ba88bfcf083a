"""Training that can be killed at any moment and goes on as if it had not been: `fit` with a `TrainConfig`."""

from .. import needing
from .config import TrainConfig

__all__ = ["TrainConfig", "fit", "main", "test"]


def __getattr__(name):  # what needs the extra is imported when it is first asked for
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needing("train"):
        from . import commands
    return getattr(commands, name)
