"""Runs that are killed, run out of disk, or whose numbers run away: what is on disk stays good, and they go on from it."""

import csv
import multiprocessing
import random
import resource
import time

import pytest
import torch

from pcma_lib import AudioVisualModel
from pcma_lib.data.files import PART
from pcma_lib.training import fit
from pcma_lib.training import steps as training
from pcma_lib.training.config import TrainConfig
from pcma_lib.use import checkpoints
from pcma_lib.use.checkpoints import load_tensors

KILLS, STEPS = 20, 120
SETTINGS = {"epochs": 2, "save_every": 1, "pretrain": 0, "mixed_precision": "no"}


def config(data, **changes):
    return TrainConfig.preset("quick", data=str(data), **{**SETTINGS, **changes})


def train(settings, folder, report):
    """One process of a run; appends each step to the file `report` once whatever belongs to it is on disk."""
    torch.set_num_threads(1)
    with open(report, "a", buffering=1) as file:
        fit(TrainConfig(**settings), folder, resume=True, progress=False, after_step=lambda r: print(r["step"], file=file))


def steps_in(report):
    return [int(line) for line in report.read_text().split("\n")[:-1]] if report.exists() else []


def table(path):
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k != "clips_per_second"} for row in csv.DictReader(file)]


def same_weights(*paths):
    one, other = map(load_tensors, paths)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def leftovers(folder):
    return sorted(p.name for p in folder.glob(f".*{PART}"))


@pytest.fixture(scope="module")
def whole(demo, tmp_path_factory):
    """An uninterrupted run of two epochs of three steps."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    fit(config(demo), folder, progress=False)
    return folder


@pytest.mark.slow
def test_a_run_killed_at_twenty_moments_ends_as_one_never_interrupted(demo, tmp_path):
    """Every fifth kill falls at a time since the start of the process, the others at one since its first step."""
    settings = config(demo, epochs=STEPS // 3, save_every=2, evaluate_every=2, pretrain=1).to_dict()
    context, draw = multiprocessing.get_context("forkserver"), random.Random(0)
    context.set_forkserver_preload(["pcma_lib.training"])

    def start(name):
        process = context.Process(target=train, args=(settings, tmp_path / name, tmp_path / f"{name}.txt"), daemon=True)
        process.start()
        return process, time.monotonic()

    process, began = start("whole")
    while not steps_in(tmp_path / "whole.txt"):
        time.sleep(0.01)
    until_first = time.monotonic() - began
    process.join()
    per_step = (time.monotonic() - began - until_first) / (STEPS - 1)
    assert process.exitcode == 0 and steps_in(tmp_path / "whole.txt") == list(range(1, STEPS + 1))

    report, writing = tmp_path / "killed.txt", 0
    for kill in range(KILLS):
        before = steps_in(report)
        process, began = start("killed")
        if kill % 5:
            while len(steps_in(report)) == len(before) and process.is_alive():
                time.sleep(0.005)
            delay = draw.uniform(0, 3 * per_step)
        else:
            delay = draw.uniform(0, until_first)
        time.sleep(delay)
        process.kill()
        process.join()
        assert process.exitcode == -9, f"kill {kill} came after the end of the run"
        writing += bool(leftovers(tmp_path / "killed"))
        steps = steps_in(report)
        if before and len(steps) > len(before):
            assert before[-1] + 1 - steps[len(before)] in (0, 1), "a step between two saved states is lost, and no more"
            assert steps[len(before) :] == list(range(steps[len(before)], steps[-1] + 1))
    process, _ = start("killed")
    process.join()
    print(f"{KILLS} kills, {writing} of them in the middle of a file; {per_step:.2f} s a step")
    assert process.exitcode == 0 and steps_in(report)[-1] == STEPS and not leftovers(tmp_path / "killed")
    for name in ("last.safetensors", "best.safetensors"):
        assert same_weights(tmp_path / "whole" / name, tmp_path / "killed" / name), name
    for name in ("log.csv", "validation.csv"):
        assert table(tmp_path / "whole" / name) == table(tmp_path / "killed" / name), name


def half_written(monkeypatch, name):
    """The writer of safetensors finds the disk full in the middle of `name`."""
    complete = checkpoints.save_file

    def write(state, path, **options):
        complete(state, path, **options)
        if f".{name}." in str(path):
            with open(path, "r+b") as file:
                file.truncate(1000)
            raise checkpoints.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", write)


@pytest.mark.parametrize("name, step, left", [("resume.pt", 1, 1), ("last.safetensors", 5, 5), ("best.safetensors", 2, 2)])
def test_a_disk_that_fills_up_is_an_error_that_names_the_file_and_what_was_saved_stays(
    demo, tmp_path, whole, monkeypatch, name, step, left
):
    run, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(row):
        if row["step"] == step and name.startswith("best"):
            half_written(monkeypatch, name)
        elif row["step"] == step:  # no file can grow beyond a megabyte
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))

    try:
        with pytest.raises(OSError, match=rf"run/{name} could not be written, \d+ bytes are free"):
            fit(config(demo), run, progress=False, after_step=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not leftovers(run) and torch.load(run / "resume.pt", weights_only=True)["step"] == left
    if step > 3:
        assert AudioVisualModel.load(run / "best.safetensors") and AudioVisualModel.load(run / "last.safetensors")
    monkeypatch.undo()
    assert fit(config(demo), run, resume=True, progress=False)["steps"] == 6
    assert same_weights(run / "last.safetensors", whole / "last.safetensors")


def endless(loss, logits):
    return loss * float("nan")


def endless_gradient(loss, logits):
    return loss + (logits[0] - logits[0]).sum().sqrt()


@pytest.mark.parametrize(
    "spoil, said", [(endless, "the loss is nan at step 5"), (endless_gradient, "the gradient's norm is nan at step 5")]
)
def test_numbers_that_run_away_stop_the_run_at_the_last_good_state(demo, tmp_path, whole, monkeypatch, spoil, said):
    calls, original = [], training.segmentation_loss

    def loss(logits, *rest):
        calls.append(1)
        return spoil(original(logits, *rest), logits) if len(calls) == 5 else original(logits, *rest)

    monkeypatch.setattr(training, "segmentation_loss", loss)
    with pytest.raises(FloatingPointError, match=said) as caught:
        fit(config(demo), tmp_path, progress=False)
    assert str(caught.value).count("demo_train_") == 4 and str(tmp_path / "resume.pt") in str(caught.value)
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["step"] == 4
    assert all(p.isfinite().all() for p in AudioVisualModel.load(tmp_path / "best.safetensors").parameters())
    assert fit(config(demo), tmp_path, resume=True, progress=False)["steps"] == 6
    assert same_weights(tmp_path / "last.safetensors", whole / "last.safetensors")
    assert table(tmp_path / "log.csv") == table(whole / "log.csv")
