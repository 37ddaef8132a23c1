"""`python -m demo.world --seed 7 --photos 400 --out DIR`: writes a world as a collection with its truth."""

import argparse
import sys
import time
from pathlib import Path
from typing import get_args

from demo.world.collection import FORMS, write_collection
from demo.world.plan import Wardrobe, make_world


def main() -> int:
    """Parses, writes, says what was written."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.world",
        description="Draws a collection of photos of people whose truth is known.",
        epilog="example: python -m demo.world --seed 7 --photos 400 --out runs/world",
    )
    parser.add_argument("--seed", type=int, default=7, help="one seed, one world")
    parser.add_argument("--photos", type=int, default=400, help="files, copies and distractors included")
    parser.add_argument(
        "--wardrobe",
        choices=get_args(Wardrobe),
        default="drawn",
        help="seen: everyone in one to six outfits, three to six photos of each",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write collection/ and truth/ into")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    start = time.monotonic()
    try:
        world = make_world(given.seed, given.photos, given.wardrobe)
        write_collection(world, given.out, given.forms, given.processes)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{len(world.photos)} photos of {len(world.identities)} people in {given.out} "
        f"({time.monotonic() - start:.1f} s)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
