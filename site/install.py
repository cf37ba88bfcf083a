"""Installs the package from this checkout beside what a host such as Colab or Binder has: `python site/install.py`.

What is there and fits is kept, above all the host's own PyTorch. What is missing comes in the version that is tested.
"""

import importlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("train", "video")
COMPARED = ("librosa", "torchaudio")  # lesson 01 compares them; the rest of the extra notebooks is the host's own


def wanted(project):
    """The requirements of the package, of its extras, and of lesson 01, from the table `project` of pyproject.toml."""
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for extra in EXTRAS for text in extras[extra])]
    return [*map(Requirement, texts), *(r for r in map(Requirement, extras["notebooks"]) if r.name in COMPARED)]


def installed(name):
    """The version of an installed distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def fits(requirement):
    found = installed(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def tested(pins, requirements):
    """Those of the tested versions, lines NAME==VERSION, that pip has to keep to: of what is missing or does not fit."""
    unfit = {canonicalize_name(r.name) for r in requirements if not fits(r)}
    return [pin for pin in pins if canonicalize_name(pin.split("==")[0]) in unfit or not installed(pin.split("==")[0])]


def main():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = wanted(project)
    unfit = [r.name for r in requirements if not fits(r)]
    with tempfile.TemporaryDirectory() as scratch:
        constraints = Path(scratch) / "constraints.txt"
        constraints.write_text("\n".join(tested((ROOT / "constraints.txt").read_text().split(), requirements)))
        packages = [str(r) for r in requirements if r.name in COMPARED]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--constraint", constraints]
        command += ["--editable", f"{ROOT}[{','.join(EXTRAS)}]", *packages]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pip could not install the package:\n{done.stderr.strip()}")
    importlib.invalidate_caches()
    if "torchaudio" in unfit:  # its compiled part fits one build of PyTorch alone, and the lesson calls none of it
        shutil.rmtree(distribution("torchaudio").locate_file("torchaudio/lib"), ignore_errors=True)
    print(f"Ready. PyTorch {version('torch')} {'is new here' if 'torch' in unfit else 'was there and stays'}.")


if __name__ == "__main__":
    main()
