"""Weights from a web server, whole and proven, whatever the server and the connection do."""

import os
import random
import subprocess
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.structures import CaseInsensitiveDict

from tests.drawn_cards import card, faults, pins, pull, rows, sha256, write_cards
from tests.drawn_pipeline import ROOT, command, environment, files_of, persona
from tests.loopback_web import Web, running

WEIGHTS = random.Random(5).randbytes(3_000_000)
LONG_AGO = "Thu, 01 Jan 2026 00:00:00 GMT"
OTHER = random.Random(6).randbytes(3_000_000)


@pytest.fixture
def web() -> Iterator[Web]:
    """A server with no file yet."""
    with running() as server:
        yield server


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.weights.web.PAUSES_S", (0.01, 0.01, 0.01))


def fetched(tmp_path: Path, source: str, **others: Any) -> tuple[int, list[str], dict[str, bytes]]:
    """(exit code, faults, files) of a pull of one card into `weights`."""
    done = pull(
        write_cards(tmp_path / "cards.yaml", one=card(source, "one.bin", **others)), tmp_path / "weights"
    )
    return done.returncode, faults(done), files_of(tmp_path / "weights")


@pytest.mark.parametrize(
    "behaviour",
    [
        {},
        {"chunked": True},
        {"gzipped": True},
        {"head": False},
        {"cuts": [1_000_000, 500_000]},
        {"cuts": [1_000_000], "ranges": False},
        {"cuts": [1_000_000], "etag": None},
        {"cuts": [1_000_000], "etag": 'W/"weak"'},
        {"cuts": [1_000_000], "chunked": True},
        {"cuts": [1_000_000], "gzipped": True},
        {
            "refusals": [
                (503, {"Retry-After": "0"}),
                (429, {"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"}),
                (502, {}),
            ]
        },
    ],
    ids=str,
)
def test_a_file_arrives_whole_through_any_server_that_has_it(
    web: Web, tmp_path: Path, behaviour: dict[str, Any]
) -> None:
    source = web.serve("/one", WEIGHTS, **behaviour)
    assert fetched(tmp_path, source) == (0, [], {"one.bin": WEIGHTS})


