"""Training that can be killed at any moment and goes on as if it had not been (paper V-B)."""

import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from torch import nn
from torch.utils.data import Dataset

from ..data.clip import Clip
from ..data.files import read_json
from ..measure.evaluation import evaluate
from ..use.checkpoints import write_json
from ..use.model import AudioVisualModel, network_name
from .batch_norm import share_batch_norm
from .config import TrainConfig
from .data import check_clips, clip_names, load, open_dataset, read_all, steps_of_epoch
from .model import best_device, best_precision, build_model, prepare_for_speed
from .origin import code, describe
from .pretraining import pretrain_ear, pretrain_eye
from .progress import Progress
from .run_files import Run
from .steps import TrainStep, make_optimizer, share_of_rate


def fit(
    config: TrainConfig,
    output: str | Path,
    resume: bool = False,
    progress: bool = True,
    after_step: Callable[[dict], None] | None = None,
    model: nn.Module | None = None,
    train: Dataset | None = None,
    val: Dataset | None = None,
) -> dict:
    """Train, validate, keep the best. Started in several processes, they share every step and all end with the same model.

    Validation computes in the precision of the training, which also chooses what is best; `test` computes in float32.

    Args:
        config: a `TrainConfig`. output: folder for log.csv, validation.csv, tensorboard/, best.safetensors,
            last.safetensors, their .json, config.json, result.json and resume.pt.
        resume: True goes on from resume.pt where there is one, with the same result as a run never interrupted. Settings
            that do not change the result may differ (`run_files.FREE`), and with a warning some that do (`run_files.TOLD`).
        progress: show a bar, or lines where no bar can be seen. after_step: called with the step's row of log.csv.
        model: trained in place of the one that `config` names: an `AudioVisualModel`, or a network, which gets the
            configuration's ears. Say in `config.options` what its class was made with, so that the checkpoint can build it.
        train, val: used in place of the data that `config` names. They give a `Clip` for each number below their length,
            and have `num_classes`, 1 for masks of what sounds.

    Returns:
        dict, also in result.json: "best" and "last" (validation measures), "best_checkpoint", "seconds", "steps".

    Raises:
        FileExistsError: output holds a run and resume is False, or there is no state to go on from.
        ValueError: resume with another configuration, other data or another network.
        FloatingPointError: a loss or gradient that is not finite; names the step, its clips and the last good state.
    """
    job = Training(config, output, resume, progress, model, train, val)
    for parts in job.steps_left():
        row = job.take_step(parts)
        job.record(row)
        if job.validation_is_due():
            job.validate()
        if job.epoch_ends() or job.step % config.save_every == 0:
            job.save()
        if after_step:
            after_step(row)
    return job.finish()


