"""How Sphinx builds the site. `site/build.py` calls it, and says which repository the pages come from."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

from colab import opened_in_colab
from docutils import nodes
from sphinx.addnodes import download_reference, pending_xref

import pcma_lib

project = "PCMANet, built up in notebooks"
author = "the authors of this repository"
release = pcma_lib.__version__
repository = os.environ.get("REPOSITORY", "")
BINDER_GB = 2  # of memory; the free service gives no more

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_copybutton"]
exclude_patterns = ["README.md"]  # its parts are on the pages of this folder
nb_execution_mode = "off"
nb_ipywidgets_js = {}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]  # of a widget, which says in the lesson that it needs a kernel
copybutton_selector = "div:not(.output) > div.highlight pre"

highlight_language = "text"
default_role = "code"
add_module_names = False
autodoc_inherit_docstrings = False  # else PyTorch explains forward for every module
autodoc_member_order = "bysource"
napoleon_custom_sections = [("Shapes", "params_style")]

html_theme = "sphinx_book_theme"
html_title = project
html_context = {"default_mode": "auto"}
html_static_path = ["static", str(Path(find_spec("sphinx-mathjax-offline").origin).parent / "static")]
html_favicon = "static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_sourcelink = False
html_copy_source = False
html_use_index = False
html_domain_indices = False
mathjax_path = "mathjax/tex-chtml.js"  # equations are drawn without a network
html_theme_options = {
    "footer_content_items": [],
    "navbar_persistent": [],  # the search is in the sidebar
    "use_download_button": False,
    "show_toc_level": 2,
}
if repository:
    html_theme_options |= {
        "repository_url": f"https://github.com/{repository}",
        "repository_branch": "main",
        "path_to_docs": "",
        "use_repository_button": True,
        "use_issues_button": True,
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
        },
    }


def lead_home(app, name, text):
    """The README is the site's first page."""
    text[0] = re.sub(r"\]\(((?:\.\./)*)README\.md", r"](\1index.md", text[0])


def open_files(app, doctree):
    """Show a lesson's file of solutions where the lesson links it, which is folded. Open a linked diagram as a page. Name a
    linked folder, which is no page."""
    here = Path(app.env.doc2path(app.env.current_document.docname)).parent
    for link in list(doctree.findall(pending_xref)):
        if link["reftype"] == "myst" and (here / link["reftarget"]).is_dir():
            link.replace_self(link.children)
    for link in list(doctree.findall(download_reference)):
        path = here / link["reftarget"]
        if path.parent.name == "solutions":
            code, paragraph = path.read_text(encoding="utf-8"), link.parent
            shown = nodes.literal_block(code, code, language="python")
            paragraph.parent.insert(paragraph.parent.index(paragraph) + 1, shown)
        elif path.suffix == ".svg":
            link.replace_self(nodes.reference("", "", *link.children, refuri=link["reftarget"], internal=True))


def offer_what_runs(app, page, template, context, doctree):
    """Lessons alone are launched: on Colab as their copies, and on Binder unless they need more memory than it gives."""
    for group in [b for b in context.get("header_buttons", ()) if b.get("label") == "launch-buttons"]:
        if not page.startswith("notebooks/"):
            context["header_buttons"].remove(group)
            continue
        if max(map(int, re.findall(r"(\d+) GB of memory", doctree.astext())), default=0) > BINDER_GB:
            group["buttons"] = [button for button in group["buttons"] if button["text"] != "Binder"]
        for button in group["buttons"]:
            if button["text"] == "Colab":
                button["url"] = opened_in_colab(repository, f"{page}.ipynb")


def setup(app):
    app.connect("source-read", lead_home)
    app.connect("doctree-read", open_files)
    app.connect("html-page-context", offer_what_runs, priority=900)  # after the theme made its buttons