def test_what_arrived_before_a_cut_is_not_fetched_again_where_the_server_proves_the_file(
    web: Web, tmp_path: Path
) -> None:
    source = web.serve("/one", WEIGHTS, cuts=[1_000_000])
    assert fetched(tmp_path, source)[0] == 0
    first, second = web.gets("/one")
    assert "Range" not in first
    at = int(second["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 500_000 < at <= 1_000_000
    assert second["If-Range"].startswith('"')


def test_a_file_that_changed_after_a_cut_is_the_new_one_and_no_mixture(web: Web, tmp_path: Path) -> None:
    source = web.serve("/one", WEIGHTS, cuts=[1_000_000, 0, 0, 0])
    code, said, files = fetched(tmp_path, source)
    assert (code, len(said), set(files)) == (1, 1, {name for name in files if name.startswith(".pulling/")})
    web.serve("/one", OTHER)
    assert fetched(tmp_path, source) == (0, [], {"one.bin": OTHER})


def test_a_server_that_goes_on_with_another_file_is_found_out_by_the_hash_and_asked_anew(
    web: Web, tmp_path: Path
) -> None:
    source = web.serve("/one", WEIGHTS, cuts=[1_000_000, 0, 0, 0])
    assert fetched(tmp_path, source, sha256=sha256(OTHER))[0] == 1
    web.serve("/one", OTHER, ranges="lies")
    assert fetched(tmp_path, source, sha256=sha256(OTHER)) == (0, [], {"one.bin": OTHER})
    assert ["Range" in headers for headers in web.gets("/one")][-2:] == [True, False]


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"refusals": [(404, {})] * 9}, "HTTP 404 (there is no such file)"),
        ({"refusals": [(401, {})] * 9}, "HTTP 401 (it asks for a login; ~/.netrc is read)"),
        ({"refusals": [(403, {})] * 9}, "HTTP 403 (this login, or this place, may not have it)"),
        ({"refusals": [(418, {})] * 9}, "HTTP 418"),
        ({"refusals": [(503, {})] * 9}, "HTTP 503"),
        ({"refusals": [(429, {"Retry-After": "7200"})] * 9}, "HTTP 429; it says to come back in 7200 s"),
        ({"refusals": [(302, {"Location": "/one"})] * 99}, "Exceeded 30 redirects"),
        ({"refusals": [(503, {"Retry-After": "\u00b2"})] * 9}, "HTTP 503"),
        ({"refusals": [(302, {"Location": "ftp://a.example/b"})] * 9}, "No connection adapters were found"),
        ({"refusals": [(302, {"Location": "http://[::1/b"})] * 9}, "Invalid IPv6 URL"),
        ({"length": len(WEIGHTS) + 500}, "bytes before the end"),
        ({"length": 1000}, f"has the sha256 {sha256(WEIGHTS[:1000])}, not {sha256(WEIGHTS)}"),
        ({"headers": {"Content-Type": "text/html; charset=utf-8"}}, "is a web page and no file of weights"),
        ({"cuts": [1_000_000, *[0] * 9]}, "the connection was cut "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_server_does_not_give_is_one_line_and_nothing_is_laid(
    web: Web, tmp_path: Path, behaviour: dict[str, Any], said: str
) -> None:
    source = web.serve("/one", WEIGHTS, **behaviour)
    code, lines, files = fetched(tmp_path, source, sha256=sha256(WEIGHTS))
    assert (code, len(lines)) == (1, 1)
    assert said in lines[0]
    assert "one.bin" not in files


def test_a_file_whose_end_nobody_states_needs_a_stated_hash(web: Web, tmp_path: Path) -> None:
    source = web.serve("/one", WEIGHTS, length=None, head=False)
    code, (said,), files = fetched(tmp_path, source)
    assert (code, "one.bin" in files) == (1, False)
    assert "its server does not say where it ends; the card needs a sha256" in said
    assert fetched(tmp_path, source, sha256=sha256(WEIGHTS)) == (0, [], {"one.bin": WEIGHTS})


def test_a_login_is_shown_to_its_host_and_not_to_that_of_a_redirect(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    other = web.url.replace("127.0.0.1", "localhost")
    source = web.serve("/one", b"", refusals=[(302, {"Location": f"{other}/cdn?key=hidden"})] * 9)
    web.serve("/cdn", WEIGHTS, refusals=[(404, {})] * 2)
    code, (said,), _ = fetched(tmp_path, source)
    assert code == 1
    assert "hidden" not in said
    web.serve("/cdn", WEIGHTS)
    assert fetched(tmp_path, source) == (0, [], {"one.bin": WEIGHTS})
    assert all("Authorization" in headers for headers in web.gets("/one"))
    assert not any("Authorization" in headers for headers in web.gets("/cdn"))


def test_an_unencrypted_address_needs_a_stated_hash(tmp_path: Path) -> None:
    code, (said,), _ = fetched(tmp_path, "http://weights.example/one")
    assert (code, "http:// needs a sha256 in the card" in said) == (1, True)


def packed(**members: bytes) -> bytes:
    """A zip of these members."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def test_members_of_a_zip_are_laid_and_the_zip_is_fetched_once(web: Web, tmp_path: Path) -> None:
    source = web.serve("/pack.zip", packed(one=WEIGHTS, two=OTHER))
    cards = {name: card(f"{source}!/{name}", f"{name}.onnx") for name in ("one", "two")}
    config = write_cards(tmp_path / "cards.yaml", **cards, three=card(f"{source}!/three", "three.onnx"))
    done = pull(config, tmp_path / "weights")
    assert faults(done) == [f"three: {source}: holds no three"]
    assert files_of(tmp_path / "weights") == {"one.onnx": WEIGHTS, "two.onnx": OTHER}
    assert len(web.gets("/pack.zip")) == 1
    assert pins(config)[f"{source}!/two"] == {"sha256": sha256(OTHER)}


def spoilt(packing: int) -> bytes:
    """A zip of one member, whose packed bytes are overwritten."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        archive.writestr("one", WEIGHTS[:50_000] * 2)
    data = stream.getvalue()
    return data[:60] + b"\0" * 400 + data[460:]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (packed(one=WEIGHTS)[:-100], "is no whole zip"),
        (spoilt(zipfile.ZIP_STORED), "is no whole zip"),
        (spoilt(zipfile.ZIP_DEFLATED), "is no whole zip"),
        (spoilt(zipfile.ZIP_BZIP2), "is no whole zip"),
        (spoilt(zipfile.ZIP_LZMA), "is no whole zip"),
        # In the directory at the end a name of which no encoding knows.
        (packed(one=OTHER, é=b"").replace("\u00e9".encode(), b"\xff\xfe"), "is no whole zip"),
        (packed(**{"one/": b""}), "holds no one"),
    ],
    ids=["cut", "stored", "deflated", "bzip2", "lzma", "name", "folder"],
)
def test_a_damaged_zip_is_one_line_and_other_cards_are_fetched(
    web: Web, tmp_path: Path, data: bytes, said: str
) -> None:
    bad = card(f"{web.serve('/pack.zip', data)}!/{'one/' if 'holds' in said else 'one'}", "bad.bin")
    good = card(web.serve("/good", OTHER), "good.bin")
    done = pull(write_cards(tmp_path / "cards.yaml", bad=bad, good=good), tmp_path / "weights")
    (fault,) = faults(done)
    assert said in fault
    assert (done.returncode, files_of(tmp_path / "weights")) == (1, {"good.bin": OTHER})


