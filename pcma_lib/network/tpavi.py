"""AVS, the baseline of Tables I to III: TPAVI at four stages and a top-down decoder.

Zhou et al., "Audio-visual segmentation", ECCV 2022 (reference [25] of the paper), as its authors' code computes it.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .pcmanet import STAGES, PCMAOutput, check_frames
from .released import State, load_renamed, released_names, rename_avs
from .visual import VisualPyramid

RATES = (3, 6, 12, 18)


class DilatedSum(nn.ModuleList):
    """Sum of four 3x3 convolutions, dilated by 3, 6, 12 and 18; no norm, no activation. [N, in, h, w] -> [N, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.Conv2d(in_channels, out_channels, 3, padding=r, dilation=r) for r in RATES)
        for conv in self:
            nn.init.normal_(conv.weight, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        return sum(conv(features) for conv in self)


class DilatedPyramid(VisualPyramid):
    """`VisualPyramid` with a `DilatedSum` to C channels a stage in place of the CBR."""

    def __init__(self, backbone: str = "resnet50", channels: int = 256, **options: Any) -> None:
        super().__init__(backbone, channels, **options)
        self.project = nn.ModuleList(DilatedSum(c, channels) for c in self.encoder.feature_info.channels())


class TPAVI(nn.Module):
    """Temporal pixel-wise audio-visual interaction: each token of a clip looks at the sound of all its seconds.

    A pixel i asks with theta_i; the sound at pixel j, its second's, answers with phi_j and brings g_j of the picture:
    z = LayerNorm(x + W_z(theta phi^T g / N)) for N = T h w tokens. There is no softmax, so the product may be taken in
    either order: (theta phi^T) g costs 2 N^2 inner, as published, theta (phi^T g) 2 N inner^2. The 1x1x1 convolutions of
    the published code are linear maps of a token's channels. W_z ends in a batch norm that starts at zero: an untrained
    TPAVI is LayerNorm(x) and hears nothing.

    Args:
        channels: C. inner: channels of theta, phi and g; None takes C / 2. associative: True takes the cheap order.

    Shapes:
        visual: x, [B, T, C, h, w]; audio: [B, T, 128].
        valid: [B, T] bool, False for padded seconds, which then are nobody's keys and don't count in N; None takes all.
        returns: z, [B, T, C, h, w].

    Raises:
        ValueError: audio that does not fit visual.
    """

    def __init__(self, channels: int = 256, inner: int | None = None, associative: bool = False) -> None:
        super().__init__()
        inner = inner or channels // 2
        self.associative = associative
        self.audio = nn.Linear(128, channels)
        self.theta = nn.Linear(channels, inner)
        self.phi = nn.Linear(channels, inner)
        self.g = nn.Linear(channels, inner)
        self.out = nn.Sequential(nn.Linear(inner, channels), nn.BatchNorm1d(channels))
        nn.init.zeros_(self.out[1].weight)
        self.norm = nn.LayerNorm(channels)

    def forward(self, visual: Tensor, audio: Tensor, valid: Tensor | None = None) -> Tensor:
        b, t, c, h, w = visual.shape
        if audio.shape != (b, t, 128):
            raise ValueError(f"audio must be {[b, t, 128]} to go with visual {list(visual.shape)}, got {list(audio.shape)}")
        tokens = visual.permute(0, 1, 3, 4, 2).reshape(b, t * h * w, c)
        sound = self.audio(audio).repeat_interleave(h * w, dim=1)  # [B, N, C], as if every pixel sounded
        theta, phi, g = self.theta(tokens), self.phi(sound), self.g(tokens)  # [B, N, inner] each
        n = t * h * w
        if valid is not None:
            phi = phi * valid.repeat_interleave(h * w, dim=1)[..., None]
            n = (valid.sum(1).clamp(min=1) * h * w)[:, None, None].to(theta.dtype)
        # In the cheap order phi is divided, not the sum over N, which may overflow in 16 bits.
        y = theta @ ((phi / n).mT @ g) if self.associative else (theta @ phi.mT / n) @ g
        z = self.norm(tokens + self.out(y.flatten(0, 1)).unflatten(0, (b, -1)))
        return z.reshape(b, t, h, w, c).permute(0, 1, 4, 2, 3)


class ResidualUnit(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, and the skip around them.

    The first ReLU of the published code works in place, so that what it adds is ReLU(x), not x: kept.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        features = F.relu(features)
        return features + self.conv2(F.relu(self.conv1(features)))


class TopDownFusion(nn.Module):
    """A stage of the decoder: the coarser stage's features plus its own, refined and doubled in size (corners aligned).

    Shapes:
        features, coarser: [N, C, h, w]. Returns [N, C, 2h, 2w].
    """

    def __init__(self, channels: int, coarsest: bool = False) -> None:
        super().__init__()
        self.skip = None if coarsest else ResidualUnit(channels)
        self.out = ResidualUnit(channels)

    def forward(self, features: Tensor, coarser: Tensor | None = None) -> Tensor:
        if self.skip is not None:
            features = coarser + self.skip(features)
        return F.interpolate(self.out(features), scale_factor=2, mode="bilinear", align_corners=True)


class AVSBaseline(nn.Module):
    """AVS: one map of logits from all four stages. It is called as `PCMANet` is.

    Args:
        backbone: a timm encoder. channels: C. num_classes: K; 1 is a binary mask, more are classes.
        associative, inner: see `TPAVI`. pretrained, stages: see `visual.build_encoder`.

    Shapes:
        frames: [B, T, 3, H, W], ImageNet-normalised, H and W divisible by 32, any T; audio: [B, T, 128].
        valid: [B, T] bool, False for the padding of short clips: its features are zeroed and TPAVI leaves it out, so that
            a padded clip gets the logits it gets alone (in evaluation; batch norms in training see the padding).
        returns: `PCMAOutput` with one stage of logits, [B, T, K, H, W], and no masks.

    Raises:
        ValueError: shapes that do not fit.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        channels: int = 256,
        num_classes: int = 1,
        associative: bool = False,
        pretrained: bool | str = False,
        stages: Sequence[int] | None = None,
        inner: int | None = None,
    ) -> None:
        super().__init__()
        self.pyramid = DilatedPyramid(backbone, channels, pretrained=pretrained, stages=stages)
        self.tpavi = nn.ModuleList(TPAVI(channels, inner, associative) for _ in range(STAGES))
        self.fusion = nn.ModuleList(TopDownFusion(channels, coarsest=i == STAGES - 1) for i in range(STAGES))
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(channels // 2, channels // 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 8, num_classes, 1),
        )

    def forward(self, frames: Tensor, audio: Tensor, valid: Tensor | None = None) -> PCMAOutput:
        clips = check_frames(frames)
        maps = [m.unflatten(0, clips) for m in self.pyramid(frames.flatten(0, 1))]
        if valid is not None:
            maps = [m * valid[:, :, None, None, None] for m in maps]
        fused = None
        for i in reversed(range(STAGES)):
            fused = self.fusion[i](self.tpavi[i](maps[i], audio, valid).flatten(0, 1), fused)
        return PCMAOutput((self.head(fused).unflatten(0, clips),), ())

    @classmethod
    def from_released(
        cls, state_dict: State, backbone: str = "resnet50", num_classes: int = 1, associative: bool = False
    ) -> "AVSBaseline":
        """The published checkpoint.

        Args:
            state_dict: the released parameters by their names, see `released.released_names`: `resnet.*` or
                `encoder_backbone.*`, and for i = 1..4 `convi.conv2d_list.0..3`, `tpavi_bi.align_channel, theta, phi, g,
                W_z.0, W_z.1, norm_layer`, `pathi.resConfUnit1, 2.conv1, 2`, and `output_conv.0, 2, 4`. What no forward
                pass uses may be there or not: the encoder's second copy of layers 3 and 4, `path4.resConfUnit1`.
            backbone: "resnet50" or "pvt_v2_b5".

        Raises:
            ValueError: parameters missing, unexpected or of another shape; all are named.
        """
        state = {k: v for k, v in released_names(state_dict).items() if "path4.resConfUnit1." not in k}
        if "tpavi_b4.theta.weight" not in state:
            raise ValueError("not a released AVS checkpoint: tpavi_b4.theta.weight is missing")
        inner, channels = state["tpavi_b4.theta.weight"].shape[:2]
        model = cls(backbone, channels, num_classes, associative, inner=inner)
        load_renamed(model, rename_avs(state, model.pyramid.encoder))
        return model
