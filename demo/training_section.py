"""The page's section on the demo's training: what it did in its time, the loss as a curve, and pictures."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from demo.training.short_run import ShortRun

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
