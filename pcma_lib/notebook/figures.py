"""Figures of the notebooks, in one visual language.

Sound is orange and the picture blue. The truth is a green contour, a prediction an orange fill, both on the bright frame.
Confidence is grey, and cells in doubt are magenta. Every map has a colour bar or says its range.
"""

import base64
import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import soundfile
import torch
from IPython import get_ipython
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from matplotlib_inline.backend_inline import set_matplotlib_formats
from numpy.typing import ArrayLike
from PIL import Image, ImageColor

from ..data.clip import MEAN, STD
from ..network.audio import EXAMPLE_SECONDS, SAMPLE_RATE
from ..use.overlay import CONFIDENCE, DOUBT, KEPT, MASK, PICTURE, PREDICTION, SOUND, TRUTH, overlay  # noqa: F401

Array = torch.Tensor | np.ndarray
WIDTH, DPI = 8, 100  # inches and dots an inch: 800 pixels, stored at twice that
PIXEL = 72 / DPI  # points
SMALL = 120_000  # bytes of a picture
LOG_MEL = (-4.6, 2)  # from log(0.01), silence, to a loud tone
HERTZ = (250, 500, 1000, 2000, 4000)  # on the axis of a spectrogram
STYLE = {"font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10, "figure.titlesize": 11, "legend.fontsize": 9}
STYLE |= {"xtick.labelsize": 9, "ytick.labelsize": 9, "figure.dpi": DPI, "savefig.dpi": 2 * DPI}
STYLE |= {"image.interpolation": "nearest"}
STYLE |= {"axes.prop_cycle": plt.cycler(color=[PICTURE, SOUND, TRUTH, DOUBT, CONFIDENCE, "#9467bd", "#8c564b", "#17becf"])}
plt.rcParams.update(STYLE)


def _png(figure):
    """A figure as a PNG at twice the size, and the size to show it at. A large one keeps 256 colours, our own among them."""
    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=2 * DPI, bbox_inches="tight", pad_inches=0.05)
    image = Image.open(drawn).convert("RGB")
    image.save(packed, format="PNG", optimize=True)
    if packed.tell() > SMALL:
        own = [ImageColor.getrgb(colour) for colour in ("white", "black", SOUND, PICTURE, TRUTH, CONFIDENCE, *KEPT)]
        few = image.quantize(256 - len(own), kmeans=1)
        number = np.asarray(few) + len(own)
        for k, colour in enumerate(own):
            number[(np.asarray(image) == colour).all(-1)] = k
        packed, few = io.BytesIO(), [*sum(own, ()), *few.getpalette()]
        image = Image.fromarray(number.astype(np.uint8))
        image.putpalette(few)
        image.save(packed, format="PNG", optimize=True)
    return packed.getvalue(), {"width": image.width // 2, "height": image.height // 2}


if get_ipython():  # a notebook shows its figures whatever MPLBACKEND says; with Agg it would print their names alone
    set_matplotlib_formats("png")
    get_ipython().display_formatter.formatters["image/png"].for_type(Figure, _png)


def _figure(rows, columns, height, title="", legend=None):
    """A figure that is shown once, where its cell returns it, and its axes [rows, columns]."""
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False, layout="constrained")
    plt.close(figure)
    figure.suptitle(title)
    if legend:
        squares = [plt.matplotlib.patches.Patch(color=colour, label=name) for name, colour in legend.items()]
        figure.legend(handles=squares, loc="outside lower center", ncols=min(len(squares), 5), frameon=False)
    return figure, axes


def _array(values):
    return values.detach().float().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def picture(frames: torch.Tensor) -> np.ndarray:
    """Frames as the network takes them, [..., 3, H, W], back to [..., H, W, 3] in 0..1."""
    return (frames.float().cpu() * STD + MEAN).clamp(0, 1).movedim(-3, -1).numpy()


def _in_greys(image: np.ndarray) -> np.ndarray:
    """A picture [H, W, 3] without its colours, as bright as before."""
    return np.repeat(image @ np.float32([[0.2126], [0.7152], [0.0722]]), 3, -1)


