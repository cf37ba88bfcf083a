"""What a `TrainConfig` stands for: the data, the model, its optimiser and schedule, and the clips of each step."""

import math

import torch

from ..data.avsbench import DATASETS
from ..data.files import resolve
from ..network.qsca import choose_path
from ..use.checkpoints import load_vggish
from ..use.model import AudioVisualModel


class EpochBatches:
    """The clips of each step, the same whatever the number of processes: step b takes the b-th piece of a permutation
    drawn from (seed, epoch), and this process its part of that piece. An incomplete last piece is dropped.

    Iterating gives lists of indices, `accumulate` lists a step, from step `start` on.
    """

    def __init__(self, clips, config, epoch, start=0, rank=0, world=1):
        order = torch.randperm(clips, generator=torch.Generator().manual_seed(config.seed * 100_003 + epoch)).tolist()
        size = min(config.batch_size, clips)
        parts = world * config.accumulate
        if size % parts:
            raise ValueError(f"a step of {size} clips can't be split over {world} processes x {config.accumulate} parts")
        self.batches = []
        for step in range(start, clips // size):
            piece = order[step * size : (step + 1) * size]
            mine = piece[rank::world]
            self.batches += [mine[a :: config.accumulate] for a in range(config.accumulate)]

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


def open_dataset(config, split, **options):
    """The data set that a configuration names."""
    kind = DATASETS[config.dataset]
    options = {"image_size": config.image_size, "cache": config.cache, "seed": config.seed, **options}
    return kind(resolve(config.data), split, semantic=config.semantic, **options)


def build_model(config, num_classes=1):
    """The model that a configuration names, with its pretrained parts."""
    pretrained = config.pretrained if isinstance(config.pretrained, bool) else resolve(config.pretrained)
    local = resolve("weights") / f"{config.backbone}.safetensors"  # where pcma-data weights puts them
    if pretrained is True and local.is_file():
        pretrained = local
    model = AudioVisualModel(**config.model_settings(), num_classes=num_classes, pretrained=pretrained)
    if config.vggish_weights:
        path = resolve(config.vggish_weights)
        if not path.is_file():
            raise FileNotFoundError(
                f"VGGish weights {path} are missing; pcma-data weights fetches them, or set vggish_weights=None"
            )
        model.vggish.load_state_dict(load_vggish(path).state_dict())
    return model


def prepare_for_speed(model, config):
    """Channels last; and for `config.compile`, QSCA's dense path and torch.compile in one graph.

    Args:
        model: an `AudioVisualModel` or its network, on its device.
    """
    model = model.to(memory_format=torch.channels_last)
    if config.compile:
        choose_path(model, dense=True)
        model.compile(fullgraph=True)
    return model


def make_optimizer(config, parameters):
    """The optimiser that a `TrainConfig` asks for, over these parameters."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


def share_of_rate(config, step, total):
    """What the learning rate is multiplied by at a step."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup_steps) / max(1, total - config.warmup_steps)))


def best_device():
    """The GPU where there is one that CUDA knows (the measures are in double, which Apple's does not compute)."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def best_precision():
    """bf16 where the device computes it, not where it only imitates it."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "no"
