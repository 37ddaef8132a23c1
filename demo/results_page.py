"""The page of results: one static HTML file, without script and without anything from elsewhere."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from curation.evaluation.evaluate import reached, value_text
from curation.evaluation.truth import Measure
from demo.gallery import Shown
from demo.training.short_run import ShortRun

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #62676e; --line: #d9dce0; --page: #fbfbfa;
  --good: #17703a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e6; --soft: #a0a4aa; --line: #3a3d42;
  --page: #17181a; --good: #6fcf8f; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 68rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: .95rem; font-weight: 600; margin: 1.25rem 0 .4rem; overflow-wrap: anywhere; }
p { margin: .25rem 0; max-width: 46rem; } .soft { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; color: var(--soft); } td.n, th.n { text-align: right; white-space: nowrap; }
.fixed td:first-child { min-width: 11rem; }
@media (max-width: 40rem) { .fixed .spare { display: none; } td, th { padding-right: .6rem; } }
.good { color: var(--good); } .bad { color: var(--bad); }
.row { display: flex; gap: .6rem; overflow-x: auto; padding-bottom: .4rem; }
figure { margin: 0; flex: none; width: min-content; }
figure img, .none { height: 176px; border-radius: 4px; display: block; border: 1px solid var(--line); }
.none { width: 132px; display: grid; place-items: center; color: var(--soft); font-size: .8rem; }
svg { display: block; width: 100%; max-width: 46rem; height: auto; color: var(--soft); }
svg .all { stroke: var(--line); } svg .mean { stroke: var(--ink); } svg .held { fill: var(--bad); }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.grid { max-width: 100%; border-radius: 4px; }
figcaption { font-size: .75rem; line-height: 1.35; color: var(--soft); min-width: 7rem;
  padding-top: .25rem; }
"""


def write_page(
    file: Path,
    title: str,
    about: Sequence[str],
    measures: Sequence[Measure],
    targets: Mapping[str, float],
    status: Mapping[str, Any],
    groups: Sequence[Shown],
    out: Sequence[Shown],
    trained: ShortRun | None = None,
) -> None:
    """Writes the page. `status` is what `persona status --json` says; `about` are lines of text."""
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="soft">{escape(line)}</p>' for line in about),
        "<h2>Against the truth</h2>",
        _measures(measures, targets),
        "<h2>Where photos and people went</h2>",
        _funnel(status),
        f"<h2>Groups in the shards ({status['groups']})</h2>",
        "<p>One person in one outfit, as the shards hold them: the largest groups.</p>",
        *(_shown(row, "photos") for row in groups),
        *(training_section(trained) if trained is not None else []),
        "<h2>Ruled out</h2>",
        "<p>By stage and reason; the number is how many. A few of each.</p>",
        *(_shown(row, "") for row in out),
    ]
    body = "\n".join(parts)
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _measures(measures: Sequence[Measure], targets: Mapping[str, float]) -> str:
    rows = []
    for measure in measures:
        target = targets.get(measure.key)
        mark = ""
        if target is not None:
            good = reached(measure, target)
            mark = f'<span class="{"good" if good else "bad"}">{target:g} {"✓" if good else "✗"}</span>'
        count = "" if measure.count is None else str(measure.count)
        rows.append(
            f'<tr><td>{escape(measure.says)}</td><td class="n">{value_text(measure)}</td>'
            f'<td class="n">{mark}</td><td class="n soft spare">{count}</td>'
            f'<td class="soft spare"><code>{escape(measure.key)}</code></td></tr>'
        )
    head = (
        '<th>measure</th><th class="n">value</th><th class="n">at least</th><th class="n">of</th><th>key</th>'
    )
    return _table(head, rows)


def _funnel(status: Mapping[str, Any]) -> str:
    rows = []
    for stage in status["stages"]:
        reasons = ", ".join(f"{name} {number}" for name, number in stage["reasons"].items())
        numbers = "".join(
            f'<td class="n">{stage[name]}</td>' for name in ("in", "kept", "rejected", "failed")
        )
        rows.append(
            f"<tr><td>{escape(stage['phase'])}</td><td>{escape(stage['stage'])}</td>"
            f'<td class="soft">{escape(stage["unit"])}</td>{numbers}'
            f'<td class="soft">{escape(reasons)}</td></tr>'
        )
    numbers = "".join(f'<th class="n">{name}</th>' for name in ("in", "kept", "rejected", "failed"))
    return _table(f"<th>phase</th><th>stage</th><th>unit</th>{numbers}<th>reasons</th>", rows)


