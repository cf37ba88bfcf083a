import argparse
import json
import math
import re
from pathlib import Path

import pytest
import torch

from pcma_data import released
from pcma_lib import AudioVisualModel, PCMANet, VGGish
from pcma_lib.network.released import released_names
from pcma_lib.use.checkpoints import load_tensors

HERE = Path(__file__).parent


def random(shape):
    return torch.randn(shape) / math.prod(shape[1:]) ** 0.5 if len(shape) > 1 else torch.rand(shape) + 0.5


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint by the published names and VGGish's weights, both random."""
    folder = tmp_path_factory.mktemp("released")
    shapes = json.loads((HERE / "released_keys_s4_resnet50.json").read_text())
    state = {f"module.{k}": random(s) if s else torch.tensor(1) for k, s in shapes.items()}
    torch.save(state, folder / "published.pth")
    torch.save(VGGish().state_dict(), folder / "vggish.pth")
    return folder


def test_the_converted_model_computes_what_the_published_one_does(files):
    out = files / "converted.safetensors"
    released.main(["--checkpoint", str(files / "published.pth"), "--vggish", str(files / "vggish.pth"), "--out", str(out)])
    model = AudioVisualModel.load(out)
    published = PCMANet.from_released(torch.load(files / "published.pth")).eval()
    assert model.settings["as_released"] and model.settings["groups"] == 4 and model.settings["seconds"] == 5
    assert model.inputs["frame_at"] == 15 / 16 and model.origin["released"] == "published.pth"
    frames, log_mel = torch.randn(1, 2, 3, 64, 64), torch.randn(1, 2, 1, 96, 64)
    with torch.no_grad():
        for ours, theirs in zip(model(frames, log_mel).logits, published(frames, model.embed(log_mel)).logits):
            assert ours.isfinite().all() and torch.equal(ours, theirs)


def test_what_is_missing_or_does_not_fit_is_named_and_nothing_is_written(files, capsys):
    out = files / "none.safetensors"
    for arguments, message in (
        (["--checkpoint", str(files / "no.pth"), "--vggish", str(files / "vggish.pth")], "no.pth"),
        (["--checkpoint", str(files / "vggish.pth"), "--vggish", str(files / "vggish.pth")], "not a released PCMANet"),
        (["--checkpoint", str(files / "published.pth"), "--vggish", str(files / "no.pth")], "no.pth"),
        (["--checkpoint", str(files / "published.pth"), "--num-classes", "71"], r"heads.0.1.weight: expected \[71"),
    ):
        assert released.main([*arguments, "--out", str(out)]) == 2
        assert re.search(message, capsys.readouterr().err)
    assert not out.exists()


TENSORS = {"avga4.fc.1.weight": torch.ones(2, 3), "steps": torch.tensor(1)}


@pytest.mark.parametrize("wrapper", ["", "model", "model_state_dict", "state_dict"])
@pytest.mark.parametrize("front", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_published_parameters_are_found_however_they_were_wrapped(tmp_path, wrapper, front):
    state = {front + name: value for name, value in TENSORS.items()}
    state |= {f"{front}{name}": torch.zeros(1, dtype=torch.float64) for name in ("total_ops", "avga4.total_params")}
    torch.save({wrapper: state, "epoch": 3, "optimizer": {}} if wrapper else state, tmp_path / "a.pth")
    found = released_names(load_tensors(tmp_path / "a.pth"))
    assert found.keys() == TENSORS.keys() and all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


def test_a_wrapped_and_profiled_checkpoint_converts_to_the_same_model(files, tmp_path):
    state = torch.load(files / "published.pth")
    profiled = {**{f"_orig_mod.{k}": v for k, v in state.items()}, "_orig_mod.module.resnet.total_ops": torch.zeros(1)}
    torch.save({"model_state_dict": profiled, "epoch": 9}, tmp_path / "other.pth")
    one, other = (released.convert(p, files / "vggish.pth") for p in (files / "published.pth", tmp_path / "other.pth"))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(files, tmp_path, value):
    state = {**torch.load(files / "published.pth")}
    name = next(k for k in state if k.endswith("avga4.fc.1.weight"))
    state[name] = state[name].clone()
    state[name][0, 0] = value
    torch.save({"model": state}, tmp_path / "broken.pth")
    with pytest.raises(ValueError, match="broken.pth holds NaN or infinities in module.avga4.fc.1.weight"):
        released.convert(tmp_path / "broken.pth", files / "vggish.pth")


@pytest.mark.parametrize(
    "content, named",
    [({"args": argparse.Namespace(lr=1)}, "asks for argparse.Namespace"), (b"\x80\x05garbage", "is damaged")],
)
def test_a_pickle_that_holds_more_than_tensors_is_refused_without_advice_to_run_it(tmp_path, content, named):
    path = tmp_path / "pickled.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=f"pickled.pth is not a readable checkpoint .*{named}") as caught:
        load_tensors(path)
    assert "weights_only" not in str(caught.value) and "torch.save(model.state_dict()" in str(caught.value)
