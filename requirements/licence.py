"""The licence of an installed distribution, as SPDX expression, and what it permits.

From the metadata that its makers wrote: `License-Expression`, else the field `License`, else the
classifiers. Where they wrote nothing, or something that is no name, STATED says what its licence file says.
"""

import re
from importlib import metadata
from typing import Any, Literal

Kind = Literal["permissive", "weak copyleft", "strong copyleft", "proprietary", "unknown"]
ORDER: tuple[Kind, ...] = ("permissive", "weak copyleft", "strong copyleft", "proprietary", "unknown")

STATED = {
    "atheris": "Apache-2.0",
    "contourpy": "BSD-3-Clause",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",  # no files of its own: names NVIDIA's packages
    "cycler": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "matplotlib": "PSF-2.0",  # its own licence, after the PSF's
    "mlcroissant": "Apache-2.0",  # of its repository; the wheel has no licence file
    "nvidia-cusparselt-cu13": "LicenseRef-NVIDIA-Proprietary",
    "oss-harmony": "Apache-2.0",
    "polars": "MIT",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "segment-anything": "Apache-2.0",
    "setuptools": "MIT",
    "supervisor": "LicenseRef-Repoze",  # BSD-derived, http://www.repoze.org/LICENSE.txt
    "tiktoken": "MIT",
    "torchao": "BSD-3-Clause",
    "torchcodec": "BSD-3-Clause",
    "ultralytics": "AGPL-3.0-or-later",
    "ultralytics-thop": "AGPL-3.0-or-later",
}
_NAMES = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
    "intel end user license agreement for developer tools": "LicenseRef-Intel-EULA",
}
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(
        (
            "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0",
            "CC0-1.0", "CNRI-Python", "ISC", "LicenseRef-Repoze", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0",
            "Unlicense", "Zlib",
        ),
        "permissive",
    ),
    **dict.fromkeys(("LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "MPL-2.0"), "weak copyleft"),
    **dict.fromkeys(
        ("AGPL-3.0-only", "AGPL-3.0-or-later", "GPL-2.0-only", "GPL-3.0-only", "GPL-3.0-or-later"),
        "strong copyleft",
    ),
    **dict.fromkeys(("LicenseRef-Intel-EULA", "LicenseRef-NVIDIA-Proprietary"), "proprietary"),
}  # fmt: skip


def licence_of(name: str) -> str | None:
    """The expression; None where the distribution is not installed, "unknown" where nothing says."""
    try:
        about: Any = metadata.metadata(name)  # typed without `get`
    except metadata.PackageNotFoundError:
        return None
    if stated := STATED.get(name):
        return stated
    if expression := about.get("License-Expression"):
        return str(expression)
    classifiers = [
        entry.rpartition(" :: ")[2]
        for entry in about.get_all("Classifier") or []
        if entry.startswith("License :: ") and entry.count(" :: ") > 1
    ]
    for words in (about.get("License"), *classifiers):
        found = _NAMES.get((words or "").strip().lower(), (words or "").strip())
        if found and all(part in _KINDS for part in _parts(found)):
            return found
    return "unknown"


def kind_of(expression: str) -> Kind:
    """What it permits: of alternatives (OR) the freest counts, of conditions (AND) the strictest."""
    words = re.findall(r"\(|\)|[^\s()]+", expression)
    place, kind = _any_of(words, 0)
    return kind if place == len(words) else "unknown"


def _parts(expression: str) -> list[str]:
    return [part.strip(" ()") for part in re.split(r"\s+(?:AND|OR)\s+", expression)]


def _any_of(words: list[str], place: int) -> tuple[int, Kind]:
    place, kind = _all_of(words, place)
    while place < len(words) and words[place] == "OR":
        place, other = _all_of(words, place + 1)
        kind = min(kind, other, key=ORDER.index)
    return place, kind


def _all_of(words: list[str], place: int) -> tuple[int, Kind]:
    place, kind = _one_of(words, place)
    while place < len(words) and words[place] == "AND":
        place, other = _one_of(words, place + 1)
        kind = max(kind, other, key=ORDER.index)
    return place, kind


def _one_of(words: list[str], place: int) -> tuple[int, Kind]:
    if place >= len(words):
        return place, "unknown"
    if words[place] == "(":
        place, kind = _any_of(words, place + 1)
        return place + 1, kind
    name = words[place]
    if words[place + 1 : place + 2] == ["WITH"]:
        name, place = " ".join(words[place : place + 3]), place + 2
    return place + 1, _KINDS.get(name, "unknown")
