"""What takes a part's place when it is left out: the rows of Table IV (paper IV-D)."""

from typing import Any

import torch
from torch import Tensor, nn

from .avga import AVGA
from .cim import ConfidenceInducedMasking
from .fusion import GuidedFusion
from .layers import CBR, resize
from .qsca import QSCA


class AddedSound(nn.Module):
    """In the place of `AVGA`: the sound is added to every pixel. [N, C, H, W] and [N, C] -> [N, C, H, W]."""

    def __init__(self, channels: int = 256, groups: int = 8) -> None:
        super().__init__()

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        return visual + audio[..., None, None]


class NoQSCA(nn.Module):
    """In the place of `QSCA`: picture and sound pass through. `UnguidedFusion` goes with it."""

    def __init__(self, channels: int = 256, heads: int = 8, **options: Any) -> None:
        super().__init__()

    def forward(self, visual: Tensor, audio: Tensor, *masks: Tensor | None) -> tuple[Tensor, Tensor]:
        return visual, audio


class UnguidedFusion(nn.Module):
    """In the place of `GuidedFusion`: it looks at no guide, CBR(V_i + CBR(up(coarser))). Shapes are the same."""

    def __init__(self, channels: int = 256, coarsest: bool = False) -> None:
        super().__init__()
        self.coarse = None if coarsest else CBR(channels, channels)
        self.out = CBR(channels, channels)

    def forward(self, visual: Tensor, guide: Tensor, coarser: Tensor | None = None) -> Tensor:
        return self.out(visual if self.coarse is None else visual + self.coarse(resize(coarser, visual.shape[-2:])))


class FirstSound(QSCA):
    """QSCA without continuity: it passes on the sound that it was given, so each stage hears the first one."""

    def forward(self, visual: Tensor, audio: Tensor, *masks: Tensor | None) -> tuple[Tensor, Tensor]:
        return super().forward(visual, audio, *masks)[0], audio


class NoProgression(ConfidenceInducedMasking):
    """CIM without progression: every stage decides anew."""

    def forward(self, logits: Tensor, coarser: Tensor | None = None) -> Tensor:
        return super().forward(logits)


class KeepAll(ConfidenceInducedMasking):
    """CIM without its mask: all tokens are queries."""

    def forward(self, logits: Tensor, coarser: Tensor | None = None) -> Tensor:
        return torch.ones_like(logits[:, :1])


LEFT_OUT = {  # what stands in for a part; a later line replaces an earlier one's, as a QSCA that is gone passes on nothing
    "avga": {"avga": AddedSound},
    "continuity": {"qsca": FirstSound},
    "qsca": {"qsca": NoQSCA, "fusion": UnguidedFusion},
    "progression": {"cim": NoProgression},
    "mask": {"cim": KeepAll},
}


def parts(without: tuple[str, ...] = ()) -> dict[str, type[nn.Module]]:
    """The classes of which `PCMANet` builds its avga, qsca, cim and fusion.

    Raises:
        ValueError: a name in `without` that is not one of `LEFT_OUT`.
    """
    if unknown := set(without) - set(LEFT_OUT):
        raise ValueError(f"without takes {', '.join(LEFT_OUT)}; got {', '.join(sorted(unknown))}")
    chosen = {"avga": AVGA, "qsca": QSCA, "cim": ConfidenceInducedMasking, "fusion": GuidedFusion}
    for name, stand_in in LEFT_OUT.items():
        chosen |= stand_in if name in without else {}
    return chosen
