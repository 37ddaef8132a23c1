"""What a photo says of itself is read wherever it stands, and obeyed."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from curation.photos.rights import reserving_header
from curation.settings.photos import RightsSettings
from persona import main
from shards.format.stated_rights import stated_rights
from tests.drawn_credentials import signed
from tests.drawn_metadata import raw_profile
from tests.drawn_people import collection
from tests.drawn_pipeline import environment, rows_of, settings, write_config
from tests.drawn_rights import PACKETS, PLACES, Marked, marked, packet
from tests.metadata import decided

MARKED = {each.name: each for each in marked()}


@pytest.mark.parametrize("name", MARKED)
def test_a_photo_with_a_mark_is_decided_right_in_every_container_and_after_a_save(name: str) -> None:
    each: Marked = MARKED[name]
    assert decided(each.data) == each.reason


def test_a_packet_that_is_read_in_part_only_is_no_pass() -> None:
    """Pillow refuses such PNGs; the survey and `shards strip` read them all the same."""
    term = "<plus:DataMining>DMI-PROHIBITED</plus:DataMining>"
    assert stated_rights(PLACES["png, packed"](packet(" " * 2_200_000 + term))).mining == (
        "plus:DataMining DMI-PROHIBITED"
    )
    assert not stated_rights(PLACES["png, packed"](packet(" " * 2_200_000))).reserved
    too_long = stated_rights(PLACES["png, packed"](packet(" " * 17 * 2**20)))
    assert (too_long.reserved, too_long.source_type) == (True, "unreadable")
    for name in ("exif", "iptc", "8bim"):
        for size, reserved in ((900_000, False), (1_100_000, True)):
            photo = PLACES["png"](packet())
            photo = photo[:33] + raw_profile(name, bytes(size)) + photo[33:]
            assert stated_rights(photo).reserved == reserved


def test_assertions_of_metadata_are_obeyed_whatever_their_prefix() -> None:
    picture = PLACES["png"](packet())
    for metadata, reason in (
        ({"plus:DataMining": "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED"}, "mining_reserved"),
        ({"x": [{"http://www.w3.org/ns/tdmrep/reservation": {"@value": 1}}]}, "mining_reserved"),
        ({"Iptc4xmpExt:DigitalSourceType": {"@id": "digsrctype:algorithmicMedia"}}, "synthetic"),
        ({"plus:DataMining": "DMI-ALLOWED", "dc:title": "DMI-PROHIBITED"}, None),
    ):
        assert decided(signed(picture, "digitalCapture", metadata=metadata)) == reason


def test_long_runs_of_a_name_cost_no_time() -> None:
    runs = (b"<" + b"DataMining " * 90_000, b"<DataMining>" + b"<a>\n\n" * 90_000, b"<DataMining>" * 90_000)
    began = time.process_time()
    for run in runs:
        assert stated_rights(PLACES["png, packed"](run)).reserved
    assert time.process_time() - began < 2


def test_each_kind_of_mark_is_obeyed_by_a_setting_of_its_own() -> None:
    for reason, setting in (
        ("mining_reserved", RightsSettings(mining=False)),
        ("synthetic", RightsSettings(synthetic=False)),
        ("broken_credentials", RightsSettings(broken=False)),
    ):
        of_reason = [each for each in MARKED.values() if each.reason == reason]
        assert {decided(each.data, setting) for each in of_reason[:40]} <= {None, "broken_credentials"}
        assert len(of_reason) >= 9


def test_credit_source_and_term_are_kept_as_they_are_stated() -> None:
    told = stated_rights(MARKED["jpeg, IIM, None"].data)
    assert (told.credit, told.source_type, told.mining) == ("Ännchen", "digitalCapture", None)
    told = stated_rights(PLACES["png"](packet(attributes='photoshop:Credit="Ann / Agency"')))
    assert told.credit == "Ann / Agency"
    told = stated_rights(MARKED["webp, tdm, reserved"].data)
    assert (told.mining, told.reserved) == ("tdm:reservation 1", True)
    told = stated_rights(MARKED["PNG, C2PA, notAllowed"].data)
    assert (told.mining, told.credentials) == ("cawg.ai_generative_training notAllowed", "Drawn Generator")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"X-Robots-Tag": "noai, noimageai"}, "X-Robots-Tag noai"),
        ({"x_robots_tag": ["otherbot: noimageai"]}, "X-Robots-Tag noimageai"),
        ({"headers": '{"Content-Type": "image/jpeg", "X-Robots-Tag": "noindex,NoAI"}'}, "X-Robots-Tag noai"),
        ({"response_headers": [["x-robots-tag", "noai"]]}, "X-Robots-Tag noai"),
        ({"headers": [{"name": "X-Robots-Tag", "value": "noai"}]}, "X-Robots-Tag noai"),
        ({"http_headers": "HTTP/1.1 200 OK\r\nX-Robots-Tag: noai\r\n"}, "X-Robots-Tag noai"),
        ({"json": {"headers": {"TDM-Reservation": "1"}}}, "TDM-Reservation 1"),
        ({"tdm-reservation": 0}, None),
        ({"X-Robots-Tag": "noindex, noarchive"}, None),
        ({"json": '{"X-Robots-Tag": "noai"}'}, "X-Robots-Tag noai"),
        ({"record": {"headers": {"TDM-Reservation": "1"}}}, "TDM-Reservation 1"),
        ({"caption": "X-Robots-Tag: noai"}, None),
        ({"headers": 3, "X-Robots-Tag": None}, None),
        ([], None),
    ],
)
def test_the_headers_of_a_server_are_obeyed_as_collections_keep_them(
    record: object, said: str | None
) -> None:
    assert reserving_header(record) == said
    reason = decided(MARKED["jpeg, allowed"].data, metadata=json.dumps(record))
    assert reason == (None if said is None else "mining_reserved")


def test_entities_and_depth_cost_nothing() -> None:
    deep = packet("<a>" * 100_000, 'plus:DataMining="DMI-PROHIBITED"')
    began = time.process_time()
    assert decided(MARKED["jpeg, entities"].data) == "mining_reserved"
    assert stated_rights(PLACES["png"](deep)).reserved
    assert time.process_time() - began < 5


def test_a_photo_with_credentials_that_nobody_can_read_is_failed_with_what_to_install() -> None:
    code = (
        "import sys; sys.modules['c2pa'] = None\n"
        "from curation.photos.decode import open_photo\n"
        "data = sys.stdin.buffer.read()\n"
        "assert open_photo(data, rights='stated')[0].rights.credentials is None\n"
        "try: open_photo(data, rights='all')\n"
        "except ValueError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code]
    data = MARKED["JPEG, C2PA, of a camera"].data
    said = subprocess.run(command, input=data, capture_output=True, env=environment(), check=True).stdout
    assert b"pip install 'c2pa-python>=0.38'" in said
    assert b"photos.rights.credentials: false" in said


def test_a_run_obeys_what_photos_say_and_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    people = [Image.open(io.BytesIO(photo.jpeg)) for photo in collection(5, people=1)[:4]]
    xmp = [PACKETS[name][0] for name in ("prohibited, resource", "synthetic, label", "allowed", "allowed")]
    for number, (picture, each) in enumerate(zip(people, xmp, strict=True)):
        picture.save(photos / f"{number}.jpg", quality=95, xmp=each)
    (photos / "3.json").write_text(json.dumps({"headers": {"X-Robots-Tag": "noai"}}))
    config = write_config(tmp_path / "drawn.yaml", settings(photos))
    run, words = tmp_path / "run", ["--config", str(config), "--engine", "inline", "--quiet", "--allow-empty"]
    assert main(["curate", "drawn", "--out", str(run), *words]) == 0
    rows = {row["file_name"]: row for row in rows_of(run / "photos", None)}
    last = {
        name: row["decisions"][-1]["reason"] for name, row in rows.items() if row["verdict"] == "rejected"
    }
    assert last == {"0.jpg": "mining_reserved", "1.jpg": "synthetic", "3.jpg": "mining_reserved"}
    assert rows["1.jpg"]["source_type"] == "trainedAlgorithmicMedia"
    assert rows["2.jpg"]["mining"] == "plus:DataMining DMI-ALLOWED"
    capsys.readouterr()
    assert main(["why", str(run), "0.jpg"]) == 0
    assert "DMI-PROHIBITED-AIMLTRAINING" in capsys.readouterr().out
    assert main(["status", str(run)]) == 0
    assert "mining_reserved 2" in capsys.readouterr().out
    again = [*words, "--set", "photos.rights.mining=false", "--set", "photos.rights.synthetic=false"]
    assert main(["curate", "drawn", "--out", str(run), *again]) == 0
    rows = {row["file_name"]: row for row in rows_of(run / "photos", None)}
    assert all(row["verdict"] == "kept" for row in rows.values())
    assert main(["collection", str(photos)]) == 0
    said = capsys.readouterr().out
    assert "plus:DataMining DMI-PROHIBITED-AIMLTRAINING 1" in said
    assert "trainedAlgorithmicMedia 1" in said
