"""The explorers: their data are the library's, and what a reader moves in Chromium shows what Python computes."""

import base64
import functools
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from chromium import CHROMIUM
from PIL import Image, ImageColor

from pcma_lib import FMeasure, MeanIoU
from pcma_lib.measure.complexity import qsca_macs
from pcma_lib.network.audio import LogMel, mel_filters
from pcma_lib.notebook import explorers, figures, journey

ROOT = Path(__file__).resolve().parents[1]
LOOKS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
BOTH = {"the drum": None, "the clock": "other_object"}
MAKERS = {
    "confidence": lambda: explorers.confidence(journey.model(), journey.clip()),
    "sounds": lambda: explorers.sounds(journey.model(), journey.clips()),
    "metrics": lambda: explorers.metrics(journey.model(), journey.clip()),
    "runs": lambda: explorers.runs(json.loads((ROOT / "docs" / "results" / "rates.json").read_text())),
    "mel": lambda: explorers.mel(glide()),
    "groups": lambda: explorers.groups(journey.model(), journey.clips(), journey.NUMBER, BOTH, 3),
    "looks": lambda: explorers.looks(journey.model(), journey.clip()),
    "network": lambda: explorers.network(journey.model(), journey.clip()),
}
every = pytest.mark.parametrize("kind", MAKERS)


