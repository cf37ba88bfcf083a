"""PCMANet: the pyramid, four AVGA, four QSCA steered by CIM, and the fusing decoder (paper III, fig. 2)."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from .fusion import Head
from .layers import resize
from .released import State, filled_up, load_renamed, released_names, rename_released
from .variants import parts
from .visual import VisualPyramid

STAGES = 4


class PCMAOutput(NamedTuple):
    """What a forward pass gives.

    Shapes:
        stages: (O_1, .., O_4), finest first, each [B, T, K, h, w] at the size at which its stage computed it.
        masks: (M_3, M_2, M_1), coarsest first, each [B, T, 1, h, w], 1 = the token was kept as a query. M_1 has an eighth
            of the frames' height and width. A network without masks gives its logits at the frames' size.
    """

    stages: tuple[Tensor, ...]
    masks: tuple[Tensor, ...] = ()

    @property
    def logits(self) -> tuple[Tensor, ...]:
        """(O_1, .., O_4), each resized to the frames: [B, T, K, H, W]."""
        return tuple(map(self._at_frames, self.stages))

    @property
    def finest(self) -> Tensor:
        """O_1 alone, resized to the frames: [B, T, K, H, W]."""
        return self._at_frames(self.stages[0])

    def _at_frames(self, logits):
        if not self.masks:
            return logits
        size = [8 * side for side in self.masks[-1].shape[-2:]]
        return resize(logits.flatten(0, 1), size).unflatten(0, logits.shape[:2])


def check_frames(frames: Tensor) -> tuple[int, int]:
    """B and T of frames [B, T, 3, H, W]; a ValueError for any other shape."""
    if frames.ndim != 5 or frames.shape[2] != 3:
        raise ValueError(f"frames must be [B, T, 3, H, W], got {list(frames.shape)}")
    return frames.shape[:2]


class PCMANet(nn.Module):
    """Audio-visual segmentation, coarse to fine (paper III).

    Args:
        backbone: a timm encoder. channels: C. groups: g of AVGA. threshold: c of CIM.
        num_classes: K; 1 is a binary mask, more are classes with 0 the background.
        heads: attention heads of QSCA.
        pretrained, stages: ImageNet weights for the encoder, or its stages' channels, see `visual.build_encoder`.
        as_released: reproduce the faults of the published code, see `QSCA`. True also fills up shorter clips to `seconds`,
            with silence and zeros that it attends to as that code does: a clip's result depends on no other in its batch.
        seconds: the fixed T of that code; None takes 10 with classes (AVSS), 5 without (S4, MS3).
        without: parts to leave out, for the ablation of Table IV; `variants` has what takes their place. "avga": the sound
            is added to every pixel; "qsca": no guide; "mask": all tokens are queries; "continuity": each QSCA hears the
            first sound, not what the coarser one made of it; "progression": a mask is not multiplied by the coarser one.

    Shapes:
        frames: [B, T, 3, H, W], ImageNet-normalised, H and W divisible by 32, any T.
        audio: [B, T, 128], one VGGish embedding a frame.
        valid: [B, T] bool, False for the padding of short clips; None takes all as valid.
        returns: `PCMAOutput`.

    Raises:
        ValueError: shapes that do not fit, a part that is not known.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        channels: int = 256,
        groups: int = 8,
        threshold: float = 0.99,
        num_classes: int = 1,
        as_released: bool | str = False,
        heads: int = 8,
        pretrained: bool | str = False,
        stages: Sequence[int] | None = None,
        without: Sequence[str] = (),
        seconds: int | None = None,
    ) -> None:
        super().__init__()
        part, quirks = parts(without), {"as_released": as_released, "resized": False}
        self.seconds = (seconds or (10 if num_classes > 1 else 5)) if as_released is True else None
        self.pyramid = VisualPyramid(backbone, channels, pretrained, stages)
        self.audio = nn.Linear(128, channels)
        self.avga = nn.ModuleList(part["avga"](channels, groups) for _ in range(STAGES))
        self.qsca = nn.ModuleList(part["qsca"](channels, heads, **quirks) for _ in range(STAGES))
        self.cim = part["cim"](threshold)
        self.fusion = nn.ModuleList(part["fusion"](channels, coarsest=i == STAGES - 1) for i in range(STAGES))
        self.heads = nn.ModuleList(Head(channels, num_classes) for _ in range(STAGES))

    def forward(self, frames: Tensor, audio: Tensor, valid: Tensor | None = None) -> PCMAOutput:
        b, t = check_frames(frames)
        if audio.shape != (b, t, 128):
            raise ValueError(f"audio must be {[b, t, 128]} to go with frames {list(frames.shape)}, got {list(audio.shape)}")
        if self.seconds:
            return filled_up(self._coarse_to_fine, self.seconds, frames, audio, valid)
        return self._coarse_to_fine(frames, audio, valid)

    def _coarse_to_fine(self, frames, audio, valid):
        clips = frames.shape[:2]
        maps = self.pyramid(frames.flatten(0, 1))  # F_1 .. F_4, each [B*T, C, h, w]
        if valid is not None:
            maps = [m * valid.reshape(-1, 1, 1, 1) for m in maps]
        audio = self.audio(audio)  # A_4, [B, T, C]
        sound = audio.flatten(0, 1)
        aligned = [avga(m, sound) for avga, m in zip(self.avga, maps)]  # V_1 .. V_4

        stages, masks, fused, mask = [], [], None, None
        for i in reversed(range(STAGES)):
            fused, logits, audio = self.stage(i, aligned[i], fused, audio, masks[-1] if masks else None, valid)
            stages.insert(0, logits.unflatten(0, clips))
            if i:  # the finest stage has nobody to guide
                mask = self.cim(logits, mask)
                masks.append(mask.unflatten(0, clips))
        return PCMAOutput(tuple(stages), tuple(masks))

    def stage(
        self, i: int, visual: Tensor, coarser: Tensor | None, audio: Tensor, mask: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """QSCA, fusion and head of stage i + 1.

        Shapes:
            visual: V [B*T, C, h, w]; coarser: X of the stage before, None in the coarsest; audio: [B, T, C].
            mask: [B, T, 1, h', w'] or None; valid: [B, T] or None.
            returns: X [B*T, C, h, w], logits O [B*T, K, h, w], and the sound for the next stage [B, T, C].
        """
        guide, audio = self.qsca[i](visual.unflatten(0, audio.shape[:2]), audio, mask, valid)
        fused = self.fusion[i](visual, guide.flatten(0, 1), coarser)
        return fused, self.heads[i](fused), audio

    @classmethod
    def from_released(
        cls, state_dict: State, backbone: str = "resnet50", num_classes: int = 1, seconds: int | None = None
    ) -> "PCMANet":
        """The published checkpoint as it computes, its two faults included (`as_released=True`).

        Args:
            state_dict: the released parameters, by their released names, see `released.released_names`.
            backbone: "resnet50" or "pvt_v2_b5". seconds: T of its training; None takes 10 with classes, else 5.

        Raises:
            ValueError: parameters missing, unexpected or of another shape; all are named.
        """
        state = released_names(state_dict)
        if "avga4.fc.1.weight" not in state:
            raise ValueError("not a released PCMANet checkpoint: avga4.fc.1.weight is missing")
        narrow, channels = state["avga4.fc.1.weight"].shape
        groups = channels // narrow
        model = cls(backbone, channels, groups, num_classes=num_classes, as_released=True, seconds=seconds)
        load_renamed(model, rename_released(state, model.pyramid.encoder))
        return model
