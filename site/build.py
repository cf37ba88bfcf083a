"""The site from the committed notebooks and pages, none of which is executed: `python site/build.py`.

Every file is copied to its own place in a folder of sources, so that links between them hold. Warnings are errors.
"""

import argparse
import os
import pkgutil
import shutil
import sys
from pathlib import Path

from colab import write_copies
from sphinx.cmd.build import main as sphinx

import pcma_lib

SITE = Path(__file__).resolve().parent
ROOT = SITE.parent
GATHERED = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "docs", "notebooks")


def gather(source, diagrams):
    """Fill `source` with the pages of the project, those of this folder, and one API page for each room of the package.
    The folder `diagrams` gets the diagrams as pages of their own, with links to the site's lessons.
    """
    for folder in (source, diagrams):
        shutil.rmtree(folder, ignore_errors=True)
    (source / "api").mkdir(parents=True)
    for path in [*(ROOT / name for name in GATHERED), *SITE.glob("*.md")]:
        if path.is_dir():
            shutil.copytree(path, source / path.name, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        else:
            shutil.copy2(path, source)
    for diagram in sorted((ROOT / "docs" / "diagrams").glob("*.svg")):
        page = diagrams / diagram.relative_to(ROOT)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(diagram.read_text(encoding="utf-8").replace('.ipynb"', '.html"'), encoding="utf-8")
    modules = [m for m in pkgutil.walk_packages(pcma_lib.__path__, "pcma_lib.") if not m.name.endswith("__main__")]
    for room in ["pcma_lib", *(m.name for m in modules if m.ispkg)]:
        inside = [m.name for m in modules if m.name.rpartition(".")[0] == room and not m.ispkg]
        text = [f"# {room}\n", directive(room)]
        text += [f"## {name.rpartition('.')[2]}\n\n{directive(name, ':members:')}" for name in inside]
        (source / "api" / f"{room}.md").write_text("\n".join(text), encoding="utf-8")


def directive(name, *options):
    lines = [f".. automodule:: {name}", *(f"   {option}" for option in options)]
    return "\n".join(["```{eval-rst}", *lines, "```", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", default="", help="OWNER/NAME on GitHub: adds links to it, to Colab and to Binder")
    parser.add_argument("--links", action="store_true", help="check the links to other sites instead")
    parser.add_argument("--out", type=Path, default=SITE / "_build", help="folder whose folder html gets the pages")
    given = parser.parse_args()
    os.environ["REPOSITORY"] = given.repository
    out, builder = given.out.resolve(), "linkcheck" if given.links else "html"
    gather(out / "source", out / "diagrams")
    folders = ["-c", SITE, "-d", out / "cache", out / "source", out / builder]
    options = ["-W", "--keep-going", "-q", "-b", builder, "-D", f"html_extra_path={out / 'diagrams'}"]
    failed = sphinx([*options, *map(str, folders)])
    if given.repository and not given.links:
        write_copies(given.repository, out / "colab")
    if not failed:
        print("All links work." if given.links else f"Open {out / 'html' / 'index.html'} in a browser.")
    sys.exit(failed)


if __name__ == "__main__":
    main()
