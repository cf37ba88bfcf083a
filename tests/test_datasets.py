import shutil

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from tests_layouts import write_object_layout

from pcma_lib import AVSS, MS3, S4, AudioVisualModel
from pcma_lib.data import avsbench
from pcma_lib.data.clip import collate
from pcma_lib.data.controls import CONTROLS, gate, silent_objects
from pcma_lib.data.files import palette, read_frame, read_mask
from pcma_lib.measure.evaluation import evaluate


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
        silent = [i for i, item in enumerate(raw.objects) if item["on_screen"] and sum(item["sounds"]) == 0]
        assert silent_objects(raw) == silent != [], "every clip has a visible object that never sounds"


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


@pytest.mark.parametrize("control", ["other_object", "off_screen"])
def test_a_control_plays_one_object_alone_a_silent_one_of_the_clip_or_one_that_it_lacks(demo, control):
    data = AVSS(demo, "train", image_size=64)
    raws = [data.raw(index) for index in range(len(data))]
    waves = [(o["class"], wave) for raw in raws for o, wave in zip(raw.objects, raw.object_waves)]
    for data.seed in range(3):
        for index, raw in enumerate(raws):
            wave = data.with_sound(control).wave(index)
            (sound,) = {name for name, alone in waves if np.array_equal(wave, alone)}
            silent = {raw.objects[i]["class"] for i in silent_objects(raw)}
            assert sound in silent if control == "other_object" else sound not in {o["class"] for o in raw.objects}


def test_a_label_that_avss_does_not_have_is_named(copy):
    index = (copy / "metadata.csv").read_text()
    (copy / "metadata.csv").write_text(index.replace(",v1m,", ",v3,"))
    with pytest.raises(ValueError, match="'v3' of demo_test_00000; expected v1s, v1m or v2"):
        AVSS(copy, "test")[0]


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


def white(shape, value=255, kind=np.uint8):
    return Image.fromarray(np.where(shape, value, 0).astype(kind))


def with_alpha(picture, alpha):
    picture.putalpha(alpha)
    return picture


def with_palette(shape, colours, **options):
    picture = Image.fromarray(shape.astype(np.uint8), "P")
    picture.putpalette(colours)
    picture.info.update(options)
    return picture


SHAPE = np.zeros((16, 24), bool)
SHAPE[2:9, 5:20] = True
MASKS = {  # all but the last ones show SHAPE
    "1-bit": lambda: Image.fromarray(SHAPE),
    "0 and 1": lambda: white(SHAPE, 1),
    "0 and 255": lambda: white(SHAPE),
    "0 and 128": lambda: white(SHAPE, 128),
    "16 bits, 0 and 1": lambda: white(SHAPE, 1, np.uint16),
    "16 bits, 0 and 255": lambda: white(SHAPE, 255, np.uint16),
    "16 bits, 0 and 65535": lambda: white(SHAPE, 65535, np.uint16),
    "white as RGB": lambda: white(SHAPE).convert("RGB"),
    "a colour": lambda: Image.composite(Image.new("RGB", (24, 16), (0, 64, 0)), Image.new("RGB", (24, 16)), white(SHAPE)),
    "the grey of a class": lambda: Image.merge("RGB", [white(SHAPE, 64)] * 3),
    "a palette": lambda: with_palette(SHAPE, [0, 0, 0, 128, 0, 0]),
    "a palette that shows the mask": lambda: with_palette(SHAPE, [0, 0, 0, 255, 0, 0], transparency=0),
    "alpha of a black palette": lambda: with_palette(SHAPE, [0, 0, 0, 0, 0, 0], transparency=0),
    "alpha of white L": lambda: with_alpha(Image.new("L", (24, 16), 255), white(SHAPE)),
    "alpha of black L": lambda: with_alpha(Image.new("L", (24, 16), 0), white(SHAPE)),
    "alpha of white RGB": lambda: with_alpha(Image.new("RGB", (24, 16), "white"), white(SHAPE)),
    "alpha of red RGB": lambda: with_alpha(Image.new("RGB", (24, 16), "red"), white(SHAPE)),
    "colours, all shown": lambda: with_alpha(white(SHAPE).convert("RGB"), white(SHAPE | True)),
    "colours, cut out": lambda: with_alpha(white(SHAPE).convert("RGB"), white(SHAPE)),
}
NEITHER = {
    **{f"0 and {v}": lambda v=v: white(SHAPE, v) for v in (2, 15, 127)},
    "16 bits, 0 and 3000": lambda: white(SHAPE, 3000, np.uint16),
    "a class and what to ignore": lambda: Image.fromarray(
        np.where(SHAPE, 15, np.where(np.eye(16, 24), 255, 0)).astype(np.uint8)
    ),
    "faint alpha": lambda: with_alpha(Image.new("RGB", (24, 16), "white"), white(SHAPE, 9)),
    "one mask in the colours and one in alpha": lambda: with_alpha(white(SHAPE).convert("RGB"), white(SHAPE[:, ::-1])),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_is_read_from_whatever_carries_it(tmp_path, kind):
    MASKS[kind]().save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png") == SHAPE).all()


@pytest.mark.parametrize("kind", NEITHER)
def test_a_mask_that_can_mean_two_things_is_refused_by_name(tmp_path, kind):
    NEITHER[kind]().save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"mask\.png has (areas of grey|one mask in its colours and another)"):
        read_mask(tmp_path / "mask.png")


