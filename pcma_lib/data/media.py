"""The pictures and the sound of a video file, decoded as they are asked for."""

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorTrc, VideoReformatter

from .files import LOUDEST

FORMATS = "mov,mp4,matroska,webm"  # FFmpeg's names; no playlists, which lead to other files
BEGINNINGS = re.compile(rb".{4}(ftyp|moov|mdat|wide|free|skip|pnot)|\x1aE\xdf\xa3", re.DOTALL)  # how such files begin
BT2020 = {ColorTrc.BT2020_10, ColorTrc.BT2020_12, ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}  # the last two are PQ and HLG
DAY = 24 * 3600


@contextmanager
def open_track(path: str | Path, kind: str) -> Iterator[tuple[av.stream.Stream | None, Fraction]]:
    """Open a file's first "video" or "audio" track that can be decoded. Gives it, and the second at which the file starts.

    The track is None where there is no such sound; a file without a picture is refused.
    """
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:  # with "file:" a colon in the name ends no protocol; a title need not be UTF-8
        with av.open(f"file:{path}", options=options, metadata_errors="replace") as container:
            tracks = [s for s in container.streams if not s.disposition & s.disposition.attached_pic]  # a cover is no video
            track = next((s for s in tracks if s.type == kind and s.codec_context), None)
            if track is None and kind == "video":
                which = " that can be decoded" * any(s.type == kind for s in tracks)
                raise ValueError(f"{path} has no video track{which}; found: {', '.join(s.type for s in tracks) or 'none'}")
            yield track, Fraction(max(0, container.start_time or 0), av.time_base)
    except av.FFmpegError as error:
        with open(path, "rb") as file:
            known = BEGINNINGS.match(file.read(8))
        found = f"expected one of {FORMATS}, found {os.path.getsize(path)} bytes, {error.strerror}"
        if known:
            raise ValueError(f"{path} is damaged or cut off: {found}") from None
        hint = f"convert a video of another kind by: ffmpeg -i '{path}' out.mp4"
        raise ValueError(f"{path} is no video of a kind that is read here: {found}; {hint}") from None


def promised_seconds(tracks: Sequence[av.stream.Stream], origin: Fraction) -> float:
    """The seconds that these tracks last, as their file itself says; 0 where it does not say."""
    container, ends = tracks[0].container, []
    for track in tracks:
        if track.duration:
            ends.append((track.duration + max(0, track.start_time or 0)) * track.time_base)
        elif found := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", track.metadata.get("DURATION", "")):  # Matroska's
            ends.append(sum(Fraction(part) * unit for part, unit in zip(found.groups(), (3600, 60, 1))))
    whole = [Fraction(container.duration, av.time_base)] if container.duration else []
    if not ends and len(container.streams) > len(tracks):
        return 0  # the whole may be as long as another track
    return max(0, float(min([*whole, max(ends)] if ends else whole, default=0) - origin))


def decode_pictures(path: str | Path, threads: int = 0) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    """Every (time, frame) in order. Times are Fractions of seconds from the file's start; so are pts, which always rise.

    Args:
        threads: that decode; 0 takes as many as there are cores.
    """
    with open_track(path, "video") as (track, origin):
        track.thread_type, track.codec_context.thread_count = "AUTO", threads
        shift, last = round(origin / track.time_base), -1
        for frame in track.container.decode(track):
            before, frame.pts = last, max(last + 1, (frame.pts or 0) - shift)
            last = frame.pts
            _refuse_jump(path, before * frame.time_base, last * frame.time_base)
            yield last * frame.time_base, frame


def _refuse_jump(path, before, after):
    if after - before > DAY:
        raise ValueError(f"{path} is damaged: its time jumps from {float(before):.2f} s to {float(after):.2f} s")


