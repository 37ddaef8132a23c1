#!/usr/bin/env bash
# torchvision's KeyPoints leave the pixel that they mark: by one where a photo is turned, by more where it is enlarged.
#
# Versions   torchvision 0.28.0, torch 2.13.0
# Expected   a point on the middle of a spot is there behind every transform, as the box around the spot is; a photo turned
#            by 180° and one flipped both ways are the same, and so are their points.
# Seen       flips take a coordinate for the middle of a pixel (x' = width − 1 − x), turning and scaling for its edge
#            (x' = width − x, x' = 2 x). Turned by 180° the point is 1 px off in x and y, enlarged fourfold 1.5 px. The
#            picture and BoundingBoxes of the same call are right. albumentationsx 2.5.1 and kornia 0.9.0 keep the point.
# For users  joints and eyes of augmented photos are off by what is large for an alignment: with points 1 px off, the
#            embedding of a 136 px face has a cosine of .956 to what it was. persona's
#            `placements` count from edges (docs/reading.md).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
install() { # uv where there is one: torch brings 3 GB
  if command -v uv > /dev/null; then uv pip install -q --python venv/bin/python "$@"; else venv/bin/pip install -q "$@"; fi
}
install torchvision==0.28.0 torch==2.13.0 numpy==2.3.5
venv/bin/python - <<'PYTHON'
import sys

import torch
import torchvision
from torchvision import tv_tensors
from torchvision.transforms import v2

HEIGHT, WIDTH = 48, 64
photo = torch.zeros(1, HEIGHT, WIDTH)
photo[:, 12:20, 20:28] = 1  # a spot whose middle is the pixel coordinate (23.5, 15.5)
where = {"canvas_size": (HEIGHT, WIDTH)}
given = (
    tv_tensors.Image(photo),
    tv_tensors.BoundingBoxes(torch.tensor([[20.0, 12, 28, 20]]), format="XYXY", **where),
    tv_tensors.KeyPoints(torch.tensor([[23.5, 15.5]]), **where),
)
flip, mirror = v2.RandomVerticalFlip(1), v2.RandomHorizontalFlip(1)
TRANSFORMS = {
    "nothing": v2.Identity(),
    "flipped both ways": v2.Compose([flip, mirror]),
    "turned by 180°": v2.RandomRotation((180, 180)),
    "enlarged fourfold": v2.Resize((HEIGHT * 4, WIDTH * 4)),
}
print("torchvision", torchvision.__version__, "torch", torch.__version__)
off = {}
for name, transform in TRANSFORMS.items():
    picture, box, point = transform(*given)
    rows, columns = torch.meshgrid(torch.arange(picture.shape[1]), torch.arange(picture.shape[2]), indexing="ij")
    middle = [float((picture[0] * axis).sum() / picture.sum()) for axis in (columns, rows)]
    of_box = [float(box[0, axis] + box[0, axis + 2]) / 2 - 0.5 for axis in (0, 1)]  # edges have whole numbers
    off[name] = [round(float(point[0, axis]) - middle[axis], 2) for axis in (0, 1)]
    print(f"{name:18} spot {middle[0]:.1f}, {middle[1]:.1f}  box {of_box[0]:.1f}, {of_box[1]:.1f}  "
          f"point {point[0, 0]:.1f}, {point[0, 1]:.1f}  off by {off[name]}")
wanted = {"nothing": [0, 0], "flipped both ways": [0, 0], "turned by 180°": [1, 1], "enlarged fourfold": [-1.5, -1.5]}
if off != wanted:
    sys.exit("changed: the points have moved otherwise")
PYTHON
