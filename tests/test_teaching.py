"""What a lesson must have to be read: diagrams that open, figures that exist, short lines and paragraphs, known symbols."""

import io
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from pcma_lib.network.pcmanet import PCMANet
from pcma_lib.network.qsca import choose_path
from pcma_lib.notebook import figures

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DIAGRAMS = sorted((ROOT / "docs" / "diagrams").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"
GREEK = "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi varphi chi psi omega Omega"

lessons = pytest.mark.parametrize("path", LESSONS, ids=[p.stem for p in LESSONS])
diagrams = pytest.mark.parametrize("path", DIAGRAMS, ids=[p.stem for p in DIAGRAMS])


def markdown(path):
    return [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown"]


def texts(path):
    return [element.text for element in ElementTree.parse(path).iter(f"{SVG}text")]


def symbols(text):
    r"""The letters that stand for something in a text's formulas, with their accents: {"A", "N'", "\hat Y", "\lambda"}."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
    formulas = " ".join(a or b for a, b in re.findall(r"\$\$(.+?)\$\$|\$([^$]+?)\$", text, re.S))
    formulas = re.sub(r"\\(?:text\w*|math(?:rm|bb)|operatorname|begin|end)\s*\{[^{}]*\}|_\{[a-z]{3,}\}", " ", formulas)
    accented = r"\\(hat|bar|tilde|mathcal)\s*\{?\s*([A-Za-z])\}?"
    found = {f"\\{accent} {letter}" for accent, letter in re.findall(accented, formulas)}
    formulas = re.sub(accented, " ", formulas)
    found |= {f"\\{name}" for name in re.findall(r"\\([A-Za-z]+)", formulas) if name in GREEK.split()}
    return found | set(re.findall(r"[A-Za-z]'?", re.sub(r"\\[A-Za-z]+", " ", formulas)))


def notation():
    """The first column of the page's tables, a cell a symbol or two."""
    lines = (ROOT / "docs" / "notation.md").read_text(encoding="utf-8").splitlines()
    return [line.split("|")[1].strip() for line in lines if line.startswith("| $")]


def test_the_reader_of_formulas_finds_letters_accents_and_primes_and_no_words():
    text = r"$\mathrm{IoU}(\hat Y) = \frac{a_i}{N'} \lambda$ `$q$` $$\mathcal{L}_{iou} = \text{loss } W_{\mathrm{mel}}$$"
    assert symbols(text) == {r"\hat Y", "a", "i", "N'", r"\lambda", r"\mathcal L", "W"}


@diagrams
def test_a_diagram_opens_and_says_what_it_shows_in_words_that_can_be_edited(path):
    root = ElementTree.parse(path).getroot()
    assert root.tag == f"{SVG}svg" and root.get("role") == "img"
    assert len(root.find(f"{SVG}title").text) > 8 and len(root.find(f"{SVG}desc").text) > 30
    assert root.get("aria-labelledby").split() == [root.find(SVG + tag).get("id") for tag in ("title", "desc")]
    assert len(texts(path)) > 5
    assert not [e for e in root.iter() if e.tag in (f"{SVG}image", f"{SVG}use", f"{SVG}foreignObject")]
    assert max(len(e.get("d")) for e in root.iter(f"{SVG}path")) < 250  # letters as paths would be longer
    for link in root.iter(f"{SVG}a"):
        assert (path.parent / link.get("href")).is_file(), link.get("href")


def test_the_diagrams_are_those_that_the_script_draws(tmp_path):
    subprocess.run([sys.executable, ROOT / "maintain" / "diagrams.py", tmp_path], check=True, cwd=ROOT)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [p.name for p in DIAGRAMS]
    for path in DIAGRAMS:
        assert (tmp_path / path.name).read_text(encoding="utf-8") == path.read_text(encoding="utf-8"), path.name


def shapes(**settings):
    """Every tensor between the parts of the network for a clip of one second, by the symbols of the diagram."""
    size, found = settings.pop("size"), {}
    with torch.device("meta"):
        network = PCMANet(**settings).eval()
        choose_path(network, dense=True)  # a gathering would ask meta tensors how many are selected

        def keep(module, name, choose):
            module.register_forward_hook(lambda _, given, out: found.update({name: list(choose(given, out).shape)}))

        for i, sub in enumerate("₁₂₃₄", 1):
            part = network.pyramid.project[i - 1]
            keep(part, f"F{sub}", lambda given, out: given[0][0])
            keep(part, f"P{sub}", lambda given, out: out[0])
            keep(network.avga[i - 1], f"V{sub}", lambda given, out: out[0])
            keep(network.qsca[i - 1], f"G{sub}", lambda given, out: out[0][0, 0])
            keep(network.qsca[i - 1], f"A{sub}", lambda given, out: given[1][0, 0])
            keep(network.fusion[i - 1], f"X{sub}", lambda given, out: out[0])
            keep(network.heads[i - 1], f"O{sub}", lambda given, out: out[0])
        out = network(torch.zeros(1, 1, 3, size, size), torch.zeros(1, 1, 128))
    return found | {f"M{sub}": list(mask.shape[2:]) for sub, mask in zip("₃₂₁", out.masks)}


def test_the_shapes_on_the_diagram_of_the_network_are_those_that_it_computes():
    paper = shapes(size=224)
    demo = shapes(size=128, backbone="resnet10t", stages=[64, 128, 192, 256], channels=64, groups=8, heads=4)
    words = texts(ROOT / "docs" / "diagrams" / "pcmanet.svg")
    assert set(paper) == {f"{letter}{sub}" for letter in "FPVGAXO" for sub in "₁₂₃₄"} | {"M₁", "M₂", "M₃"}
    for name in paper:
        large, small = ("×".join(map(str, s[name])) for s in (paper, demo))
        if name == "A₄":
            assert f"A₄: {large} ({small})" in words
        elif name[0] in "AM":
            place = words.index(f"{name}: {large}")
            assert words[place + 1] == small, name
        else:
            places = [k for k, word in enumerate(words) if word == name]
            assert [large, small] in [words[k + 1 : k + 3] for k in places], name


@lessons
def test_every_picture_of_a_lesson_exists_and_is_described_and_the_lesson_says_where_it_is(path):
    text = "\n".join(markdown(path))
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", text)
    for described, target in pictures:
        assert (path.parent / target).is_file(), target
        assert len(described) > 8, target
    assert f"../docs/diagrams/here_{path.stem[:2]}.svg" in [target for _, target in pictures]


@lessons
def test_lines_of_code_have_at_most_100_characters(path):
    code = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    code += re.findall(r"```python\n(.*?)```", "\n".join(markdown(path)), re.S)
    assert not [line for cell in code for line in cell.splitlines() if len(line) > 100]


@lessons
def test_paragraphs_have_at_most_90_words(path):
    text = re.sub(r"```.*?```|\$\$.*?\$\$|<[^>]+>", " ", "\n\n".join(markdown(path)), flags=re.S)
    paragraphs = [p for p in re.split(r"\n\s*\n", text) if not p.lstrip().startswith(("#", "|", "!"))]
    items = [item for p in paragraphs for item in re.split(r"\n(?=\s*(?:[-*]|\d+\.) )", p)]
    assert not [item for item in items if len(re.sub(r"\$[^$]*\$", "x", item).split()) > 90]


@lessons
def test_every_symbol_of_a_lesson_is_on_the_notation_page(path):
    known = symbols(" ".join(notation()))
    assert not symbols("\n".join(markdown(path))) - known


def test_the_notation_page_gives_each_symbol_once():
    cells = [symbol for cell in notation() for symbol in re.findall(r"\$([^$]+)\$", cell)]
    assert len(cells) > 50 and len(cells) == len(set(cells))


def test_a_figure_is_stored_at_twice_the_size_in_few_colours_that_hold_those_of_the_language():
    truth = torch.zeros(5, 96, 96)
    truth[:, 20:60, 30:70] = 1
    rows = {"truth": (truth, figures.TRUTH), "marked": (truth, figures.PREDICTION)}
    data, shown = figures._png(figures.strip(torch.randn(5, 3, 96, 96), rows, torch.randn(5, 1, 96, 64), "noise"))
    image = Image.open(io.BytesIO(data))
    assert image.mode == "P" and image.width // 2 == shown["width"] == pytest.approx(800, abs=10)
    image = image.convert("RGB")
    assert image.getpixel((1, 1)) == (255, 255, 255)
    counts = {colour: count for count, colour in image.getcolors(256)}
    assert counts[ImageColor.getrgb(figures.TRUTH)] > 5 * 4 * 100  # the contours of five seconds


def test_a_frame_stays_bright_and_a_mask_of_nothing_draws_nothing():
    frame, nothing = torch.zeros(3, 32, 32), torch.zeros(32, 32)
    given = [figures.frame_with(None, frame, nothing, nothing, mask) for mask in (None, torch.eye(4))]
    bright, axis = figures.grid({"row": given}).axes[:2]
    assert (bright.images[0].get_array() == figures.picture(frame)).all()
    greys = axis.images[0].get_array()  # under the cells of a mask, which the frame's colours would hide
    assert np.ptp(greys, -1).max() == 0 and np.ptp(figures.picture(frame), -1).min() > 0.05
    assert greys[0, 0, 0] == pytest.approx(figures.picture(frame)[0, 0] @ [0.2126, 0.7152, 0.0722], abs=1e-6)
    assert [float(image.get_array()[..., 3].max()) for image in axis.images[1:]] == pytest.approx([0, 0.55])
    assert axis.images[2].get_array().shape == (4, 4, 4)


def test_dots_fit_their_axis_to_the_values_and_maps_share_their_range():
    low, high = figures.dots({"PCMANet": [0.70, 0.75], "AVS": [0.72]}).axes[0].get_xlim()
    assert 0.68 < low < 0.70 and 0.75 < high < 0.77
    drawn = figures.maps({"a": [torch.zeros(2, 2), torch.full((2, 2), 3.0)]}).axes
    assert [axis.images[0].get_clim() for axis in drawn[:2]] == [(0, 3), (0, 3)] and len(drawn) == 3  # the bar is the third