def upright_pixels(frame: av.VideoFrame, width: int, height: int, scaler: VideoReformatter) -> np.ndarray:
    """A frame as RGB uint8 [H, W, 3], scaled to width x height as stored, then turned upright as its display matrix says.

    HDR and other BT.2020 colours become BT.709: white at 203 cd/m2, as BT.2408 has it, and what is brighter is white too.

    scaler: a VideoReformatter kept from frame to frame; a frame's own would start threads anew for each.
    """
    for tag in ("colorspace", "color_primaries"):
        if getattr(frame, tag) == 3:  # reserved, which swscale refuses: unspecified
            setattr(frame, tag, 2)
    colours = {"dst_color_trc": "BT709", "dst_color_primaries": "BT709"} if frame.color_trc in BT2020 else {}
    image = scaler.reformat(frame, width, height, "rgb24", threads=1, **colours).to_ndarray()
    if (matrix := frame.side_data.get("DISPLAYMATRIX")) is not None:
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5]  # stored (x, y) is shown at (a x + c y, b x + d y)
        if abs(b) > abs(a):
            image, a, d = image.transpose(1, 0, 2), c, b
        image = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return image


def sample_pictures(
    path: str | Path, size: int, rate: Fraction | int, at: Fraction = Fraction(1, 2)
) -> Iterator[np.ndarray]:
    """One frame [size, size, 3] for every interval of 1 / rate seconds: the one shown when the share `at` of it has passed.

    At the ends of the video it is the nearest frame.
    """
    index, shown, scaler = 0, None, VideoReformatter()
    for time, frame in decode_pictures(path):
        while (index + at) / rate < time:
            yield upright_pixels(shown or frame, size, size, scaler)
            index += 1
        shown = frame
    while shown and index <= time * rate:
        yield upright_pixels(shown, size, size, scaler)
        index += 1


def is_stereo(path: str | Path) -> bool:
    """Whether any of the sound has more than one channel; what a file declares holds for its beginning alone."""
    with open_track(path, "audio") as (track, _):
        return track is not None and any(frame.layout.nb_channels > 1 for frame in track.container.decode(track))


def _resampled(frames, rate):
    """Sound frames of one layout and rate as float32 at another, mono or stereo."""
    resampler = None
    for frame in frames:
        resampler = resampler or av.AudioResampler("fltp", "mono" if frame.layout.nb_channels == 1 else "stereo", rate)
        yield from resampler.resample(frame)
    yield from filter(None, resampler.resample(None))


def decode_sound(path: str | Path, rate: int) -> Iterator[np.ndarray]:
    """The sound as blocks [2, N] float32 from the file's start on, or no block where the file has no sound.

    Gaps are filled with silence. One channel is given twice and more than two are mixed, even if their number changes.
    """
    with open_track(path, "audio") as (track, origin):
        place, frames = 0, track.container.decode(track) if track else ()
        for _, alike in itertools.groupby(frames, lambda f: (f.format.name, f.layout.name, f.sample_rate)):
            for frame in _resampled(alike, rate):
                block = np.broadcast_to(frame.to_ndarray(), (2, frame.samples))
                start = place if frame.pts is None else round((frame.pts * frame.time_base - origin) * rate)
                if not (loudest := np.abs(block).max(initial=0)) <= LOUDEST:  # nor is NaN
                    raise ValueError(f"{path} holds samples up to {loudest:.3g} at {place / rate:.2f} s, expected -1 to 1")
                if abs(start - place) > rate // 50:  # 20 ms: a gap or an overlap, not a rounded time
                    _refuse_jump(path, place / rate, start / rate)
                    for gap in range(place, start, rate):
                        yield np.zeros((2, min(rate, start - gap)), np.float32)
                    block, place = block[:, max(0, place - start) :], max(place, start)
                place += block.shape[1]
                if block.shape[1]:
                    yield block


def mixed(sound: np.ndarray) -> np.ndarray:
    """Two channels [2, N] as one [N]: their mean, or the louder where they cancel out, the mean 20 dB below it."""
    mean, louder = sound.mean(0), max(sound, key=lambda channel: np.square(channel).sum())
    return mean if np.square(mean).sum() >= 0.01 * np.square(louder).sum() else louder
