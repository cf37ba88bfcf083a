import numpy as np
import pytest
import torch
from tests_layouts import write_object_layout

from pcma_lib import AVSS, S4, VGGish, VisualPyramid
from pcma_lib.training.pretraining import draw_mixture, draw_picture, pretrain_ear, pretrain_eye


def test_a_picture_names_every_object_also_the_silent_ones(demo):
    data = AVSS(demo, "train", 64)
    for seed in range(5):
        frame, classes = draw_picture(data, np.random.default_rng(seed))
        assert frame.shape == (3, 64, 64)
        assert len(classes.unique()) >= 3  # the background and at least two objects


def test_tags_are_heard_in_their_seconds(demo):
    data = AVSS(demo, "train", 64)
    for seed in range(5):
        log_mel, tags = draw_mixture(data, np.random.default_rng(seed))
        assert log_mel.shape == (5, 1, 96, 64) and tags.shape == (5, 10)
        loudness = log_mel.mean((1, 2, 3))
        if tags.any(1).any() and not tags.any(1).all():
            assert loudness[tags.any(1)].mean() > loudness[~tags.any(1)].mean()


def test_ear_and_eye_learn_more_than_chance(demo):
    data = AVSS(demo, "train", 64, cache=True)
    ear = pretrain_ear(VGGish(0.125, batch_norm=True), data, 80, batch_size=8)
    eye = pretrain_eye(VisualPyramid("resnet10t", 32), data, 25, batch_size=16)
    assert ear > 0.55 and eye > 0.2  # chance: 0.5 and at most 0.1


def test_an_ear_that_the_training_leaves_alone_learns_beforehand_and_is_frozen_again(demo):
    ear = VGGish(0.125, batch_norm=True).requires_grad_(False)
    before = next(ear.parameters()).clone()
    pretrain_ear(ear, AVSS(demo, "train", 64, cache=True), 2, batch_size=2)
    assert not torch.equal(next(ear.parameters()), before) and not any(p.requires_grad for p in ear.parameters())


def test_data_without_objects_are_refused(tmp_path):
    write_object_layout(tmp_path, "s4_data", True, "{name}_{k}.png")
    with pytest.raises(ValueError, match="no objects"):
        pretrain_ear(VGGish(0.125), S4(tmp_path, "train", 32), 1)
    with pytest.raises(ValueError, match="list has no objects to learn from; give pretrained weights, or pretrain=0"):
        pretrain_ear(VGGish(0.125), [], 1)
    assert torch.is_grad_enabled()
