"""The network as a map: one self-contained SVG, drawn again in a few hundred microseconds.

    chart = NetworkMap(scenario)                    # projection, layout and all that stays: once
    chart.svg(link_share, node_share, title="16 h") # colours and figures: as often as needed

No tile server, no script, no font from elsewhere. Whatever a map shows it also says in words: `<title>` elements
give names and figures on hover, `aria-label` says what the whole is. Names come from data and are escaped.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amarl_core.errors import AmarlError, ScenarioError, problem
from amarl_core.files import inside
from amarl_core.map_layout import Frame, Label, circle, height_for, label_box, place_labels, project, spread
from amarl_core.map_symbols import (
    INK,
    NO_COMPUTE,
    OVERLAYS,
    SEGMENT_WIDTH,
    STYLE,
    legend_of_overlays,
    legend_of_tiers,
    legend_of_use,
    palette,
    symbol,
    symbol_radius,
)
from amarl_core.tables import Column, read_csv

OUTLINE_FILE = "outline.csv"
OUTLINE_COLUMNS = {
    "lat": Column("float", least=-90, most=90, unit="degrees"),
    "lon": Column("float", least=-180, most=180, unit="degrees"),
}
WIDTH, MARGIN, TITLE_HEIGHT, LEGEND_HEIGHT = 720, 30, 62, 64
"""Of the drawing, in its own pixels; a browser scales it to the room there is."""
LABEL_SIZES = (13.0, 21.0)
"""Font size of labels, and the one on a narrow screen, where the whole drawing is scaled down (see STYLE)."""
LABELLED_TIERS = ("core", "agg")
MOST_LABELS = 40
MOST_PERCENT = 100
LONGEST_LINE = 50


class NetworkMap:
    """A network drawn on a map; what never changes is prepared once.

    Args:
        scenario: a scenario, or whatever has its `network`, `budget_mcpu`, `rate_mcpu_per_gbps`, `function_ids`.
        width_px: width at which the map is shown at most; the drawing shrinks with the screen.

    Attributes:
        at: float64 [N, 2], where the nodes stand, in pixels of the drawing.
        has_outline: whether the land is drawn below.
    """

    def __init__(self, scenario: Any, *, width_px: int = WIDTH) -> None:
        self.scenario, self.width_px = scenario, width_px
        network = scenario.network
        outline = _read_outline(getattr(scenario, "folder", None))
        around = (
            np.concatenate([network.lat, outline[0]]) if outline else np.asarray(network.lat, float),
            np.concatenate([network.lon, outline[1]]) if outline else np.asarray(network.lon, float),
        )
        self._height = round(TITLE_HEIGHT + height_for(*around, WIDTH - 2 * MARGIN) + MARGIN + LEGEND_HEIGHT)
        frame = Frame(MARGIN, TITLE_HEIGHT, WIDTH - 2 * MARGIN, self._height - TITLE_HEIGHT - MARGIN - LEGEND_HEIGHT)
        radius = np.array([symbol_radius(tier) for tier in network.tier])
        degree = np.bincount(network.source, minlength=network.n_nodes)
        has_places = np.ptp(network.lat) > 0 or np.ptp(network.lon) > 0
        place = project(network.lat, network.lon, around, frame) if has_places else circle(network.n_nodes, frame)
        self.at = spread(place, radius, degree, frame)
        shore = project(*outline, around, frame) if outline else np.empty((0, 2))
        self._below = _shore(shore)
        self.has_outline = bool(self._below)
        self._order = sorted(range(network.n_links), key=lambda e: _rank(network, e))  # the core on top
        self._links = [self._link(e, radius) for e in self._order]
        self._nodes = [self._node(v) for v in range(network.n_nodes)]
        self._has_compute = [bool(budget > 0) for budget in scenario.budget_mcpu]
        self._radius = radius
        self._room = Frame(4, frame.top - 8, WIDTH - 8, frame.height + MARGIN)
        self._named = self._names(degree)
        self._labels = place_labels(self._named, self.at, radius, self._room, LABEL_SIZES)
        self._legend_top = self._height - LEGEND_HEIGHT
        self._above = _label_texts(self._labels, self._named, "am-label")
        self._tiers = legend_of_tiers(network.tier, WIDTH, self._legend_top)
        self._use = legend_of_use(self._legend_top)
        self._colors = palette()

    def svg(
        self,
        link_share: np.ndarray | None = None,
        node_share: np.ndarray | None = None,
        *,
        title: str = "",
        overlay: Mapping[int, str] | None = None,
        marks: Mapping[int, str] | None = None,
    ) -> str:
        """Draw the map.

        Args:
            link_share: float [E], used share of each link's capacity, 1 for full; without it links are plain.
            node_share: float [N], used share of each node's compute budget; nodes without compute stay white.
            title: stands above the map and is read to those who cannot see it.
            overlay: links to bring out, by index: "path", "allowed" or "pruned"; all others fade.
            marks: short texts beside nodes, by index, such as the functions that run there.

        Returns:
            One `<svg>` element as text.

        Raises:
            AmarlError: a share of another length than the network's, or an unknown kind of overlay.
        """
        network = self.scenario.network
        links = _steps("link_share", link_share, network.n_links)
        nodes = _steps("node_share", node_share, network.n_nodes)
        unknown = set((overlay or {}).values()) - set(OVERLAYS)
        if unknown:
            raise AmarlError(f"overlay is {sorted(unknown)[0]!r}; expected one of {', '.join(OVERLAYS)}")
        fade = ' class="am-fade"' if overlay else ""
        parts = [self._open(title, link_share), self._below, f"<g{fade}>"]
        for fixed, e in zip(self._links, self._order, strict=True):
            step, figure = links[e]
            parts += (fixed[0], figure, fixed[1], self._colors[step], fixed[2])
        parts.append("</g>")
        parts += [self._over(e, kind) for e, kind in (overlay or {}).items()]
        for fixed, (step, figure), has_compute in zip(self._nodes, nodes, self._has_compute, strict=True):
            if has_compute:
                parts += (fixed[0], figure, fixed[1], self._colors[step], fixed[2])
            else:
                parts += (fixed[0], fixed[1], NO_COMPUTE, fixed[2])
        first = legend_of_overlays((overlay or {}).values(), WIDTH, self._legend_top)
        if link_share is not None or node_share is not None:
            first = self._use
        parts += [self._above, self._marks(marks or {}), first, self._tiers, "</svg>"]
        return "".join(parts)

    def _marks(self, marks: Mapping[int, str]) -> str:
        """Return short texts beside nodes, clear of the names that are there already."""
        texts = dict(marks)
        taken = [label_box(label, self._named[label.node], size) for label in self._labels for size in LABEL_SIZES]
        labels = place_labels(texts, self.at, self._radius, self._room, LABEL_SIZES, around=taken) if texts else []
        return _label_texts(labels, texts, "am-mark")

    def _open(self, title: str, link_share: np.ndarray | None) -> str:
        """Return the beginning of the drawing, with all it says in words."""
        network = self.scenario.network
        what = title or f"Map of {self.scenario.name}"
        says = f"{what}. {network.n_nodes} nodes and {network.n_links} directed links of {self.scenario.name}."
        if link_share is not None and np.isfinite(link_share).any():
            fullest = int(np.nanargmax(link_share))
            says += (
                f" Links {100 * np.nanmean(link_share):.0f} % in use on average, fullest {network.link_ids[fullest]} "
                f"{100 * link_share[fullest]:.0f} %."
            )
        heading = "".join(
            f'<text class="am-title" x="{MARGIN - 14}" y="{26 + 26 * i}">{html.escape(line)}</text>'
            for i, line in enumerate(textwrap.wrap(title, LONGEST_LINE)[:3])
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="amarl-map" viewBox="0 0 {WIDTH} {self._height}" '
            f'role="img" aria-label="{html.escape(says, quote=True)}" '
            f'style="display:block;width:100%;max-width:{self.width_px}px;height:auto;background:#fff">'
            f"<desc>{html.escape(says)}</desc>{STYLE}{heading}"
        )

    def _link(self, e: int, radius: np.ndarray) -> tuple[str, str, str]:
        """Return the text of a link before its figure, before its colour and after it."""
        network = self.scenario.network
        width = SEGMENT_WIDTH[_rank(network, e)]
        line = self._line(e, radius, width)
        delay, gbps = float(network.delay_ms[e]), int(network.capacity_kbps[e]) / 1e6
        says = html.escape(f"{network.link_ids[e]}: {gbps:.4g} Gb/s, {delay:.3g} ms")
        return (
            f"<g><title>{says}",
            f'</title><path class="am-hit" d="{line}"/><path d="{line}" stroke-width="{width}" stroke="',
            '"/></g>',
        )

    def _line(self, e: int, radius: np.ndarray, width: float) -> str:
        """Return the path of a link, on the right-hand side of the middle, from symbol to symbol."""
        network = self.scenario.network
        a, b = self.at[network.source[e]], self.at[network.target[e]]
        along = (b - a) / max(float(np.hypot(*(b - a))), 1e-9)
        aside = np.array([-along[1], along[0]]) * (width / 2 + 0.35)
        start, end = (
            a + along * radius[network.source[e]] * 0.7 + aside,
            b - along * radius[network.target[e]] * 0.7 + aside,
        )
        return f"M{start[0]:.1f} {start[1]:.1f}L{end[0]:.1f} {end[1]:.1f}"

    def _node(self, v: int) -> tuple[str, str, str]:
        """Return the text of a node before its figure, before its colour and after it."""
        world = self.scenario
        network = world.network
        says = f"{network.node_ids[v]}, {network.name[v]} ({network.tier[v]})"
        hosted = [name for f, name in enumerate(world.function_ids) if world.rate_mcpu_per_gbps[v, f] >= 0]
        if world.budget_mcpu[v] > 0:
            says += f": {int(world.budget_mcpu[v]) / 1000:,.1f} cores usable, hosts {' '.join(hosted) or 'nothing'}"
        shape = symbol(network.tier[v], float(self.at[v, 0]), float(self.at[v, 1]))
        return f"<g><title>{html.escape(says)}", f'</title>{shape} fill="', f'" stroke="{INK}"/></g>'

    def _over(self, e: int, kind: str) -> str:
        """Draw a link once more, in the colour of its kind, with an arrow head."""
        network = self.scenario.network
        a, b = self.at[network.source[e]], self.at[network.target[e]]
        along = (b - a) / max(float(np.hypot(*(b - a))), 1e-9)
        aside = np.array([-along[1], along[0]])
        start, end = a + along * 6 + aside * 3.2, b - along * 9 + aside * 3.2
        left, right = end - along * 9 + aside * 5, end - along * 9 - aside * 5
        says = html.escape(f"{network.link_ids[e]}: {kind}")
        return (
            f'<g class="am-{kind}"><title>{says}</title><path d="M{start[0]:.1f} {start[1]:.1f}L{end[0]:.1f} '
            f'{end[1]:.1f}"/><path class="am-head" d="M{end[0]:.1f} {end[1]:.1f}L{left[0]:.1f} {left[1]:.1f}'
            f'L{right[0]:.1f} {right[1]:.1f}z"/></g>'
        )

    def _names(self, degree: np.ndarray) -> dict[int, str]:
        """Return the names that always stand on the map, the most important first; the others show on hover."""
        network = self.scenario.network
        named = [v for tier in LABELLED_TIERS for v in network.tier_nodes(tier).tolist()]
        if not named or len(named) > MOST_LABELS:
            named = sorted(named or range(network.n_nodes), key=lambda v: -degree[v])
        return {int(v): network.node_ids[v] for v in named[:MOST_LABELS]}


def _label_texts(labels: list[Label], texts: Mapping[int, str], css_class: str) -> str:
    return "".join(
        f'<text class="{css_class}" x="{label.x:.1f}" y="{label.y:.1f}" text-anchor="{label.anchor}" '
        f'dominant-baseline="central">{html.escape(texts[label.node])}</text>'
        for label in labels
    )


def network_svg(
    scenario: Any,
    link_share: np.ndarray | None = None,
    node_share: np.ndarray | None = None,
    *,
    title: str = "",
    width_px: int = WIDTH,
    overlay: Mapping[int, str] | None = None,
    marks: Mapping[int, str] | None = None,
) -> str:
    """Draw a scenario's network once; see `NetworkMap.svg`. Keep a `NetworkMap` to draw it often."""
    chart = NetworkMap(scenario, width_px=width_px)
    return chart.svg(link_share, node_share, title=title, overlay=overlay, marks=marks)


