"""What the GPU's path asks of a GPU, where there is none: shapes, types and devices are computed, values are not.

A product of tensors on two devices raises, and so does each place where the processor would have to wait for a value or
for a copy to end.
"""

import copy
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data._utils.pin_memory import pin_memory

from pcma_lib import AudioVisualModel
from pcma_lib.data.clip import Clip
from pcma_lib.network.qsca import choose_path
from pcma_lib.training.config import TrainConfig
from pcma_lib.training.model import prepare_for_speed
from pcma_lib.training.steps import TrainStep
from pcma_lib.use import fast as speed

WAITS = (DataDependentOutputException, DynamicOutputShapeException)


@contextmanager
def pretended_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.Tensor, "nonzero", known_nonzero)
    # neither knows pretended parameters
    monkeypatch.setattr(nn.Module, "to", lambda self, *where, **layout: self)
    monkeypatch.setattr(copy, "deepcopy", lambda model: model)
    with FakeTensorMode(), NoBlockingCopies():
        yield


class NoBlockingCopies(TorchDispatchMode):
    """Refuses copies from the processor's memory to a GPU's whose end is waited for."""

    def __torch_dispatch__(self, operation, types, given=(), options=None):
        options = options or {}
        out = operation(*given, **options)
        if operation in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default) and out.device.type == "cuda":
            sent = any(torch.is_tensor(x) and x.device.type == "cpu" for x in given)
            assert not sent or options.get("non_blocking") or True in given[2:], "a copy that is waited for"
        return out


def known_nonzero(tensor, nonzero=torch.Tensor.nonzero):
    """The processor knows which frames of `batch` are labelled; a GPU would have to be asked."""
    return torch.tensor([[0], [5]]) if tensor.device.type == "cpu" else nonzero(tensor)


def to_gpu(model):
    """The model with each parameter and buffer pretended to be on a GPU."""
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    there = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
                    held[name] = nn.Parameter(there) if isinstance(tensor, nn.Parameter) else there
    return model


def batch():
    frames, log_mel = torch.randn(2, 5, 3, 64, 64), torch.randn(2, 5, 1, 96, 64)
    masks = torch.zeros(2, 5, 64, 64, dtype=torch.uint8)
    labelled = torch.tensor([[True, False, False, False, False]] * 2)
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    return Clip(frames, log_mel, masks, labelled, valid, ["a", "b"], ["", ""])


@pytest.mark.parametrize("network, backbone", [("pcmanet", "resnet18"), ("pcmanet", "pvt_v2_b0"), ("avs", "resnet18")])
@pytest.mark.parametrize("classes", [1, 3])
def test_a_training_step_is_on_the_gpu_and_waits_for_nothing(network, backbone, classes, monkeypatch):
    config = TrainConfig(network=network, backbone=backbone, channels=32)
    model = AudioVisualModel(**config.model_settings(), num_classes=classes, pretrained=False).train()
    losses = []
    accelerator = SimpleNamespace(
        device=torch.device("cuda"),
        num_processes=1,
        scaler=None,
        autocast=lambda: torch.autocast("cuda", torch.bfloat16),
        backward=losses.append,  # only a GPU can take it
    )
    with pretended_gpu(monkeypatch):
        model = prepare_for_speed(to_gpu(model), config)
        step = TrainStep(model, None, config, accelerator)
        assert step.capture
        measured = step.backward(batch().to("cuda"), batch().labelled, 1.0, 8.0)
        assert measured.shape == (4,) and {x.device.type for x in (measured, *losses)} == {"cuda"}
        with pytest.raises(WAITS):  # so the one wait of a step is seen
            measured.tolist()


def test_gathering_tokens_would_wait(monkeypatch):
    config = TrainConfig(backbone="resnet18", channels=32)
    model = AudioVisualModel(**config.model_settings(), pretrained=False).train()
    with pretended_gpu(monkeypatch):
        choose_path(to_gpu(model), dense=False)
        there = batch().to("cuda")
        with pytest.raises(WAITS):
            model(there.frames, there.log_mel, there.valid)


@pytest.mark.parametrize("network, backbone", [("pcmanet", "resnet18"), ("pcmanet", "pvt_v2_b0"), ("avs", "resnet18")])
@pytest.mark.parametrize("gated", [False, True])
def test_the_fast_model_is_on_the_gpu_and_waits_for_nothing(network, backbone, gated, monkeypatch):
    if gated and network == "avs":
        pytest.skip("has no stage before the last")
    config = TrainConfig(network=network, backbone=backbone, channels=32)
    model = AudioVisualModel(**config.model_settings(), pretrained=False)
    kinds = set()
    monkeypatch.setattr(speed, "_agree", lambda expected, found: expected.shape == found.shape)  # no values to compare
    monkeypatch.setattr(speed, "half_precision", lambda model: torch.bfloat16)
    with pretended_gpu(monkeypatch):
        quick = speed.fast(to_gpu(model), gated=gated)
        for module in quick.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
        there = batch().to("cuda")
        with torch.no_grad():
            out = quick(there.frames, there.log_mel, there.valid)
    assert len(out.logits) == 1 and out.logits[0].shape == (2, 5, 1, 64, 64)
    assert out.logits[0].device.type == "cuda" and out.logits[0].dtype == torch.float32
    assert kinds == {torch.bfloat16}


def test_a_loader_pins_every_tensor_of_a_batch(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self.shape) or self)
    found = pin_memory(batch())
    assert isinstance(found, Clip) and found.name == ["a", "b"] and len(pinned) == 5
