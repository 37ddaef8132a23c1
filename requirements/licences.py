"""Writes docs/licences.md: the licences of every pinned distribution and of the pipelines' weights.

python -m requirements.licences            writes it
python -m requirements.licences --check    exit code 1 where it is not what would be written
"""

import argparse
import sys
from collections.abc import Sequence

from requirements.cards import Card, read_cards
from requirements.licence import ORDER, kind_of, licence_of
from requirements.pinned import FOLDER, Pinned, read_pinned

PAGE = FOLDER.parent / "docs" / "licences.md"
_ABOUT = """# Licences

Made by `make licences` from `requirements/cpu.txt`, the metadata of what is installed and the model cards of
`pipelines.yaml`; a test says when it is out of date. Do not edit it.

`persona curate … --commercial` refuses backends and weights that forbid commercial use, in one line and
before anything starts; with `--check` it says so and does no more. It trusts the cards and
`curation/backends.py`; the code of plugins is not checked.

`make sbom` writes the same as a bill of materials: `sbom.cdx.json`, CycloneDX 1.6 with the hashes of
`requirements/`. Everything is installed in pinned versions with hashes (`uv pip sync --require-hashes`).

## Our code, and what AGPL means for those who pass it on

The code of this repository is under Apache-2.0 (`LICENSE`). So are the weights in `demo/weights/`, but for
the detector: it was trained with `ultralytics`, and is under AGPL-3.0 like it.

The backends `ultralytics` and `ultralytics_sam` import `ultralytics`, which is under AGPL-3.0. Nothing else
imports it but `demo/train/yolo.py` (a test holds this), and it is imported only where a pipeline names such
a backend.

| what you do | what AGPL-3.0 asks |
|---|---|
| run it inside your organisation, with or without those backends | nothing |
| pass on our code without `ultralytics` | nothing: Apache-2.0 alone |
| pass on a whole with `ultralytics` in it | the whole goes out under AGPL-3.0, with all of its source (1) |
| let others use such a whole over a network | the same: its users may ask for the source (section 13) |
| pass on weights that were trained with it | its makers hold that these are under AGPL-3.0 too |

(1) An image of a container, an installer or a product; your changes and plugins belong to its source.
Apache-2.0 permits our part of it.

`make setup` and the image of `deploy/` install `ultralytics`; whoever passes that image on passes on the
whole. To leave it out, install our package without the extra `ultralytics` and take a pipeline that
`--commercial` passes (`visual-persona-commercial`, `real-portraits`) or a detector of your own
(extending.md). The makers of `ultralytics` sell another licence. This is how we read the licences;
it is no legal advice.
"""

_TRAINING = """### Where their licences are stated, and what they were trained on

`--commercial` goes by the licence of the weights. What the pictures were licensed for that they were trained
on is another question, and most makers do not answer it. What we know of them, with the doubts that we have
found, stands in the cards (`licence_source`, `trained_on`). No parser of clothes is known to us whose
weights permit commercial use; the permissive pipelines draw regions by joints.

| card | licence stated in | trained on |
|---|---|---|"""


class NotInstalledError(RuntimeError):
    """A pinned distribution is not in this environment, so its licence cannot be read."""


def page() -> str:
    """The whole page. Raises NotInstalledError in an environment that is not that of cpu.txt."""
    pinned = read_pinned(FOLDER / "cpu.txt")
    licences = {}
    for one in pinned:
        licence = licence_of(one.name)
        if licence is None:
            raise NotInstalledError(f"{one.name} is in cpu.txt and not installed")
        licences[one.name] = licence
    parts = [_ABOUT, *_weights(read_cards()), *_summary(licences), *_distributions(pinned, licences)]
    ours = {one.name for one in pinned}
    rest = [one for one in read_pinned(FOLDER / "gpu.txt") if one.name not in ours]
    parts.append(
        f"## Only in the GPU set\n\nThese {len(rest)} are in `requirements/gpu.txt` alone. They were not "
        "installed where this page was made, so their licences were not read: "
        f"{', '.join(one.name for one in rest)}.\n"
    )
    return "\n".join(parts)


def _weights(cards: Sequence[Card]) -> list[str]:
    rows = [
        f"| {card.name} | {', '.join(card.pipelines)} | {card.licence} | {_yes(card.commercial)} "
        f"| {card.source} | {_yes(card.sha256)} |"
        for card in cards
    ]
    head = "| card | pipelines | licence | commercial | source | sha256 stated |\n|---|---|---|---|---|---|"
    stated = [
        f"| {card.name} | {card.licence_source or 'not stated'} | {card.trained_on or 'not stated'} |"
        for card in cards
    ]
    return ["## Weights\n", head, *rows, "", _TRAINING, *stated, ""]


def _yes(true: object) -> str:
    return "yes" if true else "no"


def _summary(licences: dict[str, str]) -> list[str]:
    rows = []
    for kind in ORDER:
        names = [name for name, licence in licences.items() if kind_of(licence) == kind]
        named = "all others" if kind == "permissive" else ", ".join(names) or "none"
        rows.append(f"| {kind} | {len(names)} | {named} |")
    return [
        "## Distributions\n",
        "Of alternatives (OR) the freest counts, of conditions (AND) the strictest.\n",
        "| | number | which |\n|---|---|---|",
        *rows,
        "",
        "- Strong copyleft: the backends `ultralytics` and `ultralytics_sam` import these, and the training "
        "of the demo's detector; `--commercial` refuses both backends.",
        "- Proprietary: libraries of NVIDIA and Intel that torch and vLLM are linked with; their licences "
        "permit use and, within limits, passing them on.",
        "",
    ]


def _distributions(pinned: Sequence[Pinned], licences: dict[str, str]) -> list[str]:
    rows = [f"| {one.name} | {one.version} | {licences[one.name]} |" for one in pinned]
    return ["| distribution | version | licence |\n|---|---|---|", *rows, ""]


def main() -> int:
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    try:
        text = page()
    except (NotInstalledError, ValueError) as error:
        print(f"licences: {error}", file=sys.stderr)
        return 1
    if not options.check:
        PAGE.write_text(text)
        return 0
    if not PAGE.exists() or PAGE.read_text() != text:
        print("docs/licences.md is out of date; run `make licences`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