@dataclass(frozen=True)
class Drawing:
    """One or several SVG drawings with a caption, in JupyterLab and in exported pages alike.

    Attributes:
        svgs: the drawings; several stand side by side, or below each other on a phone.
        caption: what is drawn, from which records.
        alt: the finding and the main figures, for those who cannot see it.
        finding: the title above several drawings; a single one carries its own.
    """

    svgs: tuple[str, ...]
    caption: str
    alt: str
    finding: str = ""

    def _repr_html_(self) -> str:
        panels = "".join(f"<div>{svg}</div>" for svg in self.svgs)
        title = f"<p><strong>{html.escape(self.finding)}</strong></p>" if self.finding else ""
        small = ' class="amarl-multi"' if len(self.svgs) > 1 else ""  # panels are small: letters as on a phone
        columns = "1fr" if len(self.svgs) == 1 else "repeat(auto-fill,minmax(min(320px,100%),1fr))"
        return (
            f'<figure class="picture" role="group" aria-label="{html.escape(self.alt, quote=True)}">{title}'
            f'<div{small} style="display:grid;grid-template-columns:{columns};gap:.7rem">{panels}</div>'
            f"<figcaption>{html.escape(self.caption)}</figcaption></figure>"
        )


def _rank(network: Any, e: int) -> int:
    """Return 0 for a link at a stub or pool, 1 for one between routers, 2 for one at a core."""
    ends = {network.tier[network.source[e]], network.tier[network.target[e]]}
    return 2 if "core" in ends else 1 if not ends & {"du", "cu", "dc"} else 0


