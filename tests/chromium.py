"""Where Chromium is, None where it is not: a browser for the tests of pages and of JupyterLab."""

import shutil

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
