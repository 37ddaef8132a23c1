"""Chooses the appearance judge's cut from labelled pairs, for a wanted precision.

Also fits Platt's logistic curve to the scores (Platt, Probabilistic outputs for support vector
machines, 1999), so that a score can be read as a probability.
"""

import io
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from curation.errors import ConfigError
from curation.fragments import list_fragments
from curation.outfits.appearance_judge import region_similarities, vector_of
from curation.run_folder import require_run, write_json
from curation.storage import join, read_bytes, read_table, write_bytes

_PLATT_STEPS = 200


def calibrate_run(run: str, pairs_file: str, precision: float, out: str | None) -> dict[str, Any]:
    """Scores the labelled pairs with the run's stored descriptors and chooses a cut.

    Writes the result to `out` (default RUN/judge-calibration.json). `cut` is None where no cut
    reaches the wanted precision. Raises ConfigError for files that cannot be used.
    """
    require_run(run)
    if not 0 < precision <= 1:
        raise ConfigError(f"--precision {precision}: must be above 0 and at most 1")
    labelled = _read_pairs(pairs_file)
    vectors = _descriptors(run, {name for a, b, _ in labelled for name in (a, b)})
    scores, same = [], []
    unknown = no_region = 0
    for a, b, label in labelled:
        if a not in vectors or b not in vectors:
            unknown += 1
            continue
        similarity = region_similarities(vectors[a], vectors[b])
        if not similarity:
            no_region += 1
            continue
        scores.append(min(similarity.values()))
        same.append(label)
    if not any(same) or all(same):
        raise ConfigError(
            f"{pairs_file}: needs pairs of both kinds that this run has described "
            f"({len(scores)} usable, {sum(same)} of them same, {unknown} unknown to the run)"
        )
    result = {
        "judge": "appearance",
        "wanted_precision": precision,
        "pairs": len(scores),
        "pairs_unknown": unknown,
        "pairs_without_region": no_region,
        **choose_cut(np.array(scores), np.array(same, dtype=bool), precision),
    }
    if out is None:
        write_json(run, "judge-calibration.json", result)
    else:
        write_bytes(out, (json.dumps(result, indent=1) + "\n").encode())
    return result


def choose_cut(scores: np.ndarray, same: np.ndarray, precision: float) -> dict[str, Any]:
    """The lowest cut whose accepted pairs (score ≥ cut) reach the precision, and what it gives.

    scores [n] floats; same [n] bools, both kinds present.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(same[order])
    reached = hits / np.arange(1, len(scores) + 1)
    # A cut lies between two scores: equal scores are accepted together.
    last_of_score = np.r_[scores[order][1:] != scores[order][:-1], True]
    good = np.flatnonzero((reached >= precision) & last_of_score)
    slope, offset = platt(scores, same)
    fitted = {"platt_slope": round(slope, 6), "platt_offset": round(offset, 6)}
    if len(good) == 0:
        best = float(reached[last_of_score].max())
        return {
            "cut": None,
            "precision": round(best, 4),
            "recall": None,
            "accuracy": None,
            **fitted,
        }
    place = int(good[-1])
    cut = math.floor(float(scores[order][place]) * 1e5) / 1e5
    accepted = scores >= cut
    return {
        "cut": cut,
        "precision": round(float(same[accepted].mean()), 4),
        "recall": round(float(accepted[same].mean()), 4),
        "accuracy": round(float((accepted == same).mean()), 4),
        **fitted,
    }


def platt(scores: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """(slope, offset) of P(same) = 1 / (1 + exp(−(slope · score + offset))), by Newton's method.

    Targets are smoothed as Platt does, so that separable scores give a finite curve.
    """
    positive, negative = int(same.sum()), int((~same).sum())
    target = np.where(same, (positive + 1) / (positive + 2), 1 / (negative + 2))
    design = np.stack([scores, np.ones_like(scores)], axis=1)
    weights = np.zeros(2)
    for _ in range(_PLATT_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(design @ weights, -60, 60)))
        gradient = design.T @ (probability - target)
        curvature = probability * (1 - probability)
        hessian = design.T @ (design * curvature[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights -= step / max(1.0, float(np.abs(step).max()) / 10)
        if np.abs(step).max() < 1e-9:
            break
    return float(weights[0]), float(weights[1])


def calibration_lines(result: dict[str, Any]) -> list[str]:
    """For people."""
    lines = [f"{result['pairs']} labelled pairs ({result['pairs_unknown']} unknown to the run)"]
    if result["cut"] is None:
        lines.append(
            f"no cut reaches precision {result['wanted_precision']}; the best is {result['precision']}"
        )
    else:
        lines.append(
            f"cut {result['cut']}: precision {result['precision']}, recall {result['recall']}; use it "
            f"with --set outfits.judge.cut={result['cut']}"
        )
    return lines


def _read_pairs(file: str) -> list[tuple[str, str, bool]]:
    try:
        data = io.BytesIO(read_bytes(file))
        table = pq.read_table(data) if file.endswith(".parquet") else pa.csv.read_csv(data)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"--pairs {file}: {str(error).splitlines()[0]}") from None
    missing = {"a", "b", "same"} - set(table.column_names)
    if missing:
        raise ConfigError(f"--pairs {file}: has no column {', '.join(sorted(missing))}")
    rows = []
    for number, row in enumerate(table.select(["a", "b", "same"]).to_pylist(), 2):
        word = str(row["same"]).strip().lower()
        if word not in ("1", "0", "true", "false", "yes", "no"):
            raise ConfigError(f"--pairs {file}:{number}: same is {row['same']!r}, must be 1 or 0")
        rows.append((str(row["a"]), str(row["b"]), word in ("1", "true", "yes")))
    return rows


def _descriptors(run: str, names: set[str]) -> dict[str, np.ndarray]:
    """Stored descriptors by person_id, and by file name where a photo has one person described."""
    found: dict[str, np.ndarray] = {}
    columns = ["file_name", "source_key", "person_ids", "appearance"]
    for fragment in list_fragments(join(run, "people")):
        for row in read_table(join(run, "people", fragment.name), columns).to_pylist():
            described = [
                (person_id, vector_of(data))
                for person_id, data in zip(row["person_ids"] or [], row["appearance"] or [], strict=False)
                if data is not None
            ]
            found |= {person_id: vector for person_id, vector in described if person_id in names}
            if len(described) == 1:
                for name in {row["file_name"], row["source_key"]} & names:
                    found[name] = described[0][1]
    return found
