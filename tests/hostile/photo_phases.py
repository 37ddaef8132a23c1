"""Runs the photo phases alone, in this process, within a limit of memory: what a hostile collection meets."""

import json
import resource
import sys
import traceback
from pathlib import Path

from curation.engine import InlineEngine, Job
from curation.photos.phase import run_photos
from curation.pipeline_file import load_pipeline
from curation.progress import RunProgress
from curation.run_folder import Run
from curation.step import Context


def main(memory_mib: str, *folders: str) -> None:
    """Curates FOLDER/p.yaml into FOLDER/run for each; prints a line of JSON each: folder, error.

    The last line is the most memory that was in use, in MiB.
    """
    limit = int(memory_mib) * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for folder in folders:
        error = None
        try:
            _run(f"{folder}/p.yaml", f"{folder}/run")
        except BaseException:
            error = traceback.format_exc()[-2000:]
        print(json.dumps([folder, error]), flush=True)
    print(_peak_mib(), flush=True)


def _peak_mib() -> int:
    """Of this program alone: what getrusage says begins with the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024


def _run(config: str, run: str) -> None:
    job = Job(run, load_pipeline(config, "drawn", []), {})
    Run(job.run).write_settings("drawn", job.pipeline, job.models)
    progress = RunProgress(run, quiet=True)
    try:
        run_photos(Context(job, InlineEngine(), progress))
    finally:
        progress.finish("finished")


if __name__ == "__main__":
    main(*sys.argv[1:])
