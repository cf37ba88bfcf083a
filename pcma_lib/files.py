"""Reading pictures, masks and sound from disk, with errors that name the file."""

from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from PIL import Image, UnidentifiedImageError

from .audio import SAMPLE_RATE


def inside(root, *parts):
    """root/parts, refusing a name that would leave the data folder."""
    root = Path(root).resolve()
    path = root.joinpath(*map(str, parts))
    if not path.resolve().is_relative_to(root):
        raise ValueError(f"{Path(*map(str, parts))} lies outside the data folder {root}; the index is not to be trusted")
    return path


def open_image(path):
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"missing picture {path}")
    try:
        image = Image.open(path)
        image.load()
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable picture ({error})") from None
    return image


def read_frame(path):
    """An RGB frame, uint8 [H, W, 3]."""
    return np.asarray(open_image(path).convert("RGB"))


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
    rgb = np.asarray(image.convert("RGB")).astype(np.int64)
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


def read_wave(path, seconds=None, channels=False):
    """Sound as float32 at 16 kHz, mono [N], or [channels, N] with channels=True.

    With `seconds`, the end is cut off, or up to one second that is missing is filled with silence.

    Raises:
        FileNotFoundError: no such file. ValueError: not readable, not finite, or more than a second too short.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"missing sound {path}")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(f"{path} is not a readable sound ({error})") from None
    if not np.isfinite(samples).all():
        raise ValueError(f"{path} holds NaN or infinite samples")
    wave = torch.from_numpy(samples.T if channels else samples.mean(1))
    if rate != SAMPLE_RATE:
        wave = torchaudio.functional.resample(wave, rate, SAMPLE_RATE)
    if seconds is not None:
        wanted = seconds * SAMPLE_RATE
        if wave.shape[-1] < wanted - SAMPLE_RATE:
            raise ValueError(f"{path} lasts {wave.shape[-1] / SAMPLE_RATE:.2f} s, expected {seconds} s")
        wave = torch.nn.functional.pad(wave[..., :wanted], (0, max(0, wanted - wave.shape[-1])))
    return wave.numpy()
