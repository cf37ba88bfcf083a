"""The colours of the project, in figures, diagrams and marked videos alike, and a mask laid over a dimmed picture."""

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike

SOUND, PICTURE, TRUTH, CONFIDENCE, DOUBT = "#ff7f0e", "#1f77b4", "#2ca02c", "#7f7f7f", "#d6249f"
PREDICTION = MASK = SOUND  # what the network marks is what it hears
KEPT = ("#f2a7d8", DOUBT, "#7a1259")  # tokens still in doubt: M_3, M_2, M_1


def overlay(image: np.ndarray, mask: ArrayLike, colour: str) -> np.ndarray:
    """A picture [H, W, 3] with a mask [H, W] in 0..1 laid over it and the rest dimmed."""
    mask = np.asarray(mask, np.float32)[..., None]
    rgb = np.array(to_rgb(colour), np.float32)
    return image * (0.45 + 0.15 * mask) + 0.4 * mask * rgb
