"""Reading pictures, masks, sound and tables from disk, with errors that name the file."""

import csv
import json
from pathlib import Path

import numpy as np
import soundfile
import soxr
from PIL import Image

from ..network.audio import SAMPLE_RATE

LARGEST_PICTURE = 2**26  # pixels
RATES = range(1000, 768001)  # Hz
LOUDEST = 100.0  # full scale is 1; beyond are whole numbers stored as floats, or damage


def inside(root, *parts):
    """root/parts, refusing a name that would leave the data folder."""
    root = Path(root).resolve()
    path = root.joinpath(*map(str, parts))
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r} is no file name; the index of {root} is not to be trusted")
    if not path.resolve().is_relative_to(root):
        raise ValueError(f"{Path(*map(str, parts))} lies outside the data folder {root}; the index is not to be trusted")
    return path


def named_paths(items):
    """NAME=PATH as given on a command line, or PATH for its own name -> dict of names to paths."""
    return dict(item.split("=", 1) if "=" in item and not Path(item).exists() else (item, item) for item in items)


def read_json(path):
    """What a JSON file holds.

    Raises:
        FileNotFoundError: no such file. ValueError: not JSON.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"missing {path}")
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON ({error})") from None


def read_rows(path, columns, renamed=()):
    """The rows of a CSV file that has these columns, as dicts.

    Args:
        renamed: pairs of a column's name in the file and the one to give it.

    Raises:
        FileNotFoundError: no such file. ValueError: not CSV in UTF-8, columns missing, or rows that are too short.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [dict(renamed).get(c, c) for c in reader.fieldnames or ()]
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not readable as CSV in UTF-8 ({error})") from None
    if missing := set(columns) - set(reader.fieldnames):
        raise ValueError(f"{path} lacks the columns {sorted(missing)}; found {reader.fieldnames}")
    for number, row in enumerate(rows, 1):
        if short := [c for c in columns if row[c] is None]:
            raise ValueError(f"{path}: row {number} after the header ends before {', '.join(short)}")
    return rows


