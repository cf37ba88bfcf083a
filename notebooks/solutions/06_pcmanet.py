"""Solutions to the exercises of lesson 06."""

import torch.nn.functional as F


def place(i, n, m):
    # The centre of pixel i lies at (i + 1/2) of m, which is the same share of n. Pixel centres begin at 1/2.
    # Aligned corners stretch the map, whose outermost centres move to the border of the frame. The peak on the drum lies in
    # the lowest row of cells, so it moves half a cell down, and there the difference is largest.
    return (i + 0.5) * n / m - 0.5


def fusion_macs(C, n, frames):
    # Three 3 x 3 convolutions. At 56 x 56 they are a third of the network.
    return 3 * 9 * C * C * n * n * frames


def head_parameters(C, K):
    # 3 half: a bias, a scale and a shift for each of the C / 2 channels.
    half = C // 2
    return 9 * C * half + 3 * half + half * K + K


def fuse(part, visual, guide, coarser=None):
    # Enlarge, convolve, add. Stage 4 has nothing coarser.
    def up(maps):
        return F.interpolate(maps, size=visual.shape[-2:], mode="bilinear")

    fused = visual + part.guide(up(guide))
    if coarser is not None:
        fused = fused + part.coarse(up(coarser))
    return part.out(fused)