def _steps(name: str, share: np.ndarray | None, n: int) -> list[tuple[int, str]]:
    """Return of each share its step of the palette (0: not known) and its figure in words."""
    if share is None:
        return [(0, "")] * n
    share = np.asarray(share, float)
    if share.shape != (n,):
        raise AmarlError(problem(None, None, name, str(share.shape), f"an array of {n} shares"))
    known = np.isfinite(share)
    percent = np.where(known, share, 0.0) * MOST_PERCENT
    step = np.where(known, 1 + np.clip(np.rint(percent), 0, MOST_PERCENT).astype(int), 0)
    return [
        (s, f", {p:.1f} % in use" if k else "")
        for s, p, k in zip(step.tolist(), percent.tolist(), known.tolist(), strict=True)
    ]


def _read_outline(folder: Path | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Read the outline of the land beside a scenario, if it has one; it is for the eye only."""
    if folder is None or not (Path(folder) / OUTLINE_FILE).is_file():
        return None
    if not inside(folder, OUTLINE_FILE):
        expected = "a file inside the scenario's folder"
        raise ScenarioError(problem(None, None, OUTLINE_FILE, "a link out of it", expected, "Copy the file itself."))
    table = read_csv(Path(folder) / OUTLINE_FILE, OUTLINE_COLUMNS, ScenarioError)
    return table["lat"], table["lon"]


def _shore(points: np.ndarray) -> str:
    """Return a closed line through the middles of an outline's sides, rounded at its corners."""
    if len(points) < 3:
        return ""
    middle = (points + np.roll(points, -1, axis=0)) / 2
    curve = "".join(
        f"Q{x:.1f} {y:.1f} {mx:.1f} {my:.1f}"
        for (x, y), (mx, my) in zip(np.roll(points, -1, axis=0), np.roll(middle, -1, axis=0), strict=True)
    )
    return f'<path class="am-land" d="M{middle[0][0]:.1f} {middle[0][1]:.1f}{curve}z"/>'
