"""Brings a download of AVSBench into the layout that `pcma_lib` reads, and checks every file of it.

    pcma-data avsbench --source DOWNLOAD [MORE ...] --dataset s4

A source is a folder at any height (archives in it are read too) or a .zip or .tar.* archive. Files are hard-linked from a
folder, or copied if it lies on another file system. What a clip lacks is taken from its raw video: one frame a second, the
one 15/16 into it (where AVSBench's own frames of S4 and MS3 come from), at the size of the masks; and its sound, 16 kHz mono
16 bit. Masks come from the download only. Log-mels of the download are pickles: they are neither opened nor taken.
Raw videos go along into the folder; nothing reads them there once the command reports no problems.

Running it again goes on where it stopped; readable files are left as they are. Exit status: 0 if everything is there and
right, 1 if there are problems (each names its file), 2 if it could not begin.
"""

from __future__ import annotations

import csv
import io
import multiprocessing
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image
from tqdm import tqdm

from pcma_lib.data.avsbench import AVSS, DATASETS
from pcma_lib.data.files import open_image, read_mask, resolve, write_atomically
from pcma_lib.data.media import decode_pictures, decode_sound, mixed, upright_pixels
from pcma_lib.network.audio import SAMPLE_RATE

from .avsbench_sources import ARCHIVES, check_wave, gather, readable, write_if_changed
from .clip_folder import write_wav
from .commands import command, command_parser
from .generate import add_workers, follow_parent

OUT = {"s4": "Single-source", "ms3": "Multi-sources", "avss": "AVSBench-semantic"}
COUNTS = {
    "s4": {"train": 3452, "val": 740, "test": 740},
    "ms3": {"train": 296, "val": 64, "test": 64},
    "avss": {"train": 8498, "val": 1304, "test": 1554},
}
S4_CATEGORIES = set(
    """ambulance_siren baby_laughter cap_gun_shooting cat_meowing chainsawing_trees coyote_howling dog_barking driving_buses
    female_singing helicopter horse_clip-clop lawn_mowing lions_roaring male_speech mynah_bird_singing
    playing_acoustic_guitar playing_glockenspiel playing_piano playing_tabla playing_ukulele playing_violin race_car
    typing_on_computer_keyboard""".split()
)
AVSS_CLASSES = 71
UNREADABLE = (ValueError, OSError, av.FFmpegError)


def build_index(dataset: str, root: Path) -> None:
    """Writes the index of S4 or MS3 from the folders of masks, unless the download has brought one.

    Raises:
        FileNotFoundError: AVSS, whose folders do not tell the split.
    """
    layout = DATASETS[dataset]
    path = root / layout.index_file
    columns = ("split", "category", "name") if dataset == "s4" else ("split", "name")  # an order only built ones have
    if path.is_file() and not path.read_bytes().startswith(",".join(columns).encode()):
        return
    if dataset == "avss":
        raise FileNotFoundError(f"no {path}: only the download's own metadata.csv tells the splits; give it as a source too")
    folders = sorted((root / layout.data / "gt_masks").glob("/".join("*" * len(columns))))
    rows = [folder.parts[-len(columns) :] for folder in folders if folder.is_dir()]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_if_changed(path, text.getvalue().encode())


def check_mask(path: Path, classes: int | None) -> tuple[int, int]:
    """Width and height of a mask that holds nothing but black and white, or the colours of `classes`."""
    mask = read_mask(path, classes)
    if not classes:
        counted = open_image(path, "RGB").getcolors(256)  # None if there are more
        colours = {colour for _, colour in counted or ()}
        if counted is None or not (colours <= {(0, 0, 0), (255, 255, 255)} or colours <= {(0, 0, 0), (1, 1, 1)}):
            found = f"the colour {min(colours - {(0, 0, 0), (255, 255, 255)})}" if colours else "more than 256 colours"
            raise ValueError(f"{path} has {found}; expected black and white only")
    return mask.shape[::-1]


