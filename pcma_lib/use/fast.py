"""A trained model made fast for inference: the same logits from fewer and better-laid operations."""

import copy
from collections import OrderedDict
from functools import wraps

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..network.fusion import GuidedFusion
from ..network.pcmanet import PCMANet, PCMAOutput
from ..network.qsca import choose_path
from ..network.visual import VisualPyramid


def fast(model, compile=False):
    """A copy of a model for inference, with the same call and, within rounding, the same O_1.

    Batch norms are folded into the convolutions before them, tensors are channels-last, grouped 1x1 convolutions are one
    dense product, coarser logits are not resized (`logits` is (O_1,)). On a CPU, `UpsampledCBR` spares Guided Fusion its
    upsampled maps, and wide 3x3 convolutions over large maps go by `Winograd`, unless compiled. On a GPU, convolutions and
    products run in bf16 where it computes that, and QSCA takes its dense path, which needs no word from the GPU on how
    many tokens were selected.

    Args:
        model: an `AudioVisualModel`, `PCMANet` or `AVSBaseline`, on the device where it will run.
        compile: True hands the copy to torch.compile as one graph (needs a C++ compiler, and minutes for the first call).

    Returns:
        nn.Module in evaluation mode, for inference alone: it can be neither trained nor saved.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    gpu = next(model.parameters()).device.type == "cuda"
    choose_path(model, dense=True if compile else None)
    _fold_batch_norms(model)
    for module in list(model.modules()):
        if isinstance(module, PCMANet):
            module.finest_only = True
            if not gpu:
                module.fusion = nn.ModuleList(map(UpsampledFusion, module.fusion))
    if not gpu and not compile:
        for module in list(model.modules()):
            for name, conv in module.named_children():
                if Winograd.gains(conv):
                    setattr(module, name, Winograd(conv))
    model = model.to(memory_format=torch.channels_last)
    if gpu and torch.cuda.is_bf16_supported(including_emulation=False):
        model = _HalfPrecision(model)
    # freezing lets the compiler lay out the weights for good and join a convolution with the ReLU behind it
    return torch.compile(model, fullgraph=True, options={"freezing": True}) if compile else model


def _fold_batch_norms(model):
    """Fold each BatchNorm2d whose input is a convolution's output, as one small forward pass shows it."""
    parents = {child: (parent, name) for parent in model.modules() for name, child in parent.named_children()}
    made, pairs, hooks = {}, [], []

    def remember(module, inputs, output):
        if isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))
        elif isinstance(module, nn.Conv2d):
            made[id(output)] = module, output  # the output is kept, so that its id stays its own

    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.Conv2d)):
            hooks.append(module.register_forward_hook(remember))
    device = next(model.parameters()).device
    sound = (128,) if hasattr(model, "pyramid") else (1, 96, 64)
    size = next((m.size for m in model.modules() if isinstance(m, VisualPyramid)), None) or (64, 64)
    with torch.no_grad():
        model(torch.zeros(1, 1, 3, *size, device=device), torch.zeros(1, 1, *sound, device=device))
    for hook in hooks:
        hook.remove()
    for conv, norm in pairs:
        parent, name = parents[conv]
        setattr(parent, name, _dense(fuse_conv_bn_eval(conv, norm)))
        parent, name = parents[norm]
        # timm's BatchNormAct2d is a batch norm, dropout and activation in one
        rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
        setattr(parent, name, nn.Sequential(*rest) if rest else nn.Identity())


def _dense(conv):
    """A grouped 1x1 convolution as one over all channels, whose weights across groups are zero."""
    if conv.groups == 1 or conv.kernel_size != (1, 1) or conv.groups == conv.in_channels:
        return conv
    dense = nn.Conv2d(conv.in_channels, conv.out_channels, 1, conv.stride, bias=conv.bias is not None)
    dense.weight.data = torch.block_diag(*conv.weight.flatten(1).chunk(conv.groups))[..., None, None]
    dense.bias = conv.bias
    return dense.requires_grad_(False)


def _outside_autocast(forward):
    """Computes in the weights' own precision: a user's autocast would give 16-bit products to 32-bit places."""

    @wraps(forward)
    def plain(self, features, *size):
        with torch.autocast(features.device.type, enabled=False):
            return forward(self, features.to(self.dtype), *size)

    return plain


class UpsampledCBR(nn.Module):
    """CBR(resize(x, size)) of a folded 3x3 `CBR`, its channels mixed before the map grows.

    A tap of the convolution is a matrix over channels, bilinear growth a matrix over rows and one over columns, and the
    two don't touch each other's axis: so all nine taps mix channels at the small size, and one product a direction does
    growth, shift and sum. When height and width double, it costs 9 C^2 h w + 3 (2 w)(3 w) C h + (2 h)(3 h)(2 w) C for a
    map of h x w, where the convolution costs 36 C^2 h w.

    Shapes:
        features: [N, C, h, w]; size: (H, W). Returns [N, C', H, W], channels last.
    """

    MATRICES = 16  # sizes remembered

    def __init__(self, cbr):
        super().__init__()
        conv = cbr[0]
        self.register_buffer("weight", conv.weight.detach().permute(2, 1, 3, 0).flatten(2).contiguous())  # [dy, C, (dx, C')]
        self.register_buffer("bias", conv.bias.detach())
        self.dtype, self._matrices = conv.weight.dtype, OrderedDict()

    def _grow(self, length, longer):
        """[3, longer, length]: for each tap, linear growth and then the tap's shift, zeros outside."""
        if (length, longer) not in self._matrices:
            grown = F.interpolate(torch.eye(length)[None], size=longer, mode="linear")[0].T
            self._matrices[length, longer] = F.pad(grown, [0, 0, 1, 1]).unfold(0, longer, 1).mT.to(self.weight)
            if len(self._matrices) > self.MATRICES:
                self._matrices.popitem(last=False)
        return self._matrices[length, longer]

    @_outside_autocast
    def forward(self, features, size):
        n, c, h, w = features.shape
        height, width = size
        rows = self._grow(h, height).transpose(0, 1).flatten(1)  # [H, (dy, h)]
        columns = self._grow(w, width).permute(1, 2, 0).flatten(1).expand(h, -1, -1)  # [h, W, (w, dx)]
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

    def __init__(self, conv):
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
    def gains(cls, conv):
        """Whether a module is a convolution that this can replace, and wide enough to gain by it."""
        same = isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3) and conv.padding == (1, 1)
        plain = same and conv.stride == conv.dilation == (1, 1) and conv.groups == 1
        return plain and conv.in_channels >= cls.CHANNELS

    @_outside_autocast
    def forward(self, features):
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

    def __init__(self, fusion: GuidedFusion):
        super().__init__()
        self.guide = fusion.guide and UpsampledCBR(fusion.guide)
        self.coarse = fusion.coarse and UpsampledCBR(fusion.coarse)
        self.out = fusion.out

    def forward(self, visual, guide, coarser=None):
        fused = visual
        for cbr, smaller in ((self.guide, guide), (self.coarse, coarser)):
            if cbr is not None:
                fused = cbr(smaller, visual.shape[-2:]).add_(fused)
        return self.out(fused)


class _HalfPrecision(nn.Module):
    """bf16 where autocast takes it, float32 logits."""

    def __init__(self, model):
        super().__init__()
        self.model, self.inputs = model, getattr(model, "inputs", None)

    def forward(self, frames, sound, valid=None):
        with torch.autocast(frames.device.type, torch.bfloat16):
            out = self.model(frames, sound, valid)
        return PCMAOutput(tuple(o.float() for o in out.logits), out.masks)  # compiles, unlike _replace
