"""The live curves of a training as one small PNG, quick to draw again.

Drawing axes, titles and ticks takes matplotlib 50 to 100 ms, drawing lines a few. So all that is not a line is kept as
an image and drawn again only when the limits of some panel change, which they do in round steps.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from amarl_core.look import THEME
from amarl_core.watch import Measures

PANELS = {
    "gos": "grade of service (%)",
    "reward": "reward of a request",
    "steps_per_s": "thousand steps/s",
    "conflicts": "conflicts (% of requests)",
    "staleness": "staleness (versions)",
    "lag": "lag behind the fastest (min)",
}
SCALE = {"steps_per_s": 1e-3}
TOP = {"gos": 100.0}
LEAST_FILL, ROOM = 0.4, 0.25
"""Of a panel that is not drawn again: the share of it that the lines fill. Of one that is: the room they have."""

SIZE_IN, DPI = (7.6, 3.9), 110
COLORS_KEPT = 64
"""Of the palette of the PNG: a third of the bytes, and no difference to the eye."""


class Curves:
    """Six panels, a line an agent.

    Args:
        colors: of the agents, in their order.
    """

    def __init__(self, colors: Sequence[str]):
        with matplotlib.rc_context(THEME):
            self._figure = Figure(figsize=SIZE_IN, dpi=DPI)
            self._canvas = FigureCanvasAgg(self._figure)
            self._figure.subplots_adjust(0.055, 0.115, 0.982, 0.93, wspace=0.24, hspace=0.38)
            self._axes = dict(zip(PANELS, self._figure.subplots(2, 3, sharex=True).flat, strict=True))
            self._lines = {
                name: [axes.plot([], [], color=color, linewidth=1.5, animated=True)[0] for color in colors]
                for name, axes in self._axes.items()
            }
            for (name, title), axes in zip(PANELS.items(), self._axes.values(), strict=True):
                axes.set_title(title, loc="left", fontsize=9.5, color="#333333")
                if name in list(PANELS)[3:]:
                    axes.set_xlabel("wall-clock (s)")
        self._still = None  # everything but the lines
        self._limits: dict[str, tuple] = {}

    def png(self, curves: Measures) -> bytes:
        """Draw curves; return a PNG."""
        with matplotlib.rc_context(THEME):
            limits = {}
            wall = (0.0, float(curves.wall_s[-1]))
            for name, lines in self._lines.items():
                values = getattr(curves, name) * SCALE.get(name, 1.0)  # (T, A)
                for line, column in zip(lines, values.T, strict=True):
                    line.set_data(curves.wall_s, column)
                before = self._limits.get(name, (0.0, 0.0, 0.0, 0.0))
                limits[name] = (*limits_for(wall, before[:2]), *limits_for(span(values), before[2:], TOP.get(name)))
            if self._still is None or limits != self._limits:
                self._redraw(limits)
            self._canvas.restore_region(self._still)
            for name, axes in self._axes.items():
                for line in self._lines[name]:
                    axes.draw_artist(line)
        return self._encoded()

    def _redraw(self, limits: dict[str, tuple]) -> None:
        """Draw all that is not a line, and keep it."""
        for name, axes in self._axes.items():
            left, right, low, high = limits[name]
            axes.set(xlim=(left, right), ylim=(low, high))
        self._canvas.draw()
        self._still, self._limits = self._canvas.copy_from_bbox(self._figure.bbox), limits

    def _encoded(self) -> bytes:
        size = self._canvas.get_width_height()
        image = Image.frombuffer("RGBA", size, self._canvas.buffer_rgba(), "raw", "RGBA", 0, 1).convert("RGB")
        buffer = io.BytesIO()
        image.quantize(COLORS_KEPT, method=Image.Quantize.FASTOCTREE).save(buffer, "png", compress_level=3)
        return buffer.getvalue()


def span(values: np.ndarray) -> tuple[float, float]:
    """Return the least and the greatest finite value, and zero for one of them if it is not far."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    return (0.0 if 0 < low < 0.5 * high else low), high


def limits_for(ends: tuple[float, float], before: tuple[float, float], top: float | None = None) -> tuple[float, float]:
    """Return round limits around a range: those of before as long as they fit, else new ones with some room to grow.

    Args:
        ends: least and greatest value.
        before: limits so far.
        top: a limit that is never passed, with a little room for a line that runs along it.
    """
    low, high = ends
    fits = before[0] <= low and high <= before[1]
    if fits and high - low > LEAST_FILL * (before[1] - before[0]):
        return before
    if high - low < 1e-9:  # a line that does not move
        low, high = (low, low + 1.0) if top is None else (low - 1.0, high)
    ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high + ROOM * (high - low))
    least, most = float(ticks[0]), float(ticks[-1])
    return least, most if top is None else min(most, top + 0.02 * (top - least))
