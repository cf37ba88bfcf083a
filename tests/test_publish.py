import ast
import json
import shutil
import subprocess
import warnings
from pathlib import Path

import huggingface_hub.hub_mixin
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import pcma_lib
import pcma_lib.use.model
from maintain.publish import publish
from pcma_lib import AVSS, MS3, AudioVisualModel, PCMANet
from pcma_lib.data.clip import MEAN, STD, Raw
from pcma_lib.measure.evaluation import evaluate, table
from pcma_lib.training import fit, main
from pcma_lib.training.config import TrainConfig
from pcma_lib.training.model import best_device
from pcma_lib.training.origin import DECISIVE, _spelt, code_hash, describe
from pcma_lib.use.checkpoints import load_tensors, read_settings, save_model
from pcma_lib.use.inputs import ASSUMED, check_inputs
from pcma_lib.use.model import NETWORKS

SHIPPED = Path(pcma_lib.__file__).parent / "demo_model.json"
TINY = dict(backbone="resnet10t", stages=(16, 16, 16, 16), channels=16, groups=2, heads=2, vggish_width=0.1)


class Doubled(PCMANet):
    """A network of a user's own."""

    def forward(self, frames, audio, valid=None):
        out = super().forward(frames, audio, valid)
        return out._replace(stages=tuple(2 * o for o in out.stages))


def clip():
    return torch.randn(1, 2, 3, 64, 64), torch.randn(1, 2, 1, 96, 64)


def test_a_published_run_is_half_as_large_and_tells_what_its_own_weights_reach(demo, tmp_path):
    settings = TrainConfig.preset("quick", data=str(demo), epochs=1, mixed_precision="no")
    fit(settings, tmp_path / "run", progress=False)
    publish(tmp_path / "run", tmp_path / "shared")
    full, half = (tmp_path / n for n in ("run/best.safetensors", "shared.safetensors"))
    assert half.stat().st_size < 0.55 * full.stat().st_size
    facts = json.loads((tmp_path / "shared.json").read_text())
    assert TrainConfig(**facts["config"]) == settings
    device = best_device()
    again = evaluate(AudioVisualModel.load(half).to(device), AVSS(demo, "test", 64), controls="all")
    tolerance = 0.02 if device.type == "cuda" else 0  # a GPU adds up in another order from run to run
    torch.testing.assert_close(facts["test"], again, atol=tolerance, rtol=0)
    whole = evaluate(AudioVisualModel.load(full).to(device), AVSS(demo, "test", 64))
    assert again["miou"] == pytest.approx(whole["miou"], abs=0.02)
    assert facts["log"][-1]["step"] <= 3 and facts["validation"][0]["epoch"] == 1


def test_an_unfinished_run_is_not_published(tmp_path):
    for name in ("best.safetensors", "config.json", "log.csv", "validation.csv", "result.json"):
        with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
            publish(tmp_path, tmp_path / "shared")
        (tmp_path / name).touch()


def test_the_shipped_model_is_small_and_is_the_one_its_facts_describe():
    assert SHIPPED.with_suffix(".safetensors").stat().st_size < 10_000_000
    facts = json.loads(SHIPPED.read_text())
    settings = TrainConfig(**facts["config"]).model_settings()
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    assert {k: v for k, v in AudioVisualModel.demo().settings.items() if k in settings} == settings
    assert settings["groups"] == 8 and facts["config"]["image_size"] == 128
    assert facts["test"]["miou"] >= 0.87 and facts["test"]["miou_whole_set"] >= 0.82
    assert all(facts["test"]["controls"][name]["drop"] > 0.95 for name in ("muted", "noise", "swapped", "off_screen"))
    assert facts["test"]["controls"]["muted"]["miou"] <= 0.45


def test_the_shipped_model_is_measured_at_its_own_size_and_says_when_asked_for_another(demo, tmp_path, capsys):
    figures = {}
    for name, size in (("default", []), ("by hand", ["--image-size", "128"]), ("other", ["--image-size", "64"])):
        options = ["--checkpoint", str(SHIPPED.with_suffix(".safetensors")), "--data", str(demo), *size]
        main(["evaluate", *options, "--output", str(tmp_path / "figures.json")])
        figures[name] = json.loads((tmp_path / "figures.json").read_text()), capsys.readouterr().out
    assert figures["default"] == figures["by hand"] and "px" not in figures["default"][1]
    assert figures["other"][0]["miou"] != figures["default"][0]["miou"]
    assert "64 px, as asked for; the checkpoint says 128 px" in figures["other"][1]
    assert AudioVisualModel.demo().origin["preset"] == "demo_long" and AudioVisualModel.demo().origin["steps"] == 3000


