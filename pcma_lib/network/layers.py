"""The two steps that every part of the network takes: convolve a map, and bring it to another size."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class CBR(nn.Sequential):
    """Convolution (with bias, as released), batch norm, ReLU: [N, in, H, W] -> [N, out, H, W]."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


def resize(features: Tensor, size: Sequence[int]) -> Tensor:
    """[N, C, h, w] -> [N, C, H, W], bilinear, corners not aligned. A map that has the size already is returned as it is."""
    return features if features.shape[-2:] == tuple(size) else F.interpolate(features, size=size, mode="bilinear")
