"""Explorers: figures that a reader moves in the browser, without a kernel.

A cell computes the data with the library and embeds them beside one script, `explorers.js`. Nothing is loaded from anywhere
else. Where scripts don't run, as on GitHub, a picture stands in place of the figure.
"""

import base64
import html
import io
import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from ..data.avsbench import AVSBench
from ..data.clip import Clip
from ..data.controls import right_to_mark, silent_objects
from ..network.audio import EXAMPLE_SECONDS, SAMPLE_RATE, LogMel
from ..network.layers import resize
from ..use.model import AudioVisualModel
from . import figures, journey
from .figures import Array, _array
from .paths import resolve

LIMIT = 400_000  # bytes of one explorer, with its data, its script and its picture
SCRIPT = Path(__file__).with_name("explorers.js")
COLOURS = {
    name.lower(): getattr(figures, name)
    for name in ("SOUND", "PICTURE", "TRUTH", "PREDICTION", "CONFIDENCE", "DOUBT", "KEPT")
}
THRESHOLDS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
SUBSCRIPT = "₀₁₂₃₄"
TEXT = re.compile(r'<text x="([\d.]+)" y="([\d.]+)"(?: text-anchor="(\w+)")?[^>]*>([^<]*)</text>')


class Explorer:
    """What a cell returns: HTML for a browser, and one sentence for all else.

    Args:
        kind: of EXPLORERS in explorers.js. data: what it shows, to embed as JSON. picture: for pages without scripts.
        sentence: what there is to do.
    """

    def __init__(self, kind: str, data: dict, picture: Figure, sentence: str) -> None:
        self.kind, self.data, self.sentence = kind, data, sentence
        self._picture = _figure_uri(picture)

    def __repr__(self) -> str:
        return self.sentence

    def _repr_html_(self):
        data = json.dumps({"colours": COLOURS, **self.data}, separators=(",", ":")).replace("<", "\\u003c")
        return (
            f'<div class="pcma-explorer" data-kind="{self.kind}">\n'
            f'<img alt="{html.escape(self.sentence)}" src="{self._picture}" style="max-width: 100%">\n'
            f'<script type="application/json">{data}</script>\n</div>\n<script>\n{SCRIPT.read_text("utf-8")}</script>'
        )


def _uri(kind, data):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _webp(image, quality=80):
    """A picture [H, W, 3] in 0..1, or a PIL image, as a data URI."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.uint8(np.round(255 * _array(image).clip(0, 1))))
    packed = io.BytesIO()
    image.convert("RGB").save(packed, "WEBP", quality=quality, method=6)
    return _uri("image/webp", packed.getvalue())


def _frames(clip):
    return [_webp(frame) for frame in figures.picture(clip.frames)]


def _figure_uri(figure):
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=1.5 * figures.DPI, bbox_inches="tight", pad_inches=0.05)
    return _webp(Image.open(drawn), quality=75)


def _packed(values: Array, limits: Sequence[float] | None = None) -> dict:
    """An array for the script's `numbers` and `maps`: as it is, or in 256 steps between `limits`, which take a quarter."""
    values = _array(values)
    steps = {}
    if limits:
        low, step = limits[0], (limits[1] - limits[0]) / 255
        values, steps = np.uint8(np.round((values.clip(*limits) - low) / step)), {"low": low, "step": step}
    elif values.dtype == bool:
        values = values.astype(np.uint8)
    elif values.dtype == np.float64:
        values = values.astype(np.float32)
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    packed = {"type": values.dtype.name, "shape": list(values.shape), "data": base64.b64encode(little.tobytes()).decode()}
    return packed | steps


def _runs(masks: Array) -> dict:
    """Boolean masks [..., H, W] for the script's `masks`: of each the lengths of its runs, row by row, zeros first."""
    masks, runs = _array(masks) > 0, []
    size = masks.shape[-2] * masks.shape[-1]
    for mask in masks.reshape(-1, size):
        borders = np.flatnonzero(np.diff(mask, prepend=False))
        runs.append(_packed(np.diff(borders, prepend=0, append=size).astype(np.uint16 if size < 65536 else np.uint32)))
    return {"shape": list(masks.shape), "runs": runs}


