"""One picture of the whole series for the README: a figure of each notebook, as its committed outputs show it.

python maintain/picture_series.py docs/series.jpg
"""

import argparse
import base64
import io
from pathlib import Path

import nbformat
from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
COLUMNS, WIDTH, HEIGHT, LINE, GAP = 3, 440, 290, 30, 14  # pixels


def figures(path):
    """The pictures among a notebook's outputs, from top to bottom, without those of the exercises.

    Where docs/ has the notebook after a long training, those are taken.
    """
    trained = FOLDER.parent / "docs" / f"{path.stem}_trained.ipynb"
    for cell in nbformat.read(trained if trained.is_file() else path, as_version=4).cells:
        if cell.source.startswith("## Exercises"):
            return
        for output in cell.get("outputs", ()):
            for kind, data in output.get("data", {}).items():
                if kind.startswith("image/"):
                    yield Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def fullest(pictures):
    """The picture that fills a tile best."""
    return max(pictures, key=lambda p: min(WIDTH / p.width, HEIGHT / p.height) ** 2 * p.width * p.height)


def main():
    parser = argparse.ArgumentParser(description=__doc__ and __doc__.splitlines()[0])
    parser.add_argument("target")
    given = parser.parse_args()
    paths = sorted(FOLDER.glob("*.ipynb"))
    rows = -(-len(paths) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (WIDTH + GAP) + GAP, rows * (HEIGHT + LINE + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for number, path in enumerate(paths):
        x, y = GAP + number % COLUMNS * (WIDTH + GAP), GAP + number // COLUMNS * (HEIGHT + LINE + GAP)
        draw.text((x, y), path.stem, "black", font)
        tile = fullest(figures(path))
        tile.thumbnail((WIDTH, HEIGHT), Image.LANCZOS)
        sheet.paste(tile, (x, y + LINE))
    sheet.save(given.target, quality=85)


if __name__ == "__main__":
    main()
