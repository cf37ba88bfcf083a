"""The gated decoder: the finest stage computed only where O_2 leaves a doubt.

CIM's idea (paper III-D) carried from the queries of QSCA to the whole stage, in the manner of anytime dense prediction (Liu
et al., ICLR 2022, the paper's [50]). The weights are those of dense training.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network.cim import confidence
from ..network.fusion import GuidedFusion, Head
from ..network.layers import resize
from ..network.pcmanet import STAGES, PCMANet, PCMAOutput, check_frames
from ..network.qsca import QSCA
from .convolutions import TILE, TileCBR


def doubtful(logits: Tensor, confident: float = 0.99) -> Tensor:
    """Where a prediction is not to be trusted: no more confident than `confident`, or a neighbour of another class.

    Shapes:
        logits: [N, K, h, w]; returns [N, 1, h, w] bool.
    """
    label = (logits > 0 if logits.shape[1] == 1 else logits.argmax(1, keepdim=True)).float()
    outline = F.max_pool2d(label, 3, 1, 1) != -F.max_pool2d(-label, 3, 1, 1)
    return outline | (confidence(logits) <= confident)


def gate_of(model: nn.Module) -> "Gated | None":
    """The gated decoder inside a model, such as `fast` returns it; None where there is none."""
    return next((m for m in model.modules() if isinstance(m, Gated)), None)


def stage_macs(counted: dict[str, int], active: float, computed: float) -> float:
    """Multiply-accumulates of a PCMANet whose stage 1 is gated.

    Args:
        counted: those of the dense network, as `complexity.count_macs` gives them. active, computed: `Gated.shares`.
    """
    head, before = counted["heads.0"], sum(counted[f"{part}.0"] for part in ("pyramid.project", "avga", "qsca", "fusion"))
    return counted[""] - head - before + head * active + before * computed


class Gated(nn.Module):
    """A PCMANet whose stage 1 works on tiles: O_1 where `doubtful` says so of O_2, and O_2 grown elsewhere.

    A tile of 4 x 4 pixels of stage 1 is active if a pixel of O_2 in it is doubtful. On active tiles O_1 is what the dense
    network gives, because all that leads to it is computed on their neighbours, too. A call in which these are more than
    `most` of all tiles takes the dense way.

    Args:
        network: a PCMANet in evaluation mode with its batch norms folded into the convolutions, as `fast` makes it.
        confident: c, see `doubtful`; 1 makes every tile active.
        most: share of the tiles computed above which the dense stage takes less time.
        capacity: None computes the tiles that are needed. A share of all tiles computes as many at each call, half of them
            active, so that no shape depends on the picture, as a CUDA graph needs it. The most doubtful come first, and for
            the rest O_2 stays.
        minimal: wide convolutions by minimal filtering, as in `Winograd`; None on a CPU alone.

    Attributes:
        shares: over all frames so far, the share of "active" tiles, of those "computed", which are active ones and their
            neighbours, and of frames that took the "dense" way, whose tiles are all active. Empty with a capacity.

    Shapes: those of PCMANet. The masks are M_3 to M_1 as ever.

    Raises:
        ValueError: a network that is no PCMANet of standard parts, or one that reproduces the released faults.
    """

    def __init__(
        self, network: nn.Module, confident: float = 0.99, most: float = 0.85, capacity: float | None = None,
        minimal: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if type(network) is not PCMANet or type(network.qsca[0]) is not QSCA or network.qsca[0].as_released:
            raise ValueError("a gated decoder needs a PCMANet with its QSCA, and without the released code's faults")
        if type(network.fusion[0]) is not GuidedFusion or type(network.heads[0]) is not Head:
            raise ValueError("a gated decoder needs the guided fusion and the head of this package in the finest stage")
        self.network, self.confident, self.most, self.capacity = network, confident, most, capacity
        fusion = network.fusion[0]
        self.reset()
        if minimal is None:
            minimal = next(network.parameters()).device.type == "cpu"
        cbrs = network.pyramid.project[0], fusion.guide, fusion.coarse, fusion.out, network.heads[0][0]
        self.project, self.guide, self.coarse, self.out, self.head = (TileCBR(cbr, minimal) for cbr in cbrs)
        self.last = network.heads[0][1]
        self.dense_project, network.pyramid.project[0] = network.pyramid.project[0], nn.Identity()

    def forward(self, frames: Tensor, audio: Tensor, valid: Tensor | None = None) -> PCMAOutput:
        clips, net = check_frames(frames), self.network
        encoded, *maps = net.pyramid(frames.flatten(0, 1))  # what F_1 comes from, F_2 .. F_4
        known = None if valid is None else valid.reshape(-1, 1, 1, 1)
        if known is not None:
            maps = [m * known for m in maps]
        audio = net.audio(audio)
        sound = audio.flatten(0, 1)

        stages, masks, fused, mask = [], [], None, None
        for i in reversed(range(1, STAGES)):
            visual = net.avga[i](maps[i - 1], sound)
            fused, logits, audio = net.stage(i, visual, fused, audio, masks[-1] if masks else None, valid)
            mask = net.cim(logits, mask)
            stages.insert(0, logits.unflatten(0, clips))
            masks.append(mask.unflatten(0, clips))
        *tiles, active, computed = self._tiles(logits)
        if active == 0:
            finest = resize(logits, encoded.shape[-2:])
        elif self.capacity is None and computed > self.most:
            features = self.dense_project(encoded)
            visual = net.avga[0](features if known is None else features * known, sound)
            _, finest, _ = net.stage(0, visual, fused, audio, masks[-1], valid)
        else:
            finest = self._on_tiles(*tiles, encoded, known, sound, audio, masks[-1], valid, fused, logits)
        return PCMAOutput((finest.unflatten(0, clips), *stages), tuple(masks))

    def doubt(self, logits: Tensor) -> Tensor:
        """The rule of the gate, [N, K, h, w] -> [N, 1, h, w] bool; to try another one, set this attribute."""
        return doubtful(logits, self.confident)

    def reset(self) -> None:
        """Count the shares anew."""
        self.shares, self._frames = {}, 0

    @staticmethod
    def tiles_of(doubt: Tensor) -> tuple[Tensor, Tensor]:
        """The active tiles and those to compute, each [N, rows, columns] bool, of doubts [N, 1, h, w]."""
        active = F.max_pool2d(doubt.float(), TILE // 2)[:, 0] > 0
        return active, _grown(active)

    def _tiles(self, logits):
        """Active tiles and those to compute, as frame, row and column; which active ones take O_1; and both shares."""
        doubt = self.doubt(logits)
        active, near = self.tiles_of(doubt)
        if self.capacity is None:
            shares = [x.float().mean().item() for x in (active, near)]
            self._count(len(logits), *shares)
            return active.nonzero().T, near.nonzero().T, None, *shares
        count = max(1, round(self.capacity * active.numel()))
        most = F.avg_pool2d(doubt.float(), TILE // 2).flatten()
        at = most.topk(count if self.capacity >= 1 else max(1, count // 2)).indices
        active = active & _only(at, active)
        near_at = _grown(active).flatten().float().topk(count).indices
        takes = active & ~_grown(_grown(active) & ~_only(near_at, active))
        _, rows, columns = active.shape
        chosen, near = ((x // (rows * columns), x // columns % rows, x % columns) for x in (at, near_at))
        return chosen, near, takes.flatten()[at], None, self.capacity

    def _count(self, frames, active, computed):
        if dense := active > 0 and computed > self.most:
            active = computed = 1.0
        new = {"active": active, "computed": computed, "dense": float(dense)}
        self._frames += frames
        for name, share in new.items():
            before = self.shares.get(name, 0.0)
            self.shares[name] = before + (share - before) * frames / self._frames

    def _on_tiles(self, chosen, near, counts, encoded, known, sound, audio, mask, valid, fused, logits):
        net, size, small = self.network, encoded.shape[-2:], logits.shape[-2:]
        grown = _rows(resize(logits, size))
        chosen, near = _Places(chosen, size, small), _Places(near, size, small)
        visual = self.project(_rows(encoded), near.around, near.inside)  # [16, n, C]
        visual = visual.permute(1, 2, 0).unflatten(2, (TILE, TILE))  # as n small maps
        if known is not None:
            visual = visual * known[near.frame]
        visual = net.avga[0](visual, sound[near.frame])
        guide = fused.new_zeros(len(fused) * small[0] * small[1], fused.shape[1])
        guide[near.tokens.flatten()] = self._guide(visual, near, audio, mask, valid).flatten(0, 1)

        visual = visual.flatten(2).permute(2, 0, 1)
        total = visual + self.guide(guide, near.coarse, near.inside) + self.coarse(_rows(fused), near.coarse, near.inside)
        features = total.new_zeros(len(grown), total.shape[-1])
        features[near.own.flatten()] = total.flatten(0, 1)
        features[near.own.flatten()] = self.out(features, near.around, near.inside).flatten(0, 1)
        hidden = self.head(features, chosen.around, chosen.inside)
        weight = self.last.weight.flatten(1)
        found = F.linear(hidden.to(weight.dtype), weight, self.last.bias).flatten(0, 1)
        own = chosen.own.flatten()
        if counts is not None:
            found = torch.where(counts.repeat(TILE * TILE)[:, None], found, grown[own])
        grown[own] = found.to(grown.dtype)
        return grown.view(len(encoded), *size, -1).permute(0, 3, 1, 2)

    def _guide(self, visual, near, audio, mask, valid):
        """The visual half of QSCA (eq. 3b) for the tokens of some tiles: [n, C, 4, 4] -> [4, n, C]."""
        qsca, seconds = self.network.qsca[0], audio.shape[1]
        tokens = qsca.visual(F.avg_pool2d(visual, 2).flatten(2).mT)  # [n, 4, C]
        _, *heard = map(qsca._split, qsca.audio_qkv(qsca.norm(qsca.audio(audio))).chunk(3, dim=-1))
        keys, values = (x[near.frame // seconds] for x in heard)  # of each tile's clip, [n, heads, T, C / heads]
        known = None if valid is None else valid[near.frame // seconds][:, None, None, :]
        query = qsca._split(qsca.visual_q(qsca.norm(tokens)))
        change = F.linear(qsca._merge(F.scaled_dot_product_attention(query, keys, values, attn_mask=known)), qsca.out.weight)
        asked = _rows(mask.flatten(0, 1))[near.tokens].to(change.dtype)
        return (tokens + qsca.out.bias).transpose(0, 1) + asked * change.transpose(0, 1)


class _Places:
    """Where the pixels of some tiles lie: in rows of the finest maps, and of those of half their size.

    Shapes:
        tiles: frame, row and column, [n] each. own: [16, n], a tile's pixels; around, inside: [36, n] and [36, n, 1], those
        and a border, see `TileCBR`; tokens: [4, n], its pixels at half the size; coarse: [16, n], those and a border.
    """

    def __init__(self, tiles, size, small):
        self.frame, *corner = tiles
        rows, known = zip(*(_along(TILE * x, TILE, s) for x, s in zip(corner, size)))
        half, _ = zip(*(_along(TILE // 2 * x, TILE // 2, s) for x, s in zip(corner, small)))
        fine, coarse = (self._numbered(*pair, s) for pair, s in ((rows, size), (half, small)))
        self.around, self.own = fine.flatten(0, 1), fine[1:-1, 1:-1].flatten(0, 1)
        self.coarse, self.tokens = coarse.flatten(0, 1), coarse[1:-1, 1:-1].flatten(0, 1)
        self.inside = (known[0][:, None] & known[1]).flatten(0, 1)[..., None]

    def _numbered(self, rows, columns, size):
        return (self.frame * size[0] + rows[:, None]) * size[1] + columns


def _along(first, count, length):
    """Places [count + 2, n] from one before `first` on, and which lie inside; others are brought to the border."""
    places = first + torch.arange(-1, count + 1, device=first.device)[:, None]
    return places.clamp(0, length - 1), (places >= 0) & (places < length)


def _rows(maps):
    """[N, C, H, W] -> [N*H*W, C], without a copy where channels are last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _only(at, like):
    """Bool like `like`, True at some flat places."""
    return torch.zeros_like(like).flatten().index_fill(0, at, True).view_as(like)


def _grown(tiles):
    """[N, rows, columns] bool: each tile with its eight neighbours."""
    return F.max_pool2d(tiles.float()[:, None], 3, 1, 1)[:, 0] > 0