def extract_frames(video: Path, targets: dict[int, Path], size: tuple[int, int] | None) -> None:
    """Writes the frame shown 15/16 into each second in `targets` (from 0), upright and brought to `size`.

    Seconds count from the file's start by the frames' own times. Where a video ends early its last frame is taken.

    Raises:
        ValueError: unreadable, or more than a second too short.
    """
    shown = {}
    for time, frame in decode_pictures(video, threads=1):
        shown.update({second: frame for second in targets if second not in shown or time <= second + Fraction(15, 16)})
    if not shown:
        raise ValueError(f"{video} holds no frame")
    if (end := time + frame.duration * frame.time_base) < max(targets):
        raise ValueError(f"{video} lasts {float(end):.2f} s, expected {max(targets) + 1} s")
    scaler = VideoReformatter()
    for second, path in targets.items():
        frame = shown[second]
        image = Image.fromarray(upright_pixels(frame, frame.width, frame.height, scaler))
        image = image if size is None else image.resize(size, Image.Resampling.BILINEAR)
        kind = {".png": "PNG", ".jpg": "JPEG"}[path.suffix]
        write_atomically(path, partial(image.save, format=kind, quality=95))


def extract_sound(video: Path, path: Path, seconds: int) -> None:
    """Writes the sound of a video as 16 kHz mono 16 bit, at most `seconds` of it.

    Sound is where it is in the video: silence fills the time before it starts and the gaps. Preprocessing that joins the
    decoded samples, as the release's does, puts a sound that starts 0.7 s late 0.7 s too early. Where the two channels
    cancel each other out, which joined and averaged is silence, this takes the louder one.

    Raises:
        ValueError: unreadable, no sound, or more than a second too short.
    """
    sound = np.concatenate([np.zeros((2, 0), np.float32), *decode_sound(video, SAMPLE_RATE)], 1)
    if not sound.size:
        raise ValueError(f"{video} has no readable sound")
    if sound.shape[1] < (seconds - 1) * SAMPLE_RATE:
        raise ValueError(f"{video} has {sound.shape[1] / SAMPLE_RATE:.2f} s of sound, expected {seconds} s")
    samples = (mixed(sound[:, : seconds * SAMPLE_RATE]) * 32768).round().clip(-32768, 32767).astype(np.int16)
    write_atomically(path, lambda part: write_wav(part, samples))


@dataclass(frozen=True)
class ClipFiles:
    """What a clip must have: a frame a second, a mask or None a second, a sound; and perhaps a video to make up for it."""

    frames: list[Path]
    masks: list[Path | None]
    sound: Path
    video: Path
    classes: int | None

    def complete(self) -> list[str]:
        """Takes what is missing from the video, then checks all files; returns the problems."""
        problems = []

        def attempt(check, *arguments):
            try:
                return check(*arguments)
            except UNREADABLE as error:
                problems.append(str(error))

        masks = [path and attempt(check_mask, path, self.classes) for path in self.masks]
        frames = [readable(path) for path in self.frames]
        missing = {second: path for second, path in enumerate(self.frames) if not frames[second]}
        if missing and self.video.is_file():
            usual = None if self.classes else (224, 224)
            attempt(extract_frames, self.video, missing, next((size for size in masks if size), usual))
        if self.video.is_file() and not readable(self.sound):
            attempt(extract_sound, self.video, self.sound, len(self.frames))
        attempt(check_wave, self.sound, len(self.frames))
        frames = [frame or attempt(open_image, path) for frame, path in zip(frames, self.frames)]
        first = next((frame.size for frame in frames if frame), None)
        for frame, path, mask, mask_path in zip(frames, self.frames, masks, self.masks):
            if frame and frame.size != first:
                problems.append(f"{path} has {frame.size} pixels; the clip's first frame has {first}")
            if frame and mask and mask != frame.size:
                problems.append(f"{mask_path} has {mask} pixels; its frame {path.name} has {frame.size}")
        return problems


