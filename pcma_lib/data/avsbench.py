"""AVSBench's S4, MS3 and AVSS, and the composed data sets in the same layout (paper V-A)."""

import copy
import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from ..registry import Registry
from .clip import MEAN, STD, Clip, Raw, log_mel_of
from .controls import other_sound, remix
from .files import inside, read_classes, read_frame, read_instances, read_mask, read_objects, read_rows, read_wave


class AVSBench(Dataset):
    """What the three layouts share, and what a data set of your own starts from.

    A subclass says which clips there are and which splits they are in (`read_index`), and where the files of each lie
    (`paths`); it inherits reading, resizing, augmentation and the controls.

    Args:
        root: folder of the layout. split: "train", "val" or "test"; of the stamps also "test_photographs" or "test_sounds".
        image_size: side in pixels to which frames and masks are brought.
        training: True draws anew every epoch what `augment`, `negative_audio` and `remix` leave to chance.
        semantic: masks hold classes (AVSS only) instead of 0/1.
        cache: keep all decoded clips in memory, not the last one alone.
        seed: of the augmentation and of the controls; `set_epoch` varies the former.
        negative_audio: share of training clips that get no sound, noise or another clip's, and an empty mask.
        remix: share of training clips of composed data whose sounding objects are drawn anew.
        sound: None, or a control of `controls.CONTROLS` applied to every clip.
        augment: False leaves training clips as they are stored: no crop, flip, change of colour or of loudness.

    Raises:
        FileNotFoundError: no index. ValueError: an empty split, an index that can't be read or lacks columns.
    """

    index_file = None
    columns = ()
    num_classes = 1

    def __init__(
        self, root: str | Path, split: str, image_size: int = 224, training: bool = False, semantic: bool = False,
        cache: bool = False, seed: int = 0, negative_audio: float = 0.0, remix: float = 0.0, sound: str | None = None,
        augment: bool = True,
    ) -> None:  # fmt: skip
        if semantic and not isinstance(self, AVSS):
            raise ValueError(f"{type(self).__name__} has no classes in its masks; semantic=True needs AVSS")
        if image_size < 1:
            raise ValueError(f"image_size must be positive, got {image_size}")
        self.root, self.split, self.image_size, self.training = Path(root), split, image_size, training
        self.semantic, self.cache, self.seed, self.epoch, self.augment = semantic, cache, seed, 0, augment
        self.negative_audio, self.remix, self.sound = negative_audio, remix, sound
        self.rows = [row for row in self.read_index(root) if row["split"] == split]
        if not self.rows:
            raise ValueError(f"{self.root / (self.index_file or '')} has no clip of split {split!r}")
        self._read_clips = {}

    @classmethod
    def read_index(cls, root: str | Path) -> list[dict]:
        """The rows of the index, of all splits, as dicts."""
        path = Path(root) / cls.index_file
        if not path.is_file():
            raise FileNotFoundError(f"no index {path}; make the data first (see the README) or give another folder")
        return read_rows(path, cls.columns, [("video_id", "name")])  # MS3's own index calls a clip's name video_id

    def fingerprint(self) -> str:
        """Twelve characters that tell one data set from another, by its index and the number of clips of each split."""
        counts = sorted(Counter(row["split"] for row in self.read_index(self.root)).items())
        index = (self.root / self.index_file).read_bytes() if self.index_file else repr(self.rows).encode()
        return hashlib.sha256(index + json.dumps(counts).encode()).hexdigest()[:12]

    def set_epoch(self, epoch: int) -> None:
        """Let training clips be augmented as this epoch has them."""
        self.epoch = epoch

    def with_sound(self, sound: str | None) -> "AVSBench":
        """The same clips with a control's sound. What is in memory is shared."""
        view = copy.copy(self)
        view.sound, view.training = sound, False
        return view

    def __len__(self):
        return len(self.rows)

    def name(self, index: int) -> str:
        """What the index calls a clip."""
        return self.rows[index]["name"]

    def category(self, index: int) -> str:
        """What sounds, as the index says it ('' where the index does not)."""
        return self.rows[index].get("category", "")

    def raw(self, index: int) -> Raw:
        """A clip as stored."""
        if index not in self._read_clips:
            clip = self._read(index)
            if not self.cache:
                self._read_clips.clear()
            self._read_clips[index] = clip
        return self._read_clips[index]

    def stored_wave(self, index: int) -> np.ndarray:
        """The sound of a clip as stored, [T * 16000], read without its pictures."""
        if index in self._read_clips:
            return self._read_clips[index].wave
        frames, _, path = self.paths(self.rows[index])
        return read_wave(path, len(frames))

    def objects(self, index: int) -> list[dict] | None:
        """The objects of a composed clip, a dict each; None for any other clip."""
        return None

    def wave(self, index: int) -> np.ndarray:
        """What is heard in a clip, [T * 16000] at 16 kHz, under the control that the data set was asked for."""
        if self.sound is None:
            return self.raw(index).wave
        return other_sound(self.sound, self, index, self._rng(index))[0]

    def _rng(self, index):
        """What is drawn for a clip: the same every time, in training anew every epoch."""
        return np.random.default_rng([self.seed, self.epoch if self.training else 0, index])

    def paths(self, row: dict) -> tuple[list[Path], list[Path | None], Path]:
        """Frame paths, mask paths (None where there is no label) and the path of the sound."""
        raise NotImplementedError

    def _read(self, index):
        frame_paths, mask_paths, _ = self.paths(self.rows[index])
        frames = [read_frame(p) for p in frame_paths]
        masks = []
        for frame, frame_path, path in zip(frames, frame_paths, mask_paths):
            mask = np.zeros(frame.shape[:2], np.uint8) if path is None else self._read_mask(path)
            size, first = frame.shape[1::-1], frames[0].shape[1::-1]
            if size != first:
                raise ValueError(f"{frame_path}: size {size} differs from the {first} of the clip's first frame")
            if mask.shape[::-1] != size:
                raise ValueError(f"{path}: size {mask.shape[::-1]} differs from its frame's {size}")
            masks.append(mask)
        labelled = np.array([p is not None for p in mask_paths])
        return Raw(np.stack(frames), np.stack(masks), labelled, self.stored_wave(index))

    def _read_mask(self, path):
        return read_mask(path)

    def __getitem__(self, index):
        raw = self.raw(index)
        wave, masks = raw.wave, raw.masks
        rng = self._rng(index)
        if self.sound is not None:
            wave, masks = other_sound(self.sound, self, index, rng)
        elif self.training and rng.random() < self.negative_audio:
            wave, masks = other_sound(rng.choice(["muted", "noise", "swapped"]), self, index, rng)
            masks = np.zeros_like(masks)
        elif self.training and raw.objects and rng.random() < self.remix:
            wave, masks = remix(raw, self.classes if self.semantic else None, rng)
        frames, masks = self.picture(raw.frames, masks, rng)
        if self.training and self.augment:
            wave = wave * 10 ** (rng.uniform(-10, 4) / 20)
        seconds = len(frames)
        labelled = torch.from_numpy(raw.labelled)
        valid = torch.ones(seconds, dtype=torch.bool)
        return Clip(frames, log_mel_of(wave, seconds), masks, labelled, valid, self.name(index), self.category(index))

    def heard_as(self, clip: Clip, index: int, sound: str) -> Clip:
        """A clip of this data set as `with_sound(sound)` gives it, without preparing its frames again."""
        wave, masks = other_sound(sound, self, index, self._rng(index))
        return replace(clip, log_mel=log_mel_of(wave, len(clip.frames)), masks=self._resized(torch.from_numpy(masks)))

    def picture(self, frames: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames uint8 [T, H, W, 3] and masks [T, H, W] at image_size; augmented alike."""
        frames, masks = torch.from_numpy(frames).permute(0, 3, 1, 2), torch.from_numpy(masks)
        augmented = self.training and self.augment
        if augmented:
            height, width = frames.shape[-2:]
            share = rng.uniform(0.7, 1.0)
            h, w = round(height * share), round(width * share)
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            frames, masks = (x[..., top : top + h, left : left + w] for x in (frames, masks))
            frames = self._at_size(frames)  # as bytes, which takes a seventh of the time at 720p
            if rng.random() < 0.5:
                frames, masks = frames.flip(-1), masks.flip(-1)
        frames = frames.float().div_(255)
        if augmented:
            contrast, brightness, saturation = rng.uniform(0.7, 1.3, 3)
            grey = frames.mean(1, keepdim=True)
            frames.sub_(grey).mul_(saturation).add_(grey).mul_(contrast).add_((brightness - 1) * 0.5).clamp_(0, 1)
        return self._at_size(frames).sub(MEAN).div_(STD), self._resized(masks)

    def _at_size(self, frames):
        size = (self.image_size, self.image_size)
        return frames if frames.shape[-2:] == size else F.interpolate(frames, size=size, mode="bilinear", antialias=True)

    def _resized(self, masks):
        return F.interpolate(masks[:, None], size=(self.image_size, self.image_size), mode="nearest-exact")[:, 0]


def _existing(*candidates):
    """The first path that exists, else the first, for the error message."""
    return next((p for p in candidates if p.is_file()), candidates[0])


class S4(AVSBench):
    """Single source, 5 s. In training only the first frame is labelled (the paper's semi-supervised setting)."""

    index_file = "s4_meta_data.csv"
    columns = ("name", "category", "split")
    data, nested = "s4_data", True

    def paths(self, row: dict) -> tuple[list[Path], list[Path | None], Path]:
        name, split = row["name"], row["split"]
        nest = (row["category"],) if self.nested else ()
        where = (split, *nest) if self.nested else ()
        folder = inside(self.root, self.data, "visual_frames", *where, name)
        masks = inside(self.root, self.data, "gt_masks", split, *nest, name)
        frames = [_existing(folder / f"{name}_{k}.png", folder / f"{name}.mp4_{k}.png") for k in range(1, 6)]
        labels = [masks / f"{name}_{k}.png" if self._has_label(split, k) else None for k in range(1, 6)]
        return frames, labels, inside(self.root, self.data, "audio_wav", split, *nest, f"{name}.wav")

    def _has_label(self, split, k):
        return split != "train" or k == 1


class MS3(S4):
    """Several sources, 5 s, all frames labelled."""

    index_file = "ms3_meta_data.csv"
    columns = ("name", "split")
    data, nested = "ms3_data", False

    def _has_label(self, split, k):
        return True


class AVSS(AVSBench):
    """Classes of what sounds, 5 s (`v1s`: first frame labelled in training; `v1m`) or 10 s (`v2`); also composed data."""

    index_file = "metadata.csv"
    columns = ("uid", "split", "label", "a_obj")
    seconds = {"v1s": 5, "v1m": 5, "v2": 10}

    def __init__(self, root: str | Path, split: str, image_size: int = 224, **options: Any) -> None:
        super().__init__(root, split, image_size, **options)
        self.classes = read_classes(self.root / "label2idx.json")
        if self.semantic:
            self.num_classes = len(self.classes)

    def name(self, index: int) -> str:
        return self.rows[index]["uid"]

    def category(self, index: int) -> str:
        return self.rows[index]["a_obj"]

    def _folder(self, row):
        if row["label"] not in self.seconds:
            raise ValueError(
                f"{self.root / self.index_file}: label {row['label']!r} of {row['uid']}; expected v1s, v1m or v2"
            )
        return inside(self.root, row["label"], row["uid"])

    def paths(self, row: dict) -> tuple[list[Path], list[Path | None], Path]:
        folder, seconds = self._folder(row), range(self.seconds[row["label"]])
        first_only = row["label"] == "v1s" and row["split"] == "train"
        masks = [None if first_only and k else folder / "labels_rgb" / f"{k}.png" for k in seconds]
        return [folder / "frames" / f"{k}.jpg" for k in seconds], masks, folder / "audio.wav"

    def _read_mask(self, path):
        return read_mask(path, len(self.classes) if self.semantic else None)

    def _read(self, index):
        raw = super()._read(index)
        raw.objects = self.objects(index)
        if raw.objects is not None:
            folder, size = self._folder(self.rows[index]) / "objects", raw.frames.shape[1:3]
            paths = [folder / f"{k}.png" for k in range(len(raw.frames))]
            raw.instances = np.stack([read_instances(path, size, len(raw.objects)) for path in paths])
            raw.object_waves = self.object_waves(index)
        return raw

    def objects(self, index: int) -> list[dict] | None:
        if index in self._read_clips:
            return self._read_clips[index].objects
        row = self.rows[index]
        path = self._folder(row) / "objects.json"
        return read_objects(path, self.classes, self.seconds[row["label"]]) if path.is_file() else None

    def object_waves(self, index: int) -> np.ndarray:
        """Each object's sound alone in a composed clip, [objects, T * 16000], read without its pictures."""
        if index in self._read_clips:
            return self._read_clips[index].object_waves
        row = self.rows[index]
        path, count = self._folder(row) / "objects.wav", len(self.objects(index))
        waves = read_wave(path, self.seconds[row["label"]], channels=True)
        if len(waves) != count:
            raise ValueError(f"{path} has {len(waves)} channels, expected {count}, one for each object of objects.json")
        return waves


DATASETS = Registry("dataset", "data.avsbench", s4=S4, ms3=MS3, avss=AVSS)
register_dataset = DATASETS.register
