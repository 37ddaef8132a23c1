"""models.lock: what each source of weights held when it was first pulled, beside the pipeline file."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from curation.errors import ConfigError
from curation.settings.source import ModelCard, ModelsSettings
from shards.format.atomic_file import write_whole

_HEAD = "# Written by `persona models pull`: what each source held at first. Keep it in version control.\n"


class Pin(BaseModel):
    """What a source held: the sha256 as a card states it; of a hub's repository also the commit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    commit: Annotated[str, StringConstraints(pattern="^[0-9a-f]{40}$")] | None = None


_PINS = TypeAdapter(dict[str, Pin])


def pin_name(card: ModelCard) -> str:
    """Under which a card is pinned: all that decides what is fetched. Equal cards share a pin."""
    revision = "" if card.revision == "unversioned" else f"@{card.revision}"
    return " ".join([f"{card.source}{revision}", *sorted(card.files)])


@dataclass(frozen=True)
class Lock:
    """The lock file of one pipeline file."""

    pipeline_file: str

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(self.pipeline_file).absolute().parent / "models.lock"

    def pins(self) -> dict[str, Pin]:
        """What is pinned; nothing where there is no file. Raises ConfigError where it is not understood."""
        try:
            return _PINS.validate_python(yaml.safe_load(self.path.read_text("utf-8")) or {})
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{self.path}: {where}: {first['msg']}") from None
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"{self.path}: cannot be read: {' '.join(str(error).split())}") from None

    def obeyed_by(self, models: ModelsSettings) -> ModelsSettings:
        """The cards, with the pinned sha256 where they state none. Raises ConfigError."""
        pins = self.pins()
        cards = {}
        for name, card in models.cards.items():
            pin = pins.get(pin_name(card))
            held = pin is not None and card.sha256 is None
            cards[name] = card.model_copy(update={"sha256": pin.sha256}) if held and pin else card
        return models.model_copy(update={"cards": cards})

    def add(self, pins: Mapping[str, Pin]) -> None:
        """Adds pins to what the file holds by then; safe beside another pull. Raises OSError."""
        with self._alone():
            all_pins = {**self.pins(), **pins}
            if all_pins != self.pins():
                plain = {name: pin.model_dump(exclude_none=True) for name, pin in all_pins.items()}
                write_whole(self.path, (_HEAD + yaml.safe_dump(plain, width=1000)).encode())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # The pipeline file is what every pull of it has at hand: no file besides is needed to wait on. NFS
        # grants an exclusive lock only on what is open for writing.
        writable = os.access(self.pipeline_file, os.W_OK)
        descriptor = os.open(self.pipeline_file, os.O_RDWR if writable else os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
