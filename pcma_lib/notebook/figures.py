"""Figures of the notebooks: one helper a kind, and the same colours throughout (sound blue, mask orange, truth green)."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import soundfile
import torch
from IPython import get_ipython
from IPython.display import HTML
from matplotlib.ticker import NullFormatter
from matplotlib_inline.backend_inline import set_matplotlib_formats

from ..data.clip import MEAN, STD
from ..network.audio import SAMPLE_RATE
from ..use.overlay import KEPT, MASK, SOUND, TRUTH, overlay

WIDTH = 8  # inches; 100 dots an inch make 800 pixels

if get_ipython():  # a notebook shows its figures whatever MPLBACKEND says; with Agg it would print their names alone
    set_matplotlib_formats("jpeg")


def picture(frames):
    """Frames as the network takes them, [..., 3, H, W], back to [..., H, W, 3] in 0..1."""
    return (frames.float().cpu() * STD + MEAN).clamp(0, 1).movedim(-3, -1).numpy()


def _entitle(figure, title, legend=None):
    top, bottom = (0.22 / figure.get_figheight() if text else 0 for text in (title, legend))  # inches
    figure.suptitle(title, fontsize=9, y=1 - top / 4, va="top")
    figure.tight_layout(pad=0.3, rect=(0, bottom, 1, 1 - top))
    if legend:
        squares = [plt.matplotlib.patches.Patch(color=colour, label=name) for name, colour in legend.items()]
        figure.legend(handles=squares, loc="lower center", ncols=len(squares), fontsize=7, frameon=False)


def strip(frames, rows, log_mel=None, title=""):
    """A clip second by second: its frames, then a row of masks each, then its log-mel examples.

    Args:
        frames: [T, 3, H, W] as the network takes them.
        rows: dict of label to (mask [T, H, W] in 0..1, colour).
        log_mel: [T, 1, 96, 64], or None.
    """
    images = picture(frames)
    seconds = len(images)
    count = 1 + len(rows) + (log_mel is not None)
    figure, axes = plt.subplots(count, seconds, figsize=(WIDTH, WIDTH / seconds * count + 0.3), squeeze=False, dpi=90)
    for k in range(seconds):
        axes[0, k].imshow(images[k])
        axes[0, k].set_title(f"second {k}", fontsize=8)
        for axis, (mask, colour) in zip(axes[1:, k], rows.values()):
            axis.imshow(overlay(images[k], torch.as_tensor(mask)[k].float().cpu().numpy(), colour))
        if log_mel is not None:
            axes[-1, k].imshow(log_mel[k, 0].T.cpu(), origin="lower", aspect="auto", cmap="magma", vmin=-4.6, vmax=2)
    labels = ["frames", *rows, *(["log-mel, 64 bands"] if log_mel is not None else [])]
    for axis, label in zip(axes[:, 0], labels):
        axis.set_ylabel(label, fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    _entitle(figure, title)
    plt.close(figure)
    return figure


def curves(log, validations):
    """Loss, validation mIoU and kept tokens (fig. 8 of the paper) over the epochs of a run.

    Args:
        log, validations: rows of log.csv and validation.csv as dicts of numbers.
    """
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.6), dpi=90)
    epochs = np.array([float(r["epoch"]) for r in log])
    window = max(1, len(log) // 60)

    def smooth(key):
        values = np.array([float(r[key]) for r in log])
        kernel = np.ones(window) / window
        return epochs[window - 1 :], np.convolve(values, kernel, mode="valid")

    axes[0].plot(*smooth("loss"), color=MASK)
    axes[0].set(title="training loss, four stages", xlabel="epoch")
    axes[1].plot([float(r["epoch"]) for r in validations], [float(r["miou"]) for r in validations], "o-", color=TRUTH, ms=3)
    axes[1].set(title="validation mIoU, per frame", xlabel="epoch", ylim=(0, 1))
    for key, colour in zip(("kept_3", "kept_2", "kept_1"), KEPT):
        axes[2].plot(*smooth(key), color=colour, label=f"$M_{key[-1]}$")
    axes[2].set(title="share of tokens kept", xlabel="epoch", ylim=(0, 1.05))
    axes[2].legend(fontsize=7)
    figure.tight_layout(pad=0.4)
    plt.close(figure)
    return figure


def grid(rows, titles=(), title="", cmap="magma", limits=None, height=None, legend=None):
    """Maps side by side, a row each: attention, confidence, features.

    Args:
        rows: dict of label to a sequence of maps [H, W], or of pictures [H, W, 3] in 0..1.
        titles: one a column. limits: (lowest, highest) value of the colour map; None takes each map's own.
        height: of a row in inches; None makes maps square. legend: dict of name to colour, for a line below.
    """
    columns = max(len(r) for r in rows.values())
    height = height or WIDTH / max(columns, 4)
    figure, axes = plt.subplots(len(rows), columns, figsize=(WIDTH, height * len(rows) + 0.5), squeeze=False, dpi=90)
    low, high = limits or (None, None)
    for line, (label, maps) in zip(axes, rows.items()):
        for axis in line:
            axis.axis("off")
        for axis, image in zip(line, maps):
            axis.axis("on")
            image = image.detach().float().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
            axis.imshow(image, cmap=cmap, vmin=low, vmax=high, aspect="auto" if height < 1.2 else None)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(label, fontsize=8)
    for axis, text in zip(axes[0], titles):
        axis.set_title(text, fontsize=8)
    _entitle(figure, title, legend)
    plt.close(figure)
    return figure


def confusion(shares, names):
    """A confusion matrix [K, K], a row a true class, of shares from 0 (black) to 1 (white)."""
    figure, axis = plt.subplots(figsize=(WIDTH / 2 + 0.5, WIDTH / 2), dpi=90)
    axis.imshow(shares, cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=range(len(names)), yticks=range(len(names)), xlabel="marked as", ylabel="truth")
    size = min(7, 250 / len(names))
    axis.set_xticklabels(names, rotation=90, fontsize=size)
    axis.set_yticklabels(names, fontsize=size)
    figure.tight_layout(pad=0.4)
    plt.close(figure)
    return figure


def lines(panels, height=2.6):
    """Curves side by side.

    Args:
        panels: dict of title to a dict with "x", one entry "label": values a curve (dots where the label
            starts with "measured"), and optionally "xlabel", "ylabel", "log" ("x", "y" or "xy"), "marks" (vertical lines).
    """
    options = ("x", "xlabel", "ylabel", "log", "marks")
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, height), squeeze=False, dpi=90)
    for axis, (title, panel) in zip(axes[0], panels.items()):
        curves = {k: v for k, v in panel.items() if k not in options}
        for number, (label, values) in enumerate(curves.items()):
            style = "o" if label.startswith("measured") else "-"
            axis.plot(panel["x"], values, style, ms=4, lw=1.2, label=label, color=f"C{number}")
        for place in panel.get("marks", ()):
            axis.axvline(place, color="grey", lw=0.6, ls=":")
        for letter in panel.get("log", ""):
            getattr(axis, f"set_{letter}scale")("log")
            getattr(axis, f"{letter}axis").set_minor_formatter(NullFormatter())
        axis.set(xlabel=panel.get("xlabel", ""), ylabel=panel.get("ylabel", ""))
        axis.set_title(title, fontsize=9)
        axis.legend(fontsize=7)
    figure.tight_layout(pad=0.4)
    plt.close(figure)
    return figure


def bars(values, title="", spread=0.0):
    """Horizontal bars from top to bottom, the value beside each.

    Args:
        values: dict of label to a number from 0 to 1. spread: half length of the line across a bar's end, 0 for none.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 0.28 * len(values) + 0.6), dpi=90)
    axis.barh(list(values), list(values.values()), xerr=spread or None, color=SOUND, height=0.6)
    for place, value in enumerate(values.values()):
        axis.text(value + spread + 0.01, place, f"{value:.3f}", va="center", fontsize=7)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1))
    axis.tick_params(labelsize=7)
    axis.set_title(title, fontsize=9)
    figure.tight_layout(pad=0.4)
    plt.close(figure)
    return figure


def player(wave, label=""):
    """A sound [N] at 16 kHz as a small player that works on the web too."""

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(np.asarray(wave, np.float32), -1, 1), SAMPLE_RATE, format="MP3")
    data = base64.b64encode(buffer.getvalue()).decode()
    return HTML(f'<p>{label}<br><audio controls src="data:audio/mpeg;base64,{data}"></audio></p>')
