"""The gated decoder: the dense network's logits on active tiles, O_2 grown elsewhere."""

import json

import pytest
import torch
import torch.nn.functional as F
from test_inference import inputs, network

from pcma_lib import AudioVisualModel, AVSBaseline, PCMANet
from pcma_lib.benchmark import _calibrated
from pcma_lib.measure.complexity import count_macs
from pcma_lib.network.cim import confidence
from pcma_lib.network.layers import resize
from pcma_lib.training import commands
from pcma_lib.use import gated
from pcma_lib.use.fast import fast
from pcma_lib.use.gated import Gated, doubtful

VALID = torch.tensor([[True, True, False], [True, True, True]])


def only(*places):
    """In place of `doubtful`: some pixels of O_2, as (frame, row, column)."""

    def found(logits, confident):
        doubt = torch.zeros_like(logits[:, :1], dtype=torch.bool)
        for frame, row, column in places:
            doubt[frame, 0, row, column] = True
        return doubt

    return found


@torch.no_grad()
def finest(model, *given):
    return model(*given).stages[0]


@pytest.mark.parametrize("size, seconds", [((64, 96), 3), ((96, 32), 1)])
@pytest.mark.parametrize(
    "options", [{}, {"backbone": "pvt_v2_b0"}, {"num_classes": 5}, {"backbone": "tf_efficientnet_lite0", "groups": 4}]
)
def test_with_every_tile_active_the_logits_are_those_of_the_dense_network(options, size, seconds):
    model, (frames, sound) = network(**options), inputs(size, seconds)
    quick = fast(model, gated=1.0)
    quick.model.most = 1.0
    for valid in (None, VALID[:, -seconds:]):
        expected, found = (finest(m, frames, sound, valid) for m in (model, quick))
        assert expected.std() > 0.01
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert quick.model.shares == {"active": 1.0, "computed": 1.0, "dense": 0.0}


