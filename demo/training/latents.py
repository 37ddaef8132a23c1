"""Latents of drawn people, added by the product's own command."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def add_latents(drawn: Path, out: Path, config: str) -> str:
    """`persona shards precompute`, unless it has been done; returns where. Raises ValueError where it could
    not be."""
    if (out / "dataset.json").exists():
        return str(out)
    words = ["shards", "precompute", str(drawn.absolute()), "--out", str(out.absolute()), "--config", config]
    done = subprocess.run([sys.executable, "-m", "persona", *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise ValueError(f"persona {' '.join(words)} ended with {done.returncode}; it is said above why")
    return str(out)


@contextmanager
def timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Notes how long the inside takes."""
    began = time.monotonic()
    yield
    seconds[what] = round(time.monotonic() - began, 1)
