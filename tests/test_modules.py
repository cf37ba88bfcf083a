import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from pcma_lib import AVGA, QSCA, ConfidenceInducedMasking


def test_avga_equals_a_loop_over_pixels_and_groups():
    module = AVGA(16, 4).eval()
    visual, audio = torch.randn(2, 16, 3, 3), torch.randn(2, 16)
    grouped = module.visual(visual)
    sound = module.audio(audio)
    out = torch.zeros_like(grouped)
    for n in range(2):
        for group in range(4):
            for y in range(3):
                for x in range(3):
                    pixel = grouped[n, 4 * group : 4 * group + 4, y, x]
                    cosine = torch.cosine_similarity(pixel, sound[n], dim=0, eps=1e-12)
                    out[n, 4 * group : 4 * group + 4, y, x] = cosine * pixel
    assert_close(module(visual, audio), module.out(out), atol=1e-5, rtol=1e-4)


def naive_qsca(module, visual, audio, mask):
    """Token by token and head by head, for one clip: visual [T, C, s, s], audio [T, C], mask [T, 1, s, s]."""
    t, c, s, _ = visual.shape
    d = c // module.heads
    tokens = torch.stack([module.visual(visual[k, :, y, x]) for k in range(t) for y in range(s) for x in range(s)])
    sounds = module.audio(audio)

    def attend(query, keys, values):
        heads = []
        for h in range(module.heads):
            part = slice(h * d, (h + 1) * d)
            weights = torch.softmax(keys[:, part] @ query[part] / d**0.5, 0)
            heads.append(weights @ values[:, part])
        return torch.cat(heads)

    vn, an = module.norm(tokens), module.norm(sounds)
    aq, ak, av = module.audio_qkv(an).chunk(3, -1)
    vk, vv = module.visual_kv(vn).chunk(2, -1)
    heard = torch.stack([sounds[k] + module.out(attend(aq[k], vk, vv)) for k in range(t)])
    seen = []
    for n, chosen in enumerate(mask.flatten()):
        change = module.out(attend(module.visual_q(vn[n]), ak, av)) if chosen else module.out.bias
        seen.append(tokens[n] + change)
    return torch.stack(seen).reshape(t, s, s, c).permute(0, 3, 1, 2), heard


def test_qsca_equals_attention_token_by_token():
    module = QSCA(8, 2, grid=3)
    visual, audio = torch.randn(2, 2, 8, 3, 3), torch.randn(2, 2, 8)
    mask = (torch.rand(2, 2, 1, 3, 3) > 0.5).float()
    guide, heard = module(visual, audio, mask)
    for n in range(2):
        expected_guide, expected_heard = naive_qsca(module, visual[n], audio[n], mask[n])
        assert_close(guide[n], expected_guide, atol=1e-5, rtol=1e-4)
        assert_close(heard[n], expected_heard, atol=1e-5, rtol=1e-4)


def test_all_tokens_selected_equals_no_mask_and_none_selected_works():
    module = QSCA(8, 2)
    visual, audio = torch.randn(1, 2, 8, 4, 4), torch.randn(1, 2, 8)
    everything = module(visual, audio, torch.ones(1, 2, 1, 4, 4))[0]
    assert_close(everything, module(visual, audio)[0], atol=1e-5, rtol=1e-4)
    assert module(visual, audio, torch.zeros(1, 2, 1, 4, 4))[0].isfinite().all()


def test_gradient_reaches_selected_queries_and_not_in_the_released_form():
    for as_released in (False, True):
        module = QSCA(8, 2, as_released=as_released)
        mask = torch.ones(1, 2, 1, 4, 4)
        module(torch.randn(1, 2, 8, 4, 4), torch.randn(1, 2, 8), mask)[0].sum().backward()
        trained = module.visual_q.weight.grad is not None and module.visual_q.weight.grad.abs().sum() > 0
        assert trained != as_released


def test_padding_changes_nothing_for_the_valid_seconds():
    module = QSCA(8, 2)
    visual, audio = torch.randn(1, 3, 8, 4, 4), torch.randn(1, 3, 8)
    guide, heard = module(visual, audio, valid=torch.tensor([[True, True, False]]))
    short_guide, short_heard = module(visual[:, :2], audio[:, :2])
    assert_close(guide[:, :2], short_guide, atol=1e-5, rtol=1e-4)
    assert_close(heard[:, :2], short_heard, atol=1e-5, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.55, 0.99), st.integers(1, 4), st.integers(0, 1000))
def test_masks_never_grow_towards_fine_stages(threshold, classes, seed):
    torch.manual_seed(seed)
    cim = ConfidenceInducedMasking(threshold)
    coarse = cim(torch.randn(2, classes, 3, 3) * 5)
    fine = cim(torch.randn(2, classes, 6, 6) * 5, coarse)
    up = coarse.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert (fine <= up).all()


def test_a_pixel_is_kept_between_one_minus_c_and_c():
    logits = torch.logit(torch.tensor([0.05, 0.2, 0.5, 0.8, 0.95])).view(1, 1, 1, 5)
    assert ConfidenceInducedMasking(0.9)(logits).flatten().tolist() == [0, 1, 1, 1, 0]
    logits = torch.tensor([-4.625, -4.5, 4.5, 4.625], dtype=torch.bfloat16).view(1, 1, 1, 4)  # 0.9903 and 0.989
    assert ConfidenceInducedMasking(0.99)(logits).flatten().tolist() == [0, 1, 1, 0]
    with pytest.raises(ValueError, match="threshold"):
        ConfidenceInducedMasking(0.4)
