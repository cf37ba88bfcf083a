"""A trained model made fast for inference, or exported as a graph of its own: the same logits O_1."""

import copy
import io
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..data.files import write_atomically
from ..network.fusion import GuidedFusion, Head
from ..network.layers import CBR
from ..network.pcmanet import PCMAOutput
from ..network.qsca import choose_path
from ..network.visual import VisualPyramid
from .inputs import ASSUMED


def fast(model: nn.Module, compile: bool = False) -> nn.Module:
    """A copy of a model for inference, with the same call and, within rounding, the same O_1.

    Batch norms are folded into the convolutions before them, tensors are channels-last, grouped 1x1 convolutions are one
    dense product, and `logits` is (O_1,). On a CPU, `UpsampledCBR` spares Guided Fusion its upsampled maps, and wide 3x3
    convolutions over large maps go by `Winograd`, unless compiled. On a GPU, weights are float16 (see `half_precision`) and
    inputs of a shape that comes again go through a CUDA graph (see `Replayed`).

    Args:
        model: an `AudioVisualModel`, `PCMANet` or `AVSBaseline`, on the device where it will run.
        compile: True hands the copy to torch.compile as one graph (needs a compiler, and a minute or more for the first
            call).

    Returns:
        nn.Module in evaluation mode, for inference alone: it can be neither trained nor saved.
    """
    model = _folded(_for_inference(model, dense=True if compile else None))
    gpu = next(model.parameters()).device.type == "cuda"
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
    the least used one of `MOST` makes room for another. The graphs share their memory, which stays taken.

    Shapes: those of the model.
    """

    MOST = 4

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.inputs = model, model.inputs
        self._graphs, self._seen, self._pool = {}, set(), None

    @torch.no_grad()
    def forward(self, frames: Tensor, sound: Tensor, valid: Tensor | None = None) -> PCMAOutput:
        given = [x for x in (frames, sound, valid) if x is not None]
        key = tuple((x.shape, x.dtype) for x in given)
        if key not in self._seen:  # this first call also warms up what is captured later
            self._seen.add(key)
            return self.model(*given)
        graph, held, out = self._graphs[key] = self._graphs.pop(key, None) or self._capture(given)
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


@lru_cache(maxsize=64)
def _growth(length, longer, dtype):
    """[3, longer, length]: for each tap, linear growth and then the tap's shift, zeros outside."""
    grown = F.interpolate(torch.eye(length)[None], size=longer, mode="linear")[0].T
    return F.pad(grown, [0, 0, 1, 1]).unfold(0, longer, 1).mT.to(dtype)


class UpsampledCBR(nn.Module):
    """CBR(resize(x, size)) of a folded 3x3 `CBR`, its channels mixed before the map grows.

    A tap of the convolution is a matrix over channels, bilinear growth a matrix over rows and one over columns, and the
    two don't touch each other's axis: so all nine taps mix channels at the small size, and one product a direction does
    growth, shift and sum. When height and width double, it costs 9 C^2 h w + 3 (2 w)(3 w) C h + (2 h)(3 h)(2 w) C for a
    map of h x w, where the convolution costs 36 C^2 h w.

    Shapes:
        features: [N, C, h, w]; size: (H, W). Returns [N, C', H, W], channels last.
    """

    def __init__(self, cbr: CBR) -> None:
        super().__init__()
        conv = cbr[0]
        self.register_buffer("weight", conv.weight.detach().permute(2, 1, 3, 0).flatten(2).contiguous())  # [dy, C, (dx, C')]
        self.register_buffer("bias", conv.bias.detach())
        self.dtype = conv.weight.dtype

    @torch.autocast("cpu", enabled=False)  # else 16-bit products would come to 32-bit places
    def forward(self, features: Tensor, size: Sequence[int]) -> Tensor:
        features, (height, width) = features.to(self.dtype), size
        n, c, h, w = features.shape
        rows = _growth(h, height, self.dtype).transpose(0, 1).flatten(1)  # [H, (dy, h)]
        columns = _growth(w, width, self.dtype).permute(1, 2, 0).flatten(1).expand(h, -1, -1)  # [h, W, (w, dx)]
        out = features.new_empty(n, height, width * len(self.bias))
        wide = features.new_empty(3, h, width, len(self.bias))
        for frame, grown in zip(features.permute(0, 2, 3, 1), out):  # a frame at a time stays in the cache
            for weight, row in zip(self.weight, wide):
                mixed = frame.reshape(h * w, c) @ weight  # [(h, w), (dx, C')]
                torch.bmm(columns, mixed.view(h, 3 * w, -1), out=row)
            torch.mm(rows, wide.view(3 * h, -1), out=grown)
            grown.view(-1, len(self.bias)).add_(self.bias).relu_()
        return out.view(n, height, width, -1).permute(0, 3, 1, 2)


