"""The pictures and the sound of a video file, decoded as they are asked for."""

import itertools
import os
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter

FORMATS = "mov,mp4,matroska,webm"  # FFmpeg's names; no playlists, which lead to other files


@contextmanager
def open_track(path, kind):
    """The first track of a kind, None where there is no sound, and the second at which the file starts."""
    try:
        with av.open(str(path), options={"format_whitelist": FORMATS, "protocol_whitelist": "file"}) as container:
            tracks = [s for s in container.streams if not s.disposition & s.disposition.attached_pic]  # a cover is no video
            track = next((s for s in tracks if s.type == kind), None)
            if track is None and kind == "video":
                raise ValueError(f"{path} has no video track; found: {', '.join(s.type for s in tracks) or 'none'}")
            yield track, Fraction(max(0, container.start_time or 0), av.time_base)
    except av.FFmpegError as error:
        found = f"{os.path.getsize(path)} bytes, {error.strerror}"
        raise ValueError(f"{path} is damaged, cut off or no video: expected one of {FORMATS}, found {found}") from None


def decode_pictures(path):
    """(time, frame) in order, the time a Fraction of seconds from the file's start; pts count alike and rise strictly."""
    with open_track(path, "video") as (track, origin):
        track.thread_type = "AUTO"
        shift, last = round(origin / track.time_base), -1
        for frame in track.container.decode(track):
            frame.pts = last = max(last + 1, (frame.pts or 0) - shift)
            yield frame.pts * frame.time_base, frame


def upright_pixels(frame, width, height, scaler):
    """A frame as RGB uint8, brought to width x height as stored, then upright as its display matrix says.

    scaler: a VideoReformatter kept from frame to frame; a frame's own would start threads anew for each.
    """
    image = scaler.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
    if (matrix := frame.side_data.get("DISPLAYMATRIX")) is not None:
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5]  # stored (x, y) is shown at (a x + c y, b x + d y)
        if abs(b) > abs(a):
            image, a, d = image.transpose(1, 0, 2), c, b
        image = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return image


def sample_pictures(path, size, rate):
    """For every interval of 1 / rate seconds the frame shown in its middle (at the ends the nearest), [size, size, 3]."""
    index, shown, scaler = 0, None, VideoReformatter()
    for time, frame in decode_pictures(path):
        while (index + Fraction(1, 2)) / rate < time:
            yield upright_pixels(shown or frame, size, size, scaler)
            index += 1
        shown = frame
    while shown and index <= time * rate:
        yield upright_pixels(shown, size, size, scaler)
        index += 1


def decode_sound(path, rate):
    """The sound as blocks [1 or 2, N] float32 from the file's start on, gaps filled with silence; none without a track."""
    with open_track(path, "audio") as (track, origin):
        if track is None:
            return
        resampler, place = av.AudioResampler("fltp", "mono" if track.channels == 1 else "stereo", rate), 0
        frames = itertools.chain(track.container.decode(track), [None])
        for frame in filter(None, itertools.chain.from_iterable(map(resampler.resample, frames))):
            block, start = frame.to_ndarray(), round((frame.pts * frame.time_base - origin) * rate)
            if abs(start - place) > rate // 50:  # 20 ms: a gap or an overlap, not a rounded time
                for gap in range(place, start, rate):
                    yield np.zeros((len(block), min(rate, start - gap)), np.float32)
                block, place = block[:, max(0, place - start) :], max(place, start)
            place += block.shape[1]
            if block.shape[1]:
                yield block
