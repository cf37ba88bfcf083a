"""The README's commands, in a row and twice, in a copy of the project: each works, and no model that one made is lost.

What makes them tiny is what follows them: DATA and TRAIN of the Makefile, parameters of notebook 08.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from test_environment import ROOT

BIN = Path(sys.executable).parent
TINY = '-p epochs 1 -p image_size 32 -y "{settings: {pretrain: 1, evaluate_every: 1}}"'
MAKE = f"make --old-file=env BIN={BIN} DATA='--clips 8,2,6 --size 64 --workers 1' TRAIN='{TINY}'"
README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```\n(.*?)```", README, re.S) for line in block.splitlines()]
COMMANDS = [line.split("  #")[0].strip() for line in COMMANDS if re.match(r"(make|papermill|python) ", line)]


def tiny(command):
    """The same command with settings that take seconds; photographs, which need a network, are drawn clips."""
    if command in ("make test", "make lab"):
        return f"{MAKE} --dry-run {command.split()[1]}"
    if command == "make stamps":  # its second half; the first fetches the photographs
        only = "sed -n '/mkdir/p; /papermill/s|$| -p data data/demo|p'"
        return f"{MAKE} --dry-run stamps | {only} > stamps.sh && sh -e stamps.sh"
    if command.startswith("make "):
        return command.replace("make", MAKE, 1)
    return f"{command} -p data data/demo {TINY}" if command.startswith("papermill ") else command


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the project with a video of two seconds."""
    tree = tmp_path_factory.mktemp("commands") / "project"
    for folder in ("pcma_lib", "pcma_data", "notebooks", "data_scripts"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, tree)
    with av.open(str(tree / "in.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for shade in range(10):
            picture = np.full((64, 64, 3), 20 * shade, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))
    return tree


def run(command, tree):
    environment = {**os.environ, "PYTHONPATH": str(tree), "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment.pop("PCMA_HOME", None)
    ran = subprocess.run(command, shell=True, cwd=tree, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, f"{command}\n{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}"
    return ran.stdout + ran.stderr


def models(tree):
    return {path: path.read_bytes() for path in tree.rglob("*.safetensors") if "pcma_lib" not in path.parts}


@pytest.mark.slow
def test_the_readmes_commands_work_in_a_row_and_twice_and_no_model_is_lost(tree):
    commands = list(COMMANDS)
    commands.insert(commands.index("make test") + 1, "make stamps")
    assert {"make", "papermill", "python"} == {c.split()[0] for c in commands}
    said, kept = {}, {}
    for round_ in range(2):
        for command in commands:
            said[command, round_] = run(tiny(command), tree)
            found = models(tree)
            assert all(found.get(path) == content for path, content in kept.items()), f"{command} changed a model"
            kept = found
    folders = {path.parent.relative_to(tree).as_posix() for path in kept}
    assert folders == {"results/demo", "results/demo_40", "results/stamps"}
    for phase in ("pretraining the eye", "pretraining the ear", "training", "validation", "test"):
        assert re.search(rf"^(.* )?{phase}[^:]*: \w+ \d+ of \d+", said["make train", 0], re.M), phase
    assert re.search(r"training: step 1 of 1, loss \d+\.\d+, .*validation mIoU", said["make train", 0])
    assert "holds this run already" in said["make train", 1] and "training: step" not in said["make train", 1]


def test_pytest_and_the_notebooks_it_runs_have_a_data_and_a_results_folder_of_their_own():
    script = "from pcma_lib.data.files import resolve as at; print(at('data/quick'), at('results'), at('docs'))"
    printed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    data, results, docs = map(Path, printed.split())
    home = Path(os.environ["PCMA_HOME"])
    assert (data, results, docs) == (home / "data" / "quick", home / "results", ROOT / "docs")
    assert ROOT not in home.parents


def test_no_notebook_removes_a_file():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert not re.search(r"rmtree|unlink\(|os\.remove|rm -", path.read_text()), path.name


@pytest.mark.parametrize(
    "python, said", [("no-such-python", "python is missing"), ("./old", "3.11, 3.12 or 3.13 is needed")]
)
def test_make_env_names_what_is_missing_and_the_command_that_installs_it(tmp_path, python, said):
    for name in ("pyproject.toml", "Makefile", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "old").write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1" || exit 1\n')
    (tmp_path / "old").chmod(0o755)
    ran = subprocess.run(["make", "env", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode and said in ran.stdout and "sudo apt-get install python3" in ran.stdout
    assert not (tmp_path / ".venv").exists()
