import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.utils import set_seed

from pcma_lib import AVSS, AudioVisualModel
from pcma_lib.measure.evaluation import evaluate, table
from pcma_lib.training import fit, loop, main
from pcma_lib.training.config import TrainConfig
from pcma_lib.training.data import batches, open_dataset
from pcma_lib.training.model import build_model
from pcma_lib.training.run_files import is_finished
from pcma_lib.use.checkpoints import load_tensors

ROOT = Path(__file__).resolve().parents[1]


SMALL = {"pretrain": 0, "image_size": 32}


def config(data, **changes):
    small = {"data": str(data), "image_size": 32, "epochs": 2, "save_every": 1, "mixed_precision": "no"}
    return TrainConfig.preset("quick", **{**small, **changes})


def test_a_run_leaves_its_files_and_a_model_that_can_be_evaluated(demo, tmp_path, capsys):
    result = fit(config(demo), tmp_path / "run", progress=False)
    for name in (
        "log.csv",
        "validation.csv",
        "best.safetensors",
        "best.json",
        "last.safetensors",
        "config.json",
        "resume.pt",
    ):
        assert (tmp_path / "run" / name).is_file()
    assert result["steps"] == 6 and 0 <= result["best"]["miou"] <= 1
    model = AudioVisualModel.load(result["best_checkpoint"])
    measured = evaluate(model, AVSS(demo, "test", 64), controls="all")
    assert {"muted", "swapped", "off_screen"} <= set(measured["controls"])
    assert "muted" in table(measured)
    stored = tmp_path / "measured.json"
    command = ["evaluate", "--checkpoint", result["best_checkpoint"], "--data", str(demo), "--image-size", "64"]
    main([*command, "--output", str(stored)])
    assert capsys.readouterr().out.endswith(table(measured) + "\n") and json.loads(stored.read_text()) == measured
    with pytest.raises(FileExistsError, match="resume"):
        fit(config(demo), tmp_path / "run", progress=False)


def test_the_best_model_is_that_of_the_best_validation_by_the_whole_set(demo, tmp_path, monkeypatch):
    scores, weights = iter((0.2, 0.6, 0.4)), {}

    def evaluated(*_, **__):
        score = next(scores)
        return {"miou": 1 - score, "miou_whole_set": score}

    monkeypatch.setattr("pcma_lib.training.loop.evaluate", evaluated)

    def remember(row):
        if row["epoch"] % 1 == 0:
            weights[row["epoch"]] = load_tensors(tmp_path / "last.safetensors")

    result = fit(config(demo, epochs=3), tmp_path, progress=False, after_step=remember)
    assert (result["best"]["miou_whole_set"], result["last"]["miou_whole_set"]) == (0.6, 0.4)
    best = load_tensors(result["best_checkpoint"])
    assert [all(torch.equal(best[k], v) for k, v in kept.items()) for kept in weights.values()] == [False, True, False]


def test_evaluation_does_not_depend_on_the_batch_size(demo):
    model = AudioVisualModel(backbone="resnet18", channels=16, groups=4, heads=2, vggish_width=0.125)
    data = AVSS(demo, "test", 64)
    one, many = evaluate(model, data, batch_size=1), evaluate(model, data, batch_size=4)
    assert one == pytest.approx(many, abs=1e-3)


def test_killed_and_resumed_ends_with_the_weights_of_an_uninterrupted_run(demo, tmp_path):
    settings = config(demo).to_dict()
    fit(TrainConfig(**settings), tmp_path / "whole", progress=False)
    script = (
        "import json, sys; from pcma_lib.training.config import TrainConfig; from pcma_lib.training import fit;"
        "fit(TrainConfig(**json.loads(sys.argv[1])), sys.argv[2], resume=True, progress=False,"
        " after_step=lambda row: print(row['step'], flush=True))"
    )
    command = [sys.executable, "-c", script, json.dumps(settings), str(tmp_path / "killed")]
    for stop in (2, 4):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for line in process.stdout:
            if re.match(rf"{stop}\b", line):
                time.sleep(0.05)
                os.kill(process.pid, signal.SIGKILL)
                break
        assert process.wait() == -signal.SIGKILL
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    whole, killed = (load_tensors(tmp_path / n / "last.safetensors") for n in ("whole", "killed"))
    for name, value in whole.items():
        torch.testing.assert_close(killed[name], value, atol=1e-4, rtol=1e-3, msg=name)


