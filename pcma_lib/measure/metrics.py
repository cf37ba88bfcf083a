"""How well the masks fit: mIoU and F-measure as AVSBench's code defines them, and what else goes by those names.

Every metric is a sum over clips, so the result depends neither on the batch size nor on the number of processes.
"""

from typing import Any

import torch
from torchmetrics import Metric

BETA2 = 0.3
THRESHOLDS = 255


def _clips(logits, target, labelled):
    """One clip after another as logits [T, K, H, W], target [T, H, W] and weights [T], 1 for a labelled frame and else 0.

    Frames are weighed, not picked, and nothing here asks for a value: a GPU is not waited for.
    """
    if logits.ndim == 4:  # one clip's frames
        logits = logits[None]
        target = target[None]
        labelled = None if labelled is None else labelled[None]
    if target.ndim == 5:
        target = target.squeeze(2)
    if logits.shape[:2] != target.shape[:2] or logits.shape[-2:] != target.shape[-2:]:
        raise ValueError(f"logits {list(logits.shape)} and target {list(target.shape)} do not go together")
    weights = target.new_ones(target.shape[:2]) if labelled is None else labelled.to(target.device)
    yield from zip(logits.detach().float(), target, weights.double())


def _mean(values, weights):
    return (values * weights).sum() / weights.sum().clamp(min=1)


