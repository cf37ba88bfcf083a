"""The package without its checkout: what importing it takes, what each extra brings, and the commands of a built wheel."""

import ast
import json
import os
import shutil
import subprocess
import sys
import textwrap
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from test_video import make

import pcma_lib

ROOT = Path(__file__).resolve().parents[1]
BUILT = ("pcma_lib", "pcma_data", "pyproject.toml", "README.md", "LICENSE")


def python(site, *arguments, cwd):
    """Run Python in a fresh process that finds nothing but what lies in `site`, not even what is installed beside it."""
    environment = {k: v for k, v in os.environ.items() if k != "PCMA_HOME"} | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-S", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def run_command(site, name, *arguments, cwd):
    """What a console script of an installed wheel prints."""
    done = python(site, site / "bin" / name, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_takes_no_time_and_no_torch(tmp_path):
    code = """
        import sys, time
        start = time.perf_counter()
        import pcma_lib
        print(time.perf_counter() - start, "torch" in sys.modules, pcma_lib.__version__)
    """
    done = python(ROOT, "-c", textwrap.dedent(code), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    seconds, torch, version = done.stdout.split()
    assert float(seconds) < 3 and torch == "False" and version == pcma_lib.__version__


def missing_hints(source, where):
    """The arguments and results of public functions and methods in a module's source that have no type hint, by name."""
    waiting = [(where, node) for node in ast.parse(source).body]
    for name, node in waiting:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or (node.name != "__init__" and node.name.startswith("_")):
            continue
        name = f"{name}:{node.name}"
        if isinstance(node, ast.ClassDef):
            waiting += [(name, inner) for inner in node.body]
            continue
        taken = node.args
        taken = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs, taken.vararg, taken.kwarg]
        yield from (f"{name}({a.arg})" for a in taken if a and not a.annotation and a.arg not in ("self", "cls"))
        if not node.returns:
            yield f"{name} returns"


def test_every_public_signature_has_type_hints():
    modules = [path for package in ("pcma_lib", "pcma_data") for path in sorted((ROOT / package).rglob("*.py"))]
    found = {path: list(missing_hints(path.read_text(), path.relative_to(ROOT))) for path in modules}
    lacking = [name for names in found.values() for name in names]
    assert len(modules) > 60 and not lacking, "\n".join(lacking)
    bare = "class A:\n    def f(self, a, b: int = 1, *c, d=2, **e): ...\n    def _g(x): ...\n    def __init__(self): ..."
    names = ["A:f(a)", "A:f(d)", "A:f(c)", "A:f(e)", "A:f returns", "A:__init__ returns"]
    assert list(missing_hints(bare, "m.py")) == [f"m.py:{name}" for name in names]


def brought_by(texts, extras=()):
    """The installed distributions that these requirements bring, and what those require in turn, by name."""
    found, seen, waiting = {}, set(), [(text, extras) for text in texts]
    while waiting:
        text, extras = waiting.pop()
        requirement = Requirement(text)
        needed = requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras))
        if needed and (requirement.name, *requirement.extras) not in seen:
            seen.add((requirement.name, *requirement.extras))
            found[requirement.name] = distribution(requirement.name)
            waiting += [(text, requirement.extras) for text in found[requirement.name].requires or ()]
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the checkout without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in BUILT:
        kind = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        kind(ROOT / name, folder / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def install(wheel, tmp_path_factory):
    """A function: `pip install 'pcma-lib[EXTRA]'` into a folder of its own; what it depends on is linked there."""

    def install(extra=""):
        site = tmp_path_factory.mktemp(extra or "core")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
        subprocess.run(command, check=True, capture_output=True)
        (metadata,) = site.glob("pcma_lib-*.dist-info")
        for part in brought_by(Distribution.at(metadata).requires, [extra]).values():
            for top in {file.parts[0] for file in part.files} - {"..", "__pycache__", "bin"}:
                if not (site / top).exists():
                    (site / top).symlink_to(part.locate_file(top))
        return site

    return install


@pytest.mark.slow
def test_the_wheel_makes_data_trains_and_evaluates_outside_the_checkout(install, tmp_path):
    site = install("train")
    where = python(site, "-c", "import pcma_lib, pcma_data; print(pcma_lib.__file__, pcma_data.__file__)", cwd=tmp_path)
    assert len(where.stdout.split()) == 2 and all(Path(f).is_relative_to(site) for f in where.stdout.split()), where
    command = ("demo", "--clips", "8,4,4", "--size", "64", "--out", "data/quick")
    assert "data/quick: complete, 16 clips" in run_command(site, "pcma-data", *command, cwd=tmp_path)
    command = ("fit", "--preset", "quick", "--output", "run", "--set", "mixed_precision=no")
    run_command(site, "pcma-train", *command, cwd=tmp_path)
    assert json.loads((tmp_path / "run/result.json").read_text())["steps"] == 4
    command = ("evaluate", "--checkpoint", "run/best.safetensors", "--data", "data/quick", "--image-size", "64")
    assert "| miou |" in run_command(site, "pcma-train", *command, "--output", "measured.json", cwd=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "measured.json", "run"]
    for name in ("stamps", "avsbench", "weights", "convert"):
        assert f"usage: pcma-data {name}" in run_command(site, "pcma-data", name, "--help", cwd=tmp_path)
    code = "from pcma_data.stamps import HERE, read_list; print(len(read_list(HERE / 'stamps.csv', ['path'])))"
    lists = python(site, "-c", code, cwd=tmp_path)
    assert int(lists.stdout) > 40


@pytest.mark.slow
def test_the_wheel_marks_a_video_with_the_extra_video_alone(install, tmp_path):
    make(tmp_path / "in.mp4", 1)
    site = install("video")
    assert not (site / "accelerate").exists()
    summary = json.loads(run_command(site, "pcma-video", "in.mp4", "out.mp4", cwd=tmp_path))
    assert summary["frames"] > 0 and (tmp_path / "out.mp4").stat().st_size > 1000


@pytest.mark.slow
def test_the_core_has_the_network_and_the_demo_model_and_names_the_extra_that_is_missing(install, tmp_path):
    site = install()
    assert (site / "pcma_lib" / "notebook" / "explorers.js").is_file()
    code = """
        import torch
        from pcma_lib import AVGA, PCMANet, AudioVisualModel, LogMel
        model = AudioVisualModel.demo()
        with torch.no_grad():
            print(*model(torch.zeros(1, 1, 3, 64, 64), torch.zeros(1, 1, 1, 96, 64)).logits[0].shape)
    """
    done = python(site, "-c", textwrap.dedent(code), cwd=tmp_path)
    assert done.stdout.split() == ["1", "1", "1", "64", "64"], done.stderr
    for code, extra in {
        "from pcma_lib import MeanIoU": "train",
        "from pcma_lib.training import fit": "train",
        "from pcma_lib.training.__main__ import main": "train",
        "from pcma_data.__main__ import main; main(['stamps'])": "train",
        "import pcma_lib.video": "video",
    }.items():
        done = python(site, "-c", code, cwd=tmp_path)
        assert done.returncode == 1 and f"pip install 'pcma-lib[{extra}]'" in done.stderr.splitlines()[-1], code
