"""Small ICC profiles written by hand (ICC.1:2001-04): of three primaries, of grey, of inks."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

Chromaticities = Sequence[tuple[float, float]]  # x, y of red, green, blue

D50, D65 = (0.3457, 0.3585), (0.3127, 0.3290)
P3: Chromaticities = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
REC709: Chromaticities = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
ADOBE: Chromaticities = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060))
PROPHOTO: Chromaticities = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_WHITE = np.array([0.9642, 1.0, 0.8249])  # of the space that profiles connect by


def rgb_profile(
    primaries: Chromaticities, gamma: float | None = None, white: tuple[float, float] = D65
) -> bytes:
    """Of three primaries and one curve: a power, or None for that of sRGB."""
    curve = _curve(gamma)
    tags = {b"wtpt": _xyz(_WHITE), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    columns = to_connection(primaries, white).T
    tags |= {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    return _profile(b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    """Of one curve, a power."""
    return _profile(b"GRAY", b"XYZ ", {b"wtpt": _xyz(_WHITE), b"kTRC": _curve(gamma)})


def ink_profile(lab: Mapping[tuple[int, ...], tuple[int, int, int]]) -> bytes:
    """Of CMYK: Lab (L 0 to 100) of each of the 16 mixtures of full inks, in between by interpolation."""
    straight = bytes(range(256))
    nodes = [lab[(c, m, y, k)] for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    grid = b"".join(bytes([round(light * 2.55), a + 128, b + 128]) for light, a, b in nodes)
    unity = b"".join(map(_fixed, (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unity + straight * 4 + grid + straight * 3
    return _profile(b"CMYK", b"Lab ", {b"wtpt": _xyz(_WHITE), b"A2B0": table}, kind=b"prtr")


def to_connection(primaries: Chromaticities, white: tuple[float, float] = D65) -> np.ndarray:
    """[3, 3]: linear RGB to XYZ under D50."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    whole = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
    scaled = columns * np.linalg.solve(columns, whole)
    cones = np.diag((_BRADFORD @ _WHITE) / (_BRADFORD @ whole))
    return np.asarray(np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD @ scaled)


def linear(levels: np.ndarray) -> np.ndarray:
    """0 to 255 by the curve of sRGB as 0 to 1 of light."""
    x = np.asarray(levels) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def levels(light: np.ndarray) -> np.ndarray:
    """0 to 1 of light as 0 to 255 by the curve of sRGB, not rounded."""
    x = np.clip(light, 0, 1)
    return 255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def srgb_of_lab(lab: tuple[float, float, float]) -> np.ndarray:
    """Levels of sRGB, 0 to 255, of a colour under D50."""
    light = (lab[0] + 16) / 116
    f = np.array([light + lab[1] / 500, light, light - lab[2] / 200])
    xyz = _WHITE * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    return levels(np.linalg.inv(to_connection(REC709)) @ xyz)


def _profile(space: bytes, connection: bytes, tags: Mapping[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    named = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        **tags,
    }
    table, body = struct.pack(">I", len(named)), b""
    start = 128 + 4 + 12 * len(named)
    for name, content in named.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = struct.pack(">I", start + len(body))
    head = size + bytes(4) + b"\x02\x40\0\0" + kind + space + connection + bytes(12) + b"acsp"
    head = head.ljust(68, b"\0") + b"".join(map(_fixed, _WHITE))
    return head.ljust(128, b"\0") + table + body


def _curve(gamma: float | None) -> bytes:
    if gamma is not None:
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    values = np.round(65535 * linear(np.linspace(0, 255, 1024))).astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", len(values)) + values.tobytes()


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(map(_fixed, values))


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(float(value) * 65536))