def test_a_checkpoint_of_fit_tells_what_it_was_shown_and_where_it_comes_from(demo, tmp_path):
    settings = dict(data=str(demo), epochs=1, max_steps=2, mixed_precision="no", semantic=True, seed=3)
    fit(TrainConfig.preset("quick", **settings), tmp_path, progress=False)
    for name in ("best", "last"):
        model = AudioVisualModel.load(tmp_path / f"{name}.safetensors")
        told = json.loads((tmp_path / f"{name}.json").read_text())
        assert told["inputs"] == model.inputs and told["origin"] == model.origin
    classes = json.loads((demo / "label2idx.json").read_text())
    assert model.inputs.pop("classes") == sorted(classes, key=classes.get)
    assert model.inputs == {"image_size": 64, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "frame_at": 0.5}
    assert model.origin.pop("seconds") > 0 and len(model.origin.pop("data")) == 12
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=SHIPPED.parent, capture_output=True, text=True)
    expected = {"version": pcma_lib.__version__, "commit": commit.stdout.strip() or None, "preset": "quick"}
    assert model.origin == expected | {"seed": 3, "steps": 2, "code": code_hash()}


def test_the_hash_of_the_code_changes_with_what_it_computes_alone(tmp_path, monkeypatch):
    for room in DECISIVE:
        shutil.copytree(SHIPPED.parent / room, tmp_path / room)
    shutil.copy(SHIPPED.parent / "losses.py", tmp_path)
    monkeypatch.setattr(pcma_lib, "__file__", str(tmp_path / "__init__.py"))
    path, found = tmp_path / "losses.py", code_hash.__wrapped__()
    plain = 'def half(x):\n    return {"x": x / 2}\n'
    path.write_text(path.read_text() + plain)
    changed = code_hash.__wrapped__()
    told = 'def half(x: float) -> dict:\n    """Half of it."""\n    return {  # a comment\n        "x": (x / 2),\n    }\n'
    path.write_text(path.read_text().replace(plain, told))
    assert code_hash.__wrapped__() == changed != found
    path.write_text(path.read_text().replace("x / 2", "x / 3"))
    assert code_hash.__wrapped__() not in (found, changed)


def test_the_hash_of_the_code_is_that_of_other_versions_of_python():
    tree, later = ast.parse("def f(x): return x"), ast.parse("def f(x): return x")
    later.body[0]._fields += ("of_python_4",)  # as type_params came with 3.12
    later.body[0].of_python_4 = []
    assert _spelt(tree) == _spelt(later) != _spelt(ast.parse("def f(x): return 0"))


def test_the_fingerprint_of_data_changes_with_their_index_alone(demo, tmp_path):
    index = (demo / "metadata.csv").read_bytes()
    config, prints = TrainConfig(), []
    for content in (index, index, index.replace(b",val,", b",train,", 1)):
        data = AVSS(demo, "train")
        (tmp_path / "metadata.csv").write_bytes(content)
        data.root, data.raw = tmp_path, lambda index: Raw(None, None, None, None, objects=[])
        prints.append(describe(config, data)[1]["data"])
    assert prints[0] == prints[1] != prints[2]


def test_frames_of_avsbench_lie_late_in_their_second(tmp_path):
    (tmp_path / "ms3_meta_data.csv").write_text("name,split\na,train\n")
    data = MS3(tmp_path, "train")
    data.raw = lambda index: Raw(np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1))
    assert describe(TrainConfig(), data)[0]["frame_at"] == 15 / 16


def test_a_shared_folder_gives_the_same_model_and_tells_what_it_reaches(tmp_path):
    model = AudioVisualModel(**TINY, pretrained=False)
    model.inputs |= {"image_size": 96, "classes": ["background", "bell"]}
    model.origin = {"version": "1.2", "commit": None, "preset": "stamps"}
    metrics = {"clips": 1, "miou": 0.5, "controls": {"muted": {"marked": 0.01, "miou": 0.1, "drop": 0.8}}}
    model.save_pretrained(tmp_path, metrics=metrics)
    for again in (AudioVisualModel.from_pretrained(tmp_path), AudioVisualModel.load(tmp_path / "model.safetensors")):
        assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
        assert again.inputs == model.inputs and again.origin == model.origin and not again.training
    assert "pretrained" not in json.loads((tmp_path / "config.json").read_text())
    card = (tmp_path / "README.md").read_text()
    assert "| miou | 0.500 |" in card and "| muted | 1.0% | 0.100 | 80% | nothing |" in card and "license: mit" in card
    assert "- image_size: 96" in card and "- preset: stamps" in card and "- commit: unknown" in card


def test_what_the_hub_passes_on_when_it_uploads_is_taken(tmp_path):
    AudioVisualModel(**TINY).save_pretrained(tmp_path, config=None, model_card_kwargs=None)
    assert "## Origin\n\nUnknown." in (tmp_path / "README.md").read_text()
    with pytest.warns(UserWarning, match="does not say"):
        assert AudioVisualModel.from_pretrained(tmp_path).origin == {}


def test_a_model_of_the_hub_is_the_one_that_was_shared(tmp_path, monkeypatch):
    model = AudioVisualModel(**TINY)
    model.origin = {"preset": "stamps"}
    model.save_pretrained(tmp_path)
    for module in (pcma_lib.use.model, huggingface_hub.hub_mixin):
        monkeypatch.setattr(module, "hf_hub_download", lambda repo_id, filename, **_: str(tmp_path / filename))
    again = AudioVisualModel.from_pretrained("someone/stamps")
    assert torch.equal(again.network.audio.weight, model.network.audio.weight) and again.origin == model.origin


