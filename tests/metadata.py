"""`python -m tests.metadata`: photos with planted metadata in every container, stripped and compared; and
photos that say of themselves that they may not be used, also in ways that cannot be read, decided.

The last line is JSON: {files, pixel_equal, secrets_found, rights, rights_right}. Exit code 1 where a pixel
moved, a secret was found, a view turned, a file grew, a second time would change it, a mark was not obeyed.
"""

import argparse
import io
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import simplejpeg
from PIL import Image, ImageOps

from curation.photos.decode import decode_rgb, open_photo
from curation.photos.rights import Rights
from curation.settings.photos import RightsSettings
from shards.format.embedded import embedded_in
from shards.format.orientation import orientation_of
from shards.format.stripped import Stripped, without_metadata
from tests.drawn_metadata import SECRETS, Case, cases, found_in
from tests.drawn_rights import marked

SITE = Path(Image.__file__).parents[1]  # packages with photos in them
REAL = [SITE / name for name in ("matplotlib", "ultralytics/assets", "vllm", "sklearn", "skimage")]


@dataclass(frozen=True)
class Result:
    """Of one photo: whether its pixels and its upright view are the same, which secrets are left of which."""

    same_pixels: bool
    same_view: bool
    planted: set[str]
    left: set[str]
    grew: bool
    again: bool

    @property
    def is_right(self) -> bool:
        """Whether all that is promised holds."""
        return self.same_pixels and self.same_view and not (self.left or self.grew or self.again)


def tried(case: Case) -> Result:
    """What becomes of a photo. The decoders are not those of the proof alone: Pillow, OpenCV, simplejpeg."""
    made = without_metadata(case.data)
    before, after = list(decoded(case.data)), list(decoded(made.data))
    same = all(map(np.array_equal, before, after))  # of an animation the last one has no peer
    turned = orientation_of(case.data) == orientation_of(made.data)
    return Result(
        same_pixels=same,
        same_view=turned and np.array_equal(decode_rgb(case.data), decode_rgb(made.data)),
        planted=set(case.secrets),
        left=found_in(made.data),
        grew=len(made.data) > len(case.data),
        again=without_metadata(made.data) != Stripped(made.data, {}),
    )


def decoded(data: bytes) -> Iterator[np.ndarray]:
    """A photo by each decoder, as it is encoded and upright; of an animation the first frame."""
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
        image.load()
        mode = image.mode if image.mode in ("L", "RGB", "CMYK") or image.mode.startswith("I") else "RGBA"
        yield np.asarray(image.convert(mode))
        yield np.asarray(ImageOps.exif_transpose(image).convert(mode))
    coded = np.frombuffer(data, np.uint8)
    # OpenCV turns a picture upright by its EXIF, but not the first frame of an animated PNG.
    upright = [] if b"acTL" in data else [cv2.IMREAD_COLOR]
    for flags in [cv2.IMREAD_UNCHANGED, *upright]:
        picture = cv2.imdecode(coded, flags)
        if picture is not None:
            yield picture
    if data.startswith(b"\xff\xd8") and mode != "CMYK":
        yield simplejpeg.decode_jpeg(data, "RGB")


def decided(data: bytes, settings: RightsSettings | None = None, metadata: str | None = None) -> str | None:
    """The reason of the stage `rights`, on what the decoder reads; None: kept."""
    settings = settings or RightsSettings()
    header, _ = open_photo(data, rights="all" if settings.credentials else "stated")
    assert header.rights is not None
    columns = {
        "source_type": header.rights.source_type,
        "mining": header.rights.mining,
        "mining_reserved": header.rights.reserved,
        "credentials_broken": header.rights.broken,
        "metadata": metadata,
    }
    schema = pa.schema([(name, pa.bool_() if name == "mining_reserved" else pa.string()) for name in columns])
    table = Rights(settings).decide(pa.Table.from_pylist([columns], schema=schema))
    (decision,) = table["decisions"][0].as_py()
    return decision["reason"] or None


def main() -> int:
    """Prints a line for each container and kind of secret."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", metavar="DIR", type=Path, nargs="*", default=[], help="more real photos")
    parser.add_argument("--seeds", type=int, default=9, help="drawn photos of a kind (default %(default)s)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Pillow's, of metadata that is planted with little care
    files, wrong = Counter[str](), Counter[str]()
    planted, left = Counter[str](), Counter[str]()
    equal = 0
    with_profile = 0
    for case in cases(options.seeds, [*REAL, *options.photos]):
        kind = case.name.split(",")[0]
        result = tried(case)
        files[kind] += 1
        equal += result.same_pixels and result.same_view
        planted.update(result.planted)
        left.update(result.left)
        with_profile += embedded_in(case.data).profile is not None
        if not result.is_right:
            wrong[kind] += 1
            print(f"{case.name}: {result}")
    for kind, count in files.items():
        print(f"{kind:<8} {count:>4} files  {wrong[kind]:>3} wrong")
    for secret in SECRETS:
        print(f"{secret:<16} in {planted[secret]:>4} files, found afterwards in {left[secret]}")
    print(f"profiles of colours in {with_profile} files")
    marks, right = Counter[str](), Counter[str]()
    for each in marked():
        kind, reason = each.name.split(",")[0], decided(each.data)
        marks[kind] += 1
        right[kind] += reason == each.reason
        if reason != each.reason:
            print(f"{each.name}: {reason}, should be {each.reason}")
    for kind, count in marks.items():
        print(f"{kind:<24} {right[kind]:>3} of {count} decided right")
    found = {"files": sum(files.values()), "pixel_equal": equal, "secrets_found": sum(left.values())}
    print(json.dumps({**found, "rights": sum(marks.values()), "rights_right": sum(right.values())}))
    return 1 if wrong or right != marks else 0


if __name__ == "__main__":
    sys.exit(main())
