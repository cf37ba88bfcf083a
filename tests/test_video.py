"""Videos made with PyAV, marked by a stub that answers a question whose answer is known: bright pixels while it is loud."""

import json
import subprocess
import sys
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from pcma_lib.data.clip import MEAN, STD
from pcma_lib.data.media import upright_pixels
from pcma_lib.network.audio import EXAMPLE_SECONDS, LogMel
from pcma_lib.use.model import AudioVisualModel
from pcma_lib.video import clips, main, mark_video

HERE = Path(__file__).parent
WEBM = dict(codec="libvpx-vp9", sound="libopus", rate=48000)


class BrightWhileLoud(torch.nn.Module):
    def forward(self, frames, log_mel):
        loud = log_mel.amax((-1, -2), keepdim=True) > 0
        bright = frames.mean(2, keepdim=True) > 1.5
        return SimpleNamespace(finest=torch.where(loud & bright, 8.0, -8.0))


def picture(index, size):
    """Dark grey, a red corner at the top left, a white square that moves right."""
    width, height = size
    image = np.full((height, width, 3), 40, np.uint8)
    image[:12, :16] = (255, 0, 0)
    left = 2 * index % (width - 16)
    image[height - 20 : height - 4, left : left + 16] = 250
    return image


def tone(seconds, rate, channels, hertz=440.0, start=1.0):
    time = np.arange(round(seconds * rate)) / rate
    wave = np.zeros((channels, len(time)), np.float32)
    wave[:2] = 0.5 * np.sin(2 * np.pi * hertz * time) * (time >= start)
    return wave


def make(
    path, seconds=3, fps=25, size=(64, 48), codec="libx264", sound="aac", rate=44100, layout="stereo",
    rotation=None, pts=None, draw=picture, wave=None, delay=0.0, faststart=False, third=None, late=0, options=None,
):  # fmt: skip
    tick = Fraction(1, 90) if pts else Fraction(1, fps)
    pts = pts or range(round(late * fps), round((late + seconds) * fps))
    options = options or ({"movflags": "+faststart"} if faststart else {})
    with av.open(f"file:{path}", "w", options=options) as out:
        fast = {"deadline": "realtime", "cpu-used": "8"} if codec and "vpx" in codec else {}
        screen = out.add_stream(codec, rate=fps, options=fast) if codec else None
        speaker = out.add_stream(sound, rate=rate, layout=layout) if sound else None
        if third == "timecode":
            screen.metadata["timecode"] = "01:00:00:00"
        other = add_third(out, third)
        if screen:
            screen.width, screen.height = size
            screen.codec_context.time_base = tick
            if rotation:
                screen.set_display_rotation(rotation)
            for index, when in enumerate(pts):
                frame = av.VideoFrame.from_ndarray(draw(index, size)).reformat(format="yuv420p")
                frame.pts, frame.time_base = when, tick
                out.mux(screen.encode(frame))
            out.mux(screen.encode(None))
        if speaker:
            wave = tone(seconds, rate, speaker.layout.nb_channels) if wave is None else wave
            for start in range(0, wave.shape[1], 1000):
                block = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[:, start : start + 1000]), "fltp", layout)
                block.sample_rate, block.time_base, block.pts = rate, Fraction(1, rate), start + round((late + delay) * rate)
                out.mux(speaker.encode(block))
            out.mux(speaker.encode(None))
        out.mux(other)
    return path


def add_third(out, kind):
    """One more track beside picture and first sound; returns its packets, to be muxed in the end."""
    if kind == "subtitles":
        with av.open(BytesIO(b"1\n00:00:00,500 --> 00:00:09,000\nhello\n"), format="srt") as file:
            track, packets = out.add_stream_from_template(file.streams[0]), [p for p in file.demux() if p.size]
        for packet in packets:
            packet.stream = track
        return packets
    if kind == "cover":
        track = out.add_stream("mjpeg", rate=1)
        track.width, track.height, track.pix_fmt, track.disposition = 32, 32, "yuvj420p", Disposition.attached_pic
        return track.encode(av.VideoFrame(32, 32, "yuvj420p")) + track.encode(None)
    if kind == "sound":
        track = out.add_stream("aac", rate=48000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), "fltp", "mono")
        block.sample_rate = 48000
        return track.encode(block) + track.encode(None)
    if kind == "attachment":
        out.add_attachment("font.txt", "text/plain", b"text")
    return []


