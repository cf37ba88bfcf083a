"""How far a long job is: a bar where one can be seen, else plain lines, for papermill's log and for files."""

import os
import sys
import time
from collections.abc import Callable

from tqdm.auto import tqdm

EVERY = 5.0  # seconds between two lines, unless one step takes longer


class Progress:
    """The progress of one phase of a job, such as "training" or "validation".

    On a terminal and in JupyterLab it is a bar. Elsewhere it is a line every few seconds, on stdout in a notebook
    (papermill's `--log-output` shows it) and on stderr in a command, whose stdout is its result.

    Args:
        phase: what is going on. unit: what is counted. show: False says nothing.
    """

    def __init__(self, phase: str, unit: str = "step", show: bool = True) -> None:
        self.phase, self.unit, self.show = phase, unit, show
        self.bar, self.began, self.due = None, None, 0.0

    def at(self, done: int, total: int, facts: Callable[[], str] = str) -> None:
        """Tell that `done` of `total` are done; `facts()` is a text for the end of the line, asked for when it is shown."""
        now = time.monotonic()
        if not self.show or (now < self.due and done < total):
            return
        in_notebook = type(sys.stdout).__module__.startswith("ipykernel")
        as_bar = "JPY_SESSION_NAME" in os.environ if in_notebook else sys.stderr.isatty()  # JupyterLab's name of a notebook
        self.due = now + (0.2 if as_bar else EVERY)
        if self.began is None:
            self.began, self.first = now, done
            self.bar = tqdm(total=total, initial=done, desc=self.phase, unit=self.unit, leave=False) if as_bar else None
        if self.bar is not None:
            self.bar.n = done
            self.bar.set_postfix_str(facts())
            return
        line = ", ".join(filter(None, (f"{self.phase}: {self.unit} {done} of {total}", facts())))
        passed = now - self.began
        if done == total:
            line += f", took {tqdm.format_interval(passed)}"
        elif done > self.first:
            line += f", {tqdm.format_interval(passed / (done - self.first) * (total - done))} left"
        print(line, file=sys.stdout if in_notebook else sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()