def test_processes_share_every_step_without_overlap():
    settings = TrainConfig(batch_size=4)
    one = batches(12, settings, epoch=3)
    two = [batches(12, settings, 3, rank=r, world=2) for r in range(2)]
    assert [sorted(a + b) for a, b in zip(*two)] == [sorted(b) for b in one]
    assert len({i for b in one for i in b}) == 12


@pytest.mark.parametrize("preset, epochs", [("s4", 15), ("ms3", 30), ("avss", 60)])
def test_the_papers_presets_hold_its_settings(preset, epochs):
    found = TrainConfig.preset(preset, backbone="pvt_v2_b5")
    assert (found.epochs, found.batch_size, found.learning_rate, found.optimizer) == (epochs, 4, 1e-4, "adam")
    assert (found.image_size, found.channels, found.threshold, found.groups) == (224, 256, 0.99, 8)
    assert found.stage_weights == (1.0,) * 4 and not found.train_audio and found.negative_audio == 0
    assert not found.augment and TrainConfig.preset("demo").augment
    plain, improved = TrainConfig.preset(preset).to_dict(), TrainConfig.preset(f"{preset}_improved").to_dict()
    assert (plain["mixed_precision"], plain["schedule"], plain["backbone"]) == ("no", "constant", "resnet50.tv_in1k")
    differ = {k for k in plain if plain[k] != improved[k]} - {"preset_name"}
    assert differ == {"augment", "mixed_precision", "schedule", "warmup_steps", "clip_gradients"}


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": "ten"},
        {"image_size": 100},
        {"remix": 2.0},
        {"optimizer": "sgd"},
        {"colour": 1},
        {"learning_rate": "fast"},
        {"learning_rate": "nan"},
        {"stage_weights": ["1", "1", "x", "1"]},
        {"seed": 2**32},
        {"groups": 0},
        {"heads": 0},
        {"vggish_width": 0},
    ],
)
def test_wrong_settings_are_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        TrainConfig.preset("quick", **change)


def test_none_unsets_a_field_that_may_be_unset_and_no_other():
    assert TrainConfig.preset("s4", vggish_weights=None).vggish_weights is None
    with pytest.raises(ValueError, match="epochs must be int, got None"):
        TrainConfig.preset("s4", epochs=None)


@pytest.mark.parametrize("content, error", [(None, FileNotFoundError), (b"nothing", ValueError)])
def test_encoder_weights_that_are_no_file_or_no_weights_are_named(tmp_path, content, error):
    path = tmp_path / "encoder.safetensors"
    if content:
        path.write_bytes(content)
    with pytest.raises(error, match="encoder.safetensors"):
        build_model(TrainConfig.preset("quick", stages=None, pretrained=str(path)))


def test_weights_of_the_published_ear_are_refused_for_another(tmp_path):
    (tmp_path / "vggish.pth").write_bytes(b"any")
    settings = TrainConfig.preset("quick", vggish_weights=str(tmp_path / "vggish.pth"))
    with pytest.raises(ValueError, match="vggish.pth fits the published VGGish alone; set vggish_width=1"):
        build_model(settings)


def test_a_checkpoint_that_is_none_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="x.safetensors"):
        AudioVisualModel.load(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError):
        AudioVisualModel.load(tmp_path / "y.safetensors")


def test_a_run_of_an_older_version_resumes_when_its_settings_mean_the_same(demo, tmp_path):
    settings = config(demo, epochs=1)
    fit(settings, tmp_path, progress=False)
    state = torch.load(tmp_path / "resume.pt", weights_only=True)
    del state["config"]["network"]
    torch.save(state, tmp_path / "resume.pt")
    assert fit(settings, tmp_path, resume=True, progress=False)["steps"] == 3
    with pytest.raises(ValueError, match="learning_rate"):
        fit(config(demo, epochs=1, learning_rate=0.5), tmp_path, resume=True, progress=False)


