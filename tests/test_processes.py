"""Training and measuring in two processes (gloo, CPU) against one. Run as a script, this file is what the processes run."""

import csv
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import torch
from accelerate import PartialState
from timm.layers import BatchNormAct2d
from torch import nn

from pcma_lib import AVSS, AudioVisualModel
from pcma_lib.measure import evaluation
from pcma_lib.measure.evaluation import binary_measures, evaluate
from pcma_lib.measure.metrics import SemanticIoU
from pcma_lib.training import commands, loop
from pcma_lib.training import data as training_data
from pcma_lib.training.batch_norm import share_batch_norm
from pcma_lib.use.checkpoints import load_tensors

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
LAUNCH = [
    sys.executable,
    "-m",
    "accelerate.commands.launch",
    "--multi_gpu",
    "--dynamo_backend",
    "no",
    "--mixed_precision",
    "no",
]


def train_in_double(record, *arguments):
    """The command line in double precision, whose rounding Adam does not blow up; writes down the clips it trained on."""
    seen, read, build, stack = [], AVSS.__getitem__, loop.build_model, training_data.collate

    def reading(self, index):
        if self.training:
            seen.append((self.epoch, self.name(index)))
        return read(self, index)

    def stacked(clips):
        batch = stack(clips)
        batch.frames, batch.log_mel = batch.frames.double(), batch.log_mel.double()
        return batch

    AVSS.__getitem__ = reading
    loop.build_model = lambda *options: build(*options).double()
    training_data.collate = evaluation.collate = stacked
    commands.main(arguments)
    Path(record + os.environ.get("RANK", "0")).write_text(json.dumps(seen))


def train_on_a_bad_clip(name, *arguments):
    """The command line; a clip's frames are not numbers."""
    read = AVSS.__getitem__

    def reading(self, index):
        clip = read(self, index)
        if clip.name == name:
            clip.frames.fill_(float("nan"))
        return clip

    AVSS.__getitem__ = reading
    commands.main(arguments)


# Clips of 2 x 2 pixels: marked, truth, labelled. A: half of the truth marked; a pixel marked where there is none.
# B: twice the truth marked; a frame without a label. C: three frames that are right.
MASKS = [
    ([[1, 0, 0, 0], [1, 0, 0, 0]], [[1, 1, 0, 0], [0, 0, 0, 0]], [1, 1]),
    ([[1, 1, 0, 0], [0, 0, 0, 0]], [[1, 0, 0, 0], [1, 1, 1, 1]], [1, 0]),
    ([[1, 0, 0, 0]] * 3, [[1, 0, 0, 0]] * 3, [1, 1, 1]),
]
F_A, F_B = 1.3 * 0.5 / (0.3 * 1 + 0.5), 1.3 * 0.5 / (0.3 * 0.5 + 1)
# The same for three classes.
CLASSES = [
    ([[0, 1, 1, 1], [0, 0, 0, 2]], [[0, 0, 1, 1], [0, 0, 0, 0]], [1, 1]),
    ([[2, 2, 2, 2], [0, 0, 0, 0]], [[2, 2, 2, 2], [1, 1, 1, 1]], [1, 0]),
    ([[1, 1, 1, 1]], [[1, 1, 1, 1]], [1]),
]
F_0A, F_0B, F_1 = 1.3 * 0.5 / (0.3 * 1 + 0.5), 1.3 * 0.75 / (0.3 * 1 + 0.75), 1.3 * 2 / 3 / (0.3 * 2 / 3 + 1)
BY_HAND = {
    "miou": ((1 / 2 + 3 / 4) / 2 + 1 / 2 + 1) / 3,
    "miou_whole_set": (1 + 1 + 3) / (2 + 1 + 2 + 3),
    "f_measure": (F_A + F_B + 1) / 3,
    "f_measure_at_half": (F_A + F_B + 1) / 3,
    "f_measure_whole_set": (F_A + F_B + 3) / 5,
    "marked": (1 / 4 + 1 / 2 + 1 / 4) / 3,
    "miou_of_classes": ((1 / 2 + 3 / 4) / 2 + (2 / 3 + 1) / 2 + (0 + 1) / 2) / 3,
    "without_background": ((2 / 3 + 1) / 2 + (0 + 1) / 2) / 2,
    "f_measure_of_classes": ((F_0A + F_0B) / 2 + (F_1 + 1) / 2 + (0 + 1) / 2) / 3,
    "miou_whole_set_of_classes": ((1 + 3) / (2 + 4) + (2 + 4) / (3 + 4) + (0 + 4) / (1 + 4)) / 3,
    "IoU of background": (1 / 2 + 3 / 4) / 2,
    "IoU of dog": (2 / 3 + 1) / 2,
    "IoU of bird": (0 + 1) / 2,
}


