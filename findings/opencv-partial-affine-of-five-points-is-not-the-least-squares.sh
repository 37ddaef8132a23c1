#!/usr/bin/env bash
# OpenCV's estimateAffinePartial2D of five face points is far from the least squares of all five.
#
# Packages:  opencv-python-headless 5.0.0.93, numpy 2.4.6
# Expected:  five points of a face, a pixel or two off as any detector's are, onto the five of ArcFace's 112 px
#            template: the similarity that fits them all, which the embedder was trained behind (Umeyama 1991).
# Seen:      the default is RANSAC with a threshold of 3 px: it fits the points that it takes for inliers, from a
#            sample of two, and leaves the others out. The aligned face is moved by pixels, with no sign that anything was
#            left out unless the second value is looked at; other calls with the same points in another order differ.
# For users: an embedding moves by more between two photos of one face (a point 2 px off: cosine .86). persona
#            computes the least squares itself (curation/people/face_keypoints.py).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install -q opencv-python-headless==5.0.0.93 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import sys

import cv2
import numpy as np

TEMPLATE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])


def least_squares(points, onto):
    """The 2 × 3 similarity with the smallest sum of squares: four unknowns, ten equations."""
    x, y = points.T
    ones, zeros = np.ones(len(x)), np.zeros(len(x))
    rows = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
    a, b, c, d = np.linalg.lstsq(rows, onto.T.ravel(), rcond=None)[0]
    return np.array([[a, -b, c], [b, a, d]])


random = np.random.default_rng(1)
corners = np.array([[0, 0, 1], [112, 0, 1], [0, 112, 1], [112, 112, 1]], float)
print("opencv", cv2.__version__)
shares = {}
for off_px in (1, 2, 3):
    moved = []
    for _ in range(500):
        face = (TEMPLATE + random.normal(0, off_px, TEMPLATE.shape)) * random.uniform(1, 4) + random.uniform(0, 500, 2)
        found, _ = cv2.estimateAffinePartial2D(face, TEMPLATE)
        # In the template's pixels: where the two transforms put the corners of one aligned face.
        back = np.linalg.inv(np.vstack([least_squares(face, TEMPLATE), [0, 0, 1]]))
        moved.append(np.abs((found @ back @ corners.T).T - corners[:, :2]).max())
    shares[off_px] = float((np.array(moved) > 2).mean())
    print(f"points {off_px} px off (of a 112 px face): {shares[off_px]:.0%} of faces are moved by more than 2 px")
if shares[2] < 0.2:
    print("changed: it is near the least squares now")
    sys.exit(1)
PYTHON
