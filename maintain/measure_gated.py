"""What the gate costs and saves, by its rule and its confidence: docs/results/gated.json, which lesson 13 draws.

python data_scripts/make_demo.py --out data/gated --clips 1,60,60 --size 144
python maintain/measure_gated.py --data data/gated --output docs/results/gated.json

The same on photographs, with the model of `make stamps`:

python data_scripts/make_stamps.py --out data/gated_stamps --clips 1,1,60,1,1
python maintain/measure_gated.py --data data/gated_stamps --checkpoint results/stamps/best.safetensors \\
    --output docs/results/gated_stamps.json
"""

import argparse
import time

import torch
import torch.nn.functional as F

from pcma_lib import AudioVisualModel
from pcma_lib.data.avsbench import AVSS
from pcma_lib.data.clip import collate
from pcma_lib.measure.complexity import count_macs
from pcma_lib.measure.evaluation import evaluate
from pcma_lib.network.cim import confidence
from pcma_lib.network.layers import resize
from pcma_lib.training.origin import code
from pcma_lib.use.checkpoints import write_json
from pcma_lib.use.fast import fast
from pcma_lib.use.gated import doubtful, gate_of, stage_macs

CONFIDENT = (0.6, 0.8, 0.9, 0.95, 0.99, 0.999)


def paper(network):
    """The gate by M_1, the mask that the paper's progression leaves."""
    kept = {}
    network.network.cim.register_forward_hook(lambda module, given, mask: kept.update(last=mask))
    return lambda logits: kept["last"] > 0


def rules(network):
    """Name of a rule -> the gate's function of O_2."""
    found = {}
    for c in CONFIDENT:
        found[f"confidence below {c}"] = lambda logits, c=c: confidence(logits) < c
        found[f"outline, or confidence below {c}"] = lambda logits, c=c: doubtful(logits, c)
    found["outline alone"] = lambda logits: doubtful(logits, 0)
    found["the paper's M_1, 0.99"] = paper(network)
    found["tiles of 8, outline, or confidence below 0.99"] = lambda logits: wider(doubtful(logits))
    return found


def wider(doubt):
    """All of a tile of twice the side, where a pixel of it is in doubt."""
    pooled = F.max_pool2d(doubt.float(), 4, ceil_mode=True)
    return F.interpolate(pooled, size=doubt.shape[-2:], mode="nearest") > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--checkpoint", help="left out: the model that the package ships")
    parser.add_argument("--split", default="test")
    parser.add_argument("--output", required=True)
    given = parser.parse_args()
    model = AudioVisualModel.load(given.checkpoint) if given.checkpoint else AudioVisualModel.demo()
    data = AVSS(given.data, given.split, image_size=model.picture_size())
    counted = counted_of(model, data)
    gated = fast(model, gated=True)
    network = gate_of(gated)
    network.most = 1.0
    dense = fast(model)
    rows = {"dense": measured(dense, data) | seconds_of(dense, data)}
    for name, rule in rules(network).items():
        network.doubt = rule
        network.reset()
        rows[name] = measured(gated, data) | seconds_of(gated, data)
        macs = stage_macs(counted, rows[name]["active"], rows[name]["computed"])
        rows[name]["macs"] = macs / counted[""]
        print(name, rows[name], flush=True)
        write_json(given.output, {"origin": model.origin, "measured_with": code(), "rows": rows})
    network.doubt = doubtful
    network.reset()
    for name, one in (("dense", model), ("gated", gated)):
        rows[f"controls, {name}"] = evaluate(one, data, controls="all")["controls"]
    write_json(given.output, {"origin": model.origin, "measured_with": code(), "rows": rows})


def counted_of(model, data):
    """Multiply-accumulates of a model's network on a clip, part by part."""
    example = collate([data[0]])
    return count_macs(model.network, example.frames, model.embed(example.log_mel))


def on_tiles(active, fine, coarse):
    """Logits on active tiles [N, rows, columns], and elsewhere those of the stage before, grown: [N, K, h, w]."""
    active = F.interpolate(active[:, None].float(), size=fine.shape[-2:], mode="nearest") > 0
    return torch.where(active, fine, resize(coarse, fine.shape[-2:]))


def measured(model, data):
    """Measures, and the gate's shares."""
    result = evaluate(model, data)
    result |= gate.shares if (gate := gate_of(model)) else {}
    return {k: result[k] for k in ("miou", "miou_whole_set", "f_measure", "active", "computed") if k in result}


def seconds_of(model, data):
    """Seconds a clip of the network alone, eight clips a call."""
    clip = collate([data[i] for i in range(8)])
    started = time.perf_counter()
    with torch.no_grad():
        for _ in range(3):
            model(clip.frames, clip.log_mel, clip.valid)
    return {"seconds": (time.perf_counter() - started) / 24}


if __name__ == "__main__":
    main()
