"""What nbval alone does not see: cells never run, cells exempt, exercises whose solutions do not solve them."""

import ast
import re
import runpy
import shutil
from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F
from test_mutations import nbval
from torch.testing import assert_close

from pcma_lib.data.clip import collate
from pcma_lib.notebook import journey
from pcma_lib.notebook.exercises import check, check_in_network, check_in_training, hint, swap
from pcma_lib.use.model import AudioVisualModel

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
EXEMPT = {"nbval-ignore-output", "nbval-skip"}
IDS = [p.stem for p in NOTEBOOKS]

# Plausible wrong answers to every exercise.
WRONG = {
    "silence": ("def silence(): return -2.0", "def silence(): return 0.0"),
    "overlap_of": (
        "def overlap_of(m, y): return (m * y).sum() / y.sum() if y.any() else 1.0",
        "def overlap_of(m, y): return (m * y).sum() / ((m + y) > 0).sum() if y.any() else 0.0",
    ),
    "heard_not_marked": ("def heard_not_marked(raw): return [k for k in range(5) if not raw.masks[k].any()]",),
    "slices": (
        "def slices(n): return max(0, n // 160)",
        "def slices(n): return 1 + (n - 400) // 160",
    ),
    "hertz_of": ("def hertz_of(m): return 700 * (10 ** (m / 2595) - 0.9)",),
    "example_of": ("def example_of(s): return int(s)",),
    "correct_bands": (
        "def correct_bands(w): return torch.zeros(96, 64)",
        "def correct_bands(w): return (torch.fft.rfft(torch.from_numpy(w).float().unfold(0, 400, 160)"
        " * torch.hann_window(400, periodic=False), n=512).abs() @ mel_filters() + 0.01).log()[:96]",
    ),
    "side": ("def side(n, k, s, p): return (n + 2 * p - k) // s", "def side(n, k, s, p): return -(-n // s)"),
    "cbr_parameters": ("def cbr_parameters(a, b): return 9 * a * b + b",),
    "cbr_macs": ("def cbr_macs(a, b, n): return 2 * 9 * a * b * n * n",),
    "pyramid_of": (
        "def pyramid_of(part, frames): return part.encoder(frames)",
        "def pyramid_of(part, frames): return [p[0](f) for p, f in zip(part.project, part.encoder(frames))]",
        "def pyramid_of(part, frames): return [p(f).flip(-1) for p, f in zip(part.project, part.encoder(frames))]",
    ),
    "attention_of": (
        "def attention_of(v, a): return v @ a / (v.norm() * a.norm())",
        "def attention_of(v, a): return v @ a / (v @ v) if v.any() else 0.0",
        "def attention_of(v, a): return v @ a / (a @ a)",
        "def attention_of(v, a): return v @ a / v.norm() if v.any() else 0.0",
        "def attention_of(v, a): return v @ a / a.norm()",
    ),
    "group_of": ("def group_of(c, C, g): return c % g",),
    "avga_of": (
        "def avga_of(part, visual, audio): return part.out(part.visual(visual))",
        "def avga_of(part, visual, audio): return visual",
    ),
    "comparison": (
        "def comparison(x, a): return (x * a[:, None, :, None, None]).sum(2)",
        "def comparison(x, a): return (x * a[:, None, :, None, None]).sum(2)"
        " / (x.flatten(1, 2).norm(dim=1)[:, None] * a.norm(dim=1)[:, None, None, None])",
    ),
    "avga_parameters": ("def avga_parameters(C, g): return C * C // g + C * C + C * C // g + C * C",),
    "attention_weights": (
        "def attention_weights(q, k): return (q @ k.T / k.shape[1] ** 0.5).softmax(0)",
        "def attention_weights(q, k): return (q @ k.T / len(q) ** 0.5).softmax(1)",
    ),
    "scatter": (
        "def scatter(values, places, N): return torch.cat([values, torch.zeros(N - len(values), values.shape[1])])",
    ),
    "gather": (
        "def gather(tokens, mask):\n"
        "    places = torch.arange(int(mask.sum(1).max())).expand(len(mask), -1)\n"
        "    return tokens[:, : places.shape[1]], places",
        "def gather(tokens, mask):\n"
        "    n = int(mask.sum(1).max())\n"
        "    places = mask.argsort(dim=1)[:, :n]\n"
        "    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1])), places",
        "def gather(tokens, mask): return tokens[:, mask[0] != 0], (mask[0] != 0).nonzero().T",
    ),
    "half_price": ("def half_price(N, C): return N / (2 * (C + N))",),
    "bound": ("def bound(c): return c / (1 - c)",),
    "next_mask": (
        "def next_mask(coarser, logits, c): return ((logits.sigmoid() > 1 - c) & (logits.sigmoid() < c)).float()",
        "def next_mask(coarser, logits, c): return torch.kron(coarser, torch.ones(2, 2)) * (logits.abs() < 2)",
    ),
    "cim_forward": (
        "def cim_forward(part, o, coarser=None): return (o.sigmoid().sub(0.5).abs() < part.threshold - 0.5).float()",
        "def cim_forward(part, logits, coarser=None): return torch.zeros_like(logits)",
    ),
    "masked_ratio": ("def masked_ratio(mask): return mask.mean()",),
    "place": (
        "def place(i, n, m): return i * (n - 1) / (m - 1)",
        "def place(i, n, m): return (i + 0.5) / 2 - 0.5",
    ),
    "fusion_macs": (
        "def fusion_macs(C, n, frames): return 2 * 9 * C * C * n * n * frames",
        "def fusion_macs(C, n, frames): return 3 * 9 * C * C * n * n * 5",
    ),
    "fuse": (
        "def fuse(part, visual, guide, coarser=None): return part.out(visual)",
        "def fuse(part, visual, guide, coarser=None):\n"
        "    return part.out(visual + part.guide(F.interpolate(guide, visual.shape[-2:], mode='bilinear')))",
    ),
    "head_parameters": ("def head_parameters(C, K): return 9 * C * C // 2 + C // 2 * K",),
    "frame_iou": (
        "def frame_iou(predicted, truth): return (predicted & truth).sum() / (predicted | truth).sum()",
        "def frame_iou(p, t): return ((p & t).sum() / t.sum()) if t.any() else 1 - p.float().mean()",
    ),
    "f_measure": (
        "def f_measure(p, r, beta2=0.3): return 2 * p * r / (p + r) if p + r else 0.0",
        "def f_measure(p, r, beta2=0.3): return 1.3 * p * r / (0.3 * p + r) if p + r else 0.0",
    ),
    "drop": ("def drop(own, other): return own - other",),
    "hears": (
        "def hears(model, frames, sound): return int(model(frames, sound).any())",
        "def hears(model, frames, sound): return int(not model(frames, 0 * sound).any())",
        "def hears(model, frames, sound): return int(model(frames, sound).sum() != model(frames, 0 * sound).sum())",
    ),
    "noise_at_level": (
        "def noise_at_level(sound, noise): return noise * sound.abs().mean()",
        "def noise_at_level(sound, noise): return noise * sound.square().mean().sqrt()",
        "def noise_at_level(sound, noise): return torch.ones(2) * sound.square().mean().sqrt()",
    ),
    "class_of": (
        "def class_of(red, green, blue): return red >> 7 | green >> 6 | blue >> 5",
        "def class_of(r, g, b): return sum((c >> 7 - k & 1) << 3 * k + i for k in (0, 1) for i, c in enumerate((r, g, b)))",
    ),
    "largest_loss": ("def largest_loss(c): return 1 - c",),
    "class_iou": ("def class_iou(counts, k): return counts[k, k] / counts[k].sum()",),
    "without_background": (
        "def without_background(ious): return ious[:-1].nanmean()",
        "def without_background(ious): return ious[1:].mean()",
        "def without_background(ious): return ious.nanmean()",
    ),
    "masks_of": (
        "def masks_of(seconds, fps): return int(seconds * fps)",
        "def masks_of(seconds, fps): return round(seconds * fps + 0.4)",
        "def masks_of(seconds, fps): return int(np.ceil(seconds * fps))",
    ),
    "even": ("def even(size): return size - size % 2",),
    "samples_of": (
        "def samples_of(k): return [k * 16000, k * 16000 + 15600]",
        "def samples_of(k): return [15360 * k, 15360 * k + 15599]",
    ),
    "mono": (
        "def mono(left, right): return (left + right) / 2",
        "def mono(left, right): return left",
        "def mono(left, right): m = (left + right) / 2; return m if m.square().sum() > 1e-4 else left",
    ),
    "steps_of": (
        "def steps_of(clips, batch, epochs): return math.ceil(clips / batch) * epochs",
        "def steps_of(clips, batch, epochs): return clips * epochs // batch",
        "def steps_of(clips, batch, epochs): return clips // batch * epochs",
    ),
    "share_of_rate": (
        "def share_of_rate(s, w, t): return min((s + 1) / w, 1 - max(0, s - w) / (t - w))",
        "def share_of_rate(s, w, t): return 0.5 * (1 + math.cos(math.pi * s / t))",
    ),
    "best_of": (
        "def best_of(history): return max(range(len(history)), key=lambda n: history[n][0])",
        "def best_of(history): return len(history) - 1",
    ),
    "your_parts": (
        "from test_notebooks import four\ndef your_parts(): return four(cim=None)",
        "from test_notebooks import four\ndef your_parts(): return four(cim=lambda part, *given: torch.ones_like(given[0]))",
    ),
    "lands": ("def lands(k, c, n, C): return [c, k]",),
    "scatter_of": (
        "def scatter_of(runs): return runs.std()",
        "def scatter_of(runs): return runs.std(1).mean()",
        "def scatter_of(runs): return runs.var(1, correction=0).mean().sqrt()",
    ),
    "seeds_needed": (
        "def seeds_needed(d, sd): return math.ceil(round(4 * (sd / d) ** 2, 9))",
        "def seeds_needed(d, sd): return int(8 * (sd / d) ** 2 + 1e-6)",
    ),
    "progressive": (
        "def progressive(masks): return masks[-1] * masks[0].repeat_interleave(4, 0).repeat_interleave(4, 1)",
        "def progressive(masks): return torch.kron(masks[1] * torch.kron(masks[0], torch.ones(2, 2)), torch.ones(2, 2))",
    ),
    "film_parameters": (
        "def film_parameters(C): return 3 * C * C",
        "def film_parameters(C): return 3 * C * C + 3 * C",
        "def film_parameters(C): return 3 * C * C + 5 * C",
    ),
    "gate": (
        "def gate(v, a, w, b): return v * (1 + (a @ w.T + b).sigmoid()[..., None, None])",
        "def gate(v, a, w, b): return v * (a @ w + b).sigmoid()[..., None, None]",
        "def gate(v, a, w, b): return v * (a @ w.T + b).softmax(1)[..., None, None]",
    ),
    "computed_tiles": (
        "def computed_tiles(rows, columns): return (rows + 1) * (columns + 1)",
        "def computed_tiles(rows, columns): return rows * columns + 2 * (rows + columns)",
    ),
    "left_of": (
        "def left_of(head, before, active, computed): return 1 - (head + before) * (1 - computed)",
        "def left_of(head, before, active, computed): return head * active + before * computed",
    ),
    "doubt_of": (
        "def doubt_of(logits): return logits.sigmoid().sub(0.5).abs() <= 0.49",
        "def doubt_of(logits): return F.max_pool2d((logits > 0).float(), 3, 1, 1) > (logits > 0)",
        "def doubt_of(logits): return torch.ones_like(logits) > 0",
    ),
    "to_compute": (
        "def to_compute(active): return active",
        "def to_compute(active): return F.max_pool2d(active.float(), 5, 1, 2) > 0",
    ),
    "in_order": ("def in_order(names): return [int(name.split('.')[0]) for name in sorted(names)]",),
    "gap": (
        "def gap(a, b): return torch.tensor(a).mean() - torch.tensor(b).mean()",
        "def gap(a, b): return (torch.tensor(a).mean() - torch.tensor(b).mean()) / torch.tensor([*a, *b]).std()",
        "def gap(a, b):\n"
        "    a, b = torch.tensor(a), torch.tensor(b)\n"
        "    return (a.mean() - b.mean()) / ((a.var() + b.var()) / len(a)).sqrt()",
    ),
    "both_averages": ("def both_averages(i, u): return [(i / u).mean(), (i / u).mean()]",),
}


