"""Solutions of lesson 09."""

import math


def seeds_needed(d, sd):
    # d = 2 sd sqrt(2 / n) gives n = 8 (sd / d)^2. Rounding first keeps 4.0000000001 from becoming 5.
    return math.ceil(round(8 * (sd / d) ** 2, 9))


def lands(k, m, n, C):
    # The number stands at place k * C + m of the list, and the reshape reads the list in rows of n.
    return [(k * C + m) // n, (k * C + m) % n]


def progressive(masks):
    # Every mask is multiplied by the doubled one before it, which has been treated already.
    for i in range(1, len(masks)):
        masks[i] = masks[i] * masks[i - 1].repeat_interleave(2, 0).repeat_interleave(2, 1)
    return masks[-1]


def scatter_of(runs):
    # Only seeds of the same row differ by chance alone. Variances can be averaged, standard deviations cannot.
    return runs.var(1).mean().sqrt()
