"""Checkpoints: tensors by module path in safetensors, written aside and renamed, by a thread.

    checkpoints/step-00001000/
      adapter.safetensors     what the recipe makes, in float32 as it is trained
      ema.safetensors         moving averages of what is trained
      optimiser.safetensors   AdamW's state
      checkpoint.json         step, position in the data, recipe, and each file's bytes and xxh3-128

There is no random state: draws are a function of the seed and the sample (randomness.py). A folder
gets its name when all of it is on disk, so one from a killed write is never found; one whose files are
not what was written is refused. Nothing is pickled. They may lie in an object store too
(checkpoint_store.py).
"""

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import Any, Protocol

import torch
import xxhash
from safetensors.torch import load_file, save_file
from torch import Tensor

from edges.extras import install_line
from training.ranks import Ranks, whole_tensor

_NAME = re.compile(r"step-(\d{8})")
_PLAIN = re.compile(r"[\w.-]+")
_RECORD = "checkpoint.json"
_CHUNK = 8 * 2**20


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; `str()` is one line that names the file."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read whole.

    step      steps that were done
    record    what was stated with it: position in the data, recipe, settings
    tensors   {'adapter', 'ema', 'optimiser': {name: tensor}}, on the CPU
    digest    sha256 of the record's file, which holds the checksums of all others
    """

    step: int
    record: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]
    digest: str


class CheckpointFolder:
    """Checkpoints of one run; `keep` of them stay, besides every `keep_every` steps.

    All ranks save together, so that sharded tensors are gathered; the one that `writes` does so.

    saved       told, by the thread that writes, the name of each checkpoint that is whole
    keep_best   whether those stay too whose records state the lowest `validation_loss` of a held-out set
    """

    def __init__(
        self,
        folder: Path | str,
        keep: int = 3,
        keep_every: int | None = None,
        *,
        writes: bool = True,
        saved: Callable[[str], None] = lambda name: None,
        keep_best: bool = False,
    ) -> None:
        self._place, self._keep, self._keep_every = place_of(folder), keep, keep_every
        self._writes, self._saved, self._keep_best = writes, saved, keep_best
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._pinned: dict[str, Tensor] = {}

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], record: dict[str, Any]) -> None:
        """Copies the tensors and writes them behind the caller's back. Waits for the write before it.

        Raises what that one raised.
        """
        self.wait()
        copied: dict[str, dict[str, Tensor]] = {}
        for part, named in tensors.items():
            copied[part] = {}
            for name, tensor in named.items():
                # One by one: there is room for one whole tensor, not for all.
                gathered = whole_tensor(tensor.detach())
                if self._writes:
                    copied[part][name] = self._copied(f"{part}/{name}", gathered)
        if self._pinned:
            torch.cuda.synchronize()
        if self._writes:
            self._writing = self._pool.submit(self._write, step, copied, record)

    def _copied(self, name: str, tensor: Tensor) -> Tensor:
        """On the CPU. Of a GPU's tensor in page-locked memory, which is faster to copy to and stays for the
        next checkpoint; the copy is whole when the GPU was waited for."""
        if tensor.device.type == "cpu":
            return tensor.to("cpu", copy=True).contiguous()
        place = self._pinned.get(name)
        if place is None or place.shape != tensor.shape or place.dtype != tensor.dtype:
            place = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._pinned[name] = place
        return place.copy_(tensor, non_blocking=True)

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is on its way."""
        return self._writing is not None and not self._writing.done()

    def wait(self) -> None:
        """Until nothing is being written. Raises what the last write raised."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Waits, and ends the thread."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def _write(self, step: int, tensors: dict[str, dict[str, Tensor]], record: dict[str, Any]) -> None:
        with self._place.new_folder(name := f"step-{step:08d}") as aside:
            files = {}
            for part, named in tensors.items():
                file = aside / f"{part}.safetensors"
                save_file(named, file)
                _sync(file)
                files[file.name] = {"bytes": file.stat().st_size, "xxh3": _checksum(file)}
            stated = {"step": step, "files": files, **record}
            (aside / _RECORD).write_text(json.dumps(stated, indent=1, sort_keys=True) + "\n")
            _sync(aside / _RECORD)
            _sync(aside)
            self._place.publish(aside, name)
        self._saved(name)
        names = self._place.names()
        best = bests_of(self._place, names) if self._keep_best and len(names) > self._keep else []
        for old in names[: -self._keep]:
            if old not in best and (self._keep_every is None or _step_of(old) % self._keep_every):
                self._place.remove(old)


class CheckpointPlace(Protocol):
    """Where checkpoints of one run lie, by name."""

    def names(self) -> list[str]:
        """Of those that were written to their end, oldest first."""
        ...

    def new_folder(self, name: str) -> AbstractContextManager[Path]:
        """An empty folder of this machine to write one in."""
        ...

    def publish(self, folder: Path, name: str) -> None:
        """Makes what was written there the checkpoint of that name, whole or not at all."""
        ...

    def opened(self, name: str) -> AbstractContextManager[Path]:
        """A folder of this machine that holds its files."""
        ...

    def record(self, name: str) -> bytes:
        """Its checkpoint.json, without its tensors. Raises OSError."""
        ...

    def remove(self, name: str) -> None:
        """Deletes one."""
        ...


class LocalCheckpoints:
    """Checkpoints in a folder of this machine, or of a file system that machines share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Of those that were written to their end, oldest first."""
        return [path.name for path in checkpoints_in(self._folder)]

    @contextmanager
    def new_folder(self, name: str) -> Iterator[Path]:
        """Beside the others, under a temporary name."""
        aside = self._folder / f".{name}.tmp"
        for left in (aside, *self._folder.glob(".*.removed")):  # by writes and removals that were killed
            shutil.rmtree(left, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside

    def publish(self, folder: Path, name: str) -> None:
        """Renames it."""
        final = self._folder / name
        # The same step is there already where a run was resumed from before it: the new one replaces it.
        if final.exists():
            self.remove(name)
        folder.rename(final)
        _sync(self._folder)

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        """Its folder."""
        yield self._folder / name

    def record(self, name: str) -> bytes:
        """Reads the file."""
        return (self._folder / name / _RECORD).read_bytes()

    def remove(self, name: str) -> None:
        """Deletes the folder; under another name, so that a kill leaves no half checkpoint to be found."""
        removed = self._folder / f".{name}.removed"
        shutil.rmtree(removed, ignore_errors=True)
        (self._folder / name).rename(removed)
        shutil.rmtree(removed)


def place_of(where: Path | str) -> CheckpointPlace:
    """Of a path, or of the URL of an object store. Raises CheckpointError for a URL that names none."""
    if isinstance(where, Path) or "://" not in where:
        return LocalCheckpoints(Path(where))
    try:
        from training.checkpoint_store import CheckpointStore

        return CheckpointStore(where)
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{where}: needs the package {error.name}: {install_line('object-stores')}"
        ) from None
    except OSError as error:
        raise CheckpointError(str(error)) from None


@contextmanager
def opened_once(place: CheckpointPlace, name: str, ranks: Ranks) -> Iterator[Path]:
    """`place.opened` for all ranks: where it must be fetched, one rank of each machine does so, and the
    others read its copy. Raises CheckpointError, on every rank of a machine that could not."""
    if ranks.world == 1 or isinstance(place, LocalCheckpoints):
        with place.opened(name) as folder:
            yield folder
        return
    machine = gethostname()
    first = ranks.gather(machine).index(machine) == ranks.rank
    with ExitStack() as fetched:
        own: tuple[str, str | None, str] = (machine, None, "")
        if first:
            try:
                own = (machine, str(fetched.enter_context(place.opened(name))), "")
            except OSError as error:
                own = (machine, None, str(error))
        of_machine = [told for told in ranks.gather(own) if told[0] == machine]
        found = next((told for _, told, _ in of_machine if told is not None), None)
        try:
            if found is None:
                raise CheckpointError(next(problem for _, _, problem in of_machine if problem))
            yield Path(found)
        finally:
            ranks.gather(None)  # before it is deleted


def checkpoints_in(folder: Path) -> list[Path]:
    """Checkpoints that were written to their end, oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and (path / _RECORD).is_file()]
    return sorted(found, key=lambda path: _step_of(path.name))


