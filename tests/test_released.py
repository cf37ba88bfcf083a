import json
from pathlib import Path

import pytest
import torch

from pcma_lib import PCMANet

HERE = Path(__file__).parent


def released(name):
    """Random weights by the names and shapes of a published checkpoint."""
    shapes = json.loads((HERE / f"released_keys_{name}.json").read_text())
    return {k: torch.rand(s) + 0.5 if s else torch.tensor(1) for k, s in shapes.items()}


@pytest.mark.parametrize(
    "name, backbone, classes, groups",
    [("s4_resnet50", "resnet50", 1, 4), ("s4_pvt", "pvt_v2_b5", 1, 8), ("avss_resnet50", "resnet50", 71, 8)],
)
def test_published_checkpoints_load_under_their_own_names(name, backbone, classes, groups):
    state = released(name)
    model = PCMANet.from_released(state, backbone, classes)
    assert model.avga[0].groups == groups
    assert model.qsca[0].as_released
    assert torch.equal(model.fusion[3].guide[0].weight, state["gf4.seq1.0.weight"])
    assert torch.equal(model.fusion[0].guide[0].weight, state["gf1.seq2.0.weight"])
    assert torch.equal(model.heads[1][1].weight, state["output_conv2.3.weight"])


def test_what_does_not_fit_is_named():
    state = released("s4_resnet50")
    del state["conv1.0.weight"]
    state["gf1.seq3.1.bias"] = torch.zeros(3)
    wrong = r"fusion.0.out.1.bias: expected \[256\], found \[3\](.|\n)*missing: pyramid.project.0.0.weight"
    with pytest.raises(ValueError, match=wrong):
        PCMANet.from_released(state)
