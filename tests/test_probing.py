"""The probes against models that are known not to hear, and their readout against NumPy."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import pcma_lib
from pcma_lib import AVSS, AudioVisualModel
from pcma_lib.measure.probing import PROBED, RIDGE, _mean_over, _readout, main, probe_parts


@pytest.fixture(scope="module")
def splits(demo):
    return [AVSS(demo, split, image_size=96, cache=True) for split in ("train", "test")]


def test_the_readout_is_ridge_regression():
    generator = np.random.default_rng(0)
    known, targets = generator.normal(3, 2, (40, 5)), generator.normal(1, 1, (40, 2))
    asked = generator.normal(3, 2, (7, 5))
    scale = (known - known.mean(0)) / known.std(0, ddof=1)
    # least squares with a row per weight that pulls it to zero
    rows = np.vstack([scale, np.sqrt(RIDGE * 40) * np.eye(5)])
    weights = np.linalg.lstsq(rows, np.vstack([targets - targets.mean(0), np.zeros((5, 2))]), rcond=None)[0]
    expected = (asked - known.mean(0)) / known.std(0, ddof=1) @ weights + targets.mean(0)
    assert_close(_readout(*map(torch.from_numpy, (known, targets, asked))), torch.from_numpy(expected))


def test_a_region_is_averaged_by_the_share_of_each_cell():
    region = torch.zeros(4, 4, dtype=torch.bool)
    region[:2, :3] = True  # all of the cell at the top left, half of the one beside it
    features = torch.tensor([[[6.0, 3.0], [100.0, 100.0]]])
    assert _mean_over(features, region).item() == pytest.approx((6 * 1 + 3 * 0.5) / 1.5)


def test_the_demo_model_listens_until_its_ear_is_taken(splits):
    model = AudioVisualModel.demo()
    whole = probe_parts(model, *splits)
    assert np.mean([whole[f"{n} {i}"] for n in PROBED for i in (4, 3, 2, 1)]) > 0.75 and whole["ear"] > 0.8
    model.listen = False
    deaf = probe_parts(model, *splits)
    assert {deaf[f"{n} {i}"] for n in PROBED for i in (4, 3, 2, 1)} == {0.5}
    assert deaf["ear"] < 0.3 and deaf["eye 1"] == whole["eye 1"]


def test_probing_needs_silent_objects(splits):
    class NoObjects(AVSS):
        def raw(self, index):
            raw = super().raw(index)
            return type(raw)(raw.frames, raw.masks, raw.labelled, raw.wave)

    data = NoObjects(splits[0].root, "test", image_size=64)
    with pytest.raises(ValueError, match="composed"):
        probe_parts(AudioVisualModel.demo(), data, data)


@pytest.mark.parametrize(
    "network", [{"network": "avs"}, {"heads": 2, "without": ("avga",)}, {"heads": 2, "without": ("qsca",)}]
)
def test_probing_needs_a_whole_pcmanet(splits, network):
    settings = dict(backbone="resnet10t", channels=16, vggish_width=0.03, **network)
    with pytest.raises(ValueError, match="whole PCMANet"):
        probe_parts(AudioVisualModel(**settings), *splits)


def test_the_command_prints_a_column_a_model_or_an_error(demo, tmp_path, capsys):
    shipped = Path(pcma_lib.__file__).with_name("demo_model.safetensors")
    options = ["--data", str(demo), "--image-size", "64", "--output", str(tmp_path / "probes.json")]
    main([f"shipped={shipped}", *options])
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "probes.json").read_text())
    said, _, *rows = printed.splitlines()
    assert said == "Pictures of 64 px, as asked for; the checkpoint says 128 px."
    assert f"{found['shipped']['logits 1']:.3f}" in rows[-1] and len(rows) == len(found["shipped"])
    with pytest.raises(SystemExit, match="error: .*none.safetensors"):
        main(["none.safetensors", *options])