@torch.no_grad()
def confidence(model: AudioVisualModel, clip: Clip) -> Explorer:
    """Slide CIM's threshold c: which tokens of a clip may ask, what that costs, and what it changes in the masks.

    PCMANet runs anew at every c. From its logits the browser computes the masks M_3, M_2 and M_1 by eq. 7.
    """
    cim, steps = model.network.cim, []
    truth, trained = clip.masks > 0, cim.threshold
    try:
        for cim.threshold in sorted({*THRESHOLDS, trained}):
            out = model(clip.frames[None], clip.log_mel[None])
            logits = [_packed(stage[0, :, 0]) for stage in out.stages[:0:-1]]  # O_4, O_3, O_2
            steps.append({"c": cim.threshold, "logits": logits, "marked": _runs(out.finest[0, :, 0] > 0)})
            if cim.threshold == trained:
                masks = [mask[0, :, 0] for mask in out.masks]
    finally:
        cim.threshold = trained
    tokens = [out.stages[-1].numel(), *(mask.numel() for mask in masks)]  # of the QSCA of stages 4 to 1
    data = {"frames": _frames(clip), "truth": _runs(truth), "steps": steps, "trained": trained, "tokens": tokens}
    data["channels"] = model.network.audio.out_features
    second = _fullest(masks[-1])
    cells = [figures.frame_with(None, clip.frames[second], truth[second], mask=mask[second]) for mask in masks]
    names, legend = [f"$M_{i}$" for i in (3, 2, 1)], {"truth": figures.TRUTH, "in doubt": figures.DOUBT}
    figure = figures.grid({f"c = {trained}": cells}, names, "Tokens that may still ask", legend=legend)
    data["second"] = second
    return Explorer("confidence", data, figure, "Slide the threshold c and see which tokens may still ask.")


SOUNDS = {  # a control each, None for the clip's own sound
    None: "its own sound",
    "muted": "silence",
    "noise": "white noise",
    "swapped": "another clip's sound",
    "other_object": "a silent object's sound",
    "off_screen": "a sound from off screen",
}


@torch.no_grad()
def sounds(model: AudioVisualModel, dataset: AVSBench, index: int = journey.NUMBER) -> Explorer:
    """Play six sounds to the same frames, and watch what the model marks under each.

    Args:
        model: any. dataset: composed data, not in training mode. index: of the clip, which has an object that never sounds.
    """
    heard, pictures = [], []
    second, raw = _fullest(dataset[index].masks > 0), dataset.raw(index)
    silent = [raw.objects[k]["class"] for k in silent_objects(raw)]
    names = SOUNDS | ({"other_object": f"the {silent[0]}'s sound"} if len(silent) == 1 else {})
    for control, name in names.items():
        view = dataset.with_sound(control)
        clip = view[index]
        marked = model(clip.frames[None], clip.log_mel[None]).finest[0, :, 0] > 0
        truth = right_to_mark(clip.masks, control)
        heard.append({"name": name, "sound": figures.mp3(view.wave(index), compression_level=0.8), "truth": _runs(truth)})
        heard[-1] |= {"marked": _runs(marked), "spectrogram": _webp(figures.spectrogram_image(clip.log_mel), quality=60)}
        pictures.append(figures.frame_with(None, clip.frames[second], truth[second], marked[second]))
    data = {"frames": _frames(clip), "sounds": heard}
    data["hertz"] = [[int(hertz), round(figures.band_of(hertz) / 64, 4)] for hertz in figures.HERTZ]
    data["seconds"] = EXAMPLE_SECONDS * len(clip.frames)  # that the spectrogram covers
    figure = figures.grid({f"second {second}": pictures}, [textwrap.fill(name, 14) for name in names.values()])
    return Explorer("sounds", data, figure, "Choose a sound, press play, and watch what the network marks.")


