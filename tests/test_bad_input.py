"""What a user can hand in that is missing, cut off, renamed, huge, empty, malicious or of a wrong type, to every command.

Each row of the table: the command fails with a message that names what is wrong and what was expected, without a traceback;
it leaves every file as it was and no other, and it executes nothing that it reads.
"""

import contextlib
import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_video import make as make_video
from tests_layouts import write_object_layout

from maintain import publish
from pcma_data import avsbench, released, weights
from pcma_data.demo import main as make_demo
from pcma_data.stamps import main as make_stamps
from pcma_lib import AudioVisualModel, training, video
from pcma_lib.training.config import TrainConfig

ROOT = Path(__file__).resolve().parents[1]

TINY = dict(backbone="resnet10t", stages=[8, 8, 8, 8], channels=8, groups=2, heads=2, vggish_width=0.03)
UID = "demo_test_00000"


class Marker:
    """Pickled, it makes a file named `executed` where it is read."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.fixture(scope="module")
def prepared(demo, tmp_path_factory):
    """A data set with the clips that a test split of one clip needs, and a model."""
    folder = tmp_path_factory.mktemp("prepared")
    for name in (UID, "demo_train_00000", "demo_val_00000"):
        shutil.copytree(demo / "v1m" / name, folder / "data" / "v1m" / name)
    header, *rows = (demo / "metadata.csv").read_text().splitlines()
    kept = [row for row in rows if (folder / "data" / "v1m" / row.split(",")[1]).is_dir()]
    (folder / "data" / "metadata.csv").write_text("\n".join([header, *kept]) + "\n")
    shutil.copy(demo / "label2idx.json", folder / "data")
    AudioVisualModel(**TINY).save(folder / "model.safetensors")
    return folder


@pytest.fixture
def here(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} | {
        p.name: None for p in folder.rglob("executed")
    }


@contextlib.contextmanager
def disk_of(size):
    """No file can grow beyond so many bytes: the system refuses in the middle of a write, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size or soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# what is handed in: functions of the folder


def clip(break_it):
    return lambda here: break_it(here / "data" / "v1m" / UID)


def put(name, content=b""):
    return lambda here: (here / name).write_bytes(content)


def png(width, height, *more):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), *more, (b"IDAT", zlib.compress(b"\0" * 99))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def two_masks(here):
    """The colours mark one half, the alpha channel another."""
    gradient = Image.linear_gradient("L").resize((64, 64))
    picture = gradient.rotate(90).convert("RGB")
    picture.putalpha(gradient)
    picture.save(here / MASK)


def flac_of_a_million_hours(folder):
    soundfile.write(folder / "audio.wav", np.zeros(80000), 16000, format="FLAC")
    content = bytearray((folder / "audio.wav").read_bytes())
    content[21:26] = bytes([content[21] | 0x0F, 255, 255, 255, 255])  # STREAMINFO's number of samples
    (folder / "audio.wav").write_bytes(content)


def sound(samples, rate=16000):
    return clip(lambda folder: soundfile.write(folder / "audio.wav", samples, rate, subtype="FLOAT"))


def described(change):
    """objects.json with its first object changed."""

    def write(folder):
        objects = json.loads((folder / "objects.json").read_text())
        objects[0].update(change)
        (folder / "objects.json").write_text(json.dumps(objects))

    return clip(write)


def index(old, new):
    def write(here):
        path = here / "data" / "metadata.csv"
        path.write_bytes(path.read_bytes().replace(old, new))

    return write


def model(change):
    """model.safetensors with other settings inside."""

    def write(here):
        path = here / "model.safetensors"
        save_file(load_file(path), path, {"settings": json.dumps({**TINY, **change}), "metrics": "{}"})

    return write


def cut(name, size):
    return lambda here: (here / name).write_bytes((here / name).read_bytes()[:size])


def resume(change):
    """A resume state of this very run with something changed."""

    def write(here):
        config = TrainConfig.preset("quick", data=str(here / "data"), mixed_precision="no")
        state = {"config": config.to_dict(), "step": 1, "best": None, "seconds": 0.0, "rows": [], "validations": []}
        state |= {"optimizer": {}, "scheduler": {}, "rng": torch.get_rng_state(), "model": load_file("model.safetensors")}
        (here / "run").mkdir()
        torch.save({**state, **change}, here / "run" / "resume.pt")

    return write


