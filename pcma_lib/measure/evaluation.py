"""What a model is worth: several measures by their own names, and the controls that show whether it listens."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchmetrics import Metric

from ..data.clip import collate
from ..data.controls import COMPOSED_ONLY, CONTROLS, MIXED
from .metrics import FMeasure, MarkedShare, MeanIoU, SemanticIoU


class _Heard(Dataset):
    """Each clip with its own sound, then under each control, there without frames: a clip is read and prepared once."""

    def __init__(self, dataset, controls):
        self.dataset, self.controls = dataset, controls

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        clip = self.dataset[index]
        without_frames = replace(clip, frames=clip.frames[:, :0])
        return [clip, *(self.dataset.heard_as(without_frames, index, name) for name in self.controls)]


def _collate_each(clips):
    return [collate(heard) for heard in zip(*clips)]


def _predictions(model, dataset, controls, batch_size, device, rank, world, workers, tell):
    """(None or a control, logits of O_1, batch) over this process's share of the clips, each clip in one process alone."""
    share = Subset(_Heard(dataset, controls), range(rank, len(dataset), world))
    model.eval()
    for batches in DataLoader(share, batch_size, collate_fn=_collate_each, num_workers=workers):
        frames = batches[0].frames.to(device)
        for name, batch in zip([None, *controls], batches):
            batch = replace(batch, frames=frames).to(device)
            with torch.no_grad():
                yield name, model(batch.frames, batch.log_mel, batch.valid).finest, batch
            tell(len(batch.name))


def available_controls(dataset: Dataset) -> list[str]:
    """The controls of `controls.CONTROLS` that have an answer on this data."""
    if not hasattr(dataset, "heard_as"):  # a data set of your own that gives clips alone
        return []
    composed = dataset.raw(0).objects is not None
    return [c for c in CONTROLS if composed or c not in COMPOSED_ONLY]


def binary_measures() -> dict[str, Metric]:
    """New metrics of a binary mask, by the names that `evaluate` reports."""
    return {
        "miou": MeanIoU(),
        "miou_whole_set": MeanIoU(average="set"),
        "f_measure": FMeasure(),
        "f_measure_at_half": FMeasure(threshold=0.5),
        "f_measure_whole_set": FMeasure(average="set"),
        "marked": MarkedShare(),
    }


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    batch_size: int = 8,
    controls: Sequence[str] | str = (),
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Measure a model on a data set.

    Args:
        model: an `AudioVisualModel`. dataset: not in training mode.
        controls: names from `controls.CONTROLS`, or "all" for those that this data can answer (of classes none).
        rank, world: this process and how many share the work; the metrics are then summed over all.
        progress: called after each batch with how many clips this process has done, under all sounds, and of how many.

    Returns:
        dict of floats:
        miou (per frame, as released), miou_whole_set, f_measure (as released, one clip a batch), f_measure_at_half,
        f_measure_whole_set, miou_sounding (per frame, frames with an empty truth left out), marked (share of pixels);
        semantic data: what `SemanticIoU.measures` gives, with the IoU of each class.
        And "controls", where there are any: for each marked, miou (per frame against the original truth, frames with an
        empty truth left out; for "other_object" against that object) and drop, relative to miou_sounding (not for
        "other_object").

    Raises:
        ValueError: controls by name on semantic data.
    """
    device = next(model.parameters()).device
    semantic = dataset.num_classes > 1
    if semantic and controls and controls != "all":
        raise ValueError("controls measure the mask of what sounds; this data is semantic")
    names = () if semantic else available_controls(dataset) if controls == "all" else controls
    done, total = 0, len(range(rank, len(dataset), world)) * (1 + len(names))

    def tell(clips):
        nonlocal done
        done += clips
        if progress:
            progress(done, total)

    run = (batch_size, device, rank, world, workers, tell)
    if semantic:
        metric = SemanticIoU(dataset.num_classes).to(device)
        for _, logits, batch in _predictions(model, dataset, (), *run):
            metric.update(logits, batch.masks, batch.labelled)
        classes = getattr(dataset, "classes", {})
        return {"clips": len(dataset), **metric.measures(sorted(classes, key=classes.get))}

    metrics = {None: binary_measures(), **{name: {"marked": MarkedShare()} for name in names}}
    metrics = {name: {k: m.to(device) for k, m in measures.items()} for name, measures in metrics.items()}
    sounding = {name: MeanIoU().to(device) for name in metrics}
    for name, logits, batch in _predictions(model, dataset, names, *run):
        for metric in metrics[name].values():
            metric.update(logits, batch.masks, batch.labelled)
        sounding[name].update(logits, batch.masks, batch.labelled & (batch.masks > 0).flatten(2).any(2))
    result = {"clips": len(dataset), **{k: m.compute().item() for k, m in metrics[None].items()}}
    result["miou_sounding"] = sounding[None].compute().item()

    if names:
        result["controls"] = {}
    for name in names:
        row = {"marked": metrics[name]["marked"].compute().item(), "miou": sounding[name].compute().item()}
        if name != "other_object":
            row["drop"] = 1 - row["miou"] / result["miou_sounding"] if result["miou_sounding"] else 0.0
        result["controls"][name] = row
    return result


def table(result: dict) -> str:
    """The measures and controls of `evaluate` as Markdown."""
    lines = ["| measure | value |", "| --- | --- |"]
    lines += [
        f"| {k} | {v:.3f} |" if isinstance(v, float) else f"| {k} | {v} |"
        for k, v in [*result.items(), *((f"IoU of {name}", v) for name, v in result.get("iou_of_classes", {}).items())]
        if not isinstance(v, dict)
    ]
    if "controls" in result:
        lines += ["", "| sound | pixels marked | mIoU | drop | right answer |", "| --- | --- | --- | --- | --- |"]
    for name, row in result.get("controls", {}).items():
        answer = "the original" if name in MIXED else "that object" if name == "other_object" else "nothing"
        known = "drop" in row and result.get("miou_sounding") != 0  # what marks nothing has nothing to lose
        drop = f"{row['drop']:z.0%}" if known else ""
        lines.append(f"| {name} | {row['marked']:.1%} | {row['miou']:.3f} | {drop} | {answer} |")
    return "\n".join(lines)