def in_chromium(test):
    return pytest.mark.browser(pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in the PATH")(test))


@pytest.fixture(scope="module")
def made():
    """A function: the explorer of a kind, made once."""
    found = {}

    def make(kind):
        if kind not in found:
            found[kind] = MAKERS[kind]()
        return found[kind]

    return make


def numbers(packed):
    """What `numbers` of explorers.js makes of a packed array."""
    stored = np.frombuffer(base64.b64decode(packed["data"]), packed["type"]).reshape(packed["shape"])
    return packed["low"] + packed["step"] * stored if "step" in packed else stored


def masks(packed):
    """What `masks` of explorers.js makes of packed masks."""
    whole = [np.repeat(np.arange(len(runs)) % 2, runs) for runs in map(numbers, packed["runs"])]
    return np.stack(whole).reshape(packed["shape"])


def at_threshold(c):
    """What the shipped model says of the journey's clip with CIM's threshold at c."""
    model, clip = journey.model(), journey.clip()
    cim = model.network.cim
    cim.threshold = c
    try:
        with torch.no_grad():
            return model(clip.frames[None], clip.log_mel[None])
    finally:
        cim.threshold = 0.99


class Parts(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)


@every
def test_an_explorer_is_one_element_with_its_data_its_script_and_a_picture_under_400_kb(kind, made):
    explorer = made(kind)
    text = explorer._repr_html_()
    assert len(text.encode()) < explorers.LIMIT, len(text.encode())
    parts = Parts(text)
    assert [tag for tag, _ in parts.tags] == ["div", "img", "script", "script"]
    (_, root), (_, image), *_ = parts.tags
    assert root == {"class": "pcma-explorer", "data-kind": kind}
    assert image["alt"] == repr(explorer) and len(repr(explorer).split()) > 6
    shown = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
    assert shown.width > 1000 and len(shown.convert("RGB").getcolors(2**20)) > 50
    data, script = [t for t in parts.texts if t.strip()]
    embedded = json.loads(data)
    assert embedded.pop("colours")["truth"] == figures.TRUTH and embedded == json.loads(json.dumps(explorer.data))
    assert f"EXPLORERS.{kind} = " in script and "http" not in script.replace("http://www.w3.org/2000/svg", "")


def test_arrays_and_masks_are_packed_as_they_are_and_limits_keep_256_steps():
    values = np.random.default_rng(0).normal(size=(3, 4, 5))
    assert np.array_equal(numbers(explorers._packed(values)), values.astype(np.float32))
    found = numbers(explorers._packed(values, (-2, 2)))
    assert np.abs(found - values.clip(-2, 2)).max() < 2 / 255 + 1e-9
    for some in (values > 0, values > 9, values > -9, np.zeros((2, 300, 300), bool)):
        assert np.array_equal(masks(explorers._runs(some)), some)


def test_confidence_holds_what_the_network_says_at_every_threshold(made):
    data, model, clip = made("confidence").data, journey.model(), journey.clip()
    cim, steps = model.network.cim, data["steps"]
    assert cim.threshold == data["trained"] == 0.99 and [s["c"] for s in steps] == list(explorers.THRESHOLDS)
    for step in (steps[0], steps[-1]):
        out = at_threshold(step["c"])
        for packed, stage in zip(step["logits"], out.stages[:0:-1], strict=True):
            assert np.array_equal(numbers(packed), stage[0, :, 0])
        assert np.array_equal(masks(step["marked"]), out.finest[0, :, 0] > 0)
    assert np.array_equal(masks(data["truth"]), clip.masks > 0)


def test_sounds_holds_the_masks_of_model_and_truth_under_each_control(made):
    data, clips, model = made("sounds").data, journey.clips(), journey.model()
    assert [s["name"] for s in data["sounds"]][:2] == ["its own sound", "silence"]
    for control, sound in zip(explorers.SOUNDS, data["sounds"], strict=True):
        clip = clips.with_sound(control)[journey.NUMBER]
        with torch.no_grad():
            marked = model(clip.frames[None], clip.log_mel[None]).finest[0, :, 0] > 0
        assert np.array_equal(masks(sound["marked"]), marked)
        truth = clip.masks > 0 if control in (None, "other_object") else torch.zeros_like(clip.masks)
        assert np.array_equal(masks(sound["truth"]), truth)


def test_runs_takes_recipes_seeds_and_curves_and_leaves_out_what_failed():
    point = {"epoch": 2.0, "miou": 0.25, "miou_whole_set": 0.125}
    row = {"preset": "demo", "settings": {"seed": 1}, "best": point, "test": {"miou": 0.5}, "seconds": 60.0}
    rows = {"AVS, seed 1": {**row, "validation": [point, {**point, "epoch": 4.0}]}, "AVS, seed 2": {**row, "error": "no"}}
    (run,) = explorers.runs(rows).data["rows"]
    assert (run["recipe"], run["seed"], run["preset"], run["settings"]) == ("AVS", "1", "demo", {"seed": "1"})
    assert run["curve"] == {"epoch": [2, 4], "per frame": [0.25, 0.25], "whole set": [0.125, 0.125]}
    assert run["values"][:4] == [0.5, None, None, 0.125] and run["values"][-1] == 60
    with pytest.raises(ValueError, match="no run with a test among the 1 rows: AVS, seed 2"):
        explorers.runs({"AVS, seed 2": rows["AVS, seed 2"]})


def glide():
    """Lesson 01's sound [80000]: a tone from 200 to 6000 Hz, and a click a second."""
    t = np.arange(5 * 16000) / 16000
    wave = 0.3 * np.sin(2 * np.pi * (200 * t + 0.5 * (6000 - 200) / 5 * t**2))
    wave[::16000] += 0.6
    return wave


@functools.lru_cache(maxsize=1)
def journeys():
    """Every tensor of the journey's clip under its own sound and under the silent object's."""
    return [journey.tensors(journey.model(), journey.clip(sound)) for sound in (None, "other_object")]


def test_mel_holds_the_samples_with_16_bits_which_hardly_changes_what_vggish_hears(made):
    kept = numbers(made("mel").data["wave"])
    assert kept.dtype == np.int16 and np.abs(kept / 32767 - glide()).max() <= 0.5 / 32767 + 1e-9
    change = (LogMel()(kept / 32767) - LogMel()(glide())).abs()  # all of it where there is silence
    assert change.max() < 0.2 and change.mean() < 0.02


def test_mel_takes_silence_and_the_lowest_tone():
    for hertz in (0, 130):
        data = explorers.mel(np.sin(2 * np.pi * hertz * np.arange(16000) / 16000)).data
        assert data["slice"] == 48 and data["band"] == 0


def test_groups_holds_the_attention_of_every_stage_under_both_sounds_in_hundredths(made):
    data = made("groups").data
    assert data["names"] == ["the drum", "the clock"] and data["groups"] == 8
    for stages, truth, found, sound in zip(
        data["attention"], data["truth"], journeys(), (None, "other_object"), strict=True
    ):
        for i in range(1, 5):
            wanted = found[f"attention_{i}"]
            assert np.abs(numbers(stages[i]) - wanted.numpy()).max() <= 0.005 + 1e-6, i
        assert np.array_equal(masks(truth), journey.clip(sound).masks > 0)
    row, column = data["pixel"]
    assert journey.clip().masks[data["second"], row, column]


def test_looks_holds_both_attentions_who_may_ask_and_how_much_falls_on_the_object(made):
    data, (found, _) = made("looks").data, journeys()
    truth = journey.clip().masks.numpy() > 0
    assert np.array_equal(masks(data["truth"]), truth)
    for i, stage in data["stages"].items():
        looks, hears = found[f"looks_{i}"].numpy(), found[f"hears_{i}"].numpy()
        side = looks.shape[-1]
        assert np.abs(numbers(stage["looks"]) - looks * 5 * side**2).max() <= 0.05 + 1e-3
        assert np.abs(numbers(stage["hears"]) - hears).max() <= 0.005 + 1e-6
        asks = masks(stage["asks"])
        assert asks.all() if i == 4 else np.array_equal(asks, found[f"M_{i}"][:, 0])
        share = truth.reshape(5, side, 128 // side, side, 128 // side).mean((2, 4))  # of each token that the object fills
        assert stage["fills"] == round(100 * share.mean())
        for h, k in np.ndindex(looks.shape[:2]):
            assert abs(stage["on_object"][h][k] - 100 * (looks[h, k] * share).sum()) < 0.51


def test_network_meets_every_tensor_of_the_diagram_once_and_holds_what_is_in_it(made):
    data, (found, _) = made("network").data, journeys()
    steps = {step["name"]: step for step in data["steps"]}
    plain = {name: name.translate(str.maketrans({sub: f"_{n}" for n, sub in enumerate("₀₁₂₃₄")})) for name in steps}
    tensors = {"A", "E", *(f"{letter}_{i}" for letter in "FPVGXOA" for i in range(1, 5)), "M_1", "M_2", "M_3"}
    assert len(steps) == len(data["steps"]) and set(plain.values()) == tensors | {"frames", "resize, sigmoid: mask"}
    for name, step in steps.items():
        if plain[name] not in tensors:
            continue
        values = found[plain[name]]
        assert step["shape"] == str(list(values.shape))
        if step["kind"] == "mask":
            assert np.array_equal(masks(step["masks"]), values[:, 0])
            assert f"{int(values.sum())} of {values.numel()} may ask" in step["said"]
        else:
            shown = {"features": lambda v: v.mean(1), "vector": lambda v: v[:, None], "sound": lambda v: v[:, 0].mT.flip(1)}
            shown |= {"probability": lambda v: v[:, 0].sigmoid()}
            packed = step["maps"]
            assert np.abs(numbers(packed) - shown[step["kind"]](values).numpy()).max() <= 0.51 * packed["step"], name
        if step["kind"] == "features":
            some = values[data["second"]][step["chosen"]]
            assert np.abs(numbers(step["some"]) - some.numpy()).max() <= 0.51 * step["some"]["step"]
            varied = values[data["second"]].flatten(1).std(1).numpy()
            assert varied[step["chosen"]].min() >= np.sort(varied)[-8]
    with torch.no_grad():
        clip = journey.clip()
        marked = journey.model()(clip.frames[None], clip.log_mel[None]).finest[0, :, 0].numpy() > 0
    last, truth = data["steps"][-1], clip.masks.numpy() > 0
    assert np.array_equal(masks(last["masks"]), marked)
    assert f"IoU with the truth is {(marked & truth).sum() / (marked | truth).sum():.2f}" in last["said"]


def test_each_tensor_of_the_network_is_lit_where_the_diagram_writes_its_name(made):
    data = made("network").data
    drawing = ElementTree.fromstring(base64.b64decode(data["diagram"].partition(",")[2]))
    words = [(e.text, float(e.get("x")), float(e.get("y"))) for e in drawing.iter("{http://www.w3.org/2000/svg}text")]
    for step in data["steps"]:
        left, top, width, height = step["place"]
        assert 0 <= left and left + width <= data["size"][0] and 0 <= top and top + height <= data["size"][1]
        inside = [text for text, x, y in words if left <= x <= left + width and top <= y <= top + height]
        assert any(text == step["name"] or text.startswith(f"{step['name']}: ") for text in inside), step["name"]
        assert len(inside) <= 3, inside
    with pytest.raises(ValueError, match="the diagram of the network has no Q₄"):
        explorers._place(drawing.text or "", "Q₄")


PAGE = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>
:root { color-scheme: light dark; } body { background: Canvas; color: CanvasText; font: 16px sans-serif; margin: 8px; }
</style>"""


BEYOND = """() => [...document.querySelectorAll('.pcma-body *')]
    .filter(e => e.checkVisibility() && !e.closest('.pcma-sheet') && e.getBoundingClientRect().right > innerWidth)
    .map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture
def opened(browser, made, tmp_path):
    """A function that opens a page with explorers, of a kind each. The browser must have nothing to complain about."""
    contexts, said = [], []

    def open_page(*wanted, width=1280, theme="light"):
        shown = [made(kind) if isinstance(kind, str) else kind for kind in wanted]
        page = tmp_path / "page.html"
        page.write_text(PAGE + "".join(explorer._repr_html_() for explorer in shown), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: message.type == "error" and said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: request.url.startswith(("file:", "data:")) or said.append(request.url))
        tab.goto(page.as_uri())
        tab.wait_for_function("n => document.querySelectorAll('[data-ready]').length === n", arg=len(shown))
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def state(tab, what="", number=0):
    """Of an explorer on the page: its state, or the part of it that an expression such as ".kept" names."""
    return tab.evaluate(f"[...document.querySelectorAll('.pcma-explorer')][{number}].explorer.state{what}")


def said(tab):
    return tab.locator(".pcma-said").inner_text().replace("\u00a0", " ")


def cells(tab, row):
    """The texts of a row of the tables, by the start of its first cell."""
    lines = tab.locator("tbody tr").evaluate_all("all => all.map(r => [...r.cells].map(c => c.textContent).join('|'))")
    found = [line.replace("\u00a0", " ").split("|") for line in lines]
    return next(texts[1:] for texts in found if texts[0].startswith(row))


def seen(tab, number=0):
    """The pixels of a canvas, [H, W, 3]."""
    data = tab.locator("canvas").nth(number).evaluate("c => c.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGB")).astype(int)


def changed(image, other, size):
    """Whether two pictures differ anywhere in a cell, for the cells of a grid of size x size."""
    return (image != other).any(-1).reshape(size, len(image) // size, size, -1).any((1, 3))


@every
@in_chromium
def test_an_explorer_fits_a_screen_and_a_phone_in_light_and_in_dark(kind, opened, tmp_path):
    for width, theme in LOOKS:
        tab = opened(kind, width=width, theme=theme)
        assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        assert tab.locator(".pcma-explorer > img").count() == 0 and tab.locator(".pcma-body").is_visible()
        assert tab.evaluate(BEYOND) == []
        tab.screenshot(path=tmp_path / f"{kind}_{width}_{theme}.png", full_page=True)


@in_chromium
def test_explorers_on_one_page_do_not_disturb_each_other(opened):
    tab = opened("confidence", *MAKERS, "confidence")
    last = len(MAKERS) + 1
    tab.get_by_label("threshold c").first.press("Home")
    assert [state(tab, ".c", number) for number in (0, last)] == [0.6, 0.99]
    assert tab.locator("style#pcma-explorer-style").count() == 1


@in_chromium
def test_without_scripts_the_picture_and_its_description_are_there(made, browser, tmp_path):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    (tmp_path / "page.html").write_text(PAGE + made("confidence")._repr_html_(), encoding="utf-8")
    tab.goto((tmp_path / "page.html").as_uri())
    picture = tab.get_by_alt_text(repr(made("confidence")))
    assert picture.bounding_box()["height"] > 100 and tab.locator(".pcma-body").count() == 0
    context.close()


@in_chromium
def test_confidence_shows_the_masks_the_operations_and_the_miou_of_every_threshold(opened):
    tab, clip, network = opened("confidence"), journey.clip(), journey.model().network
    threshold, second = (tab.get_by_role("slider", name=name) for name in ("threshold c", "second"))
    channels, seconds = network.audio.out_features, len(clip.frames)
    threshold.focus()
    tab.keyboard.press("Home")
    before = None
    for c in explorers.THRESHOLDS:
        out, metric = at_threshold(c), MeanIoU()
        metric.update(out.finest, clip.masks[None])
        kept = [int(mask.sum()) for mask in out.masks]
        tokens = [out.stages[-1].numel(), *(mask.numel() for mask in out.masks)]
        macs = sum(qsca_macs(n, asked, seconds, channels) for n, asked in zip(tokens, (tokens[0], *kept)))
        assert threshold.get_attribute("aria-valuetext") == str(c) and state(tab, ".kept") == kept
        assert [int(cells(tab, f"M{n}")[0]) for n in "₃₂₁"] == kept
        assert state(tab, ".macs") == macs and cells(tab, "QSCA")[0] == f"{macs / 1e6:.2f}"
        assert said(tab).endswith(f"mIoU of the clip is {metric.compute():.3f}.")
        k = state(tab, ".second")
        found = [seen(tab, n) for n in range(3)]
        if before:
            for new, old, mask, other in zip(found, before[0], out.masks, before[1].masks):
                assert np.array_equal(changed(new, old, mask.shape[-1]), (mask != other)[0, k, 0])
        before = found, out
        tab.keyboard.press("ArrowRight")
    assert len(np.unique(before[0][0])) > 20  # a picture, not a blank canvas
    box = threshold.bounding_box()
    tab.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    assert state(tab, ".c") == 0.6
    box = second.bounding_box()
    tab.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    assert state(tab, ".second") == seconds - 1 and not np.array_equal(seen(tab), before[0][0])


@in_chromium
def test_sounds_plays_and_shows_each_sound_with_its_masks(opened, made):
    tab, data = opened("sounds"), made("sounds").data
    slider, play = tab.get_by_role("slider", name="time"), tab.get_by_role("button", name="play")
    truth_box, marks_box = tab.get_by_label("truth (green line)"), tab.get_by_label("what the network marks")
    truth_box.uncheck()
    for number, sound in enumerate(data["sounds"]):
        if number % 2:
            tab.get_by_role("radio", name=sound["name"]).check()
        elif number:  # from the one before, by the keyboard
            tab.get_by_role("radio", name=data["sounds"][number - 1]["name"]).press("ArrowRight")
        marked, truth = masks(sound["marked"]), masks(sound["truth"])
        assert tab.locator("svg image").get_attribute("href") == sound["spectrogram"]
        for k in (1, 3):
            slider.fill(str(k + 0.5))
            shown = seen(tab)
            marks_box.uncheck()
            assert np.array_equal(changed(shown, seen(tab), 128), marked[k] > 0)
            marks_box.check()
            wanted = f"marks {100 * marked[k].mean():.1f} % of second {k} and {100 * marked.mean():.1f} % of the clip."
            assert f"Under {sound['name']}, the network {wanted}" in said(tab)
        iou = (marked & truth).sum() / (marked | truth).sum() if truth.any() else None
        assert said(tab).endswith("to mark nothing." if iou is None else f"with the truth is {iou:.3f}.")
    plain = seen(tab)
    tab.get_by_role("radio", name=data["sounds"][0]["name"]).check()
    truth_box.check()
    green = (seen(tab) - ImageColor.getrgb(figures.TRUTH) == 0).all(-1).sum()
    assert green > 200 and (plain - ImageColor.getrgb(figures.TRUTH) == 0).all(-1).sum() == 0
    slider.focus()
    tab.keyboard.press("Home")
    assert state(tab, ".time") == 0
    play.press("Enter")
    tab.wait_for_function("document.querySelector('.pcma-explorer').explorer.state.time > 1.2")
    tab.get_by_role("button", name="pause").click()
    stopped = state(tab, ".time")
    assert 1.2 < stopped < 4 and state(tab, ".second") == int(stopped) and not state(tab, ".playing")
    tab.get_by_role("button", name="second 4").click()
    assert state(tab, ".second") == 4
    box = tab.locator("svg").bounding_box()
    tab.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.4)
    assert state(tab, ".second") == 2


def disc(x, y, radius, side=128):
    down, across = np.mgrid[:side, :side]
    return (down - y) ** 2 + (across - x) ** 2 <= radius**2


@in_chromium
def test_metrics_follow_a_mask_that_is_painted_by_mouse_and_by_keyboard(opened):
    tab, clip = opened("metrics"), journey.clip()
    truth, canvas = clip.masks > 0, tab.get_by_role("application")

    def painted():
        text = "".join(state(tab, ".painted.map(values => values.join(''))"))
        return np.frombuffer(text.encode(), np.uint8).reshape(truth.shape) == ord("1")

    def check():
        """All numbers on the page are those of the library for what is painted."""
        mask = torch.from_numpy(painted())
        logits = torch.where(mask, 5.0, -5.0)[:, None]
        for row, metric in (
            ("mIoU, the mean", MeanIoU()), ("mIoU of the whole", MeanIoU("set")), ("F-measure", FMeasure(0.5)),
        ):  # fmt: skip
            metric.update(logits, clip.masks)
            assert float(*cells(tab, row)) == pytest.approx(metric.compute().item(), abs=0.0006), row
        for k in range(len(mask)):
            metric, f = MeanIoU(), FMeasure(0.5)
            for each in (metric, f):
                each.update(logits[k : k + 1], clip.masks[k : k + 1])
            counts = [truth[k], mask[k], truth[k] & mask[k], truth[k] | mask[k]]
            *found, iou, f_measure = cells(tab, str(k))
            assert found == [str(int(c.sum())) for c in counts]
            assert float(iou) == pytest.approx(metric.compute().item(), abs=0.0006)
            wanted = pytest.approx(f.compute().item(), abs=0.0006)
            assert float(f_measure) == wanted if truth[k].any() else f_measure == "–"

    with torch.no_grad():
        model = journey.model()(clip.frames[None], clip.log_mel[None]).finest[0, :, 0] > 0
    assert np.array_equal(painted(), model)
    check()
    tab.get_by_role("button", name="nothing in all seconds").click()
    assert not painted().any()
    check()  # the frame in which nothing sounds lifts the mean over the frames to a fifth
    assert cells(tab, "mIoU, the mean") == ["0.200"] and cells(tab, "mIoU of the whole") == ["0.000"]

    before, box = seen(tab), canvas.bounding_box()
    pixel = box["width"] / 128
    tab.mouse.move(box["x"] + 30.5 * pixel, box["y"] + 40.5 * pixel)
    tab.mouse.down()
    assert np.array_equal(painted()[4], disc(30, 40, 6))
    tab.mouse.move(box["x"] + 90.5 * pixel, box["y"] + 40.5 * pixel)
    tab.mouse.up()
    stroke = painted()[4]
    assert all((stroke & disc(x, 40, 6)).sum() == disc(x, 40, 6).sum() for x in range(30, 91))
    assert not stroke[:34].any() and not stroke[47:].any() and not stroke[:, :24].any() and not stroke[:, 97:].any()
    check()
    tab.get_by_role("slider", name="brush").focus()  # the cursor's circle goes
    assert np.array_equal(changed(seen(tab), before, 128), stroke)

    tab.get_by_role("slider", name="brush").press("Home")
    tab.get_by_role("slider", name="brush").press("ArrowRight")
    tab.get_by_role("slider", name="second").press("Home")
    canvas.focus()
    for key in ("ArrowLeft", "Shift+ArrowUp", "Space"):
        tab.keyboard.press(key)
    x, y = state(tab, ".cursor")
    assert (x, y) == (86, 39) and np.array_equal(painted()[0], disc(x, y, 2))
    check()
    tab.get_by_role("radio", name="paint").press("ArrowRight")
    canvas.press("Space")
    assert tab.get_by_role("radio", name="erase").is_checked() and not painted()[0].any()
    for name, wanted in {"everything": np.ones(truth.shape[1:]), "the truth": truth[0], "as the network": model[0]}.items():
        tab.get_by_role("button", name=f"mark {name}").click()
        assert np.array_equal(painted()[0], wanted)
        check()


@in_chromium
def test_runs_stand_where_their_measure_puts_them_and_show_settings_and_curves(opened):
    rows = json.loads((ROOT / "docs" / "results" / "rates.json").read_text())
    tab = opened("runs")
    dots = [tab.get_by_role("button", name=f"{name}: ") for name in rows]
    for label, path in {"test mIoU, per frame": ("test", "miou"), "time of the run": ("seconds",)}.items():
        tab.get_by_label("Show the").select_option(label)
        values = [functools.reduce(dict.get, path, row) for row in rows.values()]
        tab.wait_for_timeout(500)  # the dots move
        boxes = [dot.bounding_box() for dot in dots]
        places = np.array([box["x"] + box["width"] / 2 for box in boxes])
        slope, start = np.polyfit(values, places, 1)
        assert slope > 0 and np.abs(start + slope * np.array(values) - places).max() < 0.5
    name = "PCMANet, rate 0.001"
    dots[list(rows).index(name)].click()
    assert f"{name}: time of the run {rows[name]['seconds']:.0f} s." in said(tab)
    assert cells(tab, "learning_rate") == ["0.001"]
    name = "vision only, rate 0.002"
    tab.get_by_role("button", name=f"{name}: ").press("Enter")
    test, best = rows[name]["test"], rows[name]["best"]
    assert cells(tab, "listen") == ["false"] and cells(tab, "test F-measure") == [f"{test['f_measure']:.3f}"]
    assert cells(tab, "best validation") == [f"{best['miou_whole_set']:.3f}"]
    assert cells(tab, "mIoU lost") == [f"{100 * test['controls']['swapped']['drop']:.1f} %"]
    assert tab.locator("polyline").count() == 2
    tab.get_by_label("Show the").focus()
    tab.keyboard.press("ArrowUp")
    assert state(tab, ".measure") == len(explorers.MEASURES) - 2


@in_chromium
def test_runs_of_several_seeds_have_a_mean_and_their_curves_lie_over_each_other(opened):
    rows = {}
    for seed in range(3):
        points = [{"epoch": e, "miou": 0.1 * e + 0.1 * seed, "miou_whole_set": 0.1 * e} for e in (1.0, 2.0, 4.0)]
        test = {"miou": 0.5 + 0.1 * seed}
        rows[f"AVS, seed {seed}"] = {"settings": {"seed": seed}, "best": points[2], "test": test, "validation": points}
    tab = opened(explorers.runs(rows))
    assert tab.locator(".pcma-mean").all_inner_texts()[0] == "0.600"
    tab.get_by_role("button", name="AVS, seed 2: 0.700").click()
    lines = [p.split() for p in tab.locator("polyline").evaluate_all("all => all.map(p => p.getAttribute('points'))")]
    assert [len(points) for points in lines] == [3] * 4  # two other seeds, per frame, whole set
    across, up = np.array([[float(v) for v in point.split(",")] for point in lines[2]]).T
    assert np.diff(across)[1] == pytest.approx(2 * np.diff(across)[0], abs=0.2)
    assert np.diff(up)[1] == pytest.approx(2 * np.diff(up)[0], abs=0.2) and up[2] < up[0]


def magma(share):
    """The colours of shares of a range in the figures, 0 to 255."""
    return 255 * np.array(figures.plt.colormaps["magma"](np.clip(share, 0, 1)))[..., :3]


def quarters(image, side):
    """A pixel of each cell of a map of side x side, off its middle: neither a frame around it nor a grid crosses it."""
    step = image.shape[0] / side
    places = (np.arange(side) * step + 0.4 * step).astype(int)
    return image[np.ix_(places, places)]


def is_shown(image, shares):
    """Whether a canvas shows a map of shares of the range. A green contour may hide some of its cells."""
    return (np.abs(quarters(image, len(shares)) - magma(shares)).max(-1) > 16).mean() < 0.2


@in_chromium
def test_mel_computes_what_the_front_end_computes_and_plays_the_sound_and_one_band(opened, made):
    tab = opened("mel")
    wave = numbers(made("mel").data["wave"]) / 32767
    log_mel = LogMel()(wave).reshape(-1, 64).numpy()
    slices, bands = tab.get_by_role("slider", name="slice"), tab.get_by_role("slider", name="band")
    found = tab.evaluate("""() => { const {value} = document.querySelector('.pcma-explorer').explorer;
        return Array.from({length: 480}, (_, m) => Array.from({length: 64}, (_, b) => value(m, b))); }""")
    assert np.abs(np.array(found) - log_mel).max() < 1e-3
    picture = seen(tab)[2::4, ::2].transpose(1, 0, 2)[:480, ::-1]  # [480, 64, 3]
    assert (np.abs(picture - magma((log_mel + 4.6) / 6.6)).max(-1) > 16).mean() < 0.05

    def hears(b):  # the lowest and the highest frequency
        return (31.25 * mel_filters()[:, b].nonzero()[[0, -1], 0]).tolist()

    def check(m, b):
        assert state(tab) == {"slice": m, "band": b, "playing": False}
        assert (slices.input_value(), bands.input_value()) == (str(m), str(b))
        low, high = hears(b)
        text = tab.locator(".pcma-said").inner_text()
        assert text.startswith(f"Slice {m} starts at {m / 100:.2f} s") and text.endswith(f"= {log_mel[m, b]:.2f}.")
        start, end = map(float, re.search(r"listens from (\d+) to (\d+) Hz", text).groups())
        assert start - 1 < low < start + 32 and end - 32 < high < end + 1

    before = tab.locator(".pcma-panel svg").evaluate_all("all => all.map(image => image.innerHTML)")
    slices.focus()
    tab.keyboard.press("Home")
    bands.focus()
    for _ in range(3):
        tab.keyboard.press("ArrowLeft")
    check(0, made("mel").data["band"] - 3)
    after = tab.locator(".pcma-panel svg").evaluate_all("all => all.map(image => image.innerHTML)")
    assert all(old != new for old, new in zip(before, after, strict=True))
    tab.get_by_label("log-mel values of the sound").hover(position={"x": 300, "y": 40})
    box = tab.get_by_label("log-mel values of the sound").bounding_box()
    check(int(300 / box["width"] * 498), 63 - int(40 / box["height"] * 64))
    ladder = tab.get_by_label("the 64 bands, even in mel and uneven in hertz").bounding_box()
    tab.mouse.move(ladder["x"] + ladder["width"] * (10 + 340 * 21 / 65) / 360, ladder["y"] + 30)  # the middle of band 20
    check(state(tab, ".slice"), 20)

    band = np.array(tab.evaluate("[...document.querySelector('.pcma-explorer').explorer.filtered(20)]"))
    power, frequencies = np.abs(np.fft.rfft(band)) ** 2, np.fft.rfftfreq(len(band), 1 / 16000)
    low, high = hears(20)
    assert power[(frequencies > low - 60) & (frequencies < high + 60)].sum() > 0.9 * power.sum() > 0
    for name in ("the whole sound", "this band alone"):
        tab.get_by_role("button", name=name).press("Enter")
        assert state(tab, ".playing")
        tab.wait_for_function("document.querySelector('.pcma-explorer').explorer.state.slice > 20")
        assert state(tab, ".slice") < 400
    tab.get_by_label("play a tone").check()
    bands.press("ArrowRight")
    assert state(tab, ".band") == 21


@in_chromium
def test_groups_shows_the_cosines_of_the_place_under_the_mouse_for_both_sounds(opened):
    tab, found = opened("groups"), journeys()
    frame = tab.get_by_label("The frame. Point at")

    def check(sound, stage, second, row, column):
        now = state(tab)
        assert (now["sound"], int(now["stage"]), now["second"], now["place"]) == (sound, stage, second, [row, column])
        here, there = (found[k][f"attention_{stage}"][second].numpy() for k in (sound, 1 - sound))  # [g, h, w]
        assert tab.locator(".pcma-bars output").all_inner_texts() == [f"{v:.2f}" for v in here[:, row, column]]
        ticks = tab.locator(".pcma-bar u").evaluate_all("all => all.map(tick => parseFloat(tick.style.left))")
        assert np.abs(np.array(ticks) - 100 * there[:, row, column]).max() < 0.51
        for n, shown in enumerate(here):
            assert is_shown(seen(tab, n + 1), shown), n
        best = here[:, row, column].round(2).argmax()
        said = tab.locator(".pcma-said").inner_text()
        assert said.startswith(f"Row {row + 1}, column {column + 1} of") and f"Group {best + 1} agrees most" in said
        degrees = float(re.search(r"angle of (\d+) degrees", said)[1])
        assert abs(np.cos(np.radians(degrees)) - here[best, row, column]) < 0.02

    def point(x, y):
        box = frame.bounding_box()
        tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])

    point(0.3, 0.9)
    check(0, 4, 3, 3, 1)
    tab.get_by_label("the drum").press("ArrowRight")
    check(1, 4, 3, 3, 1)
    tab.get_by_label("1, fine").check()
    point(0.8, 0.7)
    check(1, 1, 3, 22, 25)
    frame.focus()
    for key in ("ArrowUp", "ArrowLeft", "ArrowLeft"):
        tab.keyboard.press(key)
    check(1, 1, 3, 21, 23)
    tab.get_by_label("frame of second").press("ArrowLeft")
    tab.get_by_label("the drum").check()
    check(0, 1, 2, 21, 23)
    box = tab.get_by_label("attention of group 4").bounding_box()
    tab.get_by_label("2", exact=True).check()
    tab.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.2 * box["height"])
    check(0, 2, 2, 3, 1)
    tab.get_by_role("button", name="listen").press("Enter")
    tab.wait_for_function("document.querySelector('.pcma-explorer').explorer.state.playing[0]")
    assert state(tab, ".playing") == [True, False]