def in_run(content):
    def write(here):
        (here / "run").mkdir()
        (here / "run" / "resume.pt").write_bytes(content)

    return write


def torch_archive(name):
    return lambda here: torch.save({"weight": Marker()}, here / name)


def finished_run(name, content):
    def write(here):
        (here / "run").mkdir()
        shutil.copy(here / "model.safetensors", here / "run" / "best.safetensors")
        (here / "run" / "config.json").write_text(json.dumps(TrainConfig.preset("quick", data=str(here / "data")).to_dict()))
        for file in ("log.csv", "validation.csv"):
            (here / "run" / file).write_text("step,epoch\n1,0.5\n")
        (here / "run" / "result.json").write_text("{}")
        (here / "run" / name).write_bytes(content)

    return write


def evil_stamps(here):
    (here / "list.csv").write_text("path,class\n" + "".join(f"a/{n},{n}\n" for n in "abcdef"))
    (here / "backdrops.csv").write_text("path,split\n")
    (here / "evil").write_text("x")
    with tarfile.open(here / "evil.tar.gz", "w:gz") as archive:
        for name in ("stamps/../../escaped", "/tmp/stamps/a/../../escaped", "stamps/a/../a/a.png"):
            archive.add(here / "evil", name)


def raw(name):
    return lambda here: (here / name).write_bytes(b"\xff\xfe\0\x01" * 50)


def both(*steps):
    return lambda here: [step(here) for step in steps]


# the commands


def evaluate(*more):
    return training.main, ["evaluate", "--checkpoint", "model.safetensors", "--data", "data", "--image-size", "64", *more]


def fit(*changes, output="run", preset="quick", more=()):
    changes = ("data={here}/data", "mixed_precision=no", *changes)  # one precision a process, for accelerate
    return training.main, ["fit", "--preset", preset, "--output", output, "--set", *changes, *more]


def mark(*more, target="out.mp4"):
    return video.main, ["in.mp4", target, "--checkpoint", "model.safetensors", "--image-size", "64", *more]


def convert(checkpoint, vggish="vggish.pth"):
    return released.main, ["--checkpoint", checkpoint, "--vggish", vggish, "--out", "out.safetensors"]


def stamps(*more):
    return make_stamps, ["--source", "evil.tar.gz", "--backdrops", "backdrops.csv", "--out", "stamps/out", *more]


