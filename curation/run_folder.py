"""The folder of a run: which tables and records lie in it, and where. No other file names them."""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from curation.errors import ConfigError
from curation.run_tables import (
    AnswerFiles,
    CachedTable,
    GatheredPeople,
    Listings,
    MeasuredRows,
    PhaseTable,
    read_known,
)
from curation.storage import (
    exists,
    is_local,
    join,
    local_path,
    read_bytes,
    remove,
    remove_unfinished,
)
from curation.storage import write_bytes as write

if TYPE_CHECKING:
    import pyarrow as pa

    from curation.models import Models
    from curation.settings import PipelineSettings

HEARTBEAT_S = 10.0  # a running status is written at least this often

# The tables of each phase that hold counts, in the order of the funnel.
PHASES = {
    "photos": ("photos/_screened", "photos"),
    "people": ("people",),
    "identities": ("identities",),
    "outfits": ("outfits",),
    "captions": ("captions",),
    "shards": ("packing",),
}
_KEYS = {
    "photos/_screened": "source_key",
    "photos": "source_key",
    "people": "person_id",
    "identities": "person_id",
    "outfits": "identity",
    "captions": "person_id",
    "packing": "key",
}
_SETTINGS, _STATUS, _SUMMARY = "run.yaml", "status.json", "summary.json"
_DATASET = "dataset.json"
OPT_OUT_FILE = "photos/_opt_out.json"  # readers of the Parquet files in photos/ pass over names with _


