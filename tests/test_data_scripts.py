import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "data_scripts"


def make(folder, *options, script="make_demo.py", check=True):
    command = [sys.executable, SCRIPTS / script, "--out", folder, "--clips", "6,2,2", "--size", "64", *options]
    return subprocess.run(command, check=check, capture_output=True, text=True)


def content(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "demo"
    make(folder)
    return folder


def test_the_same_seed_gives_the_same_bytes_whatever_the_processes(made, tmp_path):
    make(tmp_path / "again", "--workers", "1")
    assert content(tmp_path / "again") == content(made)


def test_an_interrupted_run_completes_to_the_same_bytes(made, tmp_path):
    command = [sys.executable, SCRIPTS / "make_demo.py", "--out", tmp_path / "cut"]
    command += ["--clips", "6,2,2", "--size", "64", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not list((tmp_path / "cut").glob("v1m/demo_*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    make(tmp_path / "cut")
    assert content(tmp_path / "cut") == content(made)


def test_other_settings_are_refused_in_a_folder_that_is_complete(made):
    refused = make(made, "--seed", "1", check=False)
    assert refused.returncode != 0 and "seed" in refused.stderr and str(made) in refused.stderr


def test_every_clip_has_a_visible_object_that_never_sounds(made):
    for path in made.glob("v1m/*/objects.json"):
        objects = json.loads(path.read_text())
        assert any(o["on_screen"] and not any(o["sounds"]) for o in objects), path
        assert len({o["class"] for o in objects}) == len(objects), path


def test_stamps_without_their_source_say_what_was_looked_for(tmp_path):
    refused = make(tmp_path / "out", "--source", tmp_path / "nothing", script="make_stamps.py", check=False)
    assert refused.returncode != 0 and "nothing" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list((tmp_path / "out").glob("v1m/*"))
