"""The results in the README and in the notebooks' prose are those of docs/results, and what the README names exists."""

import json
import re
from importlib import import_module
from math import ceil
from statistics import mean

import nbformat
import pytest

from pcma_lib.data.files import resolve

README = resolve("README.md").read_text()
SPEED = resolve("docs/speed.md").read_text()
SHIPPED = json.loads(resolve("pcma_lib/demo_model.json").read_text())
RUNS = {path.stem: json.loads(path.read_text()) for path in resolve("docs/results").glob("*.json")}
DEMO = {"PCMANet, seed 0": RUNS["demo"], "AVS, seed 0": RUNS["demo_avs"]}
SEEDS = {"demo": RUNS["seeds"] | DEMO, **{name: RUNS[name] for name in ("stamps", "networks", "listening")}}


def row(title, tests):
    """A line of the README's table from the test measures of a recipe's seeds."""
    miou = [t["miou"] for t in tests]
    spread = f", from {min(miou):.3f} to {max(miou):.3f}" if len(miou) > 1 else ""
    takes = f"{mean(t['controls']['swapped']['drop'] for t in tests):.0%}".replace("%", " %")
    return f"| {title} | {mean(miou):.3f}{spread} | {mean(t['miou_whole_set'] for t in tests):.3f} | {takes} |"


@pytest.mark.parametrize(
    "name, title",
    [("vision only", "PCMANet, vision only"), ("AVS", "AVS, the baseline"), ("PCMANet", "PCMANet")],
)
def test_results_are_those_of_the_runs(name, title):
    assert row(title, [SEEDS["networks"][f"{name}, seed {seed}"]["test"] for seed in range(3)]) in README


SWEPT = [
    name
    for name, run in RUNS.items()
    if all(isinstance(r, dict) and "measured_with" in r.get("test", ()) for r in run.values())
]


@pytest.mark.parametrize("table", SWEPT)
def test_rows_of_one_table_come_from_one_version_of_the_code(table):
    versions = {(row["test"]["origin"]["code"], row["test"]["measured_with"]["code"]) for row in RUNS[table].values()}
    assert len(versions) == 1, f"docs/results/{table}.json mixes runs of {versions}"


def test_the_shipped_models_results_are_those_of_its_run():
    assert row("**the shipped model**, four times as many clips, one seed", [SHIPPED["test"]]) in README


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
LONG = [miou(RUNS[f"demo_long_{when}"]["test"]) for when in ("late", "without", "early")]
ABLATION = {name: row["test"]["miou"] for name, row in RUNS["ablation"].items()}
WITHOUT = average(miou, "PCMANet, confidence in bf16")
LATE_COST = WITHOUT - average(miou, "PCMANet, late negatives")
DEAF = [average(other_object, "PCMANet, vision only", "stamps", which) for which in ("test", "unheard")]
AHEAD = [average(miou, "PCMANet", "stamps") - average(miou, name, "stamps") for name in ("AVS", "AVS, rate 0.001")]
TAKEN = [100 * share for share in (*(average(swapped, n, "networks") for n in ("AVS", "PCMANet")), swapped(SHIPPED["test"]))]
UNTAUGHT = [average(m, "without pretraining", "listening") for m in (miou, swapped, other_object)]
UNMIXED = average(miou, "PCMANet", "networks") - average(miou, "without remix", "listening")
HOUR = RUNS["stamps_48"]["pretrained eye, 1250 steps"]
SHORT = [swapped(RUNS["stamps_48"][f"{eye}, 240 steps"]["test"]) for eye in ("eye from scratch", "pretrained eye")]
LOST = [miou(HOUR["test"]) - miou(HOUR[f"test_{which}"]) for which in ("sounds", "photographs")]
ON_STAMPS = RUNS["gated_stamps"]["rows"]
GATE = RUNS["gated_224"]["ResNet-50 by its doubts"]
AHEAD_AT_OWN = average(miou, "PCMANet", "networks") - average(miou, "AVS", "networks")
AHEAD_AT_HALF = average(miou, "PCMANet, rate 0.001") - average(miou, "AVS, rate 0.001")


