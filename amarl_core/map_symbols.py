"""What a map is drawn with: symbols by tier, the colours of utilisation, the legend."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

import numpy as np

INK, NO_COMPUTE, UNKNOWN = "#3a4249", "#ffffff", "#aab2b9"
UTILISATION = ((0.0, "#c9d6df"), (0.3, "#dfb465"), (0.55, "#df7f3c"), (0.8, "#b0303c"), (1.0, "#4d0b2e"))
"""Colours of utilisation: the fuller, the darker, in grey print and for colour-blind readers as well."""
OVERLAYS = {"path": "taken", "allowed": "allowed", "pruned": "pruned by the mask"}
"""Kinds of links that are brought out, and what the legend says of them."""
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
    + "".join(
        f"{where}{{{inside}.am-title{{font-size:23px}}{inside}.am-label{{font-size:21px}}{inside}.am-small{{font-size:20px}}"
        f"{inside}.am-mark{{font-size:20px}}{inside}.am-wide{{display:none}}{inside}.am-slim{{display:inline}}}}"
        for where, inside in (("@media (max-width:620px)", ".amarl-map "), ("@media all", ".amarl-multi .amarl-map "))
    )
    + "</style>"
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


def legend_of_use(top: float) -> str:
    """Return the legend of the colours of utilisation."""
    colors = palette()[1::2]
    bar = "".join(
        f'<rect x="{24 + 4 * i}" y="{top + 6}" width="4.6" height="11" fill="{c}"/>' for i, c in enumerate(colors)
    )
    return (
        f'<g shape-rendering="crispEdges">{bar}</g><text class="am-small" x="238" y="{top + 16}">0 to 100 % in use'
        "<tspan class=\"am-wide\"> of a link's capacity or a node's compute budget</tspan></text>"
    )


def legend_of_overlays(kinds: Iterable[str], width: float, top: float) -> str:
    """Return the legend of the links that are brought out."""
    shown = [kind for kind in OVERLAYS if kind in set(kinds)]
    return "".join(
        f'<g class="am-{kind}"><path d="M{24 + i * width / 3.4:.1f} {top + 11.5}h34"/></g><text class="am-small" '
        f'x="{66 + i * width / 3.4:.1f}" y="{top + 16}">{OVERLAYS[kind]}</text>'
        for i, kind in enumerate(shown)
    )


def legend_of_tiers(tiers: Sequence[str], width: float, top: float) -> str:
    """Return the legend of the symbols, with the number of nodes of each tier; short words for a narrow screen."""
    kinds = [tier for tier in TIER_WORDS if tier in tiers] + sorted(set(tiers) - set(TIER_WORDS))
    counts = [sum(1 for other in tiers if other == tier) for tier in kinds]
    words = [f"{n} {tier_words(tier, n)}" for tier, n in zip(kinds, counts, strict=True)]
    short = [f"{n} {tier}" for tier, n in zip(kinds, counts, strict=True)]
    lengths = np.array([4.0 + len(word) for word in words])
    share = np.concatenate([[0.0], np.cumsum(lengths)[:-1]]) / lengths.sum()
    wide = _entries(kinds, words, 32 + (width - 40) * share, top)
    slim = _entries(kinds, short, 32 + (width - 40) / len(kinds) * np.arange(len(kinds)), top)
    return f'<g class="am-wide">{wide}</g><g class="am-slim">{slim}</g>'


def tier_words(tier: str, n: int) -> str:
    """Say what n nodes of a tier are; a tier of other networks keeps its name."""
    return TIER_WORDS.get(tier, tier) + ("s" if n != 1 and tier in TIER_WORDS else "")


def _entries(kinds: Sequence[str], texts: Sequence[str], starts: np.ndarray, top: float) -> str:
    return "".join(
        f'{symbol(tier, x, top + 42)} fill="{NO_COMPUTE}" stroke="{INK}"/>'
        f'<text class="am-small" x="{x + 14:.1f}" y="{top + 46.5}">{html.escape(text)}</text>'
        for tier, text, x in zip(kinds, texts, starts.tolist(), strict=True)
    )
