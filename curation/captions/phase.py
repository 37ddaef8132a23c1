"""The phase `captions`: of the photos that an outfit kept some are selected, and get their sentence.

Table of the run: `captions`, one row a kept person, with the group it belongs to.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.backends import JoinsRun, build_backend
from curation.captions.captioner import Caption, Captioner, CaptionsSideBySide
from curation.captions.select import Select
from curation.declared import BROKE_DOWN, Declared, Reason, counted
from curation.engine import Job, Task, Work
from curation.errors import PersonaError, one_line
from curation.fingerprint import fingerprint
from curation.fragments import Fragment
from curation.ledger import KEPT, Outcome, failed, is_kept, kept, rule_rows
from curation.meters import CallCounter
from curation.models import Model, used_models
from curation.run_folder import Run
from curation.settings.groups import CaptionsSettings
from curation.stage import Stage, set_columns
from curation.step import Context, Made, run_step, work_of
from curation.storage import read_table

VERSION = 2


class Captions(Stage):
    """Stage `captions`: fills `photo_caption`; a photo without one is failed."""

    name: ClassVar[str] = "captions"
    unit: ClassVar[str] = "person"
    settings_type: ClassVar[Any] = CaptionsSettings
    reasons: ClassVar[tuple[Reason, ...]] = (BROKE_DOWN,)
    fills: ClassVar[pa.Schema] = pa.schema([("photo_caption", pa.string()), ("captions_error", pa.string())])

    def __init__(
        self,
        settings: CaptionsSettings,
        captioner: Captioner | CaptionsSideBySide,
        calls: CallCounter,
        models: Sequence[Model] = (),
    ) -> None:
        super().__init__(settings, models)
        self._captioner = captioner
        self._calls = calls

    def measure(self, table: pa.Table) -> pa.Table:
        """Captions each row still in; an error is that row's own."""
        captioner = self._captioner
        wanted = np.flatnonzero(is_kept(table))
        part = table.take(wanted)
        if captioner.asks_model:
            self._calls.asked(self.name, part["person_id"].to_pylist())
        rows = part.select([*captioner.columns]).to_pylist()
        if isinstance(captioner, CaptionsSideBySide):
            captions = captioner.caption_each(rows)
        else:
            captions = [_caption_alone(captioner, row) for row in rows]
        results: list[dict[str, Any]] = [{} for _ in range(table.num_rows)]
        for place, found in zip(wanted.tolist(), captions, strict=True):
            results[place] = {"photo_caption": found.text, "captions_error": found.error}
        return set_columns(table, self.fills, results)

    def decide(self, table: pa.Table) -> pa.Table:
        """Rules on every row still in."""
        outcomes: list[Outcome | None] = []
        errors = table["captions_error"].to_pylist()
        for error, still_in in zip(errors, is_kept(table), strict=True):
            if not still_in:
                outcomes.append(None)
            else:
                outcomes.append(failed("error", error) if error is not None else kept())
        return rule_rows(table, self.stamp, outcomes)


def _caption_alone(captioner: Captioner, row: dict[str, Any]) -> Caption:
    try:
        return Caption(captioner.caption([row])[0])
    except PersonaError:
        raise
    except Exception as error:  # models raise anything; the row is failed, the run goes on
        return Caption(None, one_line(error))


def run_captions(context: Context, gathered: str, outfits: list[Fragment]) -> list[Fragment]:
    """Runs the phase; returns the fragments of `captions/`."""
    captions = context.job.pipeline.captions
    weights = {n: m.sha256 for n, m in used_models(captions, context.job.models).items()}
    selection = [context.job.pipeline.selection.ruling(), context.job.pipeline.outfits.min_photos]
    step_hash = fingerprint(["captions", VERSION, captions.ruling(), weights, selection])
    return run_step(
        context,
        "captions",
        context.run.captions,
        [(context.run.outfits.path(f), f.after(step_hash), {"gathered": gathered}) for f in outfits],
        open_captions,
        captions.resources,
    )


STAGES: tuple[type[Declared], ...] = (Select, Captions)
# What the next phase needs to plan shards by; pixels and maps stay with the gathered people.
_KEEP = ["identity", "person_id", "photo_id", "source_key", "file_name", "n_bytes"]


def open_captions(job: Job) -> Work:
    """Work: a fragment of identities becomes one of their kept people with captions."""
    run, calls = Run(job.run), CallCounter(job.calls)
    settings = job.pipeline.captions
    captioner = build_backend("captioner", settings.by, job.models)
    if isinstance(captioner, JoinsRun):
        captioner.join_run(job, "captions", calls)
    select = Select(job.pipeline.selection, job.pipeline.outfits.min_photos)
    stage = Captions(settings, captioner, calls, list(used_models(settings, job.models).values()))

    def transform(task: Task) -> Made:
        outfits = read_table(task.source, ["identity", "verdict", "person_ids", "outfits", "person_verdicts"])
        groups = group_of_person(outfits)
        people = run.gathered.read(task.detail["gathered"], task.index)
        group_of_row = [groups.get(person_id) for person_id in people["person_id"].to_pylist()]
        people = people.append_column("group", pa.array(group_of_row, pa.string()))
        people = people.filter(pa.array([group is not None for group in group_of_row], pa.bool_()))
        table = stage(select(people))
        table = table.select(["group", *_KEEP, "diversity", "photo_caption", "verdict", "decisions"])
        return Made(table, counted(STAGES, {stage.unit: table["decisions"].to_pylist()}))

    return work_of(transform, calls)


def group_of_person(outfits: pa.Table) -> dict[str, str]:
    """{person_id: group key} of the people that an outfit kept; a group is identity-letter."""
    groups = {}
    for row in outfits.to_pylist():
        for person_id, letter, verdict in zip(
            row["person_ids"], row["outfits"], row["person_verdicts"], strict=True
        ):
            if letter is not None and verdict == KEPT:
                groups[person_id] = f"{row['identity']}-{letter}"
    return groups
