"""Lessons where the package is missing: copies for Colab, what is installed beside a host, and a copy that runs alone."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BLOB = "https://github.com/owner/name/blob/main/"
RAW = "https://raw.githubusercontent.com/owner/name/main/"
OPENED = "https://colab.research.google.com/github/owner/name/blob/colab/notebooks/"

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout of git")


def script(name):
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


colab, install = script("colab"), script("install")


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    out = tmp_path_factory.mktemp("colab")
    colab.write_copies("owner/name", out)
    return out


@pytest.mark.parametrize("path", LESSONS, ids=[p.stem for p in LESSONS])
def test_a_copy_is_its_lesson_with_a_cell_more_and_with_full_addresses(path, copies):
    lesson, copy = (nbformat.read(p, 4) for p in (path, copies / "notebooks" / path.name))
    nbformat.validate(copy)
    setup = copy.cells.pop(1)
    assert setup.cell_type == "code" and "https://github.com/owner/name" in setup.source
    assert max(map(len, setup.source.splitlines())) <= 100
    compile(setup.source, path.name, "exec")
    shortened = {RAW: "../", OPENED: "", BLOB + "notebooks/": "", BLOB: "../"}
    for old, new in zip(lesson.cells, copy.cells, strict=True):
        if old.cell_type == "markdown":
            links = re.findall(r"\]\(([^()\s]+)\)", new.source)
            assert not [link for link in links if not link.startswith(("https://", "#"))]
            for address, short in shortened.items():
                new.source = new.source.replace(f"]({address}", f"]({short}")
        assert old == new


@pytest.mark.parametrize(
    ("link", "address"),
    {
        "04_qsca.ipynb": OPENED + "04_qsca.ipynb",
        "04_qsca.ipynb#set-up": OPENED + "04_qsca.ipynb#set-up",
        "../docs/diagrams/cim.svg": RAW + "docs/diagrams/cim.svg",
        "../docs/notation.md#sound": BLOB + "docs/notation.md#sound",
        "../docs/11_semantics_trained.ipynb": BLOB + "docs/11_semantics_trained.ipynb",
        "solutions/03_avga.py": BLOB + "notebooks/solutions/03_avga.py",
        "https://arxiv.org/abs/2406.02345": "https://arxiv.org/abs/2406.02345",
        "#set-up": "#set-up",
        "X": "X",
    }.items(),
)
def test_a_link_of_a_lesson_becomes_what_opens_it_on_the_web(link, address):
    assert colab.full_address("owner/name", link) == address


def test_a_repository_without_an_owner_is_refused_with_an_example():
    done = subprocess.run([sys.executable, colab.__file__, ""], capture_output=True, text=True)
    assert done.returncode == 2 and "make colab REPOSITORY=owner/name" in done.stderr


@needs_git
def test_the_copies_become_the_only_commit_of_their_branch_and_the_checkout_stays(copies, tmp_path):
    def git(*arguments, cwd=ROOT):
        return subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=True).stdout

    git("init", "--quiet", "--bare", tmp_path)
    before = git("status", "--porcelain"), git("rev-parse", "HEAD")
    for _ in range(2):  # the second time replaces the first
        colab.push(copies, remote=str(tmp_path))
    assert (git("status", "--porcelain"), git("rev-parse", "HEAD")) == before
    assert git("ls-tree", "-r", "--name-only", "colab", cwd=tmp_path).split() == [f"notebooks/{p.name}" for p in LESSONS]
    assert git("rev-list", "--count", "colab", cwd=tmp_path).strip() == "1"
    text = git("show", "colab:notebooks/03_avga.ipynb", cwd=tmp_path)
    assert text == (copies / "notebooks" / "03_avga.ipynb").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("torch", "torchvision", "torchaudio", "pinned"),
    [
        ("2.11.0+cu128", "0.26.0+cu128", "2.11.0+cu128", set()),
        ("2.13.1", "0.28.1", None, {"torchaudio"}),
        ("2.10.0+cu128", "0.25.0+cu128", "2.10.0+cu128", {"torch", "torchvision", "torchaudio"}),
        (None, None, None, {"torch", "torchvision", "torchaudio"}),
    ],
)
def test_a_host_keeps_what_fits_and_gets_tested_versions_of_the_rest(monkeypatch, torch, torchvision, torchaudio, pinned):
    host = {"torch": torch, "torchvision": torchvision, "torchaudio": torchaudio}
    host |= {"numpy": "2.0.2", "pillow": "11.3.0", "timm": "1.0.25", "soxr": "0.5.0", "huggingface-hub": "1.4.1"}

    def version(name):
        if not host.get(install.canonicalize_name(name)):
            raise install.PackageNotFoundError(name)
        return host[install.canonicalize_name(name)]

    monkeypatch.setattr(install, "version", version)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = (ROOT / "constraints.txt").read_text().split()
    found = install.tested(pins, install.wanted(project))
    names = {install.canonicalize_name(pin.split("==")[0]) for pin in found}
    assert set(found) <= set(pins) and {"av", "accelerate", "soxr", "librosa"} <= names
    assert names & {"torch", "torchvision", "torchaudio"} == pinned
    assert not names & {"numpy", "pillow", "timm", "huggingface-hub"}


@needs_git
@pytest.mark.slow
def test_a_copy_runs_alone_in_an_empty_folder_and_says_that_it_installs_the_package(tmp_path):
    """No network is needed: the environment has every package but ours, and the repository is cloned from this checkout."""
    name, environment, folder = "07_losses_and_metrics.ipynb", tmp_path / "env", tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(environment)})
    Path(packages, "others.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
    colab.write_copies("owner/name", tmp_path / "copies", address=ROOT.as_uri())
    folder.mkdir()
    (tmp_path / "copies" / "notebooks" / name).rename(folder / name)

    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PCMA_HOME")}
    variables |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    command = [environment / "bin" / "python", "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", name]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

    def printed(cells):
        plain = [c for c in cells if c.cell_type == "code" and "nbval-ignore-output" not in c.metadata.get("tags", ())]
        return ["".join(o.text for o in c.outputs if o.output_type == "stream") for c in plain]

    setup = (ran := nbformat.read(folder / name, 4).cells).pop(1)
    said = "".join(o.text for o in setup.outputs)
    assert said.startswith("The package of the lessons is missing here.") and "was there and stays" in said
    stored = nbformat.read(ROOT / "notebooks" / name, 4).cells
    assert printed(ran) == printed(stored) and len(json.dumps(printed(ran))) > 1000
    assert sorted(p.name for p in folder.iterdir()) == [name, "pcmanet"]
