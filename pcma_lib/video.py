"""A video file in, the same video with what sounds marked out: decoded, marked and encoded frame by frame.

The file is read twice side by side, for the model and for drawing: whatever the length and the size of the picture, only
one clip of small pictures and a few full frames are in memory.
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from . import needing

with needing("video"):
    import av
    from av.video.reformatter import VideoReformatter
    from matplotlib import colormaps
    from tqdm import tqdm

from .data.clip import MEAN, STD, log_mel_of
from .data.media import (
    BT2020,
    decode_pictures,
    decode_sound,
    is_stereo,
    mixed,
    open_track,
    promised_seconds,
    sample_pictures,
    upright_pixels,
)
from .network.audio import SAMPLE_RATE
from .training.model import best_device
from .use.checkpoints import write_atomically
from .use.fast import fast
from .use.model import AudioVisualModel
from .use.overlay import MASK, overlay

WINDOW = 15600  # samples at 16 kHz that one log-mel example of 96 frames spans
LARGEST = 16384  # pixels a side that the H.264 encoder takes
AAC_RATES = av.Codec("aac", "w").audio_rates
GREYS = np.arange(256.0).repeat(3).reshape(256, 1, 3) / 255
DIMMED, MARKED = (np.uint8(255 * overlay(GREYS, np.full((256, 1), m), MASK)[:, 0] + 0.5) for m in (0, 1))


def mark_video(
    source: str | Path, target: str | Path, model: torch.nn.Module, image_size: int | None = None, fps: float | None = None,
    seconds: int = 5, threshold: float = 0.5, side_by_side: bool = False, progress: bool = True,
) -> dict:  # fmt: skip
    """Write `target`, the video `source` with the pixels of what sounds in orange, the rest dimmed, and its sound.

    Frames keep their times, counted from the start of the file, also at a variable rate; rotation is applied to the pixels;
    an odd width or height repeats its last column or row (H.264 with 4:2:0 colour needs even ones). The sound is encoded
    anew as AAC, mono or stereo, at its own rate where AAC has it, else at 48 kHz. HDR becomes BT.709.

    Args:
        source: mp4, mov, webm or mkv. target: an .mp4 in a folder that exists; written beside and renamed.
        model: `model(frames [1, T, 3, S, S], log_mel [1, T, 1, 96, 64]).finest` is [1, T, K, S, S]; if K > 1, all classes
            but 0 are marked.
        image_size: S; None: the size that the model names in `inputs`, or 224, with a warning, if it names none.
        fps, seconds: masks a second (None: one, as trained) and frames a clip, see `clips`.
        threshold: probability p above which a pixel is marked.
        side_by_side: instead the original, p (magma: black 0, light 1) and max(p, 1 - p) (viridis: violet 0.5, yellow 1).

    Returns:
        dict: target, frames, seconds, width, height (of the upright source), masks (computed), marked (mean share of the
        pixels), has_sound, warning (None, or sentences: no sound, none that can be decoded, a picture size in doubt).

    Raises:
        FileNotFoundError: no source, no folder for the target. ValueError: an argument out of range, a source that is no
        video, cut off, without frames or too large, a target that cannot be written.
    """
    source, target, summary, training = Path(source), Path(target), {"target": str(target)}, model.training
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
    if not source.is_file():
        raise FileNotFoundError(f"no video file at {source}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {target.parent} to write {target.name} to; make it first")
    if target.suffix.lower() != ".mp4" or target.is_dir():
        raise ValueError(f"{target}: expected the name of a file ending in .mp4" + ", found a folder" * target.is_dir())
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the source itself; give another name")
    if not os.access(target.parent, os.W_OK):
        raise ValueError(f"{target} cannot be written: its folder is read-only")
    inputs, warnings = next((m.inputs for m in model.modules() if getattr(m, "inputs", None)), {}), []
    named = inputs.get("image_size")
    if image_size is None and named is None:
        warnings.append("The model does not name its picture size: 224 is taken; give image_size if it is another.")
    elif image_size is not None and named not in (None, image_size):
        warnings.append(f"Pictures of {image_size} pixels were asked for; the model was trained with {named}.")
    size = (named or 224) if image_size is None else image_size
    own = {option: inputs[key] for option, key in (("at", "frame_at"), ("mean", "mean"), ("std", "std")) if key in inputs}
    masks = _masks(model.eval(), fps, clips(source, size, fps, seconds, **own))
    try:
        write_atomically(target, lambda part: summary.update(_write(source, part, masks, threshold, side_by_side, progress)))
        summary["warning"] = " ".join(filter(None, [summary["warning"], *warnings])) or None
    except av.FFmpegError as error:
        raise ValueError(f"{target} could not be written from {source}: {error.strerror}") from error
    finally:
        model.train(training)
    return summary


def clips(
    source: str | Path, image_size: int = 96, fps: float | None = None, seconds: int = 5,
    at: float | Fraction = Fraction(1, 2), mean: Sequence[float] | torch.Tensor = MEAN,
    std: Sequence[float] | torch.Tensor = STD,
) -> Iterator[tuple[torch.Tensor, np.ndarray, list[Fraction]]]:  # fmt: skip
    """The video as the model was trained, clip after clip: T = `seconds` frames, a second apart, and their sound.

    Time is cut into intervals of 1 / fps seconds (None: one second); each has one mask, of the frame shown in its middle.
    With fps=None that place is `at`, a share of the second, where the frames lay that the model was trained with, and the
    front end hears a clip's sound as a whole: example k starts 0.96 k s into the clip, as in training.
    With fps, a clip holds every round(fps)-th interval, the next clip those that follow them, and each frame has its own
    0.975 s of sound, centred on its time. Silence is before the start and after the end; the last clips can be shorter.
    Channels are averaged; where they cancel each other out in a clip, the louder one is heard.

    Yields:
        frames [T, 3, image_size, image_size] float, normalised by mean and std; wave [T * 16000], or with fps [T, 15600],
        float32 at 16 kHz; times, list of T seconds as Fractions.
    """
    if not 32 <= image_size == image_size // 32 * 32 or not 1 <= seconds == int(seconds):
        raise ValueError(f"expected image_size divisible by 32 and whole seconds from 1, got {image_size} and {seconds}")
    if not 0 <= at < 1:
        raise ValueError(f"at must be a share of a second, from 0 to less than 1, got {at}")
    rate, at = _rate(fps), Fraction(1, 2) if fps else Fraction(at)
    stride = max(1, round(rate))
    mean, std = (torch.as_tensor(values, dtype=torch.float).view(3, 1, 1) for values in (mean, std))
    pictures, blocks = sample_pictures(source, image_size, rate, at), decode_sound(source, SAMPLE_RATE)
    sound, begin, silence = np.zeros((2, WINDOW), np.float32), -WINDOW, np.zeros((2, SAMPLE_RATE), np.float32)
    for first in itertools.count(0, seconds * stride):
        small = list(itertools.islice(pictures, seconds * stride))
        if not small:
            return
        times = [(first + i + at) / rate for i in range(len(small))]
        starts = [round(t * SAMPLE_RATE) - WINDOW // 2 for t in times] if fps else [first * SAMPLE_RATE]
        stop = starts[-1] + WINDOW if fps else (first + len(small)) * SAMPLE_RATE
        while begin + sound.shape[1] < stop:
            sound = np.concatenate([sound, next(blocks, silence)], 1)
        sound, begin = sound[:, starts[0] - begin :], starts[0]  # what comes before is not asked for again
        wave = mixed(sound[:, : stop - begin])
        for phase in range(min(stride, len(small))):
            frames = torch.from_numpy(np.stack(small[phase::stride])).permute(0, 3, 1, 2).float() / 255
            heard = np.stack([wave[s - begin :][:WINDOW] for s in starts[phase::stride]]) if fps else wave
            yield (frames - mean) / std, heard, times[phase::stride]


def _rate(fps):
    if fps is not None and not 0.01 <= fps <= 240:
        raise ValueError(f"fps must be None or 0.01 to 240 masks a second, got {fps}")
    return Fraction(fps or 1).limit_denominator(1001)


@torch.inference_mode()
def _masks(model, fps, prepared):
    """For every interval in order its end in seconds and the logits [S, S] of sounding, computed as they are asked for."""
    device = next((p.device for p in model.parameters()), "cpu")
    ready, wanted, rate = {}, 0, _rate(fps)
    for frames, wave, times in prepared:
        log_mel = torch.cat([log_mel_of(w, 1) for w in wave]) if fps else log_mel_of(wave, len(frames))
        logits = model(frames[None].to(device), log_mel[None].to(device)).finest[0].float().cpu()
        logits = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1:].logsumexp(1) - logits[:, 0]
        ready.update(zip((int(t * rate) for t in times), logits))
        while wanted in ready:
            yield (wanted + 1) / rate, ready.pop(wanted)
            wanted += 1


def _drawn(image, p, threshold, side_by_side):
    """A frame [H, W, 3] with its probabilities [H, W], both sides made even."""
    if side_by_side:
        maps = (("magma", p), ("viridis", 2 * np.maximum(p, 1 - p) - 1))
        drawn = np.hstack([image, *(colormaps[name](np.uint8(255 * v), bytes=True)[..., :3] for name, v in maps)])
    else:
        drawn, mask = DIMMED[image, 0], p > threshold
        drawn[mask] = MARKED[image[mask], [0, 1, 2]]
    return np.pad(drawn, [(0, drawn.shape[0] % 2), (0, drawn.shape[1] % 2), (0, 0)], "edge")


def _write(source, part, masks, threshold, side_by_side, progress):
    """Decode, draw and encode into the file `part`; returns the summary."""
    with open_track(source, "video") as (track, origin), open_track(source, "audio") as (sound, _):
        expected, aspect, frame_rate = track.frames or None, track.sample_aspect_ratio or Fraction(1), track.average_rate
        promised = promised_seconds([track, sound] if sound else [track], origin)
        sound_rate = sound.rate if sound and sound.rate in AAC_RATES else 48000
        missing = "" if sound or not track.container.streams.audio else " that can be decoded"
    pictures, blocks = decode_pictures(source), decode_sound(source, sound_rate)
    reader, writer = VideoReformatter(), VideoReformatter()
    first, block = next(pictures, None), next(blocks, None)
    if first is None:
        raise ValueError(f"{source} holds no frame, expected at least one")
    stored, channels = (first[1].width, first[1].height), 0 if block is None else 1 + is_stereo(source)
    height, width = upright_pixels(first[1], *stored, reader).shape[:2]
    wide = 3 * width if side_by_side else width
    if max(height, wide) > LARGEST:
        raise ValueError(f"{source} would make {wide} x {height} pixels; H.264 takes at most {LARGEST} a side")
    with av.open(f"file:{part}", "w", format="mp4", options={"movflags": "+faststart"}) as out:
        screen = out.add_stream("libx264", rate=frame_rate or 25, options={"crf": "20", "preset": "veryfast"})
        codec = screen.codec_context
        codec.width, codec.height, codec.time_base = wide + wide % 2, height + height % 2, first[1].time_base
        codec.flags |= av.codec.context.Flags.frame_duration
        codec.colorspace, codec.color_range = 1, 1  # BT.709, 16 to 235
        same = first[1].color_trc not in BT2020
        codec.color_trc, codec.color_primaries = (first[1].color_trc, first[1].color_primaries) if same else (1, 1)
        codec.sample_aspect_ratio = aspect if (width, height) == stored else 1 / aspect
        speaker = out.add_stream("aac", rate=sound_rate, layout="mono" if channels == 1 else "stereo") if channels else None
        until = heard = count = masks_used = marked = 0

        def speak(end):
            nonlocal block, heard
            while block is not None and heard < end * sound_rate:
                samples, block = block[:channels], next(blocks, None)
                if block is None and heard < promised * sound_rate:  # what the last block was filled up with is no sound
                    samples = samples[:, : 1 + int(promised * sound_rate) - heard]
                sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", speaker.layout.name)
                sound.sample_rate, sound.pts, sound.time_base = sound_rate, heard, Fraction(1, sound_rate)
                out.mux(speaker.encode(sound))
                heard += samples.shape[1]

        shown = tqdm(itertools.chain([first], pictures), source.name, expected, unit="frame", disable=not progress)
        for time, frame in shown:
            while time >= until:
                until, logits = next(masks)
                masks_used, p = masks_used + 1, None
            if p is None:
                p = F.interpolate(logits[None, None], (height, width), mode="bilinear").sigmoid()[0, 0].numpy()
            new = av.VideoFrame.from_ndarray(_drawn(upright_pixels(frame, *stored, reader), p, threshold, side_by_side))
            new = writer.reformat(new, None, None, "yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", threads=1)
            new.pts, new.time_base, new.duration = frame.pts, frame.time_base, frame.duration
            out.mux(screen.encode(new))
            end, count, marked = time + frame.duration * frame.time_base, count + 1, marked + (p > threshold).mean()
            speak(end)
        speak(np.inf)
        for track in filter(None, (screen, speaker)):
            out.mux(track.encode(None))
    if (reached := max(float(end), heard / sound_rate)) < promised - 0.5:
        raise ValueError(f"{source} is cut off: expected {promised:.2f} s as it says itself, found {reached:.2f} s")
    summary = {"frames": count, "seconds": float(end), "width": width, "height": height, "masks": masks_used}
    warning = None if channels else f"{source} has no sound{missing}: taken as silence."
    return {**summary, "marked": float(marked / count), "has_sound": channels > 0, "warning": warning}


def main(arguments: list[str] | None = None) -> None:
    """`python -m pcma_lib.video in.mp4 out.mp4 ...`: prints the summary as JSON."""
    parser = argparse.ArgumentParser(prog="python -m pcma_lib.video", description=__doc__ and __doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--checkpoint", help="a saved model; left out: the demo model")
    parser.add_argument("--image-size", type=int, help="pixels; left out: the size that the checkpoint names")
    parser.add_argument("--fps", type=float, help="masks a second; left out: one, as trained")
    parser.add_argument("--side-by-side", action="store_true", help="original, probability and confidence")
    parser.add_argument(
        "--gated", action="store_true", help="compute the finest stage only where the one before is in doubt"
    )
    given = vars(parser.parse_args(arguments))
    try:
        checkpoint, gated = given.pop("checkpoint"), given.pop("gated")
        model = AudioVisualModel.load(checkpoint) if checkpoint else AudioVisualModel.demo()
        model = fast(model.to(best_device()), gated=gated)
        print(json.dumps(mark_video(model=model, **given), indent=2))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
