"""The results in the README and in the notebooks' prose are those of docs/results, and what the README names exists."""

import json
import re
from importlib import import_module
from statistics import mean

import nbformat
import pytest

from pcma_lib.data.files import resolve
from pcma_lib.training.config import RATES

README = resolve("README.md").read_text()
SPEED = resolve("docs/speed.md").read_text()
SHIPPED = json.loads(resolve("pcma_lib/demo_model.json").read_text())
RUNS = {path.stem: json.loads(path.read_text()) for path in resolve("docs/results").glob("*.json")}


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
    assert row(title, [RUNS["networks"][f"{name}, seed {seed}"]["test"] for seed in range(3)]) in README


SWEPT = [
    name
    for name, run in RUNS.items()
    if all(isinstance(r, dict) and "measured_with" in r.get("test", ()) for r in run.values())
]


COMPARED = ("networks", "rates", "listening", "ablation", "stamps")  # with one another, in lessons 09 and 10


@pytest.mark.parametrize("tables", [*([table] for table in SWEPT), COMPARED])
def test_rows_that_are_compared_come_from_one_version_of_the_code(tables):
    tests = [row["test"] for table in tables for row in RUNS[table].values()]
    versions = {(test["origin"]["code"], test["measured_with"]["code"]) for test in tests}
    assert len(versions) == 1, f"docs/results: {', '.join(tables)} mix runs of {versions}"


def test_the_shipped_models_results_are_those_of_its_run():
    assert row("**the shipped model**, four times as many clips, one seed", [SHIPPED["test"]]) in README


def average(measure, name, table="networks"):
    return mean(measure(run["test"]) for key, run in RUNS[table].items() if key.startswith(f"{name}, seed"))


def miou(test):
    return test["miou"]


def swapped(test):
    return test["controls"]["swapped"]["drop"]


def other_object(test):
    return test["controls"]["other_object"]["miou"]


def percent(*shares):
    *first, last = (f"{100 * share:.0f}" for share in shares)
    return (", ".join(first) + " and " if first else "") + last + " %"


NETWORKS = ("vision only", "AVS", "PCMANet")
TAKEN = [100 * share for share in (*(average(swapped, name) for name in NETWORKS[1:]), swapped(SHIPPED["test"]))]
UNTAUGHT = [average(m, "without pretraining", "listening") for m in (miou, swapped, other_object)]
LATE = average(miou, "PCMANet") - average(miou, "with late foreign sounds", "listening")
FAST_RATES = [swapped(RUNS["rates"][f"{name}, rate 0.002"]["test"]) for name in NETWORKS[1:]]
ROWS = {name.partition(", seed ")[0] for name in RUNS["ablation"]}
ABLATION = {name: average(miou, name, "ablation") for name in ROWS} | {"the whole": average(miou, "PCMANet")}
AVGA = ABLATION["AVGA"] - ABLATION["baseline"]
OTHERS = [value for name, value in ABLATION.items() if name != "baseline"]
STAMPS, ON_CPU = RUNS["stamps"], RUNS["stamps_cpu"]
BEST, AT_ONE = STAMPS["PCMANet, rate 0.0005"], STAMPS["PCMANet, rate 0.001"]
AVS_ON_STAMPS = STAMPS["AVS, rate 0.0005"]["test"]
LONG = STAMPS["PCMANet, rate 0.001, 4000 steps"]
SCRATCH = STAMPS["PCMANet, rate 0.001, eye from scratch"]
LOST = [miou(BEST["test"]) - miou(BEST[f"test_{which}"]) for which in ("sounds", "photographs")]
HOUR = ON_CPU["PCMANet, rate 0.0005, two cores"]
ON_STAMPS = RUNS["gated_stamps"]["rows"]
GATE = RUNS["gated_224"]["ResNet-50 by its doubts"]
AHEAD = average(miou, "PCMANet") - average(miou, "AVS")


def best_rate(name, runs, rates):
    return max(rates, key=lambda rate: runs[f"{name}, rate {rate}"]["best"]["miou_whole_set"])


def test_presets_take_the_rates_that_were_best_in_validation():
    for name, kind in zip(NETWORKS, ("vision only", "avs", "pcmanet")):
        assert RATES["demo"][kind] == best_rate(name, RUNS["rates"], (2.5e-4, 5e-4, 1e-3, 2e-3))
    for name, rates in {"PCMANet": (5e-4, 1e-3, 2e-3), "AVS": (5e-4, 1e-3)}.items():
        assert RATES["stamps"][name.lower()] == best_rate(name, STAMPS, rates)


