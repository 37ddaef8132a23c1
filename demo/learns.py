"""`python -m demo.learns`: `demo.recipes` of visual_persona, the recipe of `make demo`."""

import sys

from demo.recipes import main

if __name__ == "__main__":
    sys.exit(main("visual_persona", "learns"))