class Run:
    """A run by its folder, path or URL. Making one reads nothing."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def table(self, name: str) -> PhaseTable:
        """A table with counts by its name in `PHASES`."""
        beside = self.people_photos if name == "people" else None
        return PhaseTable(name, self._at(*name.split("/")), _KEYS[name], beside)

    # --- tables, in the order in which a run writes them ---------------------------------------------

    @cached_property
    def listings(self) -> Listings:
        """The rows of the collection, a file a unit."""
        return Listings(self._at("source"))

    @cached_property
    def sample(self) -> Listings:
        """The rows that `persona plan` drew."""
        return Listings(self._at("sample"))

    @cached_property
    def screened(self) -> PhaseTable:
        """A row a photo that was read and screened."""
        return self.table("photos/_screened")

    @cached_property
    def copies(self) -> CachedTable:
        """Who copies whom, a row a copy."""
        return CachedTable(self._at("photos"), "_copies")

    @cached_property
    def photos(self) -> PhaseTable:
        """A row a photo, with what it is a copy of."""
        return self.table("photos")

    @cached_property
    def people(self) -> PhaseTable:
        """A row a person found, in the order of their photos, which `source_key` names in `people_photos`."""
        return self.table("people")

    @cached_property
    def people_photos(self) -> PhaseTable:
        """A row a photo, as the phase `people` left it; committed by the fragments of `people`."""
        folder = self._at("people")
        return PhaseTable("people/_photos", join(folder, "_photos"), "source_key", first=folder)

    def photos_with_people(
        self, of_photo: Sequence[str], of_person: Sequence[str]
    ) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Every photo that came into the phase `people`, and its people; one fragment is in memory.

        Columns that an older run lacks are absent. Raises ConfigError.
        """
        for fragment in self.people.fragments():
            photos = self.people_photos.read(fragment, list(dict.fromkeys(["source_key", *of_photo])))
            people = self.people.read(fragment, list(dict.fromkeys(["source_key", *of_person])))
            found: dict[str, list[dict[str, Any]]] = {}
            for person in people.to_pylist():
                found.setdefault(person["source_key"], []).append(person)
            for photo in photos.to_pylist():
                yield photo, found.get(photo["source_key"], [])

    @cached_property
    def assigned(self) -> CachedTable:
        """Who is whom, a row a person."""
        return CachedTable(self._at("identities"), "_assigned")

    @cached_property
    def suspects(self) -> CachedTable:
        """What was in doubt when identities were made, a row a pair."""
        return CachedTable(self._at("identities"), "_suspects")

    @cached_property
    def minors(self) -> CachedTable:
        """The identities that a photo votes to be a minor's."""
        return CachedTable(self._at("identities"), "_minors")

    @cached_property
    def identities(self) -> PhaseTable:
        """A row a person, with its identity."""
        return self.table("identities")

    @cached_property
    def gathered(self) -> GatheredPeople:
        """A row a person, by identity."""
        return GatheredPeople(self._at("outfits"))

    @cached_property
    def outfits(self) -> PhaseTable:
        """A row an identity, with its people and pairs as lists."""
        return self.table("outfits")

    @cached_property
    def captions(self) -> PhaseTable:
        """A row a kept person, with its group and caption."""
        return self.table("captions")

    @cached_property
    def packing(self) -> PhaseTable:
        """A row a packed group: the index of each shard."""
        return self.table("packing")

    @property
    def groups_file(self) -> str:
        """What became of every group, a row a group."""
        return self._at("packing", "groups.parquet")

    def groups(self, columns: list[str]) -> "pa.Table | None":
        """The wanted columns of what became of every group; None before packing was finished."""
        return read_known(self.groups_file, columns) if exists(self.groups_file) else None

    def photos_so_far(self) -> PhaseTable:
        """The photos' last committed decisions of the phase `photos`."""
        return self.photos if self.photos.fragments() else self.screened

    def measured(self, phase: str) -> MeasuredRows:
        """What the stages of `photos` or `people` measured."""
        return MeasuredRows(self._at(phase))

    def answers(self, phase: str) -> AnswerFiles:
        """What models answered in `outfits` or `captions`."""
        return AnswerFiles(self._at(phase))

    def decide_again(self) -> None:
        """Removes all decisions but those of `screened`; what was measured and answered stays.

        Later phases go first: what is there when this is killed still says that rows failed.
        """
        for phase in ("packing", "captions", "outfits", "identities"):
            self.answers(phase).remove_beside()
        self.people.keep_only([])
        self.copies.keep_only(None)
        self.photos.keep_only([])

    # --- records -------------------------------------------------------------------------------------

    @property
    def status(self) -> dict[str, Any] | None:
        """What the run last said of itself; None where it never started. Raises ConfigError."""
        return read_json(self._at(_STATUS))

    @status.setter
    def status(self, record: dict[str, Any]) -> None:
        write_json(self._at(_STATUS), record)

    @property
    def summary(self) -> dict[str, Any] | None:
        """Counts and rates of the finished run; None before. Raises ConfigError."""
        return read_json(self._at(_SUMMARY))

    @summary.setter
    def summary(self, record: dict[str, Any]) -> None:
        write_json(self._at(_SUMMARY), record)

    @property
    def opt_out(self) -> dict[str, Any] | None:
        """{sha256, lines, matched, missed} of the opt-out list; None where there is none, or none yet."""
        return read_json(self._opt_out, none=True)

    @opt_out.setter
    def opt_out(self, record: dict[str, Any] | None) -> None:
        write(self._opt_out, json.dumps(record).encode())

    @property
    def drawn(self) -> dict[str, Any] | None:
        """What `persona plan` drew of the collection; None where nothing was drawn. Raises ConfigError."""
        return read_json(self._at("sample", "sample.json"))

    @drawn.setter
    def drawn(self, record: dict[str, Any]) -> None:
        write(self._at("sample", "sample.json"), json.dumps(record).encode())

    @property
    def plan_file(self) -> str:
        """Where `persona plan` writes."""
        return self._at("plan.json")

    @property
    def plan(self) -> dict[str, Any] | None:
        """What `persona plan` expects; None where there is no plan. Raises ConfigError."""
        return read_json(self.plan_file)

    @plan.setter
    def plan(self, record: dict[str, Any]) -> None:
        write_json(self.plan_file, record)

    @property
    def traceback(self) -> str:
        """Where an unexpected error is written."""
        return self._at("traceback.txt")

    @property
    def server_log(self) -> str | None:
        """The log of the run's own model server; None where the run lies in a store."""
        return join(local_path(self.folder), "vllm.log") if is_local(self.folder) else None

    @property
    def calibration(self) -> str:
        """Where `persona judge calibrate` writes its record; its plot lies beside it."""
        return self._at("judge-calibration.json")

    @property
    def search(self) -> str:
        """Where embeddings lie while identities are made; gone afterwards."""
        return self._at("identities", "_search")

    @property
    def report(self) -> str:
        """Where `persona report` writes."""
        return self._at("report")

    # --- the dataset ---------------------------------------------------------------------------------

    @property
    def shards(self) -> str:
        """The folder of the dataset: nothing but its files lies there."""
        return self._at("shards")

    @property
    def dataset_file(self) -> str:
        """The file that makes the folder a dataset."""
        return join(self.shards, _DATASET)

    @property
    def dataset(self) -> dict[str, Any] | None:
        """What the dataset says of itself; None before it was finished. Raises ConfigError."""
        return read_json(self.dataset_file)

    def is_packed(self, key: str) -> bool:
        """Whether the dataset is there and was finished from all that `key` names."""
        finished = exists(self._packed) and exists(self.dataset_file)
        return finished and read_bytes(self._packed).decode() == key

    def packed(self, key: str) -> None:
        """Notes from what the finished dataset was made."""
        write(self._packed, key.encode())

    def not_packed(self) -> None:
        """Notes that the dataset is not what it would be now."""
        remove(self._packed)

    def sizes(self) -> dict[str, str]:
        """{what lies there: folder} of everything that a run writes at length."""
        names = ("source", "photos", "people", "identities", "outfits", "captions", "packing", "shards")
        return {name: self._at(name) for name in names}

    # --- the settings --------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the folder is that of a run."""
        return exists(self._at(_SETTINGS))

    def require(self) -> None:
        """Raises ConfigError unless the folder is that of a run."""
        if not self.exists():
            raise ConfigError(f"{self.folder}: is no run folder (it has no {_SETTINGS})")

    def write_settings(
        self, name: str, pipeline: "PipelineSettings", models: "Models", sample: bool = False
    ) -> None:
        """run.yaml: the resolved settings, the code's version, the weights' hashes. No credentials.

        `sample`: the run is of a sample, as `persona plan` makes it. Raises ConfigError where the folder
        holds a run of the other kind: either would remove what the other did.
        """
        import yaml

        if self._holds_other_kind(sample):
            other = "the whole collection's run" if sample else "the sample of `persona plan`"
            raise ConfigError(f"--out {self.folder}: holds {other}; choose another folder")
        remove_unfinished(self.folder)
        record = {
            "pipeline": name,
            **({"sample": True} if sample else {}),
            "persona": code_version(),
            "models": {m.name: {"path": m.path, "sha256": m.sha256} for m in models.values()},
            "settings": pipeline.model_dump(mode="json"),
        }
        text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
        write(self._at(_SETTINGS), text.encode())

    def pipeline(self) -> tuple[str, "PipelineSettings"]:
        """The name and settings that the run was last started with. Raises ConfigError."""
        from pydantic import ValidationError

        from curation.settings import PipelineSettings

        record = self._settings()
        try:
            return str(record["pipeline"]), PipelineSettings.model_validate(record["settings"])
        except (KeyError, TypeError, ValidationError):
            raise ConfigError(
                f"{self.folder}: its {_SETTINGS} was written by another version; use curate"
            ) from None

    def setting(self, key: str) -> Any:
        """A setting of the run's last start, such as outfits.judge.regions, without loading all of them. None
        where there is none of this name. Raises ConfigError.
        """
        found = self._settings().get("settings")
        for name in key.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def model(self, name: str) -> dict[str, str] | None:
        """{path, sha256} of a model that the run was last started with. Raises ConfigError."""
        found: dict[str, str] | None = self._settings()["models"].get(name)
        return found

    def is_sample(self) -> bool:
        """Whether the folder holds the sample of `persona plan`. Raises ConfigError."""
        return bool(self._settings().get("sample"))

    def _holds_other_kind(self, sample: bool) -> bool:
        try:
            return self.exists() and self.is_sample() != sample
        except ConfigError:  # damaged: it is about to be written anew
            return False

    def _settings(self) -> dict[str, Any]:
        import yaml

        self.require()
        try:
            record = yaml.load(read_bytes(self._at(_SETTINGS)), yaml.CSafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError):
            record = None
        if not isinstance(record, dict):
            raise ConfigError(
                f"{self.folder}: its {_SETTINGS} is damaged; the same curate command writes it anew"
            )
        return record

    @property
    def _packed(self) -> str:
        return self._at("packing", "whole")

    @property
    def _opt_out(self) -> str:
        return self._at(*OPT_OUT_FILE.split("/"))

    def _at(self, *names: str) -> str:
        return join(self.folder, *names)