@pytest.mark.parametrize(
    "source",
    ["https://[::1/x", "http://127.0.0.1:99999/x", "https://.example/x", f"https://{'a' * 70}.example/x"],
)
def test_an_address_that_is_none_is_one_line(web: Web, tmp_path: Path, source: str) -> None:
    config = write_cards(
        tmp_path / "cards.yaml",
        bad=card(source, "bad.bin", sha256="0" * 64),
        good=card(web.serve("/good", OTHER), "good.bin"),
    )
    done = pull(config, tmp_path / "weights")
    assert (done.returncode, len(faults(done)), set(rows(done))) == (1, 1, {"bad", "good"})
    assert files_of(tmp_path / "weights") == {"good.bin": OTHER}


class Redirecting(requests.adapters.BaseAdapter):
    """Encrypted hosts without certificates: each address leads to the next, the last has the file."""

    def __init__(self, hops: list[str]) -> None:
        super().__init__()
        self.hops = hops
        self.asked: list[str] = []

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """The redirect, or the file."""
        answer = requests.Response()
        answer.request, answer.url, answer.status_code = request, str(request.url), 200
        self.asked.append(answer.url)
        answer.raw = BytesIO(WEIGHTS)
        answer.headers["Content-Length"] = str(len(WEIGHTS))
        after = self.hops.index(answer.url) + 1
        if after < len(self.hops):
            answer.status_code, answer.headers = 302, CaseInsensitiveDict(Location=self.hops[after])
        return answer

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("between", "goes"), [(["https://cdn.example/one"], True), (["http://plain.example/one"], False)]
)
def test_an_encrypted_address_is_not_followed_over_a_plain_hop_even_back_to_encryption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: list[str], goes: bool
) -> None:
    adapter = Redirecting(["https://good.example/one", *between, "https://last.example/one"])
    monkeypatch.setattr(requests.Session, "get_adapter", lambda *_, **__: adapter)
    code, said, files = fetched(tmp_path, adapter.hops[0])
    assert (code, files) == ((0, {"one.bin": WEIGHTS}) if goes else (1, {}))
    assert goes or "leads to http://plain.example/one, which is not encrypted" in said[0]
    assert goes or set(adapter.asked) == {adapter.hops[0]}


def test_what_lies_there_already_is_not_pinned_as_what_the_source_holds(web: Web, tmp_path: Path) -> None:
    half = tmp_path / "weights" / "one.bin"
    half.parent.mkdir()
    half.write_bytes(WEIGHTS[:1000])
    source = web.serve("/one", WEIGHTS)
    config = write_cards(tmp_path / "cards.yaml", one=card(source, "one.bin"))
    done = persona("models", "pull", "drawn", "--config", config, "--to", half.parent, "--json")
    assert (done.returncode, rows(done)["one"]["pinned"]) == (0, False)
    assert f"nobody states its sha256: state {sha256(WEIGHTS[:1000])} in its card" in done.stderr
    assert not (tmp_path / "models.lock").exists()
    half.unlink()
    assert fetched(tmp_path, source)[0] == 0
    assert pins(config) == {source: {"sha256": sha256(WEIGHTS)}}


