"""How figures and tables look: one palette, one theme, a caption and an alternative text with every figure.

Figures are plain `matplotlib.figure.Figure` objects (no pyplot, so they can be made in any thread). A
`Picture` shows itself
as an SVG image with its caption, in JupyterLab and in the exported pages alike; nothing is loaded from
elsewhere.
"""

from __future__ import annotations

import base64
import html
import io
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, LogFormatterMathtext

from amarl_core.files import write_whole

P = ParamSpec("P")
Shown = TypeVar("Shown")

# Blue and ochre differ in hue and in lightness, so they hold for colour-blind readers and in grey print.
METHOD_COLORS = {"sarl": "#c98a12", "amarl": "#0b5c8a"}
METHOD_MARKERS = {"sarl": "s", "amarl": "o"}
METHOD_NAMES = {"sarl": "SARL", "amarl": "AMARL"}
REFERENCE_COLORS = ("#6f6f6f", "#a3a3a3")
# Dead ends are reds, conflicts violets, the rest grey; darker is the more frequent kind in the paper.
CAUSE_COLORS = {
    "dead_end_compute": "#8c2d3f",
    "dead_end_bandwidth": "#d2626a",
    "dead_end_latency": "#eda79f",
    "dead_end_loop": "#f6d6cf",
    "dead_end_slots": "#4d1320",
    "hop_limit": "#9a9a9a",
    "refused": "#c9bd9b",
    "conflict_link": "#4b3f8f",
    "conflict_node": "#a79fd9",
}
CAUSE_NAMES = {
    "dead_end_compute": "dead end: compute",
    "dead_end_bandwidth": "dead end: bandwidth",
    "dead_end_latency": "dead end: latency",
    "dead_end_loop": "dead end: loop",
    "dead_end_slots": "dead end: slots",
    "hop_limit": "hop limit",
    "refused": "refused",
    "conflict_link": "conflict: link",
    "conflict_node": "conflict: node",
}
SERVICE_NAMES = {
    "augmented_reality": "AR",
    "cloud_gaming": "Cloud gaming",
    "industry_4_0": "Industry 4.0",
    "massive_iot": "Massive IoT",
    "video_streaming": "Video",
    "voip": "VoIP",
}
AGENT_COLORS = ("#0b5c8a", "#d55e00", "#009e73", "#cc79a7", "#8c6d1f", "#56b4e9", "#6b4e9b", "#333333")
THEME = {
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8a8a",
    "axes.labelcolor": "#333333",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.7,
    "svg.hashsalt": "amarl",
    "text.parse_math": False,  # names come from data: a dollar sign is a dollar sign
}
WIDE_IN, NARROW_IN = 7.4, 4.5
_is_narrow: ContextVar[bool] = ContextVar("is_narrow", default=False)


def drawing(draw: Callable[P, Picture]) -> Callable[P, Picture]:
    """Decorate a function that draws: in the workbook's theme, and once more for a narrow screen."""

    @wraps(draw)
    def draw_both(*args: P.args, **kwargs: P.kwargs) -> Picture:
        with matplotlib.rc_context(THEME):
            picture = draw(*args, **kwargs)
            token = _is_narrow.set(True)
            try:
                return replace(picture, narrow=draw(*args, **kwargs).figure)
            finally:
                _is_narrow.reset(token)

    return draw_both


def service_name(service: str) -> str:
    """Short name of a service for an axis; a service of another scenario keeps its id, in words."""
    return SERVICE_NAMES.get(service, service.replace("_", " "))


def method_name(method: str) -> str:
    """Name of a method as in the paper; a rule keeps its own, in words."""
    return METHOD_NAMES.get(method, method.replace("_", " "))


@dataclass(frozen=True)
class Picture:
    """A figure with what a reader needs beside it.

    Attributes:
        figure: the drawing, whose title states the finding.
        caption: one line: what is drawn, how many seeds and days, what the band is.
        alt: the finding and the main numbers, for those who cannot see the figure.
        narrow: the same drawing for a phone, its panels below each other.
    """

    figure: Figure
    caption: str
    alt: str
    narrow: Figure | None = None

    def save(self, path: Path) -> None:
        """Write the drawing as .svg or .png, as the suffix says; the same figure gives the same bytes."""
        write_whole(path, lambda file: file.write(render(self.figure, path.suffix[1:])))

    def _repr_html_(self) -> str:
        source = f'<source media="(max-width: 620px)" srcset="{_data(self.narrow)}">' if self.narrow else ""
        return (
            f'<figure class="picture"><picture>{source}<img src="{_data(self.figure)}" '
            f'alt="{html.escape(self.alt, quote=True)}"></picture>'
            f"<figcaption>{prose(self.caption)}</figcaption></figure>"
        )