PUBLISH = publish.main, ["run", "out"]
RESUMED = fit(more=["--resume"])
BOMB = pickle.dumps(Marker())
VIDEO = lambda here: make_video(here / "in.mp4", 1)  # noqa: E731
FRAME, MASK, OBJECT = (f"data/v1m/{UID}/{name}" for name in ("frames/1.jpg", "labels_rgb/1.png", "objects/1.png"))
DEMO = make_demo, ["--out", "new", "--clips", "1,0,0", "--size", "64", "--workers", "1"]
S4 = avsbench.main, ["--dataset", "s4", "--no-counts", "--workers", "1"]
TABLE = [
    # name, what is handed in, the command, what its message says, bytes that a file can have
    ("an empty picture", put(FRAME), evaluate(), ["1.jpg", "PNG or JPEG"]),
    ("a text named .png", put(MASK, b"mask"), evaluate(), ["1.png", "PNG or JPEG"]),
    ("PostScript named .jpg", put(FRAME, b"%!PS-Adobe-3.0\n%%BoundingBox: 0 0 9 9\n"), evaluate(), ["1.jpg", "PNG"]),
    ("a mask of class numbers", lambda h: Image.new("L", (64, 64), 9).save(h / MASK), evaluate(), ["1.png", "grey 9"]),
    ("two masks in one", two_masks, evaluate(), ["1.png", "colours", "alpha"]),
    ("a picture of 60000 x 60000", put(MASK, png(60000, 60000)), evaluate(), ["1.png", "pixels"]),
    ("a picture of 8192 x 8193", put(MASK, png(8192, 8193)), evaluate(), ["1.png", "8192 x 8193", "at most"]),
    ("a text that unpacks to 64 MB", put(MASK, png(9, 9, (b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 2**26)))), evaluate(),
     ["1.png"]),
    ("a folder for a picture", both(lambda h: (h / MASK).unlink(), lambda h: (h / MASK).mkdir()), evaluate(), ["1.png"]),
    ("an empty sound", put(f"data/v1m/{UID}/audio.wav"), evaluate(), ["audio.wav", "not a readable sound"]),
    ("a picture named .wav", put(f"data/v1m/{UID}/audio.wav", png(9, 9)), evaluate(), ["audio.wav", "not a readable sound"]),
    ("a sound of no samples", sound(np.zeros(0)), evaluate(), ["audio.wav", "0.00 s", "5 s"]),
    ("a sound of no samples at 44.1 kHz", sound(np.zeros(0), 44100), evaluate(), ["audio.wav", "0.00 s", "5 s"]),
    ("a sound of a million hours", clip(flac_of_a_million_hours), evaluate(), ["audio.wav"]),
    ("a rate that no sound has", sound(np.zeros(5 * 400), 400), evaluate(), ["audio.wav", "400 Hz", "44100"]),
    ("whole numbers as floats", sound(np.full(80000, 20000.0)), evaluate(), ["audio.wav", "2e+04", "-1 to 1"]),
    ("no label2idx.json", lambda h: (h / "data/label2idx.json").unlink(), evaluate(), ["label2idx.json"]),
    ("an empty label2idx.json", put("data/label2idx.json"), evaluate(), ["label2idx.json", "JSON"]),
    ("classes without numbers", put("data/label2idx.json", b'["dog"]'), evaluate(), ["label2idx.json", "class names"]),
    ("classes numbered twice", put("data/label2idx.json", b'{"a": 0, "b": 0}'), evaluate(), ["label2idx.json", "once"]),
    ("bottomless JSON", put("data/label2idx.json", b"[" * 200000), evaluate(), ["label2idx.json", "JSON"]),
    ("an object of no class", described({"class": "unicorn"}), evaluate(), ["objects.json", "class"]),
    ("an object that sounds for a second", described({"sounds": [1]}), evaluate(), ["objects.json", "5 of 0 and 1"]),
    ("16-bit instances", lambda h: Image.fromarray(np.zeros((64, 64), np.uint16)).save(h / OBJECT), evaluate(),
     ["1.png", "8-bit"]),
    ("an instance of no object", lambda h: Image.fromarray(np.full((64, 64), 99, np.uint8)).save(h / OBJECT), evaluate(),
     ["1.png", "object 99"]),
    ("objects' sounds of one channel",
     clip(lambda c: soundfile.write(c / "objects.wav", np.zeros(80000), 16000)), evaluate(), ["objects.wav", "1 channels"]),
    ("an empty index", put("data/metadata.csv"), evaluate(), ["metadata.csv", "columns"]),
    ("an index that is a picture", put("data/metadata.csv", png(9, 9)), evaluate(), ["metadata.csv", "CSV"]),
    ("an index with an absolute path", index(UID.encode(), b"/etc"), evaluate(), ["/etc", "outside the data folder"]),
    ("an index with a zero byte", index(UID.encode(), b"a\0b"), evaluate(), ["no file name", "data"]),
    ("an index with a field of a megabyte", index(UID.encode(), b"a" * 2**20), evaluate(), ["metadata.csv", "limit"]),
    ("an index with a row cut off", index(b"v1m", b"v1m\nx,y"), evaluate(), ["metadata.csv", "row 2", "split"]),
    ("an index with a label of its own", index(b",v1m,", b",v9,"), evaluate(), ["metadata.csv", "'v9'", "v1s, v1m or v2"]),
    ("no folder of data", lambda h: None, evaluate("--data", "nowhere"), ["nowhere/metadata.csv"]),
    ("an image size of zero", lambda h: None, evaluate("--image-size", "0"), ["image_size", "0"]),
    ("an image size of 100", both(index(b",train,", b",test,"), index(b",val,", b",test,")),
     evaluate("--image-size", "100"), ["divisible by 32", "100"]),
    ("an empty checkpoint", put("model.safetensors"), evaluate(), ["model.safetensors", "not a checkpoint"]),
    ("a checkpoint cut off", cut("model.safetensors", 90000), evaluate(), ["model.safetensors", "not a checkpoint"]),
    ("a header of an exabyte", put("model.safetensors", (2**60).to_bytes(8, "little") + b"{"), evaluate(), ["model.safe"]),
    ("tensors of another program", lambda h: save_file({"a": torch.zeros(1)}, "model.safetensors"), evaluate(),
     ["model.safetensors", "not a checkpoint of this project"]),
    ("settings of another model", model({"channels": 16}), evaluate(), ["model.safetensors", "does not fit"]),
    ("settings of a petabyte", model({"channels": 2**25}), evaluate(), ["model.safetensors", "does not fit"]),
    ("settings that would fetch weights", model({"pretrained": True}), evaluate(), ["model.safetensors", "pretrained"]),
    ("settings of a wrong type", model({"network": ["avs"], "stages": 8}), evaluate(), ["model.safetensors"]),
    ("a pickle named .safetensors", put("model.safetensors", BOMB), evaluate(), ["model.safetensors", "not a checkpoint"]),
    ("a pickle named .pth", put("vggish.pth", BOMB), convert("vggish.pth"), ["vggish.pth", "not a readable checkpoint"]),
    ("an archive with a pickle", torch_archive("a.pth"), convert("a.pth"), ["a.pth", "not a readable checkpoint"]),
    ("a list named .pth", lambda h: torch.save([1], h / "a.pth"), convert("a.pth"), ["a.pth", "list", "tensors by name"]),
    ("an unknown download", put("a.pth"), (weights.main, ["--out", "w", "--from", "a.pth"]), ["a.pth", "sha256"]),
    ("a pickle as resume.pt", in_run(BOMB), RESUMED, ["run/resume.pt", "delete it"]),
    ("an empty resume.pt", in_run(b""), RESUMED, ["run/resume.pt", "delete it"]),
    ("a resume.pt without its parts", lambda h: (os.mkdir("run"), torch.save({"step": 1}, "run/resume.pt")), RESUMED,
     ["run/resume.pt", "config"]),
    ("a resume.pt of another model", resume({}), RESUMED, ["run/resume.pt", "size mismatch"]),
    ("a resume.pt with settings of wrong types", resume({"config": {"epochs": "ten"}}), RESUMED, ["resume.pt", "epochs"]),
    ("a file as the run's folder", put("run"), fit(), ["run", "folder", "file"]),
    ("a run's folder below a file", put("a"), fit(output="a/run"), ["a/run", "folder", "file"]),
    ("a run's folder that cannot be", lambda h: None, fit(output="/sys/run"), ["/sys/run"]),
    ("a preset of no name", lambda h: None, fit(preset="best"), ["'best'", "quick"]),
    *[
        (f"{name}={value}", lambda h: None, fit(f"{name}={value}"), [name, said])
        for name, value, said in [
            ("max_steps", '"ten"', "int"), ("learning_rate", "NaN", "float"), ("learning_rate", "1e999", "inf"),
            ("without", "qsca", "tuple"), ("without", "[1]", "str"), ("without", '["colour"]', "avga"),
            ("stage_weights", "[1, 1]", "4 of float"), ("stage_weights", "1", "tuple"), ("stages", "[8, 8.5, 8, 8]", "int"),
            ("workers", "-1", "negative"), ("seed", "-1", "negative"), ("clip_gradients", "0", "positive"),
            ("backbone", "resnet", "timm"), ("heads", "3", "32"), ("groups", "5", "32"), ("threshold", "2", "0.5"),
            ("vggish_weights", "nowhere.pth", "pcma-data weights"), ("cache", "yes", "bool"), ("epochs", "", "int"),
            ("name", "1", "no name"),
        ]
    ],
    ("a run of no settings", finished_run("config.json", b"{}x"), PUBLISH, ["config.json", "JSON"]),
    ("a run of other settings", finished_run("config.json", b'{"colour": 1}'), PUBLISH, ["config.json", "colour"]),
    ("a log of no numbers", finished_run("log.csv", b"step,epoch\none,1\n"), PUBLISH, ["log.csv", "numbers"]),
    ("a text as a video", put("in.mp4", b"x" * 99), mark(), ["in.mp4", "99 bytes"]),
    ("a target below a file", both(VIDEO, put("a")), mark(target="a/out.mp4"), ["a"]),
    ("no masks a second", VIDEO, mark("--fps", "nan"), ["fps", "nan"]),
    ("a size for videos of 100", VIDEO, mark("--image-size", "100"), ["divisible by 32", "100"]),
    ("a disk too full for a video", VIDEO, mark(), ["out.mp4"], 3000),
    ("a file as the folder of a download",
     both(put("new"), lambda h: write_object_layout(h / "s4", "s4_data", True, "{name}_{k}.png")),
     (S4[0], [*S4[1], "--source", "s4", "--out", "new"]), ["new", "folder", "file"]),
    ("an empty archive", put("a.zip"), (S4[0], [*S4[1], "--source", "a.zip", "--out", "new"]), ["a.zip", "download it"]),
    ("a text named .tar.gz", put("a.tar.gz", b"x"), (S4[0], [*S4[1], "--source", "a.tar.gz", "--out", "new"]), ["a.tar.gz"]),
    ("stamps that leave the folder", evil_stamps, stamps("--list", "list.csv"), ["lacks 12 of 12 files", "a/a.png"]),
    ("a list of no text", both(evil_stamps, raw("list.csv")), stamps("--list", "list.csv"), ["list.csv"]),
    ("a list cut off", both(evil_stamps, put("list.csv", b"path,class\na\n")), stamps("--list", "list.csv"), ["list.csv"]),
    ("a file as the folder of clips", put("new"), DEMO, ["new", "directory"]),
    ("settings of a data set cut off", lambda h: (os.mkdir("new"), put("new/dataset.json", b'{"a')(h)), DEMO,
     ["new/dataset.json", "delete"]),
]  # fmt: skip


