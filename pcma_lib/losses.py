"""Supervision (paper IV, eqs. 8 to 11)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .network.layers import resize


def iou_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - IoU of the probabilities, for each picture, averaged (eq. 9, with the released code's +1 above and below).

    Shapes:
        logits: [N, 1, H, W]; target: [N, 1, H, W] of 0 and 1. Returns a scalar.
    """
    probability = logits.sigmoid()
    intersection = (probability * target).sum((1, 2, 3))
    union = (probability + target - probability * target).sum((1, 2, 3))
    return (1 - (intersection + 1) / (union + 1)).mean()


def bce_iou_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy (mean over pixels, eq. 8) plus IoU loss (eq. 9): eq. 10.

    Shapes:
        logits: [N, 1, H, W]; target: [N, 1, H, W] of 0 and 1. Returns a scalar; 0 frames give 0.

    Raises:
        ValueError: shapes that differ.
    """
    if logits.shape != target.shape:
        raise ValueError(f"logits {list(logits.shape)} and target {list(target.shape)} must have one shape")
    if not len(logits):
        return logits.sum()
    target = target.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target) + iou_loss(logits, target)


def segmentation_loss(
    logits: Sequence[Tensor], target: Tensor, labelled: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """Sum over the stages (eq. 11), over the frames that have a label.

    Args:
        logits: (O_1, .., O_4), each [B, T, K, h, w] of any size: those of labelled frames are resized to the target's, in
            float32. K > 1 uses cross-entropy over the classes.
        target: [B, T, H, W] whole numbers: 0/1, or the class for K > 1.
        labelled: [B, T] bool; on the CPU a GPU need not be waited for to say how many there are.
        weights: lambda_i, one a stage.

    Returns a scalar, a mean over the labelled frames; 0 where there are none.

    Raises:
        ValueError: shapes that do not go together.
    """
    for name, given in (("target", target), *(("logits", stage) for stage in logits)):
        if given.shape[:2] != labelled.shape:
            raise ValueError(f"labelled {list(labelled.shape)} and {name} {list(given.shape)} are not of the same frames")
    chosen = labelled.flatten().nonzero().squeeze(1)
    some = len(chosen) < labelled.numel()
    chosen = chosen.to(target.device, non_blocking=target.is_cuda) if some else slice(None)
    truth = target.flatten(0, 1)[chosen]
    total = logits[0].new_zeros(())
    for weight, stage in zip(weights, logits):
        predicted = stage.flatten(0, 1)[chosen].to(torch.promote_types(stage.dtype, torch.float32))
        predicted = resize(predicted, truth.shape[-2:])
        if predicted.shape[1] == 1:
            total = total + weight * bce_iou_loss(predicted, (truth > 0).unsqueeze(1).float())
        else:
            total = total + weight * (F.cross_entropy(predicted, truth.long()) if len(truth) else predicted.sum())
    return total