def test_a_shared_folder_that_lacks_parameters_is_refused(tmp_path):
    AudioVisualModel(**TINY).save_pretrained(tmp_path)
    state = load_tensors(tmp_path / "model.safetensors")
    state.pop("network.audio.bias")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"network.audio.bias"):
        AudioVisualModel.from_pretrained(tmp_path)


def test_a_file_that_tells_nothing_of_its_inputs_loads_with_a_warning(tmp_path):
    model, path = AudioVisualModel(**TINY), tmp_path / "old.safetensors"
    save_model(path, model, model.settings)
    with pytest.warns(UserWarning, match=r"old.safetensors does not say .* 224 px"):
        again = AudioVisualModel.load(path)
    assert again.inputs == ASSUMED and again.origin == {} and again.picture_size() == 224
    again.inputs["image_size"] = 96
    again.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert AudioVisualModel.load(path).picture_size() == 96


@pytest.mark.parametrize(
    "change",
    [{"image_size": 100}, {"image_size": "96"}, {"frame_at": 1}, {"classes": "bell"}, {"mean": [0.5, 0.5, 0.5]}, {"std": 1}],
)
def test_inputs_that_can_not_be_given_are_refused_by_name(tmp_path, change):
    model, path = AudioVisualModel(**TINY), tmp_path / "m.safetensors"
    model.inputs |= change
    model.save(path)
    (name,) = change
    with pytest.raises(ValueError, match=f"m.safetensors .*{name}"):
        AudioVisualModel.load(path)


def test_assumed_inputs_are_those_that_clips_have():
    assert torch.equal(torch.tensor(ASSUMED["mean"]), MEAN.flatten()) and torch.equal(
        torch.tensor(ASSUMED["std"]), STD.flatten()
    )
    with pytest.raises(ValueError, match="of the type list"):
        check_inputs("m.safetensors", [])


def test_a_checkpoint_of_another_class_is_loaded_as_that_class_or_not_at_all(tmp_path, monkeypatch):
    path, model = tmp_path / "own.safetensors", AudioVisualModel(**TINY).eval()
    model.network.__class__ = Doubled
    model.save(path)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["settings"])["network"] == f"{__name__}.Doubled"
    with pytest.raises(ValueError, match=f"import Doubled from {__name__} and pass network=Doubled"):
        AudioVisualModel.load(path)
    with pytest.raises(ValueError, match="would load it as pcmanet"):
        AudioVisualModel.load(path, network=PCMANet)
    inputs = clip()
    expected = model(*inputs).logits[0]
    assert torch.equal(AudioVisualModel.load(path, network=Doubled)(*inputs).logits[0], expected)
    model.save_pretrained(tmp_path / "shared")
    with pytest.raises(ValueError, match="pass network=Doubled"):
        AudioVisualModel.from_pretrained(tmp_path / "shared")
    again = AudioVisualModel.from_pretrained(tmp_path / "shared", network=Doubled)
    assert torch.equal(again(*inputs).logits[0], expected)
    monkeypatch.setitem(NETWORKS, "doubled", Doubled)
    assert torch.equal(AudioVisualModel.load(path)(*inputs).logits[0], expected)
    assert AudioVisualModel(**TINY, network="doubled").settings["network"] == f"{__name__}.Doubled"


def test_a_plain_checkpoint_is_not_loaded_as_another_class(tmp_path, monkeypatch):
    AudioVisualModel(**TINY).save(tmp_path / "m.safetensors")
    assert read_settings(tmp_path / "m.safetensors")[0]["network"] == "pcmanet"
    with pytest.raises(ValueError, match=f"holds the network pcmanet, .* {__name__}.Doubled"):
        AudioVisualModel.load(tmp_path / "m.safetensors", network=Doubled)
    monkeypatch.setitem(NETWORKS, "pcmanet", Doubled)
    with pytest.raises(ValueError, match=f"holds the network pcmanet, .* {__name__}.Doubled"):
        AudioVisualModel.load(tmp_path / "m.safetensors")


def test_parameters_that_are_not_finite_are_refused_by_name(tmp_path):
    model, path = AudioVisualModel(**TINY), tmp_path / "m.safetensors"
    with torch.no_grad():
        model.network.audio.bias[3] = 1e6
        model.save(path)
        with pytest.raises(ValueError, match="m.safetensors was not written: network.audio.bias"):
            model.save(path, half=True)
        assert torch.equal(AudioVisualModel.load(path).network.audio.bias, model.network.audio.bias)
        model.network.audio.bias[3] = torch.nan
    model.save(path)
    with pytest.raises(ValueError, match="m.safetensors holds NaN or infinities in network.audio.bias"):
        AudioVisualModel.load(path)


def test_a_model_that_marks_nothing_has_no_drop():
    row = {"muted": {"marked": 0.0, "miou": 0.0, "drop": 0.0}}
    assert "| 0.000 | 0% | nothing |" in table({"miou_sounding": 0.3, "controls": row})
    assert "| 0.000 |  | nothing |" in table({"miou_sounding": 0.0, "controls": row})
