"""The tables of keys of docs/training.md and docs/generation.md say what the settings say, of every key."""

from pathlib import Path

import pytest

from tests.house.training_reference import PAGES, TABLES, keys, written


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_keys_are_up_to_date(page: Path) -> None:
    assert page.read_text() == written(page.read_text()), "run `make reference`"


def test_every_table_is_on_a_page() -> None:
    told = "".join(page.read_text() for page in PAGES)
    assert [name for name in TABLES if f"<!-- keys of {name} -->" not in told] == []


@pytest.mark.parametrize("name", TABLES)
def test_every_key_of_a_training_says_what_it_is(name: str) -> None:
    assert [key.path for key in keys(name) if not key.says] == []
