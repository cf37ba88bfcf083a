"""The commands of `python -m pcma_lib.training`: fit, test and evaluate. `accelerate launch -m` runs them, too."""

import argparse
import json
import os
import sys
from importlib import import_module
from pathlib import Path

import yaml
from accelerate import PartialState

from ..data.avsbench import DATASETS
from ..measure.evaluation import evaluate, table
from ..registry import call
from ..use.checkpoints import write_json
from ..use.fast import fast
from ..use.gated import gate_of
from ..use.model import AudioVisualModel
from .config import TrainConfig, read_settings
from .loop import fit, test
from .model import best_device


def main(arguments: list[str] | None = None) -> None:
    """`python -m pcma_lib.training fit|test|evaluate ...`"""
    parser = argparse.ArgumentParser(prog="python -m pcma_lib.training", description=__doc__ and __doc__.splitlines()[0])
    parser.add_argument(
        "--import", dest="modules", action="append", default=[], metavar="MODULE", help="with your own parts"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fitting = commands.add_parser("fit", help="train with a preset, or with a file of settings")
    fitting.add_argument("--preset", help="settings that have a name; left out: demo, unless --config is given")
    fitting.add_argument("--config", metavar="FILE", help="YAML or JSON that changes them, such as a run's config.json")
    fitting.add_argument("--output", required=True)
    fitting.add_argument("--resume", action="store_true")
    fitting.add_argument("--log-with", help="tensorboard, wandb or another tracker that accelerate knows; none for none")
    fitting.add_argument("--test", action="store_true", help="then measure the test split")
    fitting.add_argument("--set", nargs="*", action="extend", default=[], metavar="FIELD=JSON", help="then change fields")
    testing = commands.add_parser("test", help="measure the best model of a run on its test split, into its result.json")
    testing.add_argument("--run", required=True, metavar="FOLDER")
    measuring = commands.add_parser("evaluate", help="print the measures and controls of a checkpoint")
    measuring.add_argument("--checkpoint", required=True)
    measuring.add_argument("--data", required=True)
    measuring.add_argument("--dataset", default="avss", help="layout of the data")
    measuring.add_argument("--split", default="test", help="the stamps also have test_photographs and test_sounds")
    measuring.add_argument("--image-size", type=int, help="pixels; left out: the checkpoint's")
    measuring.add_argument(
        "--gated", type=float, nargs="?", const=0.99, metavar="C", help="the finest stage only where confidence is below C"
    )
    measuring.add_argument("--output", metavar="FILE", help="also write them to this JSON file")
    given = parser.parse_args(arguments)
    try:
        if given.modules:
            sys.path.insert(0, os.getcwd())  # which an installed command does not look in, and `python -m` does
        for module in given.modules:
            import_module(module)
        {"fit": _fit, "test": lambda given: _print(test(given.run)), "evaluate": _evaluate}[given.command](given)
    except (ImportError, ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")


def read_config(path: str | Path) -> dict:
    """The settings in a YAML or JSON file.

    Raises:
        ValueError: not a file of settings. FileNotFoundError: no such file.
    """
    try:
        settings = yaml.safe_load(Path(path).read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable as YAML or JSON ({error})") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds {type(settings).__name__}, expected settings of TrainConfig such as `epochs: 20`")
    return settings


def _fit(given):
    # Not jsonargparse: TrainConfig checks its values for notebooks anyway, which leaves these lines for it to replace.
    changes = read_config(given.config) if given.config else {}
    changes |= {"log_with": given.log_with} if given.log_with else {}
    changes |= read_settings(given.set)
    name = given.preset or (changes.get("preset_name") if given.config else "demo")
    result = fit(TrainConfig.preset(name, **changes), given.output, given.resume)
    if given.test:
        result["test"] = test(given.output)
    _print(result)


def _print(result):
    state = PartialState()
    state.print(json.dumps(result, indent=2))
    state.destroy_process_group()  # left to the exit, its threads at times abort a process that has finished


def _evaluate(given):
    model = AudioVisualModel.load(given.checkpoint).to(best_device())
    options = {"semantic": True} if model.settings.get("num_classes", 1) > 1 else {}
    options["image_size"] = model.picture_size(given.image_size)
    data = call(DATASETS.find(given.dataset), given.data, given.split, **options)
    if "semantic" in options and data.num_classes == 1:
        raise ValueError(f"{given.checkpoint} tells classes apart, and the data set {given.dataset!r} has a mask alone")
    if given.gated is not None:
        model = fast(model, gated=given.gated)
    result = evaluate(model, data, controls="all")
    gate = gate_of(model)
    if gate and gate.shares:
        result["gated"] = gate.shares
    print(table(result))
    if "gated" in result:
        print("\nthe finest stage: " + ", ".join(f"{name} {share:.1%}" for name, share in result["gated"].items()))
    if given.output:
        write_json(given.output, result)
