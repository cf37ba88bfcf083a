import os
import re
import tomllib
from importlib import metadata
from pathlib import Path

import yaml
from packaging.specifiers import SpecifierSet

import pcma_lib

ROOT = Path(__file__).resolve().parents[1]


def test_conda_and_pip_install_the_same_project_with_the_same_constraints():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    python = next(d for d in conda if isinstance(d, str) and d.startswith("python="))
    assert python == "python=3.11"
    assert conda[-1] == {"pip": ["--constraint constraints.txt", "--editable .[notebooks,test]"]}
    make = (ROOT / "Makefile").read_text()
    assert "--constraint constraints.txt --editable '.[notebooks,test]'" in make


def test_binder_takes_the_tested_versions_from_conda_and_the_rest_from_the_script_that_colab_runs():
    conda = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text())["dependencies"]
    tested = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    named = dict(d.split("=") for d in conda if "=" in d)
    assert named.pop("python") == "3.11" and {"pytorch-cpu", "torchvision"} <= set(named)
    for name, version in named.items():
        assert tested[name.replace("pytorch-cpu", "torch")].startswith(f"{version}.")
    script = ROOT / "binder" / "postBuild"
    assert os.access(script, os.X_OK) and "python site/install.py" in script.read_text().splitlines()


def test_the_version_is_the_same_wherever_it_is_told():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == citation["version"] == pcma_lib.__version__


def test_every_dependency_has_an_exact_version_and_no_address():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pinned = {re.sub(r"[-_.]+", "-", k).lower() for k in pinned}
    assert {re.split(r"[<>=\[]", d)[0].lower() for d in wanted} - {"pcma-lib"} <= pinned
    assert "://" not in (ROOT / "constraints.txt").read_text()


def test_every_tested_version_takes_the_first_release_of_each_python():
    """Debian 12 has Python 3.11.2, and a package that wants 3.11.5 would end `make env` there."""
    tested = [line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().split()]
    found = [next(metadata.Distribution.discover(name=name), None) for name in tested]
    assert sum(package is not None for package in found) > 100
    for package in filter(None, found):
        wanted = SpecifierSet(package.metadata.get("Requires-Python") or "")
        for python in ("3.11.0", "3.12.0", "3.13.0"):
            assert python in wanted, f"{package.name} {package.version} needs Python {wanted}"


def test_the_workflows_run_targets_of_the_makefile_and_the_main_jobs_are_there():
    make = (ROOT / "Makefile").read_text()
    steps = []
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            steps += [step["run"] for step in job["steps"] if "run" in step]
    targets = {step.split()[1] for step in steps}
    assert all(step.startswith("make ") for step in steps)
    assert targets == {"lint", "code", "lessons", "wheel", "browser", "site", "colab"}
    assert all(re.search(rf"^{target}:", make, re.M) for target in targets)