def measured_by_hand(order=(0, 1, 2), batch_size=1, rank=0, world=1):
    """The measures of the clips above, in batches filled up with frames that do not count."""
    metrics = {**binary_measures(), "miou_of_classes": SemanticIoU(3)}
    mine = order[rank::world]
    for start in range(0, len(mine), batch_size):
        for clips, classes in ((MASKS, 2), (CLASSES, 3)):
            batch = [[torch.tensor(x) for x in clips[i]] for i in mine[start : start + batch_size]]
            marked, truth, labelled = (nn.utils.rnn.pad_sequence(x, batch_first=True) for x in zip(*batch))
            logits = 40.0 * nn.functional.one_hot(marked, classes).movedim(-1, 2).unflatten(-1, (2, 2)) - 20
            update = (logits if classes == 3 else logits[:, :, 1:]), truth.unflatten(-1, (2, 2)), labelled
            for name, metric in metrics.items():
                if (name == "miou_of_classes") == (classes == 3):
                    metric.update(*update)
    measures = {name: metric.compute().item() for name, metric in metrics.items()}
    of_classes = metrics["miou_of_classes"].measures(["background", "dog", "bird"])
    measures |= {f"{name}_of_classes": of_classes[name] for name in ("f_measure", "miou_whole_set")}
    measures |= {f"IoU of {name}": value for name, value in of_classes["iou_of_classes"].items()}
    return {**measures, "without_background": metrics["miou_of_classes"].without_background().item()}


def evaluated(data, rank=0, world=1):
    """The shipped model's measures on the test clips and on one alone."""
    model, dataset = AudioVisualModel.demo(), AVSS(data, "test", 64, cache=True)
    dataset.rows = dataset.rows[:5]
    share = {"batch_size": 1, "rank": rank, "world": world}
    results = [evaluate(model, dataset, controls="all", **share)]
    dataset.rows = dataset.rows[:1]
    return [*results, evaluate(model, dataset, controls=("muted", "noise"), **share)]


def measure(data, record):
    state = PartialState(cpu=True)
    share = {"rank": state.process_index, "world": state.num_processes}
    results = {"by_hand": [measured_by_hand(order, **share) for order in itertools.permutations(range(3))]}
    results["evaluated"] = evaluated(data, **share)
    Path(record + str(state.process_index)).write_text(json.dumps(results))
    state.destroy_process_group()


def launched(*arguments, processes=2, machines=1, rank=0, port=0):
    """The command that starts a script in several processes, or in one."""
    if processes == 1:
        return [sys.executable, *map(str, arguments)]
    where = ["--num_processes", processes, "--num_machines", machines, "--machine_rank", rank, "--main_process_port", port]
    where += ["--main_process_ip", "127.0.0.1"] if machines > 1 else []
    return [*LAUNCH, *map(str, (*where, *arguments))]


def started(*arguments, **options):
    options = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "env": ENVIRONMENT,
        "cwd": ROOT,
        **options,
    }
    return subprocess.Popen(arguments, **options)


def run(*arguments, **where):
    process = started(*launched(*arguments, **where))
    printed, errors = process.communicate(timeout=300)
    assert not process.returncode, errors[-3000:]
    return printed


