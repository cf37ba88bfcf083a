"""Confidence-Induced Masking: which tokens still need a look (paper III-D, fig. 6, eq. 7)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def confidence(logits: Tensor) -> Tensor:
    """How sure the prediction is of each pixel: [N, K, H, W] -> [N, 1, H, W] in [0.5, 1] (K = 1) or [1/K, 1].

    For K = 1 the larger of p and 1 - p with p = sigmoid(logit); for K > 1 the largest softmax probability. In float32
    at least: between 0.5 and 1, bf16 has steps of 0.004.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.shape[1] == 1:
        return torch.sigmoid(logits.abs())
    return logits.softmax(1).amax(1, keepdim=True)


class ConfidenceInducedMasking(nn.Module):
    """Keep the tokens whose prediction is not yet confident.

    Args:
        threshold: c in (0.5, 1). A pixel is confident outside (1 - c, c).

    Shapes:
        logits: [N, K, H, W]; K = 1 is sigmoid confidence, K > 1 the largest softmax probability.
        coarser: [N, 1, h, w] mask of the stage above, or None for all ones.
        returns: [N, 1, H, W], 1 = kept (not confident), never more than `coarser` upsampled.

    Raises:
        ValueError: threshold outside (0.5, 1), or batch sizes that differ.
    """

    def __init__(self, threshold: float = 0.99) -> None:
        super().__init__()
        if not 0.5 < threshold < 1:
            raise ValueError(f"threshold must lie in (0.5, 1), got {threshold}")
        self.threshold = threshold

    def forward(self, logits: Tensor, coarser: Tensor | None = None) -> Tensor:
        mask = (confidence(logits.detach()) < self.threshold).to(logits.dtype)
        if coarser is None:
            return mask
        if coarser.shape[0] != logits.shape[0]:  # len would fix the number in an exported graph
            raise ValueError(f"coarser mask is of {coarser.shape[0]} frames, logits of {logits.shape[0]}")
        return mask * F.interpolate(coarser, size=logits.shape[-2:], mode="nearest")
