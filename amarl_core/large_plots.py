"""What scale costs: a table and a figure of the radio-unit scenario, of a thousand nodes and of memory by requests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from amarl_core.look import (
    METHOD_COLORS,
    REFERENCE_COLORS,
    Answer,
    Note,
    Picture,
    Table,
    drawing,
    finish,
    method_name,
    new_figure,
)
from amarl_core.records import METHODS
from amarl_core.runs import read_frame
from amarl_core.scale import COMMANDS, RECORDS

TAKES = {"radio": "takes about two minutes", "million": "takes about half an hour"}


def load_scale(folder: Path, part: str = "radio") -> pd.DataFrame | None:
    """Read the rows of a part of the scale study, None if it was not run; see `scale.measure` for the columns."""
    place = folder / RECORDS[part]
    return read_frame(place) if place.exists() else None


def load_chunks(folder: Path, part: str) -> pd.DataFrame:
    """Read the rows of the chunks of a part: requests, ledger_rows, active, wall_s, peak_rss_mb, method, run."""
    return read_frame(folder / RECORDS[part].replace(".parquet", "_chunks.parquet"))


def _missing(folder: Path, part: str) -> str:
    return f"`{COMMANDS[part]} --study {folder.name}` {TAKES[part]}."


def scale_table(folder: Path) -> Table | Note:
    """Show time, memory, GoS and audit by network and method, or how to measure them."""
    radio, region = load_scale(folder), load_scale(folder, "million")
    if radio is None:
        return Note(f"Not measured in this study yet: {_missing(folder, 'radio')}")
    rows = pd.concat([radio[radio["part"] == "day"], *([] if region is None else [region])], ignore_index=True)
    best = rows[~rows["method"].isin(METHODS)].groupby("scenario")["gos"].max()
    frame = pd.DataFrame(
        {
            "network": [f"{row.scenario}: {row.nodes:,} nodes, {row.requests:,} requests" for row in rows.itertuples()],
            "by": [method_name(method) for method in rows["method"]],
            "GoS, %": [f"{gos:.2f}" for gos in rows["gos"]],
            "minus best rule": [
                f"{row.gos - best[row.scenario]:+.2f}" if row.method in METHODS else "" for row in rows.itertuples()
            ],
            "training, s": [f"{s:.0f}" if s > 0 else "" for s in rows.get("train_s", pd.Series(np.nan, rows.index))],
            "test, s": [f"{s:.1f}" for s in rows["serve_s"]],
            "memory, MB": [f"{mb:.0f}" for mb in rows["peak_rss_mb"]],
            "violations": [f"{int(n)}" for n in rows["violations"]],
        }
    )
    later = "" if region is not None else f" The thousand nodes are not there yet: {_missing(folder, 'million')}"
    caption = (
        "One seed and one held-out day each; every row is a process of its own, which serves in chunks. Memory: the "
        "peak of the whole process while it serves, interpreter and tables of the network included. On the thousand "
        f"nodes agents learn on {_trained_on(region)} of a training day." + later
    )
    ours = tuple(np.flatnonzero(rows["method"].isin(METHODS)).tolist())
    return Table(frame, caption, ("network", "by"), ours)


def _trained_on(region: pd.DataFrame | None) -> str:
    n = None if region is None else region["train_requests"].max()
    return "a part" if n is None or not n > 0 else f"{int(n):,} requests"


def scale_answer(folder: Path) -> Answer | Note:
    """Answer: does it hold at scale? Or say how to measure it."""
    radio, region = load_scale(folder), load_scale(folder, "million")
    if radio is None:
        return Note(f"Not measured in this study yet: {_missing(folder, 'radio')}")
    days, memory = radio[radio["part"] == "day"], radio[(radio["part"] == "memory") & (radio["chunk"] > 0)]
    sentences = [_sentence(part) for part in (days, region) if part is not None]
    more = memory["requests"].max() / memory["requests"].min()
    sentences.append(
        f"Serving {more:.0f} times as many requests in chunks takes {_growth(memory):+.0f} MB of memory, of "
        f"{memory['peak_rss_mb'].max():.0f} MB in all."
    )
    return Answer(" ".join(sentences))


def _sentence(days: pd.DataFrame) -> str:
    """Say how AMARL does on one network beside the best rule."""
    agents, rules = days[days["method"] == "amarl"].iloc[0], days[~days["method"].isin(METHODS)]
    best = rules.loc[rules["gos"].idxmax()]
    return (
        f"On {agents['nodes']:,} nodes AMARL serves {agents['requests']:,} requests in {agents['serve_s']:.0f} s and "
        f"{agents['peak_rss_mb']:.0f} MB and accepts {agents['gos']:.2f} %; the best rule, "
        f"{method_name(best['method'])}, {best['gos']:.2f} % in {best['serve_s']:.0f} s."
    )


def memory_figure(folder: Path) -> Picture | Note:
    """Draw peak memory against the number of requests served, in chunks and in one piece, or say how to measure it."""
    radio, region = load_scale(folder), load_scale(folder, "million")
    if radio is None:
        return Note(f"Not measured in this study yet: {_missing(folder, 'radio')}")
    return _draw_memory(radio[radio["part"] == "memory"], region, folder)


@drawing
def _draw_memory(memory: pd.DataFrame, region: pd.DataFrame | None, folder: Path) -> Picture:
    chunked, whole = (memory[memory["chunk"] > 0], memory[memory["chunk"] == 0])
    figure, panels = new_figure(columns=2 if region is not None else 1, height_in=3.0)
    for part, color, label in (
        (chunked, METHOD_COLORS["amarl"], "in chunks"),
        (whole, METHOD_COLORS["sarl"], "in one piece"),
    ):
        panels[0].plot(part["requests"] / 1e6, part["peak_rss_mb"], "o-", color=color, label=label)
    panels[0].set(xlabel="requests served (millions)", ylabel="peak memory of the process (MB)")
    panels[0].set_ylim(0, 1.15 * memory["peak_rss_mb"].max())
    if region is not None:
        _draw_region(panels[1], load_chunks(folder, "million"))
    panels[0].legend()
    if region is not None:
        panels[1].legend()
    growth = _growth(chunked)
    finding = (
        f"From {chunked['requests'].min():,} to {chunked['requests'].max():,} requests served in chunks, memory "
        f"changes by {growth:+.0f} MB"
    )
    caption = (
        f"{memory['scenario'].iloc[0]}, shortest feasible path, one process for each point, chunks of "
        f"{int(chunked['chunk'].max()):,} requests; the interpreter alone and the network's tables take "
        f"{chunked['base_rss_mb'].median():.0f} MB."
    )
    if region is not None:
        caption += f" Right: one day of {int(region['nodes'].iloc[0]):,} nodes, as it is served."
    return finish(figure, finding, caption)


def _draw_region(axes: Axes, chunks: pd.DataFrame) -> None:
    styles = iter(("--", ":", "-."))
    for method, part in chunks.groupby("method", sort=False):
        is_ours = method in METHODS
        color, style = (METHOD_COLORS[method], "-") if is_ours else (REFERENCE_COLORS[0], next(styles, "--"))
        axes.plot(part["requests"] / 1e6, part["peak_rss_mb"], style, color=color, label=method_name(method))
    axes.set(xlabel="requests served so far (millions)", ylim=(0, 1.15 * chunks["peak_rss_mb"].max()))


def _growth(chunked: pd.DataFrame) -> float:
    by_requests = chunked.sort_values("requests")["peak_rss_mb"]
    return float(by_requests.iloc[-1] - by_requests.iloc[0])


def scaling(folder: Path) -> dict:
    """Return the figures of scale for `headline.json`; empty where nothing was measured."""
    summary: dict = {}
    for part in RECORDS:
        rows = load_scale(folder, part)
        if rows is None:
            continue
        days = rows[rows["part"] != "memory"]
        rules = days[~days["method"].isin(METHODS)]
        agents = days[days["method"].isin(METHODS)]
        summary[part] = {
            "nodes": int(days["nodes"].iloc[0]),
            "requests": int(days["requests"].iloc[0]),
            "gos": {row.method: row.gos for row in days.itertuples()},
            "best_rule": rules.loc[rules["gos"].idxmax(), "method"],
            "train_s": {row.method: row.train_s for row in agents.itertuples()},
            "serve_s": {row.method: row.serve_s for row in days.itertuples()},
            "us_per_request": {row.method: 1e6 * row.serve_s / row.requests for row in days.itertuples()},
            "peak_rss_mb": {row.method: row.peak_rss_mb for row in days.itertuples()},
            "violations": int(rows["violations"].sum()),
        }
        chunked = rows[(rows["part"] == "memory") & (rows["chunk"] > 0)]
        if len(chunked):
            summary["memory_growth_mb"] = _growth(chunked)
    return summary
