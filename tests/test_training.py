import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pcma_lib import AVSS, AudioVisualModel
from pcma_lib.measure.evaluation import evaluate, table
from pcma_lib.training import fit, main
from pcma_lib.training.config import TrainConfig
from pcma_lib.training.recipe import EpochBatches, build_model
from pcma_lib.use.checkpoints import load_tensors

ROOT = Path(__file__).resolve().parents[1]


def config(data, **changes):
    small = {"data": str(data), "epochs": 2, "save_every": 1, "mixed_precision": "no"}
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
    one = EpochBatches(12, settings, epoch=3)
    two = [EpochBatches(12, settings, 3, rank=r, world=2) for r in range(2)]
    assert [sorted(a + b) for a, b in zip(*two)] == [sorted(b) for b in one]
    assert len({i for b in one for i in b}) == 12


@pytest.mark.parametrize("preset, epochs", [("s4", 15), ("ms3", 30), ("avss", 60)])
def test_the_papers_presets_hold_its_settings(preset, epochs):
    found = TrainConfig.preset(preset, backbone="pvt_v2_b5")
    assert (found.epochs, found.batch_size, found.learning_rate, found.optimizer) == (epochs, 4, 1e-4, "adam")
    assert (found.image_size, found.channels, found.threshold, found.groups) == (224, 256, 0.99, 8)
    assert found.stage_weights == (1.0,) * 4 and not found.train_audio and found.negative_audio == 0


@pytest.mark.parametrize(
    "change", [{"epochs": "ten"}, {"image_size": 100}, {"remix": 2.0}, {"optimizer": "sgd"}, {"colour": 1}]
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
