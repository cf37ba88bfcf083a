import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tests_layouts import write_object_layout

from pcma_lib import AVSS, MS3, S4
from pcma_lib.data.clip import collate
from pcma_lib.data.controls import CONTROLS, gate, silent_objects
from pcma_lib.data.files import palette, read_mask


@pytest.fixture
def copy(demo, tmp_path):
    """A data set that a test may break, with one clip a split."""
    shutil.copytree(demo, tmp_path / "data")
    return tmp_path / "data"


def truncate(path, size):
    path.write_bytes(path.read_bytes()[:size])


def first(folder):
    return folder / "v1m" / "demo_test_00000"


def test_a_clip_has_the_documented_shapes(demo):
    clip = AVSS(demo, "test", image_size=96)[0]
    assert clip.frames.shape == (5, 3, 96, 96)
    assert clip.log_mel.shape == (5, 1, 96, 64)
    assert clip.masks.shape == (5, 96, 96) and set(clip.masks.unique().tolist()) <= {0, 1}
    assert clip.labelled.all() and clip.valid.all()


def test_masks_are_the_objects_that_sound(demo):
    data = AVSS(demo, "train", image_size=64)
    for index in range(len(data)):
        raw = data.raw(index)
        expected = np.zeros_like(raw.masks)
        for number, item in enumerate(raw.objects, 1):
            sounds = np.array(item["sounds"])[:, None, None] * item["on_screen"]
            expected |= ((raw.instances == number) * sounds).astype(np.uint8)
        assert (raw.masks == expected).all()
        assert silent_objects(raw), "every clip has a visible object that never sounds"


def test_the_mixture_is_the_gated_sum_of_the_objects(demo):
    raw = AVSS(demo, "train").raw(0)
    inner = np.zeros(80000, bool)
    for second in range(5):
        inner[second * 16000 + 800 : second * 16000 + 15200] = True
    mixed = sum(wave * gate(o["sounds"]) for wave, o in zip(raw.object_waves, raw.objects))
    assert np.abs(raw.wave - mixed)[inner].max() < 0.05


@pytest.mark.parametrize("control", CONTROLS)
def test_controls_are_the_same_every_time_and_differ_from_the_original(demo, control):
    data = AVSS(demo, "test", image_size=64)
    again = [data.with_sound(control)[0].log_mel for _ in range(2)]
    assert torch.equal(*again)
    assert not torch.equal(again[0], data[0].log_mel)


def test_unheard_clips_and_controls_have_no_sound_that_training_holds(copy):
    assert len(AVSS(copy, "test", unheard=True)) == len(AVSS(copy, "test")), "the demo's splits share no sound"
    with pytest.raises(ValueError, match="unheard"):
        AVSS(copy, "train", unheard=True)
    index = (copy / "metadata.csv").read_text()
    (copy / "metadata.csv").write_text(index.replace(",v1m,", ",v3,"))
    with pytest.raises(ValueError, match="expected v1s, v1m or v2"):
        AVSS(copy, "test", unheard=True)
    (copy / "metadata.csv").write_text(index)
    unheard = {"siren", "clock", "engine", "kettle"}
    for path in copy.glob("v1m/*/objects.json"):
        objects = json.loads(path.read_text())
        path.write_text(json.dumps([{**o, "heard_in_training": o["class"] not in unheard} for o in objects]))
    everything, data = (AVSS(copy, "train", image_size=64, unheard=only) for only in (False, True))
    raws = {everything.name(i): everything.raw(i) for i in range(len(everything))}
    classes = {name: {o["class"] for o in raw.objects} for name, raw in raws.items()}
    without = {name for name in raws if unheard <= classes[name]}  # all four are in the picture: nothing is foreign
    expected = []
    for name, raw in raws.items():
        sounding = {o["class"] for o in raw.objects if any(o["sounds"])}
        silent = {raw.objects[i]["class"] for i in silent_objects(raw)}
        if sounding <= unheard and silent & unheard and name not in without:
            expected.append(name)
    assert without and [data.name(i) for i in range(len(data))] == expected
    waves = [(o["class"], w) for raw in raws.values() for o, w in zip(raw.objects, raw.object_waves)]
    for control in ("other_object", "off_screen"):
        for data.seed in range(5):
            for i in range(len(data)):
                wave = data.with_sound(control).wave(i)
                (sound,) = {name for name, w in waves if np.array_equal(wave, w)}
                assert sound in unheard and (sound in classes[data.name(i)]) == (control == "other_object")


def test_unheard_clips_need_data_that_tell(copy, tmp_path):
    path = first(copy) / "objects.json"
    path.write_text(
        json.dumps([{k: v for k, v in o.items() if k != "heard_in_training"} for o in json.loads(path.read_text())])
    )
    with pytest.raises(ValueError, match=r"objects\.json does not say"):
        AVSS(copy, "test", unheard=True)
    path.unlink()
    with pytest.raises(ValueError, match=r"no .*objects\.json"):
        AVSS(copy, "test", unheard=True)
    write_object_layout(tmp_path / "s4", "s4_data", True, "{name}_{k}.png")
    with pytest.raises(ValueError, match="S4"):
        S4(tmp_path / "s4", "test", unheard=True)


