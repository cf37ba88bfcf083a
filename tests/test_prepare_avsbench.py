"""Downloads of AVSBench with every defect they can have: what is taken, made up for, reported, and left alone."""

import csv
import io
import json
import os
import pickle
import shutil
import sys
import tarfile
import wave
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image
from test_video import clicks, clicks_heard, make, without_decoder

from pcma_data import avsbench as script
from pcma_data.avsbench import S4_CATEGORIES, check_counts, main, prepare
from pcma_lib.data.avsbench import DATASETS

SIDE, FPS = 24, 16
OPENED = []
sys.addaudithook(lambda event, arguments: event == "open" and OPENED.append(str(arguments[0])))


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """5 s, 16 frames a second: frame n has brightness 3 n; the sound is 440 Hz, stereo at 44.1 kHz."""
    return make_video(tmp_path_factory.mktemp("video") / "clip.mp4", 5)


def make_video(path, seconds, sound=True):
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=FPS)
        picture.width, picture.height, picture.pix_fmt, picture.bit_rate = 64, 48, "yuv420p", 400000
        voice = container.add_stream("aac", rate=44100) if sound else None
        for n in range(int(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 3 * n, np.uint8), "rgb24")
            container.mux(picture.encode(frame))
        container.mux(picture.encode())
        if sound:
            tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * 44100)) / 44100)
            frame = av.AudioFrame.from_ndarray(np.stack([tone, tone]).astype(np.float32), "fltp", "stereo")
            frame.sample_rate = 44100
            container.mux(voice.encode(frame))
            container.mux(voice.encode())
    return path


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_sound(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(1).uniform(-0.1, 0.1, seconds * 16000), 16000)


class Bomb:
    def __reduce__(self):
        return os.abort, ()


def write_pickle(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(Bomb()))


def mask_pixels(k):
    """Differs from second to second, and from its own mirror images."""
    pixels = np.zeros((SIDE, SIDE), bool)
    pixels[k : k + 5, 2 * k : 2 * k + 3] = True
    return pixels


CLIPS = [("train", "dog_barking", "-a_1"), ("val", "race_car", "b2"), ("test", "helicopter", "_c-3")]


def object_download(root, dataset, frames="{name}_{k}.png", video=None, clips=CLIPS):
    """S4 or MS3 as downloaded; returns its root."""
    nested = dataset == "s4"
    data = root / f"{dataset}_data"
    for split, category, name in clips:
        nest = (category,) if nested else ()
        folder = data.joinpath("visual_frames", *((split, *nest) if nested else ()), name)
        for k in range(1, 6):
            save(Image.new("RGB", (SIDE, SIDE), (10 * k, 0, 0)), folder / frames.format(name=name, k=k))
            if not nested or split != "train" or k == 1:
                save(Image.fromarray(mask_pixels(k)), data.joinpath("gt_masks", split, *nest, name, f"{name}_{k}.png"))
        write_sound(data.joinpath("audio_wav", split, *nest, f"{name}.wav"), 5)
        write_pickle(data.joinpath("audio_log_mel", split, *nest, f"{name}.pkl"))
        if video:
            path = data.joinpath("raw_videos", *((split, *nest) if nested else ()), f"{name}.mp4")
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(video, path)
    rows = [(name, 0, category, split) if nested else (name, split) for split, category, name in clips]
    header = ("name", "start", "category", "split") if nested else ("video_id", "split")
    write_rows(root / f"{dataset}_meta_data.csv", [header, *rows])
    return root


def voc_colour(index):
    """One colour of the PASCAL VOC palette, by its published rule for a single index."""
    bits = [[index >> (3 * i + channel) & 1 for i in range(8)] for channel in range(3)]
    return tuple(sum(bit << (7 - i) for i, bit in enumerate(channel)) for channel in bits)


AVSS_CLIPS = [("v1s", "s1", "train", 5), ("v1m", "m1", "val", 5), ("v2", "-n_1_0_10000", "test", 10)]


