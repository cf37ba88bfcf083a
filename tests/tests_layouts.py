"""Small data sets in AVSBench's layouts, for the tests."""

import csv

import numpy as np
import soundfile
from PIL import Image


def write_object_layout(root, data, nested, clip_frames):
    """One training and one test clip in the layout of S4 (nested) or MS3."""
    rows = []
    for split in ("train", "test"):
        name, category = f"clip_{split}", "dog_barking"
        frames = root / data / "visual_frames" / (f"{split}/{category}/{name}" if nested else name)
        inner = f"{split}/{category}" if nested else split
        masks, sound = root / data / "gt_masks" / inner / name, root / data / "audio_wav" / inner
        for folder in (frames, masks, sound):
            folder.mkdir(parents=True)
        for k in range(1, 6):
            Image.new("RGB", (32, 32)).save(frames / clip_frames.format(name=name, k=k))
            if not nested or split == "test" or k == 1:
                Image.new("1", (32, 32), 1).save(masks / f"{name}_{k}.png")
        soundfile.write(sound / f"{name}.wav", np.zeros(80000), 16000)
        rows.append({"name": name, "category": category, "split": split})
    index = root / ("s4_meta_data.csv" if nested else "ms3_meta_data.csv")
    with open(index, "w", newline="") as file:
        writer = csv.DictWriter(file, ["name", "category", "split"])
        writer.writeheader()
        writer.writerows(rows)
