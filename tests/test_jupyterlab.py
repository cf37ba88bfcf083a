"""The notebooks as a user sees them: a real JupyterLab in a real browser (Chromium, by Playwright). Slow: `pytest -m slow`.

Screenshots stay in results/screenshots for a person to look at. Without Chromium in the PATH the tests are skipped.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from chromium import CHROMIUM

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(p.name for p in (ROOT / "notebooks").glob("*.ipynb"))
SCREENSHOTS = ROOT / "results" / "screenshots"
TOKEN = "local"
WIDGETS = {"00_see_and_hear.ipynb", "03_avga.ipynb", "05_cim.ipynb"}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in the PATH")]

RUN_ALL = """async (path) => {
  const app = window.jupyterapp;
  const panel = await app.commands.execute('docmanager:open', {path});
  await panel.context.ready;
  await panel.sessionContext.ready;
  app.shell.activateById(panel.id);
  await app.commands.execute('notebook:run-all-cells');
  const kernel = panel.sessionContext.session.kernel;
  while (kernel.status !== 'idle') await new Promise(r => setTimeout(r, 200));
  return panel.content.model.sharedModel.toJSON().cells.filter(c => c.cell_type === 'code').map(
    c => ({count: c.execution_count, errors: c.outputs.filter(o => o.output_type === 'error').map(o => o.evalue)}));
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab over a copy of the project, so that nothing in the checkout changes; gives its address and folder."""
    home = tmp_path_factory.mktemp("lab")
    tree = home / "project"
    for folder in ("pcma_lib", "pcma_data", "notebooks", "docs"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    for name, setting in {
        # All cells in the page, not only those in view, so that every widget is looked at.
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(setting))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(tree), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", f"--port={port}", f"--IdentityProvider.token={TOKEN}"]
    command += ["--allow-root", "--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={tree}"]
    with open(home / "lab.log", "w") as log:
        server = subprocess.Popen(command, cwd=tree, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise RuntimeError((home / "lab.log").read_text())
        yield address
    finally:
        server.terminate()
        server.wait(120)


@pytest.fixture(scope="module")
def page(lab):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(300_000)
        page.goto(f"{lab}/lab?token={TOKEN}&reset")
        page.wait_for_function("() => window.jupyterapp")
        page.evaluate("() => window.jupyterapp.restored")
        yield page
        browser.close()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_the_browser(page, name):
    cells = page.evaluate(RUN_ALL, f"notebooks/{name}")
    assert not [c["errors"] for c in cells if c["errors"]]
    assert [c["count"] for c in cells] == list(range(1, len(cells) + 1))
    panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    assert panel.get_by_text("Error displaying widget").count() == 0
    assert panel.locator(".jp-OutputArea-output img").count() >= 1
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    if name in WIDGETS:
        move_a_slider(page, panel)
    for explorer in panel.locator(".pcma-explorer").all():
        move_an_explorer(explorer)
    page.screenshot(path=SCREENSHOTS / f"{name[:2]}.png")
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.context.model.dirty = false }")
    page.evaluate("() => window.jupyterapp.shell.currentWidget.close()")


def move_an_explorer(explorer):
    """It stands in place of its picture, and a key that is pressed on its first control stays there."""
    explorer.locator(".pcma-body").wait_for()
    control = explorer.locator("input, select, [tabindex]").first
    control.scroll_into_view_if_needed()
    control.press("End")
    assert control.evaluate("e => e === document.activeElement")
    assert explorer.locator(":scope > img").count() == 0


def move_a_slider(page, panel):
    """One step of the first slider of the notebook's chooser changes its picture."""
    chooser = panel.locator(".widget-vbox").first
    handle, image = chooser.locator(".noUi-handle").first, chooser.locator("img").last
    handle.scroll_into_view_if_needed()
    before = image.get_attribute("src")
    handle.focus()
    page.keyboard.press("ArrowRight")
    for _ in range(100):
        time.sleep(0.2)
        if chooser.locator("img").count() and chooser.locator("img").last.get_attribute("src") != before:
            chooser.scroll_into_view_if_needed()
            return
    raise AssertionError("the picture did not change when the slider was moved")
