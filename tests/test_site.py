"""The site as a reader sees it, in Chromium: every page, wide and narrow, light and dark. Run with `-m browser`.

Without Chromium in the PATH the tests are skipped.
"""

import functools
import http.server
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from chromium import CHROMIUM

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb"))
WIDTHS = {"wide": 1400, "narrow": 390}

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in the PATH")]

LOOK = """async () => {
  await window.MathJax?.startup?.promise;
  const pictures = [...document.images];
  for (const p of pictures) p.loading = "eager";
  await Promise.all(pictures.map(p => p.decode().catch(() => null)));
  return {
    missing: pictures.filter(p => !p.naturalWidth).map(p => p.src),
    nameless: pictures.filter(p => p.closest("article") && p.src.endsWith(".svg") && !p.alt).map(p => p.src),
    raw: [...document.querySelectorAll(".math")].filter(m => !m.querySelector("mjx-math")).map(m => m.textContent),
    faulty: [...document.querySelectorAll("mjx-merror")].map(m => m.textContent),
    too_wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    theme: document.documentElement.dataset.theme,
  };
}"""


def build(folder, *options):
    done = subprocess.run(
        [sys.executable, ROOT / "site" / "build.py", "--out", folder, *options], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "html"


def written(pages, kind="html"):
    paths = (p.relative_to(pages) for p in pages.rglob(f"*.{kind}"))
    return sorted(p.as_posix() for p in paths if not p.parts[0].startswith("_"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def address(pages):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=pages)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Page(HTMLParser):
    """The links and the places of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.places = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.places.add(attributes.get("id"))
        self.links += [attributes[name] for name in ("href", "src", "xlink:href") if attributes.get(name)]


def test_every_link_leads_to_a_file_and_to_a_place_in_it(pages):
    read = {name: Page(pages / name) for name in written(pages) + written(pages, "svg")}
    broken, followed = [], 0
    for name, page in read.items():
        for link in page.links:
            target, place = urldefrag(urljoin(f"http://site/{name}", link).removeprefix("http://site/"))
            if "://" in link or link.startswith(("data:", "mailto:")):
                continue
            followed += 1
            target = unquote(target.split("?")[0])
            if not (pages / target).is_file() or place and target in read and unquote(place) not in read[target].places:
                broken.append((name, link))
    assert followed > 1000 and broken == []


def test_every_lesson_and_page_of_docs_is_there_with_its_outputs(pages):
    for page in (ROOT / "docs").rglob("*.md"):
        assert (pages / page.relative_to(ROOT).with_suffix(".html")).is_file()
    for name in LESSONS:
        assert 'class="cell_output' in (pages / "notebooks" / f"{name}.html").read_text(encoding="utf-8"), name


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_has_an_error_a_missing_picture_a_raw_equation_or_more_width_than_the_screen(
    pages, address, browser, theme, width, tmp_path
):
    context = browser.new_context(viewport={"width": WIDTHS[width], "height": 900}, color_scheme=theme)
    tab, said = context.new_page(), []
    tab.on("console", lambda message: message.type == "error" and said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("requestfailed", lambda request: said.append(f"no answer: {request.url[:200]}"))
    here = (address, "data:", "blob:")
    tab.on("request", lambda request: request.url.startswith(here) or said.append(f"leaves the site: {request.url[:200]}"))
    found = {}
    for page in written(pages):
        tab.goto(address + page, wait_until="load")
        look = tab.evaluate(LOOK)
        tab.screenshot(path=tmp_path / f"{page.replace('/', '_')}.png")
        wrong = {k: v for k, v in look.items() if v and k != "theme"} | ({"said": list(said)} if said else {})
        found |= {page: wrong} if wrong or look["theme"] != theme else {}
        said.clear()
    context.close()
    assert found == {}


def test_solutions_unfold_code_is_copied_and_the_search_finds(address, browser):
    context = browser.new_context(viewport={"width": 1400, "height": 900}, permissions=["clipboard-read", "clipboard-write"])
    tab = context.new_page()
    tab.goto(address + "notebooks/03_avga.html")
    solution = tab.locator("details", has_text="Solutions").get_by_text("def avga_of(part, visual, audio):")
    assert not solution.is_visible()
    tab.get_by_text("Solutions", exact=True).click()
    assert solution.is_visible()
    cell = tab.locator("div.cell_input", has_text="def cosine(v, a):").first
    cell.hover()
    cell.locator("button.copybtn").click()
    tab.wait_for_selector("button.copybtn.success")
    assert tab.evaluate("navigator.clipboard.readText()").startswith("def cosine(v, a):\n    length_v")
    tab.goto(address + "search.html?q=cosine")
    tab.wait_for_selector("#search-results li a[href*='03_avga']", timeout=15000)
    tab.goto(address + "notebooks/03_avga.html")
    tab.locator("a.right-next").click()
    assert tab.url.endswith("notebooks/04_qsca.html")
    context.close()


def test_a_diagram_follows_the_pages_theme_and_opens_with_links_to_the_lessons(address, browser, tmp_path):
    from PIL import Image

    context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")
    tab = context.new_page()
    tab.goto(address + "docs/notation.html")
    diagram, shades = tab.locator("article img[src$='pcmanet.svg']"), []
    for theme in ("light", "dark"):
        tab.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        diagram.screenshot(path=tmp_path / "diagram.png")
        shades.append(Image.open(tmp_path / "diagram.png").convert("L").getpixel((12, 100)))
    assert shades[0] > 240 and shades[1] < 30
    diagram.click()
    tab.locator("a", has_text="AVGA").first.click()
    assert tab.url.endswith("notebooks/03_avga.html")
    context.close()


def test_only_a_site_that_knows_its_repository_links_to_it_to_colab_and_to_binder(pages, tmp_path):
    without = (pages / "notebooks" / "03_avga.html").read_text(encoding="utf-8")
    assert "colab" not in without and "mybinder" not in without
    page = build(tmp_path, "--repository", "owner/name") / "notebooks" / "03_avga.html"
    links = [unquote(link) for link in Page(page).links]
    assert "https://colab.research.google.com/github/owner/name/blob/colab/notebooks/03_avga.ipynb" in links
    assert "https://mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/notebooks/03_avga.ipynb" in links
    assert "https://github.com/owner/name" in links
    large, other = (page.parents[1] / f"{name}.html" for name in ("notebooks/06_pcmanet", "docs/11_semantics_trained"))
    assert "colab.research" in large.read_text(encoding="utf-8") and "mybinder" not in large.read_text(encoding="utf-8")
    assert "colab.research" not in other.read_text(encoding="utf-8")
    assert sorted(p.stem for p in (tmp_path / "colab" / "notebooks").iterdir()) == LESSONS
