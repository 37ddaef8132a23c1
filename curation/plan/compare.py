"""A plan beside the run that it was made for: what was expected, what came, whether it lay in the bounds."""

from typing import Any

from curation.errors import ConfigError
from curation.identities.phase import Identity
from curation.ledger import KEPT
from curation.plan.storage_budget import bytes_of
from curation.plan.write import SCHEMA
from curation.run_folder import Run
from curation.status import read_status


def read_plan(folder: str) -> dict[str, Any]:
    """The plan.json of a folder. Raises ConfigError where there is none."""
    plan = Run(folder).plan
    if plan is None:
        raise ConfigError(f"{folder}: holds no plan; make one with `persona plan PIPELINE`")
    if plan.get("schema") != SCHEMA:
        raise ConfigError(f"{folder}: its plan was written by another version; make it anew")
    return plan


def compare(plan: dict[str, Any], run: str) -> dict[str, Any]:
    """{counts, stages, steps, seconds, …}; each row is {name, expected, low, high, real, off, within}.

    `off` is real / expected − 1, None where nothing was expected. `steps` and `seconds` are of the run's last
    start: a step that it did not do whole has no `real`. `worst_count_off` is the largest of `counts`.
    Raises ConfigError for no run, or one that is not finished.
    """
    Run(run).require()
    status = read_status(run)
    if status["state"] != "finished":
        raise ConfigError(f"{run}: is not finished ({status['state']}); there is nothing to compare with")
    if Run(run).is_sample():
        raise ConfigError(f"{run}: is itself the sample of a plan; give the run of the collection")
    real = {entry["stage"]: entry for entry in status["stages"]}
    counts = [
        _row("photos", plan["photos"], status["collection"]),
        _row("people", plan["people"], real[Identity.name]["kept"] if Identity.name in real else 0),
        _row("identities", plan["identities"], status["identities"]),
        _row("groups", plan["groups"], status["groups"]),
        _row("photos_kept", plan["photos_kept"], status["photos"]),
        _row("pairs", plan["pairs"], _pairs(run)),
        _row("bytes of shards/", plan["bytes"]["shards"], bytes_of(Run(run).shards)),
    ]
    stages = [
        _row(f"{entry['stage']} kept", entry["kept"], real[entry["stage"]]["kept"])
        for entry in plan["stages"]
        if entry["stage"] in real
    ]
    steps = [
        _row(step["folder"], step["wall_s"], _seconds(status["rates"].get(step["folder"], {})))
        for step in plan["steps"]
    ]
    did_all = all(step is not None and step["real"] is not None for step in steps)
    started = status.get("startup_s", {})
    spent = status["seconds_this_time"] + started.get("engine", 0.0)
    # A run that was given its server does not wait for it.
    given = {name: s for name, s in plan["seconds"]["startup"].items() if name not in started}
    without = sum(given.values())
    expected = {name: round(value - without, 1) for name, value in plan["seconds"]["total"].items()}
    name = f"total (not to start: {', '.join(sorted(given))})" if given else "total"
    total = _row(name, expected, spent if did_all else None)
    return {
        "run": run,
        "plan": plan["run"],
        "counts": counts,
        "stages": stages,
        "steps": steps,
        "seconds": total,
        "worst_count_off": _worst(counts),
        "seconds_off": total["off"],
    }


def _row(name: str, expected: dict[str, float], real: float | None) -> dict[str, Any]:
    middle = expected["expected"]
    return {
        "name": name,
        **expected,
        "real": real,
        "off": round(real / middle - 1, 4) if real is not None and middle else None,
        "within": None if real is None else expected["low"] <= real <= expected["high"],
    }


def _pairs(run: str) -> int:
    """Of photos in packed groups."""
    groups = Run(run).groups(["person_ids", "verdict"])
    rows = [] if groups is None else groups.to_pylist()
    sizes = [len(row["person_ids"]) for row in rows if row["verdict"] == KEPT]
    return sum(size * (size - 1) // 2 for size in sizes)


def _seconds(rates: dict[str, Any]) -> float | None:
    """Of a step that the run's last start did whole."""
    if not rates or rates.get("rows_this_time") != rates.get("rows"):
        return None
    return float(rates["seconds"])


def _worst(rows: list[dict[str, Any]]) -> float:
    return max((abs(row["off"]) for row in rows if row["off"] is not None), default=0.0)


def comparison_lines(found: dict[str, Any]) -> list[str]:
    """For people."""
    lines = [f"{found['run']} against the plan {found['plan']}", ""]
    rows = [("", "expected", "bounds (90 %)", "real", "off", "in bounds")]
    for row in [*found["counts"], *found["stages"], *found["steps"], found["seconds"]]:
        off = "–" if row["off"] is None else f"{row['off']:+.1%}"
        within = {None: "–", True: "yes", False: "no"}[row["within"]]
        bounds = f"{row['low']:,g} to {row['high']:,g}"
        real = "–" if row["real"] is None else f"{row['real']:,g}"
        unit = " s" if row in (*found["steps"], found["seconds"]) else ""
        rows.append((row["name"] + unit, f"{row['expected']:,g}", bounds, real, off, within))
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, 6))]
        lines.append("  ".join(cells).rstrip())
    return lines
