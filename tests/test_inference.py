import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from pcma_lib import AudioVisualModel, AVSBaseline, PCMANet, PCMAOutput
from pcma_lib.benchmark import _calibrated, inference, loading, training
from pcma_lib.network.fusion import GuidedFusion
from pcma_lib.network.layers import CBR, resize
from pcma_lib.network.qsca import choose_path
from pcma_lib.use.convolutions import UpsampledCBR, Winograd
from pcma_lib.use.fast import FinestOnly, export, fast


def inputs(size, t=3):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, t, 3, *size, generator=generator), torch.rand(2, t, 128, generator=generator)


def network(kind=PCMANet, **options):
    torch.manual_seed(0)
    model = _calibrated(kind(options.pop("backbone", "resnet18"), 32, **options), 64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("head") and parameter.shape[2:] == (1, 1):
                parameter *= 300  # logits of a size at which a difference would show
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"backbone": "resnet10t"},
        {"backbone": "pvt_v2_b0"},
        {"backbone": "tf_efficientnet_lite0"},
        {"backbone": "mambaout_femto"},
        {"num_classes": 5},
        {"without": ("qsca",)},
        {"without": ("mask", "avga")},
        {"as_released": True},
        {"kind": AVSBaseline},
    ],
)
def test_the_fast_copy_gives_the_same_finest_logits(options):
    model, (frames, sound) = network(**options), inputs((64, 96))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    valid = torch.tensor([[True, True, False], [True, True, True]])
    quick = fast(model)
    with torch.no_grad():
        for padding in (None, valid):
            expected, found = (m(frames, sound, padding).logits[0] for m in (model, quick))
            assert expected.std() > 0.01
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.state_dict(), before, atol=0, rtol=0)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in quick.modules())


