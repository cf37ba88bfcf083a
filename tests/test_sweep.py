import json

import pytest

from pcma_lib.sweep import SWEEPS, TABLE_IV, main, run_rows
from pcma_lib.training.config import TrainConfig
from pcma_lib.use.model import AudioVisualModel


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_row_is_a_setting_of_its_own_that_makes_a_model(sweep):
    found = []
    for parameters in SWEEPS[sweep].values():
        parameters = dict(parameters)
        config = TrainConfig.preset("quick", **parameters.pop("settings", {}), **parameters)
        AudioVisualModel(**{**config.model_settings(), "channels": 64})
        found.append(config.to_dict())
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


def test_table_iv_has_its_six_rows_and_ends_with_the_whole_network():
    assert len(TABLE_IV) == 6 and TABLE_IV["AVGA, QSCA, CIM"] == ()


def test_a_failed_row_is_reported_and_leaves_its_log(tmp_path):
    summary = run_rows({"wrong": {"settings": {"groups": 3}}}, tmp_path, preset="quick")
    assert "must be divisible by groups (3)" in summary["wrong"]["error"]
    again = run_rows({"wrong too": {"settings": {"groups": 3}}}, tmp_path, preset="quick")
    assert json.loads((tmp_path / "summary.json").read_text()) == summary | again
    assert "groups (3)" in (tmp_path / "wrong" / "papermill.log").read_text()


def test_a_row_whose_figures_cannot_be_read_is_reported_and_what_it_measured_is_kept(tmp_path):
    parameters = {"preset": "quick", "output": str(tmp_path / "row" / "run"), "resume": True}
    (tmp_path / "row" / "run").mkdir(parents=True)
    (tmp_path / "row" / "finished.json").write_text(json.dumps(parameters))
    measured = {"test": {"miou": 0.5}, "validation": {}, "seconds": 1.0, "log": []}
    (tmp_path / "row" / "run" / "metrics.json").write_text(json.dumps(measured))
    finished = run_rows({"row": {}}, tmp_path, preset="quick")
    assert finished["row"]["test"] == {"miou": 0.5}
    (tmp_path / "row" / "run" / "metrics.json").write_text("{")
    assert "metrics.json is not readable" in run_rows({"row": {}}, tmp_path, preset="quick")["row"]["error"]
    (tmp_path / "row" / "run" / "metrics.json").write_text("{}")
    assert "lacks test" in run_rows({"row": {}}, tmp_path, preset="quick")["row"]["error"]
    assert "other parameters" in run_rows({"row": {"seed": 1}}, tmp_path, preset="quick")["row"]["error"]
    assert json.loads((tmp_path / "summary.json").read_text()) == finished
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ValueError, match="summary.json is not readable"):
        run_rows({"row": {}}, tmp_path, preset="quick")


def test_no_rows_at_a_time_are_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["ablation", "--output", "unused", "--parallel", "0"])
    assert "parallel must be 1 or more, got 0" in str(stopped.value.code)


def test_an_unknown_row_is_named(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["ablation", "--output", "unused", "--rows", "AVGO"])
    assert stopped.value.code == 2 and "AVGO" in capsys.readouterr().err


def test_a_model_of_classes_goes_through_the_whole_notebook(tmp_path):
    settings = {"semantic": True, "pretrain": 0, "max_steps": 1}
    row = run_rows({"classes": {"settings": settings}}, tmp_path, preset="quick")["classes"]
    assert row["test"]["clips"] == 6 and 0 <= row["test"]["miou_without_background"] <= 1 and "controls" not in row["test"]
