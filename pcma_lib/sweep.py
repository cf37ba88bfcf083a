"""Many runs of `fit` and `test`: the rates, the networks compared, what makes a network listen, and the ablation.

python -m pcma_lib.sweep networks --preset demo
python -m pcma_lib.sweep rates --preset stamps --parallel 2 --set 'workers=2'
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from .data.files import project_root, read_json, read_rows, resolve
from .training.config import TrainConfig, read_settings
from .use.checkpoints import write_json

NETWORKS = {"PCMANet": {}, "vision only": {"listen": False}, "AVS": {"network": "avs", "associative": True}}
TABLE_IV = {  # the paper's rows from top to bottom, as what each leaves out
    "baseline": ("avga", "qsca"),
    "AVGA": ("qsca",),
    "AVGA, QSCA without mask": ("mask",),
    "AVGA, QSCA, CIM without progression": ("progression",),
    "AVGA, QSCA without continuity, CIM": ("continuity",),
    "AVGA, QSCA, CIM": (),
}
FAULTS = {"as released": True, "tokens scrambled": "scrambled", "queries untrained": "detached"}
LISTENING = {
    "all of the recipe": {},
    "without remix": {"remix": 0.0},
    "without pretraining": {"pretrain": 0},
    "with late foreign sounds": {"negative_audio": 0.15, "negative_after": 0.5},
}
SEEDS = range(3)
CURVE = ("epoch", "miou", "miou_whole_set")  # of each validation


def _seeded(rows):
    return {f"{name}, seed {seed}": {**settings, "seed": seed} for name, settings in rows.items() for seed in SEEDS}


SWEEPS = {
    "rates": {f"{n}, rate {r}": {**s, "learning_rate": r} for n, s in NETWORKS.items() for r in (2.5e-4, 5e-4, 1e-3, 2e-3)},
    "networks": _seeded(NETWORKS),
    "listening": _seeded(LISTENING),
    "ablation": _seeded(
        {name: {"without": list(left_out)} for name, left_out in TABLE_IV.items()}
        | {name: {"as_released": fault} for name, fault in FAULTS.items()}
    ),
    "eyes": _seeded({"pretrained eye": {}, "eye from scratch": {"pretrained": False}}),
}


def run_rows(rows: dict[str, dict], output: str | Path, preset: str, parallel: int = 1, **common: Any) -> dict[str, dict]:
    """Train and test once for each row; a row that fails does not stop the others, a finished one is only tested again.

    Args:
        rows: name of a row -> its settings of `TrainConfig`. output: folder of the runs, a folder a row.
        preset: of every row. parallel: rows at a time, which share the processor's cores. common: settings of every row.

    Returns:
        dict, also in output/summary.json beside the rows of earlier calls: for each row its "settings", what result.json of
        the run says ("best", "test" and the other test splits, "seconds"), and "validation", the measures CURVE of each
        validation; or "error", the last line of what the run said. A row that was killed goes on where its last saved
        state left it.

    Raises:
        ValueError: parallel below 1, or a summary.json that is none.
    """
    output = resolve(output)
    if parallel < 1:
        raise ValueError(f"parallel must be 1 or more, got {parallel}")
    threads, path, summary = max(1, torch.get_num_threads() // parallel), output / "summary.json", {}
    stored = read_json(path) if path.is_file() else {}
    if not isinstance(stored, dict):
        raise ValueError(f"{path} holds {type(stored).__name__}, expected a dictionary of rows")
    with ThreadPoolExecutor(parallel) as pool:
        done = pool.map(
            lambda item: _run_row(*item, threads), [(output, n, preset, {**common, **s}) for n, s in rows.items()]
        )
        for name, row in zip(rows, done):
            summary[name] = row
            if "error" not in row or "error" in stored.get(name, row):
                stored[name] = row
                write_json(path, stored)
    return summary


def _run_row(output, name, preset, settings, threads):
    folder = output / "".join(c if c.isalnum() or c in ".=" else "_" for c in name)
    row = {"preset": preset, "settings": settings}
    try:
        write_json(folder.with_name(f"{folder.name}.json"), settings)
        command = [sys.executable, "-m", "pcma_lib.training", "fit", "--preset", preset, "--resume", "--test"]
        command += ["--config", folder.with_name(f"{folder.name}.json"), "--output", folder, "--log-with", "none"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        ran = subprocess.run(command, cwd=project_root(), env=environment, capture_output=True, text=True)
        if ran.returncode:
            lines = [line for line in ran.stderr.splitlines() if line.strip()]
            return {**row, "error": lines[-1] if lines else f"exit code {ran.returncode}"}
        result = read_json(folder / "result.json")
        row |= {k: v for k, v in result.items() if k not in ("last", "best_checkpoint")}
        validations = read_rows(folder / "validation.csv", CURVE)
        return {**row, "validation": [{k: float(found[k]) for k in CURVE} for found in validations]}
    except (OSError, ValueError) as error:
        return {**row, "error": str(error)}


def main(arguments: list[str] | None = None) -> None:
    """`python -m pcma_lib.sweep NAME`; the exit code is 1 if a row failed."""
    parser = argparse.ArgumentParser(prog="python -m pcma_lib.sweep", description=__doc__ and __doc__.splitlines()[0])
    parser.add_argument("sweep", choices=sorted(SWEEPS))
    parser.add_argument("--output", help="folder of the runs; left out: results/SWEEP_PRESET")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--rows", nargs="*", metavar="NAME", help="only these rows")
    parser.add_argument("--set", nargs="*", action="extend", default=[], metavar="FIELD=JSON", help="settings of every row")
    parser.add_argument("--parallel", type=int, default=1)
    given = parser.parse_args(arguments)
    rows = SWEEPS[given.sweep]
    if unknown := set(given.rows or ()) - set(rows):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}; there are {'; '.join(rows)}")
    rows = {n: s for n, s in rows.items() if not given.rows or n in given.rows}
    output = Path(given.output or f"results/{given.sweep}_{given.preset}")
    try:
        common = read_settings(given.set)
        TrainConfig.preset(given.preset, **common)
        summary = run_rows(rows, output, given.preset, given.parallel, **common)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    for name, row in summary.items():
        print(f"{name:44s}", row.get("error") or f"test mIoU {row['test']['miou']:.3f}")
    sys.exit(any("error" in row for row in summary.values()))


if __name__ == "__main__":
    main()
