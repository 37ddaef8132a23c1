"""SIGKILL of a tool that writes or changes a dataset: merge, split, reshard, forget, strip."""

import shutil
from pathlib import Path
from random import Random

from shards.tools.verify import ENDS_IT, verify
from tests.drawn_shards import bytes_of, drawn_groups, with_metadata, write_dataset
from tests.faults.result import require_tidy
from tests.faults.workplace import BrokenPromiseError, Injury, Workplace
from tests.forked import Command

SHARE = 8
TOOLS = ("merge", "split", "reshard", "forget", "strip")
IN_PLACE = ("forget", "strip")


def injure(place: Workplace, random: Random) -> Injury:
    """One kill at any moment of one tool."""
    tool, share = random.choice(TOOLS), random.random()

    def undisturbed() -> tuple[dict[str, bytes], float]:
        scratch = _prepared(place)
        command = Command(_words(tool, scratch), scratch / "said.txt")
        if command.exit_code():
            raise RuntimeError(f"{tool}: {command.said()}")
        return _made(tool, scratch), command.cpu_s

    expected, cpu_s = place.once(f"undisturbed {tool}", undisturbed)
    scratch = _prepared(place)
    command = Command(_words(tool, scratch), scratch / "said.txt")
    hit = command.reaches(share * cpu_s)
    if hit:
        command.kill()
    for folder in _outputs(tool, scratch):
        if (folder / "dataset.json").exists():
            _require_verified(folder, apart_from=ENDS_IT)
        elif tool in IN_PLACE:
            raise BrokenPromiseError(f"a dataset that {tool} was to change has no dataset.json any more")
    again = Command(_words(tool, scratch), scratch / "said-again.txt")
    if again.exit_code():
        raise BrokenPromiseError(f"{tool} cannot be gone on with: {again.said()[-300:].strip()}")
    made = _made(tool, scratch)
    require_tidy(made)
    wrong = [name for name in {**made, **expected} if made.get(name) != expected.get(name)]
    if wrong:
        raise BrokenPromiseError(f"{tool}: not as undisturbed: {', '.join(sorted(wrong)[:4])}")
    for folder in _outputs(tool, scratch):
        _require_verified(folder)
    return Injury(hit, f"{tool} killed at {share:.0%}")


def _prepared(place: Workplace) -> Path:
    """An episode's folder with two datasets in it."""

    def make() -> Path:
        folder = place.folder / "datasets"
        write_dataset(
            folder / "a", with_metadata(drawn_groups(12, outfits=2, seed=1), every=4), max_samples=5
        )
        write_dataset(folder / "b", drawn_groups(8, outfits=2, seed=2), max_samples=5)
        return folder

    datasets = place.once("datasets", make)
    scratch = place.fresh()
    # The lineage of what is made names its sources, so these lie in equal places.
    shutil.copytree(datasets, scratch / "work")
    return scratch


def _words(tool: str, scratch: Path) -> list[str]:
    work = scratch / "work"
    a, b, out = str(work / "a"), str(work / "b"), str(work / "out")
    keys = list(drawn_groups(12, outfits=2, seed=1))
    what = {
        "merge": [a, b, "--out", out, "--max-samples", "7"],
        "split": [a, "--out", f"{out}-0", f"{out}-1", "--by", "0.7,0.3", "--max-samples", "6"],
        "reshard": [a, "--out", out, "--max-samples", "9"],
        "forget": [a, "--key", keys[3], keys[14]],
        "strip": [a],
    }
    return ["shards", tool, *what[tool]]


def _outputs(tool: str, scratch: Path) -> list[Path]:
    work = scratch / "work"
    if tool in IN_PLACE:
        return [work / "a"]
    return [work / "out-0", work / "out-1"] if tool == "split" else [work / "out"]


def _made(tool: str, scratch: Path) -> dict[str, bytes]:
    return {
        f"{folder.name}/{name}": data
        for folder in _outputs(tool, scratch)
        for name, data in bytes_of(folder).items()
    }


def _require_verified(folder: Path, apart_from: str | tuple[str, ...] = ()) -> None:
    """Whole, `apart_from` files that verify calls left over, with these words."""
    problems = [found for found in verify(str(folder)).problems if not str(found).endswith(apart_from)]
    if problems:
        raise BrokenPromiseError(f"verify: {problems[0]}")
