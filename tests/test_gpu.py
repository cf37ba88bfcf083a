"""On a GPU: `python -m pytest -m gpu`. Graphs give what kernels one by one give; float16 stays near float32; runs go on."""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from pcma_lib import AudioVisualModel, PCMAOutput
from pcma_lib.data.avsbench import AVSS
from pcma_lib.data.clip import Clip
from pcma_lib.measure.evaluation import evaluate
from pcma_lib.training import TrainConfig, fit
from pcma_lib.training.steps import TrainStep, make_optimizer
from pcma_lib.use.fast import FinestOnly, Replayed, fast, half_precision

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
SMALL = {"backbone": "resnet10t", "channels": 32, "groups": 2, "heads": 4, "vggish_width": 0.125, "vggish_batch_norm": True}


def clips(seed, seconds=5, first_only=False):
    draw = torch.Generator().manual_seed(seed)
    frames = torch.randn(4, seconds, 3, 64, 64, generator=draw)
    labelled = torch.ones(4, seconds, dtype=torch.bool)
    labelled[:, 1:] = not first_only
    log_mel = torch.randn(4, seconds, 1, 96, 64, generator=draw)
    return Clip(frames, log_mel, (frames[:, :, 0] > 1).byte(), labelled, labelled | True, ["a", "b", "c", "d"], [""] * 4)


def stepper(model, capture, precision="no", **settings):
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=precision)
    config = TrainConfig(clip_gradients=1.0, weight_decay=0.01, **settings)
    optimizer = make_optimizer(config, [p for p in model.parameters() if p.requires_grad])
    return TrainStep(*accelerator.prepare(model, optimizer), config, accelerator, capture)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return AudioVisualModel(**SMALL, train_audio=True).cuda().train()


def parameters(model):
    return torch.cat([v.detach().double().flatten() for v in model.state_dict().values()])


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_replayed_training_is_that_of_kernels_one_by_one(model, precision):
    other = copy.deepcopy(model)
    replayed, eager = stepper(model, None, precision), stepper(other, False, precision)
    for step in range(12):
        parts = [clips(step, seconds=5 if step % 3 else 3, first_only=step % 2 == 0)]
        found, expected = replayed(parts, 1e-4), eager(parts, 1e-4)
        assert found["loss"] == pytest.approx(expected["loss"], rel=0.05)
        assert found["kept_3"] == pytest.approx(expected["kept_3"], abs=0.05)
    for step in range(8):
        found, expected = replayed([clips(step)], 1e-4), eager([clips(step)], 1e-4)
    assert replayed.graphs and not eager.graphs
    assert found["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=0.2)
    moved = (parameters(model) - parameters(other)).norm() / parameters(other).norm()
    assert moved < 0.02


def test_a_replayed_step_refuses_what_is_not_finite_and_changes_no_weight(model):
    step = stepper(model, None)
    for _ in range(TrainStep.EAGER + 1):
        step([clips(0)], 1e-3)
    before = [p.detach().clone() for p in model.parameters()]
    spoiled = clips(1)
    spoiled.frames[0, 0, 0, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError):
        step([spoiled], 1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    assert step.graphs


def test_scaled_float16_trains_kernel_by_kernel(model):
    step = stepper(model, None, "fp16")
    losses = [step([clips(0)], 1e-3)["loss"] for _ in range(12)]
    assert not step.graphs and losses[-1] < losses[0]


def test_a_network_that_waits_for_the_gpu_is_not_captured_and_trains_all_the_same(model):
    class Waits(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, frames, log_mel, valid):
            out = self.inner(frames, log_mel, valid)
            float(out.stages[0].mean())
            return out

    step = stepper(Waits(model), None)
    with pytest.warns(UserWarning, match="can't be captured"):
        losses = [step([clips(0)], 1e-3)["loss"] for _ in range(8)]
    assert losses[-1] < losses[0] and not step.graphs


@pytest.mark.parametrize("gated, within", [(False, 1e-3), (True, 5e-3)])
def test_the_shipped_model_is_as_good_in_float16(demo, gated, within):
    model = AudioVisualModel.demo().cuda()
    quick = fast(model, gated=gated)
    assert isinstance(quick, Replayed) and half_precision(model) is torch.float16
    data = AVSS(demo, "test", model.picture_size())
    expected, found = (evaluate(m, data, 4, controls="all") for m in (model, quick))
    assert quick._graphs
    assert found["miou"] == pytest.approx(expected["miou"], abs=within)
    for name, row in expected["controls"].items():
        assert found["controls"][name]["marked"] == pytest.approx(row["marked"], abs=within)


def test_float16_logits_stay_within_a_fiftieth_of_their_scatter_and_calls_do_not_disturb_each_other():
    model = AudioVisualModel.demo().cuda()
    quick = fast(model)
    outs = []
    for _ in range(3):
        for seconds in (5, 4, 3, 5):
            clip = clips(seconds, seconds).to("cuda")
            out = quick(clip.frames, clip.log_mel)
            with torch.no_grad():
                expected = model(clip.frames, clip.log_mel).finest
            outs.append((out.finest, expected))
    for found, expected in outs:
        assert (found - expected).abs().max() < 2e-2 * expected.std()


def test_what_no_graph_can_hold_is_computed_with_a_warning():
    class Waits(torch.nn.Module):
        inputs = {}

        def forward(self, frames, sound, valid=None):
            return PCMAOutput((frames * sound.sum().item(),))

    model, frames, sound = Replayed(Waits()), torch.ones(1, 1, 3, 4, 4).cuda(), torch.ones(1, 1, 2).cuda()
    model(frames, sound)
    with pytest.warns(UserWarning, match="without a CUDA graph"):
        assert model(frames, sound).stages[0].sum() == 96
    assert model(frames, sound).stages[0].sum() == 96


def test_a_model_whose_values_leave_float16_takes_bfloat16():
    model = AudioVisualModel.demo().cuda()
    with torch.no_grad():
        model.network.avga[0].out[0].weight.mul_(1e5)
        model.network.avga[0].out[1].running_var.mul_(1e10)
    assert half_precision(model) is torch.bfloat16
    assert isinstance(fast(model).model, FinestOnly)


def test_a_run_that_was_cut_goes_on_with_its_optimiser(demo, tmp_path):
    config = TrainConfig.preset(
        "quick", data=str(demo), epochs=4, max_steps=9, workers=2, log_with="none", pretrain=1, cache=False
    )
    short = TrainConfig.preset("quick", **{**config.to_dict(), "max_steps": 5, "preset_name": "quick"})
    whole = fit(config, tmp_path / "whole", progress=False)
    fit(short, tmp_path / "cut", progress=False)
    with pytest.warns(UserWarning, match="max_steps"):
        went_on = fit(config, tmp_path / "cut", resume=True, progress=False)
    assert went_on["steps"] == whole["steps"] == 9
    assert went_on["last"]["miou"] == pytest.approx(whole["last"]["miou"], abs=0.1)
