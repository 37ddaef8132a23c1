"""Secrets stay where they are, strangers' tables and names reach nothing of this machine."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.settings.source import SourceSettings
from curation.sources.photo_bytes import PhotoBytes, TooManyBytesError
from persona import main
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import files_of, rows_of, settings, write_config

SECRET = "s3cr3t-Zx81-marked"


class Web:
    """A small site on this machine, and what was asked of it."""

    def __init__(self) -> None:
        site = self
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                if self.path.startswith("/round"):
                    self.send_response(302)
                    self.send_header("Location", f"/round{len(site.asked)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if self.path.startswith("/file"):
                    self.send_response(302)
                    self.send_header("Location", "file:///etc/passwd")
                    self.end_headers()
                    return
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"x" * 10_000)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def web() -> Iterator[Web]:
    site = Web()
    yield site
    site.server.shutdown()
    site.server.server_close()


def read(address: str, max_bytes: int | None = None, **source: Any) -> bytes:
    """A photo that a row of a Parquet file names by this address."""
    wanted = SourceSettings(kind="parquet", path="/collection", allow_urls=True, **source)
    reference = {"uri": address, "row": None, "offset": None, "length": None}
    return PhotoBytes(wanted).read(reference, max_bytes)


def test_private_addresses_are_not_asked_even_by_another_name(web: Web) -> None:
    port = web.url.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"):
        with pytest.raises(OSError, match=r"private address|refused|unreachable|assign"):
            read(f"http://{host}:{port}/a.jpg")
    assert web.asked == []
    assert len(read(f"{web.url}/a.jpg", allow_private=True)) == 10_000


def test_redirects_end_and_lead_to_no_file(web: Web) -> None:
    with pytest.raises(OSError, match="the server answers 302"):
        read(f"{web.url}/round", allow_private=True)
    assert len(web.asked) <= 4
    with pytest.raises(OSError, match=r"302|file"):
        read(f"{web.url}/file", allow_private=True)


def test_an_answer_without_end_is_cut_at_the_limit(web: Web) -> None:
    with pytest.raises(TooManyBytesError):
        read(f"{web.url}/a.jpg", 5000, allow_private=True)


def test_a_table_brings_in_no_file_from_outside_its_collection(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "private.jpg").write_bytes(collection(1, people=1)[0].jpeg)
    photos = write_folder(tmp_path / "photos", collection(2, people=1)[:2])
    (photos / "link.jpg").symlink_to(tmp_path / "home" / "private.jpg")
    outside = [
        "../home/private.jpg",
        f"file://{tmp_path}/home/private.jpg",
        str(tmp_path / "home" / "private.jpg"),
    ]
    names = ["photo-00000.jpg", *outside, "link.jpg", "memory://x/photo.jpg"]
    pq.write_table(pa.table({"uri": names}), photos / "photos.parquet")

    def said(**source: Any) -> list[str]:
        pipeline = settings(photos, kind="parquet", max_failed_share=1)
        pipeline["source"] |= source
        run = tmp_path / ("open" if source else "closed")
        config = write_config(tmp_path / f"{run.name}.yaml", pipeline)
        words = [
            "curate",
            "drawn",
            "--config",
            str(config),
            "--out",
            str(run),
            "--engine",
            "inline",
            "--quiet",
            "--allow-empty",
        ]
        assert main(words) == 0
        return [row["decisions"][0]["detail"] for row in rows_of(run / "photos")]

    closed = said()
    assert closed[0] == ""
    assert all("outside the collection (source.allow_outside)" in detail for detail in closed[1:])
    assert said(allow_outside=True)[:5] == [""] * 5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source.path", f"s3://AKIA:{SECRET}@bucket/photos"),
        ("identities.index", f"https://me:{SECRET}@host/index"),
        ("photos.screen.opt_out", f"ftp://:{SECRET}@host/list"),
    ],
)
def test_a_password_in_the_settings_is_refused_and_not_repeated(
    key: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "p.yaml", settings(tmp_path))
    words = [
        "curate",
        "drawn",
        "--config",
        str(config),
        "--out",
        str(tmp_path / "run"),
        "--set",
        f"{key}={value}",
    ]
    assert main(words) == 2
    said = "".join(capsys.readouterr())
    assert "holds a password" in said
    assert SECRET not in said
    assert not (tmp_path / "run").exists()


def test_secrets_of_the_environment_are_in_nothing_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "PERSONA_VLM_KEY", "HF_TOKEN", "VLLM_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    photos = write_folder(tmp_path / "photos", collection(2, people=2))
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    config = write_config(tmp_path / "p.yaml", settings(photos))
    run = str(tmp_path / "run")
    assert main(["curate", "drawn", "--config", str(config), "--out", run, "--engine", "inline"]) == 0
    assert main(["report", run]) == 0
    assert main(["why", run, "--failed"]) == 0
    assert main(["why", run, "nothing-of-that-name"]) == 2
    for name, data in files_of(tmp_path).items():
        assert SECRET.encode() not in data, name
    assert SECRET not in "".join(capsys.readouterr())


def test_names_and_captions_of_strangers_are_shown_and_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = collection(2, people=1)[:3]
    photos = write_folder(tmp_path / "photos", drawn)
    evil = "\x1b]0;owned\x07\x1b[2J\u202e<script>alert(1)</script>"
    name = evil.replace("/", "")
    (photos / drawn[0].name).rename(photos / f"{name}.jpg")
    (photos / f"{name}.json").write_text(
        json.dumps({"caption": evil, "author": evil, "url": f"javascript:{evil}"})
    )
    (photos / f"{name}2.jpg").write_bytes(b"\xff\xd8\xff")
    config = write_config(tmp_path / "p.yaml", settings(photos, max_failed_share=1))
    run = tmp_path / "run"
    assert main(["curate", "drawn", "--config", str(config), "--out", str(run), "--engine", "inline"]) == 0
    assert main(["report", str(run)]) == 0
    capsys.readouterr()
    assert main(["why", str(run), f"{name}.jpg"]) == 0
    assert main(["why", str(run), "--failed"]) == 0
    assert main(["why", str(run), f"{name}-not-there"]) == 2
    said = "".join(capsys.readouterr())
    assert "\\x1b]0;owned\\x07" in said
    assert not set("\x1b\x07\u202e") & set(said)
    assert b"<script>alert" not in (run / "report" / "index.html").read_bytes()
