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
NOTE = (
    "**This page shows the long run.** It is [lesson {number}](../notebooks/{name}.ipynb) with the preset `{preset}`, so all"
    " outputs below are those of a network that was trained to the end. What the lesson says about the outputs of its quick"
    " form is left out."
)
SEEN = "**What you just saw.**"


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
    for_readers(notebook, given.name)
    target = ROOT / "docs" / f"{given.name}_trained.ipynb"
    write_atomically(target, lambda part: Path(part).write_text(nbformat.writes(notebook) + "\n", encoding="utf-8"))


def for_readers(notebook, name):
    """Say at the top what the page shows, leave out what speaks of other outputs, and mend the links."""
    (parameters,) = (c.source for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", ()))
    preset = re.search(r'^preset = "(\w+)"', parameters, re.MULTILINE)[1]
    notebook.cells = [c for c in notebook.cells if not c.source.startswith(SEEN)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((\d\d_|solutions/)", r"](../notebooks/\1", cell.source)
    note = NOTE.format(number=name[:2], name=name, preset=preset)
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(note, id="the-long-run"))


if __name__ == "__main__":
    main()
