"""What a long job says while it runs: lines where no bar can be seen, else a bar."""

import io
import sys
import time

import pytest

from pcma_lib.training.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A time that passes when told to."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


class NotebookStream(io.StringIO):
    """What stdout is in a notebook."""


NotebookStream.__module__ = "ipykernel.iostream"


def test_a_command_prints_a_line_at_least_every_ten_seconds_on_stderr(clock, capsys):
    shown, told = Progress("training"), {}
    for done in range(1, 41):
        clock[0] += 4.0
        shown.at(done, 40, lambda done=done: f"loss {1 / done:.3f}")
        for line in capsys.readouterr().err.splitlines():
            told[clock[0]] = line
    times = list(told)
    assert max(b - a for a, b in zip(times, times[1:])) <= 10
    assert told[times[0]] == "training: step 1 of 40, loss 1.000"
    assert told[times[1]] == "training: step 3 of 40, loss 0.333, 02:28 left"
    assert told[times[-1]] == "training: step 40 of 40, loss 0.025, took 02:36"


@pytest.mark.parametrize("session", [None, "lesson.ipynb"])
def test_a_notebook_has_a_bar_in_jupyterlab_and_else_lines_on_stdout(clock, capsys, monkeypatch, session):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    if session:
        monkeypatch.setenv("JPY_SESSION_NAME", session)
    monkeypatch.setattr(sys, "stdout", NotebookStream())
    with Progress("validation", "clip") as shown:
        for done in range(1, 4):
            clock[0] += 10
            shown.at(done, 3)
        assert (shown.bar is not None) == bool(session)
        assert session is None or (shown.bar.n, shown.bar.total, shown.bar.desc) == (3, 3, "validation")
    lines = sys.stdout.getvalue().splitlines()
    assert lines == ([] if session else ["validation: clip 1 of 3", "validation: clip 2 of 3, 00:10 left", lines[-1]])


def test_nothing_is_said_and_no_fact_asked_for_when_it_is_not_wanted(clock, capsys):
    Progress("training", show=False).at(1, 1, lambda: pytest.fail("asked"))
    assert capsys.readouterr() == ("", "")
