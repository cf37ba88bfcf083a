"""Makes a dataset from real photographs and recordings: the stamps of Tux Paint.

    pcma-data stamps --out data/stamps

Debian's package `tuxpaint-stamps-default` (GPL-2) holds photographic cut-outs and, beside them, recordings of what they
show. `stamps.csv` lists those that were checked by eye and by spectrogram: a photograph, and really that thing's sound. They
are composed like the demo's objects, by `scene.py`. The splits show the same objects, in other poses and mixtures, before
other backgrounds (`stamp_backdrops.csv`); recordings of at least 3 s are divided among the splits by time, shorter ones are
the same in all of them. Two test sets more ask for what training lacks:

    test_photographs    each object is a photograph that no other clip shows, of a class that training has
    test_sounds         each sound is from the part of a divided recording that training lacks
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pcma_lib.data.files import read_rows

from .backgrounds import procedural_background
from .commands import command, command_parser
from .generate import add_options, enough, run
from .pen import cut_out
from .recordings import is_divided, play, segment
from .scene import SPLITS
from .stamp_files import find_stamps, read_picture, read_sound

HERE = Path(__file__).parent
CLIPS = (2000, 200, 200, 200, 200)


@dataclass(frozen=True)
class Stamp:
    """A photographic cut-out, `file.png`, and a recording; `longest` bounds the picture kept in memory."""

    file: Path
    recording: Path
    class_name: str
    longest: int
    tilt: float = 15

    @property
    def name(self) -> str:
        return self.file.name

    def picture(self, rng: np.random.Generator, pixels: int) -> Image.Image:
        image = read_picture(self.file.with_name(self.name + ".png"), self.longest)
        if rng.uniform() < 0.5:
            image = ImageOps.mirror(image)
        for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = enhancer(image).enhance(rng.uniform(0.75, 1.25))
        return cut_out(image, pixels)

    def sound(self, rng: np.random.Generator, seconds: int, split: str) -> np.ndarray:
        return play(rng, segment(self._recording(), shared(split)), seconds)

    def heard_in_training(self, split: str) -> bool:
        return split == "train" or not is_divided(self._recording())

    def _recording(self) -> np.ndarray:
        return read_sound(self.recording)


def shared(split: str) -> str:
    """The split whose backdrops and parts of recordings a split uses: all test sets have the same."""
    return "test" if split.startswith("test") else split


@dataclass(frozen=True)
class Backdrops:
    """Half the time a procedural background, else a piece of a photograph, enlarged, blurred and recoloured."""

    files: tuple[Path, ...]

    def __call__(self, rng: np.random.Generator, size: int) -> np.ndarray:
        if not self.files or rng.uniform() < 0.5:
            return procedural_background(rng, size)
        image = read_picture(self.files[int(rng.integers(len(self.files)))], 2 * size)
        surface = Image.new(
            "RGB", image.size, tuple(int(value) for value in np.asarray(image)[image.height // 2, image.width // 2, :3])
        )
        surface.paste(image, mask=image.getchannel("A"))
        side = rng.uniform(0.35, 0.6) * min(image.size)
        left, top = (rng.uniform(0.3, 0.7) * (np.array(image.size) - side)).tolist()
        piece = surface.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        piece = piece.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.02) * size))
        piece = piece.transpose(Image.Transpose(int(rng.integers(7))))
        colour = np.asarray(piece, np.float32) / 255
        colour = colour[..., rng.permutation(3)] if rng.uniform() < 0.5 else colour
        return np.clip(rng.uniform(0.6, 1.2) * colour + rng.uniform(-0.1, 0.1, 3), 0, 1).astype(np.float32)


@dataclass(frozen=True)
class StampsGenerator:
    """The stamps dataset. `stamps` and `backdrops` are the rows of the two lists, `folder` is where their paths start."""

    folder: Path
    stamps: tuple[dict, ...]
    backdrops: tuple[dict, ...]
    size: int
    name, version, licence = "stamps", 2, "GPL-2"

    def object_kinds(self, split: str) -> list[Stamp]:
        seen = "no" if split == "test_photographs" else "yes"
        stamps = [
            Stamp(self.folder / row["path"], self.folder / recording_of(row), row["class"], 2 * self.size)
            for row in self.stamps
            if row["seen_in_training"] == seen
        ]
        return [stamp for stamp in stamps if split != "test_sounds" or not stamp.heard_in_training(split)]

    def background(self, split: str) -> Backdrops:
        return Backdrops(
            tuple(self.folder / f"{row['path']}.png" for row in self.backdrops if row["split"] == shared(split))
        )

    def fingerprint(self) -> str:
        """Changes when a list or the size of a listed file changes."""
        sizes = [(self.folder / name).stat().st_size for name in wanted_files(self.stamps, self.backdrops)]
        return hashlib.sha256(repr((self.stamps, self.backdrops, sizes)).encode()).hexdigest()[:16]


def recording_of(row: dict) -> str:
    """A row names a recording where it is not the one beside the picture."""
    return (row["recording"] or row["path"]) + ".ogg"


def read_list(path: Path, columns: Sequence[str], **more: str) -> tuple[dict, ...]:
    """The rows of a CSV file that must have these columns, and whose paths must stay inside the stamps folder.

    Args:
        more: columns that it may have, and what they hold where it has not.
    """
    rows = tuple(
        {name: row[name] for name in columns} | {name: row.get(name) or usual for name, usual in more.items()}
        for row in read_rows(path, columns)
    )
    allowed = {"split": SPLITS[:3], "seen_in_training": ("yes", "no")}
    for row in rows:
        for file in (row["path"], row.get("recording", "")):
            if Path(file).is_absolute() or ".." in Path(file).parts:
                raise ValueError(f"{path} names {file}, outside the stamps folder")
        for name in allowed.keys() & row.keys():
            if row[name] not in allowed[name]:
                raise ValueError(f"{path} has the {name} {row[name]!r}; expected one of {', '.join(allowed[name])}")
    return rows


def choose_classes(stamps: tuple[dict, ...], classes: str | None) -> tuple[dict, ...]:
    """The rows whose class is among the comma-separated `classes`; all rows if it is None."""
    if classes is None:
        return stamps
    chosen, known = set(classes.split(",")), {row["class"] for row in stamps}
    if not chosen <= known:
        raise ValueError(f"--classes names {', '.join(sorted(chosen - known))}; there are {', '.join(sorted(known))}")
    return tuple(row for row in stamps if row["class"] in chosen)


def wanted_files(stamps: Sequence[dict], backdrops: Sequence[dict]) -> list[str]:
    """Paths of all files that the two lists need, relative to the stamps folder."""
    names = [name for row in stamps for name in (row["path"] + ".png", recording_of(row))]
    return list(dict.fromkeys(names + [row["path"] + ".png" for row in backdrops]))


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = command_parser("stamps", __doc__)
    add_options(parser, out="data/stamps", size=128, clips=CLIPS)
    parser.set_defaults(clips=None)
    parser.add_argument(
        "--source", type=Path, help="folder, .deb or .tar.gz with the stamps (default: apt-get download, kept beside --out)"
    )
    parser.add_argument("--classes", help="comma-separated classes of the list to use, at least 5 (default: all)")
    parser.add_argument(
        "--list",
        type=Path,
        default=HERE / "stamps.csv",
        help="CSV of path,class and, if need be, recording,seen_in_training: the stamps to use",
    )
    parser.add_argument(
        "--backdrops", type=Path, default=HERE / "stamp_backdrops.csv", help="CSV of path,split: pictures for backgrounds"
    )
    options = parser.parse_args(arguments)
    stamps = read_list(options.list, ("path", "class"), recording="", seen_in_training="yes")
    stamps, backdrops = choose_classes(stamps, options.classes), read_list(options.backdrops, ("path", "split"))
    folder = find_stamps(options.source, options.out.parent / "stamps_package", wanted_files(stamps, backdrops))
    generator = StampsGenerator(folder, stamps, backdrops, options.size)
    if options.clips is None:  # few classes may not do for the two sets more
        sets = zip(SPLITS[3:], CLIPS[3:])
        options.clips = CLIPS[:3] + tuple(count * enough(generator.object_kinds(split)) for split, count in sets)
    return run(generator, options, stamps=generator.fingerprint())
