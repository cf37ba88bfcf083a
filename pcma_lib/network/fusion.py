"""Guided Fusion and the prediction head of a stage (paper III-D, fig. 2)."""

from torch import Tensor, nn

from .layers import CBR, resize


class GuidedFusion(nn.Module):
    """CBR(V_i + CBR(up(coarser)) + CBR(up(G_i))).

    Args:
        channels: C. coarsest: True for stage 4, which has no coarser features.

    Shapes:
        visual: V_i [N, C, H, W]; guide: G_i [N, C, h, w]; coarser: fused features of stage i + 1, [N, C, h', w'].
        returns: [N, C, H, W].
    """

    def __init__(self, channels: int = 256, coarsest: bool = False) -> None:
        super().__init__()
        self.coarse = None if coarsest else CBR(channels, channels)
        self.guide = CBR(channels, channels)
        self.out = CBR(channels, channels)

    def forward(self, visual: Tensor, guide: Tensor, coarser: Tensor | None = None) -> Tensor:
        size = visual.shape[-2:]
        fused = visual + self.guide(resize(guide, size))
        if self.coarse is not None:
            fused = fused + self.coarse(resize(coarser, size))
        return self.out(fused)


class Head(nn.Sequential):
    """A CBR to half the channels, then a 1x1 convolution to K logits: [N, C, H, W] -> [N, K, H, W]."""

    def __init__(self, channels: int = 256, num_classes: int = 1) -> None:
        super().__init__(CBR(channels, channels // 2), nn.Conv2d(channels // 2, num_classes, 1))
