"""Weights from a repository of a model hub, through huggingface_hub and its cache, at one commit."""

import fnmatch
import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curation.settings.source import HUB_ADDRESS, ModelCard
from curation.weights.web import FetchError, Later, Piece, Tell, later_after, link, repeated

FOLDER_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "NOTICE*")
"""Of a repository, at its top: what transformers and vLLM load. A pickle runs code when it is read."""


class HubFiles:
    """A file, or the files of a folder, of one repository at one commit.

    The cache is that of every other program with huggingface_hub; a file is linked from it where its disk
    permits. HF_TOKEN, HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE are obeyed, by huggingface_hub.
    """

    def __init__(self, card: ModelCard, folder: Path, commit: str | None) -> None:
        address = HUB_ADDRESS.fullmatch(card.source)
        assert address is not None
        self._repo, self._path = address["repo"], (address["path"] or "").rstrip("/")
        self._card, self._folder = card, folder
        self._name = card.source
        stated = card.revision if re.fullmatch("[0-9a-f]{40}", card.revision) else None
        self.commit: str | None = stated or commit
        self._siblings: dict[str, Any] = {}  # by path in the repository; None where the cache is all there is
        self._fetched: dict[str, Path] = {}
        self._doubted = False

    def survey(self) -> list[Piece]:
        """Finds the commit and its files: one download for each."""
        from huggingface_hub import constants, try_to_load_from_cache

        cache = Path(constants.HF_HUB_CACHE)
        proven = bool(self._card.stated) and self._is_cached(self._path)
        if constants.HF_HUB_OFFLINE or proven:  # nothing but the hub's hashes proves what states no sha256
            self._siblings = dict.fromkeys(self._cached())
        else:
            info = repeated(self._info)
            self.commit = str(info.sha)
            siblings = {one.rfilename: one for one in info.siblings or ()}
            self._siblings = {name: siblings[name] for name in self._wanted(list(siblings))}
        pieces = []
        for name, sibling in self._siblings.items():
            known = try_to_load_from_cache(self._repo, name, revision=self.commit)
            size = 0 if isinstance(known, str) else sibling.size
            disks = [cache] if size != 0 else []
            pieces.append(Piece(size, (*disks, self._folder), self._fetcher(name)))
        return pieces

    def _info(self) -> Any:
        from huggingface_hub import HfApi

        revision = self.commit or (None if self._card.revision == "unversioned" else self._card.revision)
        with self._faults():
            return HfApi().model_info(self._repo, revision=revision, files_metadata=True, timeout=30)

    def _is_cached(self, path: str) -> bool:
        from huggingface_hub import try_to_load_from_cache

        if not path or self.commit is None:
            return False
        return isinstance(try_to_load_from_cache(self._repo, path, revision=self.commit), str)

    def _cached(self) -> list[str]:
        """Paths that the cache holds of the repository, with nobody asked; sets the commit."""
        from huggingface_hub import snapshot_download

        if self._is_cached(self._path):
            return self._proven([self._path])
        revision = self.commit or (None if self._card.revision == "unversioned" else self._card.revision)
        with self._faults():
            root = Path(snapshot_download(self._repo, revision=revision, local_files_only=True))
        self.commit = root.name
        names = [file.relative_to(root).as_posix() for file in sorted(root.rglob("*")) if file.is_file()]
        return self._wanted(self._proven(names))

    def _proven(self, names: list[str]) -> list[str]:
        if not self._card.stated:
            raise FetchError(
                f"{self._name}: HF_HUB_OFFLINE is set and no sha256 stated: the cache may hold a part"
            )
        return names

    def _wanted(self, names: list[str]) -> list[str]:
        if self._path in names:
            return [self._path]
        below = f"{self._path}/" if self._path else ""
        inside = [name.removeprefix(below) for name in names if name.startswith(below)]
        if not inside:
            raise FetchError(f"{self._name}: the repository has no {self._path or 'files'} at {self.commit}")
        if self._card.files:
            patterns, inside = tuple(self._card.files), inside
        else:
            patterns, inside = FOLDER_FILES, [name for name in inside if "/" not in name]
        taken = [name for name in inside if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
        unmet = [one for one in self._card.files if not fnmatch.filter(taken, one)]
        if unmet:
            raise FetchError(f"{self._name}: no file fits {', '.join(unmet)} of the card's files")
        if not self._card.files and not fnmatch.filter(taken, "*.safetensors"):
            others = ", ".join(sorted(set(inside) - set(taken))[:8]) or "nothing else"
            raise FetchError(f"{self._name}: no safetensors at its top, but {others}; state the card's files")
        return [below + name for name in taken]

    def _fetcher(self, name: str) -> Any:
        return lambda tell: self._fetch(name, tell)

    def _fetch(self, name: str, tell: Tell) -> None:
        arrived = 0

        def count(number: int) -> None:
            nonlocal arrived
            arrived += number
            tell(number)

        file = repeated(lambda: self._download(name, count, self._doubted), lambda: arrived)
        if not _is_as_stated(file, self._siblings[name]):
            # huggingface_hub compares sizes alone. What another program left in the cache may be damaged.
            file = repeated(lambda: self._download(name, count, True), lambda: arrived)
            if not _is_as_stated(file, self._siblings[name]):
                raise FetchError(
                    f"{self._name}: {name} is not what the hub says, nor is it when fetched anew"
                )
        self._fetched[name] = file

    def _download(self, name: str, tell: Tell, anew: bool) -> Path:
        from huggingface_hub import hf_hub_download

        with self._faults():
            path = hf_hub_download(
                self._repo, name, revision=self.commit, tqdm_class=_counting(tell), force_download=anew
            )
        return Path(path).resolve()

    def lay(self, card: str, target: Path) -> None:
        """The file, or a folder of the files under their names in the repository."""
        if set(self._fetched) == {self._path}:
            link(self._fetched[self._path], target)
            return
        below = f"{self._path}/" if self._path else ""
        for name, file in sorted(self._fetched.items()):
            link(file, target / name.removeprefix(below))

    def resumable(self) -> bool:
        """Never: what is whole is in the hub's cache."""
        return False

    def doubt(self) -> bool:
        """The hub's own hashes have proven it, where it was asked; the cache alone proves nothing."""
        from huggingface_hub import constants

        again = not self._doubted and not constants.HF_HUB_OFFLINE and None in self._siblings.values()
        self._doubted = True
        return again

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """The library's errors as one line of ours: FetchError, or Later for what may pass."""
        import httpx2
        from huggingface_hub import errors

        try:
            yield
        except errors.GatedRepoError:
            raise FetchError(
                f"{self._name}: is gated: accept its terms on the page of {self._repo}, and set HF_TOKEN"
            ) from None
        except errors.RepositoryNotFoundError as error:
            status = error.response.status_code
            raise FetchError(
                f"{self._name}: HTTP {status}: no such repository, or HF_TOKEN may not read it"
            ) from None
        except errors.RevisionNotFoundError:
            raise FetchError(f"{self._name}: has no revision {self.commit or self._card.revision}") from None
        except errors.LocalEntryNotFoundError as error:
            raise self._unreached(error) from None
        except errors.EntryNotFoundError:
            raise FetchError(f"{self._name}: a file is not there at {self.commit}") from None
        except errors.OfflineModeIsEnabled as error:
            raise self._unreached(error) from None
        except errors.HfHubHTTPError as error:
            status, headers = error.response.status_code, error.response.headers
            later = later_after(status, headers, self._name)
            raise later or FetchError(f"{self._name}: HTTP {status}") from None
        except httpx2.HTTPError as error:
            raise Later(f"{self._name}: {error or type(error).__name__}") from None
        except (RuntimeError, ConnectionError, TimeoutError) as error:  # what hf_xet raises
            raise Later(f"{self._name}: {' '.join(str(error).split())[:200]}") from None
        except errors.HFValidationError as error:
            raise FetchError(f"{self._name}: {' '.join(str(error).split())[:200]}") from None
        except (ValueError, TypeError, KeyError):  # of a proxy's page, or of something else at HF_ENDPOINT
            raise FetchError(f"{self._name}: what answers is no hub; see HF_ENDPOINT and the proxy") from None

    def _unreached(self, error: BaseException) -> Exception:
        from huggingface_hub import constants, errors

        if constants.HF_HUB_OFFLINE:
            return FetchError(f"{self._name}: HF_HUB_OFFLINE is set, and the hub's cache does not hold it")
        cause = error.__cause__
        if isinstance(cause, errors.HfHubHTTPError):
            status = cause.response.status_code
            later = later_after(status, cause.response.headers, self._name)
            return later or FetchError(f"{self._name}: HTTP {status}")
        return Later(f"{self._name}: {' '.join(str(cause or error).split())[:200]}")


def _is_as_stated(file: Path, sibling: Any) -> bool:
    """Whether it has the hash that the hub states: the sha256 of large files, git's of small ones."""
    if sibling is None:
        return True
    size = file.stat().st_size
    if sibling.lfs is not None:
        stated, digest = sibling.lfs.sha256, hashlib.sha256()
    else:
        stated, digest = sibling.blob_id, hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return stated is None or digest.hexdigest() == stated


def _counting(tell: Tell) -> Any:
    """A class of bars for huggingface_hub that draws none, and tells of what arrived."""
    from tqdm import tqdm

    class Counting(tqdm):
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **{**options, "disable": True})
            tell(int(options.get("initial") or 0))

        def update(self, n: float | None = 1) -> None:
            tell(int(n or 0))

    Counting.set_lock(threading.RLock())  # tqdm's own would start a semaphore between processes
    return Counting
