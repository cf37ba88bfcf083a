import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch.testing import assert_close

from pcma_lib import TPAVI, AudioVisualModel, AVSBaseline, PCMANet
from pcma_lib.losses import segmentation_loss
from pcma_lib.measure.complexity import count_macs
from pcma_lib.training import fit
from pcma_lib.training.config import TrainConfig
from pcma_lib.use.checkpoints import save_model

HERE = Path(__file__).parent
ENCODERS = {"resnet50": ("s4_resnet50", "resnet."), "pvt_v2_b5": ("s4_pvt", "encoder_backbone.")}
WIDTHS = {"resnet50": (256, 512, 1024, 2048), "pvt_v2_b5": (64, 128, 320, 512)}
PUBLISHED = {"resnet50": (91.40, 236.3), "pvt_v2_b5": (101.32, 223.0)}  # million parameters, GMACs per clip


def released_shapes(backbone):
    """Names and shapes of the published AVS checkpoints; their encoder is that of the published PCMANet."""
    file, prefix = ENCODERS[backbone]
    everything = json.loads((HERE / f"released_keys_{file}.json").read_text())
    shapes = {k: tuple(s) for k, s in everything.items() if k.startswith(prefix)}

    def layer(name, *shape):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    for i, width in enumerate(WIDTHS[backbone], 1):
        for j in range(4):
            layer(f"conv{i}.conv2d_list.{j}", 256, width, 3, 3)
        for unit in (1, 2):
            for conv in (1, 2):
                layer(f"path{i}.resConfUnit{unit}.conv{conv}", 256, 256, 3, 3)
        layer(f"tpavi_b{i}.align_channel", 256, 128)
        for name in ("g", "theta", "phi"):
            layer(f"tpavi_b{i}.{name}", 128, 256, 1, 1, 1)
        layer(f"tpavi_b{i}.W_z.0", 256, 128, 1, 1, 1)
        layer(f"tpavi_b{i}.W_z.1", 256)
        layer(f"tpavi_b{i}.norm_layer", 256)
        shapes |= {f"tpavi_b{i}.W_z.1.running_{x}": (256,) for x in ("mean", "var")}
        shapes[f"tpavi_b{i}.W_z.1.num_batches_tracked"] = ()
    layer("output_conv.0", 128, 256, 3, 3)
    layer("output_conv.2", 32, 128, 3, 3)
    layer("output_conv.4", 1, 32, 1, 1)
    return shapes


def released(backbone):
    """Random weights by those names."""
    state = {}
    for key, shape in released_shapes(backbone).items():
        if not shape:
            state[key] = torch.tensor(1)
        elif len(shape) == 1:
            state[key] = torch.rand(shape) + 0.5 if key.endswith(("weight", "var")) else torch.randn(shape) * 0.1
        else:
            state[key] = torch.randn(shape) / math.prod(shape[1:]) ** 0.5
    return state


def small(**changes):
    return AVSBaseline(**{"backbone": "resnet18", "channels": 16, **changes}).eval()


def awake(model):
    """Give the batch norms that start at zero, and their statistics, other values: the sound counts."""
    for tpavi in (m for m in model.modules() if isinstance(m, TPAVI)):
        for value in tpavi.out[1].state_dict().values():
            if value.is_floating_point():
                torch.nn.init.uniform_(value, 0.5, 1.5)
    return model


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_parameters_and_operations_are_the_published_ones(backbone):
    shapes = {k: s for k, s in released_shapes(backbone).items() if not k.endswith(("mean", "var", "tracked"))}
    unused = [k for k in shapes if k.startswith(("resnet.layer3_2", "resnet.layer4_2", "path4.resConfUnit1"))]
    total, dead = (sum(math.prod(shapes[k]) for k in keys) for keys in (shapes, unused))
    model = AVSBaseline(backbone).eval().to("meta")
    assert total / 1e6 == pytest.approx(PUBLISHED[backbone][0], abs=0.01)
    assert sum(p.numel() for p in model.parameters()) == total - dead

    tokens = [5 * s * s for s in (56, 28, 14, 7)]
    counted = []
    for associative in (False, True):
        for tpavi in model.tpavi:
            tpavi.associative = associative
        clip = torch.empty(1, 5, 3, 224, 224, device="meta"), torch.empty(1, 5, 128, device="meta")
        counted.append(count_macs(model, *clip)[""])
    assert counted[0] / 1e9 == pytest.approx(PUBLISHED[backbone][1], abs=0.1)
    assert counted[0] - counted[1] == sum(2 * n * n * 128 - 2 * n * 128 * 128 for n in tokens)
    if backbone == "resnet50":
        assert counted[1] / 1e9 == pytest.approx(170, abs=0.5)