class Winograd(nn.Module):
    """A 3x3 convolution by minimal filtering, F(4x4, 3x3) of Lavin and Gray (CVPR 2016, arXiv:1509.09308, section 4).

    A tile of 6 x 6 inputs and the taps are each brought to 36 coordinates, in which the convolution is one product a
    coordinate; these give 4 x 4 outputs. That is 36 products where the convolution takes 144, and moving the tiles costs
    memory traffic, so small maps go to the convolution itself. In float32 it is good to some 5e-5 of the outputs' scatter.

    Shapes:
        features: [N, C, H, W]. Returns [N, C', H, W], channels last.
    """

    CHANNELS, PIXELS = 256, 28 * 28  # from where on it is faster

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        tile = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0]]
        tile += [[0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
        taps = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
        pixels = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
        tile, pixels, self._taps = (torch.tensor(matrix).to(conv.weight) for matrix in (tile, pixels, taps))
        self.register_buffer("tile", torch.kron(tile, tile))
        self.register_buffer("pixels", torch.kron(pixels, pixels))
        self.dtype, self._weight = conv.weight.dtype, None

    @classmethod
    def fits(cls, conv: nn.Module) -> bool:
        """Whether a module is a convolution that this can replace, and wide enough to gain by it."""
        same = isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3) and conv.padding == (1, 1)
        plain = same and conv.stride == conv.dilation == (1, 1) and conv.groups == 1
        return plain and conv.in_channels >= cls.CHANNELS

    @torch.autocast("cpu", enabled=False)
    def forward(self, features: Tensor) -> Tensor:
        features = features.to(self.dtype)
        n, c, h, w = features.shape
        if h * w < self.PIXELS:
            return self.conv(features)
        if self._weight is None:  # four times the convolution's memory, taken only where it is used; [36, C, C']
            taps = self._taps / 24
            self._weight = torch.einsum("ay,bx,ocyx->abco", taps, taps, self.conv.weight).flatten(0, 1).contiguous()
        high, wide = -(-h // 4), -(-w // 4)
        out = features.new_empty(n, 4 * high, 4 * wide, self.conv.out_channels)
        for frame, grown in zip(features.permute(0, 2, 3, 1), out):  # a frame at a time stays in the cache
            padded = F.pad(frame, [0, 0, 1, 4 * wide - w + 1, 1, 4 * high - h + 1])
            tiles = padded.unfold(0, 6, 4).unfold(1, 6, 4).permute(3, 4, 0, 1, 2).reshape(36, -1)
            products = torch.bmm((self.tile @ tiles).view(36, high * wide, c), self._weight)
            pixels = (self.pixels @ products.view(36, -1)).view(4, 4, high, wide, -1)
            grown.view(high, 4, wide, 4, -1).copy_(pixels.permute(2, 0, 3, 1, 4))
            if self.conv.bias is not None:
                grown.add_(self.conv.bias)
        return out[:, :h, :w].permute(0, 3, 1, 2)


class UpsampledFusion(nn.Module):
    """A folded `GuidedFusion` whose guide and coarser features grow inside `UpsampledCBR`."""

    def __init__(self, fusion: GuidedFusion) -> None:
        super().__init__()
        self.guide = UpsampledCBR(fusion.guide)
        self.coarse = fusion.coarse and UpsampledCBR(fusion.coarse)
        self.out = fusion.out

    @staticmethod
    def fits(module: nn.Module) -> bool:
        return isinstance(module, GuidedFusion) and not isinstance(module.guide[1], nn.BatchNorm2d)

    def forward(self, visual: Tensor, guide: Tensor, coarser: Tensor | None = None) -> Tensor:
        fused = self.guide(guide, visual.shape[-2:]).add_(visual)
        if self.coarse is not None:
            fused = self.coarse(coarser, visual.shape[-2:]).add_(fused)
        return self.out(fused)
