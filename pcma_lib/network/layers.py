"""The two steps that every part of the network takes: convolve a map, and bring it to another size."""

import torch.nn.functional as F
from torch import nn


class CBR(nn.Sequential):
    """Convolution (with bias, as released), batch norm, ReLU."""

    def __init__(self, in_channels, out_channels, kernel_size=3, groups=1):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


def resize(features, size):
    """Bilinear, corners not aligned; a map that has the size already is returned as it is."""
    return features if features.shape[-2:] == tuple(size) else F.interpolate(features, size=size, mode="bilinear")