def _table(head: str, rows: Sequence[str]) -> str:
    return f'<div class="wide"><table><tr>{head}</tr>\n' + "\n".join(rows) + "</table></div>"


def _shown(row: Shown, unit: str) -> str:
    figures = []
    for picture in row.pictures:
        image = '<div class="none">no picture</div>'
        if picture.url is not None:
            image = f'<img src="{picture.url}" alt="{escape(picture.says, quote=True)}" loading="lazy">'
        figures.append(f"<figure>{image}<figcaption>{escape(picture.says)}</figcaption></figure>")
    title = f'{escape(row.title)} <span class="soft">{row.count} {unit}</span>'
    return f'<h3>{title}</h3><div class="row">{"".join(figures)}</div>'


_WIDTH, _HEIGHT, _LEFT, _BELOW = 720, 220, 44, 26  # of the curve, and where its axes lie
_MEAN_OF = 20  # steps


def training_section(trained: ShortRun) -> list[str]:
    """HTML: a paragraph, the curve, the grid."""
    first, last = mean_of(trained.losses[:_MEAN_OF]), mean_of(trained.losses[-_MEAN_OF:])
    text = (
        f"The small configuration, trained on {trained.groups} groups for {trained.seconds:.0f} s: "
        f"{trained.steps} steps, {trained.samples_per_s:.1f} samples/s, {trained.data_wait:.1%} of the time "
        f"waiting for data. Loss over the first {_MEAN_OF} steps {first:.3f}, over the last {last:.3f}."
    )
    if trained.validation:
        text += f" On {trained.held_out} groups held out: {trained.validation[-1][1]:.3f}."
    grid = Path(trained.grid)
    url = "data:image/jpeg;base64," + base64.b64encode(grid.read_bytes()).decode()
    return [
        "<h2>Training</h2>",
        f"<p>{escape(text)} After so little, from a UNet that knew nothing, pictures are blobs of colour. "
        "<code>python -m demo.learns</code> trains on more people and measures whether the reference is "
        "used.</p>",
        _curve(trained.losses, trained.validation),
        "<h3>Held out: the reference, the target, and what the model makes of reference and caption</h3>",
        f'<img class="grid" src="{url}" alt="a row for each of some people held out" loading="lazy">',
    ]


def mean_of(values: Sequence[float]) -> float:
    """0 for none."""
    return sum(values) / max(len(values), 1)


def _curve(losses: Sequence[float], validation: Sequence[tuple[int, float]]) -> str:
    """Every step's loss, its running mean, and the loss on people held out as dots."""
    steps, top = max(len(losses), 1), max([*losses, *(loss for _, loss in validation), 1e-6])

    def at(step: int, loss: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - 4) * step / steps
        return f"{x:.1f},{4 + (_HEIGHT - _BELOW - 4) * (1 - loss / top):.1f}"

    every = " ".join(at(step + 1, loss) for step, loss in enumerate(losses))
    means = [
        at(step + 1, mean_of(losses[max(step + 1 - _MEAN_OF, 0) : step + 1])) for step in range(len(losses))
    ]
    dots = []
    for step, loss in validation:
        x, y = at(step, loss).split(",")
        dots.append(f'<circle class="held" cx="{x}" cy="{y}" r="3"/>')
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="loss over {steps} steps">'
        f'<polyline class="all" fill="none" points="{every}"/>'
        f'<polyline class="mean" fill="none" stroke-width="2" points="{" ".join(means)}"/>{"".join(dots)}'
        f'<text x="0" y="14">{top:.2f}</text><text x="0" y="{_HEIGHT - _BELOW}">0</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">step 1</text>'
        f'<text x="{_WIDTH - 4}" y="{_HEIGHT - 6}" text-anchor="end">{steps}; line: mean of '
        f"{_MEAN_OF} steps; dots: people held out</text></svg>"
    )
