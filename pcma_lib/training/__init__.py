"""Training that can be killed at any moment and goes on as if it had not been: `fit` with a `TrainConfig`."""

from .config import TrainConfig
from .loop import fit, main

__all__ = ["TrainConfig", "fit", "main"]