def clicks(times, seconds, rate, channels=1):
    """Silence with a burst of 4 ms and 2 kHz at each time."""
    wave = np.zeros((channels, round(seconds * rate)), np.float32)
    burst = 0.8 * np.sin(2 * np.pi * 2000 * np.arange(rate // 250) / rate)
    for time in times:
        wave[:, round(time * rate) :][:, : len(burst)] = burst
    return wave


def clicks_heard(wave, rate):
    """Where in a sound [N] bursts start, in seconds; 50 ms of silence are between two."""
    loud = np.flatnonzero(np.abs(wave) > 0.25)
    return (loud[np.diff(loud, prepend=-rate) > rate // 20] / rate).tolist()


def read(path):
    """Times, pictures, sound [channels, N] (or None), its rate, and the seconds the file says it lasts."""
    with av.open(str(path)) as file:
        duration = file.duration / av.time_base
        frames = [(f.pts * f.time_base, f.to_ndarray(format="rgb24")) for f in file.decode(video=0)]
    with av.open(str(path)) as file:
        if not file.streams.audio:
            return [t for t, _ in frames], [p for _, p in frames], None, None, duration
        rate = file.streams.audio[0].rate
        resampler = av.AudioResampler("fltp", None, rate)
        blocks = [r.to_ndarray() for f in file.decode(audio=0) for r in resampler.resample(f)]
    return [t for t, _ in frames], [p for _, p in frames], np.concatenate(blocks, 1), rate, duration


def mark(source, **options):
    target = source.with_name("marked.mp4")
    return mark_video(source, target, BrightWhileLoud(), progress=False, **options), read(target)


def orange(image):
    return (image[..., 0].astype(int) - image[..., 2]) > 25


def loudest_hertz(wave, rate):
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return spectrum.argmax() * rate / len(wave)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("h264.mp4", {}),
        ("vp9.webm", WEBM),
        ("vp8_mono_30.webm", dict(WEBM, codec="libvpx", layout="mono", fps=30)),
        ("mpeg4_pcm.mov", dict(codec="mpeg4", sound="pcm_s16le", rate=22050, layout="mono")),
        ("surround.mp4", dict(layout="5.1", rate=48000)),
        ("low_rate.mp4", dict(layout="mono", rate=11025, fps=12)),
        ("rate_that_aac_lacks.mkv", dict(sound="flac", rate=37800)),
    ],
)
def test_frames_times_sound_and_duration_stay(tmp_path, name, options):
    source = make(tmp_path / name, **options)
    times, pictures, before, before_rate, duration = read(source)
    summary, (new_times, new_pictures, after, rate, new_duration) = mark(source)
    assert new_times == times and summary["frames"] == len(times)
    assert new_pictures[0].shape == pictures[0].shape
    assert new_duration == pytest.approx(duration, abs=0.04)
    assert summary["seconds"] == pytest.approx(3, abs=0.01) and summary["masks"] == 3 and summary["has_sound"]
    assert len(after) == min(2, len(before))
    assert loudest_hertz(after[0, rate:], rate) == pytest.approx(440, abs=1)
    second = np.abs(after[0, : 3 * rate]).reshape(3, -1).mean(1)
    assert second[0] < 0.01 and second[1:].min() > 0.2
    if rate == before_rate:  # the same samples at the same places
        count = min(before.shape[1], after.shape[1], 3 * rate)
        assert np.corrcoef(before[0, :count], after[0, :count])[0, 1] > 0.98


def test_bright_pixels_are_orange_only_while_it_is_loud(tmp_path):
    summary, (times, pictures, *_) = mark(make(tmp_path / "in.mp4", draw=lambda i, size: picture(0, size)), image_size=64)
    inside, outside = (slice(30, 42), slice(2, 14)), (slice(20, 46), slice(24, 64))
    for time, image in zip(times, pictures):
        assert orange(image)[inside].all() == (time >= 1), float(time)
        assert not orange(image)[outside].any()
        assert image[outside].mean() == pytest.approx(0.45 * 40, abs=3)  # dimmed as figures.overlay does
    assert summary["marked"] == pytest.approx(2 / 3 * 256 / (64 * 48), rel=0.35)


def test_masks_follow_sound_within_a_second_with_fps(tmp_path):
    wave = tone(3, 44100, 2, start=1.7)
    source = make(tmp_path / "in.mp4", draw=lambda i, size: picture(0, size), wave=wave)
    summary, (times, pictures, *_) = mark(source, fps=10, image_size=64)
    first = next(t for t, image in zip(times, pictures) if orange(image)[30:42, 2:14].all())
    assert summary["masks"] == 30
    # a frame's window reaches 0.49 s to either side of it
    assert 1.7 - 0.49 - 0.1 <= first <= 1.7 - 0.49 + 0.15


def test_every_mask_is_of_the_frame_in_the_middle_of_its_second(tmp_path):
    source = make(tmp_path / "in.mp4", draw=lambda i, size: np.full((*size[::-1], 3), 3 * i, np.uint8))
    ((frames, wave, times),) = clips(source)
    assert frames.shape == (3, 3, 96, 96) and times == [0.5, 1.5, 2.5]
    seen = ((frames * STD + MEAN) * 255).mean((1, 2, 3))
    assert seen.tolist() == pytest.approx([3 * 12, 3 * 37, 3 * 62], abs=3)


def test_frames_reach_the_model_as_the_dataset_makes_them(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).repeat(32, 0).repeat(32, 1).astype(np.uint8)
    source = make(tmp_path / "in.mp4", 1, draw=lambda i, size: noise, size=(256, 192))
    image = torch.from_numpy(read(source)[1][12]).permute(2, 0, 1)[None].float() / 255
    expected = torch.nn.functional.interpolate(image, (96, 96), mode="bilinear", antialias=True)[0]
    frames = next(clips(source))[0][0] * STD + MEAN
    assert (frames - expected).abs().mean() < 0.01


def test_clips_hold_the_sound_that_training_would_give_them(tmp_path):
    wave = (np.random.default_rng(0).standard_normal((1, 7 * 16000)) * 0.1).astype(np.float32)
    source = make(tmp_path / "in.mkv", 7, fps=5, codec="mpeg4", sound="pcm_f32le", rate=16000, layout="mono", wave=wave)
    first, second = clips(source)
    np.testing.assert_allclose(first[1], wave[0, : 5 * 16000], atol=1e-6)
    np.testing.assert_allclose(second[1], wave[0, 5 * 16000 :], atol=1e-6)
    assert [len(first[0]), len(second[0])] == [5, 2] and second[2] == [5.5, 6.5]
    assert len(LogMel()(first[1])) == 5 and EXAMPLE_SECONDS == 0.96


def test_with_fps_clips_interleave_and_each_frame_is_centred_in_its_sound(tmp_path):
    wave = np.linspace(-0.5, 0.5, 7 * 16000, dtype=np.float32)[None]
    source = make(tmp_path / "in.mkv", 7, fps=5, codec="mpeg4", sound="pcm_f32le", rate=16000, layout="mono", wave=wave)
    found = list(clips(source, fps=2))
    assert [[float(t) for t in times] for _, _, times in found] == [
        [0.25, 1.25, 2.25, 3.25, 4.25], [0.75, 1.75, 2.75, 3.75, 4.75], [5.25, 6.25], [5.75, 6.75],
    ]  # fmt: skip
    padded = np.pad(wave[0], 16000)
    for frames, waves, times in found:
        assert frames.shape == (len(times), 3, 96, 96) and waves.shape == (len(times), 15600)
        for window, time in zip(waves, times):
            start = 16000 + round(time * 16000) - 7800
            np.testing.assert_allclose(window, padded[start : start + 15600], atol=1e-6)


def test_channels_are_averaged_for_the_model(tmp_path):
    wave = np.stack([np.full(32000, 0.6), np.full(32000, 0.2)]).astype(np.float32)
    source = make(tmp_path / "in.mkv", 2, codec="mpeg4", sound="pcm_f32le", rate=16000, wave=wave)
    assert next(clips(source))[1] == pytest.approx(0.4, abs=1e-3)


def test_sound_that_starts_late_stays_late(tmp_path):
    source = make(tmp_path / "in.mkv", sound="pcm_s16le", wave=tone(2, 44100, 2, start=0), delay=1.0)
    wave = next(clips(source))[1].reshape(3, 16000)
    assert np.abs(wave).mean(1) == pytest.approx([0, 0.318, 0.318], abs=0.01)  # 2 / pi of the amplitude 0.5
    _, (_, _, after, rate, _) = mark(source)
    assert np.abs(after[0, : 3 * rate]).reshape(3, -1).mean(1) == pytest.approx([0, 0.318, 0.318], abs=0.01)


def test_a_variable_frame_rate_keeps_its_times(tmp_path):
    pts = [0, 1, 5, 30, 31, 60, 100, 181, 240, 262]
    source = make(tmp_path / "in.mp4", pts=pts)
    summary, (times, pictures, *_) = mark(source)
    assert times == [Fraction(p, 90) for p in pts]
    assert summary["masks"] == 3
    assert [orange(p)[28:44].any() for p in pictures] == [p >= 90 for p in pts]


@pytest.mark.parametrize(("rotation", "corner"), [(90, (-6, 4)), (-90, (4, -6)), (180, (-6, -6)), (None, (4, 4))])
def test_rotation_is_applied_to_the_pixels(tmp_path, rotation, corner):
    """Counter-clockwise by 90 degrees the top left corner comes to the bottom left."""
    summary, (_, pictures, *_) = mark(make(tmp_path / "in.mov", 1, rotation=rotation))
    upright = (48, 64) if rotation in (None, 180) else (64, 48)
    assert pictures[0].shape[:2] == upright == (summary["height"], summary["width"])
    reds = {c: pictures[3][c][0] > 80 > 3 * pictures[3][c][1] for c in ((4, 4), (4, -6), (-6, 4), (-6, -6))}
    assert [c for c, red in reds.items() if red] == [corner]


def test_odd_sizes_repeat_their_last_row_and_column(tmp_path):
    summary, (_, pictures, *_) = mark(make(tmp_path / "in.mkv", 1, size=(65, 49), codec="ffv1"))
    assert (summary["width"], summary["height"]) == (65, 49) and pictures[0].shape == (50, 66, 3)
    assert np.abs(pictures[0][:, -1].astype(int) - pictures[0][:, -2]).max() < 12


def test_side_by_side_shows_original_probability_and_confidence(tmp_path):
    source = make(tmp_path / "in.mp4", 2, draw=lambda i, size: picture(0, size))
    original = read(source)[1][40].astype(int)
    _, (_, pictures, *_) = mark(source, side_by_side=True, image_size=64)
    left, heat, sure = np.split(pictures[40].astype(int), 3, axis=1)
    assert np.abs(left - original).mean() < 4
    assert heat[34:38, 6:10].mean() > 190 and heat[4:20, 30:60].mean() < 10
    assert (sure[4:20, 30:60].mean((0, 1)) > (200, 200, 0)).all()


def test_a_video_without_sound_is_silent_and_says_so(tmp_path):
    summary, (times, pictures, sound, *_) = mark(make(tmp_path / "in.mp4", sound=None))
    assert sound is None and not summary["has_sound"] and "no sound" in summary["warning"]
    assert summary["marked"] == 0 and len(times) == 75


def test_classes_but_the_background_are_marked(tmp_path):
    class Classes(torch.nn.Module):
        def forward(self, frames, log_mel):
            logits = torch.zeros(*frames.shape[:2], 3, *frames.shape[-2:])
            logits[:, :, 0, :, : frames.shape[-1] // 2] = 9  # the left half is background
            return SimpleNamespace(finest=logits)

    source = make(tmp_path / "in.mp4", 1)
    summary = mark_video(source, tmp_path / "out.mp4", Classes(), progress=False)
    assert summary["marked"] == pytest.approx(0.5, abs=0.03)


def test_the_real_model_marks_a_video_and_is_left_as_it_was(tmp_path):
    settings = dict(backbone="resnet10t", stages=(8, 8, 16, 16), channels=16, groups=2, heads=2, vggish_width=0.03)
    model = AudioVisualModel(**settings).train()
    summary = mark_video(make(tmp_path / "in.mp4", 2), tmp_path / "out.mp4", model, 64, fps=2, progress=False)
    assert summary["masks"] == 4 and 0 <= summary["marked"] <= 1 and model.training


CLICKS = [0.2, 0.9, 1.0, 1.55, 2.3, 2.9]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timecode.mov", dict(third="timecode")),
        ("cover.mp4", dict(third="cover")),
        ("second_sound.mp4", dict(third="sound")),
        ("subtitles.mkv", dict(third="subtitles")),
        ("font.mkv", dict(third="attachment")),
        ("no_duration.mkv", dict(options={"live": "1"})),
        ("no_duration.webm", dict(WEBM, options={"live": "1"})),
        ("fragments.mp4", dict(options={"movflags": "frag_keyframe+empty_moov+default_base_moof"})),
        ("tail_of_one_second.mp4", dict(pts=range(0, 180, 6))),
        ("tail_without_duration.mkv", dict(pts=range(0, 180, 6), options={"live": "1"})),
        ("starts_at_5s.mkv", dict(late=5)),
        ("starts_at_5s.mp4", dict(late=5)),
    ],
)
def test_all_of_the_sound_stays_whatever_else_the_file_holds_or_lacks(tmp_path, name, options):
    options = dict(rate=48000, layout="mono") | options
    source = make(tmp_path / name, wave=clicks(CLICKS, 3, 48000), **options)
    summary, (times, _, sound, rate, _) = mark(source, image_size=64)
    expected = np.array(CLICKS) + float(times[0])  # an mp4 may start with what the AAC encoder puts before the sound
    assert clicks_heard(sound[0], rate) == pytest.approx(expected, abs=0.005)
    assert sound.shape[1] / rate == pytest.approx(3 + times[0], abs=0.03)
    assert summary["warning"] is None
    ear = np.concatenate([c[1] for c in clips(source, 64)])
    assert clicks_heard(ear, 16000) == pytest.approx(expected[expected < len(ear) / 16000], abs=0.005)


@pytest.mark.parametrize("third", ["sound", "subtitles"])
def test_a_cut_off_file_with_a_third_track_is_named(tmp_path, third):
    noise = np.random.default_rng(0).integers(0, 256, (75, 48, 64, 3), np.uint8)
    source = truncated(tmp_path / "in.mkv", third=third, draw=lambda i, size: noise[i])
    with pytest.raises(ValueError, match="in.mkv is cut off"):
        mark(source, image_size=64)


def changing(path, parts, seconds=1):
    """A video whose mp3 track has one (rate, channels) after the other, with a click in the middle of each part."""
    with av.open(str(path), "w") as out:
        screen = out.add_stream("mpeg4", rate=10)
        screen.width, screen.height = 64, 48
        rate, channels = parts[0]
        speaker = out.add_stream("mp3", rate=rate, layout=("mono", "stereo")[channels - 1])
        for index in range(10 * seconds * len(parts)):
            out.mux(screen.encode(av.VideoFrame.from_ndarray(picture(index, (64, 48)))))
        out.mux(screen.encode(None))
        for number, (rate, channels) in enumerate(parts):
            codec = av.CodecContext.create("mp3", "w")
            codec.sample_rate, codec.layout, codec.format = rate, ("mono", "stereo")[channels - 1], "fltp"
            codec.bit_rate, codec.time_base = 128000, Fraction(1, rate)
            wave = clicks([seconds / 2], seconds, rate, channels)
            wave[1:] /= 2  # the right channel is softer
            block = av.AudioFrame.from_ndarray(wave, "fltp", codec.layout.name)
            block.sample_rate = rate
            fifo, samples = av.AudioFifo(), 1152 if rate >= 32000 else 576  # a frame of MPEG-1 and of MPEG-2
            fifo.write(block)
            packets = [p for b in fifo.read_many(samples, True) for p in codec.encode(b)] + codec.encode(None)
            for index, packet in enumerate(packets[: seconds * rate // samples]):
                packet.stream, packet.time_base = speaker, Fraction(1, rate)
                packet.pts = packet.dts = number * seconds * rate + index * samples
                out.mux(packet)
    return path


@pytest.mark.parametrize(
    "parts",
    [[(44100, 1), (44100, 2)], [(44100, 2), (44100, 1)], [(44100, 1), (48000, 1), (32000, 1)], [(32000, 2), (48000, 1)]],
)
def test_sound_that_changes_on_the_way_keeps_its_times_and_levels(tmp_path, parts):
    source = changing(tmp_path / "in.mkv", parts)
    _, (_, _, sound, rate, _) = mark(source, image_size=64)
    assert len(sound) == max(channels for _, channels in parts) and rate == parts[0][0]
    # an mp3 encoder puts some 25 ms before the sound, anew in each part
    assert clicks_heard(sound[0], rate) == pytest.approx([n + 0.5 for n in range(len(parts))], abs=0.06)
    for number, (_, channels) in enumerate(parts):
        part = sound[:, round((number + 0.3) * rate) : round((number + 0.8) * rate)]
        expected = [0.8, 0.4] if channels == 2 else [0.8] * len(part)
        assert np.abs(part).max(1) == pytest.approx(expected, rel=0.2)
    ear = np.concatenate([c[1] for c in clips(source, 64)])
    loudest = [np.abs(ear[round((n + 0.3) * 16000) :][:8000]).max() for n in range(len(parts))]
    assert loudest == pytest.approx([0.8 if channels == 1 else 0.6 for _, channels in parts], rel=0.2)


def without_decoder(path, **options):
    content = make(path, sound="flac", **options).read_bytes()
    path.write_bytes(content.replace(b"fLaC\0", b"xxxx\0", 1))
    return path


def test_sound_without_a_decoder_is_silence_with_a_warning(tmp_path):
    summary, (times, _, sound, *_) = mark(without_decoder(tmp_path / "in.mp4"), image_size=64)
    assert len(times) == 75 and sound is None and not summary["has_sound"]
    assert "no sound that can be decoded" in summary["warning"]


def test_the_first_sound_with_a_decoder_is_heard(tmp_path):
    summary, (_, _, sound, rate, _) = mark(without_decoder(tmp_path / "in.mp4", third="sound"), image_size=64)
    assert summary["has_sound"] and len(sound) == 1 and rate == 48000


def test_a_picture_without_a_decoder_is_named(tmp_path):
    content = make(tmp_path / "in.mp4").read_bytes()
    (tmp_path / "in.mp4").write_bytes(content.replace(b"avc1\0", b"xxxx\0"))
    with pytest.raises(ValueError, match="in.mp4 has no video track that can be decoded"):
        mark(tmp_path / "in.mp4")


@pytest.mark.parametrize("name", ["2024-05-01T10:22:33.mp4", "file:in.mp4", "http:in.mp4"])
def test_a_colon_in_a_name_is_part_of_the_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    summary = mark_video(make(Path(name), 1), Path("out:" + name), BrightWhileLoud(), 64, progress=False)
    assert summary["frames"] == 25 and {p.name for p in tmp_path.iterdir()} == {name, "out:" + name}


def test_a_title_that_is_no_unicode_does_no_harm(tmp_path):
    content = make(tmp_path / "in.mp4", 1).read_bytes()
    (tmp_path / "in.mp4").write_bytes(content.replace(b"VideoHandler", b"Vid\xe9oHandler"))
    assert mark(tmp_path / "in.mp4", image_size=64)[0]["frames"] == 25


def test_channels_that_cancel_out_are_heard_by_the_model(tmp_path):
    wave = clicks(CLICKS, 3, 16000, channels=2)
    wave[1] *= -1
    source = make(tmp_path / "in.mkv", codec="mpeg4", sound="pcm_f32le", rate=16000, wave=wave)
    np.testing.assert_allclose(next(clips(source))[1], wave[0], atol=1e-6)
    _, (_, _, sound, rate, _) = mark(source, image_size=64)
    assert clicks_heard(sound[0], rate) == pytest.approx(CLICKS, abs=0.005)
    assert np.abs(sound[0] + sound[1]).max() < 0.1  # in the file written the channels stay what they were


def greys_in_hdr(path, transfer, levels):
    """Vertical bars of these code values (0 to 1) in 10 bits, tagged as BT.2020 with a transfer function."""
    with av.open(str(path), "w") as out:
        screen = out.add_stream("ffv1", rate=5)
        screen.width, screen.height, screen.pix_fmt = 16 * len(levels), 32, "yuv420p10le"
        codec = screen.codec_context
        codec.color_trc, codec.color_primaries, codec.colorspace, codec.color_range = transfer, 9, 9, 1
        for index in range(5):
            frame = av.VideoFrame(screen.width, 32, "yuv420p10le")
            luma = np.tile(np.repeat(64 + 876 * np.array(levels), 16).round().astype("<u2"), (32, 1))
            for plane, values in zip(frame.planes, (luma, np.full((16, 1), 512), np.full((16, 1), 512))):
                padded = np.zeros((plane.height, plane.line_size // 2), "<u2")
                padded[:, : plane.width] = values
                plane.update(padded.tobytes())
            frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = transfer, 9, 9, 1
            frame.pts, frame.time_base = index, Fraction(1, 5)
            out.mux(screen.encode(frame))
        out.mux(screen.encode(None))
    return path


def pq(nits):
    """BT.2100's inverse EOTF."""
    power = (nits / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(light):
    """BT.2100's OETF of scene light from 0 to 1."""
    return (3 * light) ** 0.5 if light <= 1 / 12 else 0.17883277 * np.log(12 * light - 0.28466892) + 0.55991073


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_reaches_the_model_and_the_new_file_as_bt709(tmp_path, transfer):
    """Grey of a share of reference white, 203 cd/m2: a BT.1886 display shows share ** (1 / 2.4) of its range for it."""
    shares = [0.05, 0.18, 0.5, 1.0, 4.0]
    if transfer == 16:
        levels = [pq(203 * share) for share in shares]
    else:  # a display of 1000 cd/m2 makes 1000 E ** 1.2 of E
        levels = [hlg((203 * share / 1000) ** (1 / 1.2)) for share in shares]
    source = greys_in_hdr(tmp_path / "in.mkv", transfer, levels)
    expected = np.minimum(1, np.array(shares)) ** (1 / 2.4)
    seen = (next(clips(source, 160))[0][0] * STD + MEAN)[:, 80, 16::32]
    assert seen.mean(0).tolist() == pytest.approx(expected.tolist(), abs=0.06)
    _, (_, pictures, *_) = mark(source, side_by_side=True, image_size=64)
    assert (pictures[2][16, 8:80:16] / 255).mean(-1) == pytest.approx(expected, abs=0.06)
    with av.open(str(tmp_path / "marked.mp4")) as file:
        frame = next(file.decode(video=0))
        assert (frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range) == (1, 1, 1, 1)


@pytest.mark.parametrize("tag", ["colorspace", "color_primaries"])
def test_reserved_colour_tags_count_as_none(tag):
    frame = av.VideoFrame.from_ndarray(picture(0, (64, 48))).reformat(format="yuv420p")
    frame.color_trc = 14 if tag == "color_primaries" else 2
    expected = upright_pixels(frame, 64, 48, VideoReformatter())
    setattr(frame, tag, 3)
    assert (upright_pixels(frame, 64, 48, VideoReformatter()) == expected).all()


class Named(BrightWhileLoud):
    inputs = {"image_size": 64, "frame_at": 15 / 16, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}

    def forward(self, frames, log_mel):
        self.seen = frames
        return super().forward(frames, log_mel)


def test_the_model_names_its_picture_size_place_and_normalisation(tmp_path):
    source = make(tmp_path / "in.mp4", 2, fps=16, draw=lambda i, size: np.full((*size[::-1], 3), 7 * i, np.uint8))
    model = Named()
    assert mark_video(source, tmp_path / "out.mp4", model, progress=False)["warning"] is None
    assert model.seen.shape[-2:] == (64, 64)
    assert (model.seen.mean((0, 2, 3, 4)) * 255).tolist() == pytest.approx([7 * 15, 7 * 31], abs=3)
    wrapped = torch.nn.Sequential(model)
    wrapped.forward = model.forward
    summary = mark_video(source, tmp_path / "out.mp4", wrapped, 96, fps=1, progress=False)
    assert "96 pixels" in summary["warning"] and "trained with 64" in summary["warning"]
    assert (model.seen.mean((0, 2, 3, 4)) * 255).tolist() == pytest.approx([7 * 8, 7 * 24], abs=3)  # with fps the middle


def test_a_model_that_names_no_picture_size_gets_224_and_a_warning(tmp_path):
    model = Named()
    model.inputs = None
    summary = mark_video(make(tmp_path / "in.mp4", 1, sound=None), tmp_path / "out.mp4", model, progress=False)
    assert model.seen.shape[-2:] == (224, 224)
    assert "no sound: taken as silence. The model" in summary["warning"] and "224" in summary["warning"]


def test_the_place_in_a_second_must_lie_in_it(tmp_path):
    with pytest.raises(ValueError, match="at must be"):
        next(clips(make(tmp_path / "in.mp4", 1), at=1))


@pytest.mark.parametrize(("name", "codec"), [("in.avi", "mpeg4"), ("in.gif", "gif")])
def test_another_container_is_named_with_the_command_that_converts_it(tmp_path, name, codec):
    with av.open(str(tmp_path / name), "w") as out:
        screen = out.add_stream(codec, rate=5)
        screen.width, screen.height, screen.pix_fmt = 64, 48, "rgb8" if codec == "gif" else "yuv420p"
        frame = av.VideoFrame.from_ndarray(picture(0, (64, 48))).reformat(format=screen.pix_fmt)
        out.mux(screen.encode(frame) + screen.encode(None))
    with pytest.raises(ValueError, match="no video of a kind that is read here.*ffmpeg -i") as caught:
        mark(tmp_path / name)
    assert name in str(caught.value) and "damaged" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_sound_that_is_no_sound_is_named(tmp_path, value):
    wave = tone(1, 16000, 1)
    wave[0, 9000] = value
    source = make(tmp_path / "in.mkv", 1, codec="mpeg4", sound="pcm_f32le", rate=16000, layout="mono", wave=wave)
    with pytest.raises(ValueError, match="in.mkv holds samples up to"):
        mark(source)


def truncated(path, share=0.6, **options):
    content = make(path, **options).read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def text(path):
    path.write_text("not a video\n" * 50)
    return path


def empty(path):
    path.touch()
    return path


@pytest.mark.parametrize(
    ("name", "prepare", "message"),
    [
        ("none.mp4", lambda p: p, "no video file"),
        ("text.mp4", text, "no video"),
        ("text.txt", text, "no video"),
        ("empty.mp4", empty, "0 bytes"),
        ("index_lost.mp4", truncated, "cut off"),
        ("index_first.mp4", lambda p: truncated(p, faststart=True), "cut off"),
        ("cut.webm", lambda p: truncated(p, **WEBM), "cut off"),
        ("song.m4a", lambda p: make(p, codec=None), "no video track; found: audio"),
        ("frameless.mkv", lambda p: make(p, seconds=0, codec="ffv1", sound=None), "frame|no video"),
    ],
)
def test_what_is_no_whole_video_is_named_and_nothing_is_left(tmp_path, name, prepare, message):
    source = prepare(tmp_path / name)
    before = set(tmp_path.iterdir())
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        mark(source)
    assert name in str(caught.value) and set(tmp_path.iterdir()) == before


def test_targets_that_cannot_be_are_refused(tmp_path, monkeypatch):
    source = make(tmp_path / "in.mp4", 1)
    (tmp_path / "folder.mp4").mkdir()
    for target, kind, message in (
        (tmp_path / "nowhere" / "out.mp4", FileNotFoundError, "nowhere"),
        (tmp_path / "out.webm", ValueError, "ending in .mp4"),
        (tmp_path / "folder.mp4", ValueError, "folder"),
        (source, ValueError, "source itself"),
    ):
        with pytest.raises(kind, match=message):
            mark_video(source, target, BrightWhileLoud(), progress=False)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ValueError, match="read-only"):
        mark_video(source, tmp_path / "out.mp4", BrightWhileLoud(), progress=False)
    assert {p.name for p in tmp_path.iterdir()} == {"in.mp4", "folder.mp4"}


@pytest.mark.parametrize(
    "options",
    [{"image_size": 100}, {"image_size": 0}, {"fps": 0}, {"fps": -1}, {"seconds": 0}, {"seconds": 1.5}, {"threshold": 1}],
)
def test_settings_out_of_range_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        mark(make(tmp_path / "in.mp4", 1), **options)


def test_pictures_too_wide_for_h264_are_refused(tmp_path):
    black = np.zeros((16, 5600, 3), np.uint8)
    source = make(tmp_path / "in.mkv", 1, fps=1, size=(5600, 16), codec="ffv1", sound=None, draw=lambda i, size: black)
    with pytest.raises(ValueError, match="16800 x 16"):
        mark(source, side_by_side=True)
    assert mark(source)[0]["width"] == 5600


def test_a_failing_model_leaves_the_old_file_and_no_other(tmp_path):
    class Failing(torch.nn.Module):
        def forward(self, frames, log_mel):
            raise RuntimeError("out of memory")

    source, target = make(tmp_path / "in.mp4", 1), tmp_path / "out.mp4"
    target.write_text("the old file")
    with pytest.raises(RuntimeError, match="out of memory"):
        mark_video(source, target, Failing(), progress=False)
    assert {p.name for p in tmp_path.iterdir()} == {"in.mp4", "out.mp4"} and target.read_text() == "the old file"


def test_the_command_prints_a_summary_or_an_error(tmp_path, capsys):
    source, checkpoint = make(tmp_path / "in.mp4", 1), tmp_path / "model.safetensors"
    settings = dict(backbone="resnet10t", stages=(8, 8, 16, 16), channels=16, groups=2, heads=2, vggish_width=0.03)
    model = AudioVisualModel(**settings)
    model.inputs["image_size"] = 64
    model.save(checkpoint)
    main([str(source), str(tmp_path / "out.mp4"), "--checkpoint", str(checkpoint), "--side-by-side"])
    assert json.loads(capsys.readouterr().out)["frames"] == 25
    main([str(source), str(tmp_path / "gated.mp4"), "--checkpoint", str(checkpoint), "--gated"])
    assert json.loads(capsys.readouterr().out)["frames"] == 25
    command = [sys.executable, "-m", "pcma_lib.video", tmp_path / "none.mp4", "out.mp4", "--checkpoint", checkpoint]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.startswith("error: ") and "none.mp4" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.slow
def test_ten_minutes_need_no_more_memory_than_one(tmp_path):
    script = (
        "import re, sys; from test_video import *; torch.set_num_threads(1)\n"
        "mark_video(sys.argv[1], sys.argv[2], BrightWhileLoud(), fps=2, progress=False)\n"
        # not ru_maxrss, which a new process takes over from the one that started it
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024)"
    )
    peaks = []
    for minutes in (1, 10):
        source = make(tmp_path / f"{minutes}.mp4", 60 * minutes, fps=5, size=(320, 240), codec="mpeg4", rate=16000)
        command = [sys.executable, "-c", script, source, tmp_path / "out.mp4"]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE).stdout))
    # the frames of nine more minutes are 300 MiB even as YUV; what the allocator keeps differs by about 50
    assert peaks[1] < peaks[0] + 100, f"MiB for 1 and 10 minutes: {peaks}"
