"""The page of an evaluation: one HTML file with all pictures in it, without script."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from shards.format.atomic_file import write_whole
from training.evaluation.cases import Case
from training.evaluation.results import Results
from training.evaluation.store import Store

_HEIGHT_PX = 256
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #62676e; --line: #d9dce0; --page: #fbfbfa; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e6; --soft: #a0a4aa; --line: #3a3d42;
  --page: #17181a; } }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
h2 { font-size: 1rem; margin: 2rem 0 .4rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem 1.2rem .3rem 0; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; } .soft { color: var(--soft); } .wide { overflow-x: auto; }
.row { display: flex; gap: .6rem; overflow-x: auto; padding-bottom: .4rem; }
figure { margin: 0; flex: none; width: min-content; }
figure img { height: 256px; display: block; border-radius: 4px; border: 1px solid var(--line); }
figcaption { font-size: .75rem; line-height: 1.35; color: var(--soft); min-width: 8rem; padding-top: .25rem; }
"""


def write_page(file: Path, results: Results, store: Store) -> None:
    """Scores with their intervals, then a row of pictures for each person, the reference first."""
    parts = ["<h1>Evaluation</h1>", _table(results), *_absent(results)]
    by_person: dict[str, list[int]] = {}
    for place, case in enumerate(results.cases):
        by_person.setdefault(case.person.key, []).append(place)
    for key, places in by_person.items():
        person = results.cases[places[0]].person
        figures = [_figure(person.cut(), "reference")]
        figures += [_case(results, place, store) for place in places]
        parts += [f"<h2>{escape(key)}</h2>", f'<div class="row">{"".join(figures)}</div>']
    body = "\n".join(parts)
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
    write_whole(str(file), text.encode())


def _table(results: Results) -> str:
    rows = []
    for one in results.measured():
        if one.interval is None:
            rows.append(f'<tr><td>{escape(one.says)}</td><td colspan="5">no picture has an answer</td></tr>')
            continue
        found = one.interval
        numbers = (f"{found.mean:.4f}", f"{found.low:.4f} to {found.high:.4f}", found.people, found.pictures)
        cells = "".join(f'<td class="n">{value}</td>' for value in (*numbers, one.unanswered))
        rows.append(f"<tr><td>{escape(one.says)}</td>{cells}</tr>")
    names = ("mean", "95 % (people resampled)", "people", "pictures", "without an answer")
    head = "<th>score</th>" + "".join(f'<th class="n">{name}</th>' for name in names)
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _absent(results: Results) -> Sequence[str]:
    return [
        f'<p class="soft">Not scored: <b>{escape(name)}</b>: {escape(why)}.</p>'
        for name, why in results.absent.items()
    ]


def _case(results: Results, place: int, store: Store) -> str:
    case: Case = results.cases[place]
    scores = ((name, found[place]) for name, found in results.scores.items())
    told = "; ".join(f"{name} {'none' if score is None else f'{score:.2f}'}" for name, score in scores)
    return _figure(store.picture(case.name), f"{case.prompt} Seed {case.seed}. {told}")


def _figure(picture: np.ndarray, says: str) -> str:
    image = Image.fromarray(picture)
    width = max(round(image.width * _HEIGHT_PX / image.height), 1)
    sink = io.BytesIO()
    image.resize((width, _HEIGHT_PX), Image.Resampling.LANCZOS).save(sink, "JPEG", quality=85)
    url = "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()
    caption = escape(says, quote=True)
    return (
        f'<figure><img src="{url}" alt="{caption}" loading="lazy"><figcaption>{caption}</figcaption></figure>'
    )
