"""Audio-Visual Group Attention: where the picture agrees with the sound (paper III-B, fig. 3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import CBR


class AVGA(nn.Module):
    """Cosine similarity between the sound and every pixel, in g groups of channels.

    Args:
        channels: C, of the maps and of the sound.
        groups: g; each compares C / g channels.

    Shapes:
        visual: [N, C, H, W]; audio: [N, C].
        returns: [N, C, H, W], the map modulated by its group's attention.

    Raises:
        ValueError: channels not divisible by groups.
    """

    def __init__(self, channels: int = 256, groups: int = 8) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"channels ({channels}) must be divisible by groups ({groups})")
        self.groups = groups
        self.visual = CBR(channels, channels, kernel_size=1, groups=groups)
        self.audio = nn.Sequential(nn.Linear(channels, channels), nn.Linear(channels, channels // groups), nn.ReLU())
        self.out = CBR(channels, channels, kernel_size=1)

    def attention(self, visual: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """The grouped map [N, g, C/g, H, W] and its attention [N, g, H, W] in [0, 1] (both operands passed a ReLU)."""
        grouped = self.visual(visual).unflatten(1, (self.groups, -1))
        n, g, c, h, w = grouped.shape
        least = max(1e-12, torch.finfo(grouped.dtype).tiny)  # a vector of zeros stays one, in float16 too
        sound = F.normalize(self.audio(audio), dim=-1, eps=least)
        product = grouped.permute(0, 3, 4, 1, 2).reshape(n, h * w * g, c) @ sound[..., None]  # no copy if channels last
        product = product.view(n, h, w, g).permute(0, 3, 1, 2)
        return grouped, product / grouped.norm(dim=2).clamp(min=least)

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        grouped, attention = self.attention(visual, audio)
        return self.out((grouped * attention.unsqueeze(2)).flatten(1, 2))
