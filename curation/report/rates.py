"""How fast each phase was and how busy its workers: from what every committed fragment says of itself."""

from typing import Any

from curation.run_folder import PHASES, Run
from curation.settings import PipelineSettings


def rate_entries(run: str, pipeline: PipelineSettings) -> list[dict[str, Any]]:
    """For the page, per folder of a phase that has work.

    rows, fragments; worker_s: seconds of workers on them, over all starts of the run; cpu_s: of their
    process; rows_per_worker_s; cpu_share: cpu_s / worker_s, above 1 where a worker uses threads.
    wall_s and busy (share of the workers' time in which they had a fragment) are of the last start, None
    where it had nothing to do. stages: [{stage, rows, seconds}] of those that tell of themselves: seconds of
    workers, on rows that a stage measured, or ruled on where it measures nothing.
    """
    rates = (Run(run).summary or {}).get("rates", {})
    entries = []
    for phase, folders in PHASES.items():
        wanted = getattr(pipeline, phase).resources.workers
        for folder in folders:
            said = Run(run).table(folder).about()
            if not said:
                continue
            rows = sum(entry["rows"] for entry in said)
            worker_s = sum(entry["seconds"] for entry in said)
            cpu_s = sum(entry["cpu_seconds"] for entry in said)
            last = rates.get(folder, {})
            workers = last.get("workers") or wanted  # a machine may have room for fewer
            whole = last.get("rows_this_time") == rows and last.get("seconds", 0) > 0
            wall_s = last.get("seconds") if last.get("rows_this_time") else None
            entries.append(
                {
                    "phase": phase,
                    "folder": folder,
                    "rows": rows,
                    "fragments": len(said),
                    "workers": workers,
                    "worker_s": round(worker_s, 3),
                    "cpu_s": round(cpu_s, 3),
                    "rows_per_worker_s": round(rows / worker_s, 2) if worker_s else None,
                    "cpu_share": round(cpu_s / worker_s, 3) if worker_s else None,
                    "wall_s": wall_s,
                    "stages": _stages(said),
                    "busy": round(min(worker_s / (wall_s * workers), 1.0), 3) if whole and wall_s else None,
                }
            )
    return entries


def _stages(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for entry in said:
        for stage, times in entry.get("stages", {}).items():
            whole = found.setdefault(stage, {"stage": stage, "rows": 0, "seconds": 0.0})
            whole["rows"] += times["rows"]
            whole["seconds"] += times["seconds"]
    return [{**whole, "seconds": round(whole["seconds"], 3)} for whole in found.values()]
