"""A clip as it is stored and as the network takes it, and batches of clips."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from ..network.audio import LogMel

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@dataclass
class Clip:
    """One clip, or a batch of clips with an axis B in front.

    frames [T, 3, H, W] float, ImageNet-normalised; log_mel [T, 1, 96, 64]; masks [T, H, W] uint8, 0/1 or the class;
    labelled [T] bool, frames that have a mask; valid [T] bool, False where a batch was padded; name; category.
    """

    frames: torch.Tensor
    log_mel: torch.Tensor
    masks: torch.Tensor
    labelled: torch.Tensor
    valid: torch.Tensor
    name: str | list
    category: str | list

    def to(self, device: torch.device | str) -> "Clip":
        """The same clip on a device."""
        gpu = torch.device(device).type == "cuda"
        return self._with_tensors(lambda v: v.to(device, non_blocking=gpu))

    def pin_memory(self) -> "Clip":
        """What a `DataLoader` calls: from pinned memory a batch goes to a GPU without the processor waiting for it."""
        return self._with_tensors(torch.Tensor.pin_memory)

    def lengthened(self, seconds: int) -> "Clip":
        """A batch filled up with zeros to so many seconds, flagged like those of `collate`."""
        more = seconds - self.valid.shape[1]
        return self._with_tensors(lambda v: F.pad(v, [0, 0] * (v.ndim - 2) + [0, more])) if more else self

    def _with_tensors(self, change):
        """The same with every tensor changed."""
        return Clip(**{k: change(v) if torch.is_tensor(v) else v for k, v in vars(self).items()})


def collate(clips: list[Clip]) -> Clip:
    """Stack clips; shorter ones are padded with zeros and flagged in `valid` and `labelled`."""
    longest = max(len(c.frames) for c in clips)

    def stack(name):
        parts = [getattr(c, name) for c in clips]
        return torch.stack([F.pad(p, [0, 0] * (p.ndim - 1) + [0, longest - len(p)]) for p in parts])

    tensors = {n: stack(n) for n in ("frames", "log_mel", "masks", "labelled", "valid")}
    return Clip(**tensors, name=[c.name for c in clips], category=[c.category for c in clips])


@dataclass
class Raw:
    """A clip as stored. frames uint8 [T, H, W, 3]; masks uint8 [T, H, W]; labelled [T]; wave [T * 16000].

    Composed data also have objects (list of dicts, see `pcma_data.clip_folder`), instances uint8 [T, H, W] (0, or
    1 + object) and object_waves [objects, T * 16000], each object's sound alone.
    """

    frames: np.ndarray
    masks: np.ndarray
    labelled: np.ndarray
    wave: np.ndarray
    objects: list | None = None
    instances: np.ndarray | None = None
    object_waves: np.ndarray | None = None


@lru_cache(maxsize=1)
def _log_mel():
    return LogMel()


def log_mel_of(wave: np.ndarray, seconds: int) -> torch.Tensor:
    """A waveform [N] at 16 kHz as one log-mel example a second; a last one that is missing repeats the one before."""
    log_mel = _log_mel()(torch.from_numpy(np.ascontiguousarray(wave, np.float32)))
    if len(log_mel) < seconds:
        log_mel = torch.cat([log_mel, log_mel[-1:].expand(seconds - len(log_mel), -1, -1, -1)])
    return log_mel[:seconds]