def test_late_negatives_leave_the_first_half_of_a_run_as_it_is(demo, tmp_path):
    losses = {}
    for name, changes in {"none": {}, "late": {"negative_audio": 1.0, "negative_after": 0.5}}.items():
        rows = []
        fit(config(demo, **changes), tmp_path / name, progress=False, after_step=rows.append)
        losses[name] = [row["loss"] for row in rows]
    assert losses["none"][:3] == losses["late"][:3]
    assert all(abs(a - b) > 1e-3 for a, b in zip(losses["none"][3:], losses["late"][3:]))


def test_numbers_that_yaml_reads_as_text_are_numbers():
    found = TrainConfig.preset("quick", learning_rate="1e-3", clip_gradients="5e-1", stage_weights=["1e-1", 1, 1, 1])
    assert (found.learning_rate, found.clip_gradients, found.stage_weights) == (1e-3, 0.5, (0.1, 1, 1, 1))


def one_step(data, folder, **changes):
    """A run of one step: its row of the log, and the model's parameters before and after."""
    settings = config(data, image_size=32, max_steps=1, pretrain=0, optimizer="adam", weight_decay=0.0, **changes)
    set_seed(settings.seed)
    before = {k: v.detach().clone() for k, v in build_model(settings).named_parameters()}
    rows = []
    result = fit(settings, folder, progress=False, after_step=rows.append)
    return rows[0], before, dict(AudioVisualModel.load(result["best_checkpoint"]).named_parameters())


def largest_change(before, after):
    return max((after[k] - v).abs().max().item() for k, v in before.items())


def test_each_stages_loss_counts_as_much_as_its_weight(demo, tmp_path):
    weights = {"all": (1, 1, 1, 1), "first": (1, 0, 0, 0), "last": (0, 0, 0, 1), "mixed": (3, 1, 1, 0.5)}
    loss = {k: one_step(demo, tmp_path / k, stage_weights=w)[0]["loss"] for k, w in weights.items()}
    assert 0.1 < loss["first"] < loss["all"] and 0.1 < loss["last"] < loss["all"]
    assert loss["mixed"] == pytest.approx(loss["all"] + 2 * loss["first"] - 0.5 * loss["last"], rel=1e-5)


def test_the_rate_warms_up_then_falls_as_half_a_cosine_and_is_what_the_optimizer_takes(demo, tmp_path):
    rows = []
    settings = config(demo, learning_rate=0.004, warmup_steps=2, pretrain=0)
    fit(settings, tmp_path / "run", progress=False, after_step=rows.append)
    half = math.sqrt(0.5)
    shares = [0.5, 1, 1, (1 + half) / 2, 0.5, (1 - half) / 2]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.004 * share for share in shares])
    _, before, after = one_step(demo, tmp_path / "one", learning_rate=0.004, warmup_steps=2)
    assert largest_change(before, after) == pytest.approx(0.002, rel=1e-2), "Adam's first step is as long as the rate"


def test_clipping_shortens_the_gradient_that_the_optimizer_gets(demo, tmp_path):
    steps = {}
    for name, norm in (("free", None), ("loose", 1e6), ("tight", 1e-8)):
        row, before, after = one_step(demo, tmp_path / name, clip_gradients=norm, warmup_steps=0, learning_rate=0.001)
        steps[name] = row["gradient_norm"], largest_change(before, after)
    assert steps["free"] == steps["loose"] and steps["free"][0] > 0.01
    assert steps["tight"][0] == pytest.approx(steps["free"][0]), "the log tells the norm before clipping"
    assert steps["tight"][1] < 0.8 * steps["free"][1], "beside a gradient as small as Adam's epsilon, its step is shorter"


