"""Can the paper's masks learn where the finest stage is needed? docs/results/doubt_loss.json, which lesson 13 shows.

make data
python maintain/measure_doubt_loss.py --data data/demo --output docs/results/doubt_loss.json

The shipped model is trained a little further, with its own loss and with one more: O_2, O_3 and O_4 are compared at their
own grids with the truth's share of each cell, so that a cell which an outline crosses is to be in doubt.
"""

import argparse
import copy

import torch
import torch.nn.functional as F
from measure_gated import on_tiles

from pcma_lib import AudioVisualModel, MeanIoU
from pcma_lib.data.avsbench import AVSS
from pcma_lib.data.clip import collate
from pcma_lib.losses import segmentation_loss
from pcma_lib.network.cim import confidence
from pcma_lib.network.layers import resize
from pcma_lib.training.origin import code
from pcma_lib.use.checkpoints import write_json
from pcma_lib.use.gated import Gated, doubtful


def doubt_loss(stages, masks):
    """Cross-entropy of O_2, O_3 and O_4 with the share of each cell that sounds, summed over these stages."""
    truth = (masks.flatten(0, 1) > 0).float()[:, None]
    stages = [logits.flatten(0, 1) for logits in stages[1:]]
    shares = [F.adaptive_avg_pool2d(truth, logits.shape[-2:]) for logits in stages]
    return sum(map(F.binary_cross_entropy_with_logits, stages, shares))


def trained(model, data, weight, steps, batch=4, rate=1e-4):
    """A copy of a model after so many steps, its batch norms and encoders as they were."""
    model = copy.deepcopy(model).eval()
    parameters = [p for name, p in model.network.named_parameters() if "pyramid.encoder" not in name]
    optimizer = torch.optim.AdamW(parameters, lr=rate)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).repeat(1 + steps * batch // len(data))
    model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    for chosen in order[: steps * batch].view(steps, batch).tolist():
        clips = collate([data[i] for i in chosen])
        out = model(clips.frames, clips.log_mel, clips.valid)
        loss = segmentation_loss(out.stages, clips.masks, clips.labelled) + weight * doubt_loss(out.stages, clips.masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def measured(model, data):
    """mIoU of O_1, and of O_1 on the tiles of a rule with O_2 elsewhere; and each rule's share of active tiles."""
    rules = {
        "dense": lambda out: torch.ones_like(out.masks[-1]),
        "M_1": lambda out: out.masks[-1],
        "confidence of O_2": lambda out: (confidence(out.stages[1].flatten(0, 1)) < 0.99).float()[None],
        "outline": lambda out: doubtful(out.stages[1].flatten(0, 1))[None],
    }
    metrics, active = {name: MeanIoU() for name in rules}, dict.fromkeys(rules, 0.0)
    for clip in data:
        out = model(clip.frames[None], clip.log_mel[None])
        fine, coarse = (logits[0] for logits in out.stages[:2])
        for name, rule in rules.items():
            tiles = Gated.tiles_of(rule(out)[0])[0]
            active[name] += tiles.float().mean().item() / len(data)
            gated = on_tiles(tiles, fine, coarse)
            metrics[name].update(resize(gated, clip.masks.shape[-2:])[None], clip.masks[None], clip.labelled[None])
    return {name: {"miou": metrics[name].compute().item(), "active": active[name]} for name in rules}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    torch.manual_seed(0)
    model = AudioVisualModel.demo().eval()
    data, test = (AVSS(given.data, split, image_size=model.picture_size()) for split in ("train", "test"))
    rows = {"as shipped": measured(model, test)}
    for weight in (0, 1, 10):
        name = f"loss of doubt times {weight}"
        rows[name] = measured(trained(model, data, weight, given.steps), test)
        print(name, rows[name], flush=True)
        write_json(given.output, {"measured_with": code(), "steps": given.steps, "rows": rows})


if __name__ == "__main__":
    main()