def last_record(where: Path | str) -> tuple[str, dict[str, Any]] | None:
    """Name and record (with its `step`) of the newest checkpoint of a folder or URL, whose tensors are not
    read; None where there is none. Raises CheckpointError."""
    place = place_of(where)
    try:
        names = place.names()
        record = json.loads(place.record(names[-1])) if names else None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{where}: {' '.join(str(error).split())}") from None
    if record is not None and not (isinstance(record, dict) and isinstance(record.get("step"), int)):
        raise CheckpointError(f"{where}/{names[-1]}/{_RECORD}: states no step")
    return (names[-1], record) if record is not None else None


def best_of(place: CheckpointPlace, names: Sequence[str]) -> str | None:
    """Of these checkpoints, oldest first, the best one of the held-out set of which the newest loss is; None
    where none states a loss."""
    return next(iter(bests_of(place, names)), None)


def bests_of(place: CheckpointPlace, names: Sequence[str]) -> list[str]:
    """Of these checkpoints, oldest first, those whose record states the lowest `validation_loss`: one of each
    held-out set, that of the newest loss first, and the older of two that are as low.

    What is there says it: a resumed run finds what a killed one knew. Records of older versions do not state
    their set: it is that of the next record that does, which is of the run that went on from them.
    """
    lowest: dict[tuple[Any, Any], tuple[float, str]] = {}
    of: tuple[Any, Any] = (None, None)
    for name in reversed(names):
        try:
            record = json.loads(place.record(name))
            stated, loss = record.get("validated", {}), record.get("validation_loss")
            known = (stated.get("checksum"), stated.get("samples"))
        except (OSError, ValueError, AttributeError):
            continue  # a damaged record is no candidate, and is named when it is read
        if isinstance(loss, float) and math.isfinite(loss):
            of = known if known[1] else of
            if of not in lowest or loss <= lowest[of][0]:
                lowest[of] = loss, name
    return [name for _, name in lowest.values()]


