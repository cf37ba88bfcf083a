"""Choosers for JupyterLab; every notebook shows a static picture beside them for readers on the web."""

import ipywidgets
import matplotlib.pyplot as plt
import torch
from IPython.display import display

from .controls import CONTROLS
from .evaluation import available_controls
from .figures import MASK, TRUTH, player, strip


def compare_sounds(model, dataset):
    """Choose a clip and a sound; hear it, and see the mask follow.

    Args:
        model: an `AudioVisualModel`. dataset: not in training mode.
    """
    names = ["its own", *available_controls(dataset)]
    clip = ipywidgets.IntSlider(0, 0, len(dataset) - 1, description="clip", continuous_update=False)
    sound = ipywidgets.Dropdown(options=names, description="sound")
    output = ipywidgets.Output()

    def show(_=None):
        chosen = dataset if sound.value == "its own" else dataset.with_sound(sound.value)
        example = chosen[clip.value]
        with torch.no_grad():
            marked = model(example.frames[None], example.log_mel[None]).logits[0][0, :, 0].sigmoid()
        rows = {"truth": (example.masks > 0, TRUTH), "marked": (marked, MASK)}
        with output:
            output.clear_output(wait=True)
            display(player(chosen.wave(clip.value), CONTROLS.get(sound.value, "the clip's own sound")))
            display(strip(example.frames, rows, example.log_mel, f"{example.name}, sound: {sound.value}"))
            plt.close("all")

    for control in (clip, sound):
        control.observe(show, "value")
    show()
    return ipywidgets.VBox([ipywidgets.HBox([clip, sound]), output])
