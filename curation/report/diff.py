"""`persona diff A B`: which settings of two runs differ, which counts, and who ended elsewhere.

People of both are matched by person_id: the same photo, and the same place among its detections. A photo on
which nobody was looked at is matched as a photo.
"""

from collections import Counter
from typing import Any

from curation.ledger import KEPT
from curation.report.decisions import Words, reason_of, stage_of, verdict_of
from curation.report.exclusions import excluded_photos
from curation.report.subjects import read_later, read_rows
from curation.run_folder import Run
from curation.settings import PipelineSettings
from curation.status import read_status

_EXAMPLES = 3
_ABSENT = "not there"


def diff_runs(a: str, b: str) -> dict[str, Any]:
    """{runs, settings, stages, moved, same}.

    runs      [{run, state}, the same of b]: of one that is not finished, what it has committed is compared
    settings  {key path: [value in a, value in b]} of those that differ; resources are left out
    stages    {stage: [{in, kept, rejected, failed}, the same in b]} of those that differ; None: no such stage
    moved     [{from, to, count, examples}] of subjects that ended differently, the most frequent first
    same      how many subjects ended the same

    Opted-out photos are in neither. Raises ConfigError where one is no run.
    """
    settings = [_flat(Run(run).pipeline()[1].ruling()) for run in (a, b)]
    keys = sorted(set(settings[0]) | set(settings[1]))
    changed = {key: [found.get(key) for found in settings] for key in keys}
    states = [read_status(run) for run in (a, b)]
    counts = [{entry["stage"]: _counts(entry) for entry in status["stages"]} for status in states]
    stages = {name: [found.get(name) for found in counts] for name in dict.fromkeys([*counts[0], *counts[1]])}
    ends_a, ends_b = _endings(a), _endings(b)
    moves: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[str]] = {}
    for name in sorted(set(ends_a) | set(ends_b)):
        move = (ends_a.get(name, _ABSENT), ends_b.get(name, _ABSENT))
        moves[move] += 1
        if moves[move] <= _EXAMPLES:
            examples.setdefault(move, []).append(name)
    moved = sorted(((-count, move) for move, count in moves.items() if move[0] != move[1]))
    return {
        "runs": [{"run": status["run"], "state": status["state"]} for status in states],
        "settings": {key: values for key, values in changed.items() if values[0] != values[1]},
        "stages": {name: values for name, values in stages.items() if values[0] != values[1]},
        "moved": [
            {"from": move[0], "to": move[1], "count": -count, "examples": examples[move]}
            for count, move in moved
        ],
        "same": sum(count for move, count in moves.items() if move[0] == move[1]),
    }


def _flat(settings: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{path}.{name}" if path else name
        found |= _flat(value, key) if isinstance(value, dict) else {key: value}
    return found


def _counts(entry: dict[str, Any]) -> dict[str, int]:
    return {name: entry[name] for name in ("in", "kept", "rejected", "failed")}


def _endings(run: str) -> dict[str, str]:
    """{person_id, or photo_id, or source_key: where it ended}."""
    pipeline: PipelineSettings = Run(run).pipeline()[1]
    excluded = excluded_photos(run, pipeline)
    words = Words()
    later = read_later(run, words, excluded)
    found: dict[str, str] = {}
    for row in read_rows(run, words, later, excluded):
        for place, decisions in row.subjects():
            last = decisions[-1]
            name = row.people[place].person_id if place >= 0 else row.photo_id or row.source_key
            reason = reason_of(last)
            end = f"{words.all[stage_of(last)]}: {words.all[reason] if reason >= 0 else ''}"
            found[name] = KEPT if verdict_of(last) == KEPT else end
    return found


def diff_lines(found: dict[str, Any]) -> list[str]:
    """For people."""
    lines = [
        f"{run['run']} is not finished ({run['state']}): what it has committed is compared"
        for run in found["runs"]
        if run["state"] != "finished"
    ]
    changed = [f"{key}: {values[0]} → {values[1]}" for key, values in found["settings"].items()]
    lines += changed or ["the settings are the same, resources aside"]
    if found["stages"]:
        lines += ["", "stage: kept of in"]
    for stage, values in found["stages"].items():
        shares = ["–" if value is None else f"{value['kept']} of {value['in']}" for value in values]
        lines.append(f"  {stage:<12} {shares[0]} → {shares[1]}")
    lines += ["", f"{found['same']} people and photos ended the same"]
    for move in found["moved"]:
        lines.append(f"  {move['count']:>7}  {move['from']} → {move['to']}   such as {move['examples'][0]}")
    return lines