def test_a_mask_that_is_wholly_transparent_or_black_is_empty(tmp_path):
    for picture in (with_alpha(Image.new("RGB", (4, 4), "white"), Image.new("L", (4, 4), 0)), Image.new("L", (4, 4))):
        picture.save(tmp_path / "mask.png")
        assert not read_mask(tmp_path / "mask.png").any()


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_soft_edges_and_the_noise_of_a_jpeg_are_cut_at_half(tmp_path, ending):
    shape = np.kron(SHAPE, np.ones((8, 8), bool))
    for mode in ("L", "RGB"):
        white(shape).filter(ImageFilter.GaussianBlur(2)).convert(mode).save(tmp_path / f"mask.{ending}", quality=40)
        wrong = read_mask(tmp_path / f"mask.{ending}") != shape
        assert wrong.sum() < 24, "a few pixels at the corners"


def test_frames_of_16_bits_keep_their_shades(tmp_path):
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(grey * 257).save(tmp_path / "frame.png")
    assert (read_frame(tmp_path / "frame.png") == grey[..., None]).all()


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


@pytest.mark.parametrize("written", [
    "video_id,split\n{0},train\n", "\ufeffvideo_id,split\n{0},train\n", '"video_id","split"\n"{0}","train"\n',
    '\ufeff"split","video_id"\r\n"train","{0}"\r\n', "split,video_id\r\ntrain,{0}\r\n", "split, video_id \ntrain,{0}\n",
    "video_id,split,name\n7,train,{0}\n",
])  # fmt: skip
def test_the_published_index_of_ms3_names_its_clips_video_id(tmp_path, written):
    write_object_layout(tmp_path, "ms3_data", False, "{name}_{k}.png")
    (tmp_path / "ms3_meta_data.csv").write_bytes(written.format("clip_train").encode())
    data = MS3(tmp_path, "train", 32)
    assert [data.name(i) for i in range(len(data))] == ["clip_train"] and len(data[0].frames) == 5


def shapes(root, count):
    """Clips of S4, four of a category, each with a sound of its own; frames are white where the masks are marked."""
    rng, rows = np.random.default_rng(0), ["name,category,split"]
    for number in range(count):
        name, category = f"clip{number}", f"class{number // 4}"
        shape = np.zeros((60, 90), bool)
        shape[10:25, 5:40] = shape[20:50, 50:60] = True
        for folder in ("visual_frames", "gt_masks"):
            (root / "s4_data" / folder / "train" / category / name).mkdir(parents=True)
            for k in range(1, 6):
                picture = white(shape).convert("RGB" if folder == "visual_frames" else "1")
                picture.save(root / "s4_data" / folder / "train" / category / name / f"{name}_{k}.png")
        sounds = root / "s4_data" / "audio_wav" / "train" / category
        sounds.mkdir(parents=True, exist_ok=True)
        soundfile.write(sounds / f"{name}.wav", rng.uniform(-0.1, 0.1, 80000), 16000)
        rows.append(f"{name},{category},train")
    (root / "s4_meta_data.csv").write_text("\n".join(rows))


