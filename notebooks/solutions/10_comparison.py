"""Solutions of lesson 10."""

import torch


def drop(own, other):
    # What is lost, as a share of what there was.
    return 1 - other / own


def noise_at_level(sound, noise):
    # Divide out the loudness of the noise, then multiply by that of the sound.
    return noise * sound.square().mean().sqrt() / noise.square().mean().sqrt()


def hears(model, frames, sound):
    # Any pixel that differs counts, because a mask can move and keep its size.
    return int((model(frames, sound) != model(frames, torch.zeros_like(sound))).any())
