import json
from pathlib import Path

import pytest

import pcma_lib
from pcma_lib import AVSS, AudioVisualModel
from pcma_lib.config import TrainConfig
from pcma_lib.evaluation import evaluate
from pcma_lib.publish import publish
from pcma_lib.training import fit

SHIPPED = Path(pcma_lib.__file__).parent / "demo_model.json"


def test_a_published_run_is_half_as_large_and_tells_what_its_own_weights_reach(demo, tmp_path):
    settings = TrainConfig.preset("quick", data=str(demo), epochs=1, mixed_precision="no")
    fit(settings, tmp_path / "run", progress=False)
    publish(tmp_path / "run", tmp_path / "shared")
    full, half = (tmp_path / n for n in ("run/best.safetensors", "shared.safetensors"))
    assert half.stat().st_size < 0.55 * full.stat().st_size
    facts = json.loads((tmp_path / "shared.json").read_text())
    assert TrainConfig(**facts["config"]) == settings
    again = evaluate(AudioVisualModel.load(half), AVSS(demo, "test", 64), controls="all")
    assert facts["test"] == again
    assert again["miou"] == pytest.approx(evaluate(AudioVisualModel.load(full), AVSS(demo, "test", 64))["miou"], abs=0.02)
    assert facts["log"][-1]["step"] <= 3 and facts["validation"][0]["epoch"] == 1


def test_an_unfinished_run_is_not_published(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"best\.safetensors is missing"):
        publish(tmp_path, tmp_path / "shared")


def test_the_shipped_model_is_small_and_is_the_one_its_facts_describe():
    assert SHIPPED.with_suffix(".safetensors").stat().st_size < 10_000_000
    facts = json.loads(SHIPPED.read_text())
    settings = TrainConfig(**facts["config"]).model_settings()
    assert {k: v for k, v in AudioVisualModel.demo().settings.items() if k in settings} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()
    }
    assert facts["test"]["miou"] >= 0.80
    assert facts["test"]["controls"]["muted"]["miou"] <= 0.45
