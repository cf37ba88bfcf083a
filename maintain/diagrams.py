"""Draws the diagrams of the lessons: docs/diagrams/*.svg.

python maintain/diagrams.py docs/diagrams
"""

import argparse
import math
from pathlib import Path

from drawing import Drawing

LESSONS = {
    0: "See and hear", 1: "Mel and VGGish", 2: "The visual pyramid", 3: "Group attention (AVGA)",
    4: "Query-selected cross-attention (QSCA)", 5: "Confidence masks (CIM)", 6: "The whole network",
    7: "Losses and metrics", 8: "Training", 9: "Ablation", 10: "Comparison", 11: "Semantics", 12: "Your video",
    13: "The confident decoder", 14: "Your own model",
}  # fmt: skip
NOTEBOOKS = {path.name[:2]: path.name for path in (Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb")}
DRAWINGS = {}


def drawn(function):
    DRAWINGS[function.__name__] = function
    return function


def lesson(number):
    return f"../../notebooks/{NOTEBOOKS[f'{number:02d}']}" if f"{number:02d}" in NOTEBOOKS else None


def here(number):
    """A small diagram of the whole network, with the lesson's part lit."""
    parts = {  # name: x, y, lines, kind, lessons that light it
        "sound": (20, 62, ("sound",), "sound", (0, 12)),
        "mel": (140, 62, ("log-mel",), "sound", (1,)),
        "vggish": (260, 62, ("VGGish",), "sound", (1,)),
        "frames": (20, 142, ("frames",), "picture", (0, 12)),
        "encoder": (140, 142, ("encoder",), "picture", (2, 14)),
        "cbr": (260, 142, ("CBR",), "picture", (2, 13)),
        "avga": (390, 142, ("AVGA",), "picture", (3, 9, 13, 14)),
        "qsca": (520, 142, ("QSCA",), "picture", (4, 9, 13, 14)),
        "fusion": (650, 142, ("GF, head",), "picture", (11, 13, 14)),
        "cim": (585, 216, ("CIM",), "doubt", (5, 9, 11, 13, 14)),
        "mask": (790, 142, ("mask",), "sound", (0, 7, 11, 12)),
        "loss": (790, 216, ("loss",), "truth", (7, 8, 11, 14)),
    }
    whole = {6: set(parts) - {"loss"}, 8: set(parts), 10: set(parts) - {"loss"}}.get(number, set())
    lit = {name for name, part in parts.items() if number in part[4]} | whole
    d = Drawing(
        f"You are here: lesson {number:02d}, {LESSONS[number]}",
        f"A small diagram of the whole network. Lit in this lesson: {', '.join(p for p in parts if p in lit)}.",
        264,
    )
    d.text(20, 34, f"You are here: {number:02d}  {LESSONS[number]}", "head", "start")
    box = {}
    for name, (x, y, lines, kind, _) in parts.items():
        box[name] = d.box(
            x, y, 90, 36, *lines, kind=kind if name in lit else "", style="box lit" if name in lit else "dim",
            frozen=name == "vggish" and name in lit, soft="" if name in lit else "soft",
        )  # fmt: skip
    for kind, names in (
        ("sound", ("sound", "mel", "vggish")),
        ("picture", ("frames", "encoder", "cbr", "avga", "qsca", "fusion")),
    ):
        for a, b in zip(names, names[1:]):
            d.arrow(box[a].right(), box[b].left(), kind=kind)
    d.arrow(box["fusion"].right(), box["mask"].left(), kind="sound")
    d.arrow(box["vggish"].right(), (435, 80), box["avga"].top(), kind="sound")
    d.arrow((435, 80), (565, 80), box["qsca"].top(), kind="sound")
    d.arrow(box["fusion"].bottom(), (695, 234), box["cim"].right(), kind="doubt")
    d.arrow(box["cim"].left(), (565, 234), box["qsca"].bottom(), kind="doubt")
    d.arrow(box["mask"].bottom(), box["loss"].top(), kind="truth")
    return d


@drawn
def pcmanet():
    d = Drawing(
        "PCMANet, the whole network",
        "Four stages from coarse, at the top, to fine. In each stage a map of the encoder is projected, aligned with "
        "the sound by AVGA, joined with it by QSCA, fused and turned into logits. CIM tells the next stage which tokens "
        "are still in doubt.",
        856,
        1080,
    )
    d.text(24, 36, "PCMANet: four stages, coarse to fine", "head", "start")
    d.text(24, 58, "Every tensor has T = 5 seconds in front.", "soft", "start")
    d.text(24, 76, "Above an arrow: 224 px, C = 256. Below: the shipped model, 128 px, C = 64.", "soft", "start")
    sizes = {
        4: (2048, 7, 256, 4, 7, 4),
        3: (1024, 14, 192, 8, 7, 4),
        2: (512, 28, 128, 16, 14, 8),
        1: (256, 56, 64, 32, 28, 16),
    }
    sub = {0: "₀", 1: "₁", 2: "₂", 3: "₃", 4: "₄"}
    y = {4: 196, 3: 356, 2: 516, 1: 676}
    column = {"stage": (24, 84), "CBR": (208, 58), "AVGA": (384, 66), "QSCA": (556, 66), "GF": (728, 52), "head": (884, 58)}
    links = {"stage": 2, "CBR": 2, "AVGA": 3, "QSCA": 4, "GF": 6, "head": 6}
    box = {}
    sound = [
        d.box(384, 96, 76, 40, "sound", kind="sound", style="box data"),
        d.box(556, 96, 76, 40, "log-mel", kind="sound", link=lesson(1)),
        d.box(728, 96, 76, 40, "VGGish", kind="sound", frozen=True, link=lesson(1)),
        d.box(892, 96, 70, 40, "Linear", kind="sound", link=lesson(1)),
    ]
    for a, b, top, low in zip(sound, sound[1:], ("80 000", "E: 96×64", "A: 128"), ("samples", "", "")):
        d.arrow(a.right(), b.left(), kind="sound", label=top)
        d.text((a.right()[0] + b.x) / 2, 132, low, "soft") if low else None
    bus = 366
    d.arrow(sound[3].bottom(), (927, 166), (bus, 166), (bus, y[1] + 34), kind="sound", head=False)
    d.text(480, 159, "A₄: 256 (64)")
    d.text(66, 188, "encoder", "soft")
    for i in (4, 3, 2, 1):
        wide, side, narrow, small, grid, tiny = sizes[i]
        for name, (x, w) in column.items():
            d_kind = "picture"
            title = f"stage {i}" if name == "stage" else name
            box[name, i] = d.box(x, y[i], w, 44, title, kind=d_kind, link=lesson(links[name]))
        big, low = f"256×{side}×{side}", f"64×{small}×{small}"
        guide, guide_low = f"256×{grid}×{grid}", f"64×{tiny}×{tiny}"
        names = list(column)
        labels = {
            "stage": (f"F{sub[i]}", f"{wide}×{side}×{side}", f"{narrow}×{small}×{small}"), "CBR": (f"P{sub[i]}", big, low),
            "AVGA": (f"V{sub[i]}", big, low), "QSCA": (f"G{sub[i]}", guide, guide_low), "GF": (f"X{sub[i]}", big, low),
        }  # fmt: skip
        for a, b in zip(names, names[1:]):
            start, end = box[a, i].right(), box[b, i].left()
            left = -11 if a == "CBR" else 0  # of the sound's line
            d.arrow(start, end, kind="picture", label=labels[a][:2], shift=(left, -7))
            d.text((start[0] + end[0]) / 2 + left, start[1] + 18, labels[a][2], "soft")
        d.arrow((bus, y[i] + 34), (384, y[i] + 34), kind="sound")
        d.arrow(box["head", i].right(), (1036, y[i] + 22), kind="sound", label=(f"O{sub[i]}", f"1×{side}×{side}"))
        d.text(989, y[i] + 40, f"1×{small}×{small}", "soft")
        d.arrow(box["AVGA", i].bottom(0.75), (433, y[i] + 66), (744, y[i] + 66), box["GF", i].bottom(0.3), kind="picture")
    d.arrow((589, 166), box["QSCA", 4].top(), kind="sound")
    for i in (4, 3, 2):
        side, small, grid = sizes[i][1], sizes[i][3], y[i] + 110
        d.arrow(box["QSCA", i].bottom(0.25), box["QSCA", i - 1].top(0.25), kind="sound")
        d.text(560, grid - 14, f"A{sub[i - 1]}: 256", "", "end")
        d.text(560, grid + 4, "64", "soft", "end")
        d.arrow(box["GF", i].bottom(0.75), box["GF", i - 1].top(0.75), kind="picture")
        d.text(776, grid + 30, f"X{sub[i]}", "", "start")
        cim = d.box(884, grid - 30, 58, 40, "CIM", kind="doubt", link=lesson(5))
        d.arrow(box["head", i].bottom(), cim.top(), kind="sound")
        d.arrow(cim.left(), (605, grid - 10), box["QSCA", i - 1].top(0.75), kind="doubt")
        d.text(690, grid - 16, f"M{sub[i - 1]}: 1×{side}×{side}", "")
        d.text(690, grid + 6, f"1×{small}×{small}", "soft")
        if i > 2:
            down, into = (1052, cim.right(0.75)[1]), (1052, grid + 140)
            d.arrow(cim.right(0.75), down, into, (942, grid + 140), kind="doubt")
            d.text(997, grid + 16, f"M{sub[i - 1]}")
    frames = d.box(24, 786, 84, 44, "frames", kind="picture", style="box data")
    d.arrow(frames.top(), box["stage", 1].bottom(), kind="picture")
    d.text(74, 762, "3×224×224", "", "start")
    d.text(74, 779, "3×128×128", "soft", "start")
    for i in (1, 2, 3):
        d.arrow(box["stage", i].top(), box["stage", i + 1].bottom(), kind="picture")
    d.box(860, 786, 184, 48, "resize, sigmoid: mask", "1×224×224 (1×128×128)", kind="sound", style="box data")
    d.arrow(box["head", 1].bottom(), (913, 786), kind="sound")
    d.text(140, 806, "Orange: sound, and what it marks. Blue: picture. Magenta: in doubt. Hatched: frozen.", "soft", "start")
    d.text(
        140,
        826,
        "The shipped model trains a small VGGish of its own. Each O is resized likewise for its loss.",
        "soft",
        "start",
    )
    return d


@drawn
def task():
    d = Drawing(
        "The task: mark the pixels of what sounds",
        "One frame meets three sounds. Where the bell sounds the mask shows the bell, where the drum sounds it shows "
        "the drum, and in silence the mask is empty.",
        392,
    )

    def scene(x, y, sounding=None):
        d.shape(f'<rect class="picture box" x="{x}" y="{y}" width="170" height="86" rx="6"/>')
        for name, path in (
            ("bell", f"M{x + 24} {y + 64}c10 -8 4 -42 24 -42s14 34 24 42z"),
            ("drum", f"M{x + 100} {y + 32}v26c0 12 48 12 48 0v-26c0 -12 -48 -12 -48 0c0 12 48 12 48 0"),
        ):
            look = 'class="box sounds solid-sound"' if name == sounding else 'class="box to-plain" fill="none"'
            d.shape(f'<path {look} d="{path}"/>')

    d.text(20, 36, "One frame, three sounds, three masks", "head", "start")
    for x, head in ((110, "sound"), (450, "frame"), (790, "mask")):
        d.text(x, 66, head, "soft")
    scene(365, 78)
    net = d.box(375, 214, 150, 154, "PCMANet", "looks and listens")
    d.arrow((450, 164), net.top(), kind="picture")
    waves = {"bell": (30, 22, 15, 10, 6, 4, 2, 1), "drum": (30, 4, 1, 28, 4, 1, 26, 3), "silence": (0,) * 8}
    for row, (name, steps) in enumerate(waves.items()):
        y, into = 78 + 100 * row, 237 + 42 * row
        box = d.box(40, y, 140, 86, kind="sound", style="box data")
        path = "".join(f"M{56 + 15 * k} {y + 36 - h}v{2 * h + 1}" for k, h in enumerate(steps))
        d.shape(f'<path class="to-sound" stroke-width="5" d="{path}"/>')
        d.text(110, y + 80, name, "soft")
        bend = (300 - 30 * row, into)
        d.arrow(box.right(), (bend[0], y + 43), bend, (375, into), kind="sound")
        d.arrow((525, into), (900 - bend[0], into), (900 - bend[0], y + 43), (705, y + 43), kind="sound")
        scene(705, y, name)
    return d


@drawn
def mel_and_vggish():
    d = Drawing(
        "From sound to one vector a second: log-mel and VGGish",
        "The waveform is cut into slices, each becomes a spectrum, 64 mel bands gather it, the logarithm is cut into "
        "examples, and VGGish turns each example into 128 numbers.",
        452,
    )
    d.text(20, 36, "From sound to one vector a second", "head", "start")
    d.text(20, 57, "Five seconds at 16 kHz. Shapes are below each step.", "soft", "start")
    steps = (
        ("sound", "80 000", "samples"), ("slices", "400 long", "every 160"), ("FFT, |·|", "512 points", "magnitude"),
        ("× W_mel", "64 triangles", "125–7500 Hz"), ("log", "of mel", "+ 0.01"), ("cut", "96 slices", "last 0.96 s"),
    )  # fmt: skip
    shapes = ("", "498×400", "S: 498×257", "498×64", "498×64", "E: 5×1×96×64")
    boxes = [
        d.box(20 + 148 * k, 82, 112, 66, *s, kind="sound", style="box data" if k == 0 else "box")
        for k, s in enumerate(steps)
    ]
    for a, b in zip(boxes, boxes[1:]):
        d.arrow(a.right(), b.left(), kind="sound")
    for box, shape in zip(boxes[1:], shapes[1:]):
        d.text(box.x + 56, 168, shape)
    d.text(20, 222, "VGGish, frozen in the paper", "head", "start")
    d.text(20, 243, "For each example. All convolutions are 3×3 with ReLU. Each pool halves both sides.", "soft", "start")
    stack = (
        ("conv 64", "pool", "64×48×32"), ("conv 128", "pool", "128×24×16"), ("2 conv 256", "pool", "256×12×8"),
        ("2 conv 512", "pool", "512×6×4"), ("flatten", "h, w, c", "12 288"),
        ("linear", "2 × 4096", "4096"), ("linear", "128", "A: 128"),
    )  # fmt: skip
    row = [d.box(20 + 126 * k, 272, 100, 52, *s[:2], kind="sound", frozen=True) for k, s in enumerate(stack)]
    for a, b in zip(row, row[1:]):
        d.arrow(a.right(), b.left(), kind="sound")
    d.arrow((826, 174), (826, 256), (70, 256), row[0].top(), kind="sound")
    for box, s in zip(row, stack):
        d.text(box.x + 50, 344, s[2])
    d.box(700, 380, 176, 52, "Linear, trained", "A₄: C numbers", kind="sound")
    d.arrow((826, 350), (826, 380), kind="sound")
    d.text(684, 402, "A Linear layer turns the 128 numbers of each second into C numbers.", "soft", "end")
    d.text(684, 421, "C is 256 in the paper and 64 in the shipped model.", "soft", "end")
    return d


@drawn
def pyramid():
    d = Drawing(
        "The visual pyramid",
        "The encoder's four stages give maps at a quarter to a thirty-second of the frame's side. A CBR brings each to "
        "C channels.",
        452,
    )
    d.text(20, 36, "The visual pyramid", "head", "start")
    d.text(20, 57, "ResNet-50 at 224 px. In brackets the shipped model at 128 px.", "soft", "start")
    frame = d.box(24, 180, 104, 104, "frame", "3×224×224", "(3×128×128)", kind="picture", style="box data")
    rows = (
        ("stage 1", "F₁: 256×56×56", "(64×32×32)", "P₁: 256×56×56", "(64×32×32)", "stride 4"),
        ("stage 2", "F₂: 512×28×28", "(128×16×16)", "P₂: 256×28×28", "(64×16×16)", "stride 8"),
        ("stage 3", "F₃: 1024×14×14", "(192×8×8)", "P₃: 256×14×14", "(64×8×8)", "stride 16"),
        ("stage 4", "F₄: 2048×7×7", "(256×4×4)", "P₄: 256×7×7", "(64×4×4)", "stride 32"),
    )
    before = None
    for k, (name, f, f_demo, p, p_demo, stride) in enumerate(rows):
        y = 84 + 92 * k
        stage = d.box(196, y, 108, 52, name, stride, kind="picture")
        if before:
            d.arrow(before.bottom(), stage.top(), kind="picture")
        before = stage
        cbr = d.box(470, y, 110, 52, "CBR", "3×3 to C", kind="picture")
        d.arrow(stage.right(), cbr.left(), kind="picture", label=f)
        d.text(387, y + 46, f_demo, "soft")
        side = (64, 44, 28, 16)[k]
        tile = d.grid(800 - side / 2, y + 26 - side / 2, side, (8, 4, 2, 1)[k])
        d.arrow(cbr.right(), (tile.x - 6, y + 26), kind="picture")
        d.text(668, y + 19, p)
        d.text(668, y + 46, p_demo, "soft")
    d.arrow(frame.top(), (76, 110), (196, 110), kind="picture")
    d.text(24, 316, "CBR: convolution,", "soft", "start")
    d.text(24, 334, "batch norm, ReLU", "soft", "start")
    return d


@drawn
def avga():
    d = Drawing(
        "AVGA, audio-visual group attention",
        "The map is cut into g groups of channels. In each, the cosine with the sound at every pixel gives an attention "
        "map, which multiplies the group. The groups are joined and mixed.",
        436,
    )
    d.text(20, 36, "AVGA: where does the picture agree with the sound?", "head", "start")
    d.text(20, 57, "One stage, one second. Here g = 4 groups. The paper has 8.", "soft", "start")
    p = d.box(24, 163, 96, 52, "P", "C×h×w", kind="picture", style="box data")
    cbr = d.box(154, 163, 110, 52, "CBR 1×1", "in g groups", kind="picture")
    a = d.box(24, 342, 96, 52, "A₄", "C", kind="sound", style="box data")
    one = d.box(154, 342, 90, 52, "Linear", "C to C", kind="sound")
    two = d.box(272, 342, 110, 52, "Linear, ReLU", "C to C/g", kind="sound")
    unit = d.box(416, 342, 96, 52, "length 1", "C/g", kind="sound", style="box")
    d.arrow(p.right(), cbr.left(), kind="picture")
    for x, b in ((a, one), (one, two), (two, unit)):
        d.arrow(x.right(), b.left(), kind="sound")
    groups, maps, products = [], [], []
    for k in range(4):
        y = 82 + 58 * k
        groups.append(d.box(312, y, 76, 40, "C/g×h×w", kind="picture", style="box data", soft="soft"))
        maps.append(d.box(448, y, 84, 40, "cosine", kind="sound"))
        products.append(d.box(594, y, 48, 40, "×", kind="plain"))
        d.arrow(cbr.right(), (288, 189), (288, y + 20), groups[k].left(), kind="picture")
        d.arrow(groups[k].right(), maps[k].left(), kind="picture")
        d.arrow(maps[k].right(), products[k].left(), kind="sound", label="h×w")
        d.arrow(
            groups[k].bottom(0.8), (groups[k].bottom(0.8)[0], y + 49), (618, y + 49), products[k].bottom(), kind="picture"
        )
    d.arrow(unit.top(0.2), (435, 318), (435, 102), kind="sound", head=False)
    for k in range(4):
        d.arrow((435, 82 + 58 * k + 30), (448, 82 + 58 * k + 30), kind="sound")
    join = d.box(686, 134, 84, 110, "join", "C×h×w", kind="plain")
    for k in range(4):
        d.arrow(products[k].right(), (664, 102 + 58 * k), (664, 150 + 26 * k), (686, 150 + 26 * k), kind="picture")
    out = d.box(794, 163, 90, 52, "CBR 1×1", "mixes", kind="picture")
    d.arrow(join.right(), out.left(), kind="picture")
    v = d.box(794, 255, 90, 52, "V", "C×h×w", kind="picture", style="box data")
    d.arrow(out.bottom(), v.top(), kind="picture")
    d.text(540, 362, "Both sides passed a ReLU, so each cosine", "soft", "start")
    d.text(540, 381, "lies between 0 and 1. It is the attention", "soft", "start")
    d.text(540, 400, "of its group. The group itself keeps its length.", "soft", "start")
    return d


@drawn
def qsca():
    d = Drawing(
        "QSCA, query-selected cross-attention, one stage of one clip",
        "The map is pooled to tokens. Selected tokens are gathered and ask the sound, eq. 3b. The sound asks all "
        "tokens, eq. 3a. The answers are scattered back and added. Tokens that were not selected pass by.",
        520,
    )
    d.text(20, 36, "QSCA: the sound asks all tokens, tokens in doubt ask the sound", "head", "start")
    d.text(
        20,
        57,
        "One stage of one clip with T seconds and s × s tokens a second: N = T·s·s tokens, N' of them selected.",
        "soft",
        "start",
    )
    v = d.box(24, 110, 92, 52, "V", "T×C×h×w", kind="picture", style="box data")
    pool = d.box(148, 110, 120, 52, "pool, Linear", "tokens N×C", kind="picture")
    gather = d.box(316, 110, 110, 52, "gather", "N'×C", kind="doubt")
    see = d.box(470, 110, 170, 52, "tokens ask: eq. 3b", "N' queries, T keys", kind="picture")
    scatter = d.box(684, 110, 100, 52, "scatter", "N×C", kind="doubt")
    plus = d.box(822, 116, 40, 40, "+", kind="plain")
    d.arrow(v.right(), pool.left(), kind="picture")
    d.arrow(pool.right(), gather.left(), kind="picture")
    d.arrow(gather.right(), see.left(), kind="doubt", label="Q", shift=(0, -7))
    d.arrow(see.right(), scatter.left(), kind="doubt")
    d.arrow(scatter.right(), plus.left(), kind="picture")
    d.arrow(pool.top(), (208, 84), (842, 84), plus.top(), kind="picture")
    d.text(525, 78, "all N tokens pass by (residual)", "soft")
    mask = d.grid(326, 206, 90, 6, [(1, 2), (1, 3), (2, 1), (3, 1), (2, 4), (3, 4), (4, 2), (4, 3)])
    d.arrow(mask.top(), gather.bottom(), kind="doubt")
    d.text(430, 226, "M: a magenta cell", "", "start")
    d.text(430, 244, "is in doubt and asks", "soft", "start")
    a = d.box(24, 376, 92, 52, "A", "T×C", kind="sound", style="box data")
    lin = d.box(148, 376, 120, 52, "Linear", "T×C", kind="sound")
    hear = d.box(470, 376, 170, 52, "sound asks: eq. 3a", "T queries, N keys", kind="sound")
    plus_a = d.box(714, 382, 40, 40, "+", kind="plain")
    out_a = d.box(792, 376, 92, 52, "next A", "T×C", kind="sound", style="box data")
    d.arrow(a.right(), lin.left(), kind="sound")
    d.arrow(lin.right(), hear.left(), kind="sound", label="Q", shift=(0, -7))
    d.arrow(hear.right(), plus_a.left(), kind="sound")
    d.arrow(plus_a.right(), out_a.left(), kind="sound")
    d.arrow(lin.bottom(), (208, 458), (734, 458), plus_a.bottom(), kind="sound")
    d.text(470, 476, "residual", "soft")
    d.arrow(lin.top(0.8), (244, 330), (600, 330), see.bottom(0.765), kind="sound")
    d.text(608, 300, "keys and values T×C", "", "start")
    d.arrow(pool.bottom(0.6), (220, 352), (520, 352), hear.top(0.294), kind="picture")
    d.text(228, 186, "keys and", "", "start")
    d.text(228, 203, "values", "", "start")
    d.text(228, 220, "N×C", "", "start")
    g = d.box(796, 206, 92, 52, "G", "T×C×s×s", kind="picture", style="box data")
    d.arrow(plus.bottom(), g.top(), kind="picture")
    d.text(
        24,
        504,
        "Not drawn: the heads, the norm that both sides share, and the output Linear after each attention.",
        "soft",
        "start",
    )
    return d


@drawn
def cim():
    d = Drawing(
        "CIM, confidence-induced masking",
        "The logits of a stage become probabilities. Where the network is not sure the switch gives 1. "
        "The product with the coarser mask, grown, keeps what was settled settled.",
        470,
    )
    d.text(20, 36, "CIM: which tokens are still in doubt?", "head", "start")
    o = d.box(24, 76, 96, 52, "O", "1×h×w", kind="sound", style="box data")
    sig = d.box(160, 76, 110, 52, "sigmoid", "p: 0 to 1", kind="plain")
    switch = d.box(310, 76, 190, 52, "switch", "1 where 1−c < p < c", kind="doubt")
    times = d.box(560, 82, 40, 40, "×", kind="plain")
    out = d.box(660, 76, 170, 52, "M, the mask", "1×h×w", kind="doubt", style="box data")
    up = d.box(495, 168, 170, 52, "grow", "each cell becomes 2×2", kind="plain")
    coarse = d.box(310, 168, 130, 52, "coarser mask", "1×h/2×w/2", kind="doubt", style="box data")
    for a, b, kind in (
        (o, sig, "sound"),
        (sig, switch, "sound"),
        (switch, times, "doubt"),
        (times, out, "doubt"),
        (coarse, up, "doubt"),
    ):
        d.arrow(a.right(), b.left(), kind=kind)
    d.arrow(up.top(), times.bottom(), kind="doubt")
    d.text(24, 268, "Once settled, always settled: doubt shrinks towards the outline, here in green", "head", "start")
    centre, radius = (6.4, 7.1), 3.6  # of an object, in cells of the finest grid

    def edge(cells):
        """Cells through which the outline of the object passes."""
        size = 12 / cells
        for row in range(cells):
            for column in range(cells):
                corners = [((row + i) * size, (column + j) * size) for i in (0, 0.5, 1) for j in (0, 0.5, 1)]
                far = [math.hypot(y - centre[0], x - centre[1]) for y, x in corners]
                if min(far) < radius < max(far):
                    yield row, column

    for x, cells, label in ((90, 3, "M₃: from O₄"), (370, 6, "M₂: from O₃ and M₃"), (650, 12, "M₁: from O₂ and M₂")):
        d.grid(x, 288, 132, cells, edge(cells))
        place = f'cx="{x + 11 * centre[1]:g}" cy="{288 + 11 * centre[0]:g}" r="{11 * radius:g}"'
        d.shape(f'<circle class="arrow to-truth" {place}/>')
        d.text(x + 66, 442, label)
    for x in (90, 370):
        d.arrow((x + 146, 354), (x + 266, 354), kind="doubt", label="grow, × switch")
    return d


@drawn
def fusion_and_heads():
    d = Drawing(
        "Guided fusion and the prediction head of a stage",
        "The aligned map, the guide and the fused features of the coarser stage are brought to one size, convolved, "
        "added and convolved again. The head turns the sum into logits.",
        420,
    )
    d.text(20, 36, "Guided fusion and head: one stage", "head", "start")
    d.text(20, 57, "Stage 3 at 224 px. Stage 4 has no coarser features.", "soft", "start")
    v = d.box(24, 88, 130, 52, "V₃", "256×14×14", kind="picture", style="box data")
    g = d.box(24, 178, 130, 52, "G₃, the guide", "256×7×7", kind="picture", style="box data")
    x = d.box(24, 268, 130, 52, "X₄, coarser", "256×7×7", kind="picture", style="box data")
    plus = d.box(500, 184, 40, 40, "+", kind="plain")
    for box in (g, x):
        up = d.box(196, box.y, 110, 52, "resize", "256×14×14", kind="plain")
        cbr = d.box(348, box.y, 100, 52, "CBR", "3×3", kind="picture")
        d.arrow(box.right(), up.left(), kind="picture")
        d.arrow(up.right(), cbr.left(), kind="picture")
        d.arrow(cbr.right(), *(((520, 294), plus.bottom()) if box is x else (plus.left(),)), kind="picture")
    d.arrow(v.right(), (520, 114), plus.top(), kind="picture")
    out = d.box(578, 178, 90, 52, "CBR", "3×3", kind="picture")
    fused = d.box(756, 178, 120, 52, "to stage 2", "256×14×14", kind="picture", style="box data")
    d.arrow(plus.right(), out.left(), kind="picture")
    d.arrow(out.right(), fused.left(), kind="picture", label="X₃")
    head = d.box(540, 336, 166, 52, "head: CBR, 1×1", "256 to 128 to K", kind="picture")
    d.arrow((712, 204), (712, 300), (623, 300), head.top(), kind="picture")
    logits = d.box(756, 336, 120, 52, "O₃, logits", "K×14×14", kind="sound", style="box data")
    d.arrow(head.right(), logits.left(), kind="sound")
    d.text(24, 366, "K = 1 for a mask, 71 for the classes of AVSS.", "soft", "start")
    d.text(24, 385, "O₃ goes to CIM. Resized, it goes to its loss.", "soft", "start")
    return d


@drawn
def losses():
    d = Drawing(
        "The losses",
        "The logits of each stage are resized to the truth. Cross-entropy and IoU loss are added, weighted and summed "
        "over stages.",
        440,
    )
    d.text(20, 36, "Four stages, one truth, one number", "head", "start")
    d.box(388, 374, 150, 46, "truth Y, 0 or 1", "224×224", kind="truth", style="box data")
    d.box(786, 186, 96, 56, "loss L", "one number", kind="truth", style="box lit")
    for k, (name, shape) in enumerate((("O₁", "1×56×56"), ("O₂", "1×28×28"), ("O₃", "1×14×14"), ("O₄", "1×7×7"))):
        top = 66 + 76 * k
        o = d.box(24, top, 90, 46, name, shape, kind="sound", style="box data")
        up = d.box(154, top, 110, 46, "resize", "1×224×224", kind="plain")
        p = d.box(304, top, 90, 46, "sigmoid", "p: 0 to 1", kind="plain")
        loss = d.box(480, top, 170, 46, "BCE + IoU loss", "one number", kind="truth")
        for a, b in ((o, up), (up, p), (p, loss)):
            d.arrow(a.right(), b.left(), kind="sound")
        d.arrow((437, 374), (437, top + 36), (480, top + 36), kind="truth")
        d.arrow(loss.right(), (730, top + 23), (730, 196 + 12 * k), (786, 196 + 12 * k), kind="truth")
        d.text(700, top + 17, f"λ{'₁₂₃₄'[k]} ×")
    d.text(24, 396, "All weights λ are 1. Frames without a label", "soft", "start")
    d.text(24, 414, "do not count. With classes: cross-entropy.", "soft", "start")
    d.text(560, 396, "BCE: mean over pixels of the binary", "soft", "start")
    d.text(560, 414, "cross-entropy. IoU loss: 1 − soft IoU.", "soft", "start")
    return d


@drawn
def data_layouts():
    d = Drawing(
        "How the data lie on disk",
        "Three columns of folders: S4, MS3 and AVSS of AVSBench. Composed clips have the layout of AVSS and four things "
        "more.",
        470,
    )
    d.text(20, 36, "Three layouts of AVSBench, and what composed clips add", "head", "start")
    columns = (
        (20, 280, "S4: one source", "5 s, first frame labelled in training", (
            (0, "s4_meta_data.csv", "plain"), (0, "s4_data/", "plain"),
            (1, "visual_frames/SPLIT/CAT/NAME/", "picture"), (2, "NAME_1.png .. NAME_5.png", "picture"),
            (1, "gt_masks/SPLIT/CAT/NAME/", "truth"), (2, "NAME_1.png .. black, white", "truth"),
            (1, "audio_wav/SPLIT/CAT/", "sound"), (2, "NAME.wav", "sound"))),
        (320, 270, "MS3: several sources", "5 s, every frame labelled", (
            (0, "ms3_meta_data.csv", "plain"), (0, "ms3_data/", "plain"),
            (1, "visual_frames/NAME/", "picture"), (2, "NAME.mp4_1.png .. _5.png", "picture"),
            (1, "gt_masks/SPLIT/NAME/", "truth"), (2, "NAME_1.png .. black, white", "truth"),
            (1, "audio_wav/SPLIT/", "sound"), (2, "NAME.wav", "sound"))),
        (610, 270, "AVSS, and composed clips", "5 or 10 s, classes as colours", (
            (0, "metadata.csv, label2idx.json", "plain"), (0, "LABEL/UID/", "plain"),
            (1, "frames/0.jpg ..", "picture"), (1, "labels_rgb/0.png ..", "truth"), (1, "audio.wav", "sound"),
            (0, "composed clips add", "head"),
            (1, "objects.json: names, when heard", "plain"), (1, "objects/0.png ..: where each is", "truth"),
            (1, "objects.wav: each one's sound", "sound"), (0, "dataset.json: how it was made", "plain"))),
    )  # fmt: skip
    for x, w, name, when, files in columns:
        d.box(x, 56, w, 50, name, when, kind="plain")
        for k, (depth, words, kind) in enumerate(files):
            y = 134 + 32 * k
            if kind != "head":
                d.shape(f'<rect class="solid-{kind}" x="{x + 4 + 18 * depth}" y="{y - 11}" width="12" height="12" rx="2"/>')
            d.text(x + (22 if kind != "head" else 4) + 18 * depth, y, words, "soft" if kind == "head" else "", "start")
    d.text(
        20, 452, "Blue: frames. Green: truth. Orange: sound. Grey: lists and folders. CAT: the category.", "soft", "start"
    )
    return d


@drawn
def package():
    d = Drawing(
        "The rooms of pcma_lib",
        "What stands on what. Video, benchmark and the data makers stand on training, that on measure, that and the "
        "notebooks on a model in use, that on the network, and the network on data.",
        590,
    )
    d.text(20, 36, "The rooms of pcma_lib: each stands on the one its arrow points at", "head", "start")
    d.text(20, 57, "A room may also import from any room further down its path.", "soft", "start")
    notebook = d.box(24, 84, 200, 52, "notebook", "figures, exercises, widgets")
    tops = [
        d.box(256, 84, 170, 52, "video", "marks your video"), d.box(446, 84, 190, 52, "benchmark", "speed on your machine"),
        d.box(672, 84, 204, 52, "pcma_data", "makes and fetches data"),
    ]  # fmt: skip
    x, names = 356, ("training", "measure", "use", "network", "data")
    about = (
        "fit, resume, presets",
        "metrics, controls, cost",
        "load, save, share, make fast",
        "tensors only",
        "clips, readers, media",
    )
    kinds = ("plain", "plain", "plain", "picture", "sound")
    stack = [
        d.box(x, 182 + 82 * k, 210, 52, *text, kind=kind) for k, (text, kind) in enumerate(zip(zip(names, about), kinds))
    ]
    for a, b in zip(stack, stack[1:]):
        d.arrow(a.bottom(), b.top())
    for box, part in zip(tops[:2], (0.25, 0.75)):
        d.arrow(box.bottom(), (box.bottom()[0], 160), (x + 210 * part, 160), stack[0].top(part))
    d.arrow(tops[2].bottom(), (774, 195), stack[0].right(0.25))
    d.arrow(notebook.bottom(), (124, 290), stack[1].left())
    losses = d.box(672, 264, 204, 52, "losses", "BCE, IoU, four stages", kind="truth")
    d.arrow(stack[0].right(0.75), (723, 221), losses.top(0.25))
    d.arrow(losses.bottom(), (774, 454), stack[3].right())
    d.text(588, 518, "Two small loops: data uses the front", "soft", "start")
    d.text(588, 536, "end of network, and measure asks", "soft", "start")
    d.text(588, 554, "training which device is best.", "soft", "start")
    return d


@drawn
def confident_decoder():
    d = Drawing(
        "The confident decoder: stage 2 decides where stage 1 works",
        "Where the logits of stage 2 are in doubt or on an outline, tiles of stage 1 and a ring of neighbours run through "
        "CBR, AVGA, QSCA and fusion, and the tiles alone through the head. Elsewhere the output of stage 2 is enlarged.",
        440,
    )
    d.text(20, 36, "The confident decoder: work only where it is in doubt", "head", "start")
    d.text(
        20, 57, "Stage 1 holds about half of the operations. O₂ tells which of its tiles are worth them.", "soft", "start"
    )
    o2 = d.box(24, 170, 110, 56, "O₂", "logits 28×28", kind="sound", style="box data")
    gate = d.box(176, 156, 170, 84, "which tiles?", "confidence up to c,", "or on the outline", kind="doubt")
    ring = [(r, c) for r in range(7) for c in range(7) if 1.6 < ((r - 3) ** 2 + (c - 3) ** 2) ** 0.5 < 2.9]
    tiles = d.grid(396, 142, 112, 7, ring)
    d.text(452, 278, "active tiles")
    d.text(452, 297, "their ring is computed, too", "soft")
    d.arrow(o2.right(), gate.left(), kind="sound")
    d.arrow(gate.right(), tiles.left(), kind="doubt")
    work = d.box(570, 92, 190, 84, "stage 1, on tiles", "CBR, AVGA, QSCA, GF", "with a ring, then head", kind="picture")
    rest = d.box(570, 236, 190, 60, "all other pixels", "O₂, enlarged 2×", kind="sound", style="box data")
    d.arrow(tiles.right(0.3), (540, 175.6), (540, 134), work.left(), kind="doubt")
    d.arrow(tiles.right(0.7), (540, 220.4), (540, 266), rest.left(), kind="plain")
    f1 = d.box(570, 344, 190, 56, "F₁, dense", "the encoder needs it", kind="picture", style="box data")
    o1 = d.box(804, 156, 80, 84, "O₁", "56×56", kind="sound", style="box data")
    d.arrow(work.right(), (844, 134), o1.top(), kind="picture")
    d.arrow(rest.right(), (844, 266), o1.bottom(), kind="sound")
    d.arrow(f1.left(), (554, 372), (554, 156), (570, 156), kind="picture")
    d.text(24, 366, "The weights are those of the dense network.", "soft", "start")
    d.text(24, 385, "With all tiles active, the result is the same.", "soft", "start")
    return d


def main():
    parser = argparse.ArgumentParser(description=__doc__ and __doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    for name, function in DRAWINGS.items():
        (given.folder / f"{name}.svg").write_text(function().svg(), encoding="utf-8")
    for number in LESSONS:
        (given.folder / f"here_{number:02d}.svg").write_text(here(number).svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