@in_chromium
def test_looks_shows_where_a_second_looks_what_a_token_hears_and_whether_it_may_ask(opened):
    tab, (found, _) = opened("looks"), journeys()
    truth, slider = journey.clip().masks.numpy() > 0, tab.get_by_label("sound of second")

    def check(stage, second, frame, row, column):
        looks, hears = found[f"looks_{stage}"].numpy(), found[f"hears_{stage}"].numpy()
        side = looks.shape[-1]
        assert state(tab) == {"second": second, "token": [frame, row, column], "side": side}
        ratio = looks[:, second] * 5 * side**2  # [heads, T, s, s]
        for h, k in np.ndindex(4, 5):
            assert is_shown(seen(tab, 10 + 5 * h + k), ratio[h, k] / 4), (h, k)
        share = truth.reshape(5, side, 128 // side, side, 128 // side).mean((2, 4))
        notes = tab.locator(".pcma-strips small").all_inner_texts()
        on_object = [float(note.split()[0]) for note in notes if note.endswith("on the object")]
        assert np.abs(np.array(on_object) - 100 * (looks[:, second] * share).sum((1, 2, 3))).max() < 0.51
        shares = [float(text.split()[0]) for text in tab.locator(".pcma-share").all_inner_texts()]
        assert np.abs(np.array(shares).reshape(4, 5) - 100 * hears[:, frame, row, column]).max() < 0.51
        looking, hearing = tab.locator(".pcma-said").all_inner_texts()
        assert f"The sound of second {second} asks {5 * side**2} tokens" in looking
        gets = [float(x) for x in re.search(r"give it ([\d., ]+) times", hearing)[1].split(", ")]
        assert np.abs(np.array(gets) - ratio[:, frame, row, column]).max() < 0.051
        mask = found[f"M_{stage}"][:, 0].numpy() if stage < 4 else np.ones((5, side, side))
        assert ("It may ask" in hearing) == bool(mask[frame, row, column])
        assert tab.locator(".pcma-idle").count() == (0 if mask[frame, row, column] else 20)
        assert any(note.startswith(f"{int(mask.sum())} of" if stage < 4 else "all 80") for note in notes)
        return mask

    tab.get_by_label("may ask, second 1").hover(position={"x": 5, "y": 5})
    check(4, 4, 1, 0, 0)
    tab.get_by_label("sound, second 2").hover()
    check(4, 2, 1, 0, 0)
    tokens = tab.get_by_role("group", name="tokens")
    tokens.focus()
    for key in ("ArrowLeft", "ArrowDown", "ArrowDown"):  # over the edge of second 1 to second 0
        tab.keyboard.press(key)
    check(4, 2, 0, 2, 3)
    tab.get_by_label("4, coarse").press("ArrowRight")
    check(3, 2, 0, 2, 3)
    slider.press("Home")
    tab.get_by_label("1, fine").check()
    mask = check(1, 0, 0, 10, 14)
    for asks in (0, 1):
        frame, row, column = np.argwhere(mask == asks)[-1]
        box = tab.get_by_label(f"head 3, second {frame}").bounding_box()
        tab.mouse.move(box["x"] + (column + 0.5) / 16 * box["width"], box["y"] + (row + 0.5) / 16 * box["height"])
        check(1, 0, frame, row, column)
    tab.mouse.move(0, 0)
    plain = [seen(tab, 5 + k) for k in range(5)]
    tab.get_by_label("4, coarse").check()  # no token is left out there, and none is tinted
    for k, (before, mask_k) in enumerate(zip(plain, mask)):
        tinted = np.ptp(quarters(before, 16)[..., :3], -1) > 8  # the frame is in greys under the cells
        assert (tinted == (mask_k > 0)).mean() > 0.9
        assert (np.ptp(quarters(seen(tab, 5 + k), 16)[..., :3], -1) > 8).mean() > 0.5  # and bright without them


@in_chromium
def test_network_steps_through_all_tensors_and_shows_what_each_holds(opened, made):
    tab, data, (found, _) = opened("network"), made("network").data, journeys()
    steps, ahead, slider = data["steps"], tab.get_by_role("button", name="next"), tab.get_by_role("slider", name="step")
    view, title = tab.locator(".pcma-view"), tab.locator(".pcma-title")

    def check(at, second):
        step = steps[at]
        assert state(tab) == {"at": at, "second": second}
        assert title.inner_text() == f"{step['name']}: {step['shape']}"
        assert tab.locator(".pcma-said").first.inner_text() == step["said"]
        if step["kind"] == "features":
            shown = numbers(step["maps"])
            share = (shown - step["low"]) / (step["high"] - step["low"])
            assert is_shown(seen(tab, 0), share[second]) and is_shown(seen(tab, 1 + second), share[second])

    check(0, data["second"])
    for at in range(1, len(steps)):
        ahead.click()
        check(at, data["second"])
    assert ahead.is_disabled()
    slider.press("ArrowLeft")
    check(len(steps) - 2, data["second"])
    slider.press("Home")
    tab.get_by_role("slider", name="second").press("Home")
    check(0, 0)
    at = next(k for k, step in enumerate(steps) if step["name"] == "M₁")
    tab.get_by_role("button", name="M₁", exact=True).click()
    check(at, 0)
    tab.get_by_label("second 2", exact=True).hover()
    check(at, 2)
    marked = seen(tab, 0)
    tinted = np.ptp(quarters(marked, 16)[..., :3], -1) > 8  # the frame is in greys under the cells
    assert (tinted == (found["M_1"][2, 0].numpy() > 0)).mean() > 0.9
    tab.get_by_role("button", name="frames", exact=True).click()
    assert (np.ptp(quarters(seen(tab, 0), 16)[..., :3], -1) > 8).mean() > 0.5  # and bright without them
    tab.get_by_role("button", name="X₃", exact=True).click()
    box = tab.get_by_label("the tensor in the chosen second").bounding_box()
    tab.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.6 * box["height"])
    said = tab.locator(".pcma-said").all_inner_texts()[1]
    assert said.startswith("Row 5, column 3 in second 2: ")
    packed = next(step["maps"] for step in steps if step["name"] == "X₃")
    assert abs(float(said.split()[-1]) - found["X_3"][2].mean(0)[4, 2]) < 0.006 + packed["step"]
    tab.wait_for_timeout(600)  # while the diagram moves
    light, window = tab.locator(".pcma-light").bounding_box(), view.bounding_box()
    assert window["y"] <= light["y"] and light["y"] + light["height"] <= window["y"] + window["height"]