@pytest.mark.parametrize(
    "place, said",
    [
        ("README", f"It is worth **{AVGA:.3f}** of mIoU"),
        (
            "README",
            "PCMANet reaches {:.3f}, and another clip's sound takes only {:.0%}".format(*UNTAUGHT).replace("%", " %"),
        ),
        ("README", f"it reaches {RUNS['doubt_loss']['rows']['as shipped']['dense']['miou']:.3f}."),
        ("README", f"mIoU of {miou(BEST['test']):.3f}, and another clip's sound takes {percent(swapped(BEST['test']))}."),
        (
            "README",
            f"it has never seen, it reaches {miou(BEST['test_photographs']):.3f}, and another clip's sound takes "
            f"{percent(swapped(BEST['test_photographs']))} ([record]",
        ),
        ("README", f"An hour on two cores gave {miou(HOUR['test']):.3f} with the same settings"),
        ("09_ablation", f"AVGA is **{AVGA:.3f}** ahead of the baseline"),
        ("09_ablation", f"all lie within **{max(OTHERS) - min(OTHERS):.3f}** of one another"),
        ("09_ablation", f"takes {percent(average(swapped, 'baseline', 'ablation'))} of the baseline's mIoU"),
        ("10_comparison", f"only looks reaches **{average(miou, 'vision only'):.3f}**"),
        ("10_comparison", f"AVS reaches **{average(miou, 'AVS'):.3f}** and PCMANet **{average(miou, 'PCMANet'):.3f}**"),
        ("10_comparison", f"where PCMANet is **{AHEAD:.2f}** ahead"),
        (
            "10_comparison",
            "loses **0 %** of its mIoU, AVS **{:.0f} %**, PCMANet **{:.0f} %** and the shipped model **{:.0f} %**".format(
                *TAKEN
            ),
        ),
        ("10_comparison", "takes only **{:.0%}** and **{:.0%}** of their".format(*FAST_RATES).replace("%", " %")),
        ("10_comparison", f"falls from {average(miou, 'PCMANet'):.3f} to **{UNTAUGHT[0]:.3f}**"),
        ("10_comparison", f"takes only **{100 * UNTAUGHT[1]:.0f} %** then"),
        ("10_comparison", f"another object their IoU is **{UNTAUGHT[2]:.2f}**"),
        (
            "10_comparison",
            f"The mIoU is **{average(miou, 'without remix', 'listening') - average(miou, 'PCMANet'):.3f}** higher",
        ),
        ("10_comparison", f"sound takes {percent(average(swapped, 'without remix', 'listening'))}. So on"),
        ("10_comparison", f"The mIoU is **{LATE:.3f}** lower"),
        ("10_comparison", f"PCMANet reaches **{miou(BEST['test']):.3f}** and AVS **{miou(AVS_ON_STAMPS):.3f}**"),
        (
            "10_comparison",
            f"**{percent(swapped(BEST['test']))}** from PCMANet and **{percent(swapped(AVS_ON_STAMPS))}** from",
        ),
        ("10_comparison", f"reaches {miou(AT_ONE['test']):.3f} with it and **{miou(SCRATCH['test']):.3f}** without"),
        (
            "10_comparison",
            "cost PCMANet **{:.2f}** of the mIoU. Photographs that were never shown cost **{:.2f}**".format(*LOST),
        ),
        ("10_comparison", f"from {miou(AT_ONE['test']):.3f} to **{miou(LONG['test']):.3f}** at the rate"),
        ("10_comparison", f"to **{miou(LONG['test_photographs']):.3f}**"),
        (
            "10_comparison",
            f"reaches **{miou(HOUR['test']):.3f}**, and another clip's sound takes **{percent(swapped(HOUR['test']))}**",
        ),
        (
            "10_comparison",
            "gave **{:.3f}**, and after the hour **{:.3f}**".format(*(miou(HOUR["validation"][k]) for k in (0, -1))),
        ),
        ("10_comparison", f"gave {miou(BEST['test']):.3f} and {percent(swapped(BEST['test']))}"),
        ("13_confident_decoder", f"and **{100 * GATE['gated'] / GATE['fast']:.0f} %** of the time"),
        (
            "13_confident_decoder",
            f"gives **{miou(ON_STAMPS['outline alone']):.4f}** instead of {miou(ON_STAMPS['dense']):.4f}",
        ),
        ("13_confident_decoder", f"with **{percent(ON_STAMPS['outline alone']['macs'])}** of the operations"),
        ("13_confident_decoder", f"**{percent(ON_STAMPS['outline, or confidence below 0.99']['macs'])}** of the operations"),
        ("docs/speed", "one clip took {gated:.2f} s instead of {fast:.2f} s".format(**GATE)),
        ("docs/speed", f"which is {GATE['fast'] / GATE['gated']:.2f} times"),
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