def code_cells(notebook):
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]


def is_exempt(cell):
    return bool(EXEMPT & set(cell.metadata.get("tags", ())))


def prints(cell):
    return any(o.output_type == "stream" and o.name == "stdout" and o.text.strip() for o in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_outputs_are_those_of_one_run_from_top_to_bottom(path):
    notebook = nbformat.read(path, as_version=4)
    cells = code_cells(notebook)
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    outputs = [o for c in cells for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert not [o for o in outputs if "image/svg+xml" in o.get("data", {})]
    for output in outputs:  # a figure's name alone is no figure
        shown = output.get("data", {})
        assert not shown.get("text/plain", "").startswith("<Figure") or any(kind.startswith("image/") for kind in shown)
    assert "widgets" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"
    assert path.stat().st_size <= 2_000_000


def test_figures_are_shown_where_matplotlib_was_told_to_use_agg(tmp_path):
    shutil.copy(FOLDER / "conftest.py", tmp_path)
    lesson = nbformat.read(FOLDER / "07_losses_and_metrics.ipynb", 4)
    first = next(k for k, cell in enumerate(lesson.cells) if "image/png" in str(cell.get("outputs")))
    lesson.cells = lesson.cells[: first + 1]
    nbformat.write(lesson, tmp_path / "begins.ipynb")
    result = nbval(tmp_path / "begins.ipynb", MPLBACKEND="Agg")
    assert result.returncode == 0, result.stdout


def test_a_picture_that_is_stored_and_not_shown_fails_nbval(tmp_path):
    shutil.copy(FOLDER / "conftest.py", tmp_path)
    cell = nbformat.v4.new_code_cell("1 + 1", execution_count=1)
    for name, more in {"without": {}, "with": {"image/jpeg": "AAAA"}}.items():
        cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "2", **more}, execution_count=1)]
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    assert nbval(tmp_path / "without.ipynb").returncode == 0
    failed = nbval(tmp_path / "with.ipynb").stdout
    assert "1 picture(s) are stored with this cell, but running it gave 0" in failed and "1 failed" in failed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_at_most_a_quarter_of_the_cells_is_exempt_and_every_section_prints_something_compared(path):
    cells = nbformat.read(path, as_version=4).cells
    code = [c for c in cells if c.cell_type == "code"]
    assert sum(map(is_exempt, code)) <= len(code) / 4
    sections = {}
    for cell in cells:
        if cell.cell_type == "markdown" and (heading := re.match(r"## (.+)", cell.source)):
            title = heading[1]
        elif cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", ()):
            sections.setdefault(title, []).append(cell)
    sections.pop("Set-up", None)  # prints versions
    silent = [t for t, group in sections.items() if not any(prints(c) and not is_exempt(c) for c in group)]
    assert not silent


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_links_lead_to_files(path):
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (FOLDER / target).is_file(), target
    for target in re.findall(r"`(tests/[a-z_]+\.py)`", text):
        assert (FOLDER.parent / target).is_file(), target


