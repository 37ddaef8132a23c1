"""A stage that ruled everything out: most often a setting, or a column that has another name than one thinks.

The run is whole and its ledger right, but nobody wants an empty dataset for a success.
"""

from collections import Counter
from typing import Any

from curation.funnel import setting_behind
from curation.ledger import plural
from curation.run_folder import Run


def nothing_left(run: str, stages: list[dict[str, Any]]) -> str | None:
    """One line about the first stage that kept nothing of what came in, or None where each kept something.

    stages  as `summary.json` has them, in the order of the funnel
    """
    for entry in stages:
        if entry["in"] and not entry["kept"] and entry["rejected"]:
            break
    else:
        return None
    stage, total, unit = entry["stage"], entry["in"], entry["unit"]
    reason, number = max(entry["reasons"].items(), key=lambda item: item[1])
    setting = setting_behind(stage, reason)
    detail = _commonest_detail(run, stage, reason) if entry["phase"] == "photos" else ""
    cause = f"{number} by {reason}" + (f" ({detail})" if detail else "")
    where = f"; the setting is {setting}" if setting else ""
    return (
        f"{run}: stage {stage} ruled out all {total} {plural(unit)}, {cause}{where}; "
        "if nothing is what you expect, --allow-empty makes it a success"
    )


def _commonest_detail(run: str, stage: str, reason: str) -> str:
    """What was said most often of photos with a reason, in the first fragment that has it."""
    for table in Run(run).photos.tables(["decisions"]):
        rows = table["decisions"].to_pylist()
        ruled = (decision for decisions in rows for decision in decisions)
        said = Counter(d["detail"] for d in ruled if (d["stage"], d["reason"]) == (stage, reason))
        if said:
            return str(said.most_common(1)[0][0])
    return ""
