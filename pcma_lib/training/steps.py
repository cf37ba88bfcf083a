"""One step of a training: its gradients, and what the optimiser does with them (paper V-B)."""

import math
import warnings
from collections.abc import Iterable
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..data.clip import Clip
from ..losses import segmentation_loss
from .config import TrainConfig

KEPT = ("kept_3", "kept_2", "kept_1")  # M_3, M_2, M_1


def make_optimizer(config: TrainConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that a `TrainConfig` asks for, over these parameters. Norms and biases are not decayed."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    matrices, vectors = [], []
    for parameter in parameters:
        (matrices if parameter.ndim > 1 else vectors).append(parameter)
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    gpu = any(p.is_cuda for p in matrices)
    return kind([g for g in groups if g["params"]], lr=config.learning_rate, fused=True, capturable=gpu)


def share_of_rate(config: TrainConfig, step: int, total: int) -> float:
    """What the learning rate is multiplied by at a step."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup_steps) / max(1, total - config.warmup_steps)))


class TrainStep:
    """Changes a model step by step; on a GPU, steps of a shape seen often are replayed as a CUDA graph.

    A graph holds a whole step: both networks, the loss, its gradients and the optimiser. Replaying it spares the processor
    the launching of some thousand kernels, for which a GPU would wait at the paper's batch of four. Steps of another shape,
    several parts or processes, and scaled float16 run kernel by kernel.

    Args:
        model: as `accelerator.prepare` gave it. optimizer: likewise. capture: None takes graphs wherever they are possible.
    """

    EAGER, GRAPHS = 3, 4  # steps of a shape before its graph is made, which also warm up; graphs that are kept

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig, accelerator: Accelerator,
        capture: bool | None = None,
    ) -> None:  # fmt: skip
        self.model, self.optimizer, self.config, self.accelerator = model, optimizer, config, accelerator
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        possible = accelerator.device.type == "cuda" and accelerator.num_processes == config.accumulate == 1
        self.capture = possible and accelerator.scaler is None if capture is None else capture
        self.seen, self.graphs, self.pool = {}, {}, None

    def __call__(self, parts: list[Clip], rate: float) -> dict[str, float]:
        """Change the model by one step. Returns its loss, the share of tokens that each mask keeps, and the gradient's norm.

        Raises:
            FloatingPointError: a loss or a gradient that is not finite, with the clips; the model is unchanged.
        """
        graph = self._graph(parts)
        norm, loss, *kept = graph(parts[0], rate) if graph else self._eager(parts, rate)
        if graph:
            self._refuse(norm, loss, parts)
        return {"loss": loss, **dict(zip(KEPT, kept)), "learning_rate": rate, "gradient_norm": norm}

    def _graph(self, parts):
        """The graph for a step's clips, None where they are to go kernel by kernel."""
        part = parts[0]
        if not self.capture or not part.valid.all():
            return None
        shape = (*part.frames.shape, *part.labelled.flatten().tolist())
        self.seen[shape] = self.seen.get(shape, 0) + 1
        if shape not in self.graphs and self.seen[shape] > self.EAGER:
            if len(self.graphs) == self.GRAPHS:
                del self.graphs[next(iter(self.graphs))]  # the oldest makes room
            try:
                self.graphs[shape] = CapturedStep(self, part)
            except RuntimeError as error:
                warnings.warn(
                    f"training goes on kernel by kernel, because this network can't be captured: {error}", stacklevel=4
                )
                self.capture = False
        return self.graphs.get(shape)

    def _eager(self, parts, rate):
        parts, shares, seconds = self._weighed(parts)
        measured = []
        for part, share in zip(parts, shares):
            joined = part is parts[-1]  # gradients of several processes meet once a step
            with nullcontext() if joined else self.accelerator.no_sync(self.model):
                measured.append(self.backward(part.to(self.accelerator.device), part.labelled, share, seconds))
        measured = torch.stack(measured)
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.config.clip_gradients or math.inf)
        means = self.accelerator.reduce(measured.mean(0), "mean")
        norm, loss, *kept = torch.stack([norm, *means]).tolist()  # on one GPU the step's one wait
        scaled = self.accelerator.scaler is not None  # skips by itself the gradients that its scale made too large
        self._refuse(0.0 if scaled else norm, loss, parts)
        self._set_rate(rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm, loss, *kept

    def _refuse(self, norm, loss, parts):
        if not math.isfinite(loss + norm):
            what = f"the gradient's norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
            raise FloatingPointError(what, ", ".join(name for part in parts for name in part.name))

    def _set_rate(self, rate):
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def backward(self, batch: Clip, labelled: Tensor, share: float, seconds: float, places: Tensor | None = None) -> Tensor:
        """Adds a part's gradients. Returns its loss, and of each mask the share kept, as they count in the step's means; nan
        without masks.

        Args:
            labelled: of the batch, on the CPU. places: of the labelled frames, on the GPU, so that nothing is sent there.
        """
        with self.accelerator.autocast():
            out = self.model(batch.frames, batch.log_mel, batch.valid)
        stages, masks = out.stages, batch.masks
        if places is not None:
            *stages, masks = (x.flatten(0, 1)[places].unsqueeze(0) for x in (*stages, masks))
            labelled = labelled[labelled].unsqueeze(0)
        loss = segmentation_loss(stages, masks, labelled, self.config.stage_weights) * share
        self.accelerator.backward(loss / self.config.accumulate)
        kept = [(m.mean((2, 3, 4)) * batch.valid).sum() / seconds for m in out.masks]
        if len(kept) != len(KEPT):  # AVS has no masks
            kept = [loss.new_full((), math.nan)] * len(KEPT)
        return torch.stack([loss.detach(), *kept])

    def _weighed(self, parts):
        """The parts of a step, all as long as the longest of any process; what the mean over each one's labelled frames
        counts in the step, 1 where all parts have as many; and the valid frames of a part, in the mean over the step."""
        of_all = torch.tensor([[p.labelled.sum(), p.valid.sum(), p.valid.shape[1]] for p in parts])
        if self.accelerator.num_processes > 1:
            of_all = self.accelerator.gather(of_all.to(self.accelerator.device)).cpu()
        labelled, valid, _ = of_all.double().mean(0).clamp(min=1 / len(of_all)).tolist()
        return (
            [p.lengthened(int(of_all[:, 2].max())) for p in parts],
            [int(p.labelled.sum()) / labelled for p in parts],
            valid,
        )


class CapturedStep:
    """A step on clips of one shape as a CUDA graph."""

    def __init__(self, step: TrainStep, part: Clip) -> None:
        device = step.accelerator.device
        self.optimizer = getattr(step.optimizer, "optimizer", step.optimizer)
        self.batch, self.rate = part.to(device), torch.zeros((), device=device)
        places = None if part.labelled.all() else part.labelled.flatten().nonzero().squeeze(1).to(device)
        step.optimizer.zero_grad(set_to_none=True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        torch.cuda.synchronize(device)
        self.graph = torch.cuda.CUDAGraph()
        step.pool = step.pool or torch.cuda.graph_pool_handle()  # graphs share their memory: none needs another's values
        try:
            # the thread that pins batches goes on meanwhile
            with torch.cuda.graph(self.graph, pool=step.pool, capture_error_mode="thread_local"):
                self._step(step, part, places)
        except RuntimeError:
            step.pool = None  # what a broken capture leaves can't be used again
            raise
        finally:
            self.optimizer.found_inf = None
            step.optimizer.zero_grad(set_to_none=True)

    def _step(self, step, part, places):
        measured = step.backward(self.batch, part.labelled, 1.0, part.valid.numel(), places)
        norm = nn.utils.clip_grad_norm_(step.parameters, step.config.clip_gradients or math.inf)
        self.optimizer.found_inf = (~torch.isfinite(norm + measured[0])).float()  # then the optimiser changes nothing
        self.optimizer.step()
        self.measured = torch.cat([norm[None], measured])

    def __call__(self, part, rate):
        for held, new in (
            (self.batch.frames, part.frames),
            (self.batch.log_mel, part.log_mel),
            (self.batch.masks, part.masks),
        ):
            held.copy_(new, non_blocking=True)
        self.rate.fill_(rate)
        self.graph.replay()
        return self.measured.tolist()