@pytest.mark.parametrize("associative", [False, True])
def test_tpavi_is_the_sum_over_all_pixels_of_all_seconds(associative):
    b, t, c, h, w = 2, 2, 6, 2, 3
    module = awake(TPAVI(c, 4, associative).double().eval())
    visual, audio = torch.randn(b, t, c, h, w).double(), torch.randn(b, t, 128).double()
    p = {k: v.numpy() for k, v in module.state_dict().items()}

    def linear(name, x):
        return p[f"{name}.weight"] @ x + p[f"{name}.bias"]

    expected = np.zeros((b, t, c, h, w))
    places = [(s, y, x) for s in range(t) for y in range(h) for x in range(w)]
    for clip in range(b):
        picture, sound = visual[clip].numpy(), audio[clip].numpy()
        for s, y, x in places:
            query, found = linear("theta", picture[s, :, y, x]), 0
            for s2, y2, x2 in places:
                key = linear("phi", linear("audio", sound[s2]))
                found = found + query @ key / len(places) * linear("g", picture[s2, :, y2, x2])
            change = linear("out.0", found)
            change = (change - p["out.1.running_mean"]) / np.sqrt(p["out.1.running_var"] + 1e-5)
            z = picture[s, :, y, x] + change * p["out.1.weight"] + p["out.1.bias"]
            z = (z - z.mean()) / np.sqrt(z.var() + 1e-5)
            expected[clip, s, :, y, x] = z * p["norm.weight"] + p["norm.bias"]
    with torch.no_grad():
        assert_close(module(visual, audio), torch.from_numpy(expected))


def test_both_orders_of_the_product_give_the_same():
    written, cheap = awake(small()), small(associative=True)
    cheap.load_state_dict(written.state_dict())
    frames, audio = torch.randn(2, 3, 3, 64, 96), torch.randn(2, 3, 128)
    valid = torch.tensor([[True, True, True], [True, False, False]])
    for given in (None, valid):
        with torch.no_grad():
            a, b = (m(frames, audio, given).logits[0] for m in (written, cheap))
        assert (a - b).abs().max() < 1e-5 * a.abs().max()


def test_an_untrained_tpavi_normalises_the_picture_and_hears_nothing():
    module, visual = TPAVI(8).train(), torch.randn(2, 3, 8, 4, 4)
    alone = F.layer_norm(visual.movedim(2, -1), (8,)).movedim(-1, 2)
    assert_close(module(visual, torch.randn(2, 3, 128)), alone)
    model = small()
    frames = torch.randn(1, 2, 3, 64, 64)
    one, other = (model(frames, torch.randn(1, 2, 128)).logits[0] for _ in range(2))
    assert torch.equal(one, other)
    awake(model)
    one, other = (model(frames, torch.randn(1, 2, 128)).logits[0] for _ in range(2))
    assert (one - other).abs().max() > 1e-4


def test_a_second_hears_the_other_seconds_of_its_clip_and_no_other_clip():
    model = awake(small())
    frames, audio = torch.randn(2, 3, 3, 64, 64), torch.randn(2, 3, 128)
    together = model(frames, audio).logits[0]
    assert_close(together[1:], model(frames[1:], audio[1:]).logits[0], atol=1e-5, rtol=1e-4)
    audio[1, 2] = 0
    changed = (model(frames, audio).logits[0] - together).abs().flatten(2).amax(2)
    assert changed[0].max() < 1e-5 < 1e-4 < changed[1].min()


@pytest.mark.parametrize("associative", [False, True])
def test_a_padded_clip_gets_the_logits_it_gets_alone(associative):
    model = awake(small(associative=associative))
    frames, audio = torch.randn(2, 4, 3, 64, 64), torch.randn(2, 4, 128)
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    padded = model(frames, audio, valid).logits[0]
    assert_close(padded[:1], model(frames[:1], audio[:1]).logits[0], atol=1e-5, rtol=1e-4)
    assert_close(padded[1:, :2], model(frames[1:, :2], audio[1:, :2]).logits[0], atol=1e-5, rtol=1e-4)
    assert (model(frames, audio).logits[0] - padded)[1, :2].abs().max() > 1e-4


@pytest.mark.parametrize("seconds, height, width, classes", [(1, 64, 64, 1), (3, 96, 64, 5), (10, 32, 64, 71)])
def test_any_number_of_seconds_and_classes_and_any_size_divisible_by_32(seconds, height, width, classes):
    out = small(num_classes=classes)(torch.randn(2, seconds, 3, height, width), torch.randn(2, seconds, 128))
    assert [tuple(o.shape) for o in out.logits] == [(2, seconds, classes, height, width)]
    assert out.masks == ()


