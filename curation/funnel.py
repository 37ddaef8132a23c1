"""The funnel: the stages of all phases, in the order in which a photo and its people meet them.

Whatever shows stages, or looks a threshold up, asks here. `python -m curation.funnel` prints the table of
reasons for docs/operating.md.
"""

import json
from dataclasses import asdict

from curation.captions.phase import STAGES as CAPTIONS
from curation.declared import BROKE_DOWN, NEVER_MEASURED, Declared, Number, Reason, Threshold
from curation.identities.phase import STAGES as IDENTITIES
from curation.ledger import FAILED
from curation.outfits.phase import STAGES as OUTFITS
from curation.outfits.phase import Outfits
from curation.packing.plan import STAGES as SHARDS
from curation.people.stages import STAGES as PEOPLE
from curation.photos.phase import STAGES as PHOTOS
from curation.stage import Stage

PHASES: dict[str, tuple[type[Declared], ...]] = {
    "photos": PHOTOS,
    "people": PEOPLE,
    "identities": IDENTITIES,
    "outfits": OUTFITS,
    "captions": CAPTIONS,
    "shards": SHARDS,
}
STAGES = tuple(stage for stages in PHASES.values() for stage in stages)
_PLACES = {stage.name: place for place, stage in enumerate(STAGES)}

THRESHOLDS: dict[tuple[str, str], Threshold] = {
    (stage.name, threshold.reason): threshold for stage in STAGES for threshold in stage.thresholds
} | {(Outfits.name, Outfits.pairs.reason): Outfits.pairs}
"""By the stage and the name of the recorded check."""

NUMBERS: dict[tuple[str, str], Number] = {
    (stage.name, name): number for stage in STAGES for name, number in stage.numbers.items()
} | {named: threshold.number for named, threshold in THRESHOLDS.items()}
"""Every number that a stage records, in words: by the stage and the name of the check, the reason, or "" of
what was kept."""


def place_of(stage: str) -> tuple[int, str]:
    """What names of stages are sorted by; one that is not known comes last."""
    return _PLACES.get(stage, len(STAGES)), stage


def stages_before_people() -> list[str]:
    """Names of the stages that rule on a photo as a whole before anybody on it is looked at."""
    names = []
    for stage in STAGES:
        if stage.unit != "photo":
            break
        names.append(stage.name)
    return names


def main_stage(phase: str) -> str:
    """The stage that the work of a phase's last step is for, where a fragment does not say itself."""
    stages = PHASES[phase]
    called: list[type[Declared]] = [stage for stage in stages if issubclass(stage, Stage)]
    return (called or list(stages))[-1].name


def setting_behind(stage: str, reason: str) -> str | None:
    """The key of pipelines.yaml that a reason is due to; None where no single setting is."""
    declared = next((each for each in STAGES if each.name == stage), None)
    if declared is None:
        return None
    return next((each.key for each in declared.all_reasons() if each.reason == reason), None)


def number_words() -> str:
    """curation/number_words.json, which `persona why` reads: stages take a second to import."""
    rows = [json.dumps([*named, asdict(number)]) for named, number in NUMBERS.items()]
    return "[\n" + ",\n".join(rows) + "\n]\n"


def reason_table() -> list[str]:
    """The lines of a Markdown table: every reason of every stage, and when it is given."""
    lines = ["| stage | rules on | reason | given when |", "|---|---|---|---|"]
    shared: dict[Reason, list[str]] = {BROKE_DOWN: [], NEVER_MEASURED: []}
    for stage in STAGES:
        cells = (f"`{stage.name}`", stage.unit)
        for each in stage.all_reasons():
            if isinstance(each, Reason) and each in shared:
                shared[each].append(f"`{stage.name}`")
            else:
                lines.append(_line(*cells, each))
                cells = ("", "")
    lines += [_line(", ".join(names), "", each) for each, names in shared.items()]
    return lines


def _line(stage: str, unit: str, each: Threshold | Reason) -> str:
    failed = " (failed)" if isinstance(each, Reason) and each.verdict == FAILED else ""
    return f"| {stage} | {unit} | `{each.reason}`{failed} | {each.in_words()} |"


if __name__ == "__main__":
    print("\n".join(reason_table()))
