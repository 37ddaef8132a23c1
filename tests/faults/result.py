"""What a run left, in a form in which two runs can be compared, and what must hold of any run.

Compared byte for byte: every file of `shards/`, run.yaml, and what is neither Parquet nor named below.
Compared by rows, types and counts: every Parquet file, since the footer of a fragment says how long it
took. Of summary.json the counts; of `_answers`, whose files are named by who asked, all lines together.
Not compared, being of the moment: status.json, traceback.txt, vllm.log.
"""

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from shards.tools.verify import verify
from tests.faults.workplace import BrokenPromiseError

Files = Mapping[str, bytes]
_OF_THE_MOMENT = re.compile(r"(status\.json|traceback\.txt|vllm\.log)$")
_ANSWERS = re.compile(r"(.+/_answers)/")
_UNFINISHED = re.compile(r"(^|/)(\.|[^/]*\.tmp$)")


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file of a run, by relative name; a file that goes meanwhile is left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
        except FileNotFoundError:
            continue
    return found


def comparable(files: Files) -> dict[str, str]:
    """{name: digest of what is compared}."""
    found: dict[str, str] = {}
    answers: dict[str, set[bytes]] = {}
    for name, data in files.items():
        if answered := _ANSWERS.match(name):
            answers.setdefault(answered[1], set()).update(data.splitlines())
        elif not _OF_THE_MOMENT.match(name):
            found[name] = hashlib.sha256(_essence(name, data)).hexdigest()
    for name, lines in answers.items():
        found[name] = hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()
    return found


def _essence(name: str, data: bytes) -> bytes:
    if name == "summary.json":
        return json.dumps(json.loads(data)["stages"], sort_keys=True).encode()
    if name.startswith("shards/") or not name.endswith(".parquet"):
        return data
    table = pq.read_table(io.BytesIO(data))
    metadata = table.schema.metadata or {}
    about = json.loads(metadata.get(b"persona", b"{}"))
    others = {key: value for key, value in sorted(metadata.items()) if key != b"persona"}
    said = (about.get("rows"), about.get("counts"), others, table.schema.remove_metadata().to_string())
    return repr((said, table.to_pylist())).encode()


def require_same(files: Files, undisturbed: Mapping[str, str]) -> None:
    """Raises BrokenPromiseError where a run differs from the undisturbed one, naming what does."""
    found = comparable(files)
    wrong = [f"{name} is missing" for name in sorted(set(undisturbed) - set(found))]
    wrong += [f"{name} is too many" for name in sorted(set(found) - set(undisturbed))]
    wrong += [
        f"{name} differs" for name in sorted(found) if found[name] != undisturbed.get(name, found[name])
    ]
    if wrong:
        raise BrokenPromiseError(
            f"not as undisturbed: {', '.join(wrong[:4])}{' …' if len(wrong) > 4 else ''}"
        )


def require_ledger(files: Files, collection: Collection[str]) -> None:
    """Every photo of the collection is decided exactly once, and no stage lost a row."""
    keys: Counter[str] = Counter()
    for name, data in files.items():
        if re.match(r"photos/fragment-\d+-\w+\.parquet$", name):
            for row in pq.read_table(io.BytesIO(data)).to_pylist():
                keys[row["source_key"].rsplit("/", 1)[-1]] += 1
                stages = [decision["stage"] for decision in row["decisions"]]
                if not stages or len(stages) != len(set(stages)):
                    raise BrokenPromiseError(f"{row['source_key']}: decided by {stages}")
    if keys != Counter(collection):
        raise BrokenPromiseError(
            f"{sum(keys.values())} photos decided, {len(collection)} are in the collection"
        )
    for entry in json.loads(files["summary.json"])["stages"]:
        if entry["in"] != entry["kept"] + entry["rejected"] + entry["failed"]:
            raise BrokenPromiseError(f"stage {entry['stage']}: its counts do not add up: {entry}")
        if entry["failed"]:
            raise BrokenPromiseError(f"stage {entry['stage']}: {entry['failed']} failed after all was mended")


def require_tidy(files: Files) -> None:
    """No temporary name is left."""
    left = [name for name in files if _UNFINISHED.search(name)]
    if left:
        raise BrokenPromiseError(f"left behind: {', '.join(left[:4])}")


def require_whole(files: Files, scratch: Path) -> None:
    """Whatever can be seen, at any moment, is whole: files can be read to their end, a dataset verifies.

    scratch   an empty folder
    """
    visible = {name: data for name, data in files.items() if not _UNFINISHED.search(name)}
    for name, data in visible.items():
        try:
            _read_to_its_end(name, data)
        except Exception as error:
            raise BrokenPromiseError(f"half a file can be seen: {name}: {error}") from error
    if "shards/dataset.json" in visible:
        for name, data in visible.items():
            if name.startswith("shards/"):
                target = scratch / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
        problems = verify(str(scratch / "shards"), processes=1).problems
        if problems:
            raise BrokenPromiseError(f"verify: {problems[0]}")


def _read_to_its_end(name: str, data: bytes) -> Any:
    if name.endswith(".parquet"):
        return pq.read_table(io.BytesIO(data))
    if name.endswith(".json"):
        return json.loads(data)
    if name.endswith(".tar"):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return [tar.extractfile(member) for member in tar.getmembers()]
    return data
