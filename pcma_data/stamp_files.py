"""Finds, unpacks and reads the files of the package `tuxpaint-stamps-default`: photographic cut-outs and recordings."""

from __future__ import annotations

import functools
import io
import lzma
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import av
import numpy as np
from PIL import Image

from pcma_lib.data.files import SAMPLE_RATE as RATE

PACKAGE = "tuxpaint-stamps-default"
HOW_TO_GET_IT = f"""To get the stamps (about 160 MB, GPL-2) on Debian or Ubuntu, with their package lists up to date:
    apt-get update && apt-get download {PACKAGE}
then give the file that this leaves, {PACKAGE}_VERSION_all.deb, as --source. Elsewhere, give the release archive
of the stamps from the Tux Paint project (tuxpaint-stamps-VERSION.tar.gz) or a folder where Tux Paint's stamps are installed
(usr/share/tuxpaint/stamps)."""


def stamps_folder(folder: Path, wanted: Collection[str]) -> Path:
    """The folder below (or at) `folder` that the paths in `wanted` start from.

    Raises:
        ValueError: files are missing.
    """
    places = [
        folder,
        folder / "usr/share/tuxpaint/stamps",
        folder / "share/tuxpaint/stamps",
        folder / "tuxpaint/stamps",
        folder / "stamps",
    ]
    places += sorted(folder.glob("*/stamps"))
    best = min(places, key=lambda place: sum(not (place / name).is_file() for name in wanted))
    missing = [name for name in wanted if not (best / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of {len(wanted)} files, the first of them {missing[0]}; "
            f"expected the stamps of {PACKAGE}, version 2022.06.04 or near it.\n{HOW_TO_GET_IT}"
        )
    return best


def _data_of_deb(archive: Path) -> BinaryIO:
    """The data member of a Debian package, which is an `ar` archive: 60-byte headers, members padded to even length.

    Python 3.11 has no Zstandard, which some distributions use: `dpkg-deb` unpacks that.
    """
    with archive.open("rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise tarfile.ReadError("not a Debian package")
        while len(header := file.read(60)) == 60:
            name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
            if name == "data.tar.zst":
                return io.BytesIO(
                    subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], check=True, capture_output=True).stdout
                )
            if name.startswith("data.tar"):
                return io.BytesIO(file.read(size))
            file.seek(size + size % 2, 1)
    raise tarfile.ReadError("no data.tar in it")


def _wanted_members(archive: tarfile.TarFile, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
    """The wanted files of a tar archive, wherever in it the stamps lie; nothing else is ever written."""
    for member in archive:
        parts = PurePosixPath(member.name).parts
        if member.isfile() and "stamps" in parts:
            name = "/".join(parts[parts.index("stamps") + 1 :])
            if name in wanted:
                yield name, archive.extractfile(member)


def unpack(archive: Path, cache: Path, wanted: Collection[str]) -> Path:
    """Copies the wanted files out of a .deb or .tar.* archive into a folder of `cache`, once.

    Raises:
        ValueError: the archive cannot be read.
    """
    folder = cache / f"{archive.name}.{archive.stat().st_size}"
    part = folder.with_name(folder.name + ".part")
    if not all((folder / name).is_file() for name in wanted):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            with tarfile.open(fileobj=_data_of_deb(archive)) if archive.suffix == ".deb" else tarfile.open(archive) as tar:
                for name, file in _wanted_members(tar, wanted):
                    (part / name).parent.mkdir(parents=True, exist_ok=True)
                    (part / name).write_bytes(file.read())
        except (
            tarfile.TarError,
            lzma.LZMAError,
            zlib.error,
            EOFError,
            OSError,
            ValueError,
            subprocess.SubprocessError,
        ) as error:
            shutil.rmtree(part)
            raise ValueError(f"{archive} cannot be unpacked ({error}); is it complete?\n{HOW_TO_GET_IT}") from error
        part.rename(folder)
    return folder


def download(cache: Path) -> Path:
    """Fetches the package with `apt-get download` into `cache`, unless it is there; returns the .deb.

    Raises:
        ValueError: there is no apt-get, or it did not find the package.
    """
    found = sorted(cache.glob(f"{PACKAGE}_*.deb"))
    if not found:
        part = cache / "download.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            done = subprocess.run(["apt-get", "download", PACKAGE], cwd=part, capture_output=True, text=True)
            message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        except FileNotFoundError:
            message = "this system has no apt-get"
        fetched = sorted(part.glob("*.deb"))
        if not fetched:
            raise ValueError(f"could not fetch {PACKAGE}: {message}.\n{HOW_TO_GET_IT}")
        found = [fetched[0].rename(cache / fetched[0].name)]
        shutil.rmtree(part)
    return found[-1]


def find_stamps(source: Path | None, cache: Path, wanted: Collection[str]) -> Path:
    """The folder that holds the wanted files: below `source`, unpacked from it, or from a downloaded package.

    Args:
        source: a folder, a .deb or .tar.gz archive, or None to download.
        cache: where to download and to unpack.
        wanted: paths of files, relative to the stamps folder.
    """
    if source is None:
        source = download(cache)
    if source.is_dir():
        return stamps_folder(source, wanted)
    if not source.is_file():
        raise ValueError(f"--source {source} does not exist.\n{HOW_TO_GET_IT}")
    if not source.name.endswith((".deb", ".tar.gz", ".tgz", ".tar.xz", ".tar")):
        raise ValueError(f"--source {source} is neither a folder nor a .deb or .tar.gz archive.\n{HOW_TO_GET_IT}")
    return stamps_folder(unpack(source, cache, wanted), wanted)


@functools.cache
def read_picture(path: Path, longest: int) -> Image.Image:
    """A cut-out as RGBA, cut to its opaque part and reduced to at most `longest` pixels; kept for the next call."""
    try:
        image = Image.open(path).convert("RGBA")
    except OSError as error:
        raise ValueError(f"{path} cannot be read as a picture ({error})") from error
    box = image.getchannel("A").point(lambda value: 255 * (value >= 16)).getbbox()
    if box is None:
        raise ValueError(f"{path} is wholly transparent; expected a cut-out with an alpha channel")
    image = image.crop(box)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return image


@functools.cache
def read_sound(path: Path) -> np.ndarray:
    """A recording as 16 kHz mono, [N] float32; kept for the next call."""
    try:
        with av.open(f"file:{path}") as container:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
            frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)] + resampler.resample(
                None
            )
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} cannot be read as sound ({error})") from error
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames]) if frames else np.zeros(0, np.float32)
    if not np.abs(samples).max(initial=0) > 0:
        raise ValueError(f"{path} holds no sound")
    return samples
