"""The one clip that lessons 02 to 07 follow through the shipped model, and every tensor that it meets on the way."""

from functools import lru_cache

import torch
from torch import Tensor

from ..data.avsbench import AVSS
from ..data.clip import Clip
from ..network.qsca import QSCA
from ..use.model import AudioVisualModel
from .paths import resolve, run_script

NUMBER = 15  # a drum that is struck from second 1 on, a clock that never ticks, and a siren that is heard and not seen
FOLDER = "data/see_and_hear"


@lru_cache(maxsize=1)
def clips() -> AVSS:
    """Sixteen seeded test clips of the demo data, made on the first call. The shipped model has never seen them."""
    run_script("demo", "--out", FOLDER, "--clips", "0,0,16", "--size", "112")
    return AVSS(resolve(FOLDER), "test", image_size=model().picture_size(), cache=True)


def clip(sound: str | None = None) -> Clip:
    """The clip with its own sound, or with that of a control, such as "other_object" (see `data.controls.CONTROLS`)."""
    return (clips().with_sound(sound) if sound else clips())[NUMBER]


@lru_cache(maxsize=1)
def model() -> AudioVisualModel:
    """The shipped model, ready to look and listen. All callers share this one."""
    return AudioVisualModel.demo().eval()


@torch.no_grad()
def tensors(model: AudioVisualModel, clip: Clip) -> dict[str, Tensor]:
    """Every tensor of one forward pass of PCMANet, by the names of docs/notation.md.

    Stages are counted from 1, the finest, to 4. T seconds, C channels, g groups, K logits, h x w the map of a stage, s x s
    its grid of tokens.

    Returns:
        "E": the log-mel examples [T, 1, 96, 64]; "A": VGGish's embeddings [T, 128];
        "A_4": the sound as stage 4 hears it, [T, C], and "A_3" to "A_0", what each QSCA makes of it;
        "F_i": the encoder's maps [T, C_i, h, w]; "P_i": the pyramid [T, C, h, w]; "V_i": the aligned maps [T, C, h, w];
        "attention_i": AVGA's attention [T, g, h, w] in 0..1;
        "looks_i": where each second of sound looks (eq. 3a) [heads, T, T, s, s], sums to 1 over the last three;
        "hears_i": which second a token hears (eq. 3b) [heads, T, s, s, T], sums to 1 over the last. It is given for all
        tokens, also for those that the mask leaves out and that the network never asks;
        "G_i": the guide on its grid [T, C, s, s]; "X_i": the fused features [T, C, h, w]; "O_i": logits [T, K, h, w];
        "M_3" to "M_1": the masks that steer stage 3 to 1, [T, 1, s, s].
    """
    network, found, hooks = model.network, {"E": clip.log_mel}, []
    normed = []  # what each QSCA's norm gave: picture first, then sound

    def keep(module, name, choose=lambda given, out: out):
        hooks.append(module.register_forward_hook(lambda _, given, out: found.__setitem__(name, choose(given, out))))

    hooks.append(model.vggish.register_forward_hook(lambda _, given, out: found.__setitem__("A", out[0])))
    keep(network.audio, "A_4", lambda given, out: out[0])
    for i in range(4, 0, -1):
        avga, qsca = network.avga[i - 1], network.qsca[i - 1]
        keep(network.pyramid.project[i - 1], f"F_{i}", lambda given, out: given[0])
        keep(network.pyramid.project[i - 1], f"P_{i}")
        keep(avga, f"attention_{i}", lambda given, out, avga=avga: avga.attention(*given)[1])
        keep(avga, f"V_{i}")
        hooks.append(qsca.norm.register_forward_hook(lambda _, given, out: normed.append(out[0])))
        keep(qsca, f"G_{i}", lambda given, out: out[0][0])
        keep(qsca, f"A_{i - 1}", lambda given, out: out[1][0])
        keep(network.fusion[i - 1], f"X_{i}")
    try:
        out = model(clip.frames[None], clip.log_mel[None])
    finally:
        for hook in hooks:
            hook.remove()
    found |= {f"O_{i}": o[0] for i, o in enumerate(out.stages, 1)}
    found |= {f"M_{3 - i}": m[0] for i, m in enumerate(out.masks)}
    for i, picture, sound in zip((4, 3, 2, 1), normed[::2], normed[1::2], strict=True):
        looks, hears = _attention(network.qsca[i - 1], picture, sound)
        grid = (len(clip.frames), *found[f"G_{i}"].shape[-2:])
        found |= {f"looks_{i}": looks.unflatten(-1, grid), f"hears_{i}": hears.unflatten(1, grid)}
    return found


def _attention(qsca: QSCA, picture: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
    """The softmax of eq. 3a [heads, T, N] and of eq. 3b [heads, N, T], for normalised tokens [N, C] and [T, C]."""

    def heads(x):
        return x.unflatten(-1, (qsca.heads, -1)).transpose(0, 1)  # [heads, n, C / heads]

    sound_q, sound_k, _ = map(heads, qsca.audio_qkv(sound).chunk(3, -1))
    picture_q, picture_k = heads(qsca.visual_q(picture)), heads(qsca.visual_kv(picture).chunk(2, -1)[0])
    scale = sound_q.shape[-1] ** -0.5
    return (sound_q @ picture_k.mT * scale).softmax(-1), (picture_q @ sound_k.mT * scale).softmax(-1)
