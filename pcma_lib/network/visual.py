"""Visual features of four sizes: a timm encoder and a CBR to C channels each (paper III-A)."""

import copy
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import FeatureInfo
from torch import Tensor, nn

from ..registry import Registry
from .layers import CBR

# Encoders of your own beside timm's. The class is called with `pretrained`, its `channels` are four numbers, and it returns
# four maps with that many channels, at strides 4, 8, 16 and 32.
ENCODERS = Registry("backbone", "network.visual")
register_encoder = ENCODERS.register


def build_encoder(backbone: str, pretrained: bool | str = False, stages: Sequence[int] | None = None) -> nn.Module:
    """A timm encoder that returns its maps at strides 4, 8, 16 and 32.

    Args:
        backbone: name of any timm model with `features_only` and these four strides, also with a tag (resnet18.a1_in1k).
        pretrained: True loads ImageNet weights through timm (from its cache or the hub); a string is the path of a
            local weight file in timm's or torchvision's names.
        stages: channels of a ResNet's four stages, to make it narrower than published; only from scratch.

    Raises:
        ValueError: unknown name, strides that do not fit, stages together with pretrained, a file of other weights.
        OSError: weights that are not there or can't be fetched.
    """
    if backbone in ENCODERS:
        encoder = ENCODERS[backbone](pretrained=pretrained)
        levels = [{"num_chs": c, "reduction": r, "module": ""} for c, r in zip(encoder.channels, (4, 8, 16, 32))]
        encoder.feature_info = FeatureInfo(levels, (0, 1, 2, 3))
        encoder.pretrained_cfg = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD, "input_size": (3, 224, 224)}
        return encoder
    if backbone not in {*timm.list_models(), *timm.list_pretrained()}:
        raise ValueError(
            f"backbone {backbone!r} is not a timm model; timm.list_models() names them. One of your own is known once the "
            f"module of its class, with @register_encoder({backbone!r}), is imported: {', '.join(ENCODERS) or 'none yet'}"
        )
    if stages and pretrained:
        raise ValueError(f"there are no ImageNet weights of {backbone} with stages of {list(stages)} channels")
    options = {"features_only": True, **({"channels": tuple(stages)} if stages else {})}
    probe = timm.create_model(backbone, **options)
    reductions = probe.feature_info.reduction()
    if missing := {4, 8, 16, 32} - set(reductions):
        raise ValueError(f"backbone {backbone!r} has maps at strides {reductions}; {sorted(missing)} are missing")
    options["out_indices"] = [probe.feature_info.out_indices[reductions.index(r)] for r in (4, 8, 16, 32)]
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
            "`pcma-data weights` fetches those of the presets. Or give a local file (pretrained='resnet50.safetensors'), or "
            "train from scratch (pretrained=False)."
        ) from error


def fixed_size(encoder: nn.Module) -> tuple[int, int] | None:
    """The one picture size (H, W) that an encoder takes, or None for those that take any."""
    size = encoder.pretrained_cfg["input_size"][-2:]
    if not encoder.pretrained_cfg.get("fixed_input_size"):
        return None
    try:  # timm says so of some that do take others
        copy.deepcopy(encoder).to("meta")(torch.empty(1, 3, 96, 96, device="meta"))
    except Exception:  # each encoder has its own way to fail
        return tuple(size)


class VisualPyramid(nn.Module):
    """Frames to F_1 .. F_4 with C channels each, finest first.

    An encoder whose weights expect another normalisation gets the frames brought to it.

    Shapes:
        frames: [N, 3, H, W], H and W divisible by 32, ImageNet-normalised.
        returns: four maps [N, C, H / 2^(i+1), W / 2^(i+1)], i = 1..4.

    Raises:
        ValueError: height or width that do not divide, or that the encoder does not take.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        channels: int = 256,
        pretrained: bool | str = False,
        stages: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = build_encoder(backbone, pretrained, stages)
        self.backbone, self.size = backbone, fixed_size(self.encoder)
        self.channels_last = getattr(self.encoder, "output_fmt", None) == "NHWC"
        self.project = nn.ModuleList(CBR(c, channels) for c in self.encoder.feature_info.channels())
        mean, std = self.encoder.pretrained_cfg["mean"], self.encoder.pretrained_cfg["std"]
        scale = shift = None
        if (*mean, *std) != (*IMAGENET_DEFAULT_MEAN, *IMAGENET_DEFAULT_STD):
            scale = torch.tensor([ours / theirs for ours, theirs in zip(IMAGENET_DEFAULT_STD, std)]).view(3, 1, 1)
            shift = torch.tensor([(m - n) / s for m, n, s in zip(IMAGENET_DEFAULT_MEAN, mean, std)]).view(3, 1, 1)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, frames: Tensor) -> list[Tensor]:
        size = tuple(frames.shape[-2:])
        if size[0] % 32 or size[1] % 32:
            raise ValueError(f"height and width must be divisible by 32, got {list(size)}")
        if self.size and size != self.size:
            height, width = self.size
            raise ValueError(
                f"the encoder {self.backbone} takes pictures of {height} x {width} pixels alone, got {size[0]} x {size[1]}; "
                f"set image_size={height}, or take another encoder"
            )
        if self.scale is not None:
            frames = frames * self.scale + self.shift
        maps = self.encoder(frames)
        if self.channels_last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        return [project(f) for project, f in zip(self.project, maps)]
