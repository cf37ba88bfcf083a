"""How fast, on this machine: a plain model against `fast`, plain training against `fit`'s own, and the loader.

python -m pcma_lib.benchmark inference --batch 1 8
python -m pcma_lib.benchmark inference --gated data/demo
python -m pcma_lib.benchmark training --backbone pvt_v2_b5 --batch 4 16
python -m pcma_lib.benchmark loading --data data/AVSBench/Single-source --dataset s4 --workers 4
"""

import argparse
import copy
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from .data.avsbench import AVSS, DATASETS
from .data.clip import Clip, collate
from .measure.complexity import count_macs, seconds_per_call
from .network.qsca import choose_path
from .training.config import TrainConfig
from .training.model import best_device, best_precision, prepare_for_speed
from .training.steps import TrainStep, make_optimizer
from .use.fast import fast
from .use.gated import Gated, doubtful, gate_of, stage_macs
from .use.model import NETWORKS, AudioVisualModel


def machine() -> str:
    """What the figures hold for: the GPU, or the processor and the threads in use; and torch's version."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        cpus = Path("/proc/cpuinfo")
        lines = cpus.read_text().splitlines() if cpus.is_file() else []
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.processor())
        name = f"{model}, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}"


def peak_memory(function: Callable[[], object], calls: int = 1) -> float:
    """Bytes at the peak of some calls: of the GPU's memory, or of the process where there is none (Linux only, else nan)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        for _ in range(calls):
            function()
        return torch.cuda.max_memory_allocated()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # starts the record of the peak anew
        for _ in range(calls):
            function()
        status = Path("/proc/self/status").read_text()
        return 1024 * int(next(x for x in status.splitlines() if x.startswith("VmHWM")).split()[1])
    except OSError:
        return float("nan")


def _compared(rows, batch, calls):
    """Lines of a table, the first row being what the others are compared with. Rows are run in turn, so that a machine
    that slows down slows all of them. The peak memory is that of the first calls, beside all rows' models: on a GPU, a call
    that replays a graph asks for no memory any more."""
    first = TrainStep.EAGER + 1 if torch.cuda.is_available() else 2  # until graphs are made, or the optimizer has its state
    peaks = {name: peak_memory(function, first) for name, function in rows.items()}
    seconds = {name: [] for name in rows}
    for _ in range(calls):
        for name, function in rows.items():
            seconds[name].append(seconds_per_call(function, calls=1, warm_up=0))
    best = {name: min(times) for name, times in seconds.items()}
    plain = next(iter(best.values()))
    for name, least in best.items():
        yield f"| {name} | {batch} | {batch / least:.2f} | {plain / least:.2f} | {peaks[name] / 1e9:.2f} |"


HEADER = "| | clips a call | clips/s | against plain | peak memory, GB |\n| --- | --- | --- | --- | --- |"


