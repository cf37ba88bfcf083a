import pytest
import torch
from torch.testing import assert_close

from pcma_lib import PCMANet
from pcma_lib.measure.complexity import count_macs

PARAMETERS = {"resnet50": 43.03, "pvt_v2_b5": 94.48}  # millions: the published 65.68 and 95.07 without the dead weight
GMACS = {"resnet50": 83.96, "pvt_v2_b5": 109.2}


@torch.no_grad()
def undecided(model, *inputs):
    """A random model whose masks keep some tokens and drop others, as a trained one's do; left alone it keeps all."""
    for head, logits in zip(model.heads, model.eval()(*inputs).logits):
        head[-1].weight *= 2.5 / logits.std()
    return model


@pytest.mark.parametrize("backbone", PARAMETERS)
def test_parameters_and_operations_are_the_published_ones(backbone):
    model = PCMANet(backbone).eval()
    counted = count_macs(model, torch.randn(1, 5, 3, 224, 224), torch.randn(1, 5, 128))[""]
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(PARAMETERS[backbone], abs=0.01)
    assert counted / 1e9 == pytest.approx(GMACS[backbone], abs=0.1)


@pytest.mark.parametrize("seconds, height, width", [(1, 64, 64), (3, 96, 64), (7, 32, 160)])
def test_any_number_of_seconds_and_any_size_divisible_by_32(seconds, height, width):
    model = PCMANet("resnet18", channels=16, groups=4, heads=2).eval()
    out = model(torch.randn(2, seconds, 3, height, width), torch.randn(2, seconds, 128))
    assert [tuple(o.shape) for o in out.logits] == [(2, seconds, 1, height, width)] * 4
    assert [m.shape[-2:] for m in out.masks] == [(height // s, width // s) for s in (32, 16, 8)]


def test_clips_of_a_batch_do_not_influence_one_another():
    frames, audio = torch.randn(2, 2, 3, 64, 64), torch.randn(2, 2, 128)
    model = undecided(PCMANet("resnet18", channels=16, groups=4, heads=2), frames, audio)
    out = model(frames, audio)
    together, kept = out.logits[0], out.masks[-1].sum((1, 2, 3, 4))
    assert 0 < kept[0] != kept[1] > 0  # one clip's tokens are filled up to the other's number
    assert_close(together[1:], model(frames[1:], audio[1:]).logits[0], atol=1e-4, rtol=1e-3)


def test_a_foreign_checkpoint_is_refused_by_name():
    with pytest.raises(ValueError, match="avga4"):
        PCMANet.from_released({"conv.weight": torch.zeros(1)})


@pytest.mark.parametrize("size", [(100, 64), (64, 70)])
def test_sizes_that_do_not_divide_are_refused(size):
    with pytest.raises(ValueError, match="divisible by 32"):
        PCMANet("resnet18", channels=16, groups=4, heads=2)(torch.randn(1, 1, 3, *size), torch.randn(1, 1, 128))


def test_what_is_left_out_is_gone_and_the_rest_computes():
    frames, audio = torch.randn(1, 2, 3, 64, 64), torch.rand(1, 2, 128)
    for part, gone in (("avga", "avga"), ("qsca", "qsca")):
        model = PCMANet("resnet18", 16, groups=2, heads=2, without=(part,))
        assert not any(name.startswith(gone) for name, _ in model.named_parameters())
        out = model(frames, audio)
        assert len(out.logits) == 4 and len(out.masks) == 3
    for without, all_kept in (((), False), (("mask",), True)):
        torch.manual_seed(0)
        model = undecided(PCMANet("resnet18", 16, groups=2, heads=2, without=without), frames, audio)
        assert all(m.eq(1).all() for m in model(frames, audio).masks) == all_kept
    with pytest.raises(ValueError, match="colour"):
        PCMANet("resnet18", 16, without=("colour",))


def test_without_a_mask_all_tokens_ask_on_the_masks_grid():
    frames, audio = torch.randn(1, 2, 3, 64, 64), torch.rand(1, 2, 128)
    torch.manual_seed(0)
    model = undecided(PCMANet("resnet18", 16, groups=2, heads=2, without=("mask",)), frames, audio)
    unsure = PCMANet("resnet18", 16, groups=2, heads=2).eval()
    unsure.load_state_dict(model.state_dict())
    assert (model(frames, audio).logits[0] - unsure(frames, audio).logits[0]).abs().max() > 0.1
    unsure.cim.threshold = 2  # nothing is ever confident
    torch.testing.assert_close(model(frames, audio).logits, unsure(frames, audio).logits)


def test_without_continuity_every_qsca_hears_the_first_sound():
    heard = []
    model = PCMANet("resnet18", 16, groups=2, heads=2, without=("continuity",)).eval()
    for qsca in model.qsca:
        qsca.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[1]))
    model(torch.randn(1, 2, 3, 64, 64), torch.rand(1, 2, 128))
    assert len(heard) == 4 and all(h.equal(heard[0]) for h in heard)
