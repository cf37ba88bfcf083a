import time

import pytest
import torch
from torch import nn

from pcma_lib import QSCA
from pcma_lib.measure.complexity import count_macs, msa_macs, paper_qsca_macs, parameters, qsca_macs, seconds_per_call


@pytest.mark.parametrize("selected", [1, 37, 80])
def test_the_formula_for_qsca_is_what_is_counted(selected):
    module = QSCA(16, 4)
    mask = torch.zeros(1, 5, 1, 4, 4)
    mask.view(-1)[:selected] = 1
    counted = count_macs(module, torch.randn(1, 5, 16, 4, 4), torch.randn(1, 5, 16), mask)
    assert counted[""] == qsca_macs(tokens=80, selected=selected, seconds=5, channels=16)


def test_self_attention_is_counted_as_equation_5():
    attention = nn.MultiheadAttention(16, 4, batch_first=True)  # in training mode, which has no fused shortcut
    x = torch.randn(1, 50, 16)
    assert count_macs(attention, x, x, x)[""] == msa_macs(50, 16)


def test_equation_6_is_between_no_token_selected_and_all():
    n, c = 100, 32
    assert paper_qsca_macs(n, 0.0, c) == msa_macs(n, c)
    assert paper_qsca_macs(n, 1.0, c) == 2 * n * c**2
    assert paper_qsca_macs(n, 0.75, c) == 2 * n * c**2 + 2 * 25 * c**2 + 2 * n * 25 * c


def test_a_convolution_and_a_linear_layer_are_counted_by_hand():
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 25, 10))
    counted = count_macs(module, torch.randn(2, 3, 5, 5))
    assert counted["0"] == 2 * 25 * 8 * 3 * 9
    assert counted["2"] == 2 * 8 * 25 * 10
    assert counted[""] == counted["0"] + counted["2"]
    assert parameters(module) == 8 * 3 * 9 + 8 + 8 * 25 * 10 + 10


def test_the_median_call_is_timed_without_the_warm_up():
    pauses = iter([0.2, 0.01, 0.01, 0.3])
    assert 0.01 <= seconds_per_call(lambda: time.sleep(next(pauses)), calls=3) < 0.2
