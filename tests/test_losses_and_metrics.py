import math

import pytest
import torch

from pcma_lib import FMeasure, MeanIoU, SemanticIoU
from pcma_lib.losses import bce_iou_loss, segmentation_loss

BIG = 20.0


def logits(mask):
    return (torch.tensor(mask, dtype=torch.float32) * 2 - 1) * BIG


def frame(mask):
    return logits(mask)[None, None]  # [1, 1, H, W], a clip of one frame


def test_loss_of_a_hand_computed_picture():
    # p = 0.5 everywhere, 4 pixels, 1 marked: BCE = ln 2; IoU = (0.5 + 1) / (0.5 * 4 + 1 - 0.5 + 1).
    target = torch.tensor([[[[1.0, 0], [0, 0]]]])
    assert bce_iou_loss(torch.zeros(1, 1, 2, 2), target).item() == pytest.approx(math.log(2) + 1 - 1.5 / 3.5)
    with pytest.raises(ValueError, match="one shape"):
        bce_iou_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2))


@pytest.mark.parametrize("classes", [1, 3])
def test_a_clips_loss_is_that_of_its_labelled_frames_each_stage_by_its_weight(classes):
    stages, target = torch.randn(2, 1, 3, classes, 4, 4), torch.randint(classes + (classes == 1), (1, 3, 4, 4))
    expected = 0
    for stage, weight in zip(stages, (2.0, 0.5)):
        seen, truth = stage[0, [0, 2]], target[0, [0, 2]]
        one = bce_iou_loss(seen, truth[:, None]) if classes == 1 else torch.nn.functional.cross_entropy(seen, truth)
        expected += weight * one
    found = segmentation_loss(stages, target, torch.tensor([[True, False, True]]), (2.0, 0.5))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "predicted, truth, iou",
    [
        ([[1, 1], [0, 0]], [[1, 0], [0, 0]], 1 / 2),
        ([[0, 0], [0, 0]], [[1, 0], [0, 0]], 0),
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]], 1),  # silence, and nothing marked
        ([[1, 0], [0, 0]], [[0, 0], [0, 0]], 3 / 4),  # the background's IoU
    ],
)
def test_iou_of_a_frame_by_hand(predicted, truth, iou):
    metric = MeanIoU()
    metric.update(frame(predicted), torch.tensor(truth)[None, None])
    assert metric.compute().item() == pytest.approx(iou)


def test_per_frame_and_whole_set_iou_differ():
    per_frame, whole = MeanIoU(), MeanIoU(average="set")
    for predicted, truth in (([[1, 1], [1, 1]], [[1, 1], [1, 1]]), ([[1, 1], [0, 0]], [[0, 1], [0, 0]])):
        for metric in (per_frame, whole):
            metric.update(frame(predicted), torch.tensor(truth)[None, None])
    assert per_frame.compute().item() == pytest.approx((1 + 1 / 2) / 2)
    assert whole.compute().item() == pytest.approx(5 / 6)


def test_f_measure_against_a_loop_over_thresholds_and_silent_clips_left_out():
    values, truth = torch.randn(3, 1, 8, 8), (torch.rand(3, 8, 8) > 0.7).int()
    truth[2] = 0
    curves = []
    for f in range(2):
        curve = []
        for threshold in torch.linspace(0, 1 - 1e-10, 255):
            marked = values[f, 0].sigmoid() >= threshold
            hit = (marked & (truth[f] > 0)).sum().item()
            precision, recall = hit / max(marked.sum().item(), 1), hit / truth[f].sum().item()
            curve.append(1.3 * precision * recall / (0.3 * precision + recall) if hit else 0.0)
        curves.append(curve)
    expected = max((a + b) / 2 for a, b in zip(*curves))
    metric = FMeasure()
    metric.update(values, truth)
    metric.update(torch.zeros(1, 1, 8, 8), torch.zeros(1, 8, 8))
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)


METRICS = [MeanIoU(), MeanIoU(average="set"), FMeasure(), FMeasure(threshold=0.5), FMeasure(average="set")]


@pytest.mark.parametrize("metric", METRICS)
def test_frames_without_a_label_are_not_measured(metric):
    values, truth = torch.randn(1, 3, 1, 8, 8), (torch.rand(1, 3, 8, 8) > 0.7).int()
    results = []
    for given in (
        (values, truth, torch.tensor([[True, False, True]])),
        (values[:, [0, 2]], truth[:, [0, 2]]),
        (values, truth),
    ):
        metric.reset()
        metric.update(*given)
        results.append(metric.compute().item())
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize("metric", METRICS)
def test_no_metric_depends_on_the_batch_size(metric):
    values, truth = torch.randn(6, 2, 1, 8, 8), (torch.rand(6, 2, 8, 8) > 0.7).int()
    results = []
    for size in (1, 2, 6):
        metric.reset()
        for start in range(0, 6, size):
            metric.update(values[start : start + size], truth[start : start + size])
        results.append(metric.compute().item())
    assert results == pytest.approx([results[0]] * 3)


def test_semantic_iou_by_hand():
    metric = SemanticIoU(3)
    predicted = torch.nn.functional.one_hot(torch.tensor([[[0, 1], [1, 1]]]), 3).permute(0, 3, 1, 2) * BIG
    metric.update(predicted.float(), torch.tensor([[[0, 0], [1, 1]]]))
    assert metric.per_class()[:2].tolist() == pytest.approx([1 / 2, 2 / 3])
    assert metric.compute().item() == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert metric.without_background().item() == pytest.approx(2 / 3)
