"""The gate at the paper's picture size, and trained with the gate on: docs/results/gated_224.json, which lesson 13 shows.

python data_scripts/make_demo.py --out data/gated_224 --clips 200,20,60 --size 256
python maintain/measure_gate_training.py --data data/gated_224 --runs results/gate --output docs/results/gated_224.json

The shipped model, which learned at 128 px, is trained further at 224 px: once as ever, and once with the gate on, so that
the loss of O_1 sees O_2 grown outside of the active tiles, as the gated network gives it. Both start alike.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from measure_gated import counted_of, measured, on_tiles

from pcma_lib import AudioVisualModel, PCMANet
from pcma_lib.data.avsbench import AVSS
from pcma_lib.measure.complexity import count_macs, seconds_per_call
from pcma_lib.training import fit
from pcma_lib.training.config import TrainConfig
from pcma_lib.training.origin import code
from pcma_lib.use.checkpoints import write_json
from pcma_lib.use.fast import fast
from pcma_lib.use.gated import Gated, doubtful, gate_of, stage_macs

SIZE = 224


def gate_on(network, inputs, out):
    """A forward hook: O_1 on the tiles that are active, O_2 grown elsewhere, with gradients through both."""
    fine, coarse = (logits.flatten(0, 1) for logits in out.stages[:2])
    finest = on_tiles(Gated.tiles_of(doubtful(coarse))[0], fine, coarse).view_as(out.stages[0])
    return out._replace(stages=(finest, *out.stages[1:]))


def trained(gated, settings, folder):
    """The shipped model after some more steps, by the training that all models here get."""
    model = AudioVisualModel.demo()
    if gated:
        model.network.register_forward_hook(gate_on)
    fit(TrainConfig.preset("demo_long", **settings), folder, resume=True, model=model)
    return AudioVisualModel.load(Path(folder) / "last.safetensors").eval()


def dense_and_gated(model, data):
    """What `measured` says of a model without the gate and with it, and the gated one's share of the operations."""
    counted, gated = counted_of(model, data), fast(model, gated=True)
    rows = {"dense": measured(fast(model), data), "gated": measured(gated, data)}
    shares = (rows["gated"][name] for name in ("active", "computed"))
    rows["gated"]["macs"] = stage_macs(counted, *shares) / counted[""]
    return rows


@torch.no_grad()
def at_full_size(model, data, calls=5):
    """Operations and time of a ResNet-50 PCMANet, C = 256, where the gate decides by another model's O_2, clip by clip."""
    torch.manual_seed(0)
    large, sound = PCMANet().eval(), torch.rand(1, 5, 128)
    quick, gated = fast(large), fast(large, gated=True)
    gate, found = gate_of(gated), []
    counted = count_macs(large, data[0].frames[None], sound)
    for index in range(0, len(data), max(1, len(data) // 12)):
        clip = data[index]
        doubt = doubtful(model(clip.frames[None], clip.log_mel[None]).stages[1][0])
        gate.doubt = lambda logits, doubt=doubt: doubt
        active, computed = (tiles.float().mean().item() for tiles in gate.tiles_of(doubt))
        row = {"active": active, "computed": computed, "macs": stage_macs(counted, active, computed) / counted[""]}
        for name, network in (("fast", quick), ("gated", gated)):
            row[name] = seconds_per_call(partial(network, clip.frames[None], sound), calls)
        found.append(row)
    return {key: sum(row[key] for row in found) / len(found) for key in found[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    settings = dict(data=given.data, image_size=SIZE, pretrain=0, batch_size=4, max_steps=given.steps, evaluate_every=99)
    settings |= dict(learning_rate=3e-4, warmup_steps=10, negative_audio=0.0, log_with="none", cache=False)
    data = AVSS(given.data, "test", image_size=SIZE)
    found = {"measured_with": code(), "image_size": SIZE, "steps": given.steps, "clips": len(data)}
    found["rows"] = {"as shipped": dense_and_gated(AudioVisualModel.demo().eval(), data)}
    for name, gated in (("trained", False), ("trained with the gate on", True)):
        model = trained(gated, settings, Path(given.runs) / name.replace(" ", "_"))
        found["rows"][name] = dense_and_gated(model, data)
        print(name, found["rows"][name], flush=True)
        write_json(given.output, found)
        if not gated:
            found["ResNet-50 by its doubts"] = at_full_size(model, data)
            print(found["ResNet-50 by its doubts"], flush=True)
    write_json(given.output, found)


if __name__ == "__main__":
    main()
