"""The same test clips marked by several trained models, as in figure 7 of the paper: frames, truth, a row a model.

python maintain/picture_comparison.py docs/comparison.jpg AVS=results/avs/best.safetensors
"""

import argparse

import torch

from pcma_lib import AVSS, AudioVisualModel
from pcma_lib.data.files import named_paths, resolve, write_atomically
from pcma_lib.notebook.figures import MASK, TRUTH, grid, overlay, picture


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
    images = [picture(clip.frames[given.seconds]) for clip in clips]

    def row(masks, colour):
        """The shown seconds of each clip with its mask [T, H, W]."""
        pairs = zip(images, masks)
        return [overlay(image, m, colour) for shown, mask in pairs for image, m in zip(shown, mask[given.seconds])]

    rows = {"frame": [image for shown in images for image in shown], "truth": row([clip.masks > 0 for clip in clips], TRUTH)}
    for name, path in named_paths(given.models).items():
        model = AudioVisualModel.load(path)
        with torch.no_grad():
            rows[name] = row([model(c.frames[None], c.log_mel[None]).logits[0][0, :, 0] > 0 for c in clips], MASK)
    figure = grid(rows, [clip.category.replace("_and_", "\n") for clip in clips for _ in given.seconds])
    write_atomically(resolve(given.target), lambda part: figure.savefig(part, format="jpeg", pil_kwargs={"quality": 85}))


if __name__ == "__main__":
    main()
