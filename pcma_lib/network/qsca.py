"""Query-Selected Cross-Attention: sound and picture inform each other (paper III-C, fig. 4, eqs. 1 to 4)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import resize


class QSCA(nn.Module):
    """Audio queries attend to all visual tokens of the clip (eq. 3a), selected visual queries to its audio (eq. 3b).

    Selected tokens are gathered before their query is computed and scattered back after the output projection (or not, see
    `dense`), so the visual branch costs 2 N' C^2 + 2 N' T C for N' selected of N tokens, clip by clip.

    Args:
        channels: C. heads: attention heads, of C / heads channels each.
        grid: side of the square token grid; None takes the mask's grid, or without a mask the map's own.
        as_released: True reproduces two faults of the published code: tokens are reshaped to a map without a transpose,
            and no gradient reaches the queries of selected tokens; and attends to padded seconds, as that code does.
            "scrambled" or "detached" reproduces the first or the second fault alone.
        dense: True asks for every token and drops what was not selected, instead of gathering first. The result is the
            same for more operations, but no shape depends on the mask: it compiles to one graph, and a GPU need not
            tell how many were selected. None takes this path on a GPU alone. A traced or exported model always takes
            it, as the number of tokens that its example selected would stay in it.
        resized: False leaves the guide at the grid's size, for a `GuidedFusion` that resizes it.

    Shapes:
        visual: [B, T, C, H, W]; audio: [B, T, C].
        mask: [B, T, 1, h, w], 1 = selected; None selects every token.
        valid: [B, T] bool, False for padded seconds, which then are nobody's keys (each clip needs a valid one).
        returns: guide [B, T, C, H, W], from tokens that were pooled to the grid and resized back, and audio [B, T, C].

    Raises:
        ValueError: shapes that do not fit, heads that do not divide channels, an as_released that is not known.
    """

    def __init__(
        self,
        channels: int = 256,
        heads: int = 8,
        grid: int | None = None,
        as_released: bool | str = False,
        dense: bool | None = None,
        resized: bool = True,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels ({channels}) must be divisible by heads ({heads})")
        if as_released not in (False, True, "scrambled", "detached"):
            raise ValueError(f'as_released must be True, False, "scrambled" or "detached"; got {as_released!r}')
        self.heads, self.grid, self.as_released, self.dense, self.resized = heads, grid, as_released, dense, resized
        self.audio = nn.Linear(channels, channels)
        self.visual = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.visual_q = nn.Linear(channels, channels, bias=False)
        self.visual_kv = nn.Linear(channels, 2 * channels, bias=False)
        self.audio_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(
        self, visual: Tensor, audio: Tensor, mask: Tensor | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        b, t, c, height, width = visual.shape
        if audio.shape != (b, t, c):
            raise ValueError(f"audio must be {[b, t, c]} to go with visual {list(visual.shape)}, got {list(audio.shape)}")
        h, w = self._grid_of(visual, mask)
        tokens = self.visual(F.adaptive_avg_pool2d(visual.flatten(0, 1), (h, w)).flatten(2).mT)  # [B*T, h*w, C]
        tokens = tokens.reshape(b, t * h * w, c)
        audio = self.audio(audio)
        visual_norm, audio_norm = self.norm(tokens), self.norm(audio)
        audio_q, audio_k, audio_v = map(self._split, self.audio_qkv(audio_norm).chunk(3, dim=-1))
        audio_keys = visual_keys = None
        if valid is not None and self.as_released is not True:
            audio_keys = valid[:, None, None, :]
            visual_keys = valid.repeat_interleave(h * w, dim=1)[:, None, None, :]

        visual_k, visual_v = map(self._split, self.visual_kv(visual_norm).chunk(2, dim=-1))
        heard = F.scaled_dot_product_attention(audio_q, visual_k, visual_v, attn_mask=visual_keys)
        audio = audio + self.out(self._merge(heard))

        dense = visual.device.type == "cuda" if self.dense is None else self.dense
        dense = dense or torch.jit.is_tracing() or torch.compiler.is_exporting()
        selected, gathered = visual_norm, mask is not None and not dense
        if gathered:
            selected, index = gather_selected(visual_norm, mask.reshape(b, -1))
        query = self._split(self.visual_q(selected))
        seen = self._merge(F.scaled_dot_product_attention(query, audio_k, audio_v, attn_mask=audio_keys))
        if mask is not None and self.as_released in (True, "detached"):
            seen = seen.detach()
        # A token that was not selected gets the residual and the output bias alone, as if its attention were zero.
        change = F.linear(seen, self.out.weight)
        if gathered:
            change = scatter_selected(change, index, mask.reshape(b, -1))
        elif mask is not None:
            change = change * mask.reshape(b, -1, 1).to(change.dtype)
        tokens = tokens + self.out.bias + change

        tokens = tokens.reshape(b * t, h * w, c)
        scrambled = self.as_released in (True, "scrambled")
        maps = (tokens if scrambled else tokens.mT).reshape(b * t, c, h, w)
        return (resize(maps, (height, width)) if self.resized else maps).unflatten(0, (b, t)), audio

    def _grid_of(self, visual, mask):
        b, t, _, height, width = visual.shape
        grid = (self.grid, self.grid) if self.grid else (height, width) if mask is None else tuple(mask.shape[-2:])
        if mask is not None and mask.shape != (b, t, 1, *grid):
            raise ValueError(f"mask must be {[b, t, 1, *grid]}, got {list(mask.shape)}")
        return grid

    def _split(self, tokens):
        """[B, N, C] -> [B, heads, N, C / heads]."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _merge(self, tokens):
        """[B, heads, N, C / heads] -> [B, N, C]."""
        return tokens.transpose(1, 2).flatten(2)


def choose_path(model: nn.Module, dense: bool | None) -> None:
    """Let every `QSCA` of a model take its dense path, or gather what is selected. None lets each choose by its device."""
    for module in model.modules():
        if isinstance(module, QSCA):
            module.dense = dense


def gather_selected(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Collect each clip's selected tokens (Gather of eq. 4a).

    Clips select different numbers, so all are filled up to the largest with tokens that were not selected;
    `scatter_selected` drops those again.

    Shapes:
        tokens: [B, N, C]; mask: [B, N], nonzero = selected.
        returns: [B, n, C] and their places [B, n], n the largest number selected in any clip.
    """
    chosen = mask != 0
    count = int(chosen.sum(1).max())
    index = chosen.to(torch.uint8).topk(count, dim=1).indices
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1])), index


def scatter_selected(tokens: Tensor, index: Tensor, mask: Tensor) -> Tensor:
    """Put gathered tokens back to their places, zeros elsewhere: [B, n, C], [B, n], [B, N] -> [B, N, C]."""
    tokens = tokens * (mask != 0).gather(1, index)[..., None].to(tokens.dtype)
    out = tokens.new_zeros(*mask.shape, tokens.shape[-1])
    return out.scatter(1, index[..., None].expand_as(tokens), tokens)