def load_checkpoint(folder: Path, name: str | None = None) -> Checkpoint:
    """Reads and checks one. Raises CheckpointError where a file is missing or is not what was written.

    name    where it comes from, if its folder is a copy
    """
    place = name or str(folder)
    try:
        written = (folder / _RECORD).read_bytes()
        record = json.loads(written)
        step = int(record.pop("step"))
        files = {name: (entry["bytes"], entry["xxh3"]) for name, entry in record.pop("files").items()}
        if odd := next((name for name in files if not _PLAIN.fullmatch(name)), None):
            raise ValueError(f"names the file {odd!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{place}/{_RECORD}: {problem}") from None
    tensors = {}
    for name, (n_bytes, checksum) in files.items():
        file, problem = folder / name, "not what was written"
        try:
            fits = file.is_file() and file.stat().st_size == n_bytes and _checksum(file) == checksum
        except OSError as error:
            fits, problem = False, error.strerror or str(error)
        if not fits:
            raise CheckpointError(f"{place}/{name[:80]}: {problem}: delete {place} to resume from before it")
        tensors[file.stem] = dict(load_file(file))
    return Checkpoint(step, record, tensors, hashlib.sha256(written).hexdigest())


def _step_of(name: str) -> int:
    return int(name.removeprefix("step-"))


def _checksum(file: Path) -> str:
    digest = xxhash.xxh3_128()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
