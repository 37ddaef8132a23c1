"""`persona collection`: licences, columns and marks of rights can be seen before anything is chosen."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from curation.survey.survey import marks_of
from persona import main
from tests.drawn_foreign import img2dataset_members, write_img2dataset, write_tar
from tests.drawn_pipeline import settings, write_config

PLUS = "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING"
TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def surveyed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    assert main(["collection", *map(str, words), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_licences_are_counted_as_they_stand_and_an_entry_that_nobody_states_is_named_with_its_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = img2dataset_members(10, ("CC-BY 4.0", "cc-by 4.0", "CC0-1.0", None, "CC-BY 4.0"))
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "00000.tar", members)
    pipeline = settings(tmp_path / "elsewhere", kind="webdataset")
    pipeline["photos"]["screen"]["licences"] = ["CC0-1.0", "CC-BY-4.0"]
    config = write_config(tmp_path / "p.yaml", pipeline)
    words = (tmp_path / "tars", "--pipeline", "drawn", "--config", config)
    found = surveyed(capsys, *words)
    assert found["stated"]["licence"] == {"CC-BY 4.0": 4, "cc-by 4.0": 2, "CC0-1.0": 2, "not stated": 2}
    assert found["stated"]["consent"] == {"not stated": 10}
    assert found["allowed_unheard"] == [["CC-BY-4.0", "CC-BY 4.0"]]
    assert found["unused"]["exif"] == 10
    assert "LICENSE" not in found["unused"]
    assert main(["collection", *map(str, words)]) == 0
    said = capsys.readouterr().out
    assert "  + CC0-1.0  2\n" in said
    assert "  - CC-BY 4.0  4\n  - cc-by 4.0  2\n" in said
    assert "no photo states 'CC-BY-4.0', which is let in; the nearest is 'CC-BY 4.0'" in said


def test_where_the_kind_is_not_clear_the_option_of_the_command_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_img2dataset(tmp_path / "downloaded")
    (folder / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "photos" / "one.jpg")
    assert main(["collection", str(folder / "photos"), "--kind", "webdataset"]) == 2
    assert "; --kind folder would read 1 photos" in capsys.readouterr().err
    assert main(["collection", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "--kind folder or --kind webdataset" in said
    assert "source.kind" not in said
    assert surveyed(capsys, folder, "--kind", "folder")["photos"] == 1


def test_the_kind_of_a_collection_is_seen_and_formats_and_sizes_come_from_its_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_img2dataset(tmp_path / "downloaded")  # tars with a Parquet file beside each
    found = surveyed(capsys, folder)
    assert (found["kind"], found["units"], found["photos"]) == ("webdataset", 2, 6)
    assert (found["looked"], found["formats"]) == (6, {"jpeg": 6})
    assert found["short_sides"] == [24] * 6
    assert surveyed(capsys, folder, "--kind", "parquet")["kind"] == "parquet"
    found = surveyed(capsys, folder, "--look", "4")
    assert (found["photos"], found["looked"]) == (6, 4)
    assert surveyed(capsys, folder, "--look", "4") == found


def test_marks_of_rights_in_the_bytes_are_named() -> None:
    exif = Image.Exif()
    exif[0x8298], exif[0x013B] = "(c) A. Author", "A. Author"
    exif.get_ifd(0x8825)[1] = "N"
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description'
        ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f' xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" plus:DataMining="{PLUS}">'
        f"<Iptc4xmpExt:DigitalSourceType>{TRAINED}</Iptc4xmpExt:DigitalSourceType>"
        "</rdf:Description></x:xmpmeta>"
    )
    marked, plain = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8)).save(marked, "JPEG", exif=exif, xmp=xmp.encode())
    Image.new("RGB", (8, 8)).save(plain, "JPEG")
    assert marks_of(marked.getvalue()) == {
        "EXIF copyright",
        "EXIF author",
        "EXIF place (GPS)",
        "plus:DataMining DMI-PROHIBITED-AIMLTRAINING",
        "digital source type trainedAlgorithmicMedia",
    }
    packed, about = io.BytesIO(), PngInfo()
    about.add_itxt("XML:com.adobe.xmp", xmp, zip=True)
    Image.new("RGB", (8, 8)).save(packed, "PNG", pnginfo=about, exif=exif)
    assert marks_of(packed.getvalue()) == marks_of(marked.getvalue())
    assert marks_of(plain.getvalue()) == set()
    assert marks_of(b"no picture") == set()


def test_what_is_no_collection_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collection", str(tmp_path / "nowhere")]) == 2
    assert "no such folder or file" in capsys.readouterr().err