@pytest.mark.parametrize("channels", [32, 256])
def test_on_active_tiles_the_logits_are_the_dense_ones_and_elsewhere_those_of_the_stage_before(monkeypatch, channels):
    places = [(0, 0, 0), (0, 7, 11), (1, 4, 5), (4, 3, 0), (4, 3, 1), (5, 2, 11)]
    torch.manual_seed(0)
    model, (frames, sound) = _calibrated(PCMANet("resnet18", channels), 64), inputs((64, 96))
    monkeypatch.setattr(gated, "doubtful", only(*places))
    quick = fast(model, gated=True)
    found = finest(quick, frames, sound, VALID).flatten(0, 1)
    with torch.no_grad():
        out = model(frames, sound, VALID)
    expected, grown = out.stages[0].flatten(0, 1), resize(out.stages[1].flatten(0, 1), (16, 24))
    active = torch.zeros(6, 1, 4, 6)
    for frame, row, column in places:
        active[frame, 0, row // 2, column // 2] = 1
    expected = torch.where(F.interpolate(active, scale_factor=4) > 0, expected, grown)
    assert (expected - grown).abs().max() > 0.1 * grown.std()
    torch.testing.assert_close(found, expected, atol=1e-4 * grown.std().item(), rtol=1e-4)
    assert quick.model.shares["active"] == pytest.approx(len(places) / 144 - 1 / 144)  # two lie in one tile


def test_a_picture_without_a_doubt_skips_the_stage(monkeypatch):
    model, (frames, sound) = network(), inputs((64, 96))
    monkeypatch.setattr(gated, "doubtful", only())
    quick = fast(model, gated=True)
    monkeypatch.setattr(quick.model, "_on_tiles", None)
    with torch.no_grad():
        grown = resize(model(frames, sound).stages[1].flatten(0, 1), (16, 24))
    torch.testing.assert_close(finest(quick, frames, sound).flatten(0, 1), grown, atol=1e-4, rtol=1e-4)


def test_too_many_tiles_take_the_dense_way(monkeypatch):
    model, (frames, sound) = network(), inputs((64, 96))
    quick = fast(model, gated=1.0)
    quick.model.most = 0.5
    monkeypatch.setattr(quick.model, "_on_tiles", None)
    for valid in (None, VALID):
        expected, found = (finest(m, frames, sound, valid) for m in (model, quick))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert quick.model.shares["dense"] == 1.0


@pytest.mark.parametrize("capacity", [1.0, 0.3, 0.1, 1e-9])
def test_a_capacity_takes_what_it_holds_and_leaves_the_rest_to_the_stage_before(monkeypatch, capacity):
    model, (frames, sound) = network(), inputs((64, 96))
    places = [(f, 2 * r, 2 * c) for f in (0, 2, 5) for r, c in ((0, 0), (1, 4), (2, 2))]
    monkeypatch.setattr(gated, "doubtful", only(*places))
    free = fast(model, gated=True)
    bound = fast(model, gated=True)
    bound.model.capacity = capacity
    with torch.no_grad():
        grown = resize(model(frames, sound).stages[1].flatten(0, 1), (16, 24))
    expected, found = (finest(m, frames, sound).flatten(0, 1) for m in (free, bound))
    taken = ~torch.isclose(found, grown, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[taken], expected[taken], atol=1e-4, rtol=1e-4)
    assert taken.float().mean() <= capacity
    if capacity == 1.0:
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert taken.any()


@pytest.mark.parametrize("size", [(5, 7), (1, 1)])
@pytest.mark.parametrize("classes", [1, 4])
def test_a_pixel_is_doubtful_when_its_confidence_is_low_or_a_neighbour_differs(size, classes):
    logits = 3 * torch.randn(2, classes, *size, generator=torch.Generator().manual_seed(classes))
    label = logits.argmax(1) if classes > 1 else (logits[:, 0] > 0).long()
    for n in range(2):
        for y in range(size[0]):
            for x in range(size[1]):
                around = label[n, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                expected = bool((around != around[0, 0]).any() or confidence(logits)[n, 0, y, x] <= 0.9)
                assert doubtful(logits, 0.9)[n, 0, y, x] == expected


def test_fewer_tiles_are_fewer_operations(monkeypatch):
    torch.manual_seed(0)
    model = _calibrated(PCMANet("resnet18", 32), 64)
    given, counted = inputs((64, 96)), []
    places = [(0, 2, 2), (5, 4, 6), (1, 2, 6)]  # nine tiles each, with their neighbours
    for count in range(4):
        monkeypatch.setattr(gated, "doubtful", only(*places[:count]))
        counted.append(count_macs(fast(model, gated=True), *given)[""])
    assert counted[0] < counted[1] < counted[2] < counted[3] < count_macs(model, *given)[""]
    assert counted[3] - counted[2] == counted[2] - counted[1]


@pytest.mark.parametrize(
    "options", [{"as_released": True}, {"as_released": "detached"}, {"without": ("qsca",)}, {"kind": AVSBaseline}]
)
def test_a_network_without_the_standard_parts_is_refused(options):
    with pytest.raises(ValueError, match="PCMANet with its QSCA"):
        fast(network(**options), gated=True)


def test_what_cannot_be_gated_is_said():
    with pytest.raises(ValueError, match="folded"):
        Gated(network())
    with pytest.raises(ValueError, match="compile"):
        fast(network(), compile=True, gated=True)
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match=f"a confidence from 0.5 to 1, got {wrong}"):
            fast(network(), gated=wrong)


def test_evaluate_and_its_command_take_the_gated_model(tmp_path, demo, capsys):
    checkpoint = tmp_path / "model.safetensors"
    AudioVisualModel.demo().save(checkpoint)
    given = ["--checkpoint", str(checkpoint), "--data", str(demo)]
    results = {}
    for name, more in (("dense", []), ("gated", ["--gated"]), ("never", ["--gated", "0.5"])):
        commands.main(["evaluate", *given, *more, "--output", str(tmp_path / f"{name}.json")])
        results[name] = json.loads((tmp_path / f"{name}.json").read_text())
    assert "the finest stage: active" in capsys.readouterr().out
    assert results["gated"]["miou"] == pytest.approx(results["dense"]["miou"], abs=0.02)
    assert 0 < results["never"]["gated"]["active"] < results["gated"]["gated"]["active"] < 0.6
