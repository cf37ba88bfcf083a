import json
import math
import sys
from pathlib import Path

import pytest
import torch

from pcma_lib import AudioVisualModel, PCMANet, VGGish

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "data_scripts"))

import convert_released  # noqa: E402


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
    convert_released.main(
        ["--checkpoint", str(files / "published.pth"), "--vggish", str(files / "vggish.pth"), "--out", str(out)]
    )
    model = AudioVisualModel.load(out)
    published = PCMANet.from_released(torch.load(files / "published.pth")).eval()
    assert model.settings["as_released"] and model.settings["groups"] == 4
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
        with pytest.raises(SystemExit, match=message):
            convert_released.main([*arguments, "--out", str(out)])
    assert not out.exists()
