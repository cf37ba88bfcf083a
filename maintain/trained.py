"""A lesson after a long training, for readers: docs/NAME_trained.ipynb. What follows the name goes to papermill.

python maintain/trained.py 08_training -p preset demo -p resume True
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from pcma_lib.data.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
NOTE = "# Parameters of the long run that is stored here. The text around it speaks of the quick form."


def main():
    parser = argparse.ArgumentParser(description=__doc__ and __doc__.splitlines()[0])
    parser.add_argument("name", help="of the notebook, without .ipynb")
    given, parameters = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run.ipynb"
        command = [sys.executable, "-m", "papermill", ROOT / "notebooks" / f"{given.name}.ipynb", run, *parameters]
        subprocess.run(command, check=True, cwd=ROOT)
        subprocess.run([sys.executable, ROOT / "tests" / "normalise.py", run], check=True)
        notebook = nbformat.read(run, as_version=4)
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell.source = cell.source.replace("# Parameters", NOTE, 1)
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((\d\d_|solutions/)", r"](../notebooks/\1", cell.source)
    target = ROOT / "docs" / f"{given.name}_trained.ipynb"
    write_atomically(target, lambda part: Path(part).write_text(nbformat.writes(notebook) + "\n", encoding="utf-8"))


if __name__ == "__main__":
    main()
