"""Eyes and ears that arrive trained, on a small scale (paper III-A and V-B).

The paper's encoder has seen ImageNet and its VGGish has heard AudioSet before they meet. A small network that starts from
nothing needs the same, or it settles for the difference between sound and silence and marks whatever it sees. On composed
data, whose every object has a class, a mask and a sound alone, a minute of each is enough. What the two learn here says
nothing about which object sounds when: that is left to the training proper.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..data.avsbench import AVSS
from ..data.clip import log_mel_of
from ..data.controls import gate
from ..network.audio import VGGish
from ..network.visual import VisualPyramid
from .progress import Progress

RATE = 3e-3  # the highest learning rate of the cycle


def draw_mixture(dataset: AVSS, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A mixture of up to three objects' sounds from anywhere in a composed data set, as log-mel and what is heard when.

    Returns:
        log_mel [T, 1, 96, 64] and tags [T, classes] of 0 and 1 (without the background).
    """
    count = rng.choice([0, 1, 2, 3], p=[0.05, 0.45, 0.35, 0.15])
    raws = [dataset.raw(int(i)) for i in rng.integers(0, len(dataset), count)]
    length, seconds = len(dataset.raw(0).wave), len(dataset.raw(0).frames)
    wave = rng.standard_normal(length) * 10 ** (rng.uniform(-65, -45) / 20)
    tags = np.zeros((seconds, len(dataset.classes) - 1), np.float32)
    for raw in raws:
        number = int(rng.integers(len(raw.objects)))
        sounds = np.ones(seconds, int) if rng.random() < 0.4 else rng.integers(0, 2, seconds)
        wave = wave + raw.object_waves[number] * gate(sounds) * 10 ** (rng.uniform(-6, 6) / 20)
        tags[sounds > 0, dataset.classes[raw.objects[number]["class"]] - 1] = 1
    return log_mel_of(wave * 10 ** (rng.uniform(-10, 4) / 20), seconds), torch.from_numpy(tags)


def draw_picture(dataset: AVSS, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A frame of a composed data set, augmented, and the class of every pixel, whether it sounds or not.

    Returns:
        frame [3, S, S] and classes [S, S].
    """
    raw = dataset.raw(int(rng.integers(len(dataset))))
    second = int(rng.integers(len(raw.frames)))
    numbers = np.array([0] + [dataset.classes[o["class"]] for o in raw.objects], np.uint8)
    frames, masks = dataset.picture(raw.frames[second : second + 1], numbers[raw.instances[second : second + 1]], rng)
    return frames[0], masks[0].long()


def pretrain_ear(
    vggish: VGGish, dataset: AVSS, steps: int, seed: int = 0, batch_size: int = 12, progress: bool = False,
    autocast: Callable[[], AbstractContextManager] = nullcontext, workers: int = 0,
) -> float:  # fmt: skip
    """Train a VGGish to tag mixtures of a composed training split; the layer that reads its tags is thrown away.

    Args:
        vggish: changed in place, also where its parameters are frozen, which they are again afterwards.
        dataset: composed data, training split. steps: of `batch_size` mixtures.
        autocast: called for each step's context of mixed precision. workers: processes that draw the batches.

    Returns:
        balanced accuracy of the tags over the last tenth of the steps.
    """
    reader = nn.Linear(128, _classes_of(dataset) - 1)

    def loss_and_score(batch):
        log_mel, tags = batch
        logits = reader(vggish(log_mel)).float()
        hit = (logits > 0) == (tags > 0)
        score = (hit[tags > 0].float().mean() + hit[tags == 0].float().mean()) / 2
        return F.binary_cross_entropy_with_logits(logits, tags), score

    frozen = [p for p in vggish.parameters() if not p.requires_grad]
    vggish.requires_grad_(True)
    run = (dataset, steps, seed, batch_size, progress, autocast, workers)
    score = _train("ear", [vggish, reader], loss_and_score, draw_mixture, *run)
    for parameter in frozen:
        parameter.requires_grad_(False)
    return score


def pretrain_eye(
    pyramid: VisualPyramid, dataset: AVSS, steps: int, seed: int = 0, batch_size: int = 32, progress: bool = False,
    autocast: Callable[[], AbstractContextManager] = nullcontext, workers: int = 0,
) -> float:  # fmt: skip
    """Train a `VisualPyramid` to tell all objects' classes, silent ones too; the layers that read them are thrown away.

    Args:
        pyramid: changed in place. dataset: composed data, training split. steps: of `batch_size` frames.
        autocast: called for each step's context of mixed precision. workers: processes that draw the batches.

    Returns:
        share of the objects' pixels whose class is right on the finest map, over the last tenth of the steps.
    """
    channels = pyramid.project[0][0].out_channels
    classes = _classes_of(dataset)
    readers = nn.ModuleList(nn.Conv2d(channels, classes, 1) for _ in pyramid.project)
    # Most pixels are background; it weighs as much as one class.
    weight = torch.ones(classes, device=next(pyramid.parameters()).device)
    weight[0] = 0.2

    def loss_and_score(batch):
        frames, truth = batch
        loss = 0
        for reader, level in zip(readers, pyramid(frames)):
            logits = reader(level).float()
            if level.shape[-1] == frames.shape[-1] // 4:
                small = F.interpolate(truth[:, None].float(), size=level.shape[-2:], mode="nearest-exact")[:, 0].long()
                score = (logits.argmax(1) == small)[small > 0].float().mean()
            upsampled = F.interpolate(logits, size=small.shape[-2:], mode="bilinear")
            loss = loss + F.cross_entropy(upsampled, small, weight)
        return loss, score

    run = (dataset, steps, seed, batch_size, progress, autocast, workers)
    return _train("eye", [pyramid, readers], loss_and_score, draw_picture, *run)


def _classes_of(dataset):
    if not hasattr(dataset, "raw") or dataset.raw(0).objects is None:
        where = getattr(dataset, "root", type(dataset).__name__)
        raise ValueError(f"{where} has no objects to learn from; give pretrained weights, or pretrain=0")
    return len(dataset.classes)


class _Drawn(Dataset):
    """Batches by the number of their step, drawn alike in whichever process."""

    def __init__(self, dataset, draw, steps, batch_size, seed):
        self.dataset, self.draw, self.steps, self.batch_size, self.seed = dataset, draw, steps, batch_size, seed

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        rng = np.random.default_rng([*self.seed, step])
        return [torch.stack(x) for x in zip(*(self.draw(self.dataset, rng) for _ in range(self.batch_size)))]


def _train(name, modules, loss_and_score, draw, dataset, steps, seed, batch_size, progress, autocast, workers):
    """A short one-cycle run over drawn batches; the mean score over its last tenth."""
    device = next(modules[0].parameters()).device
    modules[1].to(device)
    parameters = [p for m in modules for p in m.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(2, steps))
    scores, shown = [], Progress(f"pretraining the {name}", show=progress)
    drawn = _Drawn(dataset, draw, steps, batch_size, [seed, len(name), ord(name[1])])
    for step, batch in enumerate(DataLoader(drawn, batch_size=None, num_workers=workers)):
        batch = [x.to(device) for x in batch]
        with autocast():
            loss, score = loss_and_score(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        shown.at(step + 1, steps, lambda loss=loss: f"loss {loss:.3f}")
        if step >= 0.9 * (steps - 1):
            scores.append(score.detach())
    shown.close()
    return torch.stack(scores).nanmean().item()
