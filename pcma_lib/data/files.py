"""Reading pictures, masks, sound and tables, with errors that name the file, and writing files whole or not at all."""

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from PIL import Image

SAMPLE_RATE = 16000  # Hz, of every sound as it is read
LARGEST_PICTURE = 2**26  # pixels
RATES = range(1000, 768001)  # Hz
LOUDEST = 100.0  # full scale is 1; beyond are whole numbers stored as floats, or damage
PART = ".part"  # end of the names of files being written
UMASK = os.umask(0)  # it can only be read by setting it, which is safe here, before other threads write
os.umask(UMASK)


def project_root() -> Path:
    """The folder of the checkout, from wherever a notebook was started; the current folder for an installed package."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def work_folder() -> Path:
    """Where `data/` and `results/` lie: the folder that the variable PCMA_HOME names (the tests give a temporary one), else
    the project's root."""
    return Path(os.environ.get("PCMA_HOME") or project_root())


def resolve(path: str | Path) -> Path:
    """A path relative to the project's root, or an absolute one. `data/` and `results/` lie in `work_folder()`."""
    return (work_folder() if Path(path).parts[:1] in (("data",), ("results",)) else project_root()) / path


def inside(root: str | Path, *parts: str | Path) -> Path:
    """The path root/parts. A ValueError refuses a name that would lead out of the data folder."""
    root = Path(root).resolve()
    path = root.joinpath(*map(str, parts))
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r} is no file name; the index of {root} is not to be trusted")
    if not path.resolve().is_relative_to(root):
        raise ValueError(f"{Path(*map(str, parts))} lies outside the data folder {root}; the index is not to be trusted")
    return path


def make_folder(path: str | Path) -> None:
    """Make a folder and those above it, unless they are there.

    Raises:
        NotADirectoryError: there is a file in its place or above it.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"{path} can't be a folder: there is a file of this name, or of one above it") from None


def write_atomically(path: str | Path, write: Callable[[str], object]) -> None:
    """Call `write(temporary_path)`, then rename to `path`: readers see the old file or the new one, never a part.

    Raises:
        OSError: it can't be written; names `path`. What was there before is kept.
    """
    path, temporary = Path(path), None
    make_folder(path.parent)
    try:
        handle, temporary = tempfile.mkstemp(PART, f".{path.name}.", path.parent)
        os.close(handle)
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~UMASK)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary):
            raise
        raise OSError(error.errno, f"{error.strerror}; not written", str(path)) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def named_paths(items: Iterable[str]) -> dict[str, str]:
    """Paths by name, from NAME=PATH as given on a command line. A PATH alone is its own name."""
    return dict(item.split("=", 1) if "=" in item and not Path(item).exists() else (item, item) for item in items)


def read_json(path: str | Path) -> Any:
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


def read_rows(path: str | Path, columns: Sequence[str], renamed: Iterable[tuple[str, str]] = ()) -> list[dict[str, str]]:
    """The rows of a CSV file that has these columns, as dicts.

    Args:
        renamed: pairs of a column's name in the file and the one to give it, unless the file has that one too.

    Raises:
        FileNotFoundError: no such file. ValueError: not CSV in UTF-8, columns missing, or rows that are too short.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [c.strip() for c in reader.fieldnames or ()]
            renamed = {old: new for old, new in renamed if new not in names}
            reader.fieldnames = [renamed.get(c, c) for c in names]
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not readable as CSV in UTF-8 ({error})") from None
    if missing := set(columns) - set(reader.fieldnames):
        raise ValueError(f"{path} lacks the columns {sorted(missing)}; found {reader.fieldnames}")
    for number, row in enumerate(rows, 1):
        if short := [c for c in columns if row[c] is None]:
            raise ValueError(f"{path}: row {number} after the header ends before {', '.join(short)}")
    return rows


