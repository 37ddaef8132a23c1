"""Store of pictures and scores by content: what was made once is not made again.

OUT/pictures/CASE.png     generated pictures
OUT/scores.jsonl          {"case": …, "scorer": …, "score": …} a line; null is an answer too
"""

import io
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from shards.format.atomic_file import write_whole


class Store:
    """Pictures and scores of one output folder. A line that a kill has cut is left out, and its score is made
    again."""

    def __init__(self, folder: Path) -> None:
        self._pictures, self._file = folder / "pictures", folder / "scores.jsonl"
        self._pictures.mkdir(parents=True, exist_ok=True)
        self._scores: dict[tuple[str, str], float | None] = {}
        if self._file.exists():
            complete, _, cut = self._file.read_bytes().rpartition(b"\n")
            for line in complete.splitlines():
                stored = json.loads(line)
                self._scores[stored["case"], stored["scorer"]] = stored["score"]
            if cut:
                os.truncate(self._file, self._file.stat().st_size - len(cut))

    def has_picture(self, case: str) -> bool:
        """Whether a case's picture was made."""
        return self._place(case).exists()

    def picture(self, case: str) -> np.ndarray:
        """Picture of a case, uint8 [h, w, 3]."""
        with Image.open(self._place(case)) as image:
            return np.asarray(image.convert("RGB"))

    def keep_picture(self, case: str, picture: Image.Image) -> None:
        """Writes a picture, whole or not at all."""
        sink = io.BytesIO()
        picture.save(sink, "PNG")
        write_whole(str(self._place(case)), sink.getvalue())

    def has_score(self, case: str, scorer: str) -> bool:
        """Whether a scorer has answered for a case, with None too."""
        return (case, scorer) in self._scores

    def score(self, case: str, scorer: str) -> float | None:
        """Score of a case by a scorer."""
        return self._scores[case, scorer]

    def keep_scores(self, scorer: str, scores: dict[str, float | None]) -> None:
        """Appends {case: score} of one scorer."""
        with self._file.open("a") as stream:
            for case, score in scores.items():
                self._scores[case, scorer] = score
                stream.write(json.dumps({"case": case, "scorer": scorer, "score": score}) + "\n")

    def _place(self, case: str) -> Path:
        return self._pictures / f"{case}.png"
