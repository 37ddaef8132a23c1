"""The tables of keys in docs/pipelines.md say what the settings say, of every key."""

import pytest

from curation.settings import PipelineSettings
from tests.house.reference import PAGE, keys_of, keys_told, keys_without_words, table, written


def test_the_tables_of_keys_are_up_to_date() -> None:
    assert PAGE.read_text() == written(PAGE.read_text()), "run `make reference`"


def test_every_key_of_a_pipeline_is_in_a_table_and_says_what_it_is() -> None:
    told = keys_told(PAGE.read_text())
    assert [key.path for key in keys_of(PipelineSettings, "", set()) if key.path not in told] == []
    assert keys_without_words() == []


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("photos.duplicates", "| `max_bits` | 6 | 0 to 10 | T | Hamming distance of two 64-bit"),
        ("people.detect", "| `by.image_px` | 640 | 64 to 4096, multiple of 32 | M |"),
        ("people.full_body", "| `min_box_px` | any: 64, paper: 300 | ≥ 1 | T |"),
        ("source", "| `path` | required |  | I |"),
        ("models", "| `path` | none |  | R |"),
        ("outfits", "| `strategy.rule` | `all` | `any`, `majority`, `all` | T | paper: "),
        ("telemetry", "| `log_format` | `text` | `text`, `json` | R |"),
        ("photos.decoder", "| `apart` | true |  | R |"),
    ],
)
def test_a_row_has_default_values_and_what_a_change_costs(path: str, row: str) -> None:
    assert f"\n{row}" in table(path, set())


def test_a_table_may_leave_out_what_another_says() -> None:
    rows = table("captions.by vllm unlike outfits.judge vllm", set())
    assert "| `max_tokens` | 160 |" in rows
    assert "timeout_s" not in rows
