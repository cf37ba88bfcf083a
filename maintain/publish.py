"""A finished run as two small files to give away: 16-bit weights, and all that was measured about them.

python maintain/publish.py results/demo_long pcma_lib/demo_model
python maintain/publish.py results/avs docs/results/demo_avs --facts-only
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from pcma_lib import AudioVisualModel
from pcma_lib.data.files import read_json, read_rows
from pcma_lib.measure.evaluation import evaluate
from pcma_lib.training.config import TrainConfig
from pcma_lib.training.data import open_dataset
from pcma_lib.training.model import best_device
from pcma_lib.training.origin import describe
from pcma_lib.use.checkpoints import write_json

CURVE_POINTS = 120


def publish(run, target, facts_only=False):
    """Write TARGET.safetensors (16-bit) and TARGET.json: settings of the run, its curves, and the test split's measures and
    controls, taken from the written file itself.

    Args:
        run: folder that `training.fit` wrote. target: path without suffix. facts_only: True writes the JSON alone, about
            the run's own weights.

    Returns:
        dict, what TARGET.json holds.

    Raises:
        FileNotFoundError: no finished run there, or its data are gone. ValueError: a file of it that can't be read.
    """
    run, weights = Path(run), Path(target).with_suffix(".safetensors")
    for name in ("best.safetensors", "config.json", "log.csv", "validation.csv", "result.json"):
        if not (run / name).is_file():
            raise FileNotFoundError(f"{run} is not a finished run: {name} is missing")
    try:
        config = TrainConfig(**read_json(run / "config.json"))
    except TypeError as error:
        raise ValueError(f"{run / 'config.json'} does not hold the settings of a run ({error})") from None
    validations, log = (_rows(run / name) for name in ("validation.csv", "log.csv"))
    model = AudioVisualModel.load(run / "best.safetensors")
    test = open_dataset(config, "test")
    if not model.origin:  # a run of an older version
        model.inputs, origin = describe(config, test)
        model.origin = origin | dict.fromkeys(("version", "commit", "seconds", "steps"))
    if not facts_only:
        model.save(weights, half=True)
        model = AudioVisualModel.load(weights)
    measured = evaluate(model.to(best_device()), test, controls="all")
    facts = {
        "config": config.to_dict(),
        "test": measured,
        "validation": validations,
        "log": _thinned(log, CURVE_POINTS),
    }
    write_json(weights.with_suffix(".json"), facts)
    return facts


def _rows(path):
    rows = read_rows(path, ("step", "epoch"))
    try:
        return [{k: float(v) for k, v in row.items()} for row in rows]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} must hold nothing but numbers ({error})") from None


def _thinned(rows, points):
    """Means over equal pieces, so that the curves stay readable at a fraction of the size."""
    pieces = np.array_split(np.arange(len(rows)), min(points, len(rows)))
    return [{k: round(float(np.mean([rows[i][k] for i in piece])), 5) for k in rows[0]} for piece in pieces]


def main(arguments=None):
    """`python maintain/publish.py RUN TARGET`: prints what the test split gives, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__ and __doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("target")
    parser.add_argument("--facts-only", action="store_true", help="write the JSON alone")
    given = parser.parse_args(arguments)
    try:
        print(json.dumps(publish(given.run, given.target, given.facts_only)["test"], indent=2))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