def solutions(path):
    """The text of a lesson's file of solutions, or None where they still lie folded in the lesson."""
    file = FOLDER / "solutions" / f"{path.stem}.py"
    return file.read_text() if file.is_file() else None


def exercises():
    """(notebook, name, cell, solution): a cell tagged "exercise" and the text that holds the function that solves it."""
    for path in NOTEBOOKS:
        cells, solved = nbformat.read(path, as_version=4).cells, solutions(path)
        for number, cell in enumerate(cells):
            if "exercise" in cell.metadata.get("tags", ()):
                name = [n.name for n in ast.parse(cell.source).body if isinstance(n, ast.FunctionDef)][-1]
                folded = re.search(r"<details>.*?```python\n(.*?)```.*?</details>", cells[number + 1].source, re.S)
                yield path, name, cell, solved or (folded and folded[1])


EXERCISES = list(exercises())


def attempt(path, name, cell, answer, capsys):
    """What the exercise's cell prints with another function in it, after the notebook's set-up cell alone."""
    setup = next(c.source for c in code_cells(nbformat.read(path, as_version=4)) if "import" in c.source)
    body = [n for n in ast.parse(cell.source).body if getattr(n, "name", None) != name]
    names = {}
    exec(setup, names)
    exec(answer, names)
    capsys.readouterr()
    exec(compile(ast.Module(body, []), str(path), "exec"), names)
    return capsys.readouterr().out