def test_a_frozen_vggish_stays_in_evaluation_mode_through_training_and_validation(demo, tmp_path):
    settings = config(demo, train_audio=False, pretrain=0)
    set_seed(settings.seed)
    before = build_model(settings).vggish.state_dict()
    result = fit(settings, tmp_path, progress=False)
    after = AudioVisualModel.load(result["best_checkpoint"].replace("best", "last")).vggish.state_dict()
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_without_augmentation_a_training_clip_is_the_clip_itself(demo):
    plain, training_clips = (
        open_dataset(config(demo), "train", training=t, augment=a) for t, a in ((False, True), (True, False))
    )
    augmented = open_dataset(config(demo), "train", training=True)
    for epoch in (0, 1):
        training_clips.set_epoch(epoch)
        assert torch.equal(plain[0].frames, training_clips[0].frames)
        assert torch.equal(plain[0].log_mel, training_clips[0].log_mel)
        assert not torch.equal(plain[0].frames, augmented[0].frames)


def test_one_process_trains_in_one_precision_after_the_other(demo, tmp_path):
    loss = {}
    for precision in ("no", "bf16", "no"):
        rows = []
        settings = config(demo, image_size=32, max_steps=1, pretrain=0, mixed_precision=precision)
        fit(settings, tmp_path / f"{precision}{len(loss)}", progress=False, after_step=rows.append)
        loss.setdefault(precision, []).append(rows[0]["loss"])
    assert loss["no"][0] == loss["no"][1] != loss["bf16"][0] == pytest.approx(loss["no"][0], rel=0.05)


@pytest.mark.parametrize("first, then", [("bf16", "no"), ("no", "bf16")])
def test_a_run_goes_on_in_the_precision_that_auto_was_when_it_began(demo, tmp_path, monkeypatch, first, then):
    settings = {"mixed_precision": "auto", "pretrain": 0, "schedule": "constant", "image_size": 32}
    monkeypatch.setattr(loop, "best_precision", lambda: first)
    fit(config(demo, epochs=1, **settings), tmp_path, progress=False)
    monkeypatch.setattr(loop, "best_precision", lambda: then)
    assert is_finished(tmp_path, config(demo, epochs=1, **settings))
    with pytest.raises(ValueError, match=f"mixed_precision was '{first}', is '{then}'"):
        fit(config(demo, **{**settings, "epochs": 1, "mixed_precision": then}), tmp_path, resume=True)
    with pytest.warns(UserWarning, match="epochs=2"):
        fit(config(demo, **settings), tmp_path, resume=True, progress=False)
    assert json.loads((tmp_path / "config.json").read_text())["mixed_precision"] == first
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["config"]["mixed_precision"] == first


def interrupted(settings, folder, step):
    """A run that stops after so many steps."""

    def stop(row):
        if row["step"] == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(settings, folder, progress=False, after_step=stop)


@pytest.fixture(scope="module")
def runs(demo, tmp_path_factory):
    """A run of six steps, and the folder of one like it that stopped after the second."""
    folder = tmp_path_factory.mktemp("runs")
    settings = config(demo, **SMALL)
    fit(settings, folder / "whole", progress=False)
    interrupted(settings, folder / "stopped", 2)
    return folder


@pytest.mark.parametrize("changes", [{"workers": 1}, {"cache": False}, {"save_every": 2}, {"data": "moved"}])
def test_a_run_goes_on_to_the_same_end_with_settings_that_do_not_change_it(demo, runs, tmp_path, recwarn, changes):
    shutil.copytree(runs / "stopped", tmp_path / "run")
    if "data" in changes:
        changes = {"data": str(shutil.copytree(demo, tmp_path / "moved"))}
    settings = config(**{"data": demo, **SMALL, **changes})
    assert fit(settings, tmp_path / "run", resume=True, progress=False)["steps"] == 6
    whole, resumed = (load_tensors(folder / "last.safetensors") for folder in (runs / "whole", tmp_path / "run"))
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert not [w for w in recwarn if "going on with" in str(w.message)]


def test_a_run_goes_on_with_its_clips_in_parts_and_says_what_that_changes(demo, runs, tmp_path):
    shutil.copytree(runs / "stopped", tmp_path / "run")
    with pytest.warns(UserWarning, match="accumulate=2 instead of 1: batch norm sees parts of another size"):
        assert fit(config(demo, **SMALL, accumulate=2), tmp_path / "run", resume=True, progress=False)["steps"] == 6