def open_image(path, mode=None):
    """A PNG or JPEG, whatever its name ends in; brought to a Pillow mode, such as "RGB", if one is given.

    Raises:
        FileNotFoundError: no such file. ValueError: not readable, or too large.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"missing picture {path}")
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > LARGEST_PICTURE:
                raise ValueError(f"{image.width} x {image.height} pixels, expected at most {LARGEST_PICTURE} in all")
            image.load()
            return image.convert(mode) if mode else image
    except Exception as error:  # Pillow's readers raise many kinds
        raise ValueError(f"{path} is not a readable picture, expected PNG or JPEG ({error})") from None


def read_frame(path):
    """An RGB frame, uint8 [H, W, 3]."""
    return np.asarray(open_image(path, "RGB"))


def palette(classes):
    """AVSBench-semantic's colours (PASCAL VOC's rule): uint8 [classes, 3], index 0 black."""
    index = np.arange(classes)
    colours = np.zeros((classes, 3), np.int64)
    for bit in range(7, -1, -1):
        for channel in range(3):
            colours[:, channel] |= (index >> channel & 1) << bit
        index = index >> 3
    return colours.astype(np.uint8)


def read_mask(path, classes=None):
    """A mask as uint8 [H, W].

    classes=None reads a binary mask: 1-bit, grey (128 and above, or 1 where nothing is larger), or coloured or with a
    palette (anything but black). Otherwise an RGB or palette picture in the colours of `palette(classes)`.
    """
    image = open_image(path)
    if classes is None and image.mode in ("1", "L", "I", "I;16"):
        grey = np.asarray(image).astype(np.int64)
        return (grey > (127 if grey.max(initial=0) > 1 else 0)).astype(np.uint8)
    rgb = read_frame(path).astype(np.int64)
    packed = rgb @ np.array([65536, 256, 1])
    if classes is None:
        return (packed > 0).astype(np.uint8)
    known = palette(classes).astype(np.int64) @ np.array([65536, 256, 1])
    order = np.argsort(known)
    place = np.searchsorted(known, packed, sorter=order).clip(max=classes - 1)
    found = order[place]
    wrong = known[found] != packed
    if wrong.any():
        colour = tuple(int(v) for v in rgb[wrong][0])
        raise ValueError(f"{path} has the colour {colour}, which is none of the {classes} classes' colours")
    return found.astype(np.uint8)


def read_classes(path):
    """label2idx.json: class names to the numbers from 0, {name: number}."""
    classes = read_json(path)
    numbers = classes.values() if isinstance(classes, dict) else ()
    whole = all(type(n) is int for n in numbers) and 0 < len(numbers) <= 256
    if not whole or sorted(numbers) != list(range(len(numbers))):
        raise ValueError(f"{path} must map at most 256 class names to the numbers from 0, each once")
    return classes


def read_objects(path, classes, seconds):
    """The objects of a composed clip: a list of dicts, at least class, on_screen, and sounds, a switch a second."""

    def fits(item):
        if not isinstance(item, dict) or not isinstance(item.get("class"), str) or not classes.get(item["class"]):
            return False
        sounds = item.get("sounds")
        switches = [item.get("on_screen"), *sounds] if isinstance(sounds, list) and len(sounds) == seconds else [None]
        return all(isinstance(s, int) and s in (0, 1) for s in switches)

    objects = read_json(path)
    if not isinstance(objects, list) or not objects or not all(map(fits, objects)):
        expected = f"class, one of label2idx.json, on_screen, 0 or 1, and sounds, {seconds} of 0 and 1"
        raise ValueError(f"{path} must be a list of objects, each with {expected}")
    return objects


def read_instances(path, size, count):
    """Which object is the one seen, [H, W] uint8: 0, or 1 + object."""
    instances = np.asarray(open_image(path))
    if instances.dtype != np.uint8 or instances.shape != size:
        raise ValueError(f"{path} must hold 8-bit numbers of objects at the frames' size {size[::-1]}")
    if instances.max(initial=0) > count:
        raise ValueError(f"{path} names object {instances.max()} of {count}")
    return instances


def read_wave(path, seconds=None, channels=False):
    """Sound as float32 at 16 kHz, mono [N], or [channels, N] with channels=True.

    With `seconds`, the end is cut off, or up to one second that is missing is filled with silence.

    Raises:
        FileNotFoundError: no such file. ValueError: not readable, not finite, far beyond full scale, at a rate that does not
        fit 16 kHz, or more than a second too short.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"missing sound {path}")
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            frames = -1 if seconds is None else (seconds + 1) * rate  # the filter looks ahead by less than a second
            samples = file.read(frames, dtype="float32", always_2d=True)
    except Exception as error:  # soundfile's and NumPy's, for what a damaged header declares
        raise ValueError(f"{path} is not a readable sound ({error})") from None
    if not np.isfinite(samples).all():
        raise ValueError(f"{path} holds NaN or infinite samples")
    if (loudest := np.abs(samples).max(initial=0)) > LOUDEST:
        raise ValueError(f"{path} holds samples up to {loudest:.3g}, expected -1 to 1")
    if rate not in RATES:
        raise ValueError(f"{path} has the rate {rate} Hz, expected a usual one such as {SAMPLE_RATE}, 44100 or 48000 Hz")
    wave = samples if channels else samples.mean(1, keepdims=True)
    if rate != SAMPLE_RATE and wave.size:
        wave = soxr.resample(wave, rate, SAMPLE_RATE)
    if seconds is not None:
        wanted = seconds * SAMPLE_RATE
        if len(wave) < wanted - SAMPLE_RATE:
            raise ValueError(f"{path} lasts {len(wave) / SAMPLE_RATE:.2f} s, expected {seconds} s")
        wave = np.pad(wave[:wanted], [(0, max(0, wanted - len(wave))), (0, 0)])
    return np.ascontiguousarray(wave.T) if channels else wave[:, 0]
