"""A run with an identity index, started again: what it has done itself is no news to it."""

from pathlib import Path

import pytest

from curation.identities.index import IdentityIndex
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import asked, curate, settings, write_config


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(pipelines.yaml, run) after a second collection's run has joined faces of the first by rule."""
    tmp_path = tmp_path_factory.mktemp("joined")
    drawn = collection(5, people=3, photos=2)
    first = write_folder(tmp_path / "photos-first", drawn[::2])
    second = write_folder(tmp_path / "photos-second", drawn[1::2])
    pipeline = settings(second)
    pipeline["identities"]["index"] = str(tmp_path / "index")
    config = write_config(tmp_path / "pipelines.yaml", pipeline)
    # So strict that every face of the first collection is an identity of its own.
    strict = [f"identities.{key}_cosine=1.0" for key in ("link", "merge")]
    words = [word for setting in [*strict, f"source.path={first}"] for word in ("--set", setting)]
    curate(config, tmp_path / "first", *words)
    curate(config, tmp_path / "second")
    merges = IdentityIndex(str(tmp_path / "index")).merges.entries.values()
    assert {(entry.state, entry.by) for entry in merges} == {("accepted", "rule")}
    return config, tmp_path / "second"


def barriers(run: Path) -> dict[str, int]:
    """Every file that a phase commits, with the moment at which it was written."""
    return {
        str(path.relative_to(run)): path.stat().st_mtime_ns
        for path in sorted(run.rglob("*"))
        if path.suffix in (".parquet", ".tar")
    }


def test_a_run_that_joined_identities_by_rule_does_nothing_when_it_is_started_again(
    joined: tuple[Path, Path],
) -> None:
    config, run = joined
    before = barriers(run)
    assert any("identities" in name for name in before)
    calls = run.parent / "calls"
    calls.mkdir()
    curate(config, run, calls=calls)
    assert barriers(run) == before
    assert list(asked(calls)) == []


def test_a_run_decides_again_once_a_person_has_reverted_what_it_joined(joined: tuple[Path, Path]) -> None:
    config, run = joined
    merges = IdentityIndex(str(run.parent / "index")).merges
    merges.revert(list(merges.entries))
    merges.save()
    before = barriers(run)
    curate(config, run)
    after = barriers(run)
    assert not {name for name in before if name.startswith("identities/fragment-")} & set(after)
    curate(config, run)
    assert barriers(run) == after