def test_a_run_goes_on_beyond_its_end_along_the_longer_schedule(demo, runs, tmp_path):
    shutil.copytree(runs / "whole", tmp_path / "run")
    settings = config(demo, **SMALL, epochs=4)
    assert not is_finished(tmp_path / "run", settings)
    with pytest.warns(UserWarning, match="epochs=4 instead of 2: the learning rate's schedule has another end"):
        rows = []
        fit(settings, tmp_path / "run", resume=True, progress=False, after_step=rows.append)
    assert is_finished(tmp_path / "run", settings)
    expected = [0.002 * (1 + math.cos(math.pi * (step - 2) / 10)) / 2 for step in range(6, 12)]
    assert [row["learning_rate"] for row in rows] == pytest.approx(expected)


@pytest.mark.parametrize("change", [{"epochs": 1}, {"batch_size": 2}, {"augment": False}, {"max_steps": 3}, {"seed": 1}])
def test_what_would_be_another_run_is_refused_by_name(demo, runs, change):
    before = {path: path.read_bytes() for path in (runs / "whole").iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=f"{next(iter(change))} was .*, is "):
        fit(config(demo, **SMALL, **change), runs / "whole", resume=True, progress=False)
    assert before == {path: path.read_bytes() for path in before}


def test_other_clips_in_the_folder_of_the_data_are_refused(demo, runs, tmp_path):
    shutil.copytree(runs / "stopped", tmp_path / "run")
    data = shutil.copytree(demo, tmp_path / "data")
    rows = list(csv.DictReader((data / "metadata.csv").read_text().splitlines()))
    with open(data / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows[1:])
    with pytest.raises(ValueError, match="other clips"):
        fit(config(data, **SMALL), tmp_path / "run", resume=True, progress=False)


def test_a_model_is_never_written_over_not_even_where_its_resume_state_was_deleted(demo, runs, tmp_path):
    shutil.copytree(runs / "whole", tmp_path / "run")
    (tmp_path / "run" / "resume.pt").unlink()
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="another folder"):
            fit(config(demo, **SMALL), tmp_path / "run", resume=resume, progress=False)
    best = load_tensors(tmp_path / "run" / "best.safetensors")
    assert all(torch.equal(best[k], v) for k, v in load_tensors(runs / "whole" / "best.safetensors").items())


def test_a_run_is_finished_when_all_its_steps_are_done_with_these_settings(demo, runs, tmp_path):
    settings = config(demo, **SMALL)
    assert is_finished(runs / "whole", settings) and is_finished(runs / "whole", config(demo, **SMALL, workers=3))
    assert not is_finished(runs / "stopped", settings) and not is_finished(tmp_path / "none", settings)
    assert not is_finished(runs / "whole", config(demo, **SMALL, seed=1))
    shutil.copytree(runs / "whole", tmp_path / "run")

    def stop(row):
        raise KeyboardInterrupt

    with pytest.warns(UserWarning), pytest.raises(KeyboardInterrupt):
        fit(config(demo, **SMALL, epochs=3), tmp_path / "run", resume=True, progress=False, after_step=stop)
    assert not is_finished(tmp_path / "run", settings), "it went on beyond its end and was interrupted there"


def test_every_command_runs_without_docstrings():
    script = """
import importlib, pkgutil, pcma_data, pcma_lib
for module in [m for p in (pcma_lib, pcma_data) for m in pkgutil.walk_packages(p.__path__, p.__name__ + ".")]:
    main = not module.name.endswith("__main__") and getattr(importlib.import_module(module.name), "main", None)
    if main:
        try:
            main(["--help"])
        except SystemExit as end:
            print(module.name, "ends with", end.code)
"""
    ran = subprocess.run([sys.executable, "-OO", "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert len(re.findall(r"^[\w.]+ ends with 0$", ran.stdout, re.M)) >= 10
