"""The proof that notebooks and tests test the library: break one of its lines, and a notebook or a test file must fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {  # name: file of pcma_lib, what it holds once, what takes its place, the notebook that fails
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
    "upsampling": ("network/layers.py", 'mode="bilinear"', 'mode="nearest"', "06"),
    "order of stages": ("network/pcmanet.py", "stages.insert(0, logits", "stages.append(logits", "06"),
    "iou union": ("measure/metrics.py", "union = (predicted | truth)", "union = (predicted ^ truth)", "07"),
    "iou loss": ("losses.py", "probability + target - probability * target", "probability + target", "07"),
}

# fmt: off
TESTS = {  # the same with the test file that fails
    "mask not flipped": ("data/avsbench.py", "frames.flip(-1), masks.flip(-1)", "frames.flip(-1), masks", "test_datasets"),
    "mask cropped beside": ("data/avsbench.py", "in (frames, masks))", "in (frames, masks.roll(1, -1)))", "test_datasets"),
    "labels in training": ("data/avsbench.py", 'split != "train" or k == 1', 'split != "train" or k <= 2', "test_datasets"),
    "length of padding": ("data/clip.py", "longest - len(p)]", "longest - len(p) + 1]", "test_datasets"),
    "silent objects": ("data/controls.py", 'and not any(o["sounds"])', 'and not all(o["sounds"])', "test_datasets"),
    "muted": ("data/controls.py", "return np.zeros_like(wave), masks", "return wave, masks", "test_datasets"),
    "coloured masks": ("data/files.py", "marked = colours.any(2)", "marked = colours.all(2)", "test_datasets"),
    "colours of classes": ("data/files.py", "index = index >> 3", "index = index >> 2", "test_datasets"),
    "foreign paths": ("data/files.py", "if not path.resolve().is_relative_to(root):", "if False:", "test_datasets"),
    "stage weights": ("losses.py", "total + weight * bce_iou_loss(", "total + bce_iou_loss(", "test_losses_and_metrics"),
    "unlabelled frames": ("losses.py", "labelled.flatten().non", "labelled.flatten().add(1).non", "test_losses_and_metrics"),
    "empty truth": ("measure/metrics.py", "where(empty, (pixels", "where(~empty, (pixels", "test_losses_and_metrics"),
    "beta": ("measure/metrics.py", "BETA2 = 0.3", "BETA2 = 1.0", "test_losses_and_metrics"),
    "unlabelled measured": ("measure/metrics.py", "else labelled.to(", "else (~labelled).to(", "test_losses_and_metrics"),
    "schedule": ("training/steps.py", "0.5 * (1 + math.cos(", "0.5 * (1 - math.cos(", "test_training"),
    "warm-up": ("training/steps.py", "(step + 1) / config.warmup_steps", "1.0", "test_training"),
    "clips of processes": ("training/data.py", "piece[rank::world]", "piece[::world]", "test_training"),
    "clipping": ("training/steps.py", "self.config.clip_gradients or math.inf", "math.inf", "test_training"),
    "frozen VGGish": ("training/loop.py", "plain.vggish.eval()", "plain.vggish.train()", "test_training"),
    "resumed optimiser": ("training/loop.py", 'self.optimizer.load_state_dict(state["', 'dict(state["', "test_training"),
    "best model": ("training/loop.py", '> self.best["miou_whole_set"]', '< self.best["miou_whole_set"]', "test_training"),
    "late negatives": ("training/data.py", "if late else 0.0", "if True else 0.0", "test_training"),
    "drop": ("measure/evaluation.py", 'row["drop"] = 1 - row', 'row["drop"] = row', "test_datasets"),
    "weights of labels": ("training/steps.py", "config.stage_weights) * share", "config.stage_weights)", "test_processes"),
    "picture of a second": ("data/media.py", "(index + at) / rate < time", "index / rate < time", "test_video"),
    "rotation": ("data/media.py", "-1 if d < 0 else 1", "-1 if d > 0 else 1", "test_video"),
    "sound of a clip": ("video.py", "- WINDOW // 2", "- WINDOW", "test_video"),
    "order of clips": ("video.py", "times[phase::stride]", "times[::stride]", "test_video"),
    "left-over files": ("data/files.py", "Path(temporary).unlink(missing_ok=True)", "pass", "test_bad_input"),
    "half precision": ("use/checkpoints.py", "v.half() if v.is_floating", "v if v.is_floating", "test_publish"),
    "padded seconds": ("network/qsca.py", "audio_keys = valid[", "audio_keys = torch.ones_like(valid)[", "test_modules"),
    "padded against alone": ("network/pcmanet.py", "masks else None, valid)", "masks else None, None)", "test_pcmanet"),
    "continuity": ("network/variants.py", "audio, *masks)[0], audio", "audio, *masks)", "test_pcmanet"),
    "logits of bf16": ("use/fast.py", "out.stages[0].float() if self.half", "out.stages[0] if self.half", "test_inference"),
    "ring of the gate": ("use/gated.py", "[:, None], 3, 1, 1)[:, 0]", "[:, None], 1, 1, 0)[:, 0]", "test_gated"),
    "minimal filtering": ("use/convolutions.py", "taps = self._taps / 24", "taps = self._taps / 23", "test_inference"),
}
# fmt: on
MUTATIONS = NOTEBOOKS | TESTS


def pytest_in(root, *arguments, **environment):
    """A pytest of its own, which imports the library that lies in `root`."""
    environment = {**os.environ, "PYTHONPATH": str(root), **environment}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *map(str, arguments)]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def nbval(notebook, root=ROOT, **environment):
    """nbval's verdict on a notebook, with the library of `root`."""
    return pytest_in(root, "--nbval", notebook, **environment)


def run(tree, judge):
    """The verdict of a notebook, by its number, or of a test file, by its name."""
    if judge.isdigit():
        return nbval(next((tree / "notebooks").glob(f"{judge}_*.ipynb")), tree)
    return pytest_in(tree, tree / "tests" / f"{judge}.py")


@pytest.fixture
def tree(tmp_path):
    for folder in ("pcma_lib", "pcma_data", "maintain", "notebooks", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_line_that_is_to_be_broken_is_there_once():
    sources = {name: (ROOT / "pcma_lib" / file).read_text() for name, (file, *_) in MUTATIONS.items()}
    assert {name: sources[name].count(right) for name, (_, right, *_) in MUTATIONS.items()} == dict.fromkeys(MUTATIONS, 1)


@pytest.mark.slow
def test_two_processes_collect_the_same_tests():
    every = ("--collect-only", "-m", "slow or not slow", "tests")
    found = [pytest_in(ROOT, *every, PYTHONHASHSEED=seed).stdout.splitlines() for seed in "01"]
    assert len(found[0]) > 600 and found[0][:-1] == found[1][:-1]  # the last line tells the seconds


@pytest.mark.slow
@pytest.mark.parametrize("judge", sorted({m[3] for m in MUTATIONS.values()}))
def test_a_notebook_or_a_test_file_passes_with_the_library_as_it_is(tree, judge):
    result = run(tree, judge)
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_notebook_or_a_test_file_fails_when_a_line_is_broken(tree, mutation):
    file, right, wrong, judge = MUTATIONS[mutation]
    path = tree / "pcma_lib" / file
    path.write_text(path.read_text().replace(right, wrong))
    result = run(tree, judge)
    assert result.returncode == 1 and "1 failed" in result.stdout, result.stdout
