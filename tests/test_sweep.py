import json

import pytest

from pcma_lib.config import TrainConfig
from pcma_lib.model import AudioVisualModel
from pcma_lib.sweep import SWEEPS, TABLE_IV, main, run_rows


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


def test_an_unknown_row_is_named(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["ablation", "--output", "unused", "--rows", "AVGO"])
    assert stopped.value.code == 2 and "AVGO" in capsys.readouterr().err


def test_a_model_of_classes_goes_through_the_whole_notebook(tmp_path):
    settings = {"semantic": True, "pretrain": 0, "max_steps": 1}
    row = run_rows({"classes": {"settings": settings}}, tmp_path, preset="quick")["classes"]
    assert row["test"]["clips"] == 6 and 0 <= row["test"]["miou_without_background"] <= 1 and "controls" not in row["test"]
