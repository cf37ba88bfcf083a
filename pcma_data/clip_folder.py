"""Writes composed clips in the layout of AVSBench-semantic, with the extras that a composed dataset can know.

    ROOT/metadata.csv                 vid,uid,s_min,s_max,a_obj,split,label,kind,licence
    ROOT/label2idx.json               {"background": 0, "bell": 1, ...}
    ROOT/dataset.json                 settings; written last, so its presence means that the dataset is complete
    ROOT/v1m/UID/frames/k.jpg         second k = 0..4
    ROOT/v1m/UID/labels_rgb/k.png     palette colour of the class of each pixel whose object sounds in second k
    ROOT/v1m/UID/audio.wav            16 kHz, mono, 16 bit: the gated sum of the objects' own sounds plus background noise
    ROOT/v1m/UID/objects.json         name, class, on_screen, sounds (one of 0, 1 for each second), heard_in_training
    ROOT/v1m/UID/objects/k.png        8-bit instance map: i + 1 where object i is the one seen
    ROOT/v1m/UID/objects.wav          one channel for each object: its own sound throughout, at its level in the mixture

`a_obj` names every class that sounds, those off screen too.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import wave
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from pcma_lib.data.files import SAMPLE_RATE, palette, read_json, write_atomically

from .mixing import SECONDS
from .scene import Clip

LABEL = "v1m"
COLUMNS = ("vid", "uid", "s_min", "s_max", "a_obj", "split", "label", "kind", "licence")


def number_classes(class_names: Iterable[str]) -> dict[str, int]:
    """`label2idx`: 0 for background, then the classes in alphabetical order."""
    return {name: number for number, name in enumerate(["background", *sorted(set(class_names))])}


def sounding_classes(objects: list[dict]) -> str:
    """The `a_obj` column: classes that sound at any time, in alphabetical order, or "none"."""
    return "_and_".join(sorted(item["class"] for item in objects if any(item["sounds"]))) or "none"


def label_maps(clip: Clip, label2idx: dict[str, int]) -> np.ndarray:
    """Colour maps of what sounds, [5, size, size, 3] uint8."""
    index = np.zeros((SECONDS, len(clip.objects) + 1), int)
    for number, item in enumerate(clip.objects, 1):
        index[:, number] = label2idx[item["class"]] * np.array(item["sounds"])
    colours = palette(len(label2idx))
    return np.stack([colours[index[second]][clip.instances[second]] for second in range(SECONDS)])


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Writes [N] or [N, channels] int16 as 16 kHz PCM."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.ascontiguousarray(samples, "<i2").tobytes())


def write_clip(root: Path, uid: str, clip: Clip, label2idx: dict[str, int]) -> None:
    """Writes a clip into a hidden folder beside its place and renames it, so that a clip is there whole or not at all."""
    folder = root / LABEL / f".{uid}.{os.getpid()}.part"
    for name in ("frames", "labels_rgb", "objects"):
        (folder / name).mkdir(parents=True)
    for second, (frame, labels, instances) in enumerate(zip(clip.frames, label_maps(clip, label2idx), clip.instances)):
        Image.fromarray(frame).save(folder / "frames" / f"{second}.jpg", quality=92, subsampling=0)
        Image.fromarray(labels).save(folder / "labels_rgb" / f"{second}.png")
        Image.fromarray(instances).save(folder / "objects" / f"{second}.png")
    write_wav(folder / "audio.wav", clip.mixture)
    write_wav(folder / "objects.wav", clip.sources)
    (folder / "objects.json").write_text(json.dumps(clip.objects, indent=1) + "\n", encoding="utf-8")
    folder.rename(root / LABEL / uid)


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda part: Path(part).write_text(text, encoding="utf-8", newline=""))


def write_metadata(root: Path, rows: Iterable[dict]) -> None:
    """Writes `metadata.csv` from rows of uid, split, kind and licence; `a_obj` is read from each clip's `objects.json`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        objects = read_json(root / LABEL / row["uid"] / "objects.json")
        fixed = {"vid": row["uid"], "s_min": 0, "s_max": SECONDS, "a_obj": sounding_classes(objects), "label": LABEL}
        writer.writerow({**fixed, **row})
    write_text(root / "metadata.csv", text.getvalue())


def prepare_root(root: Path, settings: dict, overwrite: bool) -> bool:
    """Makes `root` ready to take clips made with `settings`; returns whether they are all there already.

    `dataset.part.json` holds the settings while clips are being made and is renamed to `dataset.json` by `complete`.

    Raises:
        ValueError: the folder holds something else, or clips made with other settings, and `overwrite` is False.
    """
    done, part = root / "dataset.json", root / "dataset.part.json"
    if overwrite and done.exists():
        done.replace(part)
    if part.exists() or done.exists():
        path = done if done.exists() else part
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} does not hold the settings of a dataset ({error}); delete {root}") from None
        differing = [key for key in {**found, **settings} if found.get(key) != settings.get(key)]
        if differing and not overwrite:
            changes = "; ".join(f"{key} is {found.get(key)!r} there and {settings.get(key)!r} now" for key in differing)
            raise ValueError(
                f"{root} was made with other settings: {changes}. Choose another --out, or give --overwrite to replace it."
            )
        if done.exists():
            return True
        if overwrite:
            shutil.rmtree(root / LABEL, ignore_errors=True)
            for name in ("metadata.csv", "label2idx.json"):
                (root / name).unlink(missing_ok=True)
    elif root.exists() and any(path for path in root.iterdir() if not path.name.startswith(".")):
        raise ValueError(f"{root} holds files that pcma-data did not make. Choose an empty or a new folder with --out.")
    (root / LABEL).mkdir(parents=True, exist_ok=True)
    remove_unfinished(root)
    write_text(part, json.dumps(settings, indent=1) + "\n")
    return False


def remove_unfinished(root: Path) -> None:
    """Removes the hidden folders of clips whose writing was interrupted."""
    for leftover in (root / LABEL).glob(".*.part"):
        shutil.rmtree(leftover)


def complete(root: Path) -> None:
    """Marks the dataset as complete."""
    (root / "dataset.part.json").replace(root / "dataset.json")
