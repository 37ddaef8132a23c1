"""models.lock: what each source of weights held when it was first pulled, beside the pipeline file."""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from curation.errors import ConfigError
from curation.settings.source import ModelCard
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
    made = [f"({card.convert})"] if card.convert else []
    return " ".join([f"{card.source}{revision}", *made, *sorted(card.files)])


@dataclass(frozen=True)
class Lock:
    """The lock file beside a pipeline file: one for all pipeline files of the folder."""

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

    def obeyed_by(self, cards: Mapping[str, ModelCard]) -> dict[str, ModelCard]:
        """The cards, with the pinned sha256 where they state none. Raises ConfigError."""
        pins = self.pins()
        obeyed = {}
        for name, card in cards.items():
            pin = pins.get(pin_name(card))
            held = pin is not None and not card.stated
            obeyed[name] = card.model_copy(update={"sha256": [pin.sha256]}) if held and pin else card
        return obeyed

    def add(self, name: str, pin: Pin, instead_of: Pin | None = None) -> Pin:
        """Pins what nobody has pinned. Returns what is pinned now: it may be another pull's.

        `instead_of` is what this one replaces, where the file still holds it. Of an equal file a commit is
        added, and never lost. Raises OSError, ConfigError.
        """
        with alone(self.path):
            pins = self.pins()
            there = pins.get(name)
            unknown = there is not None and there.sha256 == pin.sha256 and there.commit is None
            if there is not None and there != instead_of and not unknown:
                return there
            if there != pin:
                plain = {key: one.model_dump(exclude_none=True) for key, one in {**pins, name: pin}.items()}
                write_whole(self.path, (_HEAD + yaml.safe_dump(plain, width=1000)).encode())
            return pin


@contextmanager
def alone(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """One at a time of all processes and threads has a file; it may be replaced and removed under the lock.

    Its folder and an empty file are made. `waiting` is called where another has it. Raises OSError.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # NFS grants an exclusive lock only on what is open for writing.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # the other has just removed the folder
            if path.parent.exists():
                raise
            continue
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(descriptor, path):
                yield
                return
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
