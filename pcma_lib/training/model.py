"""The model of a training: built as a configuration says, and brought to the device."""

import warnings

import torch
from torch import nn

from ..data.files import resolve
from ..network.qsca import choose_path
from ..registry import arguments
from ..use.checkpoints import load_vggish
from ..use.model import NETWORKS, AudioVisualModel
from .config import TrainConfig


def build_model(config: TrainConfig, num_classes: int = 1, network: nn.Module | None = None) -> AudioVisualModel:
    """The model that a configuration names, with its pretrained parts; or its ears around a network that is given.

    Raises:
        FileNotFoundError: weights that are missing. ValueError: a registered network lacks an argument that is needed.
    """
    if network is not None:
        ears = ("vggish_width", "vggish_batch_norm", "train_audio", "listen")
        settings = {k: getattr(config, k) for k in ears} | config.options | {"network": network}
        if not _is_built_by(network, config.options):
            name = type(network).__name__
            warnings.warn(
                f"{name}(**config.options) is not the network that was given (options: {config.options}), so the checkpoint "
                f"will not load by itself. Say in options what you made it with; or use load(path, network={name}(...))",
                stacklevel=2,
            )
    else:
        settings = config.model_settings()
        pretrained = config.pretrained if isinstance(config.pretrained, bool) else resolve(config.pretrained)
        local = resolve("weights") / f"{config.backbone}.safetensors"  # where pcma-data weights puts them
        if pretrained is True and local.is_file():
            pretrained = local
        takes = arguments(NETWORKS.find(config.network))
        for name, value, unset in (("num_classes", num_classes, 1), ("pretrained", pretrained, False)):
            if name in takes:
                settings[name] = value
            elif value != unset:
                raise ValueError(f"the network {config.network!r} takes no {name}, which this run sets to {value}; add it")
    model = AudioVisualModel(**settings)
    if config.vggish_weights:
        path = resolve(config.vggish_weights)
        if not path.is_file():
            raise FileNotFoundError(
                f"VGGish weights {path} are missing; pcma-data weights fetches them, or set vggish_weights=None"
            )
        if config.vggish_width != 1 or config.vggish_batch_norm:
            raise ValueError(f"{path} fits the published VGGish alone; set vggish_width=1 and vggish_batch_norm=False")
        model.vggish.load_state_dict(load_vggish(path).state_dict())
    return model


def _is_built_by(network, options):
    """Whether a network's class, called with these options, has its parameters by name and shape."""
    try:
        with torch.device("meta"):
            built = type(network)(**options).state_dict()
    except Exception:  # each class has its own way to refuse options
        return False
    return {k: v.shape for k, v in built.items()} == {k: v.shape for k, v in network.state_dict().items()}


def prepare_for_speed(model: nn.Module, config: TrainConfig) -> nn.Module:
    """Channels last; and for `config.compile`, QSCA's dense path and torch.compile in one graph.

    Args:
        model: an `AudioVisualModel` or its network, on its device.
    """
    model = model.to(memory_format=torch.channels_last)
    if config.compile:
        choose_path(model, dense=True)
        model.compile(fullgraph=True)
    return model


def best_device() -> torch.device:
    """The GPU where there is one that CUDA knows (the measures are in double, which Apple's does not compute)."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def best_precision() -> str:
    """bf16 where the device computes it, not where it only imitates it; float16, whose loss is scaled, on older GPUs."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "no"
