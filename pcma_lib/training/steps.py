"""One step of a training: its gradients, and what the optimiser does with them (paper V-B)."""

import math
from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import nn

from ..data.clip import Clip
from ..losses import segmentation_loss
from .config import TrainConfig

KEPT = ("kept_3", "kept_2", "kept_1")  # M_3, M_2, M_1


def make_optimizer(config: TrainConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that a `TrainConfig` asks for, over these parameters."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


def share_of_rate(config: TrainConfig, step: int, total: int) -> float:
    """What the learning rate is multiplied by at a step."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup_steps) / max(1, total - config.warmup_steps)))


def train_step(
    model: nn.Module, parts: list[Clip], optimizer: torch.optim.Optimizer, rate: float, config: TrainConfig,
    accelerator: Accelerator,
) -> dict[str, float]:  # fmt: skip
    """Change the model by one step. Returns its loss, the share of tokens that each mask keeps, and the gradient's norm.

    Raises:
        FloatingPointError: a loss or a gradient that is not finite, with the clips; the model is unchanged.
    """
    measured = _backward(model, parts, config, accelerator)
    norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_gradients or math.inf)
    means = accelerator.reduce(measured.mean(0), "mean")
    norm, loss, *kept = torch.stack([norm, *means]).tolist()  # on one GPU the step's one wait
    if not math.isfinite(loss + norm):
        what = f"the gradient's norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        raise FloatingPointError(what, ", ".join(name for part in parts for name in part.name))
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": loss, **dict(zip(KEPT, kept)), "learning_rate": rate, "gradient_norm": norm}


def _backward(model, parts, config, accelerator):
    """Adds the gradients of this process's parts of a step. Returns [parts, 4]: of each its loss, and of each mask the share
    kept, as they count in the step's means; nan without masks."""
    parts, shares, seconds = _weighed(parts, accelerator)
    measured = []
    for part, share in zip(parts, shares):
        batch = part.to(accelerator.device)
        with accelerator.autocast():
            out = model(batch.frames, batch.log_mel, batch.valid)
        loss = segmentation_loss(out.stages, batch.masks, part.labelled, config.stage_weights) * share
        accelerator.backward(loss / config.accumulate)
        kept = [(m.mean((2, 3, 4)) * batch.valid).sum() / seconds for m in out.masks]
        if len(kept) != len(KEPT):  # AVS has no masks
            kept = [loss.new_full((), math.nan)] * len(KEPT)
        measured.append(torch.stack([loss.detach(), *kept]))
    return torch.stack(measured)


def _weighed(parts, accelerator):
    """The parts of a step, all as long as the longest of any process; what the mean over each one's labelled frames counts
    in the step, 1 where all parts have as many; and the valid frames of a part, in the mean over the step."""
    counts = [[p.labelled.sum(), p.valid.sum(), p.valid.shape[1]] for p in parts]
    of_all = torch.tensor(counts)
    if accelerator.num_processes > 1:
        of_all = accelerator.gather(of_all.to(accelerator.device)).cpu()
    labelled, valid, _ = of_all.double().mean(0).clamp(min=1 / len(of_all)).tolist()
    return [p.lengthened(int(of_all[:, 2].max())) for p in parts], [int(c[0]) / labelled for c in counts], valid
