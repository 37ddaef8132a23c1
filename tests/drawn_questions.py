"""People of drawn photos, as a judge and a captioner get them, and a job to ask about them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from curation.engine import Endpoint, Job
from curation.meters import CallCounter
from curation.models import Model
from curation.people.atr import encode_map
from curation.settings import PipelineSettings
from curation.vlm.judge import VlmJudge
from tests.drawn_people import BOX, collection, write_folder
from tests.drawn_pipeline import settings

TINY = Model("tiny", "nowhere", "0" * 64, "MIT")
JUDGE = {"backend": "vllm", "model": "tiny", "prompt": "outfit-brief", "canvas_px": [112, 224]}


def people_of(folder: Path, count: int, seed: int = 21) -> list[dict[str, Any]]:
    """One row a person, each of a photo of its own in `folder`."""
    drawn = collection(seed, people=-(-count // 6))[:count]
    write_folder(folder, drawn)
    x0, y0, x1, y1 = (int(value) for value in BOX)
    mask = encode_map(np.ones((y1 - y0, x1 - x0), bool))
    rows = []
    for photo in drawn:
        photo_id = hashlib.sha256(photo.jpeg).hexdigest()
        rows.append(
            {
                "person_id": f"{photo_id}-0",
                "photo_id": photo_id,
                "source_key": f"photos/{photo.name}",
                "uri": str(folder / photo.name),
                "offset": None,
                "length": None,
                "row": None,
                "orientation": 1,
                "box": [float(value) for value in BOX],
                "mask": mask,
            }
        )
    return rows


def pairs_of(people: list[dict[str, Any]], count: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """So many different pairs."""
    every = [(a, b) for i, a in enumerate(people) for b in people[:i]]
    assert len(every) >= count
    return every[:count]


def judge_at(url: str, run: Path, model: Model = TINY, calls: Path | None = None, **changes: Any) -> VlmJudge:
    """A judge that asks the server at `url` and remembers in the run folder."""
    pipeline = settings(run / "photos")
    pipeline["models"] = {
        "cards": {model.name: {"file": "m", "source": "tests", "licence": "MIT", "commercial": True}}
    }
    pipeline["outfits"]["judge"] = {**JUDGE, "model": model.name, "retries": 2, "reconnect_s": 1.0, **changes}
    validated = PipelineSettings.model_validate(pipeline)
    models = {model.name: model}
    job = Job(str(run), validated, models, None if calls is None else str(calls), {"judge": Endpoint(url)})
    judge = VlmJudge(validated.outfits.judge, models)
    judge.join_run(job, "outfits", CallCounter(job.calls))
    return judge
