"""Solutions to the exercises of lesson 13."""

import torch
import torch.nn.functional as F


def computed_tiles(rows, columns):
    # The ring adds one tile on each side, and its corners belong to it.
    return (rows + 2) * (columns + 2)


def left_of(head, before, active, computed):
    # All but stage 1 stays. The head needs its own tile alone, and what stands before it needs the ring too.
    return 1 - head - before + head * active + before * computed


def doubt_of(logits):
    # A pixel is on an outline where its neighbourhood holds both answers.
    marked = (logits > 0).float()
    outline = F.max_pool2d(marked, 3, 1, 1) != -F.max_pool2d(-marked, 3, 1, 1)
    p = logits.sigmoid()
    return outline | (torch.maximum(p, 1 - p) <= 0.99)


def to_compute(active):
    # The errors lie along the borders of the active tiles, where a convolution reads a neighbour that was not computed.
    # The largest value in a 3 x 3 neighbourhood is 1 as soon as one tile in it is active.
    return F.max_pool2d(active.float(), 3, 1, 1) > 0
