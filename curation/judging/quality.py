"""How good the outfits of a run are, as far as it shows without a truth.

Everything comes from what the judge was asked and said (`pairs` of outfits/), and from the groups.
"""

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from curation.outfits.judge import JUDGED_REGIONS
from curation.run_folder import Run

_COLUMNS = ["identity", "person_ids", "outfits", "merged", "pairs"]
_SUSPECTED = 20  # merges that are listed


def questions_a_region_pair(run: Run) -> int:
    """Questions that a run's judge sends for a pair region by region: none where `regions` is not set."""
    return 0 if run.setting("outfits.judge.regions") is False else len(JUDGED_REGIONS)


def questions_asked(pairs: list[dict[str, Any]], by_regions: int) -> int:
    """How many questions were sent for these rows of `pairs`, with so many for one region by region."""
    return sum(by_regions if pair["by_regions"] else 1 for pair in pairs)


def outfit_quality(run: str, audit: int = 0, seed: int = 0) -> dict[str, Any]:
    """Figures of a run that has its phase `outfits`; counts are of the whole run.

    calls                questions that the judge was asked: of a pair region by region, one a region
    calls_per_photo      the same by the photos of identities
    swap_flips           of pairs asked in both orders, the share answered otherwise the other way round
    triangles            photos A, B, C all compared: `closed` A = B = C = A, `violated` with one "no"
    group_sizes          {photos in a group: groups}
    merged_photos        photos whose outfit was joined to another at the end
    suspected_merges     groups with a "no" inside, the most first: {identity, outfit, photos, no, asked}
    audit                `audit` kept and as many refused pairs, drawn by `seed`: for people to look at

    Raises ConfigError for a folder that is no run.
    """
    by_regions = questions_a_region_pair(Run(run))
    photos = merged = calls = both = flips = closed = violated = 0
    sizes: Counter[int] = Counter()
    suspected: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for table in Run(run).outfits.tables(_COLUMNS):
        for row in table.to_pylist():
            photos += len(row["person_ids"])
            merged += sum(row["merged"] or [])
            by_pair = _answers(row["pairs"] or [])
            calls += questions_asked(row["pairs"] or [], by_regions)
            outfit = dict(zip(row["person_ids"], row["outfits"], strict=True))
            for pair, answers in by_pair.items():
                if len(answers) > 1:
                    both += 1
                    flips += len(set(answers.values())) > 1
                into = kept if _together(outfit, *pair) else refused
                into.append({"identity": row["identity"], "a": pair[0], "b": pair[1]})
            yes = {pair: all(answers.values()) for pair, answers in by_pair.items()}
            found = _triangles(yes)
            closed, violated = closed + found[0], violated + found[1]
            groups = Counter(letter for letter in row["outfits"] if letter is not None)
            sizes.update(groups.values())
            suspected += _with_a_no(row["identity"], outfit, yes)
    suspected.sort(key=lambda group: (-group["no"] / group["asked"], group["identity"], group["outfit"]))
    random = np.random.default_rng(seed)
    return {
        "photos": photos,
        "calls": calls,
        "calls_per_photo": round(calls / photos, 3) if photos else None,
        "swapped_pairs": both,
        "swap_flips": round(flips / both, 4) if both else None,
        "triangles": {"closed": closed, "violated": violated},
        "group_sizes": {str(size): sizes[size] for size in sorted(sizes)},
        "merged_photos": merged,
        "suspected_merges": suspected[:_SUSPECTED],
        "audit": {"kept": _drawn(kept, audit, random), "refused": _drawn(refused, audit, random)},
    }


def quality_lines(found: dict[str, Any]) -> list[str]:
    """For people."""
    triangles = found["triangles"]
    flips = "–" if found["swap_flips"] is None else f"{found['swap_flips']:.1%}"
    lines = [
        f"{found['calls']} questions, {found['photos']} photos ({found['calls_per_photo'] or 0} a photo)",
        f"asked both ways: {found['swapped_pairs']} pairs, answered otherwise: {flips}",
        f"triangles: {triangles['closed']} closed, {triangles['violated']} violated (two of three the same)",
        "groups by photos: " + (", ".join(f"{n} of {s}" for s, n in found["group_sizes"].items()) or "none"),
        f"photos merged at the end: {found['merged_photos']}",
    ]
    lines += [
        f"suspected: {group['identity']}-{group['outfit']}, {group['photos']} photos, "
        f"{group['no']} of {group['asked']} pairs inside are a no"
        for group in found["suspected_merges"]
    ]
    for kind, pairs in found["audit"].items():
        lines += [f"audit {kind}: {pair['a']} {pair['b']}" for pair in pairs]
    if "sheet" in found:
        sheet = found["sheet"]
        shown = f"{sheet['kept']} kept and {sheet['rejected']} rejected pairs"
        lines.append(f"sheet {sheet['file']}: {shown}, {sheet['gaps']} photos missing")
    return lines


def _answers(pairs: list[dict[str, Any]]) -> dict[tuple[str, str], dict[tuple[str, str], bool]]:
    """{pair, ids ascending: {pair as shown: whether the judge said the same}}; no answer does not count."""
    by_pair: dict[tuple[str, str], dict[tuple[str, str], bool]] = {}
    for pair in pairs:
        if pair["same"] is not None and not pair["by_regions"]:
            a, b = pair["a"], pair["b"]
            by_pair.setdefault((min(a, b), max(a, b)), {})[a, b] = pair["same"]
    return by_pair


def _triangles(yes: dict[tuple[str, str], bool]) -> tuple[int, int]:
    """(closed, violated) among photos all three of whose pairs were asked; a pair's ids are ascending."""
    later: defaultdict[str, set[str]] = defaultdict(set)
    for a, b in yes:
        later[a].add(b)
    closed = violated = 0
    for a, b in yes:
        for c in later[a] & later.get(b, set()):
            agree = yes[a, b] + yes[b, c] + yes[a, c]
            closed += agree == 3
            violated += agree == 2
    return closed, violated


def _together(outfit: dict[str, str | None], a: str, b: str) -> bool:
    return outfit[a] is not None and outfit[a] == outfit[b]


def _with_a_no(
    identity: str, outfit: dict[str, str | None], yes: dict[tuple[str, str], bool]
) -> list[dict[str, Any]]:
    asked: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for (a, b), same in yes.items():
        letter = outfit[a]
        if letter is not None and letter == outfit[b]:
            asked[letter] += 1
            refused[letter] += not same
    members = Counter(outfit.values())
    return [
        {"identity": identity, "outfit": letter, "photos": members[letter], "no": no, "asked": asked[letter]}
        for letter, no in sorted(refused.items())
        if no
    ]


def _drawn(pairs: list[dict[str, Any]], count: int, random: np.random.Generator) -> list[dict[str, Any]]:
    ordered = sorted(pairs, key=lambda pair: (pair["a"], pair["b"]))
    return [ordered[place] for place in sorted(random.permutation(len(ordered))[:count].tolist())]