def training_of(data, output, *flags, **changes):
    """The arguments of a short training."""
    changes = {"data": str(data), "epochs": 1, "save_every": 1, "mixed_precision": "no", "pretrain": 0, **changes}
    settings = [f"{k}={json.dumps(v)}" for k, v in {"image_size": 32, **changes}.items()]
    return ["fit", "--preset", "quick", "--output", output, *flags, "--set", *settings]


def in_double(data, output, *flags, **changes):
    return [__file__, "train_in_double", f"{output}-seen-", *training_of(data, output, *flags, **changes)]


def rows(path):
    return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(open(path))]


def assert_same_run(one, other, tolerance):
    """The same curves, measures and weights."""
    for name in ("log.csv", "validation.csv"):
        first, second = rows(one / name), rows(other / name)
        assert len(first) == len(second)
        for a, b in zip(first, second):
            a.pop("clips_per_second", None)
            assert a == pytest.approx({k: b[k] for k in a}, rel=tolerance, abs=tolerance), name
    first, second = (load_tensors(folder / "last.safetensors") for folder in (one, other))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=tolerance, rtol=tolerance, msg=name)


@pytest.fixture(scope="module")
def mixed(demo, tmp_path_factory):
    """The demo data, where every third clip is of ten seconds and every third has a label for its first frame only."""
    folder = tmp_path_factory.mktemp("data") / "mixed"
    shutil.copytree(demo, folder)
    with open(folder / "metadata.csv", newline="") as file:
        clips = list(csv.DictReader(file))
    for number, clip in enumerate(clips):
        clip["label"] = ("v1m", "v1s", "v2")[number % 3]
        place = folder / clip["label"] / clip["uid"]
        place.parent.mkdir(exist_ok=True)
        (folder / "v1m" / clip["uid"]).rename(place)
        if clip["label"] == "v2":
            (place / "objects.json").unlink()
            for k in range(5):
                for name in (f"frames/{k}.jpg", f"labels_rgb/{k}.png"):
                    path = place / name
                    shutil.copy(path, path.with_stem(str(k + 5)))
            wave, rate = soundfile.read(place / "audio.wav")
            soundfile.write(place / "audio.wav", np.concatenate([wave, wave]), rate)
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, clips[0])
        writer.writeheader()
        writer.writerows(clips)
    return folder


def test_two_processes_train_like_one_on_clips_of_unlike_lengths_and_labels(mixed, tmp_path):
    for processes, name in ((1, "one"), (2, "two")):
        run(*in_double(mixed, tmp_path / name, threshold=0.55), processes=processes)
    assert 0.01 < rows(tmp_path / "one" / "log.csv")[0]["kept_1"] < 0.99
    assert_same_run(tmp_path / "one", tmp_path / "two", 1e-5)
    seen = [json.loads((tmp_path / f"two-seen-{rank}").read_text()) for rank in range(2)]
    assert len(seen[0]) == len(seen[1]) == 6
    assert sorted(seen[0] + seen[1]) == sorted([0, row["uid"]] for row in AVSS(mixed, "train").rows)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_measures_are_those_computed_by_hand_in_any_batches_and_any_order(order, batch_size):
    assert measured_by_hand(order, batch_size) == pytest.approx(BY_HAND, abs=1e-6)


def test_two_processes_measure_like_one_even_an_odd_number_of_clips_and_fewer_than_processes(demo, tmp_path):
    run(__file__, "measure", demo, tmp_path / "process-")
    one = evaluated(demo)
    assert len(one[0]["controls"]) == 7 and 0 < one[0]["miou_sounding"] < 1
    for rank in range(2):
        two = json.loads((tmp_path / f"process-{rank}").read_text())
        assert all(found == pytest.approx(BY_HAND, abs=1e-6) for found in two["by_hand"])
        for a, b in zip(one, two["evaluated"]):
            for name, row in (a.pop("controls") if rank else a["controls"]).items():
                assert b["controls"][name] == pytest.approx(row, abs=1e-6), name
            assert {k: v for k, v in b.items() if k != "controls"} == pytest.approx(
                {k: v for k, v in a.items() if k != "controls"}, abs=1e-6, nan_ok=True
            )


