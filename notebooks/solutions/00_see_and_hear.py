"""Solutions of lesson 00."""

import math


def silence():
    # Nothing is heard, so only the offset is left under the logarithm. Lesson 01 says why it is there.
    return math.log(0 + 0.01)


def overlap_of(mask, truth):
    # A product counts the pixels in both. A sum above zero counts the pixels in either.
    union = ((mask + truth) > 0).sum()
    return (mask * truth).sum() / union if union else 1.0


def heard_not_marked(raw):
    # What these seconds have in common: the source is off screen.
    heard = [any(item["sounds"][k] for item in raw.objects) for k in range(len(raw.masks))]
    return [k for k, mask in enumerate(raw.masks) if heard[k] and not mask.any()]
