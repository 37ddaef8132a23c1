"""Runs a command with fewer instructions: `python -m tests.processors.under avx2 pytest -m numeric`."""

import os
import sys
from tempfile import gettempdir

from tests.processors.instruction_sets import SETS


def main() -> None:
    """Becomes the command. Exit code 2 for wrong usage."""
    name, *words = sys.argv[1:] or [""]
    if name not in SETS or not words:
        print(f"usage: python -m tests.processors.under {{{','.join(SETS)}}} MODULE WORD…", file=sys.stderr)
        sys.exit(2)
    os.environ.update(SETS[name])
    # Its cache does not know instruction sets: what was compiled for another would be taken from it.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{gettempdir()}/torchinductor-{name}"
    os.execv(sys.executable, [sys.executable, "-m", *words])


if __name__ == "__main__":
    main()