def _mark(axis, mask, colour, side, filled):
    """A mask [h, w] in 0..1 over a frame of `side` (H, W): a fill as strong as the mask, and a contour at 0.5."""
    mask = _array(mask).astype(np.float32)
    if filled:
        fill = np.broadcast_to(np.array(to_rgba(colour), np.float32), (*mask.shape, 4)).copy()
        fill[..., 3] = 0.55 * mask
        axis.imshow(fill, extent=(-0.5, side[1] - 0.5, side[0] - 0.5, -0.5))
    elif mask.any():
        places = [(np.arange(-1, n + 1) + 0.5) * whole / n - 0.5 for n, whole in zip(mask.shape, side)]
        axis.contour(places[1], places[0], np.pad(mask, 1), levels=[0.5], colors=[colour], linewidths=2 * PIXEL)
        axis.set(xlim=(-0.5, side[1] - 0.5), ylim=(side[0] - 0.5, -0.5))


def frame_with(
    axis: Axes | None, frame: Array, truth: Array | None = None, prediction: Array | None = None, mask: Array | None = None
) -> Callable | None:
    """The bright frame with the truth as a contour, the prediction as a fill, and the cells of a mask with their grid.

    Args:
        axis: to draw on; None returns a picture that `grid` draws.
        frame: [3, H, W] as the network takes it, or [H, W, 3] in 0..1.
        truth, prediction: [H, W] in 0..1, or of a coarser map. mask: [h, w], a cell a token; 1 is magenta, over the
            frame in greys, since an object may be magenta itself.
    """
    if axis is None:
        return functools.partial(frame_with, frame=frame, truth=truth, prediction=prediction, mask=mask)
    image = picture(frame) if frame.shape[-1] != 3 else _array(frame)
    side = image.shape[:2]
    axis.imshow(image if mask is None else _in_greys(image))
    for given, colour, filled in ((prediction, PREDICTION, True), (mask, DOUBT, True), (truth, TRUTH, False)):
        if given is not None:
            _mark(axis, given, colour, side, filled)
    if mask is not None:
        for draw, whole, cells in zip((axis.hlines, axis.vlines), side, mask.shape):
            draw(np.linspace(0, whole, cells + 1) - 0.5, -0.5, side[draw == axis.hlines] - 0.5, "white", lw=0.5, alpha=0.6)
    axis.set(xticks=[], yticks=[])


def band_of(hertz: ArrayLike) -> ArrayLike:
    """Where a frequency lies on the axis of the 64 mel bands, of which the first reaches from 0 to 1."""
    low, high, place = (np.log1p(np.asarray(f) / 700) for f in (125, 7500, hertz))
    return 65 * (place - low) / (high - low) - 0.5


def spectrogram_image(log_mel: Array) -> np.ndarray:
    """Log-mel examples [T, 1, 96, 64] one after another as a picture [64, 96 T, 3] in 0..1, high bands at the top."""
    bands = _array(log_mel).reshape(-1, 64).T[::-1]
    return plt.colormaps["magma"]((bands - LOG_MEL[0]) / (LOG_MEL[1] - LOG_MEL[0]))[..., :3]


def _spectrogram(axis, log_mel):
    """Log-mel examples one after another over seconds and hertz; returns what a colour bar takes."""
    bands = _array(log_mel).reshape(-1, 64).T
    end = bands.shape[1] / 96 * EXAMPLE_SECONDS
    shown = axis.imshow(
        bands, origin="lower", aspect="auto", cmap="magma", vmin=LOG_MEL[0], vmax=LOG_MEL[1], extent=(0, end, 0, 64)
    )
    axis.set_yticks(band_of(HERTZ), HERTZ)
    axis.set(xlabel="seconds", ylabel="hertz")
    for border in np.arange(EXAMPLE_SECONDS, end - 0.01, EXAMPLE_SECONDS):
        axis.axvline(border, color="white", lw=0.8, ls=":")
    return shown


