import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision

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


def published_forward(state, frames, audio, threshold=0.99):
    """The published network as its description and shapes define it, straight from its own parameter names.

    One clip: frames [T, 3, H, W], audio [T, 128]. Returns logits O_1 .. O_4 and the masks M_3 .. M_1.
    """

    def weights(name):
        return state[name + ".weight"], state.get(name + ".bias")

    def linear(name, x):
        return F.linear(x, *weights(name))

    def cbr(name, x, padding=1, groups=1):
        y = F.conv2d(x, *weights(f"{name}.0"), padding=padding, groups=groups)
        mean, variance = state[f"{name}.1.running_mean"], state[f"{name}.1.running_var"]
        return F.relu(F.batch_norm(y, mean, variance, *weights(f"{name}.1")))

    def up(x, size):
        return F.interpolate(x, size=size, mode="bilinear")

    encoder = torchvision.models.resnet50().eval()
    names = {k: k.replace("layer3.", "layer3_1.").replace("layer4.", "layer4_1.") for k in encoder.state_dict()}
    encoder.load_state_dict({k: state["resnet." + n] for k, n in names.items() if not k.startswith("fc.")}, strict=False)
    x = encoder.maxpool(encoder.relu(encoder.bn1(encoder.conv1(frames))))
    maps = []
    for layer in (encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4):
        x = layer(x)
        maps.append(cbr(f"conv{len(maps) + 1}", x))
    audio = linear("aud_fc1", audio)
    groups = maps[0].shape[1] // state["avga4.fc.1.weight"].shape[0]

    aligned = []
    for i, x in enumerate(maps, 1):
        x = cbr(f"avga{i}.seq1", x, 0, groups)
        sound = F.normalize(F.relu(linear(f"avga{i}.fc.1", linear(f"avga{i}.fc.0", audio))), dim=1)
        parts = [p * torch.einsum("tchw,tc->thw", F.normalize(p, dim=1), sound)[:, None] for p in x.chunk(groups, 1)]
        aligned.append(cbr(f"avga{i}.seq2", torch.cat(parts, 1), 0))

    logits, masks, above, mask = [], [], None, None
    for i in (4, 3, 2, 1):
        v = aligned[i - 1]
        t, c, h, w = v.shape
        grid = (h, w) if i == 4 else (h // 2, w // 2)
        name = f"qsca{i}.attn.transformer.layers.0.0"
        tokens = F.adaptive_avg_pool2d(v, grid).permute(0, 2, 3, 1).reshape(-1, c)
        tokens = linear(f"qsca{i}.attn.to_patch_embedding.1", tokens)
        sound = linear(f"qsca{i}.aud_fc", audio)
        tn, sn = (F.layer_norm(x, (c,), *weights(name + ".norm")) for x in (tokens, sound))
        tk, tv = linear(name + ".fn.v_to_kv", tn).chunk(2, -1)
        sq, sk, sv = linear(name + ".fn.a_to_qkv", sn).chunk(3, -1)
        tq = linear(name + ".fn.v_to_q", tn)

        def attend(q, k, v):
            heads = [torch.softmax(a @ b.T / 32**0.5, -1) @ d for a, b, d in zip(*(x.split(32, -1) for x in (q, k, v)))]
            return torch.cat(heads, -1)

        seen = attend(tq, sk, sv)
        if mask is not None:
            seen = seen * mask.reshape(-1, 1)
        audio = sound + linear(name + ".fn.to_out.0", attend(sq, tk, tv))
        tokens = tokens + linear(name + ".fn.to_out.0", seen)
        guide = up(tokens.reshape(t, c, *grid), (h, w))  # tokens laid out as channels: the published scramble
        if i == 4:
            v = v + cbr("gf4.seq1", guide)
        else:
            v = v + cbr(f"gf{i}.seq1", up(above, (h, w))) + cbr(f"gf{i}.seq2", guide)
        above = cbr(f"gf{i}.seq3", v)
        out = F.conv2d(cbr(f"output_conv{i}", above), *weights(f"output_conv{i}.3"))
        logits.insert(0, up(out, frames.shape[-2:]))
        if i > 1:
            p = out.sigmoid()
            kept = ((p <= threshold) & (p >= 1 - threshold)).float()
            mask = kept if mask is None else kept * F.interpolate(mask, size=(h, w), mode="nearest")
            masks.append(mask)
    return logits, masks


def test_the_published_forward_pass_is_reproduced():
    shapes = json.loads((HERE / "released_keys_s4_resnet50.json").read_text())
    state = {}
    for key, shape in shapes.items():
        if not shape:
            state[key] = torch.tensor(1)
        elif len(shape) == 1:
            state[key] = torch.rand(shape) + 0.5 if key.endswith(("weight", "var")) else torch.randn(shape) * 0.1
        else:
            state[key] = torch.randn(shape) / torch.tensor(shape[1:]).prod().sqrt()
    for i in range(1, 5):  # logits large enough that some tokens are confident
        state[f"output_conv{i}.3.weight"] *= 4
    frames, audio = torch.randn(2, 5, 3, 64, 96), torch.randn(2, 5, 128)
    model = PCMANet.from_released(state).eval()
    with torch.no_grad():
        ours = model(frames, audio)
        assert 0.02 < ours.masks[2].mean() < 0.98
        for clip in range(2):
            logits, masks = published_forward(state, frames[clip], audio[clip])
            for a, b in zip(ours.masks, masks):
                assert (a[clip] != b).float().mean() < 0.01
            for a, b in zip(ours.logits, logits):
                torch.testing.assert_close(a[clip], b, atol=2e-2, rtol=1e-2)