def run_at(folder: str) -> str:
    """The run folder that is meant: the folder itself, or the `run` in it, where the demo keeps its own."""
    inner = join(folder, "run")
    return inner if not Run(folder).exists() and Run(inner).exists() else folder


def is_dataset(folder: str) -> bool:
    """Whether a finished dataset lies in a folder, in a run's or anywhere."""
    return exists(join(folder, _DATASET))


def funnel_ends(stages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """{collection, identities}: how many photos came in, and how many identities were judged.

    stages  with their counts, as summary.json has them
    """
    first = {phase: next((entry["in"] for entry in stages if entry["phase"] == phase), 0) for phase in PHASES}
    return {"collection": first["photos"], "identities": first["outfits"]}


def code_version() -> str:
    """The installed version of persona."""
    try:
        return version("persona")
    except PackageNotFoundError:
        return "not installed"


def write_json(path: str, record: dict[str, Any]) -> None:
    """A JSON file, replaced at once."""
    write(path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: str, none: bool = False) -> dict[str, Any] | None:
    """A JSON file, None where there is no such file. Raises ConfigError for a damaged one.

    none  the file may say null, which is None too
    """
    if not exists(path):
        return None
    try:
        record = json.loads(read_bytes(path))
        return None if none and record is None else dict(record)
    except (ValueError, TypeError):
        raise ConfigError(f"{path}: is damaged; remove it, the same curate command writes it anew") from None


def process_mark() -> dict[str, Any]:
    """{host, pid, time}: which process writes a status, and when."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "time": round(time.time(), 1)}
