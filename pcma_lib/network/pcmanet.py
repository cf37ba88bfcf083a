"""PCMANet: the pyramid, four AVGA, four QSCA steered by CIM, and the fusing decoder (paper III, fig. 2)."""

from typing import NamedTuple

import torch
from torch import nn

from .avga import AVGA
from .cim import ConfidenceInducedMasking
from .fusion import GuidedFusion, Head
from .layers import resize
from .qsca import QSCA
from .released import load_renamed, released_names, rename_released
from .visual import VisualPyramid

STAGES = 4
PARTS = ("avga", "qsca", "mask", "continuity", "progression")  # what `without` can leave out


class PCMAOutput(NamedTuple):
    """What a forward pass gives.

    logits: (O_1, .., O_4), finest first, each [B, T, K, H, W] resized to the frames.
    masks: (M_3, M_2, M_1), coarsest first, each [B, T, 1, h, w], 1 = the token was kept as a query.
    """

    logits: tuple
    masks: tuple


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
        without: parts to leave out, for the ablation of Table IV, from `PARTS`. "avga": the sound is added to every
            pixel; "qsca": no guide; "mask": all tokens are queries; "continuity": each QSCA hears the first sound, not
            what the coarser one made of it; "progression": a mask is not multiplied by the coarser one.

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
        backbone="resnet50",
        channels=256,
        groups=8,
        threshold=0.99,
        num_classes=1,
        as_released=False,
        heads=8,
        pretrained=False,
        stages=None,
        without=(),
        seconds=None,
    ):
        super().__init__()
        if unknown := set(without) - set(PARTS):
            raise ValueError(f"without takes {', '.join(PARTS)}; got {', '.join(sorted(unknown))}")
        self.without, self.finest_only = frozenset(without), False  # True: logits hold O_1 alone, see inference.py
        self.seconds = (seconds or (10 if num_classes > 1 else 5)) if as_released is True else None
        self.pyramid = VisualPyramid(backbone, channels, pretrained, stages)
        self.audio = nn.Linear(128, channels)
        has_avga, has_qsca = "avga" not in without, "qsca" not in without
        self.avga = nn.ModuleList(AVGA(channels, groups) for _ in range(STAGES * has_avga))
        self.qsca = nn.ModuleList(QSCA(channels, heads, as_released=as_released) for _ in range(STAGES * has_qsca))
        self.cim = ConfidenceInducedMasking(threshold)
        self.fusion = nn.ModuleList(GuidedFusion(channels, i == STAGES - 1, guided=has_qsca) for i in range(STAGES))
        self.heads = nn.ModuleList(Head(channels, num_classes) for _ in range(STAGES))

    def forward(self, frames, audio, valid=None):
        if frames.ndim != 5 or frames.shape[2] != 3:
            raise ValueError(f"frames must be [B, T, 3, H, W], got {list(frames.shape)}")
        b, t = frames.shape[:2]
        if audio.shape != (b, t, 128):
            raise ValueError(f"audio must be {[b, t, 128]} to go with frames {list(frames.shape)}, got {list(audio.shape)}")
        filled_up = self.seconds and (t != self.seconds or torch.jit.is_tracing())  # a trace is for clips of any length
        compute = self._filled_up if filled_up else self._coarse_to_fine
        return compute(frames, audio, valid)

    def _filled_up(self, frames, audio, valid):
        """`_coarse_to_fine` of clips that are brought to the published code's T."""
        b, t = frames.shape[:2]
        if t > self.seconds:
            raise ValueError(f"this released network takes clips of at most {self.seconds} s, got {t} s; set seconds={t}")

        def fill(x):
            filled = x.new_zeros(b, self.seconds, *x.shape[2:])
            filled[:, :t] = x
            return filled

        valid = frames.new_ones(b, t, dtype=torch.bool) if valid is None else valid
        out = self._coarse_to_fine(fill(frames), fill(audio), fill(valid))
        return PCMAOutput(*(tuple(x[:, :t] for x in part) for part in out))

    def _coarse_to_fine(self, frames, audio, valid):
        b, t = frames.shape[:2]
        maps = self.pyramid(frames.flatten(0, 1))
        if valid is not None:
            maps = [m * valid.reshape(-1, 1, 1, 1) for m in maps]
            audio = audio * valid[..., None] if self.seconds else audio
        audio = self.audio(audio)
        sound = audio.flatten(0, 1)
        if "avga" in self.without:
            aligned = [m + sound[..., None, None] for m in maps]
        else:
            aligned = [avga(m, sound) for avga, m in zip(self.avga, maps)]  # V_1 .. V_4

        logits, masks, fused, guide, mask = [], [], None, None, None
        for i in reversed(range(STAGES)):
            if self.qsca:
                per_clip = None if mask is None else mask.unflatten(0, (b, t))
                visual = aligned[i].unflatten(0, (b, t))
                hear = i > 0 or not self.finest_only  # nothing follows that would use what stage 1 heard
                guide, heard = self.qsca[i](visual, audio, per_clip, valid, resized=False, hear=hear)  # the fusion resizes
                guide, audio = guide.flatten(0, 1), audio if "continuity" in self.without else heard
            fused = self.fusion[i](aligned[i], guide, fused)
            stage = self.heads[i](fused)
            if i == 0 or not self.finest_only:
                logits.append(resize(stage, frames.shape[-2:]).unflatten(0, (b, t)))
            if i:
                mask = self._mask(stage, mask)
                masks.append(mask.unflatten(0, (b, t)))
        return PCMAOutput(tuple(reversed(logits)), tuple(masks))

    def _mask(self, logits, coarser):
        if "mask" in self.without:
            return logits.new_ones(len(logits), 1, *logits.shape[-2:])
        return self.cim(logits, None if "progression" in self.without else coarser)

    @classmethod
    def from_released(cls, state_dict, backbone="resnet50", num_classes=1, seconds=None):
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
