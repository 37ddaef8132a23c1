"""A dataset in the forms that other tools want: plain folders, Parquet with pictures, one picture a sample.

Each form is written to a hidden folder beside OUT, which gets its name when all is there.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from shards.format.dataset import DatasetError, prefix_of
from shards.format.dataset_writer import DatasetWriter
from shards.format.members import identity_of, member_named, photo_id_of, pictures_of, record_of
from shards.format.orientation import upright_size
from shards.format.sample import json_bytes
from shards.format.stated import carried_columns
from shards.reading.folder import Sample
from shards.tools.cat import write_members
from shards.tools.commands import folder_of, on_disk, progress_of, say
from shards.tools.dataset_rows import DatasetRows, read_ahead

Form = Literal["folders", "parquet", "images"]
_FILE_ROWS = 10_000
_GROUP_BYTES = 64 * 2**20  # of pictures in one row group
# As Hugging Face `datasets` stores a picture; `image` below tells it that the column is one.
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_COLUMNS = pa.schema(
    [
        ("image", _IMAGE),
        ("key", pa.string()),
        ("identity", pa.string()),
        ("photo", pa.int32()),
        ("caption", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("licence", pa.string()),
        ("regions_map", pa.binary()),
        ("record", pa.string()),
    ]
)


def export(
    folder: str, out: str, form: Form, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Writes a dataset in another form. Returns {"samples": …, "photos": …}.

    folders   OUT/KEY.SUFFIX, every member a file
    parquet   OUT/data/*.parquet, a row a photo: picture, map, caption, record; opened by `datasets`
    images    WebDataset of ours, a sample a photo: KEY-NNN.jpg, .regions.png, .json with `group` in it, .txt

    A photo of others comes with the record of its sample as it is, and has the size of its own pixels.

    Raises DatasetError where OUT is there already, the dataset is damaged, or two keys would become one.
    """
    if Path(out).exists():
        raise DatasetError(f"{out}: is there already; name a folder that is new")
    dataset = DatasetRows(folder)
    target = Path(out).absolute()
    hidden = target.parent / f".{target.name}.unfinished"
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir(parents=True)

    def samples() -> Iterator[Sample]:
        places = [(dataset, number) for number in range(len(dataset))]
        for done, sample in enumerate(read_ahead(places), 1):
            yield sample
            if progress is not None:
                progress(done, len(dataset))

    write = {"folders": _folders, "parquet": _parquet, "images": _images}[form]
    made = {"operation": "export", "parents": [dataset.as_parent()]}
    photos = write(samples(), hidden, Made(str(dataset.about.get("pipeline") or "Dataset"), prefix_of(made)))
    hidden.rename(target)
    return {"samples": len(dataset), "photos": photos}


class Made(NamedTuple):
    """Of an exported dataset: its title, and what its shards' names begin with."""

    title: str
    prefix: str


def photos_of(sample: Sample) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(stem, suffix of the picture, record) of each photo of a sample."""
    for suffix in pictures_of(sample.members):
        yield suffix.rpartition(".")[0], suffix, record_of(sample.members, suffix)


def _folders(samples: Iterator[Sample], out: Path, made: Made) -> int:
    photos = 0
    for sample in samples:
        write_members(sample, out)
        photos += len(pictures_of(sample.members))
    return photos


def _parquet(samples: Iterator[Sample], out: Path, made: Made) -> int:
    features = {"image": {"_type": "Image"}}
    schema = _COLUMNS.with_metadata({"huggingface": json.dumps({"info": {"features": _features(features)}})})
    (out / "data").mkdir()
    files = total = in_file = size = 0
    rows: list[dict[str, Any]] = []
    writer: pq.ParquetWriter | None = None
    for sample in samples:
        for number, (stem, suffix, record) in enumerate(photos_of(sample)):
            rows.append(_row(sample, number, stem, suffix, record))
            size += len(sample.members[suffix])
            total, in_file = total + 1, in_file + 1
        if size > _GROUP_BYTES or in_file >= _FILE_ROWS:
            if writer is None:
                writer = _open_file(out, files, schema)
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            rows, size = [], 0
        if writer is not None and in_file >= _FILE_ROWS:
            writer.close()
            writer, in_file, files = None, 0, files + 1
    if rows or writer is not None or files == 0:
        if writer is None:
            writer = _open_file(out, files, schema)
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        writer.close()
    return total


def _open_file(out: Path, number: int, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(out / "data" / f"train-{number:05d}.parquet", schema, compression="zstd")


def _features(known: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The columns as `datasets` names their types."""
    kinds = {"string": "string", "int32": "int32", "binary": "binary"}
    plain = {
        field.name: {"dtype": kinds[str(field.type)], "_type": "Value"}
        for field in _COLUMNS
        if str(field.type) in kinds
    }
    return {field.name: {**known, **plain}[field.name] for field in _COLUMNS}