@pytest.mark.parametrize(
    "place, said",
    [
        (
            "03_avga",
            f"a mean IoU that was {ABLATION['AVGA, QSCA, CIM'] - ABLATION['g = 8']:.2f} higher than that of one run with g",
        ),
        (
            "README",
            "reached **{miou:.3f}**, and **{miou_whole_set:.3f}** over".format(
                **RUNS["networks"]["PCMANet, seed 0"]["test"]
            ),
        ),
        ("09_ablation", f"AVGA against the baseline, **{ABLATION['AVGA'] - ABLATION['baseline']:.3f}**,"),
        ("10_comparison", f"only looks reaches **{average(miou, 'vision only', 'networks'):.3f}**"),
        (
            "10_comparison",
            "AVS reaches **{:.3f}** and PCMANet **{:.3f}**".format(
                *(average(miou, name, "networks") for name in ("AVS", "PCMANet"))
            ),
        ),
        ("10_comparison", f"where PCMANet is **{AHEAD_AT_OWN:.2f}** ahead"),
        ("10_comparison", "sound takes **0 %**, **{:.0f} %**, **{:.0f} %** and **{:.0f} %**".format(*TAKEN)),
        ("13_confident_decoder", f"and **{100 * GATE['gated'] / GATE['fast']:.0f} %** of the time"),
        (
            "13_confident_decoder",
            f"gives **{miou(ON_STAMPS['outline alone']):.4f}** instead of {miou(ON_STAMPS['dense']):.4f}",
        ),
        ("13_confident_decoder", f"with **{percent(ON_STAMPS['outline alone']['macs'])}** of the operations"),
        ("13_confident_decoder", f"**{percent(ON_STAMPS['outline, or confidence below 0.99']['macs'])}** of the operations"),
        ("docs/speed", "one clip took {gated:.2f} s instead of {fast:.2f} s".format(**GATE)),
        ("docs/speed", f"which is {GATE['fast'] / GATE['gated']:.2f} times"),
        ("README", "it reaches {:.3f}, and another clip's sound takes only {:.0%}".format(*UNTAUGHT).replace("%", " %")),
        ("README", f"it reaches {RUNS['doubt_loss']['rows']['as shipped']['dense']['miou']:.3f}."),
        ("README", f"`make stamps` reaches an mIoU of {miou(HOUR['test']):.3f} in an hour, and another clip's"),
        ("README", f"it has never seen, it reaches {miou(HOUR['test_photographs']):.3f}"),
        ("10_comparison", f"it reaches **{miou(HOUR['test']):.3f}**, and another"),
        ("10_comparison", f"sound takes **{percent(swapped(HOUR['test']))}**. With the short recipe"),
        ("10_comparison", "takes only **{:.0%}** and **{:.0%}** of".format(*SHORT).replace("%", " %")),
        ("10_comparison", "cost **{:.2f}** of the mIoU. Photographs that were never shown cost **{:.2f}**".format(*LOST)),
        ("10_comparison", f"falls from {average(miou, 'PCMANet', 'networks'):.3f} to **{UNTAUGHT[0]:.3f}**"),
        ("10_comparison", f"takes only **{100 * UNTAUGHT[1]:.0f} %** then"),
        ("10_comparison", f"another object their IoU is **{UNTAUGHT[2]:.2f}**"),
        ("10_comparison", f"The mIoU is **{UNMIXED:.3f}** lower"),
        ("10_comparison", f"sound takes {percent(average(swapped, 'without remix', 'listening'))}. The pixels"),
        ("10_comparison", f"marking nothing is worth **{NOTHING:.3f}** on these clips"),
        ("10_comparison", f"it is **{WITHOUT - average(miou, 'PCMANet, negatives'):.2f}** of mIoU on average"),
        ("10_comparison", f"second half it is less than **{ceil(1000 * LATE_COST) / 1000:.3f}**"),
        ("10_comparison", "{:.3f} in the second half, {:.3f} without, and {:.3f} from the first step".format(*LONG)),
        ("10_comparison", f"At 0.001, PCMANet is **{AHEAD_AT_HALF:.2f}** ahead of AVS"),
        ("10_comparison", "PCMANet is **{:.2f}** ahead of AVS at the same rate and **{:.2f}** ahead at half".format(*AHEAD)),
        ("10_comparison", f"and {percent(average(swapped, 'AVS, rate 0.001', 'stamps'))} at half of it"),
        ("10_comparison", f"takes {percent(average(swapped, 'AVS', 'stamps'))} of its mIoU"),
        ("10_comparison", f"the seeds of AVS lose {percent(*UNHEARD)}"),
        ("10_comparison", "{:.2f} on the first test and {:.2f} on the second".format(*DEAF)),
    ],
)
def test_what_prose_says_of_the_runs_is_so(place, said):
    page, lesson = resolve(f"{place}.md"), resolve(f"notebooks/{place}.ipynb")
    if page.is_file():
        prose = page.read_text()
    else:
        prose = "\n".join(c.source for c in nbformat.read(lesson, 4).cells if c.cell_type == "markdown")
    assert said in " ".join(prose.split())


def test_links_and_modules_of_the_readme_exist():
    links = [x for x in re.findall(r"\]\(([^)]+)\)", README) if not x.startswith("http")]
    modules = re.findall(r"-m (pcma_lib\.\w+)", README + SPEED)
    scripts = re.findall(r"(?:pcma_lib|pcma_data|data_scripts|maintain|tests)/[\w/]+\.\w+", README)
    assert len(links) > 15 and len(modules) > 3
    assert [x for x in {*links, *scripts} if not resolve(x).exists()] == []
    assert [x for x in modules if not hasattr(import_module(x), "main")] == []