@pytest.mark.parametrize("path, name, cell, solution", EXERCISES, ids=[e[1] for e in EXERCISES])
def test_the_solution_is_right_and_a_plausible_wrong_one_is_found_out(path, name, cell, solution, capsys):
    assert solution, f"{path.name}: exercise {name} has no solution"
    assert f"{name}: right" in attempt(path, name, cell, solution, capsys)
    for answer in WRONG[name]:
        assert f"{name}: not yet" in attempt(path, name, cell, answer, capsys), answer
    assert f"{name}: not attempted" in "".join(o.text for o in cell.outputs)


SOLVED = [p for p in NOTEBOOKS if solutions(p)]


@pytest.mark.parametrize("path", SOLVED, ids=[p.stem for p in SOLVED])
def test_a_file_of_solutions_is_linked_and_holds_what_its_lesson_asks_for(path):
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    assert f"](solutions/{path.stem}.py)" in text
    functions = {n.name for n in ast.parse(solutions(path)).body if isinstance(n, ast.FunctionDef)}
    assert functions == {name for notebook, name, *_ in EXERCISES if notebook == path}


def test_every_notebook_of_the_series_has_three_to_five_exercises():
    lessons = [p for p in NOTEBOOKS if p.stem[:2] not in ("00", "08")]
    assert len(lessons) == 13
    for path in lessons:
        assert 3 <= sum(e[0] == path for e in EXERCISES) <= 5, path.name


