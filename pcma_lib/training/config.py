"""Everything that a training run is told, and the settings that have names."""

import dataclasses
import json
import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ..registry import arguments

REGISTRIES = {  # what the package brings, and where a name that is none of these may have been registered
    "dataset": (("s4", "ms3", "avss"), "..data.avsbench"),
    "network": (("pcmanet", "avs"), "..use.model"),
}


@dataclass
class TrainConfig:
    """Settings of a run; `TrainConfig.preset(name)` gives the named ones, keyword arguments change them."""

    # data
    dataset: str = "avss"  # layout: "s4", "ms3" or "avss" (which composed data use too), or a registered one
    data: str = "data/demo"  # folder of the data, relative to the project's root or absolute
    semantic: bool = False  # True: classes (AVSS), False: a binary mask
    image_size: int = 224  # pixels, divisible by 32
    cache: bool = False  # keep decoded clips in memory
    workers: int = 4  # processes that load data; 0 loads in the training process
    negative_audio: float = 0.0  # share of training clips given muted, noise or swapped sound and an empty mask
    negative_after: float = 0.0  # share of the training without them before they begin
    remix: float = 0.0  # share of composed training clips whose sounding objects are drawn anew
    augment: bool = True  # training clips are cropped, flipped, coloured and made louder or quieter at random
    # network
    network: str = "pcmanet"  # "pcmanet", or "avs", the baseline, or a registered one
    options: dict = field(default_factory=dict)  # what a registered network takes beside the settings here
    backbone: str = "resnet50"  # a timm encoder, or a registered one
    stages: tuple | None = None  # channels of a ResNet's stages, to make it narrower than published
    pretrained: bool | str = False  # ImageNet weights through timm, or the path of a weight file
    channels: int = 256  # C
    groups: int = 8  # g of AVGA
    heads: int = 8  # attention heads of QSCA
    threshold: float = 0.99  # c of CIM
    as_released: bool | str = False  # the faults of the published code: both, or "scrambled" or "detached" alone
    without: tuple = ()  # parts of PCMANet left out, for the ablation; see PCMANet
    associative: bool = False  # AVS: its attention in the order that costs less, with equal results
    vggish_width: float = 1.0  # share of VGGish's channels
    vggish_batch_norm: bool = False  # batch norm in VGGish, for training it from scratch
    vggish_weights: str | None = None  # the released VGGish weights
    train_audio: bool = False  # train VGGish along
    pretrain: int = 0  # steps in which the eye first learns the classes of composed data
    pretrain_ear: int | None = None  # steps in which the ear does; None takes as many, none where its weights are given
    listen: bool = True  # False: vision only, the embedding is zeros
    # optimisation
    epochs: int = 15
    max_steps: int | None = None  # stop after so many steps, whatever the epochs say
    batch_size: int = 4  # clips a step, over all processes and accumulated parts
    accumulate: int = 1  # parts into which a step's clips are split
    optimizer: str = "adam"  # "adam" or "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: str = "constant"  # "constant", or "cosine" to zero
    warmup_steps: int = 0
    clip_gradients: float | None = None  # largest norm of the gradient
    stage_weights: tuple = (1.0, 1.0, 1.0, 1.0)  # lambda_1 .. lambda_4
    mixed_precision: str = "auto"  # "auto": bf16 where the device computes it, fp16 on older GPUs; "no", "bf16", "fp16"
    compile: bool = False  # torch.compile; worth its minutes at the start on a GPU
    seed: int = 0  # below 2**32
    # records
    evaluate_every: int = 1  # epochs between validations
    save_every: int = 100  # steps between resume states
    log_with: str = "tensorboard"  # a tracker that accelerate knows, such as "wandb", or "none"
    preset_name: str | None = None  # the preset that it began as; changes nothing

    def __post_init__(self):
        for setting in dataclasses.fields(self):
            name, kind, value = setting.name, setting.type, getattr(self, setting.name)
            if isinstance(value, (list, tuple)):
                value = tuple(_number(item) for item in value) if name == "stage_weights" else tuple(value)
            elif float in (kind, *typing.get_args(kind)):
                value = _number(value)
            elif name == "mixed_precision" and value is False:  # YAML's reading of no
                value = "no"
            setattr(self, name, value)
            if not any(_is(value, one) for one in typing.get_args(kind) or (kind,)):
                raise ValueError(f"{name} must be {_name(kind)}, got {value!r}")
        for name, length, kind in (("stage_weights", 4, float), ("stages", 4, int), ("without", None, str)):
            value = getattr(self, name) or ()
            if not all(_is(item, kind) for item in value) or value and length not in (None, len(value)):
                raise ValueError(f"{name} must hold {length or 'any number'} of {_name(kind)}, got {list(value)}")
        for name, allowed in {
            "optimizer": ("adam", "adamw"),
            "schedule": ("constant", "cosine"),
            "mixed_precision": ("auto", "no", "bf16", "fp16"),
        }.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        for name, (known, home) in REGISTRIES.items():
            if getattr(self, name) not in known:
                getattr(import_module(home, __package__), f"{name}s".upper()).find(getattr(self, name))
        positive = ("epochs", "batch_size", "accumulate", "evaluate_every", "save_every", "learning_rate", "image_size")
        positive += ("channels", "groups", "heads", "vggish_width")
        for name in (*positive, "max_steps", "clip_gradients"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("workers", "pretrain", "pretrain_ear", "warmup_steps", "weight_decay", "seed"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.seed >= 2**32:
            raise ValueError(f"seed must be below 2**32 ({2**32}), which is where NumPy's seeds end; got {self.seed}")
        for name in ("negative_audio", "negative_after", "remix"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, got {getattr(self, name)}")
        if self.image_size % 32:
            raise ValueError(f"image_size must be divisible by 32, got {self.image_size}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size ({self.batch_size}) must be divisible by accumulate ({self.accumulate})")

    @classmethod
    def preset(cls, name: str | None, /, **changes: Any) -> "TrainConfig":
        """A named setting with changes, and the learning rate that suits its network; None for the name takes the defaults.

        Raises:
            ValueError: no such preset or field.
        """
        if name is not None and name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; one of {', '.join(PRESETS)}")
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := set(changes) - known:
            raise ValueError(f"TrainConfig has no {', '.join(sorted(unknown))}; its fields are {', '.join(sorted(known))}")
        config = cls(**{**PRESETS.get(name, {}), "preset_name": name, **changes})
        kind = config.network if config.listen else "vision only"
        if "learning_rate" not in changes:
            rates = RATES.get(name, {})  # a registered network takes PCMANet's
            config.learning_rate = rates.get(kind, rates.get("pcmanet", config.learning_rate))
        return config

    @classmethod
    def stored(cls, settings: dict) -> "TrainConfig":
        """The settings of a config.json; what only another version knows is left out."""
        return cls(**{f.name: settings[f.name] for f in dataclasses.fields(cls) if f.name in settings})

    def model_settings(self) -> dict:
        """The arguments of `AudioVisualModel`, and of the network in it those that are settings here."""
        from ..use.model import NETWORKS

        takes = arguments(NETWORKS[self.network])
        if unknown := set(self.options) - takes:
            raise ValueError(f"options: the network {self.network!r} takes no {', '.join(sorted(unknown))}")
        takes = sorted(takes & set(vars(self)) - {"pretrained"})
        names = ["network", *takes, "vggish_width", "vggish_batch_norm", "train_audio", "listen"]
        return {n: getattr(self, n) for n in names} | self.options

    def to_dict(self) -> dict:
        """All settings, as config.json holds them."""
        settings = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}


def read_settings(items: Sequence[str]) -> dict:
    """The settings in items such as `epochs=20` or `network=avs`; what is no JSON counts as a word.

    Raises:
        ValueError: an item without `=`.
    """
    if wrong := [item for item in items if "=" not in item]:
        raise ValueError(f"settings are given as FIELD=VALUE, found {', '.join(wrong)}")
    return {k: _literal(v) for k, v in (item.split("=", 1) for item in items)}


def _literal(text):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _number(value):
    """A number that came as text: YAML reads 1e-3 as one, because it has no point."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _is(value, kind):
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _name(annotation):
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


_SMALL = dict(
    dataset="avss", image_size=96, cache=True, workers=0,
    backbone="resnet10t", channels=64, groups=2, heads=4, vggish_width=0.125, vggish_batch_norm=True,
    train_audio=True,
    optimizer="adamw", learning_rate=2e-3, weight_decay=0.02, schedule="cosine", warmup_steps=40, clip_gradients=1.0,
    batch_size=8, save_every=100, remix=0.5, pretrain=300,
)  # fmt: skip
_PAPER = dict(  # what the paper says, and where it is silent its release; docs/paper_and_code.md lists what differs
    augment=False, mixed_precision="no", backbone="resnet50.tv_in1k",  # torchvision's IMAGENET1K_V1
    image_size=224, channels=256, groups=8, threshold=0.99, pretrained=True, vggish_weights="weights/vggish.safetensors",
    optimizer="adam", learning_rate=1e-4, schedule="constant", batch_size=4, save_every=500,
)  # fmt: skip
_IMPROVED = dict(  # this project's recipe beside it, not measured on AVSBench yet
    augment=True, mixed_precision="auto", schedule="cosine", warmup_steps=100, clip_gradients=1.0,
)  # fmt: skip
RATES = {  # of those in docs/results/rates.json and stamps.json the best on the validation split, by the whole-set mIoU
    "demo": {"pcmanet": 1e-3, "avs": 5e-4, "vision only": 1e-3},
    "stamps": {"pcmanet": 5e-4, "avs": 5e-4, "vision only": 1e-3},  # vision only: not searched, that of demo
}
PRESETS = {
    "quick": dict(_SMALL, data="data/quick", image_size=64, channels=32, epochs=2, batch_size=4, warmup_steps=2, pretrain=3),
    # an eye of a quarter of the work and three quarters of C: the whole run takes 0.6 of the time
    "demo": dict(_SMALL, data="data/demo", stages=(32, 64, 128, 256), channels=48, epochs=16, evaluate_every=2),
    # the model that the package ships: a narrower encoder, more clips, in the second half some with a foreign sound
    "demo_long": dict(
        _SMALL,
        data="data/demo_long",
        image_size=128,
        groups=8,
        stages=(64, 128, 192, 256),
        epochs=20,
        evaluate_every=2,
        pretrain=600,
        negative_audio=0.15,
        negative_after=0.5,
    ),
    # 48 classes: an eye that has seen ImageNet, and an ear that is wider and learns for longer; an hour on two cores
    "stamps": dict(
        _SMALL,
        data="data/stamps",
        image_size=128,
        backbone="tf_efficientnet_lite0",
        pretrained=True,
        vggish_width=0.25,
        epochs=5,
        pretrain=200,
        pretrain_ear=1500,
    ),
    "s4": dict(_PAPER, dataset="s4", data="data/AVSBench/Single-source", epochs=15),
    "ms3": dict(_PAPER, dataset="ms3", data="data/AVSBench/Multi-sources", epochs=30),
    "avss": dict(_PAPER, dataset="avss", data="data/AVSBench/AVSBench-semantic", semantic=True, epochs=60),
}
PRESETS |= {f"{name}_improved": {**PRESETS[name], **_IMPROVED} for name in ("s4", "ms3", "avss")}
