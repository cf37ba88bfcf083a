"""The scripts that compose datasets: what they promise about their clips, and what interruption and bad input do to them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pcma_data import demo as make_demo
from pcma_data import stamps as make_stamps
from pcma_data.demo_objects import DRAWINGS, draw
from pcma_data.demo_sounds import SOUNDS, plucked_string, synthesise
from pcma_data.recordings import play, segment
from pcma_data.scene import KIND_SHARES, SPLITS, clip_kind, draw_layers, place
from pcma_data.scene import Path as ScenePath
from pcma_lib.data.controls import gate
from pcma_lib.data.files import palette, resolve

SMALL = ["--clips", "14,3,3", "--size", "64"]


def digest(root: Path) -> dict[str, str]:
    """Hash of every file below `root`."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def metadata(root: Path) -> list[dict]:
    with (root / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def clips(root: Path) -> list[tuple[dict, Path, list[dict]]]:
    """Every clip's row, folder and objects."""
    folders = [(row, root / row["label"] / row["uid"]) for row in metadata(root)]
    return [(row, folder, json.loads((folder / "objects.json").read_text())) for row, folder in folders]


def read_wav(path: Path) -> np.ndarray:
    """[samples, channels] float64, in steps of 16-bit samples; checks the format."""
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnframes()) == (16000, 2, 80000)
        return np.frombuffer(file.readframes(80000), "<i2").reshape(80000, file.getnchannels()).astype(float)


def decibels(samples: np.ndarray) -> float:
    return 20 * np.log10(np.sqrt(np.mean(np.square(samples))) + 1e-12)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "data"
    assert make_demo.main(["--out", str(root), "--workers", "1", *SMALL]) == 0
    return root


