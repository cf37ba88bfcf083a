"""An AVSBench download, folder or archive, brought to the places of its layout; `avsbench.py` does the rest."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from pcma_lib.data.avsbench import DATASETS
from pcma_lib.data.files import open_image, read_wave, write_atomically

# The end of a path, from the folder that the layout starts with; the number of levels tells S4 from MS3.
PLACES = {
    "s4": r"(visual_frames|gt_masks)/S/N/N/N\.png|audio_wav/S/N/N\.wav|raw_videos/S/N/N\.mp4",
    "ms3": r"visual_frames/N/N\.png|gt_masks/S/N/N\.png|audio_wav/S/N\.wav|raw_videos/N\.mp4",
    "avss": r"(v1s|v1m|v2)/N/(frames/\d+\.jpg|labels_rgb/\d+\.png|audio\.wav|N\.mp4)|label2idx\.json",
}
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


@dataclass
class Member:
    """A file of a source: its name there, its size in bytes, its path if it lies in a folder, and how to open it."""

    name: str
    size: int
    path: Path | None
    open: Callable | None
    plain: bool = True

    def is_safe(self) -> bool:
        """A regular file whose name stays below the place where it is unpacked."""
        parts = re.split(r"[/\\]", self.name)
        return self.plain and parts[0] != "" and ":" not in parts[0] and ".." not in parts


def members(source: Path) -> Iterator[Member]:
    """All files of a folder (links are followed) or of an archive."""
    if source.is_dir():
        seen = {os.path.realpath(source)}
        for folder, folders, files in os.walk(source, followlinks=True):
            folders[:] = sorted(
                f for f in folders if not f.startswith(".") and os.path.realpath(f"{folder}/{f}") not in seen
            )
            seen.update(os.path.realpath(f"{folder}/{f}") for f in folders)
            for path in (Path(folder, name) for name in sorted(files)):
                if path.is_file():
                    yield Member(path.relative_to(source).as_posix(), path.stat().st_size, path, partial(open, path, "rb"))
    elif source.suffix == ".zip":
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if not info.is_dir():
                    yield Member(info.filename, info.file_size, None, partial(archive.open, info), kind in (0, stat.S_IFREG))
    else:
        with tarfile.open(source) as archive:
            for info in archive:
                if not info.isdir():
                    yield Member(info.name, info.size, None, partial(archive.extractfile, info), info.isreg())


def place(dataset: str, name: str) -> str | None:
    """Where a file of this name belongs below the layout's root; None for what the layout does not need."""
    data = getattr(DATASETS[dataset], "data", "")
    index = DATASETS[dataset].index_file
    pattern = PLACES[dataset].replace("S/", "(train|val|test)/").replace("N", r"[^/.][^/]*")
    found = re.fullmatch(rf"(?:.*/)?({pattern}|{re.escape(index)})", name)
    if not found or "__MACOSX/" in name:
        return None
    return found[1] if found[1] == index or not data else f"{data}/{found[1]}"


def gather(source: Path, dataset: str, root: Path) -> tuple[int, list[str]]:
    """Brings what the layout needs from a source into `root`. Returns how many files fit, and the problems."""
    fitting, problems = 0, []
    bar = tqdm(unit="file", desc=f"reading {source.name}")
    try:
        for member in members(source):
            bar.update()
            if source.is_dir() and member.name.endswith(ARCHIVES):
                more, found = gather(member.path, dataset, root)
                fitting, problems = fitting + more, problems + found
                continue
            if not source.is_dir() and not member.is_safe():
                problems.append(f"{source}: {member.name} is a link, a device or leads out of the folder; not unpacked")
                continue
            target = place(dataset, member.name)
            if target is not None:
                fitting += 1
                try:
                    take(member, root / target)
                except DAMAGED as error:
                    problems.append(f"{source}: {member.name} is damaged ({error}); download the archive again")
    except DAMAGED as error:
        problems.append(f"{source} cannot be read to its end ({error}); download it again")
    bar.close()
    return fitting, problems


def take(member: Member, target: Path) -> None:
    """Links or copies a file to its place, unless a readable one is there."""
    if target.suffix == ".csv":
        with member.open() as file:
            write_if_changed(target, file.read())
    elif not target.exists() or (target.stat().st_size != member.size and not readable(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        if member.path:
            target.unlink(missing_ok=True)
            try:
                return os.link(os.path.realpath(member.path), target)
            except OSError:  # another file system
                pass

        def copy(path):
            with member.open() as source, open(path, "wb") as file:
                shutil.copyfileobj(source, file)

        write_atomically(target, copy)


def readable(path: Path) -> Image.Image | bool:
    """A picture, or True for a sound that can be read; False for what can't, and for other files."""
    try:
        return check_wave(path) or True if path.suffix == ".wav" else open_image(path)
    except (ValueError, OSError):
        return False


def write_if_changed(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, lambda part: Path(part).write_bytes(content))


def check_wave(path: Path, seconds: int | None = None) -> None:
    """Raises an error that names the file if it is missing, cut off, unreadable or more than a second too short."""
    if path.is_file():
        with open(path, "rb") as file:
            head = file.read(8)
        size, declared = path.stat().st_size, int.from_bytes(head[4:], "little") + 8
        if head[:4] == b"RIFF" and size + 1 < declared < 2**32:  # beyond: a writer that could not go back
            raise ValueError(f"{path} is cut off: {size} bytes, its header says {declared}")
    read_wave(path, seconds)
