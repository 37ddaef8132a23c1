"""The chain of the phase `people`: what its stages share, and how one is made from the phase's settings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from curation.backends import OnFirstUse
from curation.declared import BROKE_DOWN, NEVER_MEASURED, Reason, Threshold
from curation.meters import CallCounter
from curation.models import Models, used_models
from curation.photos.decode import VERSION
from curation.photos.pixels import Pixels
from curation.settings.base import Settings, chosen_backends
from curation.settings.people import PeopleSettings
from curation.stage import Stage


@dataclass(frozen=True)
class ChainContext:
    """What the stages of one chain share: decoded photos, the count of calls, whom to measure, weights."""

    pixels: Pixels
    calls: CallCounter
    measure: Literal["kept", "all"] = "kept"
    models: Mapping[str, Any] = field(default_factory=dict)
    _backends: dict[str, OnFirstUse] = field(default_factory=dict)

    def backend(self, kind: str, chosen: Settings) -> OnFirstUse:
        """The backend that `chosen` names, loaded when it is first asked; stages that choose it share it."""
        key = f"{kind} {chosen.model_dump_json()}"
        return self._backends.setdefault(key, OnFirstUse(kind, chosen, dict(self.models)))


class ChainStage(Stage):
    """Base of the stages of the phase `people`.

    `backends` has, by the name of the field, each backend that the settings choose.
    """

    version: ClassVar[int] = VERSION

    def __init__(self, settings: Settings, chain: ChainContext, models: Models | None = None) -> None:
        """`models`: the weights that it asks; None: those that its settings name."""
        used = used_models(settings, chain.models) if models is None else models
        super().__init__(settings, tuple(used.values()))
        self.chain = chain
        self.pixels = chain.pixels
        self.calls = chain.calls
        self.backends: dict[str, Any] = {
            path: chain.backend(kind, chosen) for path, kind, chosen in chosen_backends(settings)
        }

    @property
    def error_column(self) -> str:
        """The column of `fills` that says why a photo could not be measured."""
        return f"{self.name}_error"

    @classmethod
    def all_reasons(cls) -> Iterator[Threshold | Reason]:
        """Also those of measuring."""
        yield from super().all_reasons()
        if len(cls.fills):
            yield from (BROKE_DOWN, NEVER_MEASURED)

    @classmethod
    def settings_in(cls, people: PeopleSettings) -> Settings | None:
        """Its part of the phase's settings; None where the pipeline does not set that part."""
        if cls.settings_type is None:
            raise TypeError(f"stage {cls.name}: sets no settings_type")
        sections = (getattr(people, name) for name in type(people).model_fields)
        return next((part for part in sections if type(part) is cls.settings_type), None)

    @classmethod
    def of(cls, people: PeopleSettings, chain: ChainContext) -> "ChainStage | None":
        """The stage with its part of the phase's settings; None where the pipeline does not set that part."""
        settings = cls.settings_in(people)
        return None if settings is None else cls(settings, chain)