def semantic_download(root, classes=71):
    for label, uid, _, seconds in AVSS_CLIPS:
        for k in range(seconds):
            save(Image.new("RGB", (SIDE, SIDE), (10 * k, 0, 0)), root / label / uid / "frames" / f"{k}.jpg")
            if label != "v1s" or k == 0:
                pixels = np.where(mask_pixels(k)[..., None], np.array(voc_colour(70 - k), np.uint8), np.uint8(0))
                save(Image.fromarray(pixels), root / label / uid / "labels_rgb" / f"{k}.png")
        write_sound(root / label / uid / "audio.wav", seconds)
        write_pickle(root / label / uid / "audio_log_mel.pkl")
    rows = [(uid[:2], uid, 0, 10000, "dog", split, label) for label, uid, split, _ in AVSS_CLIPS]
    write_rows(root / "metadata.csv", [("vid", "uid", "s_min", "s_max", "a_obj", "split", "label"), *rows])
    (root / "label2idx.json").write_text(json.dumps({f"class{i}": i for i in range(classes)}))
    return root


def write_rows(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


def files(root):
    return {p.relative_to(root).as_posix(): p for p in sorted(root.rglob("*")) if p.is_file()}


def contents(root):
    return {name: path.read_bytes() for name, path in files(root).items()}


def state(root):
    return {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in files(root).items()}


@pytest.fixture
def source(tmp_path):
    return object_download(tmp_path / "source", "s4")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def run(source, out, dataset="s4", **options):
    return prepare([source], dataset, out, counts=False, **options)


@pytest.mark.parametrize("dataset, above", [("s4", ""), ("ms3", "AVSBench/deep"), ("avss", "AVSBench/deep")])
def test_a_good_download_loads_and_has_no_problems(tmp_path, out, dataset, above):
    root = tmp_path / "source" / above
    root.mkdir(parents=True)
    semantic_download(root) if dataset == "avss" else object_download(root, dataset)
    assert run(tmp_path / "source", out, dataset) == []
    for split in ("train", "val", "test"):
        data = DATASETS[dataset](out, split, SIDE, semantic=dataset == "avss")
        clip, seconds = data[0], 10 if (dataset, split) == ("avss", "test") else 5
        assert clip.log_mel.shape == (seconds, 1, 96, 64)
        assert clip.labelled.sum() == (1 if split == "train" and dataset != "ms3" else seconds)
        for k in np.flatnonzero(clip.labelled):
            value = 70 - k if dataset == "avss" else 1
            shown = mask_pixels(k if dataset == "avss" else k + 1)
            assert (clip.masks[k].numpy() == value * shown).all()


@pytest.mark.parametrize("dataset", ["s4", "ms3"])
def test_frames_with_mp4_in_their_names_keep_them(tmp_path, out, dataset):
    source = object_download(tmp_path / "source", dataset, "{name}.mp4_{k}.png")
    assert run(source, out, dataset) == []
    frames = [name for name in files(out) if "visual_frames" in name]
    assert len(frames) == 15 and all(".mp4_" in name for name in frames)
    assert len(DATASETS[dataset](out, "test", SIDE)[0].frames) == 5


def test_s4_and_ms3_of_one_download_are_told_apart(tmp_path, out):
    for dataset, folder in (("s4", "Single-source"), ("ms3", "Multi-sources")):
        object_download(tmp_path / "source" / folder, dataset)
        assert run(tmp_path / "source", out / dataset, dataset) == []
    assert not [name for name in files(out / "s4") if "ms3" in name] + [n for n in files(out / "ms3") if "s4" in n]
    assert len(files(out / "ms3")) == 1 + 15 + 15 + 3 and len(files(out / "s4")) == 1 + 15 + 11 + 3


@pytest.mark.parametrize("dataset", ["s4", "ms3"])
def test_videos_alone_give_the_frame_15_16ths_into_each_second_and_the_sound(tmp_path, out, video, dataset):
    source = object_download(tmp_path / "source", dataset, video=video)
    for name in ("visual_frames", "audio_wav"):
        shutil.rmtree(source / f"{dataset}_data" / name)
    (source / f"{dataset}_meta_data.csv").unlink()
    assert run(source, out, dataset) == []
    frames = [path for name, path in files(out).items() if "visual_frames" in name]
    assert len(frames) == 15
    for path in frames:
        image = np.asarray(Image.open(path))
        second = int(path.stem[-1])
        assert image.shape == (SIDE, SIDE, 3)
        assert abs(image.mean() / 3 - (16 * second - 1)) < 1, path
    for path in (path for name, path in files(out).items() if "audio_wav" in name):
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
            samples = np.frombuffer(file.readframes(-1), "<i2") / 32768
        assert abs(len(samples) - 80000) < 1600
        spectrum = np.abs(np.fft.rfft(samples[8000:72000]))
        assert spectrum.argmax() == 440 * 4 and abs(np.abs(samples[8000:72000]).max() - 0.5) < 0.05
    clip = DATASETS[dataset](out, "val", SIDE)[0]
    assert clip.labelled.all() and (clip.masks[2].numpy() == mask_pixels(3)).all()


def test_a_missing_index_is_built_from_the_masks_and_follows_them(source, out):
    (source / "s4_meta_data.csv").unlink()
    later = source / "s4_data" / "gt_masks" / "test"
    later.rename(source.parent / "later")
    run(source, out)
    assert "_c-3" not in (out / "s4_meta_data.csv").read_text()
    (source.parent / "later").rename(later)
    assert run(source, out) == []
    with open(out / "s4_meta_data.csv", newline="") as file:
        assert sorted((r["split"], r["category"], r["name"]) for r in csv.DictReader(file)) == sorted(CLIPS)


@pytest.mark.parametrize("columns", [("video_id", "split"), ("split", "video_id")])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_index_of_ms3_is_taken_as_it_is_however_it_is_written(tmp_path, out, columns, quoting, encoding, end):
    source = object_download(tmp_path / "source", "ms3")
    with open(source / "ms3_meta_data.csv", "w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, columns, quoting=quoting, lineterminator=end)
        writer.writeheader()
        writer.writerows({"video_id": name, "split": split} for split, _, name in CLIPS)
    assert run(source, out, "ms3") == []
    assert (out / "ms3_meta_data.csv").read_bytes() == (source / "ms3_meta_data.csv").read_bytes()
    for split, _, name in CLIPS:
        assert DATASETS["ms3"](out, split, SIDE).name(0) == name


def test_an_index_without_its_columns_is_named_once(tmp_path, out):
    source = object_download(tmp_path / "source", "ms3")
    write_rows(source / "ms3_meta_data.csv", [("clip", "split"), *((name, split) for split, _, name in CLIPS)])
    with pytest.raises(ValueError, match=r"ms3_meta_data\.csv lacks the columns \['name'\]; found \['clip', 'split'\]"):
        run(source, out, "ms3")


def truncate(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def resave(path, image):
    image.save(path)


def many_colours():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8))


FRAME = "visual_frames/test/helicopter/_c-3/_c-3_2.png"
MASK = "gt_masks/test/helicopter/_c-3/_c-3_2.png"
SOUND = "audio_wav/test/helicopter/_c-3.wav"
DEFECTS = {
    "missing frame": (FRAME, Path.unlink, "missing"),
    "truncated frame": (FRAME, truncate, "not a readable picture"),
    "frame of another size": (FRAME, lambda p: resave(p, Image.new("RGB", (20, SIDE))), "pixels"),
    "missing mask": (MASK, Path.unlink, "missing"),
    "truncated mask": (MASK, truncate, "not a readable picture"),
    "mask of another size": (MASK, lambda p: resave(p, Image.new("1", (20, SIDE))), r"(20, 24) pixels"),
    "coloured mask": (MASK, lambda p: resave(p, Image.new("RGB", (SIDE, SIDE), (128, 0, 0))), "(128, 0, 0)"),
    "mask of many colours": (MASK, lambda p: resave(p, many_colours()), "more than 256 colours"),
    "faint mask": (MASK, lambda p: resave(p, Image.new("L", (SIDE, SIDE), 100)), "areas of grey 100"),
    "grey mask": (MASK, lambda p: resave(p, Image.linear_gradient("L").resize((SIDE, SIDE))), "black and white only"),
    "missing sound": (SOUND, Path.unlink, "missing"),
    "truncated sound": (SOUND, lambda p: truncate(p, 0.95), "cut off"),
    "short sound": (SOUND, lambda p: write_sound(p, 3), "3.00 s, expected 5 s"),
    "no sound at all": (SOUND, lambda p: p.write_bytes(b""), "not a readable sound"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_that_no_video_makes_up_for_is_the_problem_reported(tmp_path, out, defect):
    source = object_download(tmp_path / "source", "s4", clips=CLIPS[2:])
    name, break_it, message = DEFECTS[defect]
    break_it(source / "s4_data" / name)
    problems = run(source, out)
    assert all(Path(name).name in problem for problem in problems) and message in problems[0]
    assert len(problems) == (2 if defect == "frame of another size" else 1), "of the frame and of its mask"


def test_a_mask_in_an_alpha_channel_is_taken_and_read(tmp_path, out):
    source = object_download(tmp_path / "source", "s4", clips=CLIPS[2:])
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    picture.putalpha(Image.fromarray(mask_pixels(2)).convert("L"))
    resave(source / "s4_data" / MASK, picture)
    assert run(source, out) == []
    assert (DATASETS["s4"](out, "test", SIDE)[0].masks[1].numpy() == mask_pixels(2)).all()


@pytest.mark.parametrize("defect", ["truncated frame", "missing sound", "truncated sound"])
def test_a_video_makes_up_for_a_defect_and_the_download_is_not_changed(tmp_path, out, video, defect):
    source = object_download(tmp_path / "source", "s4", video=video, clips=CLIPS[2:])
    name, break_it, _ = DEFECTS[defect]
    break_it(source / "s4_data" / name)
    before = contents(source)
    assert run(source, out) == []
    assert contents(source) == before
    repaired = out / "s4_data" / name
    if name == FRAME:
        assert abs(np.asarray(Image.open(repaired)).mean() / 3 - 31) < 1
    assert [n for n, c in contents(out).items() if before.get(n) != c] == [f"s4_data/{name}"]
    after = state(out)
    assert run(source, out) == [] and state(out) == after


@pytest.mark.parametrize("seconds, sound, message", [(2, True, "2.00 s, expected 5 s"), (5, False, "no readable sound")])
def test_a_video_that_is_short_or_silent_is_named(tmp_path, out, seconds, sound, message):
    source = object_download(
        tmp_path / "source", "s4", video=make_video(tmp_path / "v.mp4", seconds, sound), clips=CLIPS[2:]
    )
    for name in (FRAME.replace("_2", "_5"), SOUND):
        (source / "s4_data" / name).unlink()
    problems = run(source, out)
    assert any("_c-3.mp4" in p and message in p for p in problems)
    assert any(f"missing sound {out / 's4_data' / SOUND}" in p for p in problems)


@pytest.mark.parametrize(
    "name, options",
    [
        ("late_sound.mp4", dict(delay=0.676)),
        ("early_sound.mp4", dict(delay=-0.4)),
        ("late_file.mkv", dict(late=5)),
        ("third_track.mov", dict(third="timecode")),
    ],
)
def test_a_click_is_in_the_wav_where_it_is_in_the_video(tmp_path, name, options):
    delay = options.get("delay", 0)
    wave = clicks([t - delay for t in (0.9, 2.2)], 3, 48000)
    script.extract_sound(make(tmp_path / name, wave=wave, rate=48000, layout="mono", **options), tmp_path / "out.wav", 3)
    samples, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == 16000 and clicks_heard(samples, rate) == pytest.approx([0.9, 2.2], abs=0.005)


def test_sound_whose_channels_cancel_out_is_kept(tmp_path):
    wave = clicks([0.5], 1, 44100, channels=2) * [[1], [-1]]
    script.extract_sound(make(tmp_path / "in.mp4", 1, wave=wave.astype(np.float32)), tmp_path / "out.wav", 1)
    samples, rate = soundfile.read(tmp_path / "out.wav")
    assert clicks_heard(samples, rate) == pytest.approx([0.5], abs=0.005) and np.abs(samples).max() > 0.6


def test_sound_without_a_decoder_is_named(tmp_path):
    with pytest.raises(ValueError, match="in.mp4 has no readable sound"):
        script.extract_sound(without_decoder(tmp_path / "in.mp4"), tmp_path / "out.wav", 3)


@pytest.mark.parametrize("late", [0, 90 * 7])
def test_frames_are_taken_by_their_times_where_these_are_irregular(tmp_path, late):
    times = [0, 10, 80, 86, 91, 150, 170, 175, 260, 272]  # in units of 1/90 s; 15/16 s is 84.4 of them
    grey = [20 * index for index in range(len(times))]
    video = make(
        tmp_path / "in.mkv", pts=[t + late for t in times], sound=None, codec="ffv1",
        draw=lambda index, size: np.full((*size[::-1], 3), grey[index], np.uint8),
    )  # fmt: skip
    targets = {second: tmp_path / f"{second}.png" for second in range(4)}
    script.extract_frames(video, targets, (24, 24))
    found = [np.asarray(Image.open(path)).mean() for path in targets.values()]
    assert found == pytest.approx([grey[2], grey[6], grey[8], grey[9]], abs=2)


def test_frames_of_a_turned_video_are_upright(tmp_path):
    script.extract_frames(make(tmp_path / "in.mov", 1, rotation=90), {0: tmp_path / "0.png"}, None)
    image = np.asarray(Image.open(tmp_path / "0.png"))
    assert image.shape == (64, 48, 3) and image[-6, 4, 0] > 80 > 3 * image[-6, 4, 1]


def test_a_truncated_video_is_named(tmp_path, out, video):
    source = object_download(tmp_path / "source", "s4", video=video, clips=CLIPS[2:])
    (source / "s4_data" / FRAME).unlink()
    truncate(source / "s4_data" / "raw_videos/test/helicopter/_c-3.mp4")
    problems = run(source, out)
    assert len(problems) == 2 and "_c-3.mp4" in problems[0] and "_c-3_2.png" in problems[1]


def test_avss_masks_of_other_colours_and_missing_seconds_are_named(tmp_path, out):
    source = semantic_download(tmp_path / "source")
    v2 = source / "v2" / "-n_1_0_10000"
    resave(v2 / "labels_rgb" / "3.png", Image.new("RGB", (SIDE, SIDE), (7, 7, 7)))
    resave(v2 / "labels_rgb" / "4.png", Image.new("RGB", (SIDE, SIDE), voc_colour(71)))
    (v2 / "frames" / "9.jpg").unlink()
    (source / "v1s" / "s1" / "labels_rgb" / "0.png").unlink()
    problems = run(source, out, "avss")
    assert len(problems) == 4
    for name in ("3.png", "4.png", "9.jpg", "0.png"):
        assert sum(name in problem for problem in problems) == 1


def test_avss_without_its_index_cannot_begin(tmp_path, out, capsys):
    source = semantic_download(tmp_path / "source")
    (source / "metadata.csv").unlink()
    assert main(["--source", str(source), "--dataset", "avss", "--out", str(out)]) == 2
    assert "metadata.csv" in capsys.readouterr().err


def test_avss_takes_missing_frames_from_a_video_at_the_size_of_the_masks(tmp_path, out, video):
    source = semantic_download(tmp_path / "source")
    shutil.copy(video, source / "v1m" / "m1" / "m1.mp4")
    shutil.rmtree(source / "v1m" / "m1" / "frames")
    assert run(source, out, "avss") == []
    image = Image.open(out / "v1m" / "m1" / "frames" / "1.jpg")
    assert image.size == (SIDE, SIDE) and abs(np.asarray(image).mean() / 3 - 31) < 1


def packed(source, path):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, file in files(source).items():
                archive.write(file, f"Single-source/{name}")
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            archive.add(source, "Single-source")
    return path


@pytest.mark.parametrize("ending, within", [(".zip", False), (".tar", True), (".tar.gz", True)])
def test_archives_give_the_files_of_the_folder_alone_or_inside_one(source, tmp_path, out, ending, within):
    (tmp_path / "archives").mkdir()
    archive = packed(source, tmp_path / "archives" / f"s4_data{ending}")
    assert run(archive.parent if within else archive, out) == []
    assert contents(out) == {n: c for n, c in contents(source).items() if not n.endswith(".pkl")}


def evil_tar(path):
    png = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(png, "PNG")
    with tarfile.open(path, "a") as archive:
        for name, kind in {
            "s4_data/visual_frames/train/../../../../evil.png": tarfile.REGTYPE,
            "/visual_frames/train/dog/evil/evil_1.png": tarfile.REGTYPE,
            "s4_data/visual_frames/train/dog/evil/evil_2.png": tarfile.SYMTYPE,
            "s4_data/visual_frames/train/dog/evil/evil_3.png": tarfile.LNKTYPE,
            "s4_data/visual_frames/train/dog/evil/evil_4.png": tarfile.CHRTYPE,
            "s4_data/visual_frames/train/dog/evil/evil_5.png": tarfile.FIFOTYPE,
        }.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            info.size = len(png.getvalue()) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(png.getvalue()) if info.size else None)
    return 6


def evil_zip(path):
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("a/../../visual_frames/train/d/evil/evil_1.png", "..\\visual_frames/train/d/evil/evil.png", "C:/e.png"):
            archive.writestr(name, b"evil")
        link = zipfile.ZipInfo("s4_data/visual_frames/train/dog/evil/evil_6.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/hostname")
    return 4


@pytest.mark.parametrize("ending, spoil", [(".tar", evil_tar), (".zip", evil_zip)])
def test_members_that_leave_the_folder_links_and_devices_are_refused_and_named(source, tmp_path, out, ending, spoil):
    archive = packed(source, tmp_path / f"s4{ending}")
    number = spoil(archive)
    outside = set(files(tmp_path))
    problems = run(archive, out)
    assert len(problems) == number and all("not unpacked" in problem for problem in problems)
    assert not [p for p in out.rglob("*") if "evil" in p.name or p.is_symlink()]
    assert {name for name in files(tmp_path) if not name.startswith("out/")} == outside
    assert len(files(out)) == 1 + 15 + 11 + 3


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_a_damaged_archive_is_named_and_the_whole_one_completes_what_it_left(source, tmp_path, out, ending):
    archive = packed(source, tmp_path / f"s4{ending}")
    whole = archive.read_bytes()
    if ending == ".zip":
        place = whole.index(b"_c-3_2.png") + 60  # inside the data of the first member of that name
        archive.write_bytes(whole[:place] + b"\0\0\0\0" + whole[place + 4 :])
    else:
        truncate(archive, 0.6)
    try:
        problems = run(archive, out)
    except ValueError as error:  # cut before the index came
        problems = [str(error)]
    assert str(archive) in problems[0]
    kept = state(out)
    archive.write_bytes(whole)
    assert run(archive, out) == []
    index = "s4_meta_data.csv"
    assert {n: s for n, s in state(out).items() if n in kept and n != index} == {n: s for n, s in kept.items() if n != index}
    assert contents(out) == {n: c for n, c in contents(source).items() if not n.endswith(".pkl")}


def test_pickles_of_the_download_are_neither_opened_nor_taken(source, tmp_path, out):
    archive = packed(source, tmp_path / "s4.tar")
    assert [name for name in files(source) if name.endswith(".pkl")]
    OPENED.clear()
    assert run(source, out) == [] and run(archive, tmp_path / "other") == []
    assert str(source / "s4_meta_data.csv") in OPENED and not [name for name in OPENED if ".pkl" in name]
    assert not list(out.rglob("*.pkl")) + list((tmp_path / "other").rglob("*.pkl"))


def test_a_rerun_leaves_good_files_untouched_and_works_in_place(source, out):
    before = contents(source)
    run(source, out)
    made, original = state(out), state(source)
    assert run(source, out) == [] and state(out) == made
    assert run(source, source) == [] and state(source) == original and contents(source) == before


def test_an_interrupted_run_leaves_no_part_of_a_file_and_goes_on(tmp_path, out, video, monkeypatch):
    source = object_download(tmp_path / "source", "s4", video=video)
    shutil.rmtree(source / "s4_data" / "visual_frames")
    whole, calls = script.write_atomically, []

    def interrupted(path, write):
        def stop_half_way(part):
            write(part)
            calls.append(path)
            if len(calls) == 8:
                truncate(Path(part))
                raise KeyboardInterrupt

        whole(path, stop_half_way)

    monkeypatch.setattr(script, "write_atomically", interrupted)
    options = ["--source", str(source), "--dataset", "s4", "--out", str(out), "--no-counts", "--workers", "1"]
    assert main(options) == 130
    frames = [path for name, path in files(out).items() if "visual_frames" in name]
    assert 0 < len(frames) < 15 and not calls[-1].exists()
    for path in frames:
        Image.open(path).load()
    kept = state(out)
    monkeypatch.undo()
    assert main(options) == 0
    assert {name: value for name, value in state(out).items() if name in kept} == kept


def test_counts_that_differ_from_the_published_are_named(source, out, tmp_path):
    assert prepare([source], "s4", out, counts=True)[:3] == [
        f"{out / 's4_meta_data.csv'}: 1 clips of split {split}, published are {n}"
        for split, n in (("train", 3452), ("val", 740), ("test", 740))
    ]
    problems = prepare([semantic_download(tmp_path / "avss", 70)], "avss", out, counts=True)
    assert [p for p in problems if "70 classes, published are 71" in p]
    assert [p for p in problems if "1 clips of split val, published are 1304" in p]


def test_the_published_numbers_have_no_problem_and_one_clip_less_has(tmp_path):
    names, index = sorted(S4_CATEGORIES), tmp_path / "s4_meta_data.csv"
    splits = ["train"] * 3452 + ["val"] * 740 + ["test"] * 740
    rows = [{"category": names[i % 23], "split": split} for i, split in enumerate(splits)]
    assert len(rows) == 4932 and len(names) == 23
    assert check_counts("s4", index, rows, ()) == []
    problems = check_counts("s4", index, [*rows[1:-1], {"category": "cow", "split": "test"}], ())
    assert len(problems) == 2 and "3451 clips of split train" in problems[0] and "cow" in problems[1]
    assert len(check_counts("ms3", index, rows, ())) == 3 and len(check_counts("avss", index, rows, ["dog"])) == 4


def test_an_index_with_doubles_unknown_splits_or_paths_that_leave_is_reported(source, out):
    with open(source / "s4_meta_data.csv", "a") as file:
        file.write("b2,0,race_car,val\nb2,0,race_car,dev\n../../../../../../../x,0,dog,val\n")
    problems = "\n".join(run(source, out))
    assert "2 times" in problems and "unknown split 'dev'" in problems and "outside the data folder" in problems


def test_a_source_with_nothing_of_the_data_set_cannot_begin(source, out, capsys):
    assert main(["--source", str(source), "--dataset", "ms3", "--out", str(out)]) == 2
    assert "no file of ms3" in capsys.readouterr().err
    assert main(["--source", str(source / "nowhere"), "--dataset", "s4", "--out", str(out)]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_command_in_two_processes_finds_what_one_finds(tmp_path, out, video, capsys):
    source = object_download(tmp_path / "source", "s4", video=video)
    shutil.rmtree(source / "s4_data" / "visual_frames" / "val")
    truncate(source / "s4_data" / MASK)
    expected = run(source, tmp_path / "one")
    options = ["--source", str(source), "--dataset", "s4", "--out", str(out), "--no-counts", "--workers", "2"]
    assert main(options) == 1 and len(expected) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [expected[0].replace(str(tmp_path / "one"), str(out)), f"{out}: 1 problems"]
    assert contents(out) == contents(tmp_path / "one")
