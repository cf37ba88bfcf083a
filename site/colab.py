"""Copies of the lessons for Colab, which opens one notebook without the files around it: `python site/colab.py OWNER/NAME`.

A copy begins with a cell that fetches the repository and installs the package, where the package is missing. Its pictures
and links have full addresses, and nothing else is changed. `--push` makes the copies the branch `colab`, which the buttons
of the site open. This script needs no package.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path, PurePosixPath
from posixpath import normpath

SITE = Path(__file__).resolve().parent
ROOT = SITE.parent
BRANCH = "colab"
LINK = re.compile(r"(?<=\]\()[^()\s]+(?=\))")  # what stands between the round brackets in Markdown
PICTURES = {".gif", ".jpg", ".png", ".svg", ".webp"}
SETUP = """\
# Colab opens this notebook alone. Where the lessons' package is missing, this cell installs it.
import importlib.util, pathlib, runpy, subprocess, sys

if importlib.util.find_spec("pcma_lib") is None:
    print("The package of the lessons is missing here. Installing it takes a minute or two.")
    folder = pathlib.Path("pcmanet").resolve()
    if not folder.exists():
        address = "{address}"
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", address, folder], check=True)
    runpy.run_path(str(folder / "site" / "install.py"), run_name="__main__")
    sys.path.insert(0, str(folder))
"""


def opened_in_colab(repository, path):
    """The address that opens the copy of a notebook."""
    return f"https://colab.research.google.com/github/{repository}/blob/{BRANCH}/{path}"


def full_address(repository, link):
    """Where a link of a lesson leads on the web; a link that names no file of the repository stays as it is."""
    target, mark, place = link.partition("#")
    path = normpath(f"notebooks/{target}")
    if not target or not (ROOT / path).exists():
        return link
    if PurePosixPath(path).suffix in PICTURES:
        return f"https://raw.githubusercontent.com/{repository}/main/{path}"
    if path.startswith("notebooks/") and path.endswith(".ipynb"):
        return opened_in_colab(repository, path) + mark + place
    return f"https://github.com/{repository}/blob/main/{path}{mark}{place}"


def copied(notebook, repository, address):
    """A lesson as its JSON says it, made ready for Colab; `address` is what git clones there."""
    cells = [dict(cell) for cell in notebook["cells"]]
    for cell in cells:
        if cell["cell_type"] == "markdown":
            text = LINK.sub(lambda link: full_address(repository, link[0]), "".join(cell["source"]))
            cell["source"] = text.splitlines(keepends=True)
    source = SETUP.format(address=address).rstrip().splitlines(keepends=True)
    setup = {"cell_type": "code", "execution_count": None, "id": "setup", "metadata": {}, "outputs": [], "source": source}
    return notebook | {"cells": [cells[0], setup, *cells[1:]]}


def write_copies(repository, out, address=None):
    """Write a copy of every lesson into the folder `notebooks` of `out`, which holds nothing else afterwards."""
    shutil.rmtree(out, ignore_errors=True)
    (out / "notebooks").mkdir(parents=True)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        copy = copied(notebook, repository, address or f"https://github.com/{repository}")
        text = json.dumps(copy, ensure_ascii=False, indent=1)
        (out / "notebooks" / path.name).write_text(text + "\n", encoding="utf-8")


def push(folder, remote="origin"):
    """Make `folder` the only commit of the branch `colab` of the remote. The checkout and its index stay as they are."""

    def git(*arguments, cwd=ROOT):
        done = subprocess.run(["git", *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"git {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()

    environment = dict(os.environ)
    name, mail, commit = git("log", "-1", "--format=%an%n%ae%n%h").splitlines()
    for who in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{who}_NAME": name, f"GIT_{who}_EMAIL": mail}
    with tempfile.TemporaryDirectory() as scratch:
        environment |= {"GIT_INDEX_FILE": f"{scratch}/index", "GIT_DIR": git("rev-parse", "--absolute-git-dir")}
        git("--work-tree", ".", "add", "--all", "--force", ".", cwd=folder)
        commit = git("commit-tree", git("write-tree"), "-m", f"The lessons of {commit}, as Colab opens them")
        git("push", "--force", "--quiet", remote, f"{commit}:refs/heads/{BRANCH}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", help="OWNER/NAME on GitHub")
    parser.add_argument("--address", help="what a copy clones, if not the repository on GitHub")
    parser.add_argument("--out", type=Path, default=SITE / "_build" / "colab", help="folder that gets the copies")
    parser.add_argument("--push", action="store_true", help=f"push the copies as the branch {BRANCH}")
    given = parser.parse_args()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", given.repository):
        parser.error(f"the repository is {given.repository!r}; expected OWNER/NAME, as in make colab REPOSITORY=owner/name")
    write_copies(given.repository, given.out.resolve(), given.address)
    if given.push:
        push(given.out.resolve())


if __name__ == "__main__":
    main()