class Training:
    """A run while it goes on: its parts, how far it is, and the pieces that `fit` is made of."""

    def __init__(
        self, config: TrainConfig, output: str | Path, resume: bool, progress: bool, model: nn.Module | None,
        train: Dataset | None, val: Dataset | None,
    ) -> None:  # fmt: skip
        cpu = best_device().type == "cpu"  # else several processes without a GPU would not know of each other
        here = PartialState(cpu=cpu)
        self.main, self.share = here.is_main_process, {"rank": here.process_index, "world": here.num_processes}
        self.progress = progress and self.main
        self.run = Run(output, self.main)
        state = self.run.load() if resume else None
        self.run.refuse_what_would_be_lost(resume, state)
        if config.mixed_precision == "auto":
            config = replace(config, mixed_precision=self.run.precision(state) or best_precision())
        self.run.refuse_other_settings(config, state)
        self.config, self.accelerator = config, self._accelerator(config, cpu)
        self.step, self.best, self.seconds = (state[k] for k in ("step", "best", "seconds")) if state else (0, None, 0.0)
        self._refuse_other_folders()
        set_seed(config.seed)
        self._open_data(train, val)
        names = clip_names(self.train) + clip_names(self.val)
        self._refuse_other_parts(state, "clips", zlib.crc32("\n".join(names).encode()))
        self._make_model(model, state)
        self.steps_per_epoch = steps_of_epoch(len(self.train), config)
        self.total = min(config.epochs * self.steps_per_epoch, config.max_steps or sys.maxsize)
        self._begin_records()

    def _accelerator(self, config, cpu):
        AcceleratorState._reset_state()  # an earlier fit of this process may have had another precision
        accelerator = Accelerator(
            cpu=cpu,
            mixed_precision=config.mixed_precision,
            log_with=None if config.log_with == "none" else config.log_with,
            project_dir=self.run.folder,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        if config.log_with != "none" and not accelerator.log_with:
            raise ValueError(f"log_with={config.log_with!r}, which is not installed; pip install it, or set log_with='none'")
        return accelerator

    def _refuse_other_folders(self):
        steps = self.accelerator.gather(torch.tensor([self.step], device=self.accelerator.device)).tolist()
        if len(set(steps)) > 1:
            raise ValueError(f"the processes see different states of {self.run.folder}; all nodes must see the same folder")

    def _refuse_other_parts(self, state, name, now):
        """A run goes on with the same clips and the same network alone."""
        if state and state.get(name, now) != now:
            held = {"clips": "other clips than its data hold now", "network": f"the network {state[name]}, not {now}"}
            raise ValueError(f"{self.run.folder} was started with {held[name]}; use those, or another folder")
        setattr(self, name, now)

    def _open_data(self, train, val):
        config = self.config
        if train is None:
            train = open_dataset(config, "train", training=True, remix=config.remix, augment=config.augment)
        self.train, self.val = train, open_dataset(config, "val") if val is None else val
        for dataset in (self.train, self.val):
            check_clips(dataset)
            if getattr(dataset, "cache", False):
                read_all(dataset, self.progress)

    def _make_model(self, model, state):
        """The model and its optimiser, as new or as the state holds them, on the device."""
        config, accelerator = self.config, self.accelerator
        if not isinstance(model, AudioVisualModel):
            model = build_model(config, self.train.num_classes, model)
        self.plain = model = model.to(accelerator.device)
        model.inputs, model.origin = describe(config, self.train)
        self._refuse_other_parts(state, "network", network_name(type(model.network)))
        if not state:
            options = {"seed": config.seed, "workers": config.workers}
            options |= {"progress": self.progress, "autocast": accelerator.autocast}
            ear = config.pretrain_ear
            if ear is None:
                ear = 0 if config.vggish_weights else config.pretrain
            if config.pretrain:
                pretrain_eye(model.network.pyramid, self.train, config.pretrain, **options)
            if ear:
                pretrain_ear(model.vggish, self.train, ear, **options)
        optimizer = make_optimizer(config, [p for p in model.parameters() if p.requires_grad])
        if state:
            with self.run.reading():
                model.load_state_dict(state["model"])
                torch.set_rng_state(state["rng"])
        if accelerator.num_processes > 1:
            model = share_batch_norm(model, accelerator.device)
        self.model, self.optimizer = accelerator.prepare(prepare_for_speed(model, config), optimizer)
        self.plain = accelerator.unwrap_model(self.model)
        if state:
            with self.run.reading():  # after prepare, which would bring Adam's step counts to the GPU, to be waited for
                kinds = [{k: group[k] for k in ("fused", "capturable")} for group in self.optimizer.param_groups]
                self.optimizer.load_state_dict(state["optimizer"])
                for group, kind in zip(self.optimizer.param_groups, kinds):  # as suits this device, not the one before
                    group.update(kind)
        self.train_step = TrainStep(self.model, self.optimizer, config, accelerator)

    def _begin_records(self):
        if self.main:
            if self.step < self.total:  # until the run has come to its end, again where it goes on beyond an earlier one
                (self.run.folder / "result.json").unlink(missing_ok=True)
            write_json(self.run.folder / "config.json", self.config.to_dict())
        self.accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": self.step + 1}})
        self.started = time.perf_counter()
        self.shown = Progress("training", show=self.progress)
        self.shown.at(self.step, self.total, self.best_so_far)

    def steps_left(self) -> Iterator[list[Clip]]:
        """This process's clips of each step that is left, in parts."""
        loader = load(
            self.train, self.config, self.step, self.total, **self.share, pin=self.accelerator.device.type == "cuda"
        )
        self.lap = time.perf_counter()
        for parts in loader:
            self.model.train()  # again after each validation
            if not self.config.train_audio:
                self.plain.vggish.eval()
            yield parts
            self.lap = time.perf_counter()

    def take_step(self, parts: list[Clip]) -> dict:
        """Train on the clips of one step. Returns its row of log.csv."""
        rate = self.config.learning_rate * share_of_rate(self.config, self.step, self.total)
        try:
            measured = self.train_step(parts, rate)
        except FloatingPointError as error:
            what, clips = error.args
            good = self.run.resume_path if self.run.resume_path.is_file() else "none"
            raise FloatingPointError(
                f"{what} at step {self.step + 1}, clips {clips}; the last good state is {good}"
            ) from None
        self.step += 1
        speed = self.config.batch_size / (time.perf_counter() - self.lap)
        return {"step": self.step, "epoch": self.step / self.steps_per_epoch, **measured, "clips_per_second": speed}

    def record(self, row: dict) -> None:
        """Keep a step's row for log.csv, tell the trackers and show how far the run is."""
        self.run.rows.append(row)
        told = {f"training/{k}": v for k, v in row.items() if k not in ("step", "epoch", "clips_per_second")}
        self.accelerator.log(told, step=self.step)
        self.shown.at(self.step, self.total, lambda: f"loss {row['loss']:.3f}, {self.best_so_far()}")

    def epoch_ends(self) -> bool:
        """Whether the last step was the last of its epoch, or of the training."""
        return self.step == self.total or self.step % self.steps_per_epoch == 0

    def validation_is_due(self) -> bool:
        """Whether to validate after the last step."""
        every = self.steps_per_epoch * self.config.evaluate_every
        return self.step == self.total or self.step % every == 0

    def best_so_far(self) -> str:
        """The best validation so far, in words."""
        best = self.best and self.best["miou_whole_set"]
        return f"best whole-set mIoU of the validation so far {best:.3f}" if self.best else "no validation yet"

    def validate(self) -> None:
        """Measure the validation split, and keep the model as the last and, where it is, as the best."""
        with Progress("validation", "clip", self.progress) as shown:
            options = {**self.share, "workers": self.config.workers, "progress": lambda *n: shown.at(*n, self.best_so_far)}
            found = evaluate(self.plain, self.val, self.config.batch_size, **options)
        found = {k: v for k, v in found.items() if not isinstance(v, dict)}
        result = {"step": self.step, "epoch": self.step / self.steps_per_epoch, **found}
        self.run.validations.append(result)
        self.accelerator.log({f"validation/{k}": v for k, v in result.items()}, step=self.step)
        self.plain.origin |= {"seconds": round(self._seconds(), 1), "steps": self.step}
        # not by the mIoU a frame, which rewards marking nothing
        is_best = self.best is None or result["miou_whole_set"] > self.best["miou_whole_set"]
        for name in ("last", "best") if is_best else ("last",):
            if self.main:
                self.run.save_model(name, self.plain, result)
        self.best = result if is_best else self.best

    def save(self) -> None:
        """Write the state to go on from."""
        state = {"config": self.config.to_dict(), "step": self.step, "best": self.best, "seconds": self._seconds()}
        state |= {"model": self.plain.state_dict(), "optimizer": self.optimizer.state_dict(), "rng": torch.get_rng_state()}
        self.run.save({**state, "clips": self.clips, "network": self.network})

    def _seconds(self):
        return self.seconds + time.perf_counter() - self.started

    def finish(self) -> dict:
        """Write result.json, and close what is open."""
        self.shown.close()
        result = {"best": self.best, "last": self.run.validations[-1] if self.run.validations else None}
        result |= {"steps": self.step, "seconds": self._seconds()}
        result["best_checkpoint"] = str(self.run.folder / "best.safetensors")
        for tracker in self.accelerator.trackers:
            tracker.finish()
        if self.main:
            self.run.write_logs()
            path = self.run.folder / "result.json"  # still there where nothing was left to do, with what `test` measured
            write_json(path, {**(read_json(path) if path.is_file() else {}), **result})
        self.accelerator.wait_for_everyone()
        return result


def test(
    folder: str | Path, data: Dataset | None = None, network: type | nn.Module | None = None, progress: bool = True
) -> dict:
    """Measure the best model of a finished run on its test split, in float32 and with every control that the data answer.

    The measures become the section "test" of the run's result.json, with what was measured: the split's fingerprint, the
    model's origin, and the version, commit and hash of the code that measured. Where no data are given, so do those of
    further splits whose names begin with `test_`. Several processes share the clips.

    Args:
        folder: of the run. data: measured in place of the test split that the run's configuration names.
        network: the class of the network, where it is not registered.

    Returns:
        dict, the section "test".

    Raises:
        FileNotFoundError: the folder holds no finished run, or the data are not there.
    """
    folder, here = Path(folder), PartialState(cpu=best_device().type == "cpu")
    if not (folder / "result.json").is_file():
        raise FileNotFoundError(f"{folder} holds no finished run, as result.json is missing; fit with --resume ends it")
    config = TrainConfig.stored(read_json(folder / "config.json"))
    model = AudioVisualModel.load(folder / "best.safetensors", network).to(best_device())
    more = []
    if data is None:
        data = open_dataset(config, "test")
        more = _more_tests(data)
    told = {"checkpoint": "best.safetensors", "data": describe(config, data)[1]["data"], "origin": model.origin}
    sections = {}
    for name in ("test", *more):
        split = open_dataset(config, name) if name in more else data
        with Progress(name, "clip", progress and here.is_main_process) as shown:
            share = {"rank": here.process_index, "world": here.num_processes, "workers": config.workers}
            measured = evaluate(model, split, config.batch_size, "all", **share, progress=shown.at)
        sections[name] = {**told, "measured_with": code(), **measured}
    if here.is_main_process:
        write_json(folder / "result.json", {**read_json(folder / "result.json"), **sections})
    here.wait_for_everyone()
    return sections["test"]


def _more_tests(data):
    """The names of the test splits that a data set has beside "test"."""
    rows = data.read_index(data.root) if hasattr(data, "read_index") else []
    return sorted({row["split"] for row in rows if row["split"].startswith("test_")})
