"""What a run has done: from summary.json where it is finished, otherwise from committed fragments."""

import time
from typing import Any

from curation.errors import printable
from curation.run_folder import HEARTBEAT_S, OPT_OUT_FILE, PHASES, Run, funnel_ends

_MISSED_LINES = 5  # of an opt-out list, that are printed
SILENT_S = 6 * HEARTBEAT_S
"""A run that says nothing for so long was killed, or cannot write its run folder."""


def is_well(status: dict[str, Any]) -> bool:
    """Whether the run is finished, or at work and alive."""
    if status["state"] == "running":
        return status["silent_s"] is None or bool(status["silent_s"] <= SILENT_S)
    return bool(status["state"] == "finished")


def read_status(run: str) -> dict[str, Any]:
    """{run, state, message, phase, silent_s, collection, identities, groups, opt_out, stages, …}.

    state     not started, running, finished, stopped
    message   why it stopped
    phase     the step that it is in, None where it is in none
    silent_s  seconds since its last sign of life, None where it is finished
    opt_out   {sha256, lines, matched, missed}, or None where there is no list
    stages    [{phase, stage, unit, in, kept, rejected, failed, reasons}]

    A finished run adds what its summary.json has; a running or stopped one fragments_done, fragments,
    rows_per_second, seconds_left, host, pid. Raises ConfigError for no run.
    """
    Run(run).require()
    now = Run(run).status or {"state": "not started"}
    if now["state"] == "finished":
        summary = Run(run).summary
        if summary is not None:
            return {
                "run": run,
                "state": "finished",
                "message": "",
                "phase": None,
                "silent_s": None,
                **summary,
            }
    stages = _stages_so_far(Run(run))
    silent_s = round(time.time() - now["time"], 1) if "time" in now else None
    packed = [entry["kept"] for entry in stages if entry["phase"] == "shards"]
    return {
        "message": "",
        "phase": None,
        **now,
        "run": run,
        "silent_s": silent_s,
        **funnel_ends(stages),
        "groups": sum(packed),
        "opt_out": Run(run).opt_out,
        "stages": stages,
    }


def _stages_so_far(run: Run) -> list[dict[str, Any]]:
    """The counts of all committed fragments."""
    from curation.ledger import Counts  # needs pyarrow; the status of a finished run is JSON alone

    stages = []
    for phase, names in PHASES.items():
        for name in names:
            counts = Counts()
            for fragment in run.table(name).about():
                counts.add(fragment["counts"])
            for stage, entry in counts.to_json().items():
                stages.append({"phase": phase, "stage": stage, **entry})
    return stages


def status_lines(status: dict[str, Any]) -> list[str]:
    """For people."""
    lines = [f"{status['run']}: {status['state']}"]
    if status["state"] == "running":
        lines[0] += f", {status['phase']} {status['fragments_done']}/{status['fragments']} fragments"
        if not is_well(status):
            lines.append(
                f"no sign of life for {status['silent_s']:.0f} s (process {status['pid']} on "
                f"{status['host']}); if it was killed, the same curate command goes on from here"
            )
    if status.get("message"):
        lines.append(printable(status["message"]))
    return lines + summary_lines(status)


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The funnel as a table, what came out, and which wishes were heeded."""
    rows = [("phase", "stage", "unit", "in", "kept", "rejected", "failed", "reasons")]
    for entry in summary["stages"]:
        reasons = ", ".join(f"{name} {number}" for name, number in entry["reasons"].items())
        numbers = [str(entry[name]) for name in ("in", "kept", "rejected", "failed")]
        rows.append((entry["phase"], entry["stage"], entry["unit"], *numbers, reasons))
    widths = [max(len(row[i]) for row in rows) for i in range(8)]
    lines = []
    for row in rows:
        cells = [row[i].rjust(widths[i]) if 3 <= i < 7 else row[i].ljust(widths[i]) for i in range(8)]
        lines.append("  ".join(cells).rstrip())
    lines.append("")
    parts = [f"{summary['collection']} photos in", f"{summary['identities']} identities"]
    if "photos" in summary:
        parts.append(f"{summary['groups']} groups of {summary['photos']} photos")
        parts.append(f"{summary['shards']} shards, {summary['bytes']} bytes")
    lines.append(", ".join(parts))
    return lines + _opt_out_lines(summary.get("opt_out")) + _tombstone_lines(summary.get("forgotten", []))


def _tombstone_lines(stores: list[dict[str, Any]]) -> list[str]:
    """Which tombstones are obeyed, or that there are none."""
    lines = [f"forgotten: {s['lines']} tombstones of {s['store']} obeyed" for s in stores if s["lines"]]
    places = ", ".join(store["store"] for store in stores)
    return lines or ([f"forgotten: no tombstones in {places}"] if places else [])


def _opt_out_lines(opt_out: dict[str, Any] | None) -> list[str]:
    """How many lines of the opt-out list matched a photo, and which did not."""
    if opt_out is None:
        return []
    lines = [f"opt-out list: {opt_out['lines']} lines, {opt_out['matched']} matched"]
    missed = opt_out["missed"][:_MISSED_LINES]
    lines += [f"  line {entry['line']} ({entry['kind']}) matched nothing" for entry in missed]
    more = opt_out["lines"] - opt_out["matched"] - len(missed)
    return [*lines, f"  {more} more matched nothing: {OPT_OUT_FILE} has their numbers"] if more else lines