def test_check_tells_a_wrong_shape_and_a_wrong_type(capsys):
    def pair(x):
        return [x, x]

    def text(x):
        return "text"

    def rows(x):
        return [torch.tensor([x, x]), torch.tensor([x, 2 * x])]

    check(rows, [((1.0,), [[1.0, 1.0], [1.0, 2.0]])])
    check(pair, [((1.0,), 1.0)])
    check(text, [((1.0,), 1.0)])
    shown = capsys.readouterr().out
    assert "rows: right, 1 case" in shown
    assert "pair: not yet, expected shape [], found [2]" in shown
    assert "text: not yet, expected numbers, found str" in shown


def double(x):
    return 2 * x


def test_check_names_the_mistake_and_gives_the_hint_when_asked(capsys):
    cases = [((1.0,), 3.0), ((2.0,), 6.0)]
    check(double, cases, mistakes={"You doubled.": lambda x: x + x, "You squared.": lambda x: x * x}, hint="Think of three.")
    shown = capsys.readouterr().out
    assert "double: not yet, expected 3, found 2, for (1)" in shown and "hint(double)" in shown
    assert "You doubled." in shown and "You squared." not in shown and "Think of three." not in shown
    hint(double)
    assert capsys.readouterr().out == "Think of three.\n"
    nothing = torch.tensor(0.0)
    check(lambda: nothing / nothing, [((), 0.0)], mistakes={"Nothing by nothing.": lambda: nothing / nothing})
    assert "Nothing by nothing." in capsys.readouterr().out
    check(double, [((1.0,), 2.0)], mistakes={"You doubled.": double})
    assert capsys.readouterr().out == "double: right, 1 case\n"


def test_check_goes_on_where_a_later_case_fails_while_it_looks_for_a_mistake(capsys):
    def half_done(x):
        if x == 1:
            return 2.0

    check(half_done, [((1,), 1.0), ((2,), 2.0)], mistakes={"You doubled.": double})
    assert capsys.readouterr().out == "half_done: not yet, expected 1, found 2, for (1)\n"


def test_an_answer_that_torch_can_not_take_is_not_called_unanswered(capsys):
    check_in_network(journey.model(), "cim", lambda part, logits, mask=None: logits > 0, journey.clip())
    shown = capsys.readouterr().out
    assert "not yet" in shown and "not attempted" not in shown


