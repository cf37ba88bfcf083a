"""What nbval alone does not see: cells never run, cells exempt, exercises whose solutions do not solve them."""

import ast
import re
import shutil
from pathlib import Path

import nbformat
import pytest
import torch
from test_mutations import nbval

from pcma_lib.notebook.exercises import check

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
EXEMPT = {"nbval-ignore-output", "nbval-skip"}
IDS = [p.stem for p in NOTEBOOKS]

# Plausible wrong answers to every exercise.
WRONG = {
    "windows": (
        "def windows(n): return max(0, n // 160)",
        "def windows(n): return 1 + (n - 400) // 160",
    ),
    "hertz_of": ("def hertz_of(m): return 700 * (10 ** (m / 2595) - 0.9)",),
    "example_of": ("def example_of(s): return int(s)",),
    "side": ("def side(n, k, s, p): return (n + 2 * p - k) // s", "def side(n, k, s, p): return -(-n // s)"),
    "cbr_parameters": ("def cbr_parameters(a, b): return 9 * a * b + b",),
    "cbr_macs": ("def cbr_macs(a, b, n): return 2 * 9 * a * b * n * n",),
    "attention_of": (
        "def attention_of(v, a): return v @ a / (v.norm() * a.norm())",
        "def attention_of(v, a): return v @ a / (v @ v) if v.any() else 0.0",
        "def attention_of(v, a): return v @ a / (a @ a)",
    ),
    "group_of": ("def group_of(c, C, g): return c % g",),
    "avga_parameters": ("def avga_parameters(C, g): return C * C // g + C * C + C * C // g + C * C",),
    "attention_weights": (
        "def attention_weights(q, k): return (q @ k.T / k.shape[1] ** 0.5).softmax(0)",
        "def attention_weights(q, k): return (q @ k.T / len(q) ** 0.5).softmax(1)",
    ),
    "scatter": (
        "def scatter(values, places, N): return torch.cat([values, torch.zeros(N - len(values), values.shape[1])])",
    ),
    "half_price": ("def half_price(N, C): return N / (2 * (C + N))",),
    "bound": ("def bound(c): return c / (1 - c)",),
    "next_mask": (
        "def next_mask(coarser, logits, c): return ((logits.sigmoid() > 1 - c) & (logits.sigmoid() < c)).float()",
        "def next_mask(coarser, logits, c): return torch.kron(coarser, torch.ones(2, 2)) * (logits.abs() < 2)",
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
    "lands": ("def lands(k, c, n, C): return [c, k]",),
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
    "in_order": ("def in_order(names): return [int(name.split('.')[0]) for name in sorted(names)]",),
    "gap": (
        "def gap(a, b): return torch.tensor(a).mean() - torch.tensor(b).mean()",
        "def gap(a, b): return (torch.tensor(a).mean() - torch.tensor(b).mean()) / torch.tensor([*a, *b]).std()",
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


def test_figures_are_shown_where_matplotlib_was_told_to_use_agg():
    result = nbval(FOLDER / "07_losses_and_metrics.ipynb", MPLBACKEND="Agg")
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


def exercises():
    """(notebook, name, cell, solution): a cell tagged "exercise" and the folded code of the next markdown cell."""
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        for number, cell in enumerate(cells):
            if "exercise" in cell.metadata.get("tags", ()):
                solution = re.search(r"<details>.*?```python\n(.*?)```.*?</details>", cells[number + 1].source, re.S)
                name = [n.name for n in ast.parse(cell.source).body if isinstance(n, ast.FunctionDef)][-1]
                yield path, name, cell, solution


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
    assert solution, f"{path.name}: exercise {name} has no folded solution"
    assert f"{name}: right" in attempt(path, name, cell, solution[1], capsys)
    for answer in WRONG[name]:
        assert f"{name}: not yet" in attempt(path, name, cell, answer, capsys), answer
    assert f"{name}: not attempted" in "".join(o.text for o in cell.outputs)


def test_every_notebook_of_the_series_has_three_exercises():
    lessons = [p for p in NOTEBOOKS if p.stem[:2] not in ("00", "08")]
    assert len(lessons) == 12
    for path in lessons:
        assert sum(e[0] == path for e in EXERCISES) == 3, path.name


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
    assert "rows: right, 1 cases" in shown
    assert "pair: not yet, expected shape [], found [2]" in shown
    assert "text: not yet, expected numbers, found str" in shown


def test_the_trained_notebook_is_notebook_11_with_other_parameters():
    own = nbformat.read(FOLDER / "11_semantics.ipynb", 4)
    trained = nbformat.read(FOLDER.parent / "docs" / "11_semantics_trained.ipynb", 4)
    (given,) = (c for c in trained.cells if "injected-parameters" in c.metadata.get("tags", ()))
    assert "demo_long" in given.source
    moved = [c.source.replace("../notebooks/", "") for c in trained.cells if c is not given]
    assert moved == [c.source for c in own.cells]
