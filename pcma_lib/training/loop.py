"""Training that can be killed at any moment and goes on as if it had not been (paper V-B)."""

import argparse
import json
import math
import sys
import time
import warnings
import zlib
from dataclasses import replace

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from ..data.avsbench import DATASETS
from ..data.clip import collate
from ..losses import segmentation_loss
from ..measure.evaluation import evaluate, table
from ..use.checkpoints import write_json
from ..use.model import AudioVisualModel
from .batch_norm import share_batch_norm
from .config import TrainConfig
from .origin import describe
from .pretraining import pretrain_ear, pretrain_eye
from .progress import Progress
from .recipe import (
    EpochBatches,
    best_device,
    best_precision,
    build_model,
    make_optimizer,
    open_dataset,
    prepare_for_speed,
    share_of_rate,
)
from .run_files import TOLD, Run, differences

KEPT = ("kept_3", "kept_2", "kept_1")  # M_3, M_2, M_1
LOG_COLUMNS = ("step", "epoch", "loss", *KEPT, "learning_rate", "gradient_norm", "clips_per_second")


def fit(config, output, resume=False, progress=True, after_step=None):
    """Train, validate, keep the best. Started in several processes, they share every step and all end with the same model.

    Validation computes in the precision of the training, which also chooses what is best; `evaluate` of a loaded model
    computes in float32.

    Args:
        config: a `TrainConfig`. output: folder for log.csv, validation.csv, tensorboard/, best.safetensors,
            last.safetensors, their .json, config.json, result.json and resume.pt.
        resume: True goes on from resume.pt where there is one, with the same result as a run never interrupted. Settings
            that do not change the result may differ (`runs.FREE`), and with a warning some that do (`runs.TOLD`).
        progress: show a bar, or lines where no bar can be seen. after_step: called with the step's row of log.csv.

    Returns:
        dict, also in result.json: "best" and "last" (validation measures), "best_checkpoint", "seconds", "steps".

    Raises:
        FileExistsError: output holds a run and resume is False, or there is no state to go on from.
        ValueError: resume with another configuration or other data.
        FloatingPointError: a loss or gradient that is not finite; names the step, its clips and the last good state.
    """
    cpu = best_device().type == "cpu"  # else several processes without a GPU would not know of each other
    here = PartialState(cpu=cpu)
    main, rank, world = here.is_main_process, here.process_index, here.num_processes
    progress = progress and main
    run = Run(output, main)
    state = run.load() if resume else None
    run.refuse_what_would_be_lost(resume, state)
    config = _resolved(config, state, run)
    AcceleratorState._reset_state()  # an earlier fit of this process may have had another precision
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=config.mixed_precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    gpu = accelerator.device.type == "cuda"
    steps_done = accelerator.gather(torch.tensor([state["step"] if state else 0], device=accelerator.device)).tolist()
    if len(set(steps_done)) > 1:
        raise ValueError(f"the processes see different states of {run.folder}; all nodes must see the same folder")
    set_seed(config.seed)
    train = open_dataset(config, "train", training=True, remix=config.remix, augment=config.augment)
    val = open_dataset(config, "val")
    clips = zlib.crc32("\n".join(d.name(i) for d in (train, val) for i in range(len(d))).encode())
    if state and state.get("clips", clips) != clips:
        raise ValueError(f"{run.folder} was started with other clips than {train.root} holds; use those, or another folder")
    model = build_model(config, train.num_classes).to(accelerator.device)
    model.inputs, model.origin = describe(config, train)
    if config.cache:
        for dataset in (train, val):
            with Progress(f"reading {dataset.split}", "clip", progress) as shown:
                for index in range(len(dataset)):
                    dataset.raw(index)
                    shown.at(index + 1, len(dataset))
    if config.pretrain and not state:
        options = {"seed": config.seed, "progress": progress, "autocast": accelerator.autocast}
        pretrain_eye(model.network.pyramid, train, config.pretrain, **options)
        pretrain_ear(model.vggish, train, config.pretrain, **options)
    optimizer = make_optimizer(config, [p for p in model.parameters() if p.requires_grad])
    steps_per_epoch = max(1, len(train) // config.batch_size)
    total = min(config.epochs * steps_per_epoch, config.max_steps or sys.maxsize)
    step, best, seconds = 0, None, 0.0
    if state:
        with run.reading():
            model.load_state_dict(state["model"])
            torch.set_rng_state(state["rng"])
        step, best, seconds = state["step"], state["best"], state["seconds"]
    if world > 1:
        model = share_batch_norm(model, accelerator.device)
    model = prepare_for_speed(model, config)
    model, optimizer = accelerator.prepare(model, optimizer)
    if state:
        with run.reading():  # after prepare, which would bring Adam's step counts to the GPU, and each step to wait for them
            optimizer.load_state_dict(state["optimizer"])
    plain = accelerator.unwrap_model(model)
    if main:
        if step < total:  # until the run has come to its end, again where it goes on beyond an earlier one
            (run.folder / "result.json").unlink(missing_ok=True)
        write_json(run.folder / "config.json", config.to_dict())
    board = SummaryWriter(run.folder / "tensorboard", purge_step=step) if main else None

    def save_state():
        run.save(
            {
                "config": config.to_dict(),
                "step": step,
                "best": best,
                "seconds": seconds + time.perf_counter() - started,
                "model": plain.state_dict(),
                "optimizer": optimizer.state_dict(),
                "rng": torch.get_rng_state(),
                "clips": clips,
            }
        )

    def validate():
        nonlocal best
        with Progress("validation", "clip", progress) as shown:
            share = {"rank": rank, "world": world, "workers": config.workers}
            result = evaluate(plain, val, config.batch_size, **share, progress=lambda *n: shown.at(*n, best_so_far))
        result = {"step": step, "epoch": step / steps_per_epoch, **result}
        run.validations.append(result)
        if not main:
            best = result if best is None or result["miou"] > best["miou"] else best
            return
        for key, value in result.items():
            board.add_scalar(f"validation/{key}", value, step)
        plain.origin |= {"seconds": round(seconds + time.perf_counter() - started, 1), "steps": step}
        _save(plain, run.folder / "last", result)
        if best is None or result["miou"] > best["miou"]:
            best = result
            _save(plain, run.folder / "best", result)

    def best_so_far():
        return f"best validation mIoU so far {best['miou']:.3f}" if best else "validation mIoU not known yet"

    started = time.perf_counter()
    shown = Progress("training", show=progress)
    shown.at(step, total, best_so_far)
    while step < total:
        epoch = step // steps_per_epoch
        train.set_epoch(epoch)
        late_enough = epoch * steps_per_epoch >= config.negative_after * total
        train.negative_audio = config.negative_audio if late_enough else 0.0
        batches = EpochBatches(len(train), config, epoch, step % steps_per_epoch, rank, world)
        loader = DataLoader(train, batch_sampler=batches, collate_fn=collate, num_workers=config.workers, pin_memory=gpu)
        model.train()
        if not config.train_audio:
            plain.vggish.eval()
        lap = time.perf_counter()
        for parts in zip(*[iter(loader)] * config.accumulate):
            measured = _backward(model, parts, config, accelerator)
            norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_gradients or math.inf)
            means = accelerator.reduce(measured.mean(0), "mean")
            norm, *means = torch.stack([norm, *means]).tolist()  # on one GPU the step's one wait
            if not math.isfinite(means[0] + norm):
                what = f"the gradient's norm is {norm}" if math.isfinite(means[0]) else f"the loss is {means[0]}"
                clips = ", ".join(name for part in parts for name in part.name)
                good = run.resume_path if run.resume_path.is_file() else "none"
                raise FloatingPointError(f"{what} at step {step + 1}, clips {clips}; the last good state is {good}")
            rate = config.learning_rate * share_of_rate(config, step, total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            speed = config.batch_size / (time.perf_counter() - lap)
            row = dict(zip(LOG_COLUMNS, (step, step / steps_per_epoch, *means, rate, norm, speed)))
            run.rows.append(row)
            if main:
                for key in ("loss", *KEPT, "learning_rate", "gradient_norm"):
                    board.add_scalar(f"training/{key}", row[key], step)
            shown.at(step, total, lambda row=row: f"loss {row['loss']:.3f}, {best_so_far()}")
            finished = step == total or step % steps_per_epoch == 0
            if finished and (step == total or (step // steps_per_epoch) % config.evaluate_every == 0):
                validate()
                model.train()
            if finished or step % config.save_every == 0:
                save_state()
            if after_step:
                after_step(row)
            if step == total:
                break
            lap = time.perf_counter()
    shown.close()
    seconds += time.perf_counter() - started
    if main:
        run.write_logs()
        board.close()
    result = {"best": best, "last": run.validations[-1] if run.validations else None, "steps": step, "seconds": seconds}
    result["best_checkpoint"] = str(run.folder / "best.safetensors")
    if main:
        write_json(run.folder / "result.json", result)
    accelerator.wait_for_everyone()
    return result


def _resolved(config, state, run):
    """The configuration with "auto" precision resolved, to that of the run that goes on where there is one.

    Raises:
        ValueError: the run was started with settings that may not differ.
    """
    before = state and state["config"]
    if config.mixed_precision == "auto":
        with run.reading():
            stored = before.get("mixed_precision", "auto") if state else "auto"
        config = replace(config, mixed_precision=best_precision() if stored == "auto" else stored)
    if not state:
        return config
    with run.reading():
        if before.get("mixed_precision") == "auto":  # of a version that did not store what it was resolved to
            before = {**before, "mixed_precision": config.mixed_precision}
        refused, told = differences(before, config.to_dict())
    if refused:
        refused = "; ".join(f"{k} was {before.get(k)!r}, is {getattr(config, k)!r}" for k in refused)
        raise ValueError(f"{run.folder} was started with other settings ({refused}); use another folder")
    for name in told if run.main else ():
        was, now = before.get(name), getattr(config, name)
        warnings.warn(f"going on with {name}={now} instead of {was}: {TOLD[name]}", stacklevel=3)
    return config


def _backward(model, parts, config, accelerator):
    """Adds the gradients of this process's parts of a step. Returns [parts, 4]: of each its loss, and of each mask the share
    kept, as they count in the step's means; nan without masks."""
    parts, shares, seconds = _weighed(parts, accelerator)
    measured = []
    for part, share in zip(parts, shares):
        batch = part.to(accelerator.device)
        with accelerator.autocast():
            out = model(batch.frames, batch.log_mel, batch.valid)
        loss = segmentation_loss(out.stages, batch.masks, part.labelled, config.stage_weights) * share
        accelerator.backward(loss / config.accumulate)
        kept = [(m.mean((2, 3, 4)) * batch.valid).sum() / seconds for m in out.masks]
        kept = kept or [loss.new_full((), math.nan)] * len(KEPT)  # AVS has no masks
        measured.append(torch.stack([loss.detach(), *kept]))
    return torch.stack(measured)


def _weighed(parts, accelerator):
    """The parts of a step, all as long as the longest of any process; what the mean over each one's labelled frames counts
    in the step, 1 where all parts have as many; and the valid frames of a part, in the mean over the step."""
    counts = [[p.labelled.sum(), p.valid.sum(), p.valid.shape[1]] for p in parts]
    of_all = torch.tensor(counts)
    if accelerator.num_processes > 1:
        of_all = accelerator.gather(of_all.to(accelerator.device)).cpu()
    labelled, valid, _ = of_all.double().mean(0).clamp(min=1 / len(of_all)).tolist()
    return [p.lengthened(int(of_all[:, 2].max())) for p in parts], [int(c[0]) / labelled for c in counts], valid


def _save(model, stem, metrics):
    model.save(stem.with_suffix(".safetensors"), metrics)
    write_json(stem.with_suffix(".json"), {**model.said(), "metrics": metrics})


def main(arguments=None):
    """`python -m pcma_lib.training fit|evaluate ...`; also what `accelerate launch -m` runs."""
    parser = argparse.ArgumentParser(prog="python -m pcma_lib.training", description=__doc__ and __doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    fitting = commands.add_parser("fit", help="train with a preset")
    fitting.add_argument("--preset", default="demo")
    fitting.add_argument("--output", required=True)
    fitting.add_argument("--resume", action="store_true")
    fitting.add_argument("--set", nargs="*", default=[], metavar="FIELD=JSON", help="change fields of the preset")
    measuring = commands.add_parser("evaluate", help="print the measures and controls of a checkpoint")
    measuring.add_argument("--checkpoint", required=True)
    measuring.add_argument("--data", required=True)
    measuring.add_argument("--dataset", default="avss", choices=sorted(DATASETS))
    measuring.add_argument("--split", default="test")
    measuring.add_argument("--image-size", type=int, help="pixels; left out: the checkpoint's")
    measuring.add_argument("--unheard", action="store_true", help="composed data: with sounds alone that training lacks")
    measuring.add_argument("--output", metavar="FILE", help="also write them to this JSON file")
    given = parser.parse_args(arguments)
    try:
        if given.command == "fit":
            changes = dict(item.partition("=")[::2] for item in given.set)
            changes = {k: _literal(v) for k, v in changes.items()}
            result = fit(TrainConfig.preset(given.preset, **changes), given.output, given.resume)
            state = PartialState()
            state.print(json.dumps(result, indent=2))
            state.destroy_process_group()  # left to the exit, its threads at times abort a process that has finished
        else:
            model = AudioVisualModel.load(given.checkpoint).to(best_device())
            semantic = model.settings.get("num_classes", 1) > 1
            options = {"semantic": semantic, "unheard": given.unheard}
            data = DATASETS[given.dataset](given.data, given.split, model.picture_size(given.image_size), **options)
            result = evaluate(model, data, controls="all")
            print(table(result))
            if given.output:
                write_json(given.output, result)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")


def _literal(text):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