def spectrogram(log_mel: Array, title: str = "", height: float = 2.4) -> Figure:
    """What the network hears: log-mel examples [T, 1, 96, 64] over seconds and hertz, dotted lines between them."""
    figure, axes = _figure(1, 1, height, title)
    figure.colorbar(_spectrogram(axes[0, 0], log_mel), ax=axes, label="log(mel + 0.01)", pad=0.01, extend="max")
    return figure


def strip(frames: torch.Tensor, rows: dict[str, tuple[Array, str]], log_mel: Array | None = None, title: str = "") -> Figure:
    """A clip second by second: its frames, then a row of masks each, then its log-mel examples.

    Args:
        frames: [T, 3, H, W] as the network takes them.
        rows: dict of label to (mask [T, H, W] in 0..1, colour); in TRUTH's colour a contour, in others a fill.
        log_mel: [T, 1, 96, 64], or None.
    """
    seconds, (h, w) = len(frames), frames.shape[-2:]
    count, row = 1 + len(rows), WIDTH / seconds * h / w
    figure, axes = _figure(
        count + (log_mel is not None), seconds, row * count + (1.9 if log_mel is not None else 0.5), title
    )
    for k in range(seconds):
        axes[0, k].set_title(f"second {k}")
        frame_with(axes[0, k], frames[k])
        for axis, (mask, colour) in zip(axes[1:, k], rows.values()):
            frame_with(axis, frames[k])
            _mark(axis, mask[k], colour, (h, w), filled=colour != TRUTH)
    for axis, label in zip(axes[:, 0], ("frames", *rows)):
        axis.set_ylabel(label)
    if log_mel is not None:
        for axis in axes[-1]:
            axis.remove()
        axes[0, 0].get_gridspec().set_height_ratios([row] * count + [1.1])
        shown = _spectrogram(figure.add_subplot(axes[0, 0].get_gridspec()[-1, :]), log_mel)
        shown.axes.set_xlabel(f"seconds; loudness (log-mel) from {LOG_MEL[0]}, dark, to {LOG_MEL[1]}, bright")
    return figure


def grid(
    rows: dict[str, Sequence], titles: Sequence[str] = (), title: str = "", cmap: str = "magma",
    limits: tuple[float, float] | None = None, height: float | None = None, legend: dict[str, str] | None = None,
    label: str = "",
) -> Figure:  # fmt: skip
    """Maps and pictures side by side, a row each: attention, confidence, features.

    Args:
        rows: dict of label to a sequence of maps [H, W], pictures [H, W, 3] in 0..1, and `frame_with(None, ...)`.
        titles: one a column. limits: (lowest, highest) value of all maps, which then share a colour bar; None gives each map
            its own range, written below it.
        height: of a row in inches; None makes maps square. legend: dict of name to colour, for a line below.
        label: of the colour bar, the quantity and its unit.
    """
    columns, shown = max(len(r) for r in rows.values()), None
    mapped = any(not callable(item) and item.ndim == 2 for items in rows.values() for item in items)
    height = height or (WIDTH - (1.3 if mapped and limits else 0.4)) / max(columns, 4)
    below = 0.25 if mapped and not limits else 0.05
    figure, axes = _figure(len(rows), columns, (height + below) * len(rows) + 0.6, title, legend)
    for line, (name, items) in zip(axes, rows.items()):
        for axis in line[len(items) :]:
            axis.axis("off")
        for axis, item in zip(line, items):
            axis.set(xticks=[], yticks=[])
            if callable(item):
                item(axis)
                continue
            image = _array(item)
            low, high = limits or (image.min(), image.max())
            drawn = axis.imshow(image, cmap=cmap, vmin=low, vmax=high, aspect="auto" if height < 1.2 else None)
            if image.ndim == 2:
                shown = drawn
                tiny = (high - low) / 1000  # of a range that starts next to 0
                axis.set_xlabel("" if limits else f"{0 if abs(low) < tiny else low:.2g} to {high:.2g}", fontsize=9)
        line[0].set_ylabel(name)
    for axis, text in zip(axes[0], titles):
        axis.set_title(text)
    if limits and shown:
        figure.colorbar(shown, ax=axes, label=label, pad=0.01, aspect=15 * len(rows), fraction=0.05)
    return figure


