"""How long a report takes, to write and to show: python benchmarks/report.py

A run of 2,000 small photos (models that cost nothing) is curated and multiplied to 100,000 rows
(benchmarks/report.py). Its report is written and opened from disk in headless Chromium: first
paint, all sections, a search, the last page of the table. Prints a table and, last, one line of JSON.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from playwright.sync_api import Page

from benchmarks.chromium import chromium, find_chromium, first_paint_s, show
from benchmarks.trivial_models import write_collection
from curation.errors import PersonaError
from curation.fragments import Fragment, about, commit, list_fragments
from curation.report.write import write_report

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


TRIVIAL = "benchmarks.trivial_models:Anyone"
PHOTOS_PER_PERSON = 5
CURATED = 2_000  # photos; larger runs are these many times
OPENED = 5  # times; the median counts


def main() -> int:
    """Measures; exit code 2 without a browser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--run", help="report this finished run instead of drawing one")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="draw the run here, or take the one that is there"
    )
    options = parser.parse_args()
    program = find_chromium()
    if program is None:
        print("report: no Chromium on this machine", file=sys.stderr)
        return 2
    scratch = Path(tempfile.mkdtemp(prefix="persona-benchmark-"))
    try:
        run = options.run or drawn_run(options.keep or scratch, options.rows)
        found = {**written(run, scratch / "report"), **shown(program, scratch / "report" / "index.html")}
    except PersonaError as error:
        print(f"report: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        shutil.rmtree(scratch)
    for key, value in found.items():
        print(f"{key:<16}{value:>12}")
    print(json.dumps(found))
    return 0


def drawn_run(folder: Path, rows: int) -> str:
    """A finished run of about so many photos, five of each person; not drawn again where it is there."""
    run = folder / f"run-{rows}"
    if not (run / "summary.json").exists():
        curated = curated_run(folder, min(rows, CURATED))
        multiply(curated, run, max(rows // CURATED, 1))
    return str(run)


def curated_run(folder: Path, photos: int) -> Path:
    """A run as the command line makes it."""
    from persona import main as persona

    run = folder / "curated"
    write_collection(folder / "tars", photos, PHOTOS_PER_PERSON)
    by = {"backend": TRIVIAL}
    pipeline = {
        "source": {"kind": "webdataset", "path": str(folder / "tars")},
        # Codes of people are all that differs: near copies would be all photos of a person.
        "photos": {"screen": {"min_side_px": 16}, "duplicates": {"near": False}},
        "people": {
            "detect": {"by": by},
            "face": {"find": by, "embed": by, "min_face_px": 4},
            "full_body": {"preset": "any", "min_box_px": 16},
            "segment": {"by": by},
            "regions": {"by": by},
        },
        "identities": {"link_cosine": 0.95, "merge_cosine": 0.95, "prototype_cosine": 0.9},
        "outfits": {"judge": {"backend": "benchmarks.trivial_models:AlwaysSame"}},
        "engine": {"fragment_rows": 500},
    }
    config = folder / "pipelines.yaml"
    config.write_text(yaml.safe_dump({"pipelines": {"drawn": pipeline}}))
    words = ["curate", "drawn", "--config", str(config), "--out", str(run), "--engine", "inline", "--quiet"]
    if persona(words):
        raise PersonaError("the drawn pipeline does not run")
    return run


def written(run: str, out: Path) -> dict[str, Any]:
    """Seconds and CPU seconds to write the report, and what it holds."""
    began, cpu = time.monotonic(), time.process_time()
    report = write_report(run, str(out))
    return {
        "rows": report.photos,
        "write_s": round(time.monotonic() - began, 2),
        "write_cpu_s": round(time.process_time() - cpu, 2),
        "thumbnails": report.thumbnails,
        "mib": round(report.bytes / 2**20, 1),
    }


def shown(program: str, file: Path) -> dict[str, Any]:
    """Seconds until the page is painted, found and turned; errors that it logged meanwhile."""
    with chromium(program) as browser:
        page = browser.tab()
        paints = []
        for _ in range(OPENED):
            show(page, file)
            page.wait_for_selector(".stage")
            paints.append(first_paint_s(page))
        sections = page.evaluate("[...document.querySelectorAll('main > section')].map((s) => s.id)")
        for name in sections:
            page.evaluate(f"main.draw('{name}'); document.getElementById('{name}').scrollIntoView()")
        page.wait_for_selector("#rows tbody tr")
        rows = "report.overview.rows"
        key = page.evaluate(f"report.entry({rows}, {rows}.count >> 1).then((row) => row[0])")
        search = _seconds(page, f"browse.find('{key}')", "document.getElementById('detail').open")
        page.evaluate("document.getElementById('detail').close()")
        page_s = _seconds(page, f"report.entry({rows}, {rows}.count - 1)", "true")
        return {
            "first_paint_s": round(sorted(paints)[OPENED // 2], 3),
            "search_s": search,
            "page_s": page_s,
            "console_errors": len(browser.errors),
        }


def _seconds(page: Page, script: str, until: str) -> float:
    began = time.monotonic()
    page.evaluate(script)
    page.wait_for_function(until)
    return round(time.monotonic() - began, 3)


if __name__ == "__main__":
    sys.exit(main())


_FOLDERS = ("photos/_screened", "photos", "people/_photos", "people", "identities", "outfits", "captions")
_NAMES = ("source_key", "file_name")
_IDS = ("photo_id", "person_id", "person_ids", "identity", "group")
_BUCKET = re.compile(r"bucket-(\d+)\.parquet")


def multiply(source: Path, target: Path, times: int) -> None:
    """Writes the run `target`: `times` copies of the barriers of the finished run `source`."""
    for folder in _FOLDERS:
        fragments = list_fragments(str(source / folder))
        for copy in range(times):
            for fragment in fragments:
                path = source / folder / fragment.name
                name = Fragment(copy * len(fragments) + fragment.index, fragment.key).name
                commit(str(target / folder / name), _renamed(_read(path), copy), about(str(path)))
    _gathered(source / "outfits", target / "outfits", times)
    groups = _read(source / "packing" / "groups.parquet")
    (target / "packing").mkdir(parents=True, exist_ok=True)
    many = pa.concat_tables([_renamed(groups, copy) for copy in range(times)])
    pq.write_table(many, target / "packing" / "groups.parquet")
    (target / "run.yaml").write_text((source / "run.yaml").read_text())
    (target / "status.json").write_text((source / "status.json").read_text())
    summary = json.loads((source / "summary.json").read_text())
    (target / "summary.json").write_text(json.dumps(_times(summary, times)))


def _read(path: Path) -> pa.Table:
    return pq.read_table(path, partitioning=None)


def _gathered(source: Path, target: Path, times: int) -> None:
    for folder in source.glob("_gathered-*"):
        buckets = [file for file in sorted(folder.iterdir()) if _BUCKET.fullmatch(file.name)]
        place = target / folder.name
        place.mkdir(parents=True, exist_ok=True)
        for copy in range(times):
            for number, file in enumerate(buckets):
                name = f"bucket-{copy * len(buckets) + number:06d}.parquet"
                pq.write_table(_renamed(_read(file), copy), place / name, compression="zstd")


def _renamed(table: pa.Table, copy: int) -> pa.Table:
    """The table with the ids of a copy; those of the first copy are the ids of the source."""
    if copy == 0:
        return table
    for name in (*_NAMES, *_IDS, "pairs"):
        if name in table.column_names:
            values = [_of_copy(value, copy, name in _NAMES) for value in table[name].to_pylist()]
            place = table.column_names.index(name)
            table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    return table


def _of_copy(value: Any, copy: int, is_name: bool) -> Any:
    """An id whose first four digits are shifted by the copy; a name with the copy before it."""
    if isinstance(value, list):
        return [_of_copy(entry, copy, is_name) for entry in value]
    if isinstance(value, dict):
        return {**value, "a": _of_copy(value["a"], copy, False), "b": _of_copy(value["b"], copy, False)}
    if value is None:
        return None
    if is_name:
        return f"{copy:04d}-{value}"
    return f"{(int(value[:4], 16) + 211 * copy) % 65536:04x}{value[4:]}"


def _times(value: Any, times: int) -> Any:
    """Counts of a summary, so many times."""
    if isinstance(value, dict):
        return {key: _times(entry, times) for key, entry in value.items()}
    if isinstance(value, list):
        return [_times(entry, times) for entry in value]
    return value * times if isinstance(value, int) and not isinstance(value, bool) else value
