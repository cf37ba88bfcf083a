"""PCMANet: the pyramid, four AVGA, four QSCA steered by CIM, and the fusing decoder (paper III, fig. 2)."""

import re
from typing import NamedTuple

from torch import nn

from .avga import AVGA
from .cim import ConfidenceInducedMasking
from .fusion import GuidedFusion, Head, resize
from .qsca import QSCA
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
        as_released: reproduce the faults of the published code, see `QSCA`.
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
    ):
        super().__init__()
        if unknown := set(without) - set(PARTS):
            raise ValueError(f"without takes {', '.join(PARTS)}; got {', '.join(sorted(unknown))}")
        self.without, self.finest_only = frozenset(without), False  # True: logits hold O_1 alone, see inference.py
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
        maps = self.pyramid(frames.flatten(0, 1))
        if valid is not None:
            maps = [m * valid.reshape(-1, 1, 1, 1) for m in maps]
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
    def from_released(cls, state_dict, backbone="resnet50", num_classes=1):
        """The published checkpoint as it computes, its two faults included (`as_released=True`).

        Args:
            state_dict: the released parameters, by their released names (a `module.` in front is taken off).
            backbone: "resnet50" or "pvt_v2_b5".

        Raises:
            ValueError: parameters missing, unexpected or of another shape; all are named.
        """
        state = {k.removeprefix("module."): v for k, v in state_dict.items()}
        if "avga4.fc.1.weight" not in state:
            raise ValueError("not a released PCMANet checkpoint: avga4.fc.1.weight is missing")
        narrow, channels = state["avga4.fc.1.weight"].shape
        model = cls(backbone, channels, channels // narrow, num_classes=num_classes, as_released=True)
        load_renamed(model, rename_released(state, model.pyramid.encoder))
        return model


def load_renamed(model, renamed):
    """Load parameters strictly, naming all that is wrong in one message."""
    expected = model.state_dict()
    wrong = [f"missing: {k}" for k in expected.keys() - renamed.keys()]
    wrong += [f"unexpected: {k}" for k in renamed.keys() - expected.keys()]
    for key in expected.keys() & renamed.keys():
        if expected[key].shape != renamed[key].shape:
            wrong.append(f"{key}: expected {list(expected[key].shape)}, found {list(renamed[key].shape)}")
    if wrong:
        raise ValueError("the checkpoint does not fit:\n  " + "\n  ".join(sorted(wrong)))
    model.load_state_dict(renamed)


_RENAME = [
    (r"^resnet\.", "pyramid.encoder."),
    (r"^conv(\d)\.", "pyramid.project.{}."),
    (r"^aud_fc1?\.", "audio."),
    (r"^avga(\d)\.seq1\.", "avga.{}.visual."),
    (r"^avga(\d)\.seq2\.", "avga.{}.out."),
    (r"^avga(\d)\.fc\.", "avga.{}.audio."),
    (r"^qsca(\d)\.aud_fc\.", "qsca.{}.audio."),
    (r"^qsca(\d)\.attn\.to_patch_embedding\.1\.", "qsca.{}.visual."),
    (r"^qsca(\d)\.attn\.transformer\.layers\.0\.0\.norm\.", "qsca.{}.norm."),
    (r"^qsca(\d)\.attn\.transformer\.layers\.0\.0\.fn\.v_to_q\.", "qsca.{}.visual_q."),
    (r"^qsca(\d)\.attn\.transformer\.layers\.0\.0\.fn\.v_to_kv\.", "qsca.{}.visual_kv."),
    (r"^qsca(\d)\.attn\.transformer\.layers\.0\.0\.fn\.a_to_qkv\.", "qsca.{}.audio_qkv."),
    (r"^qsca(\d)\.attn\.transformer\.layers\.0\.0\.fn\.to_out\.0\.", "qsca.{}.out."),
    (r"^gf4\.seq1\.", "fusion.3.guide."),
    (r"^gf(\d)\.seq1\.", "fusion.{}.coarse."),
    (r"^gf(\d)\.seq2\.", "fusion.{}.guide."),
    (r"^gf(\d)\.seq3\.", "fusion.{}.out."),
    (r"^output_conv(\d)\.([01])\.", "heads.{}.0.{other}."),
    (r"^output_conv(\d)\.3\.", "heads.{}.1."),
]


def rename_released(state, encoder):
    """Released names to ours; what no released forward pass uses is left out (facts: 22 M of the encoder, GF_4's seq2)."""
    dead = re.compile(r"^resnet\.layer[34]_2\.|^gf4\.seq2\.|^(resnet|encoder_backbone)\.(fc|head)\.")
    state = {re.sub(r"^(resnet\.layer[34])_1\.", r"\1.", k): v for k, v in state.items() if not dead.match(k)}
    pvt = {k.removeprefix("encoder_backbone."): v for k, v in state.items() if k.startswith("encoder_backbone.")}
    renamed = {}
    for key, value in state.items():
        for pattern, ours in _RENAME:
            found = re.match(pattern, key)
            if found:
                stage = int(found[1]) - 1 if found.groups() else None
                other = found[2] if len(found.groups()) > 1 else None
                renamed[ours.format(stage, other=other) + key[found.end() :]] = value
                break
        else:
            if not key.startswith("encoder_backbone."):
                renamed[key] = value
    if pvt:
        from timm.models.pvt_v2 import checkpoint_filter_fn

        for key, value in checkpoint_filter_fn(pvt, encoder).items():
            renamed["pyramid.encoder." + key.replace("stages.", "stages_", 1)] = value
    return renamed