def maps(
    rows: dict[str, Sequence], titles: Sequence[str] = (), title: str = "", limits: tuple[float, float] | None = None,
    **more: Any,
) -> Figure:  # fmt: skip
    """`grid` with one colour bar: all maps between `limits`, or between the lowest and highest value of any."""
    values = [_array(item) for items in rows.values() for item in items if not callable(item)]
    values = [v for v in values if v.ndim == 2]
    return grid(rows, titles, title, limits=limits or (min(v.min() for v in values), max(v.max() for v in values)), **more)


def confusion(shares: Array, names: Sequence[str]) -> Figure:
    """A confusion matrix [K, K], a row a true class, of shares from 0 to 1, with numbers in it where they fit.

    A share that rounds to 0 stays blank. The row of a class that does not occur is hatched.
    """
    shares, size = _array(shares), max(4, min(9, 250 / len(names)))
    figure, axes = _figure(1, 1, 0.7 * WIDTH)
    axis = axes[0, 0]
    figure.colorbar(axis.imshow(shares, cmap="Greys", vmin=0, vmax=1), ax=axis, label="share of the true class", pad=0.01)
    axis.set(xlabel="marked as", ylabel="truth")
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axis.set_yticks(range(len(names)), names, fontsize=size)
    if len(names) <= 16:
        for (i, j), share in np.ndenumerate(shares):
            text = f"{share:.2f}".replace("0.00", "")
            axis.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if share > 0.5 else "black")
    for i in np.flatnonzero(shares.sum(1) == 0):
        row = plt.Rectangle((-0.5, i - 0.5), len(names), 1, fill=False, hatch="////", edgecolor=CONFIDENCE, lw=0)
        axis.add_patch(row)
    return figure


def lines(panels: dict[str, dict], height: float = 2.6) -> Figure:
    """Curves side by side.

    Args:
        panels: dict of title to a dict with "x", one entry "label": values a curve (where the label starts with "measured",
            dots in the colour of a curve right before them; out of the legend where it starts with "_"), and optionally
            "xlabel", "ylabel", "xlim", "ylim", "marks" (vertical lines), "log" ("x", "y", "xy"), and "styles", a dict of
            label to what Matplotlib's plot takes, such as {"color": SOUND, "ls": "--"}.
    """
    options = ("xlabel", "ylabel", "xlim", "ylim")
    figure, axes = _figure(1, len(panels), height)
    for axis, (title, panel) in zip(axes[0], panels.items()):
        for label, values in panel.items():
            if label not in ("x", "log", "marks", "styles", *options):
                dots = label.startswith("measured")
                curve = dots and axis.lines and axis.lines[-1].get_linestyle() != "None"
                same = {"color": axis.lines[-1].get_color()} if curve else {}
                style = {"marker": "o", "ls": "none"} if dots else {}
                style |= {"ms": 4, "lw": 1.5, "label": label.removeprefix("measured, "), **same}
                axis.plot(panel["x"], values, **style | panel.get("styles", {}).get(label, {}))
        for place in panel.get("marks", ()):
            axis.axvline(place, color=CONFIDENCE, lw=0.8, ls=":")
        for letter in panel.get("log", ""):
            getattr(axis, f"set_{letter}scale")("log")
            getattr(axis, f"{letter}axis").set_minor_formatter(NullFormatter())
        axis.set(title=title, **{name: panel[name] for name in options if name in panel})
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    return figure


