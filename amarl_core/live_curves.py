"""The live curves of a training as one SVG, drawn again in a few milliseconds.

matplotlib is left to the figures of the pages: drawing six panels with it takes 50 to 150 ms, which at once a second
would cost the agents more of a core than the view may take.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np

from amarl_core.watch import Measures

PANELS = {
    "gos": "grade of service (%)",
    "reward": "reward of a request",
    "steps_per_s": "steps/s, thousands",
    "conflicts": "conflicts (% of requests)",
    "staleness": "staleness (versions)",
    "lag": "lag (simulated min)",
}
SCALE = {"steps_per_s": 1e-3}
TOP = {"gos": 100.0}
"""What no value exceeds."""

COLUMNS, CELL, GAP = 3, (480, 440), 30
PLOT = (78, 56, 462, 384)
"""In units of the drawing, two to three a pixel: size of a cell and the room between cells; left, top, right
and bottom of the plot in a cell."""

N_STEPS = 4
STYLE = (
    "<style>.amarl-curves text{font-family:system-ui,-apple-system,'Segoe UI',Arial,'Liberation Sans',sans-serif;"
    "font-size:27px;fill:#5c6670;font-variant-numeric:tabular-nums}.amarl-curves .name{font-size:30px;fill:#2b3238}"
    ".amarl-curves .grid{stroke:#e3e5e7;stroke-width:1.5}.amarl-curves .axis{fill:none;stroke:#8a8a8a;stroke-width:2}"
    ".amarl-curves polyline{fill:none;stroke-width:3.8;stroke-linejoin:round}</style>"
)


def curves_svg(curves: Measures, colors: Sequence[str]) -> str:
    """Draw six panels, a line an agent.

    Args:
        curves: measures over time.
        colors: of the agents, in their order.

    Returns:
        One `<svg>` element.
    """
    rows = math.ceil(len(PANELS) / COLUMNS)
    width, height = COLUMNS * CELL[0] + (COLUMNS - 1) * GAP, rows * CELL[1] + GAP
    says = f"Curves of {len(colors)} agents over {curves.wall_s[-1]:.0f} seconds: {', '.join(PANELS.values())}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="amarl-curves" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{html.escape(says, quote=True)}" style="display:block;width:100%;height:auto;background:#fff">',
        STYLE,
    ]
    for place, (name, title) in enumerate(PANELS.items()):
        row, column = divmod(place, COLUMNS)
        values = getattr(curves, name) * SCALE.get(name, 1.0)  # (T, A)
        parts.append(f'<g transform="translate({column * (CELL[0] + GAP)} {row * CELL[1]})">')
        parts += _panel(title, curves.wall_s, values, colors, TOP.get(name), row == rows - 1)
        parts.append("</g>")
    parts.append("</svg>")
    return "".join(parts)


def _panel(
    title: str, wall_s: np.ndarray, values: np.ndarray, colors: Sequence[str], top: float | None, is_last: bool
) -> list[str]:
    """Draw one panel: name, grid, ticks, lines; the time below those of the last row."""
    left, upper, right, lower = PLOT
    ticks = round_ticks(*span(values))
    low, high = ticks[0], ticks[-1] if top is None else min(ticks[-1], top)
    x = left + (wall_s / max(wall_s[-1], 1e-9)) * (right - left)
    y = lower - (values - low) / (high - low) * (lower - upper)
    parts = [f'<text class="name" x="{left}" y="{upper - 20}">{html.escape(title)}</text>']
    for tick in ticks:
        if tick <= high:
            at = lower - (tick - low) / (high - low) * (lower - upper)
            parts.append(f'<path class="grid" d="M{left} {at:.0f}H{right}"/>')
            parts.append(f'<text x="{left - 10}" y="{at + 9:.0f}" text-anchor="end">{tick:,.5g}</text>')
    parts.append(f'<path class="axis" d="M{left} {upper}V{lower}H{right}"/>')
    if is_last:
        end = float(wall_s[-1])
        for tick in (tick for tick in round_ticks(0.0, end) if 0 <= tick <= end):
            at = left + tick / max(end, 1e-9) * (right - left)
            parts.append(f'<text x="{at:.0f}" y="{lower + 33}" text-anchor="middle">{tick:,.5g}</text>')
        parts.append(f'<text x="{(left + right) / 2:.0f}" y="{lower + 66}" text-anchor="middle">wall-clock (s)</text>')
    for column, color in zip(y.T, colors, strict=True):
        parts += [f'<polyline stroke="{color}" points="{points}"/>' for points in _runs(x, column)]
    return parts


def _runs(x: np.ndarray, y: np.ndarray) -> list[str]:
    """Return the points of each stretch of a line without a gap."""
    known = np.isfinite(y)
    if not known.any():
        return []
    points = np.rint(np.column_stack([x, np.where(known, y, 0.0)])).astype(int)
    edges = np.flatnonzero(np.diff(known)) + 1
    return [" ".join(map(str, part.ravel().tolist())) for part, is_known in
            zip(np.split(points, edges), np.split(known, edges), strict=True) if is_known[0]]  # fmt: skip


def span(values: np.ndarray) -> tuple[float, float]:
    """Return the least and the greatest finite value, and zero for the least if it is not far."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    return (0.0 if 0 < low < 0.5 * high else low), high


def round_ticks(low: float, high: float) -> list[float]:
    """Return round numbers, equally far apart, from below the least to above the greatest value."""
    size = max(high - low, 1e-3, 1e-6 * abs(high))
    power = 10.0 ** math.floor(math.log10(size / N_STEPS))
    step = next(s * power for s in (1, 2, 2.5, 5, 10, 20) if s * power >= size / N_STEPS * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [step * i for i in range(first, max(last, first + 1) + 1)]
