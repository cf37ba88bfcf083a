"""The results in the README and in the notebooks' prose are those of docs/results, and what the README names exists."""

import json
import re
from importlib import import_module
from statistics import mean

import nbformat
import pytest

from pcma_lib.data.files import resolve

README = resolve("README.md").read_text()
SHIPPED = json.loads(resolve("pcma_lib/demo_model.json").read_text())
RUNS = {path.stem: json.loads(path.read_text()) for path in resolve("docs/results").glob("*.json")}
DEMO = {
    f"{name}, seed 0": RUNS[stem]
    for name, stem in (("PCMANet", "demo"), ("AVS", "demo_avs"), ("PCMANet, vision only", "demo_vision_only"))
}
SEEDS = {"demo": RUNS["seeds"] | DEMO, "stamps": RUNS["stamps"]}


def row(title, tests):
    """A line of the README's table from the test measures of a recipe's seeds, controls of those that mark something."""

    def of(control, measure, form):
        return form.format(mean(t["controls"][control][measure] for t in tests if t["marked"]))

    cells = [", ".join(f"{t['miou']:.3f}" for t in tests), f"{mean(t['miou_whole_set'] for t in tests):.3f}"]
    cells += [of("swapped", "drop", "{:.0%}"), of("noise", "marked", "{:.1%}"), of("other_object", "miou", "{:.2f}")]
    return f"| {title} | {' | '.join(cells).replace('%', ' %')} |"


@pytest.mark.parametrize(
    "data, name, title",
    [
        ("demo", "PCMANet", "PCMANet (`make train` is the first)"),
        ("demo", "PCMANet, late negatives", "the same, 15 % foreign sounds in the second half"),
        ("demo", "PCMANet, vision only", "PCMANet, vision only"),
        ("demo", "AVS", "AVS, the baseline"),
        ("demo", "AVS, rate 0.001", "AVS at half the rate"),
        ("demo", "PCMANet, rate 0.001", "PCMANet at half the rate"),
        ("stamps", "PCMANet", "PCMANet (`make stamps` is the first)"),
        ("stamps", "PCMANet, late negatives", "the same, 15 % foreign sounds in the second half"),
        ("stamps", "PCMANet, vision only", "PCMANet, vision only"),
        ("stamps", "AVS", "AVS, the baseline"),
        ("stamps", "AVS, rate 0.001", "AVS at half the rate (seeds 0 and 1)"),
    ],
)
def test_results_are_those_of_the_runs(data, name, title):
    part = README[README.index(f"**{data}**") :]
    runs = [SEEDS[data].get(f"{name}, seed {seed}") for seed in range(3)]
    tests = [run["test"] for run in runs if run]
    assert len(tests) == 3 or "(seed" in title
    assert row(title, tests) in part


def test_the_shipped_models_results_are_those_of_its_run():
    assert row("**the shipped demo model** (1200 clips, one seed)", [SHIPPED["test"]]) in README


def test_the_classes_that_failed_are_told():
    test = RUNS["stamps"]["PCMANet, all 48 classes, seed 0"]["test"]
    drop = f"{test['controls']['swapped']['drop']:.0%}".replace("%", " %")
    assert f"{test['miou']:.3f}, and another clip's sound takes {drop}" in README


def average(measure, name, data="demo", which="test"):
    return mean(measure(run[which]) for key, run in SEEDS[data].items() if key.startswith(f"{name}, seed"))


def miou(test):
    return test["miou"]


def swapped(test):
    return test["controls"]["swapped"]["drop"]


def other_object(test):
    return test["controls"]["other_object"]["miou"]


def percent(*shares):
    *first, last = (f"{100 * share:.0f}" for share in shares)
    return (", ".join(first) + " and " if first else "") + last + " %"


NOTHING = SEEDS["demo"]["AVS, seed 1"]["test"]["miou"]
UNHEARD = [swapped(SEEDS["stamps"][f"AVS, seed {seed}"]["unheard"]) for seed in range(3)]
LONG = [miou(run["test"]) for run in (SHIPPED, RUNS["demo_long_without"], RUNS["demo_long_early"])]
ABLATION = {name: row["test"]["miou"] for name, row in RUNS["ablation"].items()}
WITHOUT = average(miou, "PCMANet, confidence in bf16")
DEAF = [average(other_object, "PCMANet, vision only", "stamps", which) for which in ("test", "unheard")]
AHEAD = [average(miou, "PCMANet", "stamps") - average(miou, name, "stamps") for name in ("AVS", "AVS, rate 0.001")]
GAINED = [average(miou, "AVS, rate 0.001", data) - average(miou, "AVS", data) for data in ("demo", "stamps")]
AHEAD_AT_HALF = average(miou, "PCMANet, rate 0.001") - average(miou, "AVS, rate 0.001")
PCMANET_GAINED = average(miou, "PCMANet, rate 0.001") - average(miou, "PCMANet")


@pytest.mark.parametrize(
    "place, said",
    [
        ("README", f"({NOTHING:.3f} is what nothing is worth"),
        ("README", f"as before ({percent(average(swapped, 'PCMANet', 'stamps', 'unheard'))}), from AVS {percent(*UNHEARD)}"),
        ("03_avga", f"an mIoU {ABLATION['AVGA, QSCA, CIM'] - ABLATION['g = 8']:.2f} higher than g = 8"),
        ("09_ablation", f"AVGA against the baseline, {ABLATION['AVGA'] - ABLATION['baseline']:.3f},"),
        ("10_comparison", f"That is worth {NOTHING:.3f} here"),
        ("10_comparison", f"it is {WITHOUT - average(miou, 'PCMANet, negatives'):.2f} of mIoU on average"),
        ("10_comparison", f"second half it is {WITHOUT - average(miou, 'PCMANet, late negatives'):.3f}, less"),
        ("10_comparison", "late {:.3f}, without {:.3f}, from the first step {:.3f}".format(*LONG)),
        ("README", "AVS gains {:.2f} on demo and {:.2f} on stamps".format(*GAINED)),
        ("README", f"PCMANet {PCMANET_GAINED:.2f} on demo"),
        ("README", f"({AHEAD_AT_HALF:.2f} on demo at half the rate)"),
        ("10_comparison", f"({AHEAD_AT_HALF:.2f} at half the rate)"),
        ("10_comparison", "PCMANet is {:.2f} ahead of AVS at the same rate, and still {:.2f}".format(*AHEAD)),
        ("10_comparison", f"and {percent(average(swapped, 'AVS, rate 0.001', 'stamps'))} at half of it"),
        ("10_comparison", f"loses {percent(average(swapped, 'AVS', 'stamps'))} of its mIoU"),
        ("10_comparison", f"its seeds lose {percent(*UNHEARD)}"),
        ("10_comparison", "({:.2f}, then {:.2f})".format(*DEAF)),
    ],
)
def test_what_prose_says_of_the_runs_is_so(place, said):
    cells = nbformat.read(resolve(f"notebooks/{place}.ipynb"), 4).cells if place != "README" else ()
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown") if cells else README
    assert said in " ".join(prose.split())


def test_links_and_modules_of_the_readme_exist():
    links = [x for x in re.findall(r"\]\(([^)]+)\)", README) if not x.startswith("http")]
    modules = re.findall(r"-m (pcma_lib\.\w+)", README)
    scripts = re.findall(r"(?:pcma_lib|pcma_data|data_scripts|maintain|tests)/[\w/]+\.\w+", README)
    assert len(links) > 15 and len(modules) > 3
    assert [x for x in {*links, *scripts} if not resolve(x).exists()] == []
    assert [x for x in modules if not hasattr(import_module(x), "main")] == []
