import json

import pytest

from pcma_lib import PCMANet
from pcma_lib.sweep import SWEEPS, TABLE_IV, main, run_rows
from pcma_lib.training import commands
from pcma_lib.training.config import RATES, TrainConfig, read_settings
from pcma_lib.training.origin import code_hash
from pcma_lib.use.model import NETWORKS, AudioVisualModel


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_row_is_a_setting_of_its_own_that_makes_a_model(sweep):
    found = []
    for settings in SWEEPS[sweep].values():
        config = TrainConfig.preset("stamps" if sweep == "eyes" else "quick", **settings)
        AudioVisualModel(**{**config.model_settings(), "channels": 64})
        found.append(config.to_dict())
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


def test_table_iv_has_its_six_rows_and_ends_with_the_whole_network():
    assert len(TABLE_IV) == 6 and TABLE_IV["AVGA, QSCA, CIM"] == ()


def test_a_failed_row_is_reported_and_the_others_run(demo, tmp_path):
    rows = {"wrong": {"groups": 3}, "right": {"seed": 1}}
    common = {"data": str(demo), "pretrain": 1, "max_steps": 1, "image_size": 32}
    summary = run_rows(rows, tmp_path, "quick", **common)
    assert "must be divisible by groups (3)" in summary["wrong"]["error"]
    row = summary["right"]
    assert [sorted(point) for point in row["validation"]] == [["epoch", "miou", "miou_whole_set"]] * len(row["validation"])
    assert row["validation"][-1]["miou"] == pytest.approx(row["best"]["miou"])
    assert row["settings"] == {**common, "seed": 1} and row["steps"] == 1 and row["test"]["clips"] == 6
    assert row["test"]["measured_with"]["code"] == row["test"]["origin"]["code"] == code_hash()
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    # run again: what is finished is measured again and not trained, and a failure does not hide what was found before
    (tmp_path / "right" / "result.json").write_text("{")
    assert "result.json" in run_rows({"right": {"seed": 1}}, tmp_path, "quick", **common)["right"]["error"]
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ValueError, match="summary.json is not readable"):
        run_rows({}, tmp_path, "quick")


def test_no_rows_at_a_time_are_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["ablation", "--output", "unused", "--parallel", "0"])
    assert "parallel must be 1 or more, got 0" in str(stopped.value.code)


@pytest.mark.parametrize("command", [["ablation"], ["fit", "--preset", "quick"]])
def test_settings_given_in_several_places_all_count(command, tmp_path, capsys):
    call = commands.main if command[0] == "fit" else main
    with pytest.raises(SystemExit) as stopped:
        call([*command, "--output", str(tmp_path / "unused"), "--set", "image_size=33", "--set", "seed=1"])
    assert "image_size must be divisible by 32, got 33" in str(stopped.value.code) + capsys.readouterr().err


def test_a_setting_is_read_as_fit_reads_it_and_one_without_a_value_is_named(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["networks", "--output", "unused", "--set", "backbone=resnet10t", "image_size"])
    assert "settings are given as FIELD=VALUE, found image_size" in str(stopped.value.code) + capsys.readouterr().err
    assert read_settings(["network=avs", "epochs=2", "data=a=b"]) == {"network": "avs", "epochs": 2, "data": "a=b"}


def test_a_summary_that_is_none_is_refused_before_a_row_is_trained(tmp_path):
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(ValueError, match="summary.json holds list, expected a dictionary of rows"):
        run_rows({"a row": {}}, tmp_path, "quick")
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_an_unknown_row_is_named(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["ablation", "--output", "unused", "--rows", "AVGO"])
    assert stopped.value.code == 2 and "AVGO" in capsys.readouterr().err


def test_a_row_of_classes_is_measured_too(demo, tmp_path):
    settings = {"semantic": True, "pretrain": 0, "max_steps": 1, "data": str(demo), "image_size": 32}
    row = run_rows({"classes": settings}, tmp_path, "quick")["classes"]
    assert row["test"]["clips"] == 6 and 0 <= row["test"]["miou_without_background"] <= 1 and "controls" not in row["test"]


def test_each_network_takes_the_rate_that_suits_it_unless_another_is_given(monkeypatch):
    rates = RATES["demo"]
    assert TrainConfig.preset("demo").learning_rate == rates["pcmanet"]
    assert TrainConfig.preset("demo", network="avs").learning_rate == rates["avs"]
    assert TrainConfig.preset("demo", listen=False).learning_rate == rates["vision only"]
    assert TrainConfig.preset("demo", network="avs", learning_rate=0.5).learning_rate == 0.5
    monkeypatch.setitem(NETWORKS, "mine", PCMANet)
    assert TrainConfig.preset("demo", network="mine").learning_rate == rates["pcmanet"]