@torch.no_grad()
def metrics(model: AudioVisualModel, clip: Clip) -> Explorer:
    """Paint masks on the frames of a clip, first the model's, and watch IoU, F-measure and the two averages."""
    marked = model(clip.frames[None], clip.log_mel[None]).finest[0, :, 0] > 0
    truth = clip.masks > 0
    data = {"frames": _frames(clip), "truth": _runs(truth), "marked": _runs(marked)}
    rows = {"truth": (truth, figures.TRUTH), "marked": (marked, figures.PREDICTION)}
    figure = figures.strip(clip.frames, rows, title="The masks to begin with")
    return Explorer("metrics", data, figure, "Paint on the frames and watch what the measures say of your mask.")


MEASURES = {  # where a row of a sweep has them, and their unit
    "test mIoU, per frame": ("test.miou", ""),
    "test mIoU, whole set": ("test.miou_whole_set", ""),
    "test F-measure": ("test.f_measure", ""),
    "best validation mIoU, whole set": ("best.miou_whole_set", ""),
    "mIoU lost under another clip's sound": ("test.controls.swapped.drop", "%"),
    "IoU with a silent object that is made to sound": ("test.controls.other_object.miou", ""),
    "pixels marked under white noise": ("test.controls.noise.marked", "%"),
    "pixels marked under something off screen": ("test.controls.off_screen.marked", "%"),
    "time of the run": ("seconds", "s"),
}


def _text(value):
    return value if isinstance(value, str) else json.dumps(value)


def runs(rows: dict[str, dict], title: str = "") -> Explorer:
    """The runs of a sweep as dots, a line a recipe; choose a dot to see its settings, measures and curves.

    Args:
        rows: as in the summary.json of `sweep.run_rows`. A name ends with ", seed N" where a recipe has several seeds.
        A list "validation" gives the curves. Rows with an "error" are left out.

    Raises:
        ValueError: no row with a test.
    """

    def find(row, path):
        for key in path.split("."):
            row = row.get(key) if isinstance(row, dict) else None
        return None if row is None else float(f"{row:.5g}")

    shown = []
    for name, row in rows.items():
        if "error" in row or "test" not in row:
            continue
        recipe, _, seed = name.partition(", seed ")
        curve, settings = row.get("validation"), row.get("settings", row.get("parameters", {}))
        shown.append({"name": name, "recipe": recipe, "seed": seed, **{key: row.get(key) for key in ("preset", "device")}})
        shown[-1]["settings"] = {key: _text(value) for key, value in settings.items() if value is not None}
        shown[-1]["values"] = [find(row, path) for path, _ in MEASURES.values()]
        if isinstance(curve, list):
            keys = {"epoch": "epoch", "per frame": "miou", "whole set": "miou_whole_set"}
            shown[-1]["curve"] = {label: [find(point, key) for point in curve] for label, key in keys.items()}
    if not shown:
        raise ValueError(f"no run with a test among the {len(rows)} rows: {', '.join(rows)}")
    recipes = {}
    for row in shown:
        recipes.setdefault(row["recipe"], []).append(row["values"][0])
    measures = [[name, unit] for name, (_, unit) in MEASURES.items()]
    figure = figures.dots(recipes, title=title or "A dot is a run, the line is the mean", xlabel="test mIoU")
    data = {"rows": shown, "measures": measures}
    return Explorer("runs", data, figure, "Choose a run to see its settings and its curves.")


