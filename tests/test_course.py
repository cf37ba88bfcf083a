"""The page for teachers: every lesson has its place there, and lessons become slides as it says."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
COURSE = (ROOT / "docs" / "course.md").read_text(encoding="utf-8")


def test_every_lesson_is_in_one_session_and_every_link_leads_to_a_file():
    links = re.findall(r"\]\(([^):]+)\)", COURSE)
    assert [link for link in links if not (ROOT / "docs" / link).is_file()] == []
    sessions = re.split(r"^## Session ", COURSE, flags=re.M)[1:]
    assert len(sessions) == 6
    lessons = [x for session in sessions for x in re.findall(r"\*\*\[(\d\d_\w+)\]", session.split("\n## ")[0])]
    assert sorted(lessons) == sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb"))


def test_a_lesson_becomes_slides_with_one_for_each_section_and_none_for_the_set_up(tmp_path):
    new = nbformat.v4.new_notebook
    code, text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    cells = [text("# Lesson"), text("## Set-up"), code("hidden = 1"), text("why hidden"), text("## Part")]
    path = tmp_path / "lesson.ipynb"
    nbformat.write(new(cells=[*cells, code("shown = 2"), text("what it shows"), text("## End")]), path)
    subprocess.run([sys.executable, ROOT / "tests" / "normalise.py", path], check=True)
    subprocess.run([sys.executable, "-m", "nbconvert", "--to", "slides", path], check=True, capture_output=True)
    html = (tmp_path / "lesson.slides.html").read_text(encoding="utf-8")
    body = html[html.index('<div class="slides">') :]
    assert body.count("<section>") == 3 + 4  # Lesson, Part and End, with the parts below each other
    assert "shown" in body and "hidden" not in body
