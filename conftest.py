"""Whatever pytest runs, notebooks included, reads and writes a temporary `data/` and `results/`, never the user's."""

import os
import tempfile

_folder = tempfile.TemporaryDirectory(prefix="pcma_")  # goes when pytest ends
os.environ["PCMA_HOME"] = _folder.name


def pytest_configure(config):
    """Tests compare with figures of a CPU, and bit by bit: those without the marker gpu see no GPU. Notebooks do."""
    if not config.getoption("nbval", False) and config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