def test_an_encoder_that_puts_channels_last_is_taken():
    assert small(backbone="mambaout_femto")(torch.randn(1, 2, 3, 64, 64), torch.randn(1, 2, 128)).logits[0].shape[3:] == (
        64,
        64,
    )


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="divisible by 32"):
        small()(torch.randn(1, 1, 3, 100, 64), torch.randn(1, 1, 128))
    with pytest.raises(ValueError, match=r"audio must be \[1, 2, 128\]"):
        small()(torch.randn(1, 2, 3, 64, 64), torch.randn(1, 3, 128))
    with pytest.raises(ValueError, match="frames must be"):
        small()(torch.randn(2, 3, 64, 64), torch.randn(1, 2, 128))


@pytest.mark.parametrize("classes", [1, 4])
def test_gradients_reach_every_parameter_once_the_batch_norm_has_left_zero(classes):
    model = small(num_classes=classes).train()
    frames, audio = torch.randn(2, 2, 3, 64, 64), torch.randn(2, 2, 128)
    target = torch.randint(0, classes + (classes == 1), (2, 2, 64, 64))
    labelled = torch.tensor([[True, False], [True, True]])

    def touched():
        model.zero_grad()
        segmentation_loss(model(frames, audio).logits, target, labelled).backward()
        return {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}

    # Not the encoder's: timm starts the batch norms of its residual branches at zero too.
    every = {n for n, _ in model.named_parameters() if not n.startswith("pyramid.encoder.")}
    silent = {n for n in every if n.startswith("tpavi.") and n.split(".")[2] in ("audio", "theta", "phi", "g")}
    first = touched()
    assert not first & silent and {f"tpavi.{i}.out.1.weight" for i in range(4)} <= first
    awake(model)
    # The bias of W_z's convolution is taken away again with the mean of the batch norm.
    assert every - touched() <= {f"tpavi.{i}.out.0.bias" for i in range(4)}


def published_forward(state, frames, audio):
    """The published network as its description and names define it. One clip: frames [T, 3, H, W], audio [T, 128]."""

    def weights(name):
        return state[name + ".weight"], state[name + ".bias"]

    def conv(name, x):
        return F.conv2d(x, *weights(name), padding=1)

    def dilated(name, x, rate):
        (weight, bias), (height, width) = weights(name), x.shape[-2:]
        x = F.pad(x, [rate] * 4)
        taps = [(i, j) for i in range(3) for j in range(3)]
        moved = [x[..., i * rate : i * rate + height, j * rate : j * rate + width] for i, j in taps]
        parts = [torch.einsum("oc,nchw->nohw", weight[:, :, i, j], m) for (i, j), m in zip(taps, moved)]
        return sum(parts) + bias[:, None, None]

    def unit(name, x):
        x = F.relu(x, inplace=True)
        return conv(f"{name}.conv2", F.relu(conv(f"{name}.conv1", x))) + x

    def tpavi(name, x, sound):
        t, c, h, w = x.shape
        x = x.transpose(0, 1)[None]  # [1, C, T, h, w]
        sound = F.linear(sound, *weights(f"{name}.align_channel"))
        sound = sound.T[None, :, :, None, None].expand(-1, -1, -1, h, w)
        theta = F.conv3d(x, *weights(f"{name}.theta")).flatten(2)
        phi = F.conv3d(sound, *weights(f"{name}.phi")).flatten(2)
        g = F.conv3d(x, *weights(f"{name}.g")).flatten(2)
        f = torch.einsum("bci,bcj->bij", theta, phi) / (t * h * w)
        y = torch.einsum("bij,bcj->bci", f, g).reshape(1, -1, t, h, w)
        y = F.conv3d(y, *weights(f"{name}.W_z.0"))
        mean, variance = state[f"{name}.W_z.1.running_mean"], state[f"{name}.W_z.1.running_var"]
        z = F.batch_norm(y, mean, variance, *weights(f"{name}.W_z.1")) + x
        return F.layer_norm(z.movedim(1, -1), (c,), *weights(f"{name}.norm_layer"))[0].permute(0, 3, 1, 2)

    encoder = torchvision.models.resnet50().eval()
    names = {k: k.replace("layer3.", "layer3_1.").replace("layer4.", "layer4_1.") for k in encoder.state_dict()}
    encoder.load_state_dict({k: state["resnet." + n] for k, n in names.items() if not k.startswith("fc.")}, strict=False)
    x, maps = encoder.maxpool(encoder.relu(encoder.bn1(encoder.conv1(frames)))), []
    for i, layer in enumerate((encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4), 1):
        x = layer(x)
        parts = [dilated(f"conv{i}.conv2d_list.{j}", x, rate) for j, rate in enumerate((3, 6, 12, 18))]
        maps.append(tpavi(f"tpavi_b{i}", sum(parts), audio))
    x = maps[3]
    for i in (4, 3, 2, 1):
        if i < 4:
            x = x + unit(f"path{i}.resConfUnit1", maps[i - 1])
        x = unit(f"path{i}.resConfUnit2", x)
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    x = F.interpolate(conv("output_conv.0", x), scale_factor=2, mode="bilinear", align_corners=False)
    return F.conv2d(F.relu(conv("output_conv.2", x)), *weights("output_conv.4"))


