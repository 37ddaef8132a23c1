"""The 18 ATR labels, the five regions of the Visual Persona paper, and label maps as PNG bytes."""

import numpy as np

ATR_LABELS = (
    "background",
    "hat",
    "hair",
    "sunglasses",
    "upper-clothes",
    "skirt",
    "pants",
    "dress",
    "belt",
    "left-shoe",
    "right-shoe",
    "face",
    "left-leg",
    "right-leg",
    "left-arm",
    "right-arm",
    "bag",
    "scarf",
)
HAIR, UPPER, PANTS, LEFT_SHOE, RIGHT_SHOE, FACE = 2, 4, 6, 9, 10, 11

REGIONS: dict[str, tuple[int, ...]] = {
    "full_body": tuple(label for label in range(1, 18) if label != 16),
    "head": (1, 2, 3, 11),
    "torso": (4, 7, 14, 15, 17),
    "legs": (5, 6, 8, 12, 13),
    "shoes": (9, 10),
}


def encode_map(values: np.ndarray) -> bytes:
    """A uint8 or bool [h, w] map as a grey PNG."""
    import cv2

    done, data = cv2.imencode(".png", values.astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 4])
    if not done:
        raise ValueError(f"cannot encode a map of shape {values.shape}")
    return bytes(data)


def decode_map(data: bytes) -> np.ndarray:
    """The uint8 [h, w] map of `encode_map`."""
    import cv2

    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if values is None:
        raise ValueError("not a PNG of a map")
    return np.asarray(values)


def region_shares(labels: np.ndarray, mask: np.ndarray) -> list[float]:
    """Share of the mask's pixels in each of REGIONS, in their order; 0 to 1."""
    counts = np.bincount(labels[mask > 0].ravel(), minlength=18)
    total = max(int((mask > 0).sum()), 1)
    return [float(counts[list(members)].sum() / total) for members in REGIONS.values()]