def mel(wave: ArrayLike) -> Explorer:
    """Slide the window over a sound, choose a band, and see and hear how its log-mel value comes about.

    The browser computes everything from the samples, which are kept with 16 bits.

    Args:
        wave: [N] in [-1, 1] at 16 kHz, a second at least and five at most.
    """
    samples = np.int16(np.round(32767 * np.clip(_array(wave), -1, 1)))
    front = LogMel()
    log_mel = front(samples / 32767).reshape(-1, 64)
    m = len(log_mel) // 2
    b = int(log_mel[m].argmax())
    window, triangle = front.window.numpy(), front.filters[:, b].numpy()
    piece = samples[160 * m : 160 * m + 400] / 32767
    magnitudes, hertz = np.abs(np.fft.rfft(piece * window, 512)), np.linspace(0, SAMPLE_RATE / 2, 257)
    near = slice(*(np.flatnonzero(triangle)[[0, -1]] + (-6, 7)).clip(0, 257))
    close = {"x": hertz[near], "xlabel": "hertz", "spectrum": magnitudes[near] / max(magnitudes.max(), 1e-9)}
    panels = {
        f"slice {m} under its window": {"x": np.arange(400) / 16, "xlabel": "ms", "samples": piece * window},
        "its spectrum": {"x": hertz, "xlabel": "hertz", "magnitudes": magnitudes},
        f"band {b}, close up": close | {"triangle": triangle[near]},
    }
    sentence = "Point at a slice and a band of the spectrogram, and see and hear what its log-mel value is made of."
    return Explorer("mel", {"wave": _packed(samples), "slice": m, "band": b}, figures.lines(panels), sentence)


@torch.no_grad()
def groups(
    model: AudioVisualModel, dataset: AVSBench, index: int, sounds: dict[str, str | None], second: int = 0
) -> Explorer:
    """Point at a pixel and see its cosine with the sound in each group of AVGA. Swap the sound.

    Args:
        model: with PCMANet inside. dataset, index: where the clip is. second: of the frame that is shown first.
        sounds: dict of a name, such as "the drum", to a control of `data.controls`, or to None for the clip's own sound.
    """
    heard = [dataset.with_sound(control) if control else dataset for control in sounds.values()]
    clips = [one[index] for one in heard]
    found = [journey.tensors(model, clip) for clip in clips]
    seconds, count, side = *found[0]["attention_4"].shape[:2], clips[0].masks.shape[-1]
    data = {"names": list(sounds), "seconds": seconds, "groups": count, "size": side, "second": second}
    data |= {"pixel": _centre(clips[0].masks[second]), "frames": _frames(clips[0])}
    data |= {"truth": [_runs(clip.masks) for clip in clips]}
    data |= {"sounds": [figures.mp3(one.wave(index), compression_level=0.8) for one in heard]}
    data |= {"attention": [{i: _rounded(seen[f"attention_{i}"], 0.01) for i in range(1, 5)} for seen in found]}
    rows = {}
    for name, clip, seen in zip(sounds, clips, found):
        rows[name] = [figures.frame_with(None, clip.frames[second], clip.masks[second] > 0), *seen["attention_1"][second]]
    titles = ["truth", *(f"group {n + 1}" for n in range(count))]
    shown = figures.maps(rows, titles, "attention of stage 1 under each sound", limits=(0, 1), label="attention")
    sentence = "Point at a pixel and see its cosine with the sound in each group, under one sound and the other."
    return Explorer("groups", data, shown, sentence)