def _row(sample: Sample, number: int, stem: str, suffix: str, record: dict[str, Any]) -> dict[str, Any]:
    stated = carried_columns(record)
    width, height = _size(record, sample.members[suffix])
    return {
        "image": {"bytes": sample.members[suffix], "path": f"{sample.key}.{suffix}"},
        "key": sample.key,
        "identity": identity_of(sample.key),
        "photo": number,
        "caption": stated.get("caption", _text(sample, stem)),
        "width": width,
        "height": height,
        "licence": stated.get("licence"),
        "regions_map": member_named(sample.members, f"{stem}.regions.png"),
        "record": json_bytes(record).decode() if record else None,
    }


def _size(record: dict[str, Any], picture: bytes) -> tuple[int | None, int | None]:
    """Width and height of an upright photo. What others state of theirs may be of other bytes."""
    if photo_id_of(record) is not None:
        return record.get("width"), record.get("height")
    return upright_size(picture, record) or (None, None)


def _text(sample: Sample, stem: str) -> str | None:
    """The .txt beside a picture, or that of the whole sample."""
    for name in (f"{stem}.txt", "txt"):
        data = member_named(sample.members, name)
        if data is not None:
            return data.decode("utf-8", "replace")
    return None


def _images(samples: Iterator[Sample], out: Path, made: Made) -> int:
    photos = 0
    taken: set[int] = set()  # hashes of keys
    with DatasetWriter(str(out), max_samples=_FILE_ROWS, prefix=made.prefix) as writer:
        for sample in samples:
            key = _flat(sample.key)
            digest = xxhash.xxh3_64_intdigest(key.encode())
            if digest in taken:
                raise DatasetError(f"{sample.key}: another sample has the name {key} here too")
            taken.add(digest)
            for number, (stem, suffix, record) in enumerate(photos_of(sample)):
                kind = suffix.rpartition(".")[2].lower()
                members = {kind: sample.members[suffix]}
                row = _row(sample, number, stem, suffix, record)
                if row["regions_map"] is not None:
                    members["regions.png"] = row["regions_map"]
                members["json"] = json_bytes({"group": sample.key, **record})
                if row["caption"] is not None:
                    members["txt"] = row["caption"].encode()
                writer.add(f"{key}-{number:03d}", members)
                photos += 1
        writer.close(made.title, {})
    return photos


def _flat(key: str) -> str:
    """A key as one part of a path without a dot: our shards have no folders in them."""
    return key.removeprefix("./").replace("/", "_").replace(".", "_")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `persona shards export`."""
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument(
        "--to", choices=("folders", "parquet", "images"), required=True,
        help="a file a member; Parquet as Hugging Face datasets reads it; WebDataset, a sample a photo",
    )  # fmt: skip
    parser.add_argument("--out", metavar="DIR", required=True)


def run(options: argparse.Namespace) -> int:
    """Runs the action. Returns the exit code."""
    written = export(folder_of(options.folder), on_disk(options.out), options.to, progress_of(options))
    say(options, written, [f"{options.out}: {written['samples']} samples, {written['photos']} photos"])
    return 0
