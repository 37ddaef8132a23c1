"""Writes the tables of keys in docs/training.md and docs/generation.md from the settings: `make reference`.

A table stands between `<!-- keys of NAME -->` and `<!-- end of keys -->`; the names are those of `TABLES`.

python -m tests.house.training_reference            writes them
python -m tests.house.training_reference --check    exit code 1 where they are not what would be written
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tests.house.reference import Key, keys_of, shown
from training.bases.flux2 import Flux2
from training.bases.sdxl import Sdxl
from training.evaluation.settings import EvaluationSettings
from training.method_settings import IpAdapterSettings, VisualPersonaSettings
from training.recipes.flux2_reference import Flux2Reference
from training.run_settings import DataSettings, LoopSettings, PictureSettings

_DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = (_DOCS / "training.md", _DOCS / "generation.md")
TABLES: dict[str, type[BaseModel]] = {
    "data": DataSettings,
    "loop": LoopSettings,
    "pictures": PictureSettings,
    "visual_persona": VisualPersonaSettings,
    "ip_adapter": IpAdapterSettings,
    "denoising": Sdxl.denoising_kind,
    "sdxl": Sdxl.kind,
    "flux2_reference": Flux2Reference.kind,
    "flux2_denoising": Flux2.denoising_kind,
    "flux2": Flux2.kind,
    "evaluation": EvaluationSettings,
}
_TABLE = re.compile(r"(<!-- keys of (\w+) -->\n).*?(<!-- end of keys -->)", re.DOTALL)
_HEAD = "| key | default | values | |\n|---|---|---|---|\n"


def keys(name: str) -> Iterator[Key]:
    """The keys of one table; a part may have other defaults here than where its class declares them."""
    whole = TABLES[name].model_construct()
    for key in keys_of(TABLES[name], "", set()):
        value: Any = whole
        for part in key.path.split("."):
            value = getattr(value, part, None)
        yield key if value is None or isinstance(value, BaseModel) else replace(key, default=_shown(value))


def _shown(value: Any) -> str:
    return f"`[{', '.join(map(str, value))}]`" if isinstance(value, tuple) else shown(value)


def written(text: str) -> str:
    """A page with its tables as the settings are now."""

    def table(match: re.Match[str]) -> str:
        rows = (f"| `{k.path}` | {k.default} | {k.values} | {k.says} |\n" for k in keys(match[2]))
        return f"{match[1]}\n{_HEAD}{''.join(rows)}\n{match[3]}"

    return _TABLE.sub(table, text)


def main() -> int:
    """Writes or checks the tables."""
    for page in PAGES:
        before = page.read_text()
        after = written(before)
        if "--check" not in sys.argv[1:]:
            page.write_text(after)
        elif before != after:
            print(f"docs/{page.name} is out of date; run `make reference`", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
