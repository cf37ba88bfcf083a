"""Which part of PCMANet listens: what a linear readout of each part knows of the sound (composed data).

Every second that shows a sounding object and a silent one is seen twice: under the clip's own sound, and under that of the
silent object alone. The picture is the same, so what only looks can't tell which of the two is heard.

python -m pcma_lib.measure.probing --data data/demo PCMANet=results/demo/best.safetensors
"""

import argparse
import sys
from collections import defaultdict

import torch
import torch.nn.functional as F

from ..data.avsbench import AVSS
from ..data.clip import log_mel_of
from ..data.controls import silent_objects
from ..data.files import named_paths
from ..network.avga import AVGA
from ..network.qsca import QSCA
from ..training.model import best_device
from ..use.checkpoints import write_json
from ..use.model import AudioVisualModel

RIDGE = 1e-2  # penalty of a readout's weights, for features of unit variance
PROBED = ("attention", "aligned", "guide", "fused", "logits")  # of AVGA twice, QSCA, the fusion, the head
KEPT = {  # what is read from a call of each of the network's modules
    "avga": lambda module, given, out: {"attention": module.attention(*given)[1], "aligned": out},
    "qsca": lambda module, given, out: {"guide": out[0][0]},
    "fusion": lambda module, given, out: {"fused": out},
    "heads": lambda module, given, out: {"logits": out},
}


def probe_parts(model: AudioVisualModel, fitted_on: AVSS, scored_on: AVSS) -> dict[str, float]:
    """How often a linear readout of each part is right, fitted on one split and scored on another.

    Args:
        model: an `AudioVisualModel` with a whole PCMANet. fitted_on, scored_on: composed data, not in training mode.

    Returns:
        dict of shares from 0 to 1, by "part stage" with 4 the coarsest. "ear": seconds of one object's sound whose class
        the embedding gives; "eye 4" .. "eye 1": objects seen whose class the pyramid's map gives (chance: one over the
        classes). "attention 4" .. "logits 1", see PROBED: seconds in which the readout is higher on the object that
        sounds than on one that does not; equal values count one half (chance: 0.5).

    Raises:
        ValueError: data that are not composed, or that show no silent object beside one that sounds.
    """
    whole = {"avga": AVGA, "qsca": QSCA}
    if not all(isinstance(m, kind) for name, kind in whole.items() for m in getattr(model.network, name, [None])):
        raise ValueError("probing needs a whole PCMANet, with AVGA and QSCA; this network has not both")
    was_training = model.training
    model.eval()
    fitted, scored = _examples(model, fitted_on), _examples(model, scored_on)
    model.train(was_training)
    classes = sorted(set(fitted["ear"][1]))
    result = {}
    for part, (features, truth) in fitted.items():
        known, asked = torch.stack(features).double(), torch.stack(scored[part][0]).double()
        if isinstance(truth[0], str):
            targets = torch.tensor([[float(name == c) for c in classes] for name in truth])
            found = [classes[k] for k in _readout(known, targets, asked).argmax(1)]
            right = torch.tensor([float(a == b) for a, b in zip(found, scored[part][1])])
        else:
            sounding, silent = _readout(known, torch.tensor(truth)[:, None], asked).view(-1, 2).T
            right = ((sounding > silent).double() + (sounding >= silent).double()) / 2
        result[part] = right.mean().item()
    return result


def _readout(known, targets, asked):
    """Ridge regression of targets [n, k] on features known [n, c], applied to asked [m, c]."""
    mean, spread, middle = known.mean(0), known.std(0).clamp(min=1e-6), targets.double().mean(0)
    known, asked = ((x - mean) / spread for x in (known, asked))
    penalty = RIDGE * torch.eye(known.shape[1], dtype=known.dtype)
    weights = torch.linalg.solve(known.T @ known / len(known) + penalty, known.T @ (targets - middle) / len(known))
    return asked @ weights + middle