class _ClipMetric(Metric):
    """Shared by the binary metrics below.

    Shapes of update(logits, target, labelled=None):
        logits: [B, T, 1, H, W], or [T, 1, H, W] for one clip; target alike, or without the channel axis; 0 and 1.
        labelled: [B, T] bool, the frames that count; None counts all.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def compute(self):
        return (self.total / self.count).max().float()  # of FMeasure's curve; one value is its own maximum


class MeanIoU(_ClipMetric):
    """Intersection over union at probability 0.5.

    average="frame" (as released): a mean over a clip's frames, then over clips. A frame whose truth is empty scores
    the IoU of the background, that is the share of its pixels that were rightly left unmarked.
    average="set": all intersections over all unions of the whole set; empty frames add their false pixels to the union.
    """

    def __init__(self, average: str = "frame", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if average not in ("frame", "set"):
            raise ValueError(f"average must be 'frame' or 'set', got {average!r}")
        self.average = average

    def update(self, logits: torch.Tensor, target: torch.Tensor, labelled: torch.Tensor | None = None) -> None:
        for clip, truth, weights in _clips(logits, target, labelled):
            predicted, truth = clip[:, 0] > 0, truth > 0
            intersection = (predicted & truth).sum((1, 2)).double()
            union = (predicted | truth).sum((1, 2)).double()
            if self.average == "set":
                self.total += (intersection * weights).sum()
                self.count += (union * weights).sum()
                continue
            empty = ~truth.flatten(1).any(1)
            pixels = truth[0].numel()
            iou = torch.where(empty, (pixels - union) / pixels, intersection / union.clamp(min=1))
            self.total += _mean(iou, weights)
            self.count += weights.any()


class FMeasure(_ClipMetric):
    """F-measure with beta^2 = 0.3 (eq. 12) over the frames whose truth is not empty.

    threshold=None (as released, one clip a batch): the curve over 255 thresholds is averaged over a clip's frames, its
    maximum is the clip's value, then a mean over clips. Clips without a counted frame are left out.
    threshold=0.5: the value at that probability, averaged the same way.
    average="set" with threshold=None: the curve averaged over all frames of the set, then its maximum.
    """

    def __init__(self, threshold: float | None = None, average: str = "clip", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if average not in ("clip", "set"):
            raise ValueError(f"average must be 'clip' or 'set', got {average!r}")
        self.threshold, self.average = threshold, average
        values = torch.linspace(0, 1 - 1e-10, THRESHOLDS) if threshold is None else torch.tensor([float(threshold)])
        self.register_buffer("thresholds", values, persistent=False)
        if average == "set":
            self.add_state("total", torch.zeros(len(values), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: torch.Tensor, target: torch.Tensor, labelled: torch.Tensor | None = None) -> None:
        for clip, truth, weights in _clips(logits, target, labelled):
            weights = weights * (truth > 0).flatten(1).any(1)
            curves = self._curves(clip[:, 0].sigmoid(), truth > 0)
            if self.average == "set":
                self.total += weights @ curves
                self.count += weights.sum()
            else:
                self.total += (weights @ curves).max() / weights.sum().clamp(min=1)
                self.count += weights.any()

    def _curves(self, probability, truth):
        """F [T, thresholds] from two histograms a frame: a pixel is marked at a threshold if its probability reaches it."""
        reached = torch.searchsorted(self.thresholds, probability.flatten(1), right=True)

        def marked(pixels):
            counts = probability.new_zeros(len(probability), len(self.thresholds) + 1, dtype=torch.float64)
            counts.scatter_add_(1, reached, pixels.flatten(1).double())
            return counts.flip(1).cumsum(1).flip(1)[:, 1:]

        hit, all_marked = marked(truth), marked(torch.ones_like(truth))
        precision, recall = hit / all_marked.clamp(min=1), hit / truth.sum((1, 2)).clamp(min=1)[:, None]
        f = (1 + BETA2) * precision * recall / (BETA2 * precision + recall)
        return f.nan_to_num(0.0)


class MarkedShare(_ClipMetric):
    """Share of all pixels that are marked (probability above 0.5): what is left when nothing should be."""

    higher_is_better = False

    def update(self, logits: torch.Tensor, target: torch.Tensor, labelled: torch.Tensor | None = None) -> None:
        for clip, _, weights in _clips(logits, target, labelled):
            self.total += _mean((clip[:, 0] > 0).double().mean((1, 2)), weights)
            self.count += weights.any()


class SemanticIoU(Metric):
    """AVSS: for each class the sum of per-frame IoU over the number of frames with it in prediction or truth.

    Shapes of update(logits, target, labelled=None): [B, T, K, H, W] and classes [B, T, H, W]; or one clip without B.
    compute(): the mean over the classes that occurred (the released code counts the others as 0). `without_background()`
    leaves out class 0 (the released code leaves out the last class instead, though index 0 is the background).

    measures(): these two; the F-measure (beta^2 = 0.3) as AVSBench's code computes it, of each class and frame from the
    pixels alone, 0 where the class is in prediction or truth only, averaged like the IoU; and the IoU over the whole set,
    all intersections of a class over all its unions, which is ours.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        for name in ("iou", "f", "frames", "intersection", "union"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: torch.Tensor, target: torch.Tensor, labelled: torch.Tensor | None = None) -> None:
        k = self.num_classes
        for clip, truth, weights in _clips(logits, target, labelled):
            pairs = truth.long().flatten(1) * k + clip.argmax(1).flatten(1)
            table = torch.zeros(len(pairs), k * k, dtype=torch.float64, device=pairs.device)
            table.scatter_add_(1, pairs, torch.ones_like(pairs, dtype=torch.float64))
            table = table.view(-1, k, k) * weights[:, None, None]  # a frame without a label has no pixels
            intersection, marked, there = table.diagonal(0, 1, 2), table.sum(1), table.sum(2)
            union = marked + there - intersection
            self.iou += (intersection / union.clamp(min=1)).sum(0)
            self.f += ((1 + BETA2) * intersection / (BETA2 * there + marked).clamp(min=BETA2)).sum(0)
            self.frames += (union > 0).sum(0)
            self.intersection += intersection.sum(0)
            self.union += union.sum(0)

    def per_class(self) -> torch.Tensor:
        """[K]; NaN for a class that occurred in no frame."""
        return (self.iou / self.frames).float()

    def compute(self) -> torch.Tensor:
        return self.per_class().nanmean()

    def without_background(self) -> torch.Tensor:
        """The mean over the classes that occurred but class 0."""
        with self.sync_context():  # torchmetrics adds up the processes' shares for compute() alone
            return self.per_class()[1:].nanmean()

    def measures(self, names: list[str] | None = None) -> dict:
        """All measures by name, and `iou_of_classes`, by the names of the classes, of those that occurred."""
        with self.sync_context():
            iou, f, whole = self.per_class(), (self.f / self.frames).float(), (self.intersection / self.union).float()
        found = {}
        for name, values in (("miou", iou), ("f_measure", f), ("miou_whole_set", whole)):
            found |= {name: values.nanmean().item(), f"{name}_without_background": values[1:].nanmean().item()}
        classes = dict(zip(names or map(str, range(self.num_classes)), iou.tolist()))
        return {**found, "iou_of_classes": {name: value for name, value in classes.items() if value == value}}
