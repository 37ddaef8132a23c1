"""A pipeline as a whole, the file that names pipelines, and the rules between their keys."""

import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from curation.settings.base import Settings, model_names, path, resource
from curation.settings.groups import (
    CaptionsSettings,
    SelectionSettings,
    ShardsSettings,
)
from curation.settings.identities import IdentitiesSettings
from curation.settings.outfits import OutfitsSettings
from curation.settings.people import PeopleSettings
from curation.settings.photos import PhotosSettings
from curation.settings.source import ModelsSettings, SourceSettings


class TelemetrySettings(Settings):
    """Nothing here changes a result, and nothing listens or is written unless it is asked for."""

    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Prometheus metrics at this port, 0: any free one; None: none"
    )
    metrics_host: str = Field("127.0.0.1", min_length=1, description="address that the port is opened at")
    metrics_file: str | None = path(
        None,
        pattern=r"\.prom$",
        description="the same metrics as a file, for the node exporter's textfile collector",
    )
    log_format: Literal["text", "json"] = Field("text", description="json: one object a line")
    log_every_s: float = Field(15.0, ge=0, description="off a terminal, a line at most so often")


_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s]*:[^/@\s]+@", re.IGNORECASE)


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(key path, text) of every text in nested settings."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, below in value.items():
            yield from _texts(below, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for below in value:
            yield from _texts(below, path)


class EngineSettings(Settings):
    """How the phases are cut and when a run gives up."""

    fragment_rows: int = Field(256, ge=1, le=65536, description="rows of one unit of work")
    max_failed_share: float = resource(
        0.1, ge=0, le=1, description="a phase with a larger share of failed rows stops the run"
    )
    min_failed_rows: int = resource(
        100, ge=1, description="fewer failed rows do not stop a run, unless a stage failed on every row"
    )
    worker_deaths: int = resource(
        3, ge=0, description="times a fragment may lose its worker before the run stops"
    )
    start_timeout_s: float = resource(
        900,
        gt=0,
        description="time for the first worker of a phase to get its resources and models",
    )


class PipelineSettings(Settings):
    """One named pipeline of pipelines.yaml."""

    description: str = resource("", description="for people")
    seed: int = Field(0, ge=0, lt=2**63, description="of every random choice")
    source: SourceSettings
    models: ModelsSettings = ModelsSettings()
    photos: PhotosSettings = PhotosSettings()
    people: PeopleSettings
    identities: IdentitiesSettings = IdentitiesSettings()
    outfits: OutfitsSettings = OutfitsSettings()
    selection: SelectionSettings = SelectionSettings()
    captions: CaptionsSettings = CaptionsSettings()
    shards: ShardsSettings = ShardsSettings()
    engine: EngineSettings = EngineSettings()
    telemetry: TelemetrySettings = resource(TelemetrySettings())

    @model_validator(mode="after")
    def _holds_no_secret(self) -> "PipelineSettings":
        """run.yaml, logs and reports repeat settings, so no secret may stand in them."""
        for key, text in _texts(self.model_dump()):
            if _PASSWORD.match(text):
                raise ValueError(
                    f"{key}: holds a password; credentials come from the environment or the platform's own "
                    "chain, never from the settings"
                )
            if ".server_args" in key and text.split("=")[0] == "--api-key":
                raise ValueError(f"{key}: --api-key: set $PERSONA_VLM_KEY instead")
        return self

    @model_validator(mode="after")
    def _keys_agree(self) -> "PipelineSettings":
        for key, card in model_names(self):
            if card not in self.models.cards:
                known = ", ".join(sorted(self.models.cards)) or "none"
                raise ValueError(f"{key}: no model card is named '{card}' (models.cards has: {known})")
        for name in self.photos.screen.formats:
            if name not in ("jpeg", "png", "webp"):
                raise ValueError(f"photos.screen.formats: '{name}' is not one of jpeg, png, webp")
        detect = self.people.detect
        if detect.min_score < detect.floor:
            raise ValueError(
                f"people.detect.min_score: {detect.min_score} is below people.detect.floor "
                f"({detect.floor}), under which detections are not stored"
            )
        most = self.selection.max_person_photos
        if min(self.selection.max_group_photos, most or 1000) < self.outfits.min_photos:
            raise ValueError(
                f"selection.max_group_photos, max_person_photos: must not be below outfits.min_photos "
                f"({self.outfits.min_photos}), or no group could stay"
            )
        body = self.people.full_body.resolved()
        if body.min_share > body.max_share:
            raise ValueError(
                f"people.full_body.min_share: {body.min_share} is above max_share ({body.max_share})"
            )
        return self


class PipelinesFile(Settings):
    """The whole of pipelines.yaml."""

    pipelines: dict[str, PipelineSettings] = Field(min_length=1)
