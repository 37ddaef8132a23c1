"""The card of a dataset: README.md with a YAML header and a datasheet, and croissant.json.

Both are functions of dataset.json alone, so whatever rewrites that (forget, merge, split, …) keeps them
true.

croissant.json is the dataset in the vocabulary of MLCommons' Croissant 1.0
(http://mlcommons.org/croissant/1.0, JSON-LD), for machines, with its responsible-AI properties (RAI 1.0).
Croissant asks for sha256 of single files and a date; here files are described as sets, because dataset.json
has xxh3-128 of every file, and there is no date, because the same run gives the same bytes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shards.format.contents import NOT_STATED
from shards.format.dataset import index_name
from shards.format.sample import SCHEMA_VERSION

CARD = ("README.md", "croissant.json")
_KIB_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_MOST = "1M<n<10M"
_COUNTS = ("stage", "unit", "in", "kept", "rejected", "failed")
_ABOUT = "Groups of photos: each group is one person in one outfit. Made by `persona curate`."
_SAMPLE = """A sample has the photos, for each a label map of 18 body parts and clothes, and a record with
box, joints, face, visible regions and caption. The shards are WebDataset tars; the index gives shard,
offset, length and xxh3-128 checksum of every member, `dataset.json` those of every shard."""
_LOADING = """`datasets.load_dataset` reads the index from here, a row a group. For the photos, a row each,
give it what `persona shards export DIR --to parquet` writes."""
_FUNNEL = """What each stage was given and what it did with it. Rejected is measured and found wanting;
failed is not known. Of what was forgotten since, nothing is subtracted here."""
_ALWAYS_LIMITED = (
    """Who is the same person, and in which outfit, was decided by models: some groups hold two people, or
  two outfits. This card has no figure of how many.""",
    "People whom the detector or the face models find badly are missing, and no count shows them.",
    "Captions were written by a model or by rules, and may be wrong.",
)
_USE = """## Use

The photos show real people, unless they were drawn. Use them only as their licences and the people on
them permit; do not use them to recognise anybody. There are no face embeddings in the dataset. A person
who asks for it is taken out with `persona shards forget`; a copy that others hold is not."""
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


def card_files(title: str, shards: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> dict[str, bytes]:
    """{file name: content} of `CARD`. `shards` and `about` are those of dataset.json."""
    filled = {"models": {}, "config": "", **about}
    return {
        "README.md": _readme(title, shards, filled).encode(),
        "croissant.json": croissant_bytes(title, shards, filled),
    }


def _readme(title: str, shards: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    parts = [
        _header(title, shards, about),
        f"# {title}\n\n{_ABOUT}",
        _composition(shards, about),
        _process(about),
        _limits(about),
        _use(about),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(title: str, shards: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    """The YAML that hubs of datasets read. The licence named is that of the photos."""
    photos = sum(shard["photos"] for shard in shards)
    size = next((name for below, name in _KIB_SIZES if photos < below), _MOST)
    stated = list(about["licences"])
    licence = stated[0] if len(stated) == 1 else "several, by photo"
    lines = {
        "pretty_name": title,
        "license": "other",
        "license_name": licence,
        "size_categories": [size],
        "task_categories": ["text-to-image", "image-to-image"],
        "tags": ["webdataset", "croissant", "people"],
        # Without it, or with the tars, `datasets` takes what a group holds from the first five: photos of
        # larger ones are dropped in silence, and groups of different sizes are no dataset at all.
        "configs": [{"config_name": "index", "data_files": index_name(about, "parquet")}],
    }
    # JSON is YAML, and it quotes whatever a title holds.
    return "\n".join(
        ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in lines.items()), "---"]
    )


def _composition(shards: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    counts = [
        ("groups", sum(shard["groups"] for shard in shards)),
        ("photos", sum(shard["photos"] for shard in shards)),
        ("identities", about["identities"]),
        ("shards", len(shards)),
        ("bytes", sum(shard["bytes"] for shard in shards)),
        ("schema", SCHEMA_VERSION),
        ("revision", about.get("revision", 0)),
        ("config", f"`{about['config']}`"),
    ]
    return "\n\n".join(
        [
            "## What is in it",
            _table(("", ""), counts),
            "Photos per group:",
            _table(
                ("photos", "groups"), sorted(about["photos_per_group"].items(), key=lambda row: int(row[0]))
            ),
            "Licences, by photo, as the collection stated them:",
            _table(("licence", "photos"), about["licences"].items()),
            _SAMPLE,
            _LOADING,
        ]
    )


def _process(about: Mapping[str, Any]) -> str:
    """How photos were chosen: what each stage ruled out, by which settings and models."""
    parts = ["## How it was made"]
    if about.get("lineage"):
        made, parents = about["lineage"].get("operation", ""), len(about["lineage"].get("parents", []))
        parts.append(
            f"`persona shards {made}` made it of {parents} {'dataset' if parents == 1 else 'datasets'}.\n"
            "What follows is said of the run behind it."
        )
    if about.get("funnel"):
        stages: list[Sequence[Any]] = []
        for entry in about["funnel"]:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(entry["reasons"].items()))
            stages.append([*(entry[name] for name in _COUNTS), reasons])
        parts += [_FUNNEL, _table((*_COUNTS, "reasons"), stages)]
    if about.get("opt_out"):
        listed = about["opt_out"]
        parts.append(
            f"An opt-out list of {listed['lines']} lines was obeyed before any model saw a photo; "
            f"{listed['matched']} of\nthem matched a photo of the collection."
        )
    if about["models"]:
        models = [
            (name, f"`{model['sha256'][:12]}`", model["licence"]) for name, model in about["models"].items()
        ]
        parts += ["Models that decided, by sha256:", _table(("model", "sha256", "licence"), models)]
    if about.get("settings"):
        settings = [(f"`{key}`", f"`{json.dumps(value)}`") for key, value in about["settings"].items()]
        parts += ["Settings that decided (pipelines.yaml):", _table(("setting", "value"), settings)]
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _limits(about: Mapping[str, Any]) -> str:
    """What is known to be missing or wrong, in numbers where the run counted them."""
    found = list(_ALWAYS_LIMITED)
    unstated = about["licences"].get(NOT_STATED, 0)
    if unstated:
        found.append(f"The collection states no licence for {unstated} photos.")
    if about.get("funnel"):
        failed = [f"{entry['failed']} by {entry['stage']}" for entry in about["funnel"] if entry["failed"]]
        if failed:
            found.append(
                f"Rows that failed, so that nobody knows whether they belong here: {', '.join(failed)}."
            )
    settings = about.get("settings")
    if settings is not None:
        for name, what in (("nsfw", "nudity"), ("age", "minors")):
            if not any(key.startswith(f"people.{name}.") for key in settings):
                found.append(f"No filter for {what} was on (`people.{name}`).")
        if not settings.get("photos.screen.consent"):
            found.append("No consent was demanded of the collection (`photos.screen.consent`).")
    return "\n".join(["## Known limits", "", *(f"- {line}" for line in found)])


def _use(about: Mapping[str, Any]) -> str:
    lines = [_USE]
    if about.get("tombstones"):
        lines += [
            "",
            f"{about['tombstones']['count']} identities, groups and photos were forgotten.\n"
            f"`{about['tombstones']['name']}` keeps them out of later runs and tells nobody who they are.",
        ]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    """Text of others (licences) must not end a cell, a line or the table."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


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