def render(figure: Figure, kind: str) -> bytes:
    """Render a figure as "svg" (letters as outlines, so that it looks the same everywhere) or "png"."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(THEME):
        figure.savefig(buffer, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def _data(figure: Figure) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(render(figure, 'svg')).decode()}"


def new_figure(
    columns: int = 1, height_in: float = 3.0, share_y: bool = False, widths: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """Make a figure of the workbook's width with some panels side by side, or below each other if narrow."""
    if _is_narrow.get():
        figure = Figure(figsize=(NARROW_IN, height_in * (1 + 0.8 * (columns - 1))), layout="constrained")
        return figure, list(figure.subplots(columns, 1, squeeze=False, sharey=share_y)[:, 0])
    figure = Figure(figsize=(WIDE_IN, height_in), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False, sharey=share_y, width_ratios=widths)[0])


def legend_below(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """Set the legend of some axes below the whole figure."""
    handles, labels = axes.get_legend_handles_labels()
    columns = min(columns, 2) if _is_narrow.get() else columns
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.2, handlelength=1.4)


def finish(figure: Figure, finding: str, caption: str, alt: str = "") -> Picture:
    """Set the finding as the title, flush left, and join caption and alternative text to the figure."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatterMathtext):  # its labels are mathematics
                axis.set_major_formatter(LogFormatter(labelOnlyBase=True))
    title = textwrap.fill(finding, 46 if _is_narrow.get() else 78)
    figure.suptitle(title, x=0.008, ha="left", fontweight="bold", color="#222222")
    return Picture(figure, caption, f"{finding}. {alt or caption}")


@dataclass(frozen=True)
class Table:
    """A table with its caption; text to the left, numbers to the right."""

    frame: pd.DataFrame
    caption: str = ""
    text_columns: tuple[str, ...] = ()
    ours: tuple[int, ...] = ()  # rows to set off from the others

    def _repr_html_(self) -> str:
        text = {self.frame.columns[0], *self.text_columns}
        head = "".join(_cell("th", column, column in text) for column in self.frame.columns)
        mark = ' class="ours"'
        rows = "".join(
            f"<tr{mark if number in self.ours else ''}>"
            + "".join(_cell("td", value, column in text) for column, value in row.items())
            + "</tr>"
            for number, row in enumerate(self.frame.astype(object).to_dict("records"))
        )
        caption = (
            f'<caption style="caption-side: bottom; text-align: left">{prose(self.caption)}</caption>'
            if self.caption
            else ""
        )
        kind = "figures dense" if len(self.frame.columns) > MANY_COLUMNS else "figures"
        return (
            f'<div class="scroll"><table class="{kind}">{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )

    def markdown(self) -> str:
        """The same as a Markdown table, for a README."""
        text = {self.frame.columns[0], *self.text_columns}
        lines = [list(self.frame.columns), [":--" if c in text else "--:" for c in self.frame.columns]]
        lines += [[str(value).replace("|", "\\|") for value in row] for row in self.frame.itertuples(index=False)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(tag: str, value: object, is_text: bool) -> str:
    mark = {"met": ' class="met"', "not met": ' class="unmet"'}.get(str(value), "")
    style = ' class="text" style="text-align: left"' if is_text and not mark else mark
    return f"<{tag}{style}>{html.escape(str(value))}</{tag}>"


MANY_COLUMNS = 7
"""A table with more of them is set smaller on a page."""


def prose(text: str) -> str:
    """Write a sentence as HTML: nothing in it is markup but `code` between backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def with_interval(mean: float, low: float, high: float, digits: int = 2) -> str:
    """Write a mean with its interval, if it has one: `98.48 [98.31, 98.62]`."""
    if low != low:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def clock(seconds: float) -> str:
    """Write seconds as h:mm:ss, or as seconds when short."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def listing(items: Iterable[str]) -> str:
    """Join words as in a sentence: `a, b and c`."""
    words = list(items)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


def signed(mean: float, low: float, high: float, digits: int = 2, unit: str = "") -> str:
    """Write a difference with its interval, if it has one: `+0.03 points [+0.01, +0.06]`."""
    between = "" if low != low else f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"{mean:+.{digits}f}{unit}{between}"


@dataclass(frozen=True)
class Answer:
    """The answer to a notebook's question, computed from the records, in a box of its own."""

    text: str

    def _repr_html_(self) -> str:
        return f'<div class="answer"><p><strong>Answer.</strong> {prose(self.text)}</p></div>'


@dataclass(frozen=True)
class Note:
    """A line in place of something that is not there yet, and how to get it."""

    text: str

    def _repr_html_(self) -> str:
        return f'<p class="note">{prose(self.text)}</p>'


def or_note(show: Callable[[pd.DataFrame], Shown]) -> Callable[[pd.DataFrame], Shown | Note]:
    """Decorate a function of one frame: without rows it gives the note that the frame carries as attribute `note`."""

    @wraps(show)
    def show_or_say(frame: pd.DataFrame) -> Shown | Note:
        return Note(frame.attrs.get("note", "Not measured in this study.")) if frame.empty else show(frame)

    return show_or_say