def list_clips(dataset: str, root: Path, counts: bool) -> tuple[list[ClipFiles], list[str]]:
    """The clips of the index, with the paths that the data set will read, and what is wrong with the index."""
    layout = DATASETS[dataset]
    index, rows = root / layout.index_file, layout.read_index(root)
    if not rows:
        raise ValueError(f"{index} lists no clip")
    data = layout(root, rows[0]["split"])
    clips, problems = [], []
    for row in rows:
        try:
            frames, masks, sound = data.paths(row)
        except ValueError as error:
            problems.append(str(error))
            continue
        if isinstance(data, AVSS):
            video = next(sound.parent.glob("*.mp4"), sound.with_suffix(".mp4"))
        else:
            nest = (row["split"], row["category"]) if data.nested else ()
            video = root.joinpath(data.data, "raw_videos", *nest, f"{row['name']}.mp4")
        clips.append(ClipFiles(frames, masks, sound, video, len(data.classes) if isinstance(data, AVSS) else None))
    problems += [f"{index} lists {clip} {n} times" for clip, n in Counter(c.sound for c in clips).items() if n > 1]
    problems += [f"{index}: unknown split {split!r}" for split in {row["split"] for row in rows} - set(COUNTS[dataset])]
    return clips, problems + (check_counts(dataset, index, rows, getattr(data, "classes", ())) if counts else [])


def check_counts(dataset: str, index: Path, rows: list[dict], classes: Sequence[str]) -> list[str]:
    """How the rows of an index and the classes of AVSS differ from what is published."""
    found = Counter(row["split"] for row in rows)
    problems = [
        f"{index}: {found[split]} clips of split {split}, published are {expected}"
        for split, expected in COUNTS[dataset].items()
        if found[split] != expected
    ]
    if dataset == "s4" and (differing := S4_CATEGORIES ^ {row["category"] for row in rows}):
        problems.append(f"{index}: categories missing or unknown: {', '.join(sorted(differing))}")
    if dataset == "avss" and len(classes) != AVSS_CLASSES:
        problems.append(f"{index.with_name('label2idx.json')}: {len(classes)} classes, published are {AVSS_CLASSES}")
    return problems


def complete_clips(clips: Sequence[ClipFiles], workers: int) -> list[str]:
    """Completes and checks all clips, in this process if `workers` is 1; returns the problems in the index's order."""
    pool = None
    run = map
    if workers > 1:
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), follow_parent)
        run = partial(pool.map, chunksize=8)
    try:
        return [p for found in tqdm(run(ClipFiles.complete, clips), total=len(clips), unit="clip") for p in found]
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)


def prepare(sources: Sequence[Path], dataset: str, root: Path, workers: int = 1, counts: bool = True) -> list[str]:
    """Gathers, completes and checks a data set; returns the problems, of which there should be none.

    Raises:
        FileNotFoundError: no such source. ValueError: no index, or nothing of this data set in the sources.
    """
    problems, fitting = [], 0
    for source in sources:
        if not (source.is_dir() or source.is_file() and source.name.endswith(ARCHIVES)):
            raise FileNotFoundError(
                f"--source {source} is neither a folder nor one of {', '.join('*' + a for a in ARCHIVES)}"
            )
        more, found = gather(source, dataset, root)
        fitting, problems = fitting + more, problems + found
    if not fitting:
        raise ValueError("\n".join([*problems, f"no file of {dataset} in {', '.join(map(str, sources))}"]))
    try:
        build_index(dataset, root)
        clips, found = list_clips(dataset, root, counts)
    except (ValueError, OSError) as error:
        raise ValueError("\n".join([*problems, str(error)])) from None
    return problems + found + complete_clips(clips, workers)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = command_parser("avsbench", __doc__)
    parser.add_argument("--source", type=Path, nargs="+", required=True, help="folders or archives of the download")
    parser.add_argument("--dataset", choices=DATASETS, required=True)
    parser.add_argument("--out", type=Path, help="folder to write (default: where the preset looks, below data/AVSBench)")
    add_workers(parser)
    parser.add_argument("--no-counts", action="store_true", help="do not compare with the published numbers of clips")
    options = parser.parse_args(arguments)
    root = options.out or resolve("data/AVSBench") / OUT[options.dataset]
    problems = prepare(options.source, options.dataset, root, max(1, options.workers), not options.no_counts)
    print(*problems, f"{root}: {len(problems)} problems" if problems else f"{root}: complete", sep="\n")
    return 1 if problems else 0