def test_the_fast_demo_model_marks_what_the_model_marks():
    model, frames = AudioVisualModel.demo(), inputs((96, 96), t=5)[0]
    log_mel = torch.randn(2, 5, 1, 96, 64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected, found = (m(frames, log_mel).logits[0] for m in (model, fast(model)))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("small, large", [((7, 5), (14, 10)), ((3, 4), (7, 9)), ((6, 6), (6, 6)), ((1, 1), (4, 4))])
def test_mixing_channels_before_growth_equals_growth_before_the_convolution(small, large):
    torch.manual_seed(0)
    cbr, features = CBR(6, 5).eval(), torch.randn(2, 6, *small)
    cbr[1] = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(UpsampledCBR(cbr)(features, large), cbr(resize(features, large)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(28, 28), (29, 31), (4, 200), (27, 30)])
@pytest.mark.parametrize("bias, layout", [(True, torch.contiguous_format), (False, torch.channels_last)])
def test_a_convolution_by_minimal_filtering_is_the_convolution(size, bias, layout):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(6, 5, 3, padding=1, bias=bias).double().requires_grad_(False)
    quick, features = Winograd(conv), torch.randn(2, 6, *size).double().to(memory_format=layout)
    for _ in range(2):  # the second call uses what the first has kept
        torch.testing.assert_close(quick(features), conv(features), atol=1e-12, rtol=1e-12)
    assert (quick._weight is not None) == (size[0] * size[1] >= Winograd.PIXELS)


def test_the_fast_copy_of_a_wide_model_uses_minimal_filtering_and_gives_the_same_logits():
    torch.manual_seed(0)
    model = _calibrated(PCMANet("resnet18", 256), 64)
    quick, (frames, sound) = fast(model), inputs((128, 160), t=1)
    with torch.no_grad():
        expected, found = (m(frames, sound).logits[0] for m in (model, quick))
    used = [name for name, m in quick.named_modules() if isinstance(m, Winograd) and m._weight is not None]
    assert "model.heads.0.0.0" in used and any(name.startswith("model.fusion") for name in used)
    assert (found - expected).abs().max() < 1e-4 * expected.std()


@pytest.mark.parametrize("channels, size", [(32, (64, 96)), (256, (128, 160))])
def test_the_fast_copy_computes_under_a_users_autocast_what_the_model_computes_there(channels, size):
    torch.manual_seed(0)
    model, (frames, sound) = _calibrated(PCMANet("resnet18", channels), 64), inputs(size, t=1)
    quick = fast(model)
    with torch.no_grad():
        exact = model(frames, sound).logits[0]
        with torch.autocast("cpu", torch.bfloat16):
            coarse, found = (m(frames, sound).logits[0].float() for m in (model, quick))
    assert 0 < (found - exact).std() < 1.5 * (coarse - exact).std()


def test_the_fast_copy_of_a_model_whose_encoder_takes_one_size_gives_the_same_logits():
    torch.manual_seed(0)
    model, (frames, sound) = PCMANet("efficientformerv2_s0", 32).eval(), inputs((224, 224), t=1)
    with torch.no_grad():
        expected, found = (m(frames, sound).logits[0] for m in (model, fast(model)))
    torch.testing.assert_close(found, expected, atol=1e-4 * expected.std().item(), rtol=1e-4)


class HalfGuided(GuidedFusion):
    def forward(self, visual, guide, coarser=None):
        return super().forward(visual, guide / 2, coarser)


class Standardised(nn.Conv2d):
    def forward(self, features):
        return super().forward(features) / self.weight.std()


def test_a_part_of_ones_own_keeps_its_own_computation_in_the_fast_copy():
    model, (frames, sound) = network(), inputs((64, 64))
    model.fusion[0].__class__ = HalfGuided
    expected, found = (m(frames, sound).logits[0] for m in (model, fast(model)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="the guided fusion and the head of this package"):
        fast(model, gated=True)
    normed = network()
    for fusion in normed.fusion:
        fusion.guide[1] = nn.GroupNorm(1, 32)
    expected, found = (m(frames, sound).logits[0] for m in (normed, fast(normed)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert Winograd.fits(nn.Conv2d(256, 8, 3, padding=1)) and not Winograd.fits(Standardised(256, 8, 3, padding=1))


def test_a_fast_copy_still_tells_what_its_model_is_to_be_shown():
    model = AudioVisualModel.demo()
    assert fast(model).inputs == FinestOnly(model, half=torch.bfloat16).inputs == model.inputs


@pytest.mark.parametrize("options", [{}, {"as_released": True}, {"kind": AVSBaseline}])
def test_a_traced_model_is_right_for_other_clips_than_its_example(options):
    model = network(**options)
    example = inputs((64, 64), t=2)
    for qsca in getattr(model, "qsca", ()):
        qsca.dense = False
    traced = torch.jit.trace(model, example, check_trace=False)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for seconds, size in ((2, (64, 64)), (2, (64, 96)), (5, (64, 64))):
            frames = 3 * torch.randn(2, seconds, 3, *size, generator=generator)
            sound = torch.rand(2, seconds, 128, generator=generator)
            torch.testing.assert_close(traced(frames, sound), tuple(model(frames, sound)), atol=1e-4, rtol=1e-4)


def test_a_traced_model_of_released_weights_refuses_clips_that_are_too_long():
    traced = torch.jit.trace(network(as_released=True), inputs((64, 64), t=5), check_trace=False)
    with pytest.raises(RuntimeError), torch.no_grad():
        traced(*inputs((64, 64), t=6))


@pytest.mark.parametrize(
    "options", [{}, {"backbone": "pvt_v2_b0", "num_classes": 3}, {"as_released": True}, {"kind": AVSBaseline}]
)
def test_an_exported_program_takes_any_number_of_clips_and_seconds(options):
    model = network(**options)
    exported, kept = export(model, image_size=64).module(), []
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for clips, seconds in ((1, 1), (2, 3), (3, 5)):
            seconds = getattr(model, "seconds", None) or seconds  # a released network's T is its own
            frames = 3 * torch.randn(clips, seconds, 3, 64, 64, generator=generator)
            sound = torch.rand(clips, seconds, 128, generator=generator)
            expected = model(frames, sound)
            torch.testing.assert_close(exported(frames, sound), expected.logits[0], atol=1e-4, rtol=1e-4)
            kept += [m.mean().item() for m in expected.masks[-1:]]
    assert options or len({*kept}) == len(kept)  # no number of selected tokens stays in the graph


def test_an_exported_file_runs_without_this_library(tmp_path):
    model = AudioVisualModel.demo()
    export(model, tmp_path / "model.pt2")
    frames, log_mel = torch.randn(1, 2, 3, 128, 128), torch.randn(1, 2, 1, 96, 64)
    torch.save((frames, log_mel), tmp_path / "inputs.pt")
    code = """import sys, torch
sys.modules["pcma_lib"] = None
program = torch.export.load("model.pt2").module()
torch.save(program(*torch.load("inputs.pt")), "logits.pt")"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    with torch.no_grad():
        expected = model(frames, log_mel).logits[0]
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, atol=1e-4, rtol=1e-4)


class OutOfOrder(nn.Module):
    """A convolution and a batch norm of the same width that is no part of its path."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 1, 3, padding=1), nn.BatchNorm2d(1)

    def forward(self, frames, sound, valid=None):
        logits = self.norm(frames.flatten(0, 1).mean(1, keepdim=True)) + self.conv(frames.flatten(0, 1))
        return PCMAOutput((logits.unflatten(0, frames.shape[:2]),))


def test_a_batch_norm_that_does_not_follow_its_convolution_is_not_folded():
    model = OutOfOrder().eval()
    nn.init.constant_(model.norm.weight, 3)
    frames, sound = inputs((64, 64))
    with pytest.warns(UserWarning, match="batch norms stay as they are"):
        quick = fast(model)
    with torch.no_grad():
        torch.testing.assert_close(quick(frames, sound).logits, model(frames, sound).logits)


def test_the_dense_path_of_qsca_equals_gather_and_scatter_in_values_and_gradients():
    model, (frames, sound) = network(), inputs((64, 64))
    gradients = []
    for dense in (False, True):
        for qsca in model.qsca:
            qsca.dense = dense
        model.zero_grad()
        out = model(frames, sound)
        assert 0 < out.masks[-1].mean() < 1
        out.logits[0].square().mean().backward()
        gradients.append([out.logits[0].detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-3)


def test_the_compiled_path_is_one_graph():
    model, (frames, sound) = network(), inputs((64, 64))
    for qsca in model.qsca:
        qsca.dense = True
    compiled = torch.compile(model, fullgraph=True, backend="eager")  # a break in the graph raises
    with torch.no_grad():
        torch.testing.assert_close(compiled(frames, sound).logits[0], model(frames, sound).logits[0])


def test_half_precision_as_on_a_gpu_is_one_graph_and_gives_nearly_the_same_logits():
    model, (frames, sound) = network(), inputs((64, 64))
    choose_path(model, dense=True)
    half = FinestOnly(model, half=torch.bfloat16)
    compiled = torch.compile(half, fullgraph=True, backend="eager")
    with torch.no_grad():
        exact, expected, found = (m(frames, sound).logits[0] for m in (model, half, compiled))
    assert found.dtype == torch.float32 and 0 < (found - exact).std() < 0.1 * exact.std()
    torch.testing.assert_close(found, expected)


def test_the_benchmark_prints_a_table(demo):
    _, *rows, difference, note = inference(backbone="resnet18", batches=(1,), image_size=64, calls=1, gated=demo)
    assert [row.count("|") for row in rows] == [6, 6, 6] and rows[2].startswith("| fast, gated | 1 |")
    limit = 0.2 if torch.cuda.is_available() else 1e-3  # there `fast` computes in half precision
    assert 0 < float(difference.split()[-1]) < limit
    active, computed, operations = (float(x) for x in re.findall(r"[\d.]+(?=%| of the op)", note))
    assert 0 < active < computed < 100 and 0.4 < operations < 1
    _, *rows = training(backbone="resnet18", batches=(2,), image_size=64, calls=1, tune=True)
    assert [row.count("|") for row in rows] == [6, 6, 6] and rows[2].startswith("| as fit, cuDNN tuned | 2 |")
    (line,) = loading(demo, batch=2, image_size=64, workers=0, clips=4)
    assert float(line.split()[0]) > 0
