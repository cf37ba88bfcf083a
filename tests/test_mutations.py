"""The proof that the notebooks test the library: break one of its lines, and a notebook must fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MUTATIONS = {
    "mel scale": ("network/audio.py", "torch.log1p(hz / 700.0)", "torch.log1p(hz / 710.0)", "01"),
    "symmetric window": ("network/audio.py", "periodic=True", "periodic=False", "01"),
    "flattening order": ("network/audio.py", "features.permute(0, 2, 3, 1).flatten(1)", "features.flatten(1)", "01"),
    "level order": ("network/visual.py", "for r in (4, 8, 16, 32)]", "for r in (4, 8, 32, 16)]", "02"),
    "avga groups": (
        "network/avga.py",
        "unflatten(1, (self.groups, -1))",
        "unflatten(1, (-1, self.groups)).transpose(1, 2)",
        "03",
    ),
    "avga norm": ("network/avga.py", "grouped.norm(dim=2)", "grouped.norm(dim=(1, 2))[:, None]", "03"),
    "missing residual": ("network/qsca.py", "audio = audio + self.out(", "audio = self.out(", "04"),
    "scatter to the wrong clip": (
        "network/qsca.py",
        "out.scatter(1, index[..., None]",
        "out.scatter(1, index.roll(1, 0)[..., None]",
        "04",
    ),
    "untrained queries": (
        "network/qsca.py",
        'if mask is not None and self.as_released in (True, "detached"):',
        "if True:",
        "04",
    ),
    "cim comparison": ("network/cim.py", "< self.threshold", "> self.threshold", "05"),
    "softmax axis": ("network/cim.py", "logits.softmax(1)", "logits.softmax(3)", "05"),
    "no progression": ("network/cim.py", "if coarser is None:", "if True:", "05"),
    "upsampling": ("network/fusion.py", 'mode="bilinear"', 'mode="nearest"', "06"),
    "order of stages": ("network/pcmanet.py", "logits.append(resize(stage", "logits.insert(0, resize(stage", "06"),
    "iou union": ("measure/metrics.py", "union = (predicted | truth)", "union = (predicted ^ truth)", "07"),
    "iou loss": ("losses.py", "probability + target - probability * target", "probability + target", "07"),
}


def run(tree, number):
    """nbval's verdict on a notebook of the tree, with the tree's own library."""
    notebook = next((tree / "notebooks").glob(f"{number}_*.ipynb"))
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--nbval", "-p", "no:cacheprovider", notebook]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)


@pytest.fixture
def tree(tmp_path):
    for folder in ("pcma_lib", "notebooks", "data_scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("number", sorted({m[3] for m in MUTATIONS.values()}))
def test_a_notebook_passes_with_the_library_as_it_is(tree, number):
    result = run(tree, number)
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_notebook_fails_when_a_line_is_broken(tree, mutation):
    file, right, wrong, number = MUTATIONS[mutation]
    path = tree / "pcma_lib" / file
    source = path.read_text()
    assert source.count(right) == 1
    path.write_text(source.replace(right, wrong))
    result = run(tree, number)
    assert result.returncode == 1 and "1 failed" in result.stdout, result.stdout
