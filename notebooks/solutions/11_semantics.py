"""Solutions of lesson 11."""

import torch


def largest_loss(c):
    # The loss falls with the probability of the true class, so it is largest where that is just c.
    return -torch.log(torch.tensor(c))


def class_of(red, green, blue):
    # Bit 7 - n of red, green and blue is bit 3n, 3n + 1 and 3n + 2 of the class.
    j = 0
    for bit in range(8):
        for channel, value in enumerate((red, green, blue)):
            j |= (value >> (7 - bit) & 1) << (3 * bit + channel)
    return j


def class_iou(counts, k):
    # Row and column share the cell on the diagonal, so the union would count it twice.
    return counts[k, k] / (counts[k].sum() + counts[:, k].sum() - counts[k, k])


def without_background(ious):
    # The background is class 0, the first and not the last. Classes that did not occur are nan.
    return ious[1:].nanmean()
