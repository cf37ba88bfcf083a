"""The published checkpoints: their parameters' names and ours, and their one length of clips."""

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


def released_names(state: State) -> State:
    """A published state dict by its plain names.

    What wrappers put in front (`module.`, `_orig_mod.`) is taken off, and what a profiler counted (`total_ops`,
    `total_params`) is left out.
    """
    state = {k: v for k, v in state.items() if k.rpartition(".")[2] not in ("total_ops", "total_params")}
    return {re.sub(r"^(module\.)+", "", k.replace("_orig_mod.", "")): v for k, v in state.items()}


def load_renamed(model: nn.Module, renamed: State) -> None:
    """Load parameters strictly, naming all that is wrong in one message."""
    expected = model.state_dict()
    wrong = [f"missing: {k}" for k in expected.keys() - renamed.keys()]
    wrong += [f"unexpected: {k}" for k in renamed.keys() - expected.keys()]
    for key in expected.keys() & renamed.keys():
        if expected[key].shape != renamed[key].shape:
            wrong.append(f"{key}: expected {list(expected[key].shape)}, found {list(renamed[key].shape)}")
    if wrong:
        raise ValueError("the checkpoint does not fit:\n  " + "\n  ".join(sorted(wrong)))
    model.load_state_dict(renamed)


def filled_up(compute: Callable, seconds: int, frames: Tensor, audio: Tensor, valid: Tensor | None = None) -> tuple:
    """`compute(frames, audio, valid)` of clips filled up with zeros to the published code's T, cut to their length again.

    Raises:
        ValueError: clips of more than `seconds` frames.
    """
    b, t = frames.shape[:2]
    if t > seconds:
        raise ValueError(f"this released network takes clips of at most {seconds} s, got {t} s; set seconds={t}")

    def fill(x):
        filled = x.new_zeros(b, seconds, *x.shape[2:])
        filled[:, :t] = x
        return filled

    valid = frames.new_ones(b, t, dtype=torch.bool) if valid is None else valid
    out = compute(fill(frames), fill(audio * valid[..., None]), fill(valid))
    return type(out)(*(tuple(x[:, :t] for x in part) for part in out))


_RENAME = {  # after stages have been counted from 0: avga1. is avga.0. then
    r"^resnet\.": "pyramid.encoder.",
    r"^conv\.": "pyramid.project.",
    r"^aud_fc\.(0\.)?": "audio.",
    r"^(avga\.\d)\.seq1\.": r"\1.visual.",
    r"^(avga\.\d)\.seq2\.": r"\1.out.",
    r"^(avga\.\d)\.fc\.": r"\1.audio.",
    r"^(qsca\.\d)\.aud_fc\.": r"\1.audio.",
    r"^(qsca\.\d)\.attn\.to_patch_embedding\.1\.": r"\1.visual.",
    r"^(qsca\.\d)\.attn\.transformer\.layers\.0\.0\.(fn\.)?": r"\1.",
    r"^(qsca\.\d)\.v_to_": r"\1.visual_",
    r"^(qsca\.\d)\.a_to_": r"\1.audio_",
    r"^(qsca\.\d)\.to_out\.0\.": r"\1.out.",
    r"^gf\.3\.seq1\.": "fusion.3.guide.",
    r"^gf\.(\d)\.seq1\.": r"fusion.\1.coarse.",
    r"^gf\.(\d)\.seq2\.": r"fusion.\1.guide.",
    r"^gf\.(\d)\.seq3\.": r"fusion.\1.out.",
    r"^output_conv\.(\d)\.([01])\.": r"heads.\1.0.\2.",
    r"^output_conv\.(\d)\.3\.": r"heads.\1.1.",
}
_DEAD = re.compile(r"resnet\.layer[34]_2\.|gf4\.seq2\.|(resnet|encoder_backbone)\.(fc|head)\.")  # no forward pass uses these


def rename_released(state: State, encoder: nn.Module) -> State:
    """A state dict by our names instead of the released ones, without what no released forward pass uses."""
    renamed, pvt = {}, {}
    for key, value in state.items():
        if _DEAD.match(key):
            continue
        if key.startswith("encoder_backbone."):
            pvt[key.removeprefix("encoder_backbone.")] = value
            continue
        key = re.sub(r"^(resnet\.layer[34])_1\.", r"\1.", key)
        key = re.sub(r"^([a-z_]+)([1-4])\.", lambda m: f"{m[1]}.{int(m[2]) - 1}.", key)
        for theirs, ours in _RENAME.items():
            key = re.sub(theirs, ours, key)
        renamed[key] = value
    if pvt:
        from timm.models.pvt_v2 import checkpoint_filter_fn

        for key, value in checkpoint_filter_fn(pvt, encoder).items():
            renamed["pyramid.encoder." + key.replace("stages.", "stages_", 1)] = value
    return renamed


def rename_avs(state: State, encoder: nn.Module) -> State:
    """`rename_released` for AVS, whose 1x1x1 convolutions [out, in, 1, 1, 1] are linear maps [out, in] here."""
    renamed = {}
    for key, value in rename_released(state, encoder).items():
        for theirs, ours in _RENAME_AVS.items():
            key = key.replace(theirs, ours)
        renamed[key] = value.flatten(1) if value.ndim == 5 else value
    return renamed


_RENAME_AVS = {
    ".conv2d_list.": ".", "tpavi_b.": "tpavi.", ".align_channel.": ".audio.", ".W_z.": ".out.", ".norm_layer.": ".norm.",
    "path.": "fusion.", ".resConfUnit1.": ".skip.", ".resConfUnit2.": ".out.", "output_conv.": "head.",
}  # fmt: skip