def test_check_rounds_what_it_prints(capsys):
    check(double, [((torch.tensor([1 / 3, 20000.0]),), torch.tensor([1 / 7, 1.0]))])
    check(double, [((0.5,), 1.0001)], tolerance=1e-6)
    shown = capsys.readouterr().out
    assert "expected [0.1429, 1], found [0.6667, 40000], for ([0.3333, 20000])" in shown
    assert "expected 1, found 1," not in shown


def test_every_tensor_of_the_journey_has_its_shape_and_the_names_lead_through_the_network():
    clip, model = journey.clip(), journey.model()
    found, network = journey.tensors(model, clip), model.network
    kinds = "F P V attention looks hears G X O"
    masks, sound = ["M_3", "M_2", "M_1"], ["E", "A", *(f"A_{i}" for i in range(5))]
    assert set(found) == {f"{kind}_{i}" for kind in kinds.split() for i in range(1, 5)} | {*masks, *sound}
    for i in range(1, 5):
        assert_close(network.avga[i - 1](found[f"P_{i}"], found["A_4"]), found[f"V_{i}"])
        assert_close(network.pyramid.project[i - 1](found[f"F_{i}"]), found[f"P_{i}"])
        assert_close(network.heads[i - 1](found[f"X_{i}"]), found[f"O_{i}"])
        mask = found.get(f"M_{i}")
        guide, heard = network.qsca[i - 1](
            found[f"V_{i}"][None], found[f"A_{i}"][None], mask if mask is None else mask[None]
        )
        assert_close(guide[0], found[f"G_{i}"])
        assert_close(heard[0], found[f"A_{i - 1}"])
        assert_close(found[f"looks_{i}"].sum((2, 3, 4)), torch.ones(network.qsca[0].heads, 5))
        assert_close(found[f"hears_{i}"].sum(-1), torch.ones(network.qsca[0].heads, 5, *guide.shape[-2:]))


def test_the_attention_of_the_journey_is_that_of_the_network():
    network, found = journey.model().network, journey.tensors(journey.model(), journey.clip())
    part = network.qsca[3]
    values = part.visual_kv(part.norm(part.visual(found["V_4"].flatten(2).mT.flatten(0, 1)))).chunk(2, -1)[1]
    heard = found["looks_4"].flatten(2) @ values.unflatten(-1, (part.heads, -1)).transpose(0, 1)  # [heads, T, C / heads]
    own = part.audio(found["A_4"])
    assert_close(own + part.out(heard.transpose(0, 1).flatten(1)), found["A_3"], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def marks(model, clip):
    return model(clip.frames[None], clip.log_mel[None]).logits[0]


RIGHT = {  # a learner's forward of each part of the network
    "avga": lambda part, visual, audio: part.out(
        (lambda v, a: v * a[:, :, None])(*part.attention(visual, audio)).flatten(1, 2)
    ),
    "qsca": lambda part, visual, audio, mask=None: type(part).forward(part, visual, audio, mask),
    "cim": lambda part, logits, coarser=None: (
        (logits.sigmoid() - 0.5).abs().lt(part.threshold - 0.5) * (1 if coarser is None else double_side(coarser))
    ).float(),
    "fusion": lambda part, visual, guide, coarser=None: part.out(
        visual + part.guide(enlarged(guide, visual)) + (0 if coarser is None else part.coarse(enlarged(coarser, visual)))
    ),
    "gather": lambda tokens, mask: own_gather(tokens, mask),
}
FALSE = {
    "avga": lambda part, visual, audio: part.out(part.visual(visual)),
    "qsca": lambda part, visual, audio, mask=None: (visual, audio),
    "cim": lambda part, logits, coarser=None: torch.zeros_like(logits),
    "fusion": lambda part, visual, guide, coarser=None: part.out(visual),
    "gather": lambda tokens, mask: own_gather(tokens.flip(1), mask),
}


def double_side(mask):
    return mask.repeat_interleave(2, -1).repeat_interleave(2, -2)


def enlarged(maps, like):
    return F.interpolate(maps, size=like.shape[-2:], mode="bilinear")


def own_gather(tokens, mask):
    order = mask.argsort(dim=1, descending=True, stable=True)[:, : int(mask.sum(1).max())]
    return tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[2])), order