@pytest.mark.parametrize("break_it, error, message", [
    (lambda c: (c / "frames" / "2.jpg").unlink(), FileNotFoundError, r"2\.jpg"),
    (lambda c: truncate(c / "labels_rgb" / "1.png", 60), ValueError, r"1\.png"),
    (lambda c: truncate(c / "audio.wav", 20000), ValueError, r"audio\.wav"),
    (lambda c: Image.new("RGB", (10, 10)).save(c / "labels_rgb" / "0.png"), ValueError, r"0\.png.*size"),
    (lambda c: soundfile.write(c / "audio.wav", np.full(80000, np.nan), 16000, subtype="FLOAT"), ValueError, r"NaN"),
])  # fmt: skip
def test_broken_files_are_named(copy, break_it, error, message):
    break_it(first(copy))
    with pytest.raises(error, match=message):
        AVSS(copy, "test")[0]


@pytest.mark.parametrize("rate, channels", [(44100, 2), (8000, 1), (44099, 1)])
def test_sound_of_other_rates_and_channels_is_read(copy, rate, channels):
    soundfile.write(first(copy) / "audio.wav", np.zeros((rate * 5, channels)), rate)
    assert AVSS(copy, "test")[0].log_mel.shape == (5, 1, 96, 64)


def test_sound_that_is_too_long_is_cut_and_a_missing_end_filled(copy):
    wave = np.random.default_rng(0).uniform(-0.1, 0.1, 16000 * 7)
    expected = None
    for seconds in (5, 7, 4.5):
        soundfile.write(first(copy) / "audio.wav", wave[: int(seconds * 16000)], 16000)
        log_mel = AVSS(copy, "test", 64)[0].log_mel
        expected = log_mel if expected is None else expected
        assert torch.equal(log_mel[:4], expected[:4]), seconds
        assert log_mel.shape == (5, 1, 96, 64)


@pytest.mark.parametrize("mode, marked", [("1", 1), ("L", 255), ("L", 1), ("P", 1), ("RGB", (128, 0, 0))])
def test_binary_masks_are_read_from_every_mode_in_use(tmp_path, mode, marked):
    image = Image.new(mode, (3, 2))
    if mode == "P":
        image.putpalette([0, 0, 0, 128, 0, 0])
    image.putpixel((1, 0), marked)
    image.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tolist() == [[0, 1, 0], [0, 0, 0]]


def test_an_empty_split_and_a_missing_index_are_named(copy, tmp_path):
    with pytest.raises(ValueError, match="no clip of split 'other'"):
        AVSS(copy, "other")
    with pytest.raises(FileNotFoundError, match="metadata.csv"):
        AVSS(tmp_path, "test")


def test_an_index_that_leaves_the_folder_is_refused(copy):
    text = (copy / "metadata.csv").read_text().replace("demo_test_00000", "../../demo_test_00000")
    (copy / "metadata.csv").write_text(text)
    with pytest.raises(ValueError, match="outside the data folder"):
        AVSS(copy, "test")[0]


def test_palette_follows_the_published_rule(tmp_path):
    assert palette(5).tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    Image.fromarray(palette(71)[np.array([[0, 70], [9, 1]])]).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", 71).tolist() == [[0, 70], [9, 1]]
    Image.fromarray(np.full((2, 2, 3), 7, np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match="colour"):
        read_mask(tmp_path / "m.png", 71)


@pytest.mark.parametrize("pattern", ["{name}_{k}.png", "{name}.mp4_{k}.png"])
def test_s4_labels_the_first_frame_in_training_and_ms3_all(tmp_path, pattern):
    write_object_layout(tmp_path, "s4_data", True, pattern)
    write_object_layout(tmp_path, "ms3_data", False, pattern)
    assert S4(tmp_path, "train", 32)[0].labelled.tolist() == [True, False, False, False, False]
    assert S4(tmp_path, "test", 32)[0].labelled.all()
    assert MS3(tmp_path, "train", 32)[0].masks.float().mean() == 1


def test_clips_of_different_lengths_are_padded_and_flagged(demo):
    long = AVSS(demo, "test", 64)[0]
    short = AVSS(demo, "test", 64)[1]
    for field in ("frames", "log_mel", "masks", "labelled", "valid"):
        setattr(short, field, getattr(short, field)[:3])
    batch = collate([long, short])
    assert batch.frames.shape == (2, 5, 3, 64, 64)
    assert batch.valid.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert not batch.labelled[1, 3:].any()


def test_the_published_index_of_ms3_names_its_clips_video_id(tmp_path):
    write_object_layout(tmp_path, "ms3_data", False, "{name}_{k}.png")
    index = tmp_path / "ms3_meta_data.csv"
    index.write_text(index.read_text().replace("name,", "video_id,", 1))
    assert MS3(tmp_path, "train", 32).name(0)