def curves(log: Sequence[dict], validations: Sequence[dict]) -> Figure:
    """Loss, validation mIoU and kept tokens (fig. 8 of the paper) over the epochs of a run.

    Args:
        log, validations: rows of log.csv and validation.csv as dicts of numbers.
    """
    epochs = np.array([float(r["epoch"]) for r in log])
    window = max(1, len(log) // 60)

    def smooth(key):
        return np.convolve([float(r[key]) for r in log], np.ones(window) / window, mode="valid")

    time = {"x": epochs[window - 1 :], "xlabel": "epoch"}
    measured = {"x": [float(r["epoch"]) for r in validations], "xlabel": "epoch", "ylim": (-0.04, 1)}
    figure = lines({
        "training loss": {**time, "sum of four stages": smooth("loss")},
        "validation mIoU": {
            **measured,
            "measured, whole set": [float(r["miou_whole_set"]) for r in validations],
            "measured, per frame": [float(r["miou"]) for r in validations],
        },
        "share of tokens kept": {**time, "ylim": (0, 1.05), **{f"$M_{i}$": smooth(f"kept_{i}") for i in (3, 2, 1)}},
    })  # fmt: skip
    for axis, colours in zip(figure.axes, ((CONFIDENCE,), (TRUTH, CONFIDENCE), KEPT)):
        for line, colour in zip(axis.lines, colours):
            line.set_color(colour)
        axis.legend()
    return figure


def dots(
    values: dict[str, ArrayLike], limits: tuple[float, float] | None = None, title: str = "", xlabel: str = "mIoU",
    band: tuple[float, float] | None = None,
) -> Figure:  # fmt: skip
    """A row a name and a dot a seed, with a line at the mean of several and the value of it beside the row.

    Args:
        values: dict of name to the seeds' values, or one value. limits: of the axis; None fits it to the values.
        band: a range of the axis to shade.
    """
    values = {name: np.atleast_1d(_array(seeds)).astype(float) for name, seeds in values.items()}
    low, high = min(map(np.min, values.values())), max(map(np.max, values.values()))
    room = 0.08 * (high - low) or 0.01
    figure, axes = _figure(1, 1, 0.32 * len(values) + 0.9, title)
    axis = axes[0, 0]
    if band:
        axis.axvspan(*band, color=CONFIDENCE, alpha=0.15, lw=0)
    for place, seeds in enumerate(values.values()):
        axis.plot(seeds, np.full(len(seeds), place), "o", color=PREDICTION, ms=6, alpha=0.8, mec="none")
        if len(seeds) > 1:
            axis.vlines(np.nanmean(seeds), place - 0.3, place + 0.3, "black", lw=1.5)
        axis.text(1.01, place, f"{np.nanmean(seeds):z.3f}", transform=axis.get_yaxis_transform(), va="center")
    axis.set_yticks(range(len(values)), values)
    axis.set(xlim=limits or (low - room, high + room), ylim=(len(values) - 0.5, -0.5), xlabel=xlabel)
    axis.grid(axis="x", lw=0.5, alpha=0.5)
    return figure


def bars(values: dict[str, float], title: str = "", spread: float = 0.0) -> Figure:
    """Horizontal bars from top to bottom, the value beside each.

    Args:
        values: dict of label to a number from 0 to 1. spread: half length of the line across a bar's end, 0 for none.
    """
    figure, axes = _figure(1, 1, 0.32 * len(values) + 0.7, title)
    axis = axes[0, 0]
    axis.barh(list(values), list(values.values()), xerr=spread or None, color=PREDICTION, height=0.6)
    for place, value in enumerate(values.values()):
        axis.text(value + spread + 0.01, place, f"{value:.3f}", va="center")
    axis.set(xlim=(0, 1), ylim=(len(values) - 0.5, -0.5))
    return figure


def mp3(wave: ArrayLike, **quality: Any) -> str:
    """A sound [N] at 16 kHz as the data URI of an MP3. quality: options of `soundfile.write`."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(np.asarray(wave, np.float32), -1, 1), SAMPLE_RATE, format="MP3", **quality)
    return f"data:audio/mpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def player(wave: ArrayLike, label: str = "") -> HTML:
    """A sound [N] at 16 kHz as a small player that works on the web too."""
    return HTML(f'<p>{label}<br><audio controls src="{mp3(wave)}"></audio></p>')
