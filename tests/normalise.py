"""Takes out of a notebook what differs from run to run, and says which cells begin a slide: `normalise.py NOTEBOOK ...`."""

import sys

import nbformat


def _joined(outputs):
    """Printed text in one piece, however the kernel happened to send it; no widgets."""
    joined = []
    for output in outputs:
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
            continue  # nothing shows a widget without its kernel
        if output.output_type == "stream" and joined and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _tag_slides(cells):
    """A heading begins a slide, other text one below it, code stays with its text; set-up and parameters are left out."""
    left_out = False
    for cell in cells:
        kind = "-"
        if cell.cell_type == "markdown":
            kind = "slide" if cell.source.startswith(("# ", "## ")) else "subslide"
            left_out = cell.source.startswith(("## Set-up", "## Parameters")) or left_out and kind == "subslide"
        cell.metadata["slideshow"] = {"slide_type": "skip" if left_out else kind}


for path in sys.argv[1:]:
    notebook = nbformat.read(path, as_version=4)
    _tag_slides(notebook.cells)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        cell.metadata.pop("papermill", None)
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    nbformat.write(notebook, path)