def test_two_cards_of_one_file_are_refused_before_anything_is_fetched(web: Web, tmp_path: Path) -> None:
    source = web.serve("/one", WEIGHTS)
    config = write_cards(tmp_path / "cards.yaml", one=card(source, "m.bin"), two=card(source, "./m.bin"))
    done = pull(config, tmp_path / "weights")
    assert (done.returncode, web.seen) == (2, [])
    assert "'one' and 'two' have the same file, ./m.bin" in done.stderr


def test_without_room_for_what_servers_announce_nothing_is_fetched(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.weights.pull.free_bytes", lambda folder: (1, len(WEIGHTS) + 10))
    config = write_cards(
        tmp_path / "cards.yaml",
        one=card(web.serve("/one", WEIGHTS), "one.bin"),
        two=card(web.serve("/two", OTHER), "two.bin"),
    )
    done = pull(config, tmp_path / "weights")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "5.7 MiB are to be fetched, and 2.9 MiB are free" in done.stderr
    assert web.gets("/one") == web.gets("/two") == []


def test_no_card_is_fetched_where_one_forbids_commercial_use(web: Web, tmp_path: Path) -> None:
    config = write_cards(
        tmp_path / "cards.yaml",
        one=card(web.serve("/one", WEIGHTS), "one.bin"),
        two=card(web.serve("/two", OTHER), "two.bin", commercial=False, licence="only for study"),
    )
    done = pull(config, tmp_path / "weights", "--commercial")
    assert (done.returncode, len(faults(done))) == (2, 1)
    assert "'two' is under only for study" in done.stderr
    assert web.seen == []


def test_what_is_fetched_by_hand_is_said_with_its_place_and_the_rest_is_fetched(
    web: Web, tmp_path: Path
) -> None:
    config = write_cards(
        tmp_path / "cards.yaml",
        hand=card("the page of its makers", "by/hand.bin"),
        one=card(web.serve("/one", WEIGHTS), "one.bin"),
    )
    done = pull(config, tmp_path / "weights")
    assert faults(done) == [
        "hand: is fetched by hand: from the page of its makers, "
        f"to be laid as {tmp_path / 'weights' / 'by' / 'hand.bin'}"
    ]
    assert (done.returncode, rows(done)["one"]["state"]) == (1, "pulled")


def test_a_broken_lock_file_is_one_line(web: Web, tmp_path: Path) -> None:
    (tmp_path / "models.lock").write_text("a: {sha256: short}\n")
    config = write_cards(tmp_path / "cards.yaml", one=card(web.serve("/one", WEIGHTS), "one.bin"))
    done = pull(config, tmp_path / "weights")
    assert (done.returncode, len(faults(done))) == (2, 1)
    assert "models.lock: a.sha256: " in done.stderr


def test_off_a_terminal_a_pull_says_how_much_there_is(web: Web, tmp_path: Path) -> None:
    config = write_cards(
        tmp_path / "cards.yaml",
        one=card(web.serve("/one", WEIGHTS), "one.bin"),
        two=card(web.serve("/two", OTHER, head=False), "two.bin"),
    )
    done = persona("models", "pull", "drawn", "--config", config, "--to", tmp_path / "weights")
    assert done.stderr == "to fetch: 2.9 MiB and 1 of unknown size\n"
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["one", "pulled", "pinned"],
        ["two", "pulled", "pinned"],
    ]


def test_on_a_terminal_a_pull_draws_a_bar(web: Web, tmp_path: Path) -> None:
    config = write_cards(tmp_path / "cards.yaml", one=card(web.serve("/one", WEIGHTS), "one.bin"))
    ours, its = os.openpty()
    words = command("models", "pull", "drawn", "--config", config, "--to", tmp_path / "weights")
    done = subprocess.run(
        words, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=its, timeout=120
    )
    os.close(its)
    drawn = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "3.0/3.0 MB" in drawn
