"""Makes a dataset of composed clips on all cores: the part that `demo.py` and `stamps.py` share."""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from .clip_folder import (
    LABEL,
    complete,
    number_classes,
    prepare_root,
    remove_unfinished,
    write_clip,
    write_metadata,
    write_text,
)
from .scene import MOST_VISIBLE, SPLITS, Background, ObjectKind, clip_kind, clip_rng, compose

FORMAT_VERSION = 1


class Generator(Protocol):
    """What a dataset is made of; a small object, since every process gets its own copy.

    Attributes:
        name: first part of the clips' names.
        version: raised when the same settings would give other clips.
        licence: of pictures and sounds, for the index.
    """

    name: str
    version: int
    licence: str

    def object_kinds(self, split: str) -> Sequence[ObjectKind]:
        """Everything that can be put into a clip of a split; those of training have all classes."""

    def background(self, split: str) -> Background:
        """What draws the backgrounds of a split."""


def clip_counts(text: str, example: tuple[int, ...]) -> tuple[int, ...]:
    """Parses "300,60,60", or as many numbers as the example has."""
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if len(counts) not in (3, len(example)):
        more = f" or {len(example)}" if len(example) > 3 else ""
        raise argparse.ArgumentTypeError(f"expected 3{more} numbers such as {','.join(map(str, example))}, not {text!r}")
    if min(counts) < 0 or not any(counts):
        raise argparse.ArgumentTypeError(f"expected numbers of clips from 0 up, at least one of them above, not {text!r}")
    return counts


def add_workers(parser: argparse.ArgumentParser) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--workers", type=int, default=cores, help="processes (default: one a core, here %(default)s)")


def add_options(parser: argparse.ArgumentParser, out: str, size: int, clips: tuple[int, ...]) -> None:
    """Adds the options that all datasets share, with these defaults."""
    parser.add_argument("--out", type=Path, default=Path(out), help="folder to write (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: %(default)s)")
    parser.add_argument("--size", type=int, default=size, help="side of the frames in pixels (default: %(default)s)")
    parser.add_argument(
        "--clips",
        type=functools.partial(clip_counts, example=clips),
        default=clips,
        metavar=",".join(SPLITS[: len(clips)]).upper(),
        help=f"default: {','.join(map(str, clips))}",
    )
    add_workers(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset that was made with other settings")


def clip_names(name: str, clips: Sequence[int]) -> Iterator[tuple[str, int, str]]:
    """Every clip as split, index and uid."""
    for split, count in zip(SPLITS, clips):
        for index in range(count):
            yield split, index, f"{name}_{split}_{index:05d}"


class ClipMaker:
    """Composes and writes single clips. It holds what stays the same between clips."""

    def __init__(self, generator: Generator, root: Path, seed: int, size: int) -> None:
        self.generator, self.root, self.seed, self.size = generator, root, seed, size
        self.kinds = functools.cache(generator.object_kinds)
        self.label2idx = number_classes(kind.class_name for kind in self.kinds("train"))

    def make(self, split: str, index: int, uid: str) -> None:
        kind, background = clip_kind(self.seed, split, index), self.generator.background(split)
        clip = compose(clip_rng(self.seed, split, index), self.kinds(split), self.size, split, kind, background)
        write_clip(self.root, uid, clip, self.label2idx)


_maker: ClipMaker


def follow_parent() -> None:
    """Makes a process leave Ctrl-C to its parent, and end when its parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process().sentinel
    threading.Thread(target=lambda: multiprocessing.connection.wait([parent]) and os._exit(1), daemon=True).start()


def _start_worker(generator: Generator, root: Path, seed: int, size: int) -> None:
    global _maker
    follow_parent()
    _maker = ClipMaker(generator, root, seed, size)


def _make_in_worker(split: str, index: int, uid: str) -> None:
    _maker.make(split, index, uid)


def make_clips(
    generator: Generator, root: Path, seed: int, size: int, missing: Sequence[tuple[str, int, str]], workers: int
) -> None:
    """Makes the missing clips, with a progress bar; in this process if `workers` is 1."""
    bar = tqdm(total=len(missing), unit="clip", desc=str(root))
    if workers == 1:
        maker = ClipMaker(generator, root, seed, size)
        for item in missing:
            maker.make(*item)
            bar.update()
    else:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, _start_worker, (generator, root, seed, size))
        try:
            for future in as_completed([pool.submit(_make_in_worker, *item) for item in missing]):
                future.result()
                bar.update()
        finally:
            pool.shutdown(cancel_futures=True)
    bar.close()


def enough(kinds: Sequence[ObjectKind]) -> bool:
    """Whether these have as many classes as a clip may need: those of the visible objects, and one that is heard alone."""
    return len({kind.class_name for kind in kinds}) > MOST_VISIBLE


def make_dataset(generator: Generator, options: argparse.Namespace, **extra_settings: Any) -> bool:
    """Makes what is missing of a dataset; returns False if it was complete already.

    A clip depends on the seed, its split and its index alone. Clips that an interrupted run has finished are kept.

    Args:
        extra_settings: more that decides what the clips are; a dataset made with other settings is not continued.

    Raises:
        ValueError: the folder holds something else, or an option makes no sense.
    """
    if options.size < 48:
        raise ValueError(f"--size {options.size}: objects of a quarter of the frame need frames of at least 48 pixels")
    if options.workers < 1 or options.seed < 0:
        raise ValueError(
            f"--workers {options.workers} --seed {options.seed}: expected at least one process and a seed from 0 up"
        )
    settings = {"format": FORMAT_VERSION, "generator": generator.name, "generator_version": generator.version}
    settings |= {"seed": options.seed, "size": options.size, "clips": dict(zip(SPLITS, options.clips)), **extra_settings}
    root, label2idx = options.out, number_classes(kind.class_name for kind in generator.object_kinds("train"))
    for split, count in zip(SPLITS, options.clips):
        kinds = generator.object_kinds(split) if count else []
        there = sorted({kind.class_name for kind in kinds})
        if count and not enough(kinds):
            names = ", ".join(there) or "none"
            raise ValueError(f"a clip may need {MOST_VISIBLE + 1} classes of objects; for {split} there are {names}")
        if lacking := [name for name in there if name not in label2idx]:
            raise ValueError(f"{split} would show what training has no picture of: {', '.join(lacking)}")
    if prepare_root(root, settings, options.overwrite):
        return False
    clips = list(clip_names(generator.name, options.clips))
    missing = [item for item in clips if not (root / LABEL / item[2]).exists()]
    try:
        make_clips(generator, root, options.seed, options.size, missing, min(options.workers, max(1, len(missing))))
    finally:
        remove_unfinished(root)
    write_text(root / "label2idx.json", json.dumps(label2idx) + "\n")
    rows = [{"uid": uid, "split": split, "kind": clip_kind(options.seed, split, index)} for split, index, uid in clips]
    write_metadata(root, ({**row, "licence": generator.licence} for row in rows))
    complete(root)
    return True


def run(generator: Generator, options: argparse.Namespace, **extra_settings: Any) -> int:
    """`make_dataset` for the command line: says what was done; returns the exit status."""
    made = make_dataset(generator, options, **extra_settings)
    print(f"{options.out}: {'complete' if made else 'was complete already'}, {sum(options.clips)} clips")
    return 0
