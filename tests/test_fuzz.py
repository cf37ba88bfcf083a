"""Damaged and random files: each is read with the right shapes, types and ranges, or refused by an error that names it.

PCMA_FUZZ_SECONDS=300 python -m pytest tests/test_fuzz.py -s    not a few fixed examples, but new ones, five minutes a reader
"""

import dataclasses
import io
import json
import os
import shutil
import signal
import struct
import time
import warnings
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as tensors_as_bytes
from test_video import BrightWhileLoud, changing, clicks, clicks_heard, make, read

from pcma_lib import AVSS, MS3, S4, AudioVisualModel
from pcma_lib.data.controls import remix, silent_objects
from pcma_lib.data.files import read_frame, read_mask, read_wave
from pcma_lib.training.config import PRESETS, TrainConfig
from pcma_lib.training.run_files import Run
from pcma_lib.use.checkpoints import load_tensors, read_settings
from pcma_lib.video import clips, mark_video

SECONDS = float(os.environ.get("PCMA_FUZZ_SECONDS", 0))
PATIENCE = 20  # seconds for one file
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([0, 1, 2, 1e9, 2**70]) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


class Hangs(Exception):
    pass


def _hangs(*_):
    raise Hangs(f"more than {PATIENCE} s")


def fuzz(strategy, check, examples):
    """Runs `check` on examples: so many, always the same, or new ones for PCMA_FUZZ_SECONDS."""
    began, count, number = time.monotonic(), 0, 0
    options = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))

    def counted(value):
        nonlocal count
        count += 1
        signal.alarm(PATIENCE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check(value)
        signal.alarm(0)

    before = signal.signal(signal.SIGALRM, _hangs)
    try:
        while not number or time.monotonic() - began < SECONDS:
            number += 1
            draws = settings(max_examples=200 if SECONDS else examples, **options)
            seed(time.time_ns() if SECONDS else 0)(draws(given(strategy)(counted)))()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    print(f"{count} examples in {time.monotonic() - began:.0f} s")


@contextmanager
def named(*names):
    """What is raised inside must be an error that names one of these."""
    try:
        yield
    except (ValueError, OSError) as error:
        assert any(str(name) in str(error) for name in names), f"{type(error).__name__} names none of {names}: {error}"


@st.composite
def damaged(draw, *whole):
    """One of these files with some bytes overwritten, put in, cut out or cut off; or other bytes."""
    content = draw(st.sampled_from(whole))
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.one_of(st.integers(0, min(len(content), 120)), st.integers(0, len(content))))
        new = draw(st.sampled_from([b"\0", b"\xff", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 8]) | st.binary(max_size=6))
        dropped = draw(st.sampled_from([len(new), len(new), len(new), 0, 1, 50, len(content)]))
        content = content[:place] + new + content[place + dropped :]
    return content


def with_checksums(png):
    """The same chunks with checksums that are right, so that a reader goes on to what they hold."""
    parts, place = [png[:8]], 8
    while place + 12 <= len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        body = png[place + 4 : place + 8 + length]
        parts.append(png[place : place + 4] + body + struct.pack(">I", zlib.crc32(body)))
        place += 12 + length
    return b"".join(parts)


