"""Makes the demo dataset: drawn objects and synthesised sounds, from nothing but NumPy and Pillow.

    pcma-data demo --out data/demo

Ten classes of drawn objects move over drawn backgrounds; `scene.py` composes the clips, `clip_folder.py` documents the
files. The same seed gives the same bytes, whatever the number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .backgrounds import procedural_background
from .commands import command, command_parser
from .demo_objects import DRAWINGS, draw
from .demo_sounds import synthesise
from .generate import add_options, run
from .scene import Background


@dataclass(frozen=True)
class DrawnObject:
    """A drawn object with a synthesised sound; each picture and each sound is new."""

    name: str
    tilt: float = 25

    @property
    def class_name(self) -> str:
        return self.name

    def picture(self, rng: np.random.Generator, pixels: int) -> Image.Image:
        return draw(self.name, rng, pixels)

    def sound(self, rng: np.random.Generator, seconds: int, split: str) -> np.ndarray:
        return synthesise(self.name, rng, seconds)

    def heard_in_training(self, split: str) -> bool:
        """Sounds of other splits have pitches and rhythms of their own."""
        return split == "train"


class DemoGenerator:
    """The demo dataset."""

    name, version, licence = "demo", 1, "MIT"

    def object_kinds(self, split: str) -> list[DrawnObject]:
        return [DrawnObject(name) for name in DRAWINGS]

    def background(self, split: str) -> Background:
        return procedural_background


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = command_parser("demo", __doc__)
    add_options(parser, out="data/demo", size=112, clips=(300, 60, 60))
    return run(DemoGenerator(), parser.parse_args(arguments))
