"""Where the lessons find the project's files, and how they make their data."""

import subprocess
import sys

from ..data.files import project_root, resolve, work_folder

__all__ = ["project_root", "resolve", "run_script", "work_folder"]


def run_script(name: str, *arguments: object) -> None:
    """Run a command of `pcma-data` in `work_folder()`, with this Python: `run_script("demo", "--out", "data/demo")`.

    Raises:
        RuntimeError: the command failed; with what it said.
    """
    command = [sys.executable, "-m", "pcma_data", name, *map(str, arguments)]
    done = subprocess.run(command, cwd=work_folder(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pcma-data {name} failed:\n{done.stderr.strip()}")
