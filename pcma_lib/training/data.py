"""The data of a training: the set that a configuration names, and which clips a step takes."""

from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..data.avsbench import DATASETS
from ..data.clip import Clip, collate
from ..data.files import resolve
from ..registry import arguments, call
from .config import TrainConfig
from .progress import Progress


def open_dataset(config: TrainConfig, split: str, **options: Any) -> Dataset:
    """The data set that a configuration names, with those of the settings that its class takes.

    Raises:
        ValueError: the configuration asks for what a data set of its own kind does not give.
    """
    kind = DATASETS.find(config.dataset)
    options = {"image_size": config.image_size, "cache": config.cache, "seed": config.seed, **options}
    if "semantic" in arguments(kind):
        options["semantic"] = config.semantic
    elif config.semantic:
        raise ValueError(f"the data set {config.dataset!r} takes no argument semantic; add it, or set semantic=False")
    return call(kind, resolve(config.data), split, **options)


def clip_names(dataset: Dataset) -> list[str]:
    """The names of a data set's clips; their numbers where it has no `name(index)`."""
    return [dataset.name(i) if hasattr(dataset, "name") else str(i) for i in range(len(dataset))]


def read_all(dataset: Dataset, progress: bool) -> None:
    """Read every clip once, for a data set that keeps what it has read."""
    with Progress(f"reading {dataset.split}", "clip", progress) as shown:
        for index in range(len(dataset)):
            dataset.raw(index)
            shown.at(index + 1, len(dataset))


def batches(clips: int, config: TrainConfig, epoch: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """The clips of each step of an epoch, the same whatever the number of processes.

    Step b takes the b-th piece of a permutation drawn from (seed, epoch), and this process its part of that piece. An
    incomplete last piece is dropped.

    Raises:
        ValueError: a step that can't be split evenly over the processes and its parts.
    """
    order = torch.randperm(clips, generator=torch.Generator().manual_seed(config.seed * 100_003 + epoch)).tolist()
    size = min(config.batch_size, clips)
    if size % (world * config.accumulate):
        raise ValueError(f"a step of {size} clips can't be split over {world} processes x {config.accumulate} parts")
    pieces = [order[step * size : (step + 1) * size] for step in range(clips // size)]
    return [piece[rank::world] for piece in pieces]


def _in_parts(clips: list[Clip], parts: int) -> list[Clip]:
    return [collate(clips[part::parts]) for part in range(parts)]


class Steps(Sampler):
    """For each step from `start` on, this process's clips as (epoch, whether foreign sounds have begun, number)."""

    def __init__(self, clips: int, config: TrainConfig, start: int, total: int, rank: int, world: int) -> None:
        self.clips, self.config, self.start, self.total, self.share = clips, config, start, total, (rank, world)

    def __len__(self):
        return self.total - self.start

    def __iter__(self):
        for step in range(self.start, self.total):
            epoch, done = divmod(step, steps_of_epoch(self.clips, self.config))
            if step == self.start or not done:
                pieces = batches(self.clips, self.config, epoch, *self.share)
            late = step - done >= self.config.negative_after * self.total
            yield [(epoch, late, clip) for clip in pieces[done]]


class _Told(Dataset):
    """A training split that hears with each clip which epoch it is, in whichever process it is read."""

    def __init__(self, dataset, config):
        self.dataset, self.config, self.now = dataset, config, None

    def __getitem__(self, place):
        *now, index = place
        if now != self.now:
            begin_epoch(self.dataset, self.config, *now)
            self.now = now
        return self.dataset[index]


def steps_of_epoch(clips: int, config: TrainConfig) -> int:
    """How many steps an epoch of so many clips has."""
    return max(1, clips // config.batch_size)


def load(
    dataset: Dataset, config: TrainConfig, start: int, total: int, rank: int = 0, world: int = 1, pin: bool = False
) -> DataLoader:
    """A loader that gives, for each step from `start` to `total`, this process's clips in `config.accumulate` batches.

    Workers live as long as the training, and read ahead over the ends of epochs.
    """
    if config.negative_audio and not hasattr(dataset, "negative_audio"):
        raise ValueError(f"{type(dataset).__name__} has no negative_audio; set negative_audio=0")
    return DataLoader(
        _Told(dataset, config),
        batch_sampler=Steps(len(dataset), config, start, total, rank, world),
        collate_fn=partial(_in_parts, parts=config.accumulate),
        num_workers=config.workers,
        pin_memory=pin,
    )


def check_clips(dataset: Dataset) -> None:
    """Raises TypeError where a data set lacks what training and measuring ask of it."""
    if lacking := [n for n in ("__len__", "__getitem__", "num_classes") if not hasattr(dataset, n)]:
        raise TypeError(
            f"{type(dataset).__name__} has no {', '.join(lacking)}; a data set gives a Clip for each number below its "
            "length, and its num_classes is 1 for masks of what sounds"
        )


def begin_epoch(dataset: Dataset, config: TrainConfig, epoch: int, late: bool) -> None:
    """Tell a training split which epoch begins, so that what it leaves to chance is drawn anew.

    Args:
        late: whether the share `config.negative_after` of the training has passed.
    """
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)
    if config.negative_audio:
        dataset.negative_audio = config.negative_audio if late else 0.0
