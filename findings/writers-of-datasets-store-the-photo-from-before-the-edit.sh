#!/usr/bin/env bash
# Hugging Face datasets keeps the path of a photo that was covered in place: the dataset has the uncovered one.
#
# Versions   datasets 5.2.0, Pillow 13.0.0. litdata 0.2.76 (`optimize`) and mosaicml-streaming 0.13.0 (the encoding "jpeg",
#            not "pil" and "png") do the same with JPEG: both copy the file that the object names.
# Expected   the pixels of the object that was handed over, as with one that was made by crop() or convert().
# Seen       Image.open() gives an object that knows its file name. ImageDraw, paste, putpixel and thumbnail change it in
#            place, and it still does. datasets stores that name and not the pixels: what `map`, `from_list` and
#            `from_generator` give back is the file as it lies on the disk. No error, no warning, and the same line works
#            where the photos came as bytes.
# For users  faces that were covered, marks that were painted over and photos that were made smaller are back. Hand over
#            image.copy(), which knows no file name (docs/collections.md).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install -q datasets==5.2.0 pillow==13.0.0
HF_HUB_OFFLINE=1 HF_HOME="$work/hf" venv/bin/python - <<'PYTHON'
import os
import sys

import datasets
import PIL
from PIL import Image, ImageDraw

datasets.disable_progress_bars()
os.mkdir("photos")
Image.new("RGB", (64, 48), (200, 150, 120)).save("photos/portrait.jpg", quality=95)
FACE = (16, 8, 47, 39)


def covered(image):
    """The photo with a black box over the face, painted in place as ImageDraw does."""
    ImageDraw.Draw(image).rectangle(FACE, fill=(0, 0, 0))
    return image


def smaller(image):
    """The photo at half its size, in place as thumbnail() does."""
    image.thumbnail((32, 24))
    return image


def made():
    """Rows for from_generator."""
    yield {"image": covered(Image.open("photos/portrait.jpg"))}


folder = datasets.load_dataset("imagefolder", data_dir="photos", split="train")
image = datasets.Features({"image": datasets.Image()})
ways = {
    "map, covered": folder.map(lambda row: {"image": covered(row["image"])}),
    "map, covered, a copy handed over": folder.map(lambda row: {"image": covered(row["image"]).copy()}),
    "map, thumbnail": folder.map(lambda row: {"image": smaller(row["image"])}),
    "from_list, covered": datasets.Dataset.from_list([{"image": covered(Image.open("photos/portrait.jpg"))}], image),
    "from_generator, covered": datasets.Dataset.from_generator(made, features=image),
}
print("datasets", datasets.__version__, "Pillow", PIL.__version__)
seen = {}
for name, found in ways.items():
    stored = found[0]["image"]
    shown = max(stored.convert("RGB").getpixel((stored.width // 2, stored.height // 2))) > 100
    seen[name] = (stored.size, shown)
    print(f"{name:34} {stored.size[0]} × {stored.size[1]} px, middle of the face {'to be seen' if shown else 'black'}")
whole = ((64, 48), True)
wanted = dict.fromkeys(ways, whole) | {"map, covered, a copy handed over": ((64, 48), False)}
if seen != wanted:
    sys.exit("changed: what was edited in place is stored as it was edited")
PYTHON
