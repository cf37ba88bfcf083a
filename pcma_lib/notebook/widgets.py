"""Choosers for JupyterLab; every notebook shows a static picture beside them for readers on the web."""

import ipywidgets
import torch
from IPython.display import display

from ..data.avsbench import AVSBench
from ..data.controls import CONTROLS, right_to_mark
from ..measure.evaluation import available_controls
from ..network.cim import confidence
from ..use.model import AudioVisualModel
from .figures import PREDICTION, TRUTH, frame_with, grid, player, strip

OWN = "its own"


def _chooser(draw, **controls):
    """Controls in a row above what `draw` shows for their values; drawn again whenever one changes."""
    output = ipywidgets.Output()

    def show(_=None):
        with output:
            output.clear_output(wait=True)
            for item in draw(**{name: control.value for name, control in controls.items()}):
                display(item)

    for name, control in controls.items():
        control.description = name
        control.observe(show, "value")
    show()
    return ipywidgets.VBox([ipywidgets.HBox(list(controls.values())), output])


def _slider(last):
    return ipywidgets.IntSlider(0, 0, last, continuous_update=False)


def _sounds(dataset):
    return ipywidgets.Dropdown(options=[OWN, *available_controls(dataset)])


def _heard(dataset, sound):
    return dataset if sound == OWN else dataset.with_sound(sound)


def _truth(example, sound):
    return right_to_mark(example.masks, None if sound == OWN else sound)


def compare_sounds(model: AudioVisualModel, dataset: AVSBench) -> ipywidgets.VBox:
    """Choose a clip and a sound; hear it, and see the mask follow.

    Args:
        model: an `AudioVisualModel`. dataset: not in training mode.
    """

    @torch.no_grad()
    def draw(clip, sound):
        heard = _heard(dataset, sound)
        example = heard[clip]
        marked = model(example.frames[None], example.log_mel[None]).finest[0, :, 0].sigmoid()
        rows = {"truth": (_truth(example, sound), TRUTH), "marked": (marked, PREDICTION)}
        yield player(heard.wave(clip), CONTROLS.get(sound, "the clip's own sound"))
        yield strip(example.frames, rows, example.log_mel, f"{example.name}, sound: {sound}")

    return _chooser(draw, clip=_slider(len(dataset) - 1), sound=_sounds(dataset))


def choose_attention(model: AudioVisualModel, dataset: AVSBench) -> ipywidgets.VBox:
    """Choose a clip, a second, a stage and a sound; see AVGA's attention, group by group."""
    network = model.network

    @torch.no_grad()
    def draw(clip, second, stage, sound):
        example = _heard(dataset, sound)[clip]
        audio = network.audio(model.embed(example.log_mel[None])[0])
        level = network.pyramid(example.frames)[stage - 1]
        maps = network.avga[stage - 1].attention(level, audio)[1][second]
        titles = ["truth", *(f"group {n + 1}" for n in range(len(maps)))]
        pictures = [frame_with(None, example.frames[second], truth=_truth(example, sound)[second]), *maps]
        yield grid({f"stage {stage}": pictures}, titles, f"{example.name}, sound: {sound}", limits=(0, 1))

    stage = ipywidgets.Dropdown(options=[1, 2, 3, 4])
    seconds = len(dataset.raw(0).frames) - 1
    return _chooser(draw, clip=_slider(len(dataset) - 1), second=_slider(seconds), stage=stage, sound=_sounds(dataset))


def choose_threshold(model: AudioVisualModel, dataset: AVSBench) -> ipywidgets.VBox:
    """Choose a clip, a second and the threshold c; see which tokens CIM keeps with the trained weights."""

    @torch.no_grad()
    def draw(clip, second, threshold):
        example, cim = dataset[clip], model.network.cim
        trained, cim.threshold = cim.threshold, threshold
        try:
            out = model(example.frames[None], example.log_mel[None])
        finally:
            cim.threshold = trained
        frame = example.frames[second]
        logits = out.finest[0, second]
        pictures = [frame_with(None, frame, prediction=logits[0].sigmoid()), confidence(logits[None])[0, 0]]
        pictures += [frame_with(None, frame, mask=mask[0, second, 0]) for mask in out.masks]
        kept = [f"$M_{3 - i}$: {mask.mean():.0%} kept" for i, mask in enumerate(out.masks)]
        yield grid({f"c = {threshold}": pictures}, ["marked", "confidence", *kept], example.name, "gray", limits=(0.5, 1))

    threshold = ipywidgets.SelectionSlider(options=[0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999], value=0.99)
    threshold.continuous_update = False
    seconds = len(dataset.raw(0).frames) - 1
    return _chooser(draw, clip=_slider(len(dataset) - 1), second=_slider(seconds), threshold=threshold)
