"""The code blocks of README.md and docs/*.md, and the commands in those that are for a shell.

A block of commands is fenced as `bash`. Where it cannot be run here, the line before it is a comment that
says why: `<!-- not run here: needs a GPU -->`.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.drawn_pipeline import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_NOT_RUN = re.compile(r"<!-- not run here: (.+) -->")
# What only a shell understands: a command with any of it is given to one.
_SHELL = re.compile(r"[|<>;&$]")


@dataclass(frozen=True)
class Command:
    """One command of a block, on one line; `where` is PAGE:LINE of its block."""

    where: str
    line: str

    @property
    def words(self) -> list[str]:
        """As a shell splits it, without comments."""
        return shlex.split(self.line, comments=True)

    @property
    def needs_shell(self) -> bool:
        return self.words[0] not in ("persona", ".venv/bin/persona") or bool(_SHELL.search(self.line))


@dataclass(frozen=True)
class Block:
    """A fenced block; `not_run` is why it is not run, if it is not."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[Command]:
        """Its commands, in order; of a block `console`, those behind a `$`."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        plain = [" ".join(line.split()) for line in lines]
        return [Command(self.where, line) for line in plain if line and not line.startswith("#")]


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found: list[Block] = []
    start, language, not_run = 0, "", None
    body: list[str] | None = None
    before = ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = line.strip().startswith("```")
        if body is not None and fence:
            text = "\n".join(body)
            found.append(Block(str(page.relative_to(ROOT)), start, language, text, not_run))
            body = None
        elif body is not None:
            body.append(line)
        elif fence:
            reason = _NOT_RUN.fullmatch(before)
            start, language, not_run = number, line.strip().removeprefix("```"), reason and reason[1]
            body = []
        if body is None and not fence:
            before = line.strip()
    return found
