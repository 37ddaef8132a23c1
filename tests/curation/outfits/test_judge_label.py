"""The page on which people label pairs, over HTTP: pairs, pictures, labels, and a file that goes on."""

import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curation.errors import ConfigError
from curation.judging.label_server import Labelling, label_server
from curation.judging.labelled_pairs import read_pairs
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import curate, settings, write_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished run of 24 photos of 4 people."""
    folder = tmp_path_factory.mktemp("label")
    photos = write_folder(folder / "photos", collection(51, people=4))
    curate(write_config(folder / "p.yaml", settings(photos)), folder / "run")
    return str(folder / "run")


@pytest.fixture
def page(run: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a page that writes tmp_path/labels.csv."""
    server = label_server(Labelling(run, str(tmp_path / "labels.csv"), 6), 0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server.url.rstrip("/")
    server.shutdown()
    server.server_close()


def get(url: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_every_pair_is_shown_once_and_its_label_lies_in_the_file_at_once(page: str, tmp_path: Path) -> None:
    pair = json.loads(get(f"{page}/pair")[1])
    seen = []
    for label in ("same", "different", "unknown", "same", "same", "different"):
        seen.append((pair["a"], pair["b"]))
        status, body = get(f"{page}/label", {"a": pair["a"], "b": pair["b"], "label": label})
        assert status == 200
        pair = json.loads(body)
        assert len(read_pairs(str(tmp_path / "labels.csv"))) == len(seen)
    assert pair == {"total": 6, "done": True}
    assert len(set(seen)) == 6
    labels = read_pairs(str(tmp_path / "labels.csv"))
    assert [(p.a, p.b) for p in labels] == seen
    assert [p.same for p in labels] == [True, False, None, True, True, False]


def test_both_people_of_a_pair_are_pictures(page: str) -> None:
    pair = json.loads(get(f"{page}/pair")[1])
    for name in (pair["a"], pair["b"]):
        status, data = get(f"{page}/photo/{name}")
        assert status == 200
        assert Image.open(io.BytesIO(data)).size == (448, 896)


def test_the_latest_label_can_be_taken_back(page: str, tmp_path: Path) -> None:
    first = json.loads(get(f"{page}/pair")[1])
    get(f"{page}/label", {"a": first["a"], "b": first["b"], "label": "same"})
    assert json.loads(get(f"{page}/undo", {})[1]) == first
    assert read_pairs(str(tmp_path / "labels.csv")) == []


def test_labelling_goes_on_where_it_was(page: str, run: str, tmp_path: Path) -> None:
    first = json.loads(get(f"{page}/pair")[1])
    second = json.loads(get(f"{page}/label", {"a": first["a"], "b": first["b"], "label": "same"})[1])
    assert Labelling(run, str(tmp_path / "labels.csv"), 6).next() == second


def test_what_makes_no_sense_is_refused_and_changes_nothing(page: str, tmp_path: Path) -> None:
    pair = json.loads(get(f"{page}/pair")[1])
    no_label = {"a": pair["a"], "b": pair["b"], "label": "maybe"}
    senseless: list[Any] = [no_label, {"a": "x", "b": "y", "label": "same"}, [], {}]
    for body in senseless:
        assert get(f"{page}/label", body)[0] == 400
    assert get(f"{page}/photo/nobody")[0] == 404
    assert json.loads(get(f"{page}/pair")[1]) == pair
    assert not (tmp_path / "labels.csv").exists()


def test_pages_of_other_sites_are_not_answered(page: str) -> None:
    assert get(f"{page}/pair", Host="photos.example")[0] == 403
    assert get(f"{page}/undo", {}, Origin="https://photos.example")[0] == 403
    status, body = get(f"{page}/")
    assert status == 200
    assert b"https://" not in body


def test_without_the_token_nobody_is_answered(page: str, tmp_path: Path) -> None:
    host, _, token = page.rpartition("/")
    for path in ("", "/", "/pair", f"/{token[:-1]}/pair", f"/{token}x/pair", "/label"):
        assert get(f"{host}{path}")[0] == 403
    assert get(f"{host}/undo", {})[0] == 403


def test_a_run_without_pairs_is_one_line(run: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        Labelling(run, str(tmp_path / "labels.csv"), 0)