def said_by(main, arguments, capsys):
    """Exit status and message of a command run in this process, where anything but an exit is a traceback."""
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    message = capsys.readouterr().err
    return (1, status) if isinstance(status, str) else (status, message)


@pytest.mark.parametrize("give, command, words, disk", [pytest.param(*r[1:4], *(r[4:] or [None]), id=r[0]) for r in TABLE])
def test_is_refused_by_name_and_nothing_is_left_or_executed(here, capsys, give, command, words, disk):
    give(here)
    before = everything(here)
    main, arguments = command
    with disk_of(disk):
        status, message = said_by(main, [a.replace("{here}", str(here)) for a in arguments], capsys)
    assert status not in (0, None)
    assert "error: " in message and "Traceback" not in message
    assert not [word for word in words if word not in message], message
    assert everything(here) == before


@pytest.mark.parametrize("half", [False, True])
def test_a_full_disk_leaves_the_old_model_and_names_it(here, half):
    path, before = here / "model.safetensors", everything(here)
    with disk_of(50000), pytest.raises(OSError, match=r"model\.safetensors could not be written, \d+ bytes are free"):
        AudioVisualModel(**TINY).save(path, half=half)
    assert everything(here) == before and AudioVisualModel.load(path)


def test_a_disk_that_fills_up_keeps_the_clips_that_are_whole(here, capsys):
    with disk_of(20000):
        status, message = said_by(*DEMO, capsys)
    assert status == 2 and "error: " in message
    assert [p.name for p in (here / "new").rglob("*") if p.is_file()] == ["dataset.part.json"]
    status, _ = said_by(*DEMO, capsys)
    assert status == 0


