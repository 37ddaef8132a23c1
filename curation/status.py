"""What a run has done: from summary.json where it is finished, otherwise from committed fragments."""

import time
from typing import Any

from curation.errors import printable
from curation.fragments import about, list_fragments
from curation.ledger import Counts
from curation.photos.heeded import heeded_lines, read_heeded, tombstone_lines
from curation.run import PHASES
from curation.run_folder import HEARTBEAT_S, read_json, require_run
from curation.storage import join

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
    require_run(run)
    now = read_json(run, "status.json") or {"state": "not started"}
    if now["state"] == "finished":
        summary = read_json(run, "summary.json")
        if summary is not None:
            return {
                "run": run,
                "state": "finished",
                "message": "",
                "phase": None,
                "silent_s": None,
                **summary,
            }
    stages = []
    for phase, folders in PHASES.items():
        for folder in folders:
            counts = Counts()
            for fragment in list_fragments(join(run, *folder.split("/"))):
                counts.add(about(join(run, *folder.split("/"), fragment.name))["counts"])
            for stage, entry in counts.to_json().items():
                stages.append({"phase": phase, "stage": stage, **entry})
    silent_s = round(time.time() - now["time"], 1) if "time" in now else None
    by_stage = {entry["stage"]: entry for entry in stages}
    return {
        "message": "",
        "phase": None,
        **now,
        "run": run,
        "silent_s": silent_s,
        "collection": by_stage.get("read", {}).get("in", 0),
        "identities": by_stage.get("outfits", {}).get("in", 0),
        "groups": by_stage.get("pack", {}).get("kept", 0),
        "opt_out": read_heeded(run),
        "stages": stages,
    }


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
    return lines + heeded_lines(summary.get("opt_out")) + tombstone_lines(summary.get("forgotten", []))
