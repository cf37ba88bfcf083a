import json
from pathlib import Path

import pytest
import torch

import pcma_lib
from pcma_lib import AVSS, AudioVisualModel
from pcma_lib.measure.evaluation import evaluate, table
from pcma_lib.training import fit
from pcma_lib.training.config import TrainConfig
from pcma_lib.training.recipe import best_device
from pcma_lib.use.publish import publish

SHIPPED = Path(pcma_lib.__file__).parent / "demo_model.json"


def test_a_published_run_is_half_as_large_and_tells_what_its_own_weights_reach(demo, tmp_path):
    settings = TrainConfig.preset("quick", data=str(demo), epochs=1, mixed_precision="no")
    fit(settings, tmp_path / "run", progress=False)
    publish(tmp_path / "run", tmp_path / "shared")
    full, half = (tmp_path / n for n in ("run/best.safetensors", "shared.safetensors"))
    assert half.stat().st_size < 0.55 * full.stat().st_size
    facts = json.loads((tmp_path / "shared.json").read_text())
    assert TrainConfig(**facts["config"]) == settings
    device = best_device()
    again = evaluate(AudioVisualModel.load(half).to(device), AVSS(demo, "test", 64), controls="all")
    tolerance = 0.02 if device.type == "cuda" else 0  # a GPU adds up in another order from run to run
    torch.testing.assert_close(facts["test"], again, atol=tolerance, rtol=0)
    whole = evaluate(AudioVisualModel.load(full).to(device), AVSS(demo, "test", 64))
    assert again["miou"] == pytest.approx(whole["miou"], abs=0.02)
    assert facts["log"][-1]["step"] <= 3 and facts["validation"][0]["epoch"] == 1


def test_an_unfinished_run_is_not_published(tmp_path):
    for name in ("best.safetensors", "config.json", "log.csv", "validation.csv", "result.json"):
        with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
            publish(tmp_path, tmp_path / "shared")
        (tmp_path / name).touch()


def test_the_shipped_model_is_small_and_is_the_one_its_facts_describe():
    assert SHIPPED.with_suffix(".safetensors").stat().st_size < 10_000_000
    facts = json.loads(SHIPPED.read_text())
    settings = TrainConfig(**facts["config"]).model_settings()
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    assert settings.pop("without") == []  # younger than the shipped file, which leaves nothing out
    assert {k: v for k, v in AudioVisualModel.demo().settings.items() if k in settings} == settings
    assert facts["test"]["miou"] >= 0.80
    assert facts["test"]["controls"]["muted"]["miou"] <= 0.45


def test_a_shared_folder_gives_the_same_model_and_tells_what_it_reaches(tmp_path):
    settings = dict(backbone="resnet10t", stages=(16, 16, 16, 16), channels=16, groups=2, heads=2, vggish_width=0.1)
    model = AudioVisualModel(**settings, pretrained=False)
    metrics = {"clips": 1, "miou": 0.5, "controls": {"muted": {"marked": 0.01, "miou": 0.1, "drop": 0.8}}}
    model.save_pretrained(tmp_path, metrics=metrics)
    again = AudioVisualModel.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
    assert "pretrained" not in json.loads((tmp_path / "config.json").read_text())
    card = (tmp_path / "README.md").read_text()
    assert "| miou | 0.500 |" in card and "| muted | 1.0% | 0.100 | 80% | nothing |" in card and "license: mit" in card


def test_a_model_that_marks_nothing_has_no_drop():
    row = {"muted": {"marked": 0.0, "miou": 0.0, "drop": 0.0}}
    assert "| 0.000 | 0% | nothing |" in table({"miou_sounding": 0.3, "controls": row})
    assert "| 0.000 |  | nothing |" in table({"miou_sounding": 0.0, "controls": row})