@pytest.mark.parametrize("size", [60, 96])
def test_augmentation_moves_a_mask_with_its_frame(tmp_path, size):
    shapes(tmp_path, 1)
    data, flipped, stored = S4(tmp_path, "train", size, training=True), 0, S4(tmp_path, "train", size)[0].masks[0]
    for epoch in range(12):
        data.set_epoch(epoch)
        clip = data[0]
        frame, mask = clip.frames[0].mean(0), clip.masks[0].bool()
        shown = frame > (frame.min() + frame.max()) / 2
        whole = mask[None].float()
        away = (F.max_pool2d(whole, 3, 1, 1) == -F.max_pool2d(-whole, 3, 1, 1))[0]
        assert torch.equal(shown[away], mask[away]), "but for the edges, which the frame has smooth and the mask sharp"
        assert away.float().mean() > 0.8
        assert not torch.equal(mask, stored.bool())
        flipped += mask[:, : size // 2].sum() < mask[:, size // 2 :].sum()
    assert 0 < flipped < 12


def test_without_augmentation_training_gives_the_stored_clip(tmp_path):
    shapes(tmp_path, 2)
    plain = S4(tmp_path, "train", 48)
    for augment in (False, True):
        data = S4(tmp_path, "train", 48, training=True, augment=augment)
        for index in range(2):
            for field in ("frames", "masks", "log_mel"):
                same = torch.equal(getattr(data[index], field), getattr(plain[index], field))
                assert same != augment, field


def test_the_sound_of_another_clip_is_read_without_its_pictures(tmp_path, monkeypatch):
    shapes(tmp_path, 8)
    data = S4(tmp_path, "train", 48)
    expected = [data.stored_wave(i) for i in range(8)]
    opened = []
    monkeypatch.setattr(avsbench, "read_frame", lambda path: opened.append(path) or read_frame(path))
    for index in range(8):
        opened.clear()
        wave = data.with_sound("swapped").wave(index)
        assert len(opened) == 5 and all(path.parent.name == data.name(index) for path in opened)
        (source,) = [i for i in range(8) if np.array_equal(wave, expected[i])]
        assert data.category(source) != data.category(index)


def test_evaluation_reads_a_clip_once_for_all_controls_and_measures_what_each_gives(demo, monkeypatch):
    data, model, read = AVSS(demo, "test", 64), AudioVisualModel.demo(), []  # an untrained one marks nothing, or all
    monkeypatch.setattr(avsbench, "read_frame", lambda path: read.append(path) or read_frame(path))
    result = evaluate(model, data, batch_size=4, controls="all")
    assert result["controls"].keys() == CONTROLS.keys() and 0 < result["marked"] < 1
    assert sorted(read) == sorted({*read}), "the first clip, which tells whether the data are composed, among them"
    for control, row in result["controls"].items():
        alone = evaluate(model, data.with_sound(control), batch_size=4)
        assert (row["marked"], row["miou"]) == (alone["marked"], alone["miou_sounding"])
        lost = result["miou_sounding"] - row["miou"]
        assert control == "other_object" or row["drop"] * result["miou_sounding"] == pytest.approx(lost)


def test_a_clip_is_kept_until_the_next_and_all_of_them_with_a_cache(tmp_path):
    shapes(tmp_path, 3)
    for cache, kept in ((False, 1), (True, 3)):
        data = S4(tmp_path, "train", 48, cache=cache)
        first = data.raw(0)
        assert data.with_sound("muted").raw(0) is data.raw(0) is first
        for index in (1, 2):
            data.raw(index)
        assert len(data._read_clips) == kept and (data.raw(0) is first) == cache


@pytest.mark.parametrize(
    "place, said",
    [("visual_frames/clip_test/clip_test_2.png", "of the clip's first frame"), ("gt_masks/test/clip_test", "its frame's")],
)
def test_pictures_of_a_clip_that_differ_in_size_are_named(tmp_path, place, said):
    write_object_layout(tmp_path, "ms3_data", False, "{name}_{k}.png")
    path = tmp_path / "ms3_data" / place
    path = path / "clip_test_2.png" if path.is_dir() else path
    Image.new("RGB" if "visual" in place else "1", (64, 64)).save(path)
    with pytest.raises(ValueError, match=rf"clip_test_2.png: size \(64, 64\) differs from .*{said}"):
        MS3(tmp_path, "test", 32).raw(0)