def test_the_published_forward_pass_is_reproduced():
    state = released("resnet50")
    frames, audio = torch.randn(2, 3, 3, 64, 96), torch.randn(2, 3, 128)
    wrapped = {**{f"_orig_mod.module.{k}": v for k, v in state.items()}, "module.conv1.total_ops": torch.zeros(1)}
    model = AVSBaseline.from_released(wrapped).eval()
    assert torch.equal(model.tpavi[3].theta.weight, state["tpavi_b4.theta.weight"][..., 0, 0, 0])
    assert torch.equal(model.fusion[0].skip.conv1.weight, state["path1.resConfUnit1.conv1.weight"])
    with torch.no_grad():
        ours = model(frames, audio).logits[0]
        for clip in range(2):
            expected = published_forward(state, frames[clip], audio[clip])
            assert (ours[clip] - expected).abs().max() < 1e-3 * expected.abs().max()


def test_a_published_transformer_checkpoint_loads_without_what_is_unused_too():
    state = released("pvt_v2_b5")
    assert len(state) == 1190
    state = {k: v for k, v in state.items() if not k.startswith("path4.resConfUnit1.")}
    model = AVSBaseline.from_released(state, "pvt_v2_b5", associative=True)
    assert model.tpavi[0].associative
    assert torch.equal(model.pyramid.project[1][2].weight, state["conv2.conv2d_list.2.weight"])
    assert torch.equal(model.head[4].bias, state["output_conv.4.bias"])


def test_what_does_not_fit_is_named():
    state = released("resnet50")
    assert len(state) == 630
    del state["conv1.conv2d_list.0.weight"]
    state["tpavi_b2.g.bias"] = torch.zeros(3)
    state["path3.extra"] = torch.zeros(1)
    wrong = "missing: pyramid.project.0.0.weight\n  tpavi.1.g.bias: expected [128], found [3]\n  unexpected: fusion.2.extra"
    with pytest.raises(ValueError) as caught:
        AVSBaseline.from_released(state)
    assert str(caught.value).endswith(wrong)
    with pytest.raises(ValueError, match="tpavi_b4"):
        AVSBaseline.from_released({"conv.weight": torch.zeros(1)})


def test_a_checkpoint_knows_its_network_and_one_that_does_not_is_pcmanet(tmp_path):
    shared = {"backbone": "resnet18", "channels": 16, "vggish_width": 0.125}
    frames, log_mel = torch.randn(1, 2, 3, 64, 64), torch.randn(1, 2, 1, 96, 64)
    avs = AudioVisualModel(network="avs", associative=True, **shared).eval()
    awake(avs.network)
    avs.save(tmp_path / "avs.safetensors")
    loaded = AudioVisualModel.load(tmp_path / "avs.safetensors")
    assert isinstance(loaded.network, AVSBaseline) and loaded.settings == avs.settings
    assert torch.equal(loaded(frames, log_mel).logits[0], avs(frames, log_mel).logits[0])

    pcmanet = AudioVisualModel(groups=4, heads=2, **shared)
    old = {k: v for k, v in pcmanet.settings.items() if k != "network"}
    save_model(tmp_path / "old.safetensors", pcmanet, old)
    assert isinstance(AudioVisualModel.load(tmp_path / "old.safetensors").network, PCMANet)

    save_model(tmp_path / "mixed.safetensors", avs, {**avs.settings, "groups": 4})
    with pytest.raises(ValueError, match="groups"):
        AudioVisualModel.load(tmp_path / "mixed.safetensors")
    with pytest.raises(ValueError, match="pcmanet, avs"):
        AudioVisualModel(network="unet")
    with pytest.raises(ValueError, match="network"):
        TrainConfig(network="unet")


def test_the_baseline_trains_with_the_same_code(demo, tmp_path):
    config = TrainConfig.preset("quick", data=str(demo), network="avs", epochs=1, mixed_precision="no", max_steps=2)
    result = fit(config, tmp_path / "run", progress=False)
    assert result["steps"] == 2 and 0 <= result["best"]["miou"] <= 1
    with open(tmp_path / "run" / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert all(math.isfinite(float(r[k])) for r in rows for k in ("loss", "gradient_norm", "learning_rate"))
    assert {r[k] for r in rows for k in ("kept_3", "kept_2", "kept_1")} == {"nan"}
    model = AudioVisualModel.load(result["best_checkpoint"])
    assert isinstance(model.network, AVSBaseline)
    assert any(t.out[1].weight.abs().max() > 0 for t in model.network.tpavi)
