"""The files of a training run, which are whole at any moment."""

import csv
from contextlib import contextmanager
from pathlib import Path

import torch

from ..data.files import PART, make_folder, write_atomically
from ..use.checkpoints import write_tensors

STATE = {  # what resume.pt holds
    "config": dict,
    "step": int,
    "best": dict | None,
    "seconds": float,
    "model": dict,
    "optimizer": dict,
    "scheduler": dict,
    "rng": torch.Tensor,
    "rows": list,
    "validations": list,
}


class Run:
    """The files of one training run: log, validations, checkpoints, resume state."""

    def __init__(self, folder, main):
        self.folder, self.main = Path(folder), main
        self.resume_path = self.folder / "resume.pt"
        self.rows, self.validations = [], []
        if main:
            make_folder(self.folder)

    def load(self):
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

    @contextmanager
    def reading(self):
        """Turns what goes wrong with the contents of the resume state into an error that names it."""
        try:
            yield
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{self.resume_path} is not a readable resume state ({found}); delete it to start anew"
            ) from None

    def save(self, state):
        if self.main:
            state = {**state, "rows": self.rows, "validations": self.validations}
            write_tensors(self.resume_path, lambda p: torch.save(state, p))
            self.write_logs()

    def write_logs(self):
        for name, rows in (("log.csv", self.rows), ("validation.csv", self.validations)):
            if rows:
                write_atomically(self.folder / name, lambda p, rows=rows: _write_csv(p, rows))


def _write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
