"""The colours of the project, and a mask laid over a picture: in figures and in marked videos alike."""

import numpy as np
from matplotlib.colors import to_rgb

SOUND, MASK, TRUTH, KEPT = "#1f77b4", "#ff7f0e", "#2ca02c", ("#9467bd", "#d62728", "#8c564b")


def overlay(image, mask, colour):
    """A picture [H, W, 3] with a mask [H, W] in 0..1 laid over it and the rest dimmed."""
    mask = np.asarray(mask, np.float32)[..., None]
    rgb = np.array(to_rgb(colour), np.float32)
    return image * (0.45 + 0.15 * mask) + 0.4 * mask * rgb
