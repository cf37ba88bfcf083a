"""Solutions of lesson 12."""

import numpy as np


def masks_of(seconds, fps):
    # Every interval that has begun gets a mask, so round up. Rounding before keeps 4.4 * 25 = 110.00000000000001 at 110.
    return int(np.ceil(round(seconds * fps, 6)))


def even(size):
    # The remainder by two is what an odd size lacks.
    return size + size % 2


def samples_of(k):
    # The last of 96 windows begins 95 steps after the first and is 400 samples long.
    start = k * 96 * 160
    return [start, start + 95 * 160 + 400]


def mono(left, right):
    # A mean 20 dB below the louder channel means that the two cancel each other out.
    mean, louder = (left + right) / 2, max(left, right, key=lambda wave: wave.square().sum())
    return mean if mean.square().sum() >= 0.01 * louder.square().sum() else louder
