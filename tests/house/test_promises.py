"""docs/promises.md says what the names of the tests say."""

from pathlib import Path

from tests.drawn_pipeline import ROOT
from tests.house.promises import PAGE, page


def test_the_page_of_promises_is_up_to_date() -> None:
    assert PAGE.read_text() == page(ROOT), "run `make promises`"


def test_a_test_becomes_a_sentence_under_the_first_line_of_its_file(tmp_path: Path) -> None:
    for part in ("curation", "shards", "training", "demo", "house"):
        (tmp_path / "tests" / part).mkdir(parents=True)
    (tmp_path / "tests" / "shards" / "test_a.py").write_text(
        '"""What a [shard] holds.\n\nMore."""\n\n\n'
        "def test_no_byte_is_lost():\n    pass\n\n\ndef helper():\n    pass\n"
    )
    text = page(tmp_path)
    assert "**What a \\[shard] holds** (`tests/shards/test_a.py`)\n\n- No byte is lost\n" in text
    assert "helper" not in text
