"""The same test clips marked by several trained models, as in figure 7 of the paper: frames, truth, a row a model.

python maintain/picture_comparison.py docs/comparison.jpg AVS=results/avs/best.safetensors
"""

import argparse

import torch

from pcma_lib import AVSS, AudioVisualModel
from pcma_lib.data.files import named_paths, resolve, write_atomically
from pcma_lib.notebook.figures import frame_with, grid


def main():
    parser = argparse.ArgumentParser(description=__doc__ and __doc__.splitlines()[0])
    parser.add_argument("target", help="a .jpg")
    parser.add_argument("models", nargs="+", metavar="NAME=CHECKPOINT")
    parser.add_argument("--data", default="data/demo")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--clips", type=int, nargs="+", default=[0, 1, 2, 3], help="numbers of test clips")
    parser.add_argument("--seconds", type=int, nargs="+", default=[1, 3], help="shown of each clip")
    given = parser.parse_args()
    data = AVSS(resolve(given.data), "test", given.image_size)
    clips = [data[number] for number in given.clips]

    def row(kind=None, masks=None):
        """The shown seconds of each clip with its mask [T, H, W]."""
        return [frame_with(None, clips[n].frames[k], **{kind: masks[n][k]} if kind else {}) for n, k in shown]

    shown = [(n, k) for n in range(len(clips)) for k in given.seconds]
    rows = {"frame": row(), "truth": row("truth", [clip.masks > 0 for clip in clips])}
    for name, path in named_paths(given.models).items():
        model = AudioVisualModel.load(path)
        with torch.no_grad():
            rows[name] = row("prediction", [model(c.frames[None], c.log_mel[None]).logits[0][0, :, 0] > 0 for c in clips])
    figure = grid(rows, [clip.category.replace("_and_", "\n") for clip in clips for _ in given.seconds])
    write_atomically(resolve(given.target), lambda part: figure.savefig(part, format="jpeg", pil_kwargs={"quality": 85}))


if __name__ == "__main__":
    main()
