"""The README's pictures that come from the shipped model and from docs/results.

python maintain/pictures.py      # docs/listening.webp, docs/clip.jpg, docs/curves.png, docs/results.png
"""

import argparse
import io
from functools import partial

import matplotlib.pyplot as plt
import torch
from PIL import Image

from pcma_lib import AVSS, AudioVisualModel
from pcma_lib.data.files import read_json, resolve, write_atomically
from pcma_lib.notebook.figures import TRUTH, curves, dots, frame_with, strip
from pcma_lib.notebook.paths import run_script

SOUNDS = {
    None: "its own sound", "muted": "muted", "noise": "white noise", "swapped": "another clip's sound",
    "other_object": "the silent object's sound", "off_screen": "something not in the picture",
}  # fmt: skip
ROWS = ("vision only", "AVS", "PCMANet")
CLIP = 10  # a bird sings in every second, and the kettle beside it is silent


def results():
    """The README's rows: name -> the test measures of each seed."""
    runs = read_json(resolve("docs/results/networks.json"))
    found = {name: [runs[f"{name}, seed {seed}"]["test"] for seed in range(3)] for name in ROWS}
    return found | {"shipped model": [read_json(resolve("pcma_lib/demo_model.json"))["test"]]}


def listening(model, data):
    """The same five seconds under six sounds, as the frames of a moving picture."""
    marked = {}
    for sound in SOUNDS:
        clip = data.with_sound(sound)[CLIP]
        with torch.no_grad():
            marked[sound] = model(clip.frames[None], clip.log_mel[None]).finest[0, :, 0].sigmoid()
    for second, frame in enumerate(clip.frames):
        figure, axes = plt.subplots(2, 3, figsize=(9, 6.7), layout="constrained")
        for axis, (sound, title) in zip(axes.flat, SOUNDS.items()):
            frame_with(axis, frame, prediction=marked[sound][second])
            axis.set(xticks=[], yticks=[])
            axis.set_title(title, fontsize=13)
        figure.suptitle(f"The same picture, six sounds: second {second}", fontsize=14)
        stored = io.BytesIO()
        figure.savefig(stored, format="png", dpi=100)
        plt.close(figure)
        yield Image.open(stored).convert("RGB")


def main():
    argparse.ArgumentParser(description=__doc__ and __doc__.splitlines()[0]).parse_args()
    folder, model = resolve("data/pictures"), AudioVisualModel.demo()
    size = model.picture_size()
    run_script("demo", "--out", folder, "--clips", "0,0,16", "--size", str(size + 16))
    data = AVSS(folder, "test", size, cache=True)
    clip = data[CLIP]
    first, *others = listening(model, data)
    moving = {"save_all": True, "append_images": others, "duration": 1000, "loop": 0, "quality": 80}
    made = {
        "listening.webp": partial(first.save, format="webp", **moving),
        "clip.jpg": _drawn(strip(clip.frames, {"what sounds": (clip.masks > 0, TRUTH)}, clip.log_mel), "jpeg"),
        "results.png": _drawn(dots({n: [t["miou"] for t in tests] for n, tests in results().items()}), "png"),
    }
    facts = read_json(resolve("pcma_lib/demo_model.json"))
    made["curves.png"] = _drawn(curves(facts["log"], facts["validation"]), "png")
    for name, write in made.items():
        write_atomically(resolve(f"docs/{name}"), write)


def _drawn(figure, kind):
    return partial(figure.savefig, format=kind, dpi=110, **({"pil_kwargs": {"quality": 88}} if kind == "jpeg" else {}))


if __name__ == "__main__":
    main()
