"""What a map is drawn with: symbols by tier, the colours of utilisation, the legend."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

INK, NO_COMPUTE, UNKNOWN = "#3a4249", "#ffffff", "#aab2b9"
UTILISATION = ((0.0, "#c9d6df"), (0.3, "#dfb465"), (0.55, "#df7f3c"), (0.8, "#b0303c"), (1.0, "#4d0b2e"))
"""Colours of utilisation: the fuller, the darker, in grey print and for colour-blind readers as well."""
OVERLAYS = ("path", "allowed", "pruned")
SEGMENT_WIDTH = (1.5, 2.6, 3.6)
"""Widths of links at sites and pools, between routers, at a core."""
TIER_WORDS = {
    "du": "radio site",
    "agg": "aggregation router",
    "cu": "edge pool",
    "core": "core router",
    "dc": "data centre",
}
RADIUS = {"du": 4.6, "agg": 7.0, "cu": 7.0, "core": 9.0, "dc": 8.5}
OTHER_RADIUS = 6.0

STYLE = (
    "<style>"
    ".amarl-map path{fill:none}.amarl-map .am-hit{stroke:transparent;stroke-width:7}"
    ".amarl-map .am-fade{opacity:.3}"
    ".amarl-map .am-land{fill:#f4f3ee;stroke:#d8d5c9;stroke-width:1.2}"
    ".amarl-map .am-node{stroke-width:1.1}"
    ".amarl-map g:hover>.am-node{stroke-width:2.6}.amarl-map g:hover>path:not(.am-hit){stroke-width:5}"
    ".amarl-map text{font-family:system-ui,-apple-system,'Segoe UI',Arial,'Liberation Sans',sans-serif;fill:#2b3238}"
    ".amarl-map .am-title{font-size:17px;font-weight:650}"
    ".amarl-map .am-label{font-size:13px;font-weight:600;paint-order:stroke;stroke:#fff;stroke-width:3.5px;"
    "stroke-linejoin:round;pointer-events:none}"
    ".amarl-map .am-small{font-size:12.5px;fill:#5c6670}"
    ".amarl-map .am-mark{font-size:12.5px;font-weight:650;fill:#0b5c8a;paint-order:stroke;stroke:#fff;"
    "stroke-width:4px;stroke-linejoin:round;pointer-events:none}"
    ".amarl-map .am-path path{stroke:#0b5c8a;stroke-width:4.5}.amarl-map .am-path .am-head{fill:#0b5c8a;stroke:none}"
    ".amarl-map .am-allowed path{stroke:#1d8a5b;stroke-width:3.2}"
    ".amarl-map .am-allowed .am-head{fill:#1d8a5b;stroke:none}"
    ".amarl-map .am-pruned path{stroke:#b0303c;stroke-width:2.4;stroke-dasharray:4 4}"
    ".amarl-map .am-pruned .am-head{fill:#b0303c;stroke:none}"
    ".amarl-map .am-slim{display:none}"
    "@media (max-width:620px){.amarl-map .am-title{font-size:25px}.amarl-map .am-label{font-size:21px}"
    ".amarl-map .am-small{font-size:20px}.amarl-map .am-mark{font-size:20px}.amarl-map .am-wide{display:none}"
    ".amarl-map .am-slim{display:inline}}"
    "</style>"
)


def palette() -> list[str]:
    """Return the colours of 0 to 100 % at places 1 to 101; place 0 is for a share that is not known."""
    stops = np.array([share for share, _ in UTILISATION])
    channels = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for _, color in UTILISATION])
    percent = np.arange(101) / 100
    mixed = np.column_stack([np.interp(percent, stops, channels[:, c]) for c in range(3)])
    return [UNKNOWN] + ["#" + "".join(f"{round(value):02x}" for value in row) for row in mixed]


def symbol_radius(tier: str) -> float:
    """Return how far a tier's symbol reaches from its middle, in pixels."""
    return RADIUS.get(tier, OTHER_RADIUS)


def symbol(tier: str, x: float, y: float) -> str:
    """Return an open SVG element, to be given a fill: each tier has a shape of its own."""
    r = symbol_radius(tier)
    if tier == "agg":
        side = 0.82 * r
        size = f'width="{2 * side:.1f}" height="{2 * side:.1f}"'
        return f'<rect class="am-node" x="{x - side:.1f}" y="{y - side:.1f}" {size} rx="2.5"'
    corners = {"cu": (6, 0.0), "core": (4, 0.0), "dc": (4, 45.0)}.get(tier)
    if corners is None:
        return f'<circle class="am-node" cx="{x:.1f}" cy="{y:.1f}" r="{r}"'
    n, turn = corners
    angles = np.radians(turn + np.arange(n) * 360 / n)
    points = " ".join(f"{x + r * np.cos(a):.1f},{y + r * np.sin(a):.1f}" for a in angles)
    return f'<polygon class="am-node" points="{points}"'


def legend(tiers: Sequence[str], width: float, top: float) -> str:
    """Return the legend: the colours of utilisation, and below it the symbols of the tiers with their numbers."""
    colors = palette()[1:]
    bar = "".join(
        f'<rect x="{24 + i * 2.0:.1f}" y="{top + 6}" width="2.3" height="11" fill="{color}"/>'
        for i, color in enumerate(colors)
    )
    texts = [
        f'<text class="am-small" x="234" y="{top + 16}">0 to 100 % in use'
        "<tspan class=\"am-wide\"> of a link's capacity or a node's compute budget</tspan></text>"
    ]
    kinds = [tier for tier in TIER_WORDS if tier in tiers] + sorted(set(tiers) - set(TIER_WORDS))
    lengths = np.array([6.0 + len(TIER_WORDS.get(tier, tier)) for tier in kinds])
    starts = 32 + (width - 40) * np.concatenate([[0.0], np.cumsum(lengths)[:-1]]) / max(lengths.sum(), 1)
    for x, tier in zip(starts.tolist(), kinds, strict=True):
        count = sum(1 for other in tiers if other == tier)
        words = html.escape(TIER_WORDS.get(tier, tier)) + ("s" if count > 1 and tier in TIER_WORDS else "")
        texts.append(
            f'{symbol(tier, x, top + 42)} fill="{NO_COMPUTE}" stroke="{INK}"/>'
            f'<text class="am-small" x="{x + 14:.1f}" y="{top + 46.5}">{count} '
            f'<tspan class="am-wide">{words}</tspan><tspan class="am-slim">{html.escape(tier)}</tspan></text>'
        )
    return f"<g>{bar}{''.join(texts)}</g>"


def marks_above(marks: Mapping[int, str], at: np.ndarray, width: float) -> str:
    """Return short texts above their nodes, turned inwards near the sides."""
    parts = []
    for v, text in marks.items():
        x, y = float(at[v, 0]), float(at[v, 1])
        anchor = "start" if x < 0.2 * width else "end" if x > 0.8 * width else "middle"
        parts.append(
            f'<text class="am-mark" x="{x:.1f}" y="{y - 13:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
        )
    return "".join(parts)
