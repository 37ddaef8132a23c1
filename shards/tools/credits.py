"""Credits of the photos of a dataset: title, author, address and licence, as CC BY wants them.

CC BY 4.0, 3(a)(1), wants the creator, the licence and the address of the material named, and earlier versions
its title. What a record does not state stays empty: it is for people to find out, or to leave the photo out.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from shards.format.stated import carried_columns, plain_text
from shards.tools.commands import folder_of
from shards.tools.dataset_rows import DatasetRows

Format = Literal["csv", "markdown"]
_LICENCES = {  # deeds of the licences that ask for credit, by their SPDX names in small letters
    f"cc-{kind}-{version}": f"https://creativecommons.org/licenses/{kind}/{version}/"
    for kind in ("by", "by-sa", "by-nc", "by-nd", "by-nc-sa", "by-nc-nd")
    for version in ("1.0", "2.0", "2.5", "3.0", "4.0")
}


@dataclass(frozen=True)
class Credit:
    """One photo. `photo` is its member in the shards; texts are as the record states them, or empty."""

    photo: str
    title: str
    author: str
    address: str
    page: str
    licence: str

    @property
    def deed(self) -> str:
        """The address of the licence's text, of those of Creative Commons that ask for credit; else empty."""
        return _LICENCES.get(self.licence.strip().lower().replace(" ", "-"), "")


def credits_of(folder: str) -> Iterator[Credit]:
    """A credit for each photo, in the order of the dataset. Raises DatasetError."""
    dataset = DatasetRows(folder)
    for number, key in enumerate(dataset.all_keys()):
        for suffix, record in sorted(dataset.photo_records(number).items()):
            stated = carried_columns(record)
            title = record.get("title") or record.get("TITLE") or record.get("file_name") or ""
            yield Credit(
                photo=f"{key}.{suffix}",
                title=plain_text(str(title)),
                author=stated.get("author", ""),
                address=stated.get("source_url", ""),
                page=stated.get("page_url", ""),
                licence=stated.get("licence", ""),
            )
    dataset.close()


def written(credits: Iterable[Credit], form: Format) -> Iterator[str]:
    """Lines of a CSV with a header, or of a Markdown list."""
    names = [field.name for field in fields(Credit)]
    if form == "csv":
        yield _csv_line([*names, "deed"])
    for credit in credits:
        if form == "csv":
            yield _csv_line([*(getattr(credit, name) for name in names), credit.deed])
        else:
            yield f"- {_sentence(credit)}"


def _csv_line(values: list[str]) -> str:
    # A value that begins like a formula is one to spreadsheets; strangers wrote these.
    safe = [f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value for value in values]
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(safe)
    return text.getvalue()


def _sentence(credit: Credit) -> str:
    title = _link(credit.title or credit.photo, credit.page or credit.address)
    licence = _link(credit.licence, credit.deed) if credit.licence else "no licence stated"
    author = _plain(credit.author) or "an author who is not stated"
    return f"{title} by {author}, {licence} (`{credit.photo}`)"


def _link(text: str, address: str) -> str:
    if not address.lower().startswith(("http://", "https://")):
        return _plain(text)
    return f"[{_plain(text)}](<{address.translate({ord('<'): '%3C', ord('>'): '%3E', 10: '', 13: ''})}>)"


def _plain(text: str) -> str:
    """The text with nothing that Markdown would obey."""
    one_line = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>()#+!|" else letter for letter in one_line)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `persona shards credits`."""
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--format", choices=("csv", "markdown"), default="csv")
    parser.add_argument("--out", metavar="FILE", help="default: printed")


def run(options: argparse.Namespace) -> int:
    """Runs the action. Returns 0."""
    credits = credits_of(folder_of(options.folder))
    if options.json:
        print(json.dumps({"credits": [asdict(credit) for credit in credits]}))
        return 0
    lines = (f"{line}\n" for line in written(credits, options.format))
    if options.out is None:
        sys.stdout.writelines(lines)
    else:
        with Path(options.out).open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
    return 0