@torch.no_grad()
def looks(model: AudioVisualModel, clip: Clip) -> Explorer:
    """Choose a second of sound and see where its heads look, by eq. 3a. Choose a token and see which seconds it hears, by
    eq. 3b, and whether it was a query at all.

    Args:
        model: with PCMANet inside.
    """
    found, truth = journey.tensors(model, clip), clip.masks > 0
    second, stages = _fullest(truth), {}
    for i in range(1, 5):
        weights = found[f"looks_{i}"]  # [heads, T, T, s, s]
        grid = weights.shape[2:]
        object_ = F.interpolate(truth[:, None].float(), size=grid[1:], mode="area")[:, 0]  # [T, s, s]
        asks = found[f"M_{i}"][:, 0] if i < 4 else torch.ones(grid)
        stages[i] = {"looks": _rounded(weights * grid.numel(), 0.1), "hears": _rounded(found[f"hears_{i}"], 0.01)}
        stages[i] |= {"asks": _runs(asks), "fills": round(100 * object_.mean().item())}
        stages[i] |= {"on_object": (100 * (weights * object_).sum((2, 3, 4))).round().int().tolist()}
    heads, seconds, side = *weights.shape[:2], truth.shape[-1]
    token = [second, *(place * grid[-1] // side for place in _centre(truth[second]))]
    data = {"heads": heads, "seconds": seconds, "size": side, "second": second, "token": token, "stages": stages}
    data |= {"frames": _frames(clip), "truth": _runs(truth), "sound": _webp(figures.spectrogram_image(clip.log_mel))}
    ratio = weights.mean(0) * grid.numel()  # [T, T, s, s], of the stage 4
    rows = {"frames": [figures.frame_with(None, *pair) for pair in zip(clip.frames, truth)]}
    rows |= {f"second {k} asks": ratio[k] for k in range(seconds)}
    titles, title = [f"second {k}" for k in range(seconds)], "where each second of sound looks in stage 4, mean of the heads"
    shown = figures.maps(rows, titles, title, limits=(0, 4), label="times the mean weight")
    sentence = "Choose a second of sound and see where it looks. Choose a token and see what it hears."
    return Explorer("looks", data, shown, sentence)


@torch.no_grad()
def network(model: AudioVisualModel, clip: Clip) -> Explorer:
    """Step through the diagram of the whole network, tensor by tensor, and see what a clip puts into each.

    Args:
        model: with PCMANet inside.
    """
    found, truth = journey.tensors(model, clip), clip.masks > 0
    drawing = resolve("docs/diagrams/pcmanet.svg").read_text(encoding="utf-8")
    second, channels, c = _fullest(truth), found["P_1"].shape[1], model.network.cim.threshold
    steps = []

    def step(name, said, kind, values, **drawn):
        name = re.sub(r"_(\d)", lambda stage: SUBSCRIPT[int(stage[1])], name)
        steps.append({"name": name, "said": said, "kind": kind, "shape": str(list(values.shape))})
        steps[-1] |= {"place": _place(drawing, name), **drawn}

    def heat(name, said, kind, values, caption, maps, **drawn):
        low, high = maps.min().item(), maps.max().item() + 1e-6
        caption = f"{caption}, from {low:.3g} to {high:.3g}"
        step(name, said, kind, values, maps=_packed(maps, (low, high)), low=low, high=high, caption=caption, **drawn)

    def features(name, said):  # [T, C, h, w]: their mean, and the eight channels that vary most in one second
        values = found[name]
        chosen = values[second].flatten(1).std(1).topk(8).indices.sort().values
        some = values[second, chosen]
        drawn = {"some": _packed(some, (some.min().item(), some.max().item() + 1e-6)), "chosen": chosen.tolist()}
        heat(name, said, "features", values, f"mean of {values.shape[1]} channels", values.mean(1), **drawn)

    def vector(name, said):  # [T, C]
        heat(name, said, "vector", found[name], f"{found[name].shape[1]} numbers", found[name][:, None])

    step("frames", "One frame a second enters. The green line surrounds what sounds.", "frame", clip.frames, caption="frame")
    for i in range(1, 5):
        given = f"F{SUBSCRIPT[i - 1]}" if i > 1 else "the frames"
        features(f"F_{i}", f"Stage {i} of the encoder makes this map from {given}. It has not heard anything yet.")
    for i in range(4, 0, -1):
        features(f"P_{i}", f"A CBR brings F{SUBSCRIPT[i]} to {channels} channels, as many as every stage has from here on.")
    said = "Each second of sound becomes a log-mel example. Time runs to the right and pitch upwards."
    heat("E", said, "sound", clip.log_mel, "96 slices of 64 bands", clip.log_mel[:, 0].mT.flip(1))
    vector("A", "VGGish turns each example into 128 numbers, a bar for each.")
    vector("A_4", f"A Linear layer brings them to {channels} numbers. This is the sound that AVGA and stage 4 hear.")
    for i in range(4, 0, -1):
        features(f"V_{i}", f"AVGA compares each place of P{SUBSCRIPT[i]} with the sound, and turns it up or down.")
    for i in range(4, 0, -1):
        here = SUBSCRIPT[i]
        asked = "every token" if i == 4 else f"only the {int(found[f'M_{i}'].sum())} tokens in doubt"
        features(f"G_{i}", f"QSCA pools V{here} to tokens and lets {asked} ask the sound. The guide holds what they heard.")
        if i > 1:
            vector(f"A_{i - 1}", f"In the same QSCA the sound looks at all tokens. What it saw goes on to stage {i - 1}.")
        coarser = f" and the coarser X{SUBSCRIPT[i + 1]}" if i < 4 else ""
        features(f"X_{i}", f"Guided fusion adds the guide{coarser} to V{here} and convolves the sum.")
        said = f"The head turns X{here} into one logit for each place. The orange fill is its probability."
        logits = found[f"O_{i}"]
        step(f"O_{i}", said, "probability", logits, maps=_rounded(logits[:, 0].sigmoid(), 0.01), caption="probability")
        if i > 1:
            mask = found[f"M_{i - 1}"]
            said = f"CIM keeps the tokens whose probability lies between {1 - c:.2g} and {c:.2g}"
            said += f" and that M{here} kept before. " if i < 4 else ". "
            said += f"They are magenta. In stage {i - 1}, {int(mask.sum())} of {mask.numel()} may ask."
            step(
                f"M_{i - 1}",
                said,
                "mask",
                mask,
                masks=_runs(mask[:, 0]),
                caption="tokens in doubt",
                states=["settled", "in doubt"],
            )
    marked = resize(found["O_1"], truth.shape[1:])[:, 0] > 0
    said = "O₁ grows to the size of the frame. Orange is every pixel whose probability is above one half. "
    said += f"Over the clip the IoU with the truth is {(marked & truth).sum() / (marked | truth).sum():.2f}."
    step(
        "resize, sigmoid: mask",
        said,
        "marked",
        marked,
        masks=_runs(marked),
        caption="what the network marks",
        states=["not marked", "marked"],
    )
    size = [int(n) for n in re.search(r'viewBox="0 0 (\d+) (\d+)"', drawing).groups()]
    data = {"diagram": _uri("image/svg+xml", drawing.encode()), "size": size, "steps": steps, "frames": _frames(clip)}
    data |= {"truth": _runs(truth), "second": second}
    rows = {f"${letter}_3$": found[f"{letter}_3"].mean(1) for letter in "VGX"}
    views = [figures.frame_with(None, *three) for three in zip(clip.frames, truth, found["O_3"][:, 0].sigmoid())]
    asks = [figures.frame_with(None, *four) for four in zip(clip.frames, truth, [None] * len(truth), found["M_2"][:, 0])]
    titles = [f"second {k}" for k in range(len(truth))]
    shown = figures.grid(
        rows | {"$O_3$": views, "$M_2$": asks}, titles, "stage 3: mean of the channels, with its range below"
    )
    sentence = "Step through the network, tensor by tensor, and see what this clip puts into each."
    return Explorer("network", data, shown, sentence)


def _fullest(truth):
    """The second of masks [T, H, W] in which most pixels sound."""
    return int(truth.flatten(1).sum(1).argmax())


def _place(drawing, name):
    """Where a tensor's label stands in the diagram of the network, with its shapes: left, top, width, height."""
    for x, y, anchor, words in TEXT.findall(drawing):
        if words in (name, f"{name}: {words.rpartition(': ')[2]}"):
            x, y, width = float(x), float(y), max(8 * len(words) + 12, 100 * (words == name))
            if words == name:  # a tensor, with its shapes below, or the name in a box
                return [x - width / 2, y - (18 if len(name) == 2 else 32), width, 62]
            left = x - {"middle": width / 2, "end": width - 6}[anchor]
            return [left, y - 18, width, 48 if words[1] in SUBSCRIPT[1:4] else 26]
    raise ValueError(f"the diagram of the network has no {name}")


def _centre(mask):
    """Row and column of the middle one of a mask's pixels, or of the frame where the mask is empty."""
    places = (mask if mask.any() else mask + 1).nonzero()
    return places.median(0).values.tolist()


def _rounded(values, step):
    """Numbers from 0 on for the script's `numbers` and `maps`, to the nearest multiple of a step."""
    counts = np.round(_array(values) / step)
    return _packed(counts.astype(np.uint8 if counts.max() < 256 else np.uint16)) | {"low": 0, "step": step}