@pytest.mark.parametrize("part", RIGHT)
def test_a_learners_right_part_leaves_the_trained_networks_mask_and_a_wrong_one_changes_it(part, capsys):
    model, clip = journey.model(), journey.clip()
    own = marks(model, clip)
    with swap(model, part, RIGHT[part]):
        assert_close(marks(model, clip), own, atol=1e-4, rtol=1e-4)
    with swap(model, part, FALSE[part]):
        assert (marks(model, clip) - own).abs().max() > 0.1
    assert torch.equal(marks(model, clip), own)  # it is as it was
    check_in_network(model, part, RIGHT[part], clip)
    check_in_network(model, part, FALSE[part], clip, {"It is that one.": FALSE[part], "It is another.": RIGHT[part]})
    check_in_network(model, part, lambda *given: None, clip, hint="Begin with the shapes.")
    check_in_network(model, part, lambda *given: torch.zeros(7), clip)
    shown = capsys.readouterr().out
    assert "right, the trained network marks the same" in shown and "It is that one." in shown
    assert "not yet, the network cannot go on" in shown
    assert "not yet, with yours inside" in shown and "not attempted" in shown and "It is another." not in shown


def four(**changes):
    """The solution of lesson 08's capstone, with other parts in the place of some."""
    return runpy.run_path(str(FOLDER / "solutions" / "08_training.py"))["your_parts"]() | changes


def first_for_all(tokens, mask):
    places = mask[0].nonzero()[:, 0].expand(len(tokens), -1)
    return tokens[:, places[0]], places


def beyond_the_last(tokens, mask):
    return tokens[len(tokens)], mask


def in_place(part, visual, guide, coarser=None):
    visual += part.guide(enlarged(guide, visual))
    if coarser is not None:
        visual += part.coarse(enlarged(coarser, visual))
    return part.out(visual)


@pytest.mark.parametrize(
    "part, wrong, said, named",
    [
        ("gather", first_for_all, "decides otherwise for", "it mixes up the clips of a batch"),
        ("gather", beyond_the_last, "cannot go on", "stops the training: index"),
        ("fusion", torch.no_grad()(RIGHT["fusion"]), "right, ", "It is detached somewhere, or under torch.no_grad()"),
        ("fusion", in_place, "right, ", "it changes in place what the gradient still needs"),
    ],
)
def test_what_fails_in_a_training_is_named_also_if_it_was_right_in_its_lesson(part, wrong, said, named, capsys):
    torch.manual_seed(0)
    small = dict(backbone="resnet10t", channels=32, groups=8, heads=4, threshold=0.55)
    model, clips = AudioVisualModel(0.125, True, **small).train(), journey.clips()
    two = collate([clips[journey.NUMBER], clips[0]])
    two.frames = two.frames[..., ::2, ::2]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_in_network(journey.model(), part, wrong, journey.clip())
    assert said in capsys.readouterr().out
    check_in_training(lambda: four(**{part: wrong}), model, two)
    shown = capsys.readouterr().out
    assert f"not yet, your {part} " in shown and named in shown
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["08_training", "11_semantics"])
def test_a_trained_notebook_is_the_lesson_with_other_parameters_and_names_no_machine(name):
    own = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    path = FOLDER.parent / "docs" / f"{name}_trained.ipynb"
    trained = nbformat.read(path, 4)
    (given,) = (c for c in trained.cells if "injected-parameters" in c.metadata.get("tags", ()))
    assert 'preset = "demo' in given.source
    note = trained.cells[1].source
    assert f"(../notebooks/{name}.ipynb)" in note and "`demo`" in note
    moved = [c.source.replace("../notebooks/", "") for c in trained.cells if c is not given and c.source != note]
    assert moved == [c.source for c in own.cells if not c.source.startswith("**What you just saw.**")]
    assert not re.search(r"/(home|root|work|tmp|Users)/", path.read_text(encoding="utf-8"))