def start(script: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(resolve("data_scripts") / script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for_clips(process: subprocess.Popen, root: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list((root / "v1m").glob("[!.]*"))) < count:
        assert process.poll() is None and time.monotonic() < deadline, "ended before it could be interrupted"
        time.sleep(0.01)


def test_the_demo_is_made_without_loading_torch():
    check = "import sys, pcma_data.demo; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True).stdout == "False\n"


def test_same_seed_gives_same_bytes_with_other_worker_counts(demo, tmp_path):
    assert make_demo.main(["--out", str(tmp_path / "two"), "--workers", "2", *SMALL]) == 0
    assert digest(tmp_path / "two") == digest(demo)


def test_a_clip_does_not_depend_on_how_many_others_there_are(demo, tmp_path):
    assert make_demo.main(["--out", str(tmp_path / "few"), "--workers", "1", "--clips", "2,1,0", "--size", "64"]) == 0
    for uid in ("demo_train_00001", "demo_val_00000"):
        assert digest(tmp_path / "few/v1m" / uid) == digest(demo / "v1m" / uid)


def test_other_seeds_and_splits_give_other_clips(demo, tmp_path):
    assert (
        make_demo.main(
            ["--out", str(tmp_path / "other"), "--workers", "1", "--seed", "1", "--clips", "1,0,0", "--size", "64"]
        )
        == 0
    )
    sounds = [
        demo / "v1m/demo_train_00000",
        demo / "v1m/demo_val_00000",
        demo / "v1m/demo_test_00000",
        tmp_path / "other/v1m/demo_train_00000",
    ]
    assert len({(folder / "audio.wav").read_bytes() for folder in sounds}) == 4


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_run_completes_to_the_same_bytes(demo, tmp_path):
    root = tmp_path / "killed"
    process = start("make_demo.py", "--out", str(root), "--workers", "2", *SMALL)
    wait_for_clips(process, root, 3)
    process.kill()
    process.communicate()
    assert not (root / "dataset.json").exists()
    assert make_demo.main(["--out", str(root), "--workers", "1", *SMALL]) == 0
    assert digest(root) == digest(demo)


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to a process group on this system")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_leaves_whole_clips_only(tmp_path, workers):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
    process = start("make_demo.py", "--out", str(tmp_path / "data"), "--workers", workers, *SMALL)
    signal.signal(signal.SIGINT, before)
    wait_for_clips(process, tmp_path / "data", 2)
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130 and b"stopped" in message and b"Traceback" not in message
    assert not list((tmp_path / "data/v1m").glob(".*"))
    for folder in (tmp_path / "data/v1m").iterdir():
        assert len(digest(folder)) == 18


def test_a_complete_dataset_is_left_alone(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    assert make_demo.main(["--out", str(demo), *SMALL]) == 0
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_other_settings_are_an_error_that_names_them(tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "data"), "--workers", "1", "--clips", "1,0,0", "--size", "64"]
    assert make_demo.main(arguments) == 0
    assert make_demo.main([*arguments, "--seed", "5"]) == 2
    message = capsys.readouterr().err
    assert str(tmp_path / "data") in message and "seed is 0 there and 5 now" in message and "size" not in message
    assert make_demo.main([*arguments, "--seed", "5", "--overwrite"]) == 0
    assert json.loads((tmp_path / "data/dataset.json").read_text())["seed"] == 5


def test_a_folder_with_other_files_is_never_touched(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    assert make_demo.main(["--out", str(tmp_path), "--overwrite", *SMALL]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("clips", ["3", "a,b,c", "0,0,0", "-1,2,3", "1,1,1,1,1"])
def test_wrong_clip_counts_are_refused(clips, capsys):
    with pytest.raises(SystemExit):
        make_demo.main([f"--clips={clips}"])
    assert repr(clips) in capsys.readouterr().err


def test_index_and_files_are_as_documented(demo):
    rows = metadata(demo)
    assert list(rows[0]) == ["vid", "uid", "s_min", "s_max", "a_obj", "split", "label", "kind", "licence"]
    assert [sum(row["split"] == split for row in rows) for split in ("train", "val", "test")] == [14, 3, 3]
    label2idx = json.loads((demo / "label2idx.json").read_text())
    assert list(label2idx) == ["background", *sorted(DRAWINGS)] and list(label2idx.values()) == list(range(11))
    for row, folder, objects in clips(demo):
        assert row["vid"] == row["uid"] and (row["s_min"], row["s_max"], row["licence"]) == ("0", "5", "MIT")
        assert row["a_obj"] == ("_and_".join(sorted(item["class"] for item in objects if any(item["sounds"]))) or "none")
        for second in range(5):
            for name, mode in (("frames/{}.jpg", "RGB"), ("labels_rgb/{}.png", "RGB"), ("objects/{}.png", "L")):
                with Image.open(folder / name.format(second)) as image:
                    assert image.mode == mode and image.size == (64, 64)
        assert read_wav(folder / "audio.wav").shape == (80000, 1)
        assert read_wav(folder / "objects.wav").shape == (80000, len(objects))


def test_kinds_have_their_shares_and_what_defines_them(demo):
    kinds = [clip_kind(0, "train", index) for index in range(300)]
    assert {kind: round(kinds.count(kind) / 300, 2) for kind in KIND_SHARES} == pytest.approx(KIND_SHARES, abs=0.011)
    assert {row["kind"] for row in metadata(demo)} == set(KIND_SHARES)
    for row, _, objects in clips(demo):
        seen = [sum(item["sounds"]) for item in objects if item["on_screen"] and any(item["sounds"])]
        unseen = [sum(item["sounds"]) for item in objects if not item["on_screen"]]
        if row["kind"] == "single":
            assert seen == [5]
        elif row["kind"] == "multi":
            assert 1 <= len(seen) <= 2 and max(seen) < 5
        elif row["kind"] == "offscreen":
            assert seen == [] and len(unseen) == 1 and unseen[0] > 0
        else:
            assert seen == [] and unseen == []


def test_every_clip_has_a_visible_object_that_never_sounds(demo):
    for _, folder, objects in clips(demo):
        silent = [number for number, item in enumerate(objects, 1) if item["on_screen"] and not any(item["sounds"])]
        assert silent
        for second in range(5):
            assert np.isin(silent, np.asarray(Image.open(folder / f"objects/{second}.png"))).all()


def test_classes_of_a_clip_are_distinct_and_visible_objects_come_first(demo):
    for _, _, objects in clips(demo):
        assert len({item["class"] for item in objects}) == len(objects)
        on_screen = [item["on_screen"] for item in objects]
        assert on_screen == sorted(on_screen, reverse=True) and 2 <= sum(on_screen) <= 4


def test_palette_is_that_of_pascal_voc():
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        4: (0, 0, 128),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
    }
    colours = palette(71)
    assert all(tuple(colours[index]) == colour for index, colour in known.items())
    assert len(np.unique(colours, axis=0)) == 71


def test_masks_are_the_instances_that_sound_in_palette_colours(demo):
    label2idx = json.loads((demo / "label2idx.json").read_text())
    colours = palette(len(label2idx))
    for _, folder, objects in clips(demo):
        for second in range(5):
            instances = np.asarray(Image.open(folder / f"objects/{second}.png"))
            assert instances.max() <= sum(item["on_screen"] for item in objects)
            expected = np.zeros((64, 64, 3), np.uint8)
            for number, item in enumerate(objects, 1):
                if item["sounds"][second]:
                    expected[instances == number] = colours[label2idx[item["class"]]]
            assert np.array_equal(np.asarray(Image.open(folder / f"labels_rgb/{second}.png")), expected)


def test_gate_fades_inside_the_seconds_that_are_on():
    curve = gate([1, 0, 1, 1, 0])
    naive = np.zeros(80000)
    for sample in range(80000):
        second, place = divmod(sample, 16000)
        if second == 0:
            naive[sample] = 1 if place < 15680 else 0.5 + 0.5 * np.cos(np.pi * (place - 15680 + 0.5) / 320)
        elif second == 2:
            naive[sample] = 1 if place >= 320 else 0.5 - 0.5 * np.cos(np.pi * (place + 0.5) / 320)
        elif second == 3:
            naive[sample] = 1 if place < 15680 else 0.5 + 0.5 * np.cos(np.pi * (place - 15680 + 0.5) / 320)
    np.testing.assert_allclose(curve, naive, atol=1e-12)


def test_mixture_is_the_gated_sum_of_the_objects_plus_quiet_noise(demo):
    for _, folder, objects in clips(demo):
        mixture, sources = read_wav(folder / "audio.wav")[:, 0], read_wav(folder / "objects.wav")
        gates = np.stack([gate(item["sounds"]) for item in objects], 1)
        noise = mixture - (sources * gates).sum(1)
        levels = [decibels(part / 32768) for part in noise.reshape(5, -1)]
        assert -75 < min(levels) and max(levels) < -44
        assert max(abs(np.corrcoef(noise, source)[0, 1]) for source in sources.T) < 0.05
        assert max(np.abs(mixture).max(), np.abs(sources).max()) < 32767


def test_sounds_enter_at_levels_between_which_they_are_drawn(demo):
    for _, folder, _objects in clips(demo):
        levels = [decibels(source / 32768) for source in read_wav(folder / "objects.wav").T]
        assert all(-38 < level < -13.9 for level in levels)
        if len(levels) > 1:
            assert max(levels) - min(levels) < 16.1


def test_every_class_can_be_heard_in_every_second():
    for name in SOUNDS:
        for seed in range(3):
            sound = synthesise(name, np.random.default_rng(seed), 5)
            assert sound.shape == (80000,) and sound.dtype == np.float32 and abs(decibels(sound)) < 0.01
            assert min(decibels(second) for second in sound.reshape(5, -1)) > -10, name


def test_plucked_string_is_karplus_and_strong_sample_by_sample():
    string = plucked_string(np.random.default_rng(3), 440, 0.1, brightness=1, keep=0.99)
    period = round(16000 / 440 - 0.5)
    burst = np.random.default_rng(3).uniform(-1, 1, period)
    naive = [0.0, *(burst - burst.mean())]
    while len(naive) <= 1600:
        naive.append(0.99 * (naive[-period] + naive[-period - 1]) / 2)
    np.testing.assert_allclose(string, np.array(naive[1:1601]) / np.sqrt(np.mean(burst**2)), atol=1e-12)


def test_drawings_fill_the_length_asked_for_and_differ_in_shape():
    shapes = {}
    for name in DRAWINGS:
        picture = draw(name, np.random.default_rng(0), 48)
        assert picture.mode == "RGBA" and max(picture.size) == 48
        shapes[name] = np.asarray(picture.resize((48, 48)).getchannel("A")) >= 128
        assert 0.1 < shapes[name].mean() < 0.95
    for first in DRAWINGS:
        for second in DRAWINGS:
            union = (shapes[first] | shapes[second]).sum()
            assert first == second or (shapes[first] & shapes[second]).sum() / union < 0.9


def test_visible_objects_keep_two_fifths_of_their_pixels():
    rng = np.random.default_rng(0)
    sprites = [draw(name, rng, 40) for name in ("bell", "frog", "drum", "clock")]
    for seed in range(5):
        layers, instances = draw_layers(np.random.default_rng(seed), sprites, [0.5] * 4, [25] * 4, 64)
        for frame, layer in enumerate(layers):
            for number, picture in enumerate(layer, 1):
                alone = (np.asarray(picture.getchannel("A")) >= 128).sum()
                assert (instances[frame] == number).sum() >= 0.4 * alone - 1


def test_place_puts_a_sprite_where_its_path_says():
    sprite = Image.new("RGBA", (20, 20), (255, 0, 0, 255))
    path = ScenePath(np.array([[0.25, 0.75]]), np.array([0.2]), np.array([0.0]))
    rows, columns = np.nonzero(np.asarray(place(sprite, path, 0, 100).getchannel("A")) >= 128)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (15, 34, 65, 84)
    turned = ScenePath(path.centres, path.sizes, np.array([np.pi / 4]))
    rows, columns = np.nonzero(np.asarray(place(sprite, turned, 0, 100).getchannel("A")) >= 128)
    assert columns.max() - columns.min() + 1 == pytest.approx(20 * np.sqrt(2), abs=1.5)


LENGTHS = {"ant": 0.5, "bee": 0.8, "cat": 4.0, "dog": 3.5, "eel": 1.2, "fly": 6.0}


def write_ogg(path: Path, samples: np.ndarray, rate: int) -> None:
    import av

    with av.open(str(path), "w", format="ogg") as container:
        stream = container.add_stream("vorbis", rate=rate, layout="stereo", options={"strict": "experimental"})
        frame = av.AudioFrame.from_ndarray(np.stack([samples, samples]).astype(np.float32), format="fltp", layout="stereo")
        frame.rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> tuple[Path, list[str]]:
    """A tiny stamps folder and the options that name its lists; recordings are stereo at 22.05 kHz and rise in pitch."""
    folder = tmp_path_factory.mktemp("fake")
    stamps = folder / "stamps"
    for number, (name, seconds) in enumerate(LENGTHS.items()):
        (stamps / "animals").mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGBA", (80, 60))
        ImageDraw.Draw(picture).ellipse((5, 5, 70, 50), fill=(40 * number, 200 - 30 * number, 120, 255))
        picture.save(stamps / f"animals/{name}.png")
        time_axis = np.arange(int(seconds * 22050)) / 22050
        write_ogg(
            stamps / f"animals/{name}.ogg", 0.5 * np.sin(2 * np.pi * (300 + 500 * time_axis / seconds) * time_axis), 22050
        )
    (folder / "list.csv").write_text(
        "path,class,picture,sound\n" + "".join(f"animals/{name},{name},blob,tone\n" for name in LENGTHS)
    )
    (folder / "backdrops.csv").write_text(
        "path,split\n" + "".join(f"animals/{n},{s}\n" for n, s in zip(LENGTHS, ("train", "val", "test")))
    )
    return stamps, [
        "--list",
        str(folder / "list.csv"),
        "--backdrops",
        str(folder / "backdrops.csv"),
        "--size",
        "64",
        "--clips",
        "6,3,3",
    ]


def test_stamps_are_composed_like_the_demo(fake, tmp_path):
    stamps, options = fake
    for name, workers in (("one", "1"), ("two", "2")):
        assert (
            make_stamps.main(["--source", str(stamps), "--out", str(tmp_path / name), "--workers", workers, *options]) == 0
        )
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    for row, folder, objects in clips(tmp_path / "one"):
        assert row["licence"] == "GPL-2" and row["uid"].startswith(f"stamps_{row['split']}_")
        assert len({item["class"] for item in objects}) == len(objects)
        for item in objects:
            assert item["heard_in_training"] == (row["split"] == "train" or LENGTHS[item["class"]] < 3)
        mixture, sources = read_wav(folder / "audio.wav")[:, 0], read_wav(folder / "objects.wav")
        noise = mixture - (sources * np.stack([gate(item["sounds"]) for item in objects], 1)).sum(1)
        assert decibels(noise / 32768) < -44


@pytest.fixture(scope="module")
def grown(fake, tmp_path_factory) -> tuple[Path, Path]:
    """The fake stamps with a list in which five classes have a second photograph and five a recording that is divided."""
    stamps, _ = fake
    root = tmp_path_factory.mktemp("grown")
    shutil.copytree(stamps, root / "stamps")
    rows = ["path,class,recording,seen_in_training"]
    for number, name in enumerate(LENGTHS):
        rows.append(f"animals/{name},{name},animals/{'fly' if number else 'ant'},yes")
        if number:
            shutil.copy(stamps / f"animals/{name}.png", root / f"stamps/animals/{name}-2.png")
            rows.append(f"animals/{name}-2,{name},animals/{name},no")
    (root / "list.csv").write_text("\n".join(rows) + "\n")
    return root / "stamps", root / "list.csv"


def test_two_test_sets_more_show_and_sound_what_training_lacks(fake, grown, tmp_path):
    (_, options), (stamps, listed), out = fake, grown, tmp_path / "data"
    arguments = ["--source", str(stamps), "--out", str(out), *options, "--list", str(listed), "--clips", "6,2,3,4,5"]
    assert make_stamps.main([*arguments, "--workers", "2"]) == 0
    shown = {}
    for row, _, objects in clips(out):
        shown.setdefault(row["split"], []).append(objects)
    assert {split: len(found) for split, found in shown.items()} == json.loads((out / "dataset.json").read_text())["clips"]
    for split, found in shown.items():
        for item in (item for objects in found for item in objects):
            assert item["name"] == item["class"] + ("-2" if split == "test_photographs" else "")
            assert split != "test_sounds" or (item["class"] != "ant" and not item["heard_in_training"])
    shutil.rmtree(out / "v1m/stamps_test_sounds_00003")
    whole = digest(out)
    (out / "dataset.json").rename(out / "dataset.part.json")
    (out / "metadata.csv").unlink()
    assert make_stamps.main([*arguments, "--workers", "1"]) == 0
    made = digest(out)
    assert {**made, **whole} == made and len(made) == len(whole) + 18


def test_few_classes_leave_the_sets_out_that_they_do_not_do_for(fake, grown, tmp_path, capsys, monkeypatch):
    (_, options), (stamps, listed), out = fake, grown, tmp_path / "data"
    monkeypatch.setattr(make_stamps, "CLIPS", (2, 1, 1, 1, 1))
    arguments = ["--source", str(stamps), "--out", str(out), *options[:-2], "--list", str(listed), "--workers", "1"]
    few = [*arguments, "--classes", "ant,bee,cat,dog,eel"]
    assert make_stamps.main([*few, "--clips", "1,1,1,1,0"]) == 2
    assert "for test_photographs there are bee, cat, dog, eel" in capsys.readouterr().err
    (tmp_path / "list.csv").write_text(listed.read_text().replace("animals/bee,bee,animals/fly,yes", "animals/bee,bee,,no"))
    assert make_stamps.main([*arguments, "--list", str(tmp_path / "list.csv"), "--clips", "1,1,1,1,0"]) == 2
    assert "test_photographs would show what training has no picture of: bee" in capsys.readouterr().err
    assert make_stamps.main(few) == 0
    assert list(json.loads((out / "dataset.json").read_text())["clips"].values()) == [2, 1, 1, 0, 0]
    assert make_stamps.main([*arguments, "--out", str(tmp_path / "all")]) == 0
    assert list(json.loads((tmp_path / "all/dataset.json").read_text())["clips"].values()) == [2, 1, 1, 1, 1]


def ar_archive(members: dict[str, bytes]) -> bytes:
    content = b"!<arch>\n"
    for name, data in members.items():
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return content


@pytest.mark.parametrize("kind", ["deb", "tar.gz", "installed"])
def test_stamps_come_from_packages_archives_and_folders_alike(fake, tmp_path, kind):
    stamps, options = fake
    inside = "tuxpaint-stamps-2022/stamps" if kind == "tar.gz" else "./usr/share/tuxpaint/stamps"
    if kind == "installed":
        source = tmp_path / "installed"
        (source / "usr/share/tuxpaint").mkdir(parents=True)
        (source / inside).symlink_to(stamps)
    else:
        source, buffer = tmp_path / f"package.{kind}", io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w:xz") as tar:
            tar.add(stamps, inside)
            for name in (
                "../../outside.png",
                "/outside.png",
                f"{inside}/../../../outside.png",
                f"{inside}/animals/unlisted.png",
            ):
                member = tarfile.TarInfo(name)
                member.size = 4
                tar.addfile(member, io.BytesIO(b"evil"))
        data = buffer.getvalue()
        source.write_bytes(
            data
            if kind == "tar.gz"
            else ar_archive({"debian-binary": b"2.0", "control.tar.xz": b"odd", "data.tar.xz": data})
        )
    out = tmp_path / "made/data"
    assert make_stamps.main(["--source", str(source), "--out", str(out), "--workers", "1", *options]) == 0
    assert make_stamps.main(["--source", str(stamps), "--out", str(tmp_path / "plain"), "--workers", "1", *options]) == 0
    assert digest(out) == digest(tmp_path / "plain")
    assert not list(tmp_path.rglob("outside.png")) and not list(tmp_path.rglob("unlisted.png"))


def test_a_changed_stamp_is_another_setting(fake, tmp_path, capsys):
    stamps, options = fake
    arguments = ["--source", str(stamps), "--out", str(tmp_path / "data"), "--workers", "1", *options]
    assert make_stamps.main(arguments) == 0
    assert make_stamps.main([*arguments, "--classes", "ant,bee,cat,dog,eel"]) == 2
    assert "stamps is" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["nowhere", "empty", "broken.deb", "broken.tar.gz", "notes.txt"])
def test_a_wrong_source_says_what_is_wrong_and_how_to_get_the_stamps(tmp_path, source, capsys):
    path = tmp_path / source
    if source == "empty":
        path.mkdir()
    elif source != "nowhere":
        path.write_bytes(b"!<arch>\nnonsense" if source == "broken.deb" else b"nonsense")
    assert make_stamps.main(["--source", str(path), "--out", str(tmp_path / "out/data")]) == 2
    message = capsys.readouterr().err
    assert str(path) in message and "apt-get download tuxpaint-stamps-default" in message
    assert not (tmp_path / "out/data").exists()


def test_without_apt_get_the_error_says_how_to_get_the_stamps(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert make_stamps.main(["--out", str(tmp_path / "out/data")]) == 2
    message = capsys.readouterr().err
    assert "no apt-get" in message and "--source" in message


@pytest.mark.parametrize("damage, expected", [("ogg", "cannot be read as sound"), ("png", "cannot be read as a picture")])
def test_a_damaged_file_is_named(fake, tmp_path, damage, expected, capsys):
    stamps, options = fake
    (tmp_path / "stamps/animals").mkdir(parents=True)
    for path in (stamps / "animals").iterdir():
        data = path.read_bytes()
        (tmp_path / "stamps/animals" / path.name).write_bytes(data[:40] if path.suffix == f".{damage}" else data)
    assert (
        make_stamps.main(["--source", str(tmp_path / "stamps"), "--out", str(tmp_path / "data"), "--workers", "1", *options])
        == 2
    )
    message = capsys.readouterr().err
    assert expected in message and str(tmp_path / "stamps/animals") in message


def test_a_list_cannot_name_files_outside_the_stamps_folder(fake, tmp_path, capsys):
    stamps, options = fake
    for row, message in (
        ("../secret,ant,,yes", "../secret"),
        ("animals/ant,ant,../secret,yes", "../secret"),
        ("animals/ant,ant,,maybe", "seen_in_training 'maybe'; expected one of yes, no"),
    ):
        (tmp_path / "list.csv").write_text(f"path,class,recording,seen_in_training\n{row}\n")
        arguments = ["--source", str(stamps), "--out", str(tmp_path / "data"), *options]
        assert make_stamps.main([*arguments, "--list", str(tmp_path / "list.csv")]) == 2
        assert message in capsys.readouterr().err


def test_splits_use_parts_of_a_recording_that_do_not_overlap():
    ramp = np.linspace(0.5, 1, 64000)
    parts = [segment(ramp, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [38400, 12800, 12800]
    assert parts[0].max() < parts[1].min() and parts[1].max() < parts[2].min()
    assert all(np.array_equal(segment(ramp[:32000], split), ramp[:32000]) for split in ("train", "val", "test"))


@pytest.mark.parametrize("seconds", [0.2, 1.5, 3.0, 5.0, 8.0])
def test_recordings_of_any_length_can_be_heard_in_every_second(seconds):
    recording = np.sin(2 * np.pi * 500 * np.arange(int(seconds * 16000)) / 16000)
    sound = play(np.random.default_rng(0), recording, 5)
    assert sound.shape == (80000,) and abs(decibels(sound)) < 0.01
    assert min(decibels(second) for second in sound.reshape(5, -1)) > -6


@pytest.mark.skipif(
    "PCMA_STAMPS" not in os.environ, reason="PCMA_STAMPS names no folder or package of tuxpaint-stamps-default"
)
def test_every_listed_stamp_has_a_cut_out_and_a_sound(tmp_path):
    columns = {"recording": "", "seen_in_training": "yes"}
    rows = make_stamps.read_list(make_stamps.HERE / "stamps.csv", ("path", "class"), **columns)
    backdrops = make_stamps.read_list(make_stamps.HERE / "stamp_backdrops.csv", ("path", "split"))
    assert (
        len({row["class"] for row in rows}) == 48
        and len(rows) == 71
        and not {row["path"] for row in rows} & {row["path"] for row in backdrops}
    )
    wanted = make_stamps.wanted_files(rows, backdrops)
    folder = make_stamps.find_stamps(Path(os.environ["PCMA_STAMPS"]), tmp_path, wanted)
    generator = make_stamps.StampsGenerator(folder, rows, backdrops, 112)
    kinds = {split: generator.object_kinds(split) for split in SPLITS}
    classes = {split: {stamp.class_name for stamp in stamps} for split, stamps in kinds.items()}
    assert {split: len(names) for split, names in classes.items()} == dict(zip(SPLITS, (48, 48, 48, 16, 17)))
    assert not {stamp.file for stamp in kinds["test_photographs"]} & {stamp.file for stamp in kinds["train"]}
    for stamp in [*kinds["train"], *kinds["test_photographs"]]:
        alpha = np.asarray(stamp.picture(np.random.default_rng(0), 100).getchannel("A"))
        assert max(alpha.shape) == 100 and 0.2 < (alpha >= 128).mean() < 0.98, stamp.name
        for split in ("train", "val", "test"):
            sound = stamp.sound(np.random.default_rng(0), 5, split)
            assert min(decibels(second) for second in sound.reshape(5, -1)) > -12, stamp.name
