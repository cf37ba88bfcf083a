"""Boxes, arrows and text as an SVG that a person can edit, in the colours of the project, on a light and on a dark page."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import matplotlib
from PIL import ImageFont

from pcma_lib.use.overlay import CONFIDENCE, DOUBT, PICTURE, SOUND, TRUTH

MARGIN = 16
STROKES = {"sound": SOUND, "picture": PICTURE, "truth": TRUTH, "doubt": DOUBT, "plain": CONFIDENCE}
LIGHT = {"sound": "#ffedd9", "picture": "#dceafa", "truth": "#dff3df", "doubt": "#fbe0f2", "plain": "#f0f2f4"}
DARK = {"sound": "#4a2a08", "picture": "#12304f", "truth": "#143d14", "doubt": "#4c123a", "plain": "#262c34"}
STYLE = (
    "text{font-family:system-ui,'DejaVu Sans',sans-serif;font-size:13px;fill:#1b1f24}.soft{fill:#57606a}"
    ".name{font-weight:600;font-size:14px}.head{font-weight:600;font-size:16px}.page{fill:#fff;stroke:#d0d7de}"
    ".box{stroke-width:1.5}.lit{stroke-width:3}.dim{fill:none;stroke:#b6bec7;stroke-width:1}"
    ".arrow{fill:none;stroke-width:1.6;stroke-linejoin:round}.thin{fill:none;stroke-width:1}"
    ".hatch{fill:url(#hatch);stroke:none}"
    + "".join(f".{k}{{fill:{LIGHT[k]};stroke:{v}}}.to-{k}{{stroke:{v}}}.solid-{k}{{fill:{v}}}" for k, v in STROKES.items())
    + ".data{fill:#fff}@media (prefers-color-scheme:dark){"
    "text{fill:#e6edf3}.soft{fill:#a9b4bf}.page{fill:#0d1117;stroke:#30363d}"
    ".dim{stroke:#555e68}"
    + "".join(f".{k}{{fill:{v}}}" for k, v in DARK.items())
    + ".picture,.to-picture{stroke:#4a9ad4}.solid-picture{fill:#4a9ad4}.data{fill:#0d1117}}"
)


@lru_cache
def _font(size, bold):
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


class Box(NamedTuple):
    """A rectangle, and the points on its sides where arrows start and end."""

    x: float
    y: float
    w: float
    h: float

    def left(self, part=0.5):
        return self.x, self.y + part * self.h

    def right(self, part=0.5):
        return self.x + self.w, self.y + part * self.h

    def top(self, part=0.5):
        return self.x + part * self.w, self.y

    def bottom(self, part=0.5):
        return self.x + part * self.w, self.y + self.h


class Drawing:
    """One diagram. Arrows lie below boxes, and text that would not fit or would lie on other text is refused."""

    def __init__(self, title, description, height, width=900):
        self.title, self.description, self.width, self.height = title, description, width, height
        self.arrows, self.boxes, self.words, self.taken, self.faults = [], [], [], [], []

    def text(self, x, y, words, style="", anchor="middle", room=None):
        size, bold = (16 if style == "head" else 14 if style == "name" else 13), style in ("head", "name")
        wide = _font(size, bold).getlength(words)
        start = x - wide * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        place = (start, y - 0.8 * size, start + wide, y + 0.2 * size)
        if room is not None and wide > room - 6:
            self.faults.append(f"{words!r} needs {wide:.0f} of {room} px")
        if start < 4 or place[2] > self.width - 4 or y > self.height - 4:
            self.faults.append(f"{words!r} leaves the page")
        for other, box in self.taken:
            apart = place[2] <= box[0] or box[2] <= place[0] or place[3] <= box[1] or box[3] <= place[1]
            if not apart:
                self.faults.append(f"{words!r} lies on {other!r}")
        self.taken.append((words, place))
        look = f' class="{style}"' if style else ""
        where = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.words.append(f'<text x="{x:g}" y="{y:g}"{where}{look}>{escape(words)}</text>')

    def box(self, x, y, w, h, *lines, kind="plain", style="box", frozen=False, link=None, soft=""):
        """A part, or with style "box data" a tensor: its name, then what it does or its shape."""
        shape = f'<rect class="{kind} {style}" x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="6"/>'
        if frozen:
            shape += f'<rect class="hatch" x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="6"/>'
        first = len(self.words)
        for number, line in enumerate(lines):
            up = y + h / 2 + 5 + 17 * (number - (len(lines) - 1) / 2)
            self.text(x + w / 2, up, line, (soft or "name") if number == 0 else "soft", room=w)
        if link:
            words = "".join(self.words[first:])
            del self.words[first:]
            shape = f'<a href="{link}">{shape}{words}</a>'
        self.boxes.append(shape)
        return Box(x, y, w, h)

    def arrow(self, *points, kind="plain", head=True, label=(), shift=(0, -7), anchor="middle", dashed=False):
        """A line through points; labels lie by its middle, one below the other."""
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
        more = (f' marker-end="url(#{kind}-head)"' if head else "") + (' stroke-dasharray="5 4"' if dashed else "")
        self.arrows.append(f'<path class="arrow to-{kind}" d="{path}"{more}/>')
        labels = (label,) if isinstance(label, str) else label
        (x0, y0), (x1, y1) = points[(len(points) - 1) // 2], points[(len(points) - 1) // 2 + 1]
        for number, words in enumerate(labels):
            x, y = (x0 + x1) / 2 + shift[0], (y0 + y1) / 2 + shift[1] + 17 * (number - len(labels) + 1) * (shift[1] < 0)
            self.text(x, y + 17 * number * (shift[1] >= 0), words, "" if number == 0 else "soft", anchor)

    def shape(self, markup):
        self.boxes.append(markup)

    def grid(self, x, y, side, cells, marked=(), kind="doubt"):
        """A square of cells x cells, those in `marked` (row, column) filled."""
        self.shape(f'<rect class="data box to-plain" x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}"/>')
        step = side / cells
        for row, column in marked:
            place = f'x="{x + column * step:g}" y="{y + row * step:g}" width="{step:g}" height="{step:g}"'
            self.shape(f'<rect class="solid-{kind}" {place}/>')
        for k in range(1, cells):
            line = f"M{x + k * step:g} {y:g}v{side:g}M{x:g} {y + k * step:g}h{side:g}"
            self.shape(f'<path class="thin to-plain" d="{line}"/>')
        return Box(x, y, side, side)

    def svg(self):
        if self.faults:
            raise ValueError(f"{self.title}: {'; '.join(self.faults)}")
        heads = "".join(
            f'<marker id="{k}-head" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
            f'<path class="solid-{k}" d="M0 0L8 4L0 8z"/></marker>'
            for k in STROKES
        )
        hatch = '<pattern id="hatch" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        hatch += f'<path d="M0 0v8" stroke="{CONFIDENCE}" stroke-width="2" stroke-opacity="0.45"/></pattern>'
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}"'
            ' role="img" aria-labelledby="title desc">',
            f'<title id="title">{escape(self.title)}</title>',
            f'<desc id="desc">{escape(self.description)}</desc>',
            f"<style>{STYLE}</style>",
            f"<defs>{heads}{hatch}</defs>",
            f'<rect class="page" x="1" y="1" width="{self.width - 2}" height="{self.height - 2}" rx="12"/>',
            *self.arrows,
            *self.boxes,
            *self.words,
            "</svg>\n",
        ])  # fmt: skip