@torch.no_grad()
def _examples(model, data):
    """For each part, lists of feature vectors and of what they should tell: a class, or (in pairs) 1.0 and 0.0."""
    device = next(model.parameters()).device
    examples = defaultdict(lambda: ([], []))

    def add(part, vector, truth):
        examples[part][0].append(vector.flatten().float().cpu())
        examples[part][1].append(truth)

    for index in range(len(data)):
        raw, clip = data.raw(index), data[index]
        if raw.objects is None:
            raise ValueError(f"{data.name(index)}: probing needs composed data, with each object's mask and sound alone")
        seconds, frames = len(raw.frames), clip.frames[None].to(device)
        sounds = torch.stack([log_mel_of(wave, seconds) for wave in raw.object_waves]).to(device)
        where = [torch.from_numpy(raw.instances == i + 1) for i in range(len(raw.objects))]
        heard = [torch.tensor(o["sounds"], dtype=torch.bool)[:, None, None] for o in raw.objects]
        levels = model.network.pyramid(frames[0])
        for o, embeddings, region in zip(raw.objects, model.embed(sounds), where):
            for second in range(seconds):
                add("ear", embeddings[second], o["class"])
            for stage in (4, 3, 2, 1):
                if region[0].any():
                    add(f"eye {stage}", _mean_over(levels[stage - 1][0], region[0]), o["class"])
        for other in silent_objects(raw)[:1]:
            sounding = torch.stack([region & on for region, on in zip(where, heard)]).any(0)
            both = [s for s in range(seconds) if sounding[s].any() and where[other][s].any()]
            own = _parts(model, frames, clip.log_mel[None].to(device))
            foreign = _parts(model, frames, sounds[other][None])
            for second in both:
                for seen, right, wrong in ((own, sounding, where[other]), (foreign, where[other], sounding)):
                    for part, features in seen.items():
                        add(part, _mean_over(features[second], right[second]), 1.0)
                        add(part, _mean_over(features[second], wrong[second]), 0.0)
    if "logits 1" not in examples:
        raise ValueError(f"no clip of split {data.split!r} shows a silent object beside one that sounds")
    return examples


def _mean_over(features, region):
    """The mean of [C, h, w] over a region [H, W], each cell by the share of it that lies in the region."""
    share = F.adaptive_avg_pool2d(region[None].float(), features.shape[-2:])[0].to(features.device)
    return (features.float() * share).sum((1, 2)) / share.sum()


def _parts(model, frames, log_mel):
    """What each stage computes from one clip, [T, C, h, w] by the name of the part."""
    seen, hooks = {}, []
    for name, read in KEPT.items():
        for i, module in enumerate(getattr(model.network, name), 1):

            def keep(module, given, out, i=i, read=read):
                seen.update({f"{part} {i}": value for part, value in read(module, given, out).items()})

            hooks.append(module.register_forward_hook(keep))
    try:
        model(frames, log_mel)
    finally:
        for hook in hooks:
            hook.remove()
    return {f"{name} {i}": seen[f"{name} {i}"] for name in PROBED for i in (4, 3, 2, 1)}


def main(arguments: list[str] | None = None) -> None:
    """`python -m pcma_lib.measure.probing NAME=CHECKPOINT ...`: a column a model, fitted on val, scored on test."""
    parser = argparse.ArgumentParser(
        prog="python -m pcma_lib.measure.probing", description=__doc__ and __doc__.splitlines()[0]
    )
    parser.add_argument("models", nargs="+", metavar="NAME=CHECKPOINT")
    parser.add_argument("--data", default="data/demo")
    parser.add_argument("--image-size", type=int, help="pixels; left out: each checkpoint's")
    parser.add_argument("--output", help="a JSON file for the figures")
    given = parser.parse_args(arguments)
    try:
        models = {name: AudioVisualModel.load(path).to(best_device()) for name, path in named_paths(given.models).items()}
        sizes = {name: model.picture_size(given.image_size) for name, model in models.items()}
        splits = {s: [AVSS(given.data, split, s, cache=True) for split in ("val", "test")] for s in {*sizes.values()}}
        found = {name: probe_parts(model, *splits[sizes[name]]) for name, model in models.items()}
        if given.output:
            write_json(given.output, found)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(" " * 14 + "".join(f"  {name:>5s}" for name in found))
    for part in next(iter(found.values())):
        print(f"{part:14s}" + "".join(f"  {parts[part]:{max(5, len(name))}.3f}" for name, parts in found.items()))


if __name__ == "__main__":
    main()
