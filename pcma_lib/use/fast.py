"""A trained model made fast for inference, or exported as a graph of its own: the same logits O_1."""

import copy
import io
import warnings
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..data.files import write_atomically
from ..network.fusion import Head
from ..network.pcmanet import PCMAOutput
from ..network.qsca import choose_path
from ..network.visual import VisualPyramid
from .convolutions import UpsampledFusion, Winograd
from .gated import Gated
from .inputs import ASSUMED

CAPACITY = 0.5  # share of the tiles that a gated model computes at each call on a GPU


def fast(model: nn.Module, compile: bool = False, gated: bool | float = False) -> nn.Module:
    """A copy of a model for inference, with the same call and, within rounding, the same O_1.

    Batch norms are folded into the convolutions before them, tensors are channels-last, grouped 1x1 convolutions are one
    dense product, and `logits` is (O_1,). On a CPU, `UpsampledCBR` spares Guided Fusion its upsampled maps, and wide 3x3
    convolutions over large maps go by `Winograd`, unless compiled. On a GPU, weights are float16 (see `half_precision`) and
    inputs of a shape that comes again go through a CUDA graph (see `Replayed`).

    Args:
        model: an `AudioVisualModel`, `PCMANet` or `AVSBaseline`, on the device where it will run.
        compile: True hands the copy to torch.compile as one graph (needs a compiler, and a minute or more for the first
            call).
        gated: True computes the finest stage only where the stage before is less confident than 0.99, or near an outline,
            see `Gated`; a number from 0.5 to 1 is another confidence. Logits of the rest are O_2, grown.

    Returns:
        nn.Module in evaluation mode, for inference alone: it can be neither trained nor saved.

    Raises:
        ValueError: gated together with compile, outside of 0.5 to 1, or for a model whose network `Gated` refuses.
    """
    if gated is not True and gated is not False and not 0.5 <= gated <= 1:
        raise ValueError(f"gated is a confidence from 0.5 to 1, got {gated}")
    if compile and gated:
        raise ValueError("a gated model can't be compiled: its shapes depend on the picture")
    model = _folded(_for_inference(model, dense=True if compile else None))
    gpu = next(model.parameters()).device.type == "cuda"
    if gated:
        options = {"confident": 0.99 if gated is True else gated, "capacity": CAPACITY if gpu else None}
        if hasattr(model, "network"):
            model.network = Gated(model.network, **options)
        else:
            model = Gated(model, **options)
    if not gpu:
        _replace(model, UpsampledFusion)
        if not compile:
            _replace(model, Winograd)
    model = model.to(memory_format=torch.channels_last)
    model = FinestOnly(model, half_precision(model) if gpu else None)
    if compile:
        # freezing lets the compiler lay out the weights for good and join a convolution with the ReLU behind it
        model = torch.compile(model, fullgraph=True, options={"freezing": True})
    return Replayed(model) if gpu else model


def export(model: nn.Module, path: str | Path | None = None, image_size: int | None = None) -> ExportedProgram:
    """A model as one graph, which runs wherever torch does, without this library.

    `torch.export.load(path).module()` reads it back. ONNX: `torch.onnx.export(export(model), f="model.onnx", dynamo=True)`
    where onnx and onnxscript are installed. With torch 2.11, onnx 1.23 and onnxscript 0.7 that worked for ResNet, PVT-v2 and
    the baseline, and ONNX Runtime 1.32 gave the shipped model's logits to 8e-6, at three choices of B and T from one file.

    Args:
        model: an `AudioVisualModel`, `PCMANet` or `AVSBaseline`. It is not changed.
        path: a file to write, by custom ending in .pt2.
        image_size: pixels a side of the frames, fixed from then on. None takes what an `AudioVisualModel` was trained with.

    Returns:
        ExportedProgram of (frames [B, T, 3, S, S], log_mel [B, T, 1, 96, 64]) -> O_1 [B, T, K, S, S], for any B and T. A
        network alone takes embeddings [B, T, 128] in place of log_mel, a released one its own T. QSCA takes its dense path.
    """
    model = _for_inference(model, dense=True)
    size = image_size or getattr(model, "inputs", ASSUMED)["image_size"]
    fixed = next((m.seconds for m in model.modules() if getattr(m, "seconds", None)), None)
    dynamic = {0: Dim("clips", min=1)} | ({} if fixed else {1: Dim("seconds", min=1)})
    example = _example(model, (size, size), clips=2, seconds=fixed or 3)
    program = torch.export.export(_Exported(model), example, dynamic_shapes=(dynamic, dynamic))
    if path is not None:
        stored = io.BytesIO()
        torch.export.save(program, stored)
        write_atomically(path, lambda temporary: Path(temporary).write_bytes(stored.getbuffer()))
    return program


class _Exported(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, frames, sound):
        return self.model(frames, sound).finest


class InFloat32(nn.Module):
    """Float32 from here on."""

    def forward(self, features: Tensor) -> Tensor:
        return features.float()


class FinestOnly(nn.Module):
    """O_1 alone, in float32.

    Args:
        half: float16 for a model whose weights become that, all but those of the logits; bfloat16 for what autocast takes
            in it; None for neither.

    Shapes: those of the model; returns `PCMAOutput` with one stage.
    """

    def __init__(self, model: nn.Module, half: torch.dtype | None = None) -> None:
        super().__init__()
        self.model = model
        if half is torch.float16:
            model.half()
            for head in [m for m in model.modules() if isinstance(m, Head)]:
                head[1] = nn.Sequential(InFloat32(), head[1].float())
        self.half, self.inputs = half, getattr(model, "inputs", None)

    def forward(self, frames: Tensor, sound: Tensor, valid: Tensor | None = None) -> PCMAOutput:
        if self.half is torch.float16:
            frames, sound = frames.half(), sound.half()
        with torch.autocast(frames.device.type, self.half) if self.half is torch.bfloat16 else nullcontext():
            out = self.model(frames, sound, valid)
        return PCMAOutput((out.stages[0].float() if self.half else out.stages[0],), out.masks)


