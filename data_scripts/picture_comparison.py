"""The same test clips marked by several trained models, as in figure 7 of the paper: frames, truth, a row a model.

python data_scripts/picture_comparison.py docs/comparison.jpg AVS=results/avs/best.safetensors
"""

import argparse

import torch

from pcma_lib import AVSS, AudioVisualModel
from pcma_lib.checkpoints import write_atomically
from pcma_lib.config import resolve
from pcma_lib.figures import MASK, TRUTH, grid, overlay, picture


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", help="a .jpg")
    parser.add_argument("models", nargs="+", metavar="NAME=CHECKPOINT")
    parser.add_argument("--data", default="data/demo")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--clips", type=int, nargs="+", default=[0, 1, 2, 3], help="numbers of test clips")
    parser.add_argument("--seconds", type=int, nargs="+", default=[1, 3], help="shown of each clip")
    given = parser.parse_args()
    data = AVSS(resolve(given.data), "test", given.image_size)
    clips = [data[number] for number in given.clips]
    shown = [(clip, second) for clip in clips for second in given.seconds]
    rows = {"frame": [picture(clip.frames[second]) for clip, second in shown]}
    rows["truth"] = [overlay(picture(clip.frames[second]), clip.masks[second] > 0, TRUTH) for clip, second in shown]
    for name, path in (item.split("=", 1) for item in given.models):
        model = AudioVisualModel.load(path)
        with torch.no_grad():
            masks = [model(c.frames[None], c.log_mel[None]).logits[0][0, :, 0] > 0 for c in clips for _ in given.seconds]
        rows[name] = [overlay(picture(c.frames[s]), mask[s], MASK) for (c, s), mask in zip(shown, masks)]
    titles = [clip.category.replace("_and_", "\n") for clip, second in shown]
    figure = grid(rows, titles)
    write_atomically(resolve(given.target), lambda part: figure.savefig(part, format="jpeg", pil_kwargs={"quality": 85}))


if __name__ == "__main__":
    main()