def inference(
    network: str = "pcmanet", backbone: str = "resnet50", batches: Sequence[int] = (1, 8), image_size: int = 224,
    compile: bool = False, calls: int = 5, gated: str | Path | None = None,
) -> Iterator[str]:  # fmt: skip
    """Yield a table's lines: the plain float32 model, and `fast`; five frames a clip, VGGish left out.

    The last line says by how much the two differ, as the largest difference of a logit in standard deviations.

    Args:
        gated: a folder of composed clips adds the gated decoder. The model's weights are random, so the clips' true
            outlines stand in for those of O_2: the gate does the work that it would do for a model that has learned them.
    """
    device = best_device()
    torch.manual_seed(0)
    model = _calibrated(NETWORKS[network](backbone).to(device), image_size)
    choose_path(model, dense=False)  # plain: as the paper has it, on a GPU, too
    rows = {"plain float32": model, "fast": fast(model)}
    if compile:
        rows["fast, compiled"] = fast(model, compile=True)
    if gated:
        rows["fast, gated"] = fast(model, gated=True)
        gate = gate_of(rows["fast, gated"])
        counted, shares = count_macs(model, *_inputs(1, image_size, device)), []
        doubts = _true_doubts(gated, image_size).to(device)
    yield HEADER
    differences = []
    for batch in batches:
        frames, sound = _inputs(batch, image_size, device)
        if gated:
            middle = torch.arange(batch) + max(0, (len(doubts) - batch) // 2)  # the clips of usual outlines
            doubt = doubts[middle % len(doubts)].flatten(0, 1)
            gate.doubt = lambda logits, doubt=doubt: doubt
        calls_of = {name: partial(_predict, model, frames, sound) for name, model in rows.items()}
        yield from _compared(calls_of, batch, calls)
        plain, *others = (call() for name, call in calls_of.items() if "gated" not in name)
        differences += [((plain - other).abs().max() / plain.std()).item() for other in others]
        if gated:
            tiles, computed = (x.double().mean().item() for x in gate.tiles_of(doubt))
            macs = stage_macs(counted, tiles, computed) / counted[""]
            note = f"{tiles:.1%} of the tiles active, {computed:.1%} computed, {macs:.3f} of the operations"
            shares.append(f"gated, {batch} clips: {note}")
    yield f"\nlargest difference of a logit, in standard deviations of the logits: {max(differences):.1e}"
    if gated:
        yield from shares


@torch.no_grad()
def _predict(model, frames, sound):
    return model(frames, sound).finest


def _true_doubts(folder, image_size, clips=24):
    """What `doubtful` says of perfect predictions O_2, five frames a clip: [clips, 5, 1, h, w], by the tiles to compute."""
    data = AVSS(folder, "test", image_size)
    masks = torch.cat([data[i % len(data)].masks[:5] for i in range(clips)]).float()[:, None]
    doubts = doubtful(200 * (F.adaptive_avg_pool2d(masks, image_size // 8) - 0.5)).unflatten(0, (clips, 5))
    return torch.stack(sorted(doubts, key=lambda one: Gated.tiles_of(one)[1].sum().item()))


def _inputs(batch, image_size, device):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(batch, 5, 3, image_size, image_size, generator=generator)
    return frames.to(device), torch.rand(batch, 5, 128, generator=generator).to(device)


def _calibrated(model, image_size):
    """A random model whose batch norms have seen data, so that its activations are of a trained one's size."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(*_inputs(1, image_size, next(model.parameters()).device))
    return model.eval()


def training(
    network: str = "pcmanet", backbone: str = "resnet50", batches: Sequence[int] = (4, 16), image_size: int = 224,
    compile: bool = False, calls: int = 3, tune: bool = False,
) -> Iterator[str]:  # fmt: skip
    """Yield a table's lines: a step in plain float32, and as `fit` takes it; five frames a clip, with a frozen VGGish, and
    without the batch's way to the device.

    Args:
        tune: also a step for which cuDNN tries its kernels and keeps the fastest, on a GPU. `fit` does not ask for it,
            because its gain has not been measured.
    """
    device = best_device()
    config = TrainConfig(network=network, backbone=backbone, image_size=image_size)
    torch.manual_seed(0)
    model = AudioVisualModel(network=network, backbone=backbone).to(device).train()
    rows = {
        "plain float32": (copy.deepcopy(model), "no", False),
        f"as fit, {best_precision()}": (model, best_precision(), None),
    }
    if compile:
        compiled = copy.deepcopy(model)
        rows["as fit, compiled"] = (prepare_for_speed(compiled, replace(config, compile=True)), best_precision(), None)
    prepare_for_speed(model, config)
    if tune:
        rows["as fit, cuDNN tuned"] = (copy.deepcopy(model), best_precision(), None)
    choose_path(rows["plain float32"][0], dense=False)
    steps = {}
    for name, (model, precision, capture) in rows.items():
        AcceleratorState._reset_state()
        accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=precision)
        optimizer = make_optimizer(config, [p for p in model.parameters() if p.requires_grad])
        steps[name] = TrainStep(*accelerator.prepare(model, optimizer), config, accelerator, capture)
    yield HEADER
    for batch in batches:
        frames, _ = _inputs(batch, image_size, device)
        masks, labelled = (frames[:, :, 0] > 1).to(torch.uint8), torch.ones(batch, 5, dtype=torch.bool)
        clip = Clip(frames, torch.randn(batch, 5, 1, 96, 64, device=device), masks, labelled, labelled, ["random"], [""])
        calls_of = {name: partial(step, [clip], 1e-4) for name, step in steps.items()}
        if tune:
            calls_of["as fit, cuDNN tuned"] = partial(_tuned, calls_of["as fit, cuDNN tuned"])
        yield from _compared(calls_of, batch, calls)


def _tuned(function):
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        return function()


def loading(
    data: str | Path, dataset: str = "avss", image_size: int = 224, batch: int = 4, workers: int = 4, clips: int = 200
) -> Iterator[str]:
    """Yield the clips a second that the data set gives in training, read and augmented by `workers` processes."""
    source = DATASETS[dataset](data, "train", image_size, training=True)
    loader = torch.utils.data.DataLoader(source, batch, shuffle=True, collate_fn=collate, num_workers=workers)
    seen, started = 0, None
    for loaded in loader:
        if started is None:  # the first batch pays for the start of the processes
            started = time.perf_counter()
            continue
        seen += len(loaded.name)
        if seen >= clips:
            break
    if not seen:
        raise ValueError(f"{data} holds {len(source)} training clips; at least two batches of {batch} are needed")
    rate = seen / (time.perf_counter() - started)
    yield f"{rate:.1f} clips/s, {workers} processes, {os.cpu_count()} cores, {image_size} px"


def main(arguments: list[str] | None = None) -> None:
    """`python -m pcma_lib.benchmark inference|training|loading ...` prints Markdown."""
    parser = argparse.ArgumentParser(prog="python -m pcma_lib.benchmark", description=__doc__ and __doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, batches in (("inference", [1, 8]), ("training", [4, 16])):
        measuring = commands.add_parser(name)
        measuring.add_argument("--network", default="pcmanet", choices=sorted(NETWORKS))
        measuring.add_argument("--backbone", default="resnet50")
        measuring.add_argument("--batch", dest="batches", type=int, nargs="+", default=batches)
        measuring.add_argument("--compile", action="store_true")
    commands.choices["training"].add_argument("--tune", action="store_true", help="also with kernels that cuDNN tries out")
    commands.choices["inference"].add_argument("--gated", metavar="DATA", help="also the gated decoder, by clips' outlines")
    reading = commands.add_parser("loading")
    reading.add_argument("--data", required=True)
    reading.add_argument("--dataset", default="avss", choices=sorted(DATASETS))
    reading.add_argument("--batch", type=int, default=4)
    reading.add_argument("--workers", type=int, default=4)
    for command in commands.choices.values():
        command.add_argument("--image-size", type=int, default=224)
    given = vars(parser.parse_args(arguments))
    print(machine(), "\n")
    run = {"inference": inference, "training": training, "loading": loading}[given.pop("command")]
    try:
        for line in run(**given):
            print(line, flush=True)
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
