"""Visual features of four sizes: a timm encoder and a CBR to C channels each (paper III-A)."""

from pathlib import Path

import timm
from torch import nn


class CBR(nn.Sequential):
    """Convolution (with bias, as released), batch norm, ReLU."""

    def __init__(self, in_channels, out_channels, kernel_size=3, groups=1):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


def build_encoder(backbone, pretrained=False, stages=None):
    """A timm encoder that returns its maps at strides 4, 8, 16 and 32.

    Args:
        backbone: name of any timm model with `features_only` and these four strides.
        pretrained: True loads ImageNet weights through timm (from its cache or the hub); a string is the path of a
            local weight file in timm's or torchvision's names.
        stages: channels of a ResNet's four stages, to make it narrower than published; only from scratch.

    Raises:
        ValueError: unknown name, strides that do not fit, stages together with pretrained, a file of other weights.
        OSError: weights that are not there or can't be fetched.
    """
    if backbone not in timm.list_models():
        raise ValueError(f"backbone {backbone!r} is not a timm model; timm.list_models() names them")
    if stages and pretrained:
        raise ValueError(f"there are no ImageNet weights of {backbone} with stages of {list(stages)} channels")
    options = {"features_only": True, **({"channels": tuple(stages)} if stages else {})}
    probe = timm.create_model(backbone, **options)
    reductions = probe.feature_info.reduction()
    missing = {4, 8, 16, 32} - set(reductions)
    if missing:
        raise ValueError(f"backbone {backbone!r} has maps at strides {reductions}; {sorted(missing)} are missing")
    indices = [probe.feature_info.out_indices[reductions.index(r)] for r in (4, 8, 16, 32)]
    options["out_indices"] = indices
    if not pretrained:
        return timm.create_model(backbone, **options)
    if pretrained is not True:
        if not Path(pretrained).is_file():
            raise FileNotFoundError(f"no ImageNet weights of {backbone} at {pretrained}")
        options["pretrained_cfg_overlay"] = {"file": str(pretrained)}
    try:
        return timm.create_model(backbone, pretrained=True, **options)
    except Exception as error:
        if pretrained is not True:
            raise ValueError(f"{pretrained} does not hold weights of {backbone} ({type(error).__name__}: {error})") from None
        raise OSError(
            f"ImageNet weights of {backbone} are neither in timm's cache nor reachable ({type(error).__name__}). "
            "Give a local file (pretrained='resnet50.safetensors') or train from scratch (pretrained=False)."
        ) from error


class VisualPyramid(nn.Module):
    """Frames to F_1 .. F_4 with C channels each, finest first.

    Shapes:
        frames: [N, 3, H, W], H and W divisible by 32, ImageNet-normalised.
        returns: four maps [N, C, H / 2^(i+1), W / 2^(i+1)], i = 1..4.
    """

    def __init__(self, backbone="resnet50", channels=256, pretrained=False, stages=None):
        super().__init__()
        self.encoder = build_encoder(backbone, pretrained, stages)
        self.project = nn.ModuleList(CBR(c, channels) for c in self.encoder.feature_info.channels())

    def forward(self, frames):
        if frames.shape[-1] % 32 or frames.shape[-2] % 32:
            raise ValueError(f"height and width must be divisible by 32, got {list(frames.shape[-2:])}")
        return [project(f) for project, f in zip(self.project, self.encoder(frames))]
