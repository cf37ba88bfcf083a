"""The files of a training run, which are whole at any moment."""

import csv
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..data.files import PART, make_folder, read_json, write_atomically
from ..use.checkpoints import write_json, write_tensors
from ..use.model import AudioVisualModel
from .config import TrainConfig

STATE = {  # what resume.pt holds
    "config": dict,
    "step": int,
    "best": dict | None,
    "seconds": float,
    "model": dict,
    "optimizer": dict,
    "rng": torch.Tensor,
    "rows": list,
    "validations": list,
}
FREE = ("workers", "cache", "save_every", "data", "log_with", "preset_name")  # what changes nothing in a run's result
TOLD = {  # settings that may differ when a run goes on, and what that changes
    "accumulate": "batch norm sees parts of another size, so the result is nearly that of an unchanged run, not exactly",
    "epochs": "the learning rate's schedule has another end from here on",
    "max_steps": "the learning rate's schedule has another end from here on",
    "evaluate_every": "other steps are validated, so another one may be the best",
    "compile": "the result differs by rounding",
}


def differences(before: dict, now: dict) -> tuple[list[str], list[str]]:
    """The settings, as dicts, that differ where it matters: names of those that may not, and of those in TOLD.

    One that an older version did not have counts as its default; fewer epochs or steps than before may not be.
    """
    named = {k: before[k] for k in ("network", "dataset") if k in before}  # which may not be registered now
    before = TrainConfig.stored(before | {k: now[k] for k in named}).to_dict() | named
    differ = [k for k in sorted(now) if now[k] != before[k] and k not in FREE]
    limits = {k: [s[k] or sys.maxsize for s in (before, now)] for k in ("epochs", "max_steps")}
    told = [k for k in differ if k in TOLD and (k not in limits or limits[k][0] < limits[k][1])]
    return [k for k in differ if k not in told], told


def is_finished(folder: str | Path, config: TrainConfig) -> bool:
    """Whether a folder holds a run with the settings of this `TrainConfig` that has come to its end."""
    if not (Path(folder) / "result.json").is_file():
        return False
    before, now = read_json(Path(folder) / "config.json"), config.to_dict()
    if config.mixed_precision == "auto":
        now["mixed_precision"] = before["mixed_precision"]
    return not any(differences(before, now))


class Run:
    """The files of one training run: log, validations, checkpoints, resume state."""

    def __init__(self, folder: str | Path, main: bool) -> None:
        self.folder, self.main = Path(folder), main
        self.resume_path = self.folder / "resume.pt"
        self.rows, self.validations = [], []
        if main:
            make_folder(self.folder)

    def load(self) -> dict | None:
        """The resume state, and the log cut back to it; None where there is nothing to go on from."""
        if self.main:
            for part in self.folder.glob(f".*{PART}"):  # of a run that was killed while it wrote
                part.unlink()
        if not self.resume_path.is_file():
            return None
        with self.reading():
            state = torch.load(self.resume_path, map_location="cpu", weights_only=True)
            for key, kind in STATE.items():
                if not isinstance(state[key], kind):
                    raise TypeError(f"{key} is {type(state[key]).__name__}")
        self.rows, self.validations = state["rows"], state["validations"]
        return state

    def refuse_what_would_be_lost(self, resume: bool, state: dict | None) -> None:
        """Raises FileExistsError where a run would write over another one's model."""
        held = [n for n in ("resume.pt", "result.json", "best.safetensors") if (self.folder / n).is_file()]
        if held and not resume:
            raise FileExistsError(f"{self.folder} already holds a run; give resume=True to go on with it, or another folder")
        if "result.json" in held and not state:
            raise FileExistsError(f"{self.folder} holds a finished run and no resume.pt to go on from; give another folder")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn whatever is wrong with the contents of the resume state into a ValueError that names the file."""
        try:
            yield
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{self.resume_path} is not a readable resume state ({found}); delete it to start anew"
            ) from None

    def precision(self, state: dict | None) -> str | None:
        """What "auto" was when the run began; None where that is not known."""
        with self.reading():
            stored = state["config"].get("mixed_precision", "auto") if state else "auto"
        return None if stored == "auto" else stored

    def refuse_other_settings(self, config: TrainConfig, state: dict | None) -> None:
        """Warns of settings that change how a run goes on.

        Raises:
            ValueError: the run was started with settings that may not differ.
        """
        if not state:
            return
        with self.reading():
            before = state["config"]
            if before.get("mixed_precision") == "auto":  # of a version that did not store what it was resolved to
                before = {**before, "mixed_precision": config.mixed_precision}
            refused, told = differences(before, config.to_dict())
        if refused:
            refused = "; ".join(f"{k} was {before.get(k)!r}, is {getattr(config, k)!r}" for k in refused)
            raise ValueError(f"{self.folder} was started with other settings ({refused}); use another folder")
        for name in told if self.main else ():
            was, now = before.get(name), getattr(config, name)
            warnings.warn(f"going on with {name}={now} instead of {was}: {TOLD[name]}", stacklevel=4)

    def save_model(self, name: str, model: AudioVisualModel, metrics: dict) -> None:
        """A checkpoint, and beside it as JSON what it says of itself."""
        model.save(self.folder / f"{name}.safetensors", metrics)
        write_json(self.folder / f"{name}.json", {**model.said(), "metrics": metrics})

    def save(self, state: dict) -> None:
        """Write the state to go on from, and the logs that belong to it."""
        if self.main:
            state = {**state, "rows": self.rows, "validations": self.validations}
            write_tensors(self.resume_path, lambda p: torch.save(state, p))
            self.write_logs()

    def write_logs(self) -> None:
        """Write log.csv and validation.csv as far as they go."""
        for name, rows in (("log.csv", self.rows), ("validation.csv", self.validations)):
            if rows:
                write_atomically(self.folder / name, lambda p, rows=rows: _write_csv(p, rows))


def _write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        writer.writeheader()
        writer.writerows(rows)