def open_image(path: str | Path, mode: str | None = None) -> Image.Image:
    """A PNG or JPEG picture, whatever its name ends in. It is brought to a Pillow mode, such as "RGB", where one is given.

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
            if mode and image.mode.startswith("I"):  # 16 bit: Pillow would show all above 255 as white
                image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
            return image.convert(mode) if mode else image
    except Exception as error:  # Pillow's readers raise many kinds
        raise ValueError(f"{path} is not a readable picture, expected PNG or JPEG ({error})") from None


def read_frame(path: str | Path) -> np.ndarray:
    """An RGB frame, uint8 [H, W, 3]."""
    return np.asarray(open_image(path, "RGB"))


def palette(classes: int) -> np.ndarray:
    """AVSBench-semantic's colours (PASCAL VOC's rule): uint8 [classes, 3], index 0 black."""
    index = np.arange(classes)
    colours = np.zeros((classes, 3), np.int64)
    for bit in range(7, -1, -1):
        for channel in range(3):
            colours[:, channel] |= (index >> channel & 1) << bit
        index = index >> 3
    return colours.astype(np.uint8)


def read_mask(path: str | Path, classes: int | None = None) -> np.ndarray:
    """A mask as uint8 [H, W].

    classes=None reads a binary mask. A grey one is marked from half of its scale up, which is 1, 255 or 65535. One in
    colours or with a palette is marked wherever it is not black; one of a single colour, where its alpha channel shows it.
    Otherwise it is an RGB or palette picture in the colours of `palette(classes)`.

    Raises:
        FileNotFoundError: no such file. ValueError: not readable, a colour of no class, or a mask that can mean two things.
    """
    if classes is None:
        return _read_binary_mask(path).astype(np.uint8)
    rgb = read_frame(path).astype(np.int64)
    packed = rgb @ np.array([65536, 256, 1])
    known = palette(classes).astype(np.int64) @ np.array([65536, 256, 1])
    order = np.argsort(known)
    place = np.searchsorted(known, packed, sorter=order).clip(max=classes - 1)
    found = order[place]
    wrong = known[found] != packed
    if wrong.any():
        colour = tuple(int(v) for v in rgb[wrong][0])
        raise ValueError(f"{path} has the colour {colour}, which is none of the {classes} classes' colours")
    return found.astype(np.uint8)


def _read_binary_mask(path):
    image = open_image(path)
    colours = np.asarray(image.convert("RGB"))
    if image.mode.startswith("I"):
        marked = _reaches_half(np.asarray(image), image)
    elif image.mode in ("1", "L", "LA") or (colours.max() > palette(256).max() and (colours == colours[..., :1]).all()):
        marked = _reaches_half(colours[..., 0], image)
    else:
        marked = colours.any(2)
    if not image.has_transparency_data:
        return marked
    shown = _reaches_half(np.asarray(image.convert("RGBA"))[..., 3], image)
    if shown.all() or (shown == marked).all():
        return marked
    if (colours == colours[0, 0]).all():
        return shown
    raise ValueError(f"{path} has one mask in its colours and another in its alpha channel; save it without alpha")


def _reaches_half(grey, image):
    """Where the grey values [H, W] of a picture reach half of their scale.

    Dark values can be numbers of classes. Beside bright ones they pass as soft edges and noise: in a JPEG, where they are
    many, or where none fills a block of 4 x 4 pixels.
    """
    scale = next(s for s in (1, 255, 65535) if grey.max() <= s)
    dark = np.unique(grey[(grey > 0) & (grey < scale / 2)])
    if len(dark) and grey.max() >= scale / 2:
        if image.format == "JPEG" or len(dark) > 32:
            return grey >= scale / 2
        height, width = grey.shape[0] // 4, grey.shape[1] // 4
        blocks = grey[: 4 * height, : 4 * width].reshape(height, 4, width, 4)
        dark = np.intersect1d(dark, blocks.max((1, 3))[blocks.min((1, 3)) == blocks.max((1, 3))])
    if len(dark):
        expected = "a mask of 0 and 1, of 0 and 255, or of 0 and 65535 in 16 bits"
        raise ValueError(f"{image.filename} has areas of grey {', '.join(map(str, dark[:5]))}; expected {expected}")
    return grey >= scale / 2


def read_classes(path: str | Path) -> dict[str, int]:
    """label2idx.json: class names to the numbers from 0, {name: number}."""
    classes = read_json(path)
    numbers = classes.values() if isinstance(classes, dict) else ()
    whole = all(type(n) is int for n in numbers) and 0 < len(numbers) <= 256
    if not whole or sorted(numbers) != list(range(len(numbers))):
        raise ValueError(f"{path} must map at most 256 class names to the numbers from 0, each once")
    return classes


def read_objects(path: str | Path, classes: dict[str, int], seconds: int) -> list[dict]:
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


def read_instances(path: str | Path, size: tuple[int, int], count: int) -> np.ndarray:
    """Which object each pixel shows, [H, W] uint8: 0 for none, or 1 + the object's number."""
    instances = np.asarray(open_image(path))
    if instances.dtype != np.uint8 or instances.shape != size:
        raise ValueError(f"{path} must hold 8-bit numbers of objects at the frames' size {size[::-1]}")
    if instances.max(initial=0) > count:
        raise ValueError(f"{path} names object {instances.max()} of {count}")
    return instances


def read_wave(path: str | Path, seconds: int | None = None, channels: bool = False) -> np.ndarray:
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