def pictures():
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    rgb = np.stack([grey, grey.T.reshape(6, 8), grey], -1)
    palette = Image.fromarray(grey % 3, "P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    images = [Image.fromarray(rgb), Image.fromarray(grey), palette, Image.fromarray(grey > 99)]
    images += [Image.fromarray(grey.astype(np.uint16) * 200), Image.fromarray(rgb).convert("RGBA")]
    images += [Image.merge("LA", [Image.new("L", (8, 6), 255), Image.fromarray(grey)]), palette.copy()]
    images[-1].info["transparency"] = 0
    files = [(image, "PNG") for image in images]
    files += [(image, "JPEG") for image in (images[0], images[1], images[0].convert("CMYK"))]
    for image, kind in files:
        image.save(buffer := io.BytesIO(), kind)
        yield buffer.getvalue()


def test_pictures_and_masks(tmp_path):
    path = tmp_path / "k.png"

    def check(example):
        content, repaired = example
        path.write_bytes(with_checksums(content) if repaired else content)
        with named(path):
            frame = read_frame(path)
            assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 and frame.size
        for classes in (None, 3):
            with named(path):
                mask = read_mask(path, classes)
                assert mask.dtype == np.uint8 and mask.ndim == 2 and mask.size and mask.max() < (classes or 2)

    fuzz(st.tuples(damaged(*pictures()), st.booleans()), check, 300)


def sounds():
    tone = 0.3 * np.sin(np.arange(4000) / 5)
    for rate, channels, kind, subtype in [
        (16000, 1, "WAV", "PCM_16"), (44100, 2, "WAV", "FLOAT"), (8000, 1, "WAV", "IMA_ADPCM"), (22050, 1, "FLAC", "PCM_16"),
        (16000, 2, "OGG", "VORBIS"), (16000, 3, "WAVEX", "PCM_24"), (16000, 1, "AIFF", "PCM_16"), (16000, 1, "MP3", None),
    ]:  # fmt: skip
        soundfile.write(buffer := io.BytesIO(), np.stack([tone] * channels, 1), rate, subtype, format=kind)
        yield buffer.getvalue()


def test_sounds(tmp_path):
    path = tmp_path / "audio.wav"

    def check(content):
        path.write_bytes(content)
        for seconds, channels in ((1, False), (None, True)):
            with named(path):
                wave = read_wave(path, seconds, channels)
                assert wave.dtype == np.float32 and wave.ndim == 1 + channels and np.isfinite(wave).all()
                assert seconds is None or len(wave) == 16000
                assert np.abs(wave).max(initial=0) < 1000

    fuzz(damaged(*sounds()), check, 150)


INDEX = b"vid,uid,s_min,s_max,a_obj,split,label\na,a,0,5,dog,train,v1m\nb,b,0,5,none,train,v1s\n"
OBJECT_INDEX = b'name,category,split\n"a",dog,train\nb,cat,train\n'
MS3_INDEX = b'\xef\xbb\xbfsplit,"video_id"\r\ntrain,"a"\r\ntrain,b\r\n'


def test_indices(tmp_path):
    (tmp_path / "label2idx.json").write_text('{"background": 0, "dog": 1}')

    def check(example):
        kind, content = example
        path = tmp_path / kind.index_file
        path.write_bytes(content)
        with named(path):
            data = kind(tmp_path, "train")
            for index, row in enumerate(data.rows):
                with named(path, tmp_path):
                    frames, masks, sound = data.paths(row)
                    assert len(frames) == len(masks) and sound.is_relative_to(tmp_path)
                    assert isinstance(data.name(index), str) and isinstance(data.category(index), str)

    odd = st.text(max_size=300) | st.sampled_from(["../..", "/etc", "a" * 300, "\0", "~", "\ud7ff", '"', "\ufeff", "a/../b"])
    fields = st.lists(st.lists(odd | st.sampled_from(["train", "v1m", "dog"]), max_size=8).map(",".join), max_size=4)
    random_rows = fields.map(lambda rows: INDEX + "\n".join(rows).encode())
    examples = st.tuples(st.just(AVSS), damaged(INDEX) | random_rows) | st.tuples(
        st.sampled_from([S4, MS3]),
        damaged(OBJECT_INDEX, MS3_INDEX) | fields.map(lambda rows: OBJECT_INDEX + "\n".join(rows).encode()),
    )
    fuzz(examples, check, 120)


@st.composite
def changed(draw, value):
    """Some parts of a JSON value replaced by others or left out."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 2))):
        inner = value
        while isinstance(inner, dict | list) and inner:
            key = draw(st.sampled_from(list(inner) if isinstance(inner, dict) else range(len(inner))))
            if not isinstance(inner[key], dict | list) or draw(st.booleans()):
                if draw(st.integers(0, 3)):
                    inner[key] = draw(JSON)
                else:
                    del inner[key]
                break
            inner = inner[key]
    return value


@pytest.mark.parametrize("name", ["objects.json", "label2idx.json"])
def test_descriptions_of_composed_data(demo, tmp_path, name):
    uid = "demo_train_00000"
    shutil.copytree(demo / "v1m" / uid, tmp_path / "v1m" / uid)
    for file in ("label2idx.json", "metadata.csv"):
        shutil.copy(demo / file, tmp_path / file)
    path = next(tmp_path.rglob(name))
    valid = path.read_bytes()

    def check(content):
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        with named(path, path.with_name("objects.json"), "objects.wav", "objects/0.png", uid):
            data = AVSS(tmp_path, "train", semantic=True)
            raw = data.raw(0)
            assert raw.instances.max() <= len(raw.objects) == len(raw.object_waves)
            wave, masks = remix(raw, data.classes, np.random.default_rng(0))
            assert masks.dtype == np.uint8 and masks.max() < len(data.classes) and len(wave) == 80000
            assert all(raw.objects[i]["class"] in data.classes for i in silent_objects(raw))

    fuzz(damaged(valid) | changed(json.loads(valid)) | JSON, check, 100)


TINY = dict(backbone="resnet10t", stages=[8, 8, 8, 8], channels=8, groups=2, heads=2, vggish_width=0.03)


@pytest.fixture(scope="module")
def checkpoint():
    model = AudioVisualModel(**TINY)
    return {k: v.contiguous() for k, v in model.state_dict().items()}, model.settings


def test_headers_of_checkpoints(tmp_path):
    path = tmp_path / "m.safetensors"
    metadata = {"settings": json.dumps(TINY), "metrics": "{}"}
    whole = tensors_as_bytes({"a": torch.zeros(3, 2), "b": torch.ones(4, dtype=torch.float16)}, metadata)
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])

    def with_header(content):
        text = json.dumps(content).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + length :]

    def check(content):
        path.write_bytes(content)
        with named(path):
            assert all(isinstance(v, torch.Tensor) for v in load_tensors(path).values())
        with named(path):
            assert isinstance(read_settings(path)[0], dict)
        with named(path):
            AudioVisualModel.load(path)
            pytest.fail("two tensors are no model")

    fuzz(damaged(whole) | changed(header).map(with_header), check, 100)


def test_settings_in_checkpoints(tmp_path, checkpoint):
    path, (state, valid) = tmp_path / "m.safetensors", checkpoint

    def check(content):
        path.write_bytes(tensors_as_bytes(state, {"settings": json.dumps(content), "metrics": "{}"}))
        with named(path):
            model = AudioVisualModel.load(path)
            assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in state.items()}

    more = st.fixed_dictionaries({}, optional={k: JSON for k in ("pretrained", "network", "without", "as_released", "x")})
    fuzz(changed(valid) | JSON | more.map(lambda m: {**valid, **m}), check, 12)


def test_old_style_checkpoints_and_resume_states(tmp_path):
    path = tmp_path / "resume.pt"
    state = {"config": TrainConfig.preset("quick").to_dict(), "step": 1, "best": None, "seconds": 0.5, "rows": []}
    state |= {"model": {"a": torch.zeros(3)}, "optimizer": {"state": {}}, "scheduler": {}, "rng": torch.get_rng_state()[:64]}
    torch.save({**state, "validations": []}, buffer := io.BytesIO())

    def check(content):
        path.write_bytes(content)
        with named(path):
            assert Run(tmp_path, main=True).load().keys() >= state.keys()
        with named(path):
            load_tensors(path)

    fuzz(damaged(buffer.getvalue()), check, 100)


def test_settings_of_a_run():
    fields = [f.name for f in dataclasses.fields(TrainConfig)]

    def check(example):
        preset, changes = example
        with named(*changes):
            config = TrainConfig.preset(preset, **changes)
            assert TrainConfig(**json.loads(json.dumps(config.to_dict()))) == config
            config.model_settings()

    changes = st.dictionaries(st.sampled_from(fields) | st.text(max_size=4), JSON, min_size=1, max_size=2)
    fuzz(st.tuples(st.sampled_from(sorted(PRESETS)), changes), check, 200)


def test_damaged_videos(tmp_path):
    options = dict(seconds=1, fps=10, rate=16000, layout="mono")
    webm = dict(options, codec="libvpx-vp9", sound="libopus", rate=48000)
    whole = [make(tmp_path / "a.mp4", **options), make(tmp_path / "b.mov", **options, codec="mpeg4", third="timecode")]
    whole += [make(tmp_path / "c.webm", **webm), make(tmp_path / "d.mkv", **options, sound="pcm_f32le", third="subtitles")]
    whole += [make(tmp_path / "e.mp4", **options, third="cover"), changing(tmp_path / "f.mkv", [(44100, 1), (32000, 2)])]
    path, target = tmp_path / "in.mp4", tmp_path / "out.mp4"

    def check(content):
        path.write_bytes(content)
        target.unlink(missing_ok=True)
        with named(path):
            summary = mark_video(path, target, BrightWhileLoud(), 32, progress=False)
            times, _, sound, *_ = read(target)
            assert summary["frames"] == len(times) and summary["has_sound"] == (sound is not None)
        assert not list(tmp_path.glob("*.part*")) and target.exists() == ("summary" in locals())

    fuzz(damaged(*(p.read_bytes() for p in whole)), check, 40)


CONTAINERS = {  # what each takes: (codec, sound, rate), a third track, options that leave the duration out
    "mp4": (("libx264", "aac", 44100), ("cover", "sound"), {"movflags": "frag_keyframe+empty_moov"}),
    "mov": (("mpeg4", "pcm_s16le", 22050), ("timecode", "sound"), {}),
    "mkv": (("libx264", "flac", 32000), ("subtitles", "attachment", "sound", "cover"), {"live": "1"}),
    "webm": (("libvpx", "libopus", 48000), (), {"live": "1"}),
}


@st.composite
def kinds_of_videos(draw):
    name = draw(st.sampled_from(sorted(CONTAINERS)))
    (codec, sound, rate), thirds, without_duration = CONTAINERS[name]
    third, live = draw(st.sampled_from([None, *thirds])), draw(st.booleans())
    options = dict(
        codec=codec, sound=sound, rate=rate, third=third, options=without_duration if live and not third else None
    )
    options |= dict(layout=draw(st.sampled_from(["mono", "stereo"])), late=draw(st.sampled_from([0, 0, 3])), fps=10)
    options |= dict(delay=draw(st.sampled_from([0, 0, 0.13, 0.7])), seconds=draw(st.sampled_from([1, 2])))
    times = draw(st.lists(st.integers(1, 19), max_size=4, unique=True).map(lambda tenths: [t / 10 for t in sorted(tenths)]))
    return name, options, [t for t in times if t < options["seconds"] - 0.05]


def test_videos_of_all_kinds_keep_their_pictures_and_their_sound(tmp_path):
    target = tmp_path / "out.mp4"

    def check(example):
        name, options, times = example
        channels = 1 + (options["layout"] == "stereo")
        wave = clicks(times, options["seconds"], options["rate"], channels)
        source = make(tmp_path / f"in.{name}", wave=wave, **options)
        mark_video(source, target, BrightWhileLoud(), 32, progress=False)
        shown, pictures, sound, rate, _ = read(target)
        assert len(shown) == 10 * options["seconds"] and len(sound) == channels
        expected = np.array(times) + float(shown[0]) + options["delay"]
        assert clicks_heard(sound[0], rate) == pytest.approx(expected, abs=0.006)
        assert sound.shape[1] / rate == pytest.approx(options["seconds"] + shown[0] + options["delay"], abs=0.06)
        ear = np.concatenate([c[1] for c in clips(source, 32)])
        assert clicks_heard(ear, 16000) == pytest.approx(expected[expected < len(ear) / 16000 - 0.002], abs=0.006)

    fuzz(kinds_of_videos(), check, 20)


def test_sound_of_changing_formats_keeps_its_times(tmp_path):
    def check(parts):
        source = changing(tmp_path / "in.mkv", parts)
        mark_video(source, tmp_path / "out.mp4", BrightWhileLoud(), 32, progress=False)
        *_, sound, rate, _ = read(tmp_path / "out.mp4")
        assert len(sound) == max(channels for _, channels in parts)
        assert clicks_heard(sound[0], rate) == pytest.approx([n + 0.5 for n in range(len(parts))], abs=0.09)

    part = st.tuples(st.sampled_from([16000, 22050, 24000, 32000, 44100, 48000]), st.integers(1, 2))
    fuzz(st.lists(part, min_size=2, max_size=4), check, 8)
