"""Networks, data sets and encoders of one's own: registered by name, or handed to fit as objects."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tests_layouts import write_object_layout
from torch import nn

from pcma_lib import AVSS, AudioVisualModel, training
from pcma_lib.data.avsbench import DATASETS, AVSBench, register_dataset
from pcma_lib.measure.evaluation import evaluate
from pcma_lib.network.pcmanet import PCMAOutput
from pcma_lib.network.visual import ENCODERS, VisualPyramid, register_encoder
from pcma_lib.training import TrainConfig, commands, fit, loop
from pcma_lib.use.model import NETWORKS, register_network


class Film(nn.Module):
    def __init__(self, backbone="resnet10t", channels=32, hidden=8, num_classes=1):
        super().__init__()
        self.pyramid = VisualPyramid(backbone, channels)
        self.film = nn.Sequential(nn.Linear(128, hidden), nn.ReLU(), nn.Linear(hidden, 2 * channels))
        self.head = nn.Conv2d(channels, num_classes, 1)

    def forward(self, frames, audio, valid=None):
        finest = self.pyramid(frames.flatten(0, 1))[0]
        scale, shift = self.film(audio.flatten(0, 1))[:, :, None, None].chunk(2, 1)
        logits = self.head(finest * (1 + scale) + shift)
        logits = nn.functional.interpolate(logits, size=frames.shape[-2:], mode="bilinear")
        return PCMAOutput((logits.unflatten(0, frames.shape[:2]),), ())


class Other(Film):
    """The same parameters under another name."""


class Folder(AVSBench):
    """SPLIT/NAME/: 0.jpg, 0.png, ..., audio.wav."""

    @classmethod
    def read_index(cls, root):
        return [{"name": p.name, "split": p.parent.name} for p in sorted(Path(root).glob("*/*"))]

    def paths(self, row):
        folder = self.root / row["split"] / row["name"]
        frames = sorted(folder.glob("*.jpg"))
        return frames, [f.with_suffix(".png") for f in frames], folder / "audio.wav"


class Plain(nn.Module):
    def __init__(self, pretrained=False):
        super().__init__()
        self.channels = (4, 8, 8, 8)
        self.levels = nn.ModuleList(nn.Conv2d(i, o, s, s) for i, o, s in ((3, 4, 4), (4, 8, 2), (8, 8, 2), (8, 8, 2)))

    def forward(self, frames):
        maps = [frames]
        for level in self.levels:
            maps.append(level(maps[-1]).relu())
        return maps[1:]


@pytest.fixture(autouse=True)
def as_before():
    stored = [dict(registry) for registry in (NETWORKS, DATASETS, ENCODERS)]
    yield
    for registry, before in zip((NETWORKS, DATASETS, ENCODERS), stored):
        registry.clear()
        registry.update(before)


def quick(data, **changes):
    return TrainConfig.preset("quick", data=str(data), **{"mixed_precision": "no", "max_steps": 2, "pretrain": 1, **changes})


def test_a_registered_network_trains_and_loads_only_as_what_it_is(demo, tmp_path):
    with pytest.raises(ValueError, match=r"network must be one of pcmanet, avs; got 'film'.*@register_network\('film'\)"):
        quick(demo, network="film")
    register_network("film")(Film)
    config = quick(demo, network="film", options={"hidden": 5})
    result = fit(config, tmp_path, progress=False)
    model = AudioVisualModel.load(result["best_checkpoint"])
    assert type(model.network) is Film and model.network.film[0].out_features == 5
    del NETWORKS["film"]
    with pytest.raises(ValueError, match=f"import Film from {__name__} and pass network=Film"):
        AudioVisualModel.load(result["best_checkpoint"])
    found = AudioVisualModel.load(result["best_checkpoint"], network=Film).state_dict()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="holds the network"):
        AudioVisualModel.load(result["best_checkpoint"], network=Plain)


def test_a_network_that_was_written_in_a_notebook_loads_from_the_module_that_it_moved_to(demo, tmp_path, monkeypatch):
    monkeypatch.setattr(Film, "__module__", "__main__")
    path = tmp_path / "film.safetensors"
    model = AudioVisualModel(network=Film(hidden=5), hidden=5)
    model.origin = {"data": "none"}
    model.save(path)
    with pytest.raises(ValueError, match="holds the network __main__.Film; that class was written in a notebook or script"):
        AudioVisualModel.load(path)
    monkeypatch.setattr(Film, "__module__", "my_parts")
    moved = AudioVisualModel.load(path, network=Film)
    assert moved.said()["settings"]["network"] == "my_parts.Film"
    with pytest.raises(ValueError, match="import Film from it, and pass network=Film"):
        AudioVisualModel.load(path, network=Other)


def test_a_network_whose_options_are_not_told_trains_with_a_warning_and_loads_into_one_made_alike(demo, tmp_path):
    clips = AVSS(demo, "val", 64)
    with pytest.warns(UserWarning, match=r"Film\(\*\*config.options\) is not the network that was given \(options: {}\)"):
        result = fit(quick(demo), tmp_path, progress=False, model=Film(hidden=5), train=clips, val=clips)
    with pytest.raises(ValueError, match="does not fit its own settings"):
        AudioVisualModel.load(result["best_checkpoint"], network=Film)
    assert AudioVisualModel.load(result["best_checkpoint"], network=Film(hidden=5)).network.film[0].out_features == 5


def test_a_name_that_is_taken_is_not_given_to_another_class():
    with pytest.raises(ValueError, match="network 'avs' is pcma_lib.network.tpavi.AVSBaseline; choose another name"):
        register_network("avs")(Film)
    assert register_network("film")(Film) is register_network("film")(Film)


def test_what_a_registered_network_lacks_is_named(demo, tmp_path):
    register_network("film")(Film)
    with pytest.raises(ValueError, match="'film' takes no pretrained"):
        fit(quick(demo, network="film", pretrained=True, stages=None), tmp_path, progress=False)


def test_a_registered_folder_of_clips_trains(tmp_path, capsys, monkeypatch):
    for split in ("train", "train", "train", "train", "val"):
        number = len(list((tmp_path / "clips").glob("*/*")))
        folder = tmp_path / "clips" / split / f"clip{number}"
        folder.mkdir(parents=True)
        for k in range(2):
            Image.new("RGB", (64, 64), (60 * k, 90, 120)).save(folder / f"{k}.jpg")
            Image.new("1", (64, 64), k).save(folder / f"{k}.png")
        soundfile.write(folder / "audio.wav", np.random.default_rng(number).uniform(-0.1, 0.1, 32000), 16000)
    with pytest.raises(ValueError, match="dataset must be one of s4, ms3, avss"):
        quick(tmp_path / "clips", dataset="folder")
    register_dataset("folder")(Folder)
    config = quick(tmp_path / "clips", dataset="folder", pretrain=0)
    assert fit(config, tmp_path / "run", progress=False)["best"]["clips"] == 1
    for place in (commands, loop):  # of one clip no sound can be swapped in
        monkeypatch.setattr(place, "evaluate", lambda *given, controls="all", **more: evaluate(*given[:2], **more))
    checkpoint = str(tmp_path / "run" / "best.safetensors")
    given = ["--checkpoint", checkpoint, "--data", str(tmp_path / "clips"), "--dataset", "folder", "--split", "val"]
    training.main(["evaluate", *given])
    assert "miou" in capsys.readouterr().out
    told = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps(told | {"of_another_version": 1}))
    assert set(training.test(tmp_path / "run", Folder(tmp_path / "clips", "val"), progress=False)) >= {"clips", "data"}
    assert "val" not in json.loads((tmp_path / "run" / "result.json").read_text())
    del DATASETS["folder"]
    with pytest.raises(ValueError, match="dataset was 'folder', is 'avss'"):
        fit(quick(tmp_path / "clips", pretrain=0), tmp_path / "run", resume=True, progress=False)


def test_a_registered_encoder_feeds_the_pyramid_at_four_strides():
    with pytest.raises(ValueError, match=r"'plain' is not a timm model.*@register_encoder\('plain'\)"):
        VisualPyramid("plain", 16)
    register_encoder("plain")(Plain)
    assert [list(f.shape[1:]) for f in VisualPyramid("plain", 16)(torch.zeros(2, 3, 64, 64))] == [
        [16, 16, 16],
        [16, 8, 8],
        [16, 4, 4],
        [16, 2, 2],
    ]


class Bare:
    """Clips and nothing else."""

    num_classes = 1

    def __init__(self, clips):
        self.clips = clips

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        return self.clips[index]


def test_fit_takes_a_network_and_data_as_objects_and_goes_on_with_the_same_alone(demo, tmp_path):
    data, network = AVSS(demo, "val", 64), Film(hidden=5)
    clips, rows = Bare(data), []
    config = quick("nowhere", pretrain=0, options={"hidden": 5}, vggish_width=0.125)
    before = network.film[0].weight.detach().clone()
    fit(config, tmp_path, progress=False, model=network, train=clips, val=clips, after_step=rows.append)
    assert len(rows) == 2 and not torch.equal(network.film[0].weight, before)
    loaded = AudioVisualModel.load(tmp_path / "last.safetensors", network=Film)
    assert torch.equal(loaded.network.film[0].weight, network.film[0].weight)
    with pytest.raises(ValueError, match="was started with the network .*Film, not .*Other; use those"):
        fit(config, tmp_path, resume=True, progress=False, model=Other(hidden=5), train=clips, val=clips)
    with pytest.raises(ValueError, match="options: the network 'pcmanet' takes no hidden"):
        fit(config, tmp_path / "other", progress=False, train=clips, val=clips)
    with pytest.raises(ValueError, match="other clips"):
        fit(config, tmp_path, True, progress=False, model=Film(hidden=5), train=Bare([data[0]] * 4), val=clips)


def test_data_that_are_none_are_refused_by_what_they_lack(demo, tmp_path):
    with pytest.raises(TypeError, match="list has no num_classes"):
        fit(quick(demo), tmp_path, progress=False, train=[AVSS(demo, "val", 64)[0]])


def test_a_run_is_set_up_by_a_file_and_by_its_own_config(demo, tmp_path, capsys):
    file = tmp_path / "settings.yaml"
    file.write_text(f"data: {demo}\nmixed_precision: no\nmax_steps: 1\npretrain: 0\nlearning_rate: 1e-3\n")
    training.main(["fit", "--preset", "quick", "--config", str(file), "--output", str(tmp_path / "one"), "--set", "seed=4"])
    stored = json.loads((tmp_path / "one" / "config.json").read_text())
    assert (stored["seed"], stored["learning_rate"], stored["mixed_precision"]) == (4, 1e-3, "no")
    training.main(["fit", "--config", str(tmp_path / "one" / "config.json"), "--output", str(tmp_path / "two"), "--test"])
    assert json.loads((tmp_path / "two" / "config.json").read_text()) == stored
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert one["best"] == two["best"] and two["test"]["clips"] == 6 and two["test"]["origin"]["seed"] == 4
    assert "muted" in two["test"]["controls"] and set(two["test"]["measured_with"]) == {"version", "commit", "code"}
    file.write_text("- 1\n")
    with pytest.raises(SystemExit, match="settings.yaml holds list, expected settings"):
        training.main(["fit", "--config", str(file), "--output", str(tmp_path / "three")])
    with pytest.raises(SystemExit, match="holds no finished run"):
        training.main(["test", "--run", str(tmp_path)])


def test_the_command_imports_the_modules_of_ones_own_parts_before_it_reads_the_settings(demo, tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(
        "from pcma_lib import PCMANet\nfrom pcma_lib.use.model import register_network\n"
        "@register_network('mine')\nclass Mine(PCMANet):\n    pass\n"
    )
    (tmp_path / "my_other_parts.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])  # as an installed command has it
    settings = ["--preset", "quick", "--set", f"data={demo}", "network=mine", "max_steps=1", "pretrain=0"]
    training.main(
        ["--import", "my_parts", "--import", "my_other_parts", "fit", *settings, "--output", str(tmp_path / "run")]
    )
    model = AudioVisualModel.load(tmp_path / "run" / "best.safetensors")
    assert type(model.network).__module__ == "my_parts"
    with pytest.raises(SystemExit, match="error: No module named 'no_such_parts'"):
        training.main(["--import", "no_such_parts", "fit", "--output", str(tmp_path / "other")])


def test_events_of_a_resumed_run_hold_every_step_once(demo, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def stop(row):
        if row["step"] == 2:
            raise KeyboardInterrupt

    config = quick(demo, max_steps=4, save_every=1, pretrain=0)
    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path, progress=False, after_step=stop)
    fit(config, tmp_path, resume=True, progress=False)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("training/loss")] == [1, 2, 3, 4]
    assert events.Scalars("validation/miou")
    with pytest.raises(ValueError, match="not installed"):
        fit(quick(demo, log_with="wandb"), tmp_path / "other", progress=False)


@pytest.mark.parametrize("preset, nested", [("s4", True), ("ms3", False)])
def test_the_papers_presets_train_and_test_on_the_layouts_as_they_are_downloaded(tmp_path, preset, nested):
    data = tmp_path / "data"
    write_object_layout(data, f"{preset}_data", nested, "{name}_{k}.png" if nested else "{name}.mp4_{k}.png")
    index = data / f"{preset}_meta_data.csv"
    index.write_text(index.read_text() + "clip_test,dog_barking,val\n")
    if nested:
        for kind in ("visual_frames", "gt_masks", "audio_wav"):
            (data / "s4_data" / kind / "val").symlink_to("test")
    else:
        for kind in ("gt_masks", "audio_wav"):
            (data / "ms3_data" / kind / "val").symlink_to("test")
    small = {"image_size": 32, "channels": 16, "groups": 4, "max_steps": 1, "pretrained": False, "workers": 0}
    small |= {"backbone": "resnet10t", "vggish_weights": None, "vggish_width": 0.125, "batch_size": 1}
    fit(TrainConfig.preset(preset, data=str(data), **small), tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="no clip of split"):
        training.test(tmp_path / "run")  # its one other clip is of the same category, so nothing can be swapped in


def test_every_command_of_the_results_page_is_one_that_fit_takes(monkeypatch, tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "results" / "avsbench.md").read_text()
    lines, started = re.findall(r"`python -m pcma_lib.training (fit .*?)`", page), []
    monkeypatch.setattr(commands, "fit", lambda config, *rest: started.append(config) or {})
    monkeypatch.setattr(commands, "test", lambda folder: {})
    for line in lines:
        training.main(line.split())
    assert len(lines) == len({json.dumps(config.to_dict()) for config in started}) == 11
