"""Whatever pytest runs, notebooks included, reads and writes a temporary `data/` and `results/`, never the user's."""

import os
import tempfile

_folder = tempfile.TemporaryDirectory(prefix="pcma_")  # goes when pytest ends
os.environ["PCMA_HOME"] = _folder.name
