"""The reliability plot of a calibration, as SVG: what was said against what was found."""

from collections.abc import Sequence
from html import escape

_SIDE, _LEFT, _TOP, _BELOW = 320, 56, 40, 84


def reliability_svg(bins: Sequence[dict[str, float]], title: str) -> str:
    """One point a bin, its area by its pairs, and the diagonal on which a calibrated judge lies."""
    most = max((b["pairs"] for b in bins), default=1)
    points = "".join(
        f'<circle cx="{_x(b["said"]):.1f}" cy="{_y(b["found"]):.1f}" '
        f'r="{3 + 9 * (b["pairs"] / most) ** 0.5:.1f}" fill="#2f6fb0" fill-opacity=".7">'
        f"<title>said {b['said']:.3f}, found {b['found']:.3f}, {b['pairs']} pairs</title></circle>"
        for b in bins
    )
    line = " ".join(f"{_x(b['said']):.1f},{_y(b['found']):.1f}" for b in bins)
    ticks = "".join(
        f'<text x="{_x(v):.0f}" y="{_TOP + _SIDE + 18}" text-anchor="middle">{v:g}</text>'
        f'<text x="{_LEFT - 8}" y="{_y(v) + 4:.0f}" text-anchor="end">{v:g}</text>'
        for v in (0, 0.25, 0.5, 0.75, 1)
    )
    width, height = _LEFT + _SIDE + 24, _TOP + _SIDE + _BELOW - 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="12" fill="#333">'
        f'<rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{_LEFT}" y="24" font-size="13" font-weight="600">{escape(title)}</text>'
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#bbb"/>'
        f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="#bbb" stroke-dasharray="4 4"/>'
        f'<polyline points="{line}" fill="none" stroke="#2f6fb0"/>{points}{ticks}'
        f'<text x="{_LEFT + _SIDE / 2}" y="{_TOP + _SIDE + 40}" text-anchor="middle">'
        "probability of the same clothes, as said</text>"
        f'<text transform="translate(14 {_TOP + _SIDE / 2}) rotate(-90)" text-anchor="middle">'
        "share found the same</text></svg>\n"
    )


def _x(value: float) -> float:
    return _LEFT + _SIDE * value


def _y(value: float) -> float:
    return _TOP + _SIDE * (1 - value)