def test_weights_that_a_disk_has_no_room_for_are_named(tmp_path, capsys):
    torch.save(torch.nn.Linear(100, 100).state_dict(), tmp_path / "tiny.pth")
    digest = weights.sha256_of(tmp_path / "tiny.pth")
    table = [weights.Weights("tiny", "http://nowhere/tiny.pth", digest, "MIT", lambda: torch.nn.Linear(100, 100))]
    with disk_of(9000):
        assert weights.main(["--out", str(tmp_path / "w"), "--from", str(tmp_path / "tiny.pth")], table) == 1
    assert "tiny.safetensors could not be written" in capsys.readouterr().err and not list((tmp_path / "w").iterdir())


def test_a_real_process_prints_no_traceback(here):
    (here / "model.safetensors").write_bytes(BOMB)
    main, arguments = evaluate()
    command = [sys.executable, "-m", "pcma_lib.training", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 1 and done.stdout == "" and not (here / "executed").exists()
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr


def test_papermill_fails_with_the_parameter_that_is_wrong(tmp_path):
    pytest.importorskip("papermill")
    command = [sys.executable, "-m", "papermill", "notebooks/08_training.ipynb", tmp_path / "out.ipynb"]
    command += ["-p", "epochs", "ten", "-p", "output", tmp_path / "run", "--no-progress-bar"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "ValueError: epochs must be int, got 'ten'" in done.stderr
    assert not (tmp_path / "run").exists()