class Replayed(nn.Module):
    """A model on a GPU whose calls are replayed as CUDA graphs, one a shape of its inputs.

    A call then costs the processor one launch instead of a thousand. A shape is captured when it comes for the second time;
    of `MOST` graphs, the one that was not used for longest makes room for another. The graphs share their memory, which
    stays taken. A shape that can't be captured is computed as ever, with a warning.

    Shapes: those of the model.
    """

    MOST = 4

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.inputs = model, model.inputs
        self._graphs, self._seen, self._refused, self._pool = {}, set(), set(), None

    @torch.no_grad()
    def forward(self, frames: Tensor, sound: Tensor, valid: Tensor | None = None) -> PCMAOutput:
        given = [x for x in (frames, sound, valid) if x is not None]
        key = tuple((x.shape, x.dtype) for x in given)
        if key not in self._seen:  # this first call also warms up what is captured later
            self._seen.add(key)
            return self.model(*given)
        if key in self._refused:
            return self.model(*given)
        try:
            graph, held, out = self._graphs[key] = self._graphs.pop(key, None) or self._capture(given)
        except RuntimeError as error:  # a network of somebody's own may do what no graph can hold
            self._refused.add(key)
            self._pool = None  # what a broken capture leaves in it can't be used again
            shape = list(frames.shape)
            warnings.warn(f"frames {shape} are computed without a CUDA graph, which is slower: {error}", stacklevel=2)
            return self.model(*given)
        for place, new in zip(held, given):
            place.copy_(new, non_blocking=True)
        graph.replay()
        return PCMAOutput(*(tuple(x.clone() for x in part) for part in out))

    def _capture(self, given):
        if len(self._graphs) == self.MOST:
            del self._graphs[next(iter(self._graphs))]
        held, graph = [x.clone() for x in given], torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            out = self.model(*held)
        return graph, held, out


@torch.no_grad()
def half_precision(model: nn.Module) -> torch.dtype | None:
    """The 16-bit type for a model on a GPU: float16, which is finer, unless a value leaves its range on frames and sounds
    three times as strong as usual; then bfloat16 where the GPU computes it, else None."""
    frames, sound = (3 * x for x in _example(model))
    expected, found = (m(frames, sound).stages[0] for m in (model, FinestOnly(copy.deepcopy(model), torch.float16)))
    if torch.isfinite(found).all() and _agree(expected, found, 0.1):
        return torch.float16
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None


def _for_inference(model, dense):
    model = copy.deepcopy(model).eval().requires_grad_(False)
    choose_path(model, dense)
    return model


def _example(model, size=None, clips=1, seconds=1):
    """Frames and sound as a model takes them; waves, so that no random number is used up.

    size: (height, width); None takes that of an encoder that is tied to one, else 64 px.
    """
    size = size or next((m.size for m in model.modules() if isinstance(m, VisualPyramid)), None) or (64, 64)
    like = next(model.parameters())
    sound = (1, 96, 64) if hasattr(model, "embed") else (128,)
    shapes = (clips, seconds, 3, *size), (clips, seconds, *sound)
    return tuple(torch.arange(torch.Size(s).numel(), device=like.device).sin().view(s).to(like.dtype) for s in shapes)


@torch.no_grad()
def _folded(model):
    """The model with its batch norms folded; a model whose modules don't run in their order is left as it is."""
    example, folded = _example(model), _fold_batch_norms(copy.deepcopy(model))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        if _agree(model(*example).stages[0], folded(*example).stages[0]):
            return folded
    warnings.warn("batch norms stay as they are, because folding them would change this model's logits", stacklevel=3)
    return model


def _agree(expected, found, share=1e-3):
    return (found - expected).norm() <= share * expected.norm()


def _fold_batch_norms(model):
    """Fold each BatchNorm2d into the convolution that is registered right before it.

    That is right where modules run in the order in which they are registered: the outputs tell.
    """
    for parent in list(model.modules()):
        for (name, conv), (follower, norm) in pairwise(list(parent.named_children())):
            owner = parent
            while isinstance(conv, nn.Sequential) and len(conv):
                owner, (name, conv) = conv, list(conv.named_children())[-1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and conv.out_channels == norm.num_features:
                setattr(owner, name, _dense(fuse_conv_bn_eval(conv, norm)))
                # timm's BatchNormAct2d is a batch norm, dropout and activation in one
                rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
                setattr(parent, follower, nn.Sequential(*rest))
    return model


def _replace(model, kind):
    """Put `kind(module)` in the place of each module that it fits."""
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if kind.fits(module):
                setattr(parent, name, kind(module))


def _dense(conv):
    """A grouped 1x1 convolution as one over all channels, whose weights across groups are zero."""
    if conv.groups == 1 or conv.kernel_size != (1, 1) or conv.groups == conv.in_channels:
        return conv
    dense = nn.Conv2d(conv.in_channels, conv.out_channels, 1, conv.stride, bias=conv.bias is not None)
    dense.weight.data = torch.block_diag(*conv.weight.flatten(1).chunk(conv.groups))[..., None, None]
    dense.bias = conv.bias
    return dense.requires_grad_(False)