def test_measures_do_not_depend_on_the_order_of_clips(demo):
    model, dataset = AudioVisualModel.demo(), AVSS(demo, "test", 64, cache=True)
    given = evaluate(model, dataset, batch_size=1)
    dataset = AVSS(demo, "test", 64)
    dataset.rows = dataset.rows[::-1]
    assert evaluate(model, dataset, batch_size=1) == pytest.approx(given, abs=1e-6)


def test_batch_norm_shared_on_gpus_is_torchs_and_keeps_names_and_parameters():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), BatchNormAct2d(4))
    before = model.state_dict()
    with pytest.raises(ValueError, match="BatchNormAct2d"):
        share_batch_norm(nn.Sequential(BatchNormAct2d(4)), torch.device("cpu"))
    shared = share_batch_norm(model, torch.device("cuda"))
    assert [isinstance(m, nn.SyncBatchNorm) for m in shared] == [False, True, True]
    assert {k: v.data_ptr() for k, v in shared.state_dict().items()} == {k: v.data_ptr() for k, v in before.items()}


@pytest.mark.slow
def test_a_killed_worker_ends_the_job_and_two_processes_or_one_go_on_to_the_same_end(mixed, tmp_path):
    changes = {"epochs": 4}
    run(*in_double(mixed, tmp_path / "whole", **changes), processes=1)
    process = started(*launched(*in_double(mixed, tmp_path / "two", **changes)), stdout=subprocess.DEVNULL)
    log = tmp_path / "two" / "log.csv"
    while not log.is_file() or len(rows(log)) < 2:
        assert process.poll() is None, process.stderr.read()[-3000:]
        time.sleep(0.1)
    workers = psutil.Process(process.pid).children()
    next(w for w in workers if w.environ().get("RANK") == "1").send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Signal 9 (SIGKILL)" in errors and "rank      : 1" in errors
    assert 2 <= torch.load(tmp_path / "two" / "resume.pt", weights_only=True)["step"] < 12
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    for processes, name in ((1, "one"), (2, "two")):
        run(*in_double(mixed, tmp_path / name, "--resume", **changes), processes=processes)
        assert_same_run(tmp_path / "whole", tmp_path / name, 1e-5)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_all_processes_with_a_message_that_names_the_clips(demo, tmp_path):
    arguments = training_of(demo, tmp_path / "run", batch_size=2)
    process = started(*launched(__file__, "bad_clip", "demo_train_00007", *arguments))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1 and not (tmp_path / "run" / "result.json").exists()
    clips = re.findall(r"error: the loss is nan at step \d, clips (\w+); the last good state is", errors)
    assert len(clips) == 2 and "demo_train_00007" in clips, errors[-3000:]


@pytest.mark.slow
def test_two_nodes_train_like_one_process_pretraining_included(demo, tmp_path):
    command, changes = ["-m", "pcma_lib.training"], {"pretrain": 2}
    run(*command, *training_of(demo, tmp_path / "one", **changes), processes=1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [*command, *training_of(demo, tmp_path / "two", **changes)]
    nodes = [started(*launched(*arguments, machines=2, rank=rank, port=port)) for rank in range(2)]
    printed = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], [errors[-2000:] for _, errors in printed]
    one, two = (rows(tmp_path / name / "log.csv") for name in ("one", "two"))
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-6)
    assert [r["loss"] for r in two] == pytest.approx([r["loss"] for r in one], rel=1e-4)


@pytest.mark.slow
def test_notebook_08_trains_in_two_processes(tmp_path):
    command = [sys.executable, "-m", "papermill", "notebooks/08_training.ipynb", str(tmp_path / "out.ipynb")]
    process = started(*command, "-p", "processes", "2", "-p", "output", str(tmp_path / "run"), env=os.environ)
    _, errors = process.communicate(timeout=300)
    assert not process.returncode, errors[-3000:]
    assert "Launching training on 2" in (tmp_path / "out.ipynb").read_text()
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["validation"]["clips"] == 6


if __name__ == "__main__":
    {"train_in_double": train_in_double, "bad_clip": train_on_a_bad_clip, "measure": measure}[sys.argv[1]](*sys.argv[2:])
