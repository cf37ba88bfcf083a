"""3x3 convolutions in fewer products, or where they are needed: what `fast` puts in the place of CBRs."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network.fusion import GuidedFusion
from ..network.layers import CBR

TILE = 4  # pixels a side of a tile
# Four pixels in a row become six of a map of twice the size: those of the two in the middle, and one on each side.
QUARTERS = [[3, 1, 0, 0], [1, 3, 0, 0], [0, 3, 1, 0], [0, 1, 3, 0], [0, 0, 3, 1], [0, 0, 1, 3]]


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
        same = type(conv) is nn.Conv2d and conv.kernel_size == (3, 3) and conv.padding == (1, 1)
        plain = same and conv.stride == conv.dilation == (1, 1) and conv.groups == 1
        return plain and conv.in_channels >= cls.CHANNELS

    def coordinates(self) -> Tensor:
        """The taps in their 36 coordinates, [36, C, C']."""
        taps = self._taps / 24
        return torch.einsum("ay,bx,ocyx->abco", taps, taps, self.conv.weight).flatten(0, 1).contiguous()

    def filtered(self, tiles: Tensor, coordinates: Tensor) -> Tensor:
        """Tiles of 6 x 6 pixels [36, n, C] to their 4 x 4 outputs without bias [16, n, C'], by the taps' coordinates."""
        products = torch.bmm((self.tile @ tiles.flatten(1)).view_as(tiles), coordinates)
        return (self.pixels @ products.flatten(1)).view(16, tiles.shape[1], -1)

    @torch.autocast("cpu", enabled=False)
    def forward(self, features: Tensor) -> Tensor:
        features = features.to(self.dtype)
        n, c, h, w = features.shape
        if h * w < self.PIXELS:
            return self.conv(features)
        if self._weight is None:  # four times the convolution's memory, taken only where it is used; [36, C, C']
            self._weight = self.coordinates()
        high, wide = -(-h // 4), -(-w // 4)
        out = features.new_empty(n, 4 * high, 4 * wide, self.conv.out_channels)
        for frame, grown in zip(features.permute(0, 2, 3, 1), out):  # a frame at a time stays in the cache
            padded = F.pad(frame, [0, 0, 1, 4 * wide - w + 1, 1, 4 * high - h + 1])
            tiles = padded.unfold(0, 6, 4).unfold(1, 6, 4).permute(3, 4, 0, 1, 2).reshape(36, -1)
            pixels = self.filtered(tiles.view(36, high * wide, c), self._weight).view(4, 4, high, wide, -1)
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
        return type(module) is GuidedFusion and all(_is_folded(cbr) for cbr in (module.guide, module.coarse) if cbr)

    def forward(self, visual: Tensor, guide: Tensor, coarser: Tensor | None = None) -> Tensor:
        fused = self.guide(guide, visual.shape[-2:]).add_(visual)
        if self.coarse is not None:
            fused = self.coarse(coarser, visual.shape[-2:]).add_(fused)
        return self.out(fused)


def _is_folded(cbr):
    """Whether this is a `CBR` of its own three parts, whose batch norm has become nothing."""
    conv, norm, act = cbr if type(cbr) is CBR and len(cbr) == 3 else (None, None, None)
    nothing = isinstance(norm, nn.Identity) or isinstance(norm, nn.Sequential) and not len(norm)
    return type(conv) is nn.Conv2d and nothing and type(act) is nn.ReLU


class TileCBR(nn.Module):
    """A folded 3x3 `CBR` for tiles of 4 x 4 pixels alone.

    Args:
        cbr: its batch norm folded. minimal: by minimal filtering where the convolution is as wide as `Winograd` wants it.

    Shapes:
        rows: a map, or a batch of them, as pixels [N*H*W, C].
        at: [36, n], for each tile the pixels that its outputs see, 6 x 6 of them; or [16, n], 4 x 4 pixels of a map of half
            the size, which are grown first. inside: [36, n, 1], 0 for those outside of the picture.
        returns: [16, n, C'].
    """

    TOGETHER = 256  # tiles at a time, which stay in the cache

    def __init__(self, cbr: CBR, minimal: bool) -> None:
        super().__init__()
        conv = cbr[0]
        if not _is_folded(cbr):
            raise ValueError("a gated decoder needs its batch norms folded into the convolutions; `fast` does that")
        self.quick = Winograd(conv) if minimal and Winograd.fits(conv) else None
        if self.quick is not None:
            weight = self.quick.coordinates()  # [36, C, C']
        else:
            weight = conv.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [(dy, dx, C), C']
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", conv.bias.detach().clone())
        growth = torch.tensor(QUARTERS).to(weight, non_blocking=True) / 4
        self.register_buffer("growth", torch.kron(growth, growth))

    def forward(self, rows: Tensor, at: Tensor, inside: Tensor) -> Tensor:
        out = rows.new_empty(TILE * TILE, at.shape[1], len(self.bias))
        for found, place, known in zip(*(x.split(self.TOGETHER, 1) for x in (out, at, inside))):
            n, c = place.shape[1], rows.shape[1]
            seen = rows.index_select(0, place.flatten()).view(len(place), n * c)
            if len(place) == TILE * TILE:
                seen = self.growth @ seen
            found.copy_(self._convolve(seen.view(36, n, c) * known)).add_(self.bias).relu_()
        return out

    def _convolve(self, seen):
        _, n, c = seen.shape
        if self.quick is not None:
            return self.quick.filtered(seen, self.weight)
        windows = seen.view(6, 6, n, c).unfold(0, 3, 1).unfold(1, 3, 1)  # [4, 4, n, C, 3, 3]
        return (windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, 9 * c) @ self.weight).view(TILE * TILE, n, -1)
