"""Many runs of notebook 08 by papermill: Table IV, the released code's faults, g and c, and the seeds of the comparison.

python -m pcma_lib.sweep ablation
python -m pcma_lib.sweep seeds --preset stamps --parallel 2
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from .data.files import project_root, read_json, resolve
from .use.checkpoints import write_json

TABLE_IV = {  # the paper's rows from top to bottom, as what each leaves out
    "baseline": ("avga", "qsca"),
    "AVGA": ("qsca",),
    "AVGA, QSCA without mask": ("mask",),
    "AVGA, QSCA, CIM without progression": ("progression",),
    "AVGA, QSCA without continuity, CIM": ("continuity",),
    "AVGA, QSCA, CIM": (),
}
_ABLATION = {name: {"settings": {"without": list(left_out)}} for name, left_out in TABLE_IV.items()}
_ABLATION |= {
    "as released": {"settings": {"as_released": True}},
    "tokens scrambled": {"settings": {"as_released": "scrambled"}},
    "queries untrained": {"settings": {"as_released": "detached"}},
    "g = 1": {"settings": {"groups": 1}},
    "g = 8": {"settings": {"groups": 8}},
    "c = 0.9": {"settings": {"threshold": 0.9}},
}
_NETWORKS = {
    "PCMANet": {},
    "PCMANet, negatives": {"negative_audio": 0.15},
    "PCMANet, late negatives": {"negative_audio": 0.15, "settings": {"negative_after": 0.5}},
    "PCMANet, vision only": {"listen": False},
    "AVS": {"settings": {"network": "avs", "associative": True}},
    "PCMANet, rate 0.001": {"settings": {"learning_rate": 0.001}},
    "AVS, rate 0.001": {"settings": {"network": "avs", "associative": True, "learning_rate": 0.001}},
}
SWEEPS = {
    "ablation": _ABLATION,
    "seeds": {f"{name}, seed {seed}": {**changes, "seed": seed} for seed in range(3) for name, changes in _NETWORKS.items()},
}


def run_rows(rows, output, parallel=1, **common):
    """Run notebook 08 once for each row; a row that fails does not stop the others, a finished one is not run again.

    Args:
        rows: name of a row -> its papermill parameters of notebook 08. output: folder of the runs, a folder a row:
            the run itself in run/, the executed notebook and papermill.log beside it.
        parallel: rows at a time, which share the processor's cores. common: parameters of every row.

    Returns:
        dict, also in output/summary.json beside the rows of earlier calls: for each row "parameters" and, of its
        metrics.json, "test" (the test split's measures and controls), "validation" and "seconds"; or "error", the last
        line of what the run said, or why its files can't be read.

    A row that was killed goes on where its last saved state left it. Called again with other parameters, a finished row
    is an error; its files and its place in summary.json stay.

    Raises:
        ValueError: parallel below 1, or a summary.json that is none.
    """
    output = resolve(output)
    if parallel < 1:
        raise ValueError(f"parallel must be 1 or more, got {parallel}")
    threads, path, summary = max(1, torch.get_num_threads() // parallel), output / "summary.json", {}
    stored = read_json(path) if path.is_file() else {}
    with ThreadPoolExecutor(parallel) as pool:
        done = pool.map(lambda item: _run_row(*item, threads), [(output, n, {**common, **p}) for n, p in rows.items()])
        for name, row in zip(rows, done):
            summary[name] = row
            if "error" not in row or "error" in stored.get(name, row):
                stored[name] = row
                write_json(path, stored)
    return summary


def _run_row(output, name, parameters, threads):
    folder = output / "".join(c if c.isalnum() or c in ".=" else "_" for c in name)
    shown, parameters = parameters, {**parameters, "output": str(folder / "run"), "resume": True}
    try:
        return {"parameters": shown, **_measured(folder, parameters, threads)}
    except (OSError, ValueError) as error:
        return {"parameters": shown, "error": str(error)}


def _measured(folder, parameters, threads):
    """What the row's run measured, or its error; runs it where it has not ended well with these very parameters."""
    finished = folder / "finished.json"
    if finished.is_file():
        if read_json(finished) != parameters:
            raise ValueError(f"{folder} holds a finished run with other parameters; use another folder")
        return _read_row(folder)
    write_json(folder / "parameters.json", parameters)  # JSON is YAML, which papermill reads
    command = [sys.executable, "-m", "papermill", "notebooks/08_training.ipynb", folder / "08_training.ipynb"]
    command += ["-f", folder / "parameters.json", "--no-progress-bar"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    ran = subprocess.run(command, cwd=project_root(), env=environment, capture_output=True, text=True)
    (folder / "papermill.log").write_text(ran.stdout + ran.stderr)
    if ran.returncode:
        lines = [line for line in ran.stderr.splitlines() if line.strip()]
        return {"error": lines[-1] if lines else f"exit code {ran.returncode}"}
    write_json(finished, parameters)
    return _read_row(folder)


def _read_row(folder):
    path = folder / "run" / "metrics.json"
    measured = read_json(path)
    try:
        return {k: measured[k] for k in ("test", "validation", "seconds")}
    except (KeyError, TypeError):
        raise ValueError(f"{path} lacks test, validation or seconds") from None


def main(arguments=None):
    """`python -m pcma_lib.sweep NAME`; the exit code is 1 if a row failed."""
    parser = argparse.ArgumentParser(prog="python -m pcma_lib.sweep", description=__doc__ and __doc__.splitlines()[0])
    parser.add_argument("sweep", choices=sorted(SWEEPS))
    parser.add_argument("--output", help="folder of the runs; left out: results/SWEEP_PRESET")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--rows", nargs="*", metavar="NAME", help="only these rows")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--parallel", type=int, default=1)
    given = parser.parse_args(arguments)
    rows = SWEEPS[given.sweep]
    if unknown := set(given.rows or ()) - set(rows):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}; there are {'; '.join(rows)}")
    rows = {n: p for n, p in rows.items() if not given.rows or n in given.rows}
    output = Path(given.output or f"results/{given.sweep}_{given.preset}")
    try:
        summary = run_rows(rows, output, given.parallel, preset=given.preset, epochs=given.epochs)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    for name, row in summary.items():
        print(f"{name:40s}", row.get("error") or f"test mIoU {row['test']['miou']:.3f}")
    sys.exit(any("error" in row for row in summary.values()))


if __name__ == "__main__":
    main()
