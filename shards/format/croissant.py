"""croissant.json: the dataset in the vocabulary of MLCommons' Croissant 1.0 (JSON-LD), for machines.

The vocabulary is that of http://mlcommons.org/croissant/1.0, with its responsible-AI properties (RAI 1.0).
Its rules ask for sha256 of single files and a date; files are described as sets here, because dataset.json
has xxh3-128 of every file, and there is no date, because the same run gives the same bytes.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

# The names that the document uses, as the standard's own documents define them.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    **{name: {"@id": f"cr:{name}", "@type": "@json"} for name in ("data", "examples")},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{
        name: f"cr:{name}"
        for name in (
            "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty",
            "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path",
            "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator", "source",
            "subField", "transform",
        )
    },
}  # fmt: skip
_COLUMNS = (
    ("key", "sc:Text", "the group: identity, hyphen, letter of the outfit"),
    ("people", "sc:Integer", "photos of the group"),
    ("shard", "sc:Integer", "place of its tar in `shards` of dataset.json"),
    ("offset", "sc:Integer", "byte of the tar at which its first member's header begins"),
    ("length", "sc:Integer", "bytes to the end of its last member's padding"),
)


def croissant_bytes(title: str, shards: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> bytes:
    """The file. `shards` and `about` are those of dataset.json."""
    groups = sum(shard["groups"] for shard in shards)
    photos = sum(shard["photos"] for shard in shards)
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": title,
        "description": f"{groups} groups of {photos} photos: each group is one person in one outfit.",
        "version": f"1.{about.get('revision', 0)}.0",
        "license": list(about["licences"]),
        "isLiveDataset": False,
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": "index",
                "name": "index",
                "description": "One row a group: where it lies, what it holds, a checksum of every member.",
                "encodingFormat": "application/x-parquet",
                "includes": "index*.parquet",
            },
            {
                "@type": "cr:FileSet",
                "@id": "shards",
                "name": "shards",
                "description": "WebDataset tars. KEY.json is a group; KEY.NNN.jpg, KEY.NNN.regions.png and "
                "KEY.NNN.json are its photos, their label maps and records.",
                "encodingFormat": "application/x-tar",
                "includes": "*.tar",
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "groups",
                "name": "groups",
                "description": "The groups, in the order of the shards.",
                "key": {"@id": "groups/key"},
                "field": [_field(*column) for column in _COLUMNS],
            }
        ],
        "rai:personalSensitiveInformation": "Photos of people, their bodies and faces: boxes, joints, label "
        "maps and points of faces. No names are added and no embeddings are stored.",
        "rai:dataCollection": "Chosen from a collection of others; README.md counts licences as stated.",
        "rai:dataPreprocessingProtocol": _protocol(about),
        "rai:dataLimitations": "Identity and outfit were decided by models and may be wrong; people whom the "
        "models find badly are missing. README.md, Known limits.",
        "rai:dataUseCases": "Training and measuring models that draw a person from reference photos. Not for "
        "recognising anybody.",
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _field(column: str, kind: str, meaning: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"groups/{column}",
        "name": column,
        "description": meaning,
        "dataType": kind,
        "source": {"fileSet": {"@id": "index"}, "extract": {"column": column}},
    }


def _protocol(about: Mapping[str, Any]) -> list[str]:
    """A sentence for each stage that was given anything."""
    said = [
        f"{entry['stage']}: of {entry['in']} ({entry['unit']}) {entry['kept']} kept, {entry['rejected']} "
        f"rejected, {entry['failed']} failed"
        for entry in about.get("funnel", [])
    ]
    return said or ["Not recorded."]
