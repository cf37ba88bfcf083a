import subprocess
import sys
from pathlib import Path

import pytest
import torch
from chromium import CHROMIUM

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, for tests with the marker browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A small demo data set, made by the command itself."""
    folder = tmp_path_factory.mktemp("data") / "demo"
    command = [sys.executable, "-m", "pcma_data", "demo", "--out", folder, "--clips", "12,6,6", "--size", "64"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder
