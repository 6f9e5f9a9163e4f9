"""Grade of service and latency of a study (Figure 2). Every title states what the records show.

Each function takes frames from `records` and returns a `Picture`. Bands and whiskers are 95 % intervals of
the mean over seeds and held-out days (`intervals`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from amarl_core import intervals
from amarl_core.intervals import BAND
from amarl_core.look import (
    METHOD_COLORS,
    METHOD_MARKERS,
    REFERENCE_COLORS,
    Picture,
    drawing,
    finish,
    legend_below,
    method_name,
    new_figure,
    service_name,
    signed,
)
from amarl_core.records import METHODS, gos, gos_by_day, window_gos

HOURS = np.arange(24)


def sample_size(frame: pd.DataFrame) -> str:
    """Say how many seeds and held-out days a frame holds."""
    seeds, days = frame["seed"].nunique(), frame["day"].nunique()
    return f"n = {seeds} seed{'s' * (seeds != 1)} × {days} held-out day{'s' * (days != 1)}"


def interval(matrix: np.ndarray) -> tuple[float, float, float]:
    """Mean and `BAND` of an (n_seeds, n_days) array; a cell without requests takes their mean."""
    matrix = np.asarray(matrix, dtype=float)
    if np.isnan(matrix).all():
        return np.nan, np.nan, np.nan
    found = intervals.interval(np.where(np.isnan(matrix), np.nanmean(matrix), matrix))
    return found.value, found.low, found.high


def intervals_by(outcomes: pd.DataFrame, method: str, by: str, values: Sequence) -> np.ndarray:
    """Grade of service of a method by the values of a column: mean, low and high, (n_values, 3)."""
    table = gos(outcomes[outcomes["method"] == method], ["seed", "day", by])
    by_value = dict(iter(table.groupby(level=by)))
    empty = (np.nan, np.nan, np.nan)
    return np.array([interval(by_value[v].droplevel(by).unstack("day")) if v in by_value else empty for v in values])


# ------------------------------------------------------------------------------- Figure 2
@drawing
def gos_by_hour(outcomes: pd.DataFrame, baselines: pd.DataFrame | None = None) -> Picture:
    """Draw the grade of service by hour of the day, with classical rules for reference."""
    figure, (axes,) = new_figure(height_in=3.2)
    lowest = _draw_hours(axes, outcomes)
    if baselines is not None and len(baselines):
        _draw_rules(axes, baselines)
    legend_below(figure, axes)
    caption = (
        f"Accepted over offered requests in each hour. {sample_size(outcomes)}; band: "
        f"{BAND}; dashed: classical rules on the same days."
    )
    return finish(figure, f"{_difference(outcomes)}; {_when_lowest(lowest)}", caption)


def _draw_hours(axes: Axes, outcomes: pd.DataFrame) -> dict[str, tuple[int, float]]:
    lowest = {}
    for method in METHODS:
        mean, low, high = intervals_by(outcomes, method, "hour", HOURS).T
        axes.fill_between(HOURS, low, high, color=METHOD_COLORS[method], alpha=0.2, linewidth=0)
        axes.plot(
            HOURS,
            mean,
            color=METHOD_COLORS[method],
            marker=METHOD_MARKERS[method],
            markersize=3.5,
            label=method_name(method),
        )
        hour = int(np.nanargmin(mean))
        lowest[method] = (hour, float(mean[hour]))
    axes.set(xlabel="hour of the day", ylabel="grade of service (%)", xlim=(-0.3, 23.3), xticks=range(0, 24, 3))
    return lowest


def _draw_rules(axes: Axes, baselines: pd.DataFrame) -> None:
    """The shortest feasible path, and the best of the rules."""
    overall = gos(baselines, ["method"]).sort_values()
    shown = dict.fromkeys([rule for rule in ("shortest_feasible",) if rule in overall.index] + [overall.index[-1]])
    for rule, color in zip(shown, REFERENCE_COLORS, strict=False):
        line = gos(baselines[baselines["method"] == rule], ["hour"]).reindex(HOURS)
        axes.plot(HOURS, line, color=color, linestyle="--", linewidth=1.1, label=method_name(rule), zorder=1.5)


def _difference(outcomes: pd.DataFrame) -> str:
    gain, low, high = interval(gos_by_day(outcomes, "amarl") - gos_by_day(outcomes, "sarl"))
    return f"AMARL {signed(gain, low, high, unit=' points')} against SARL"


def _when_lowest(lowest: dict[str, tuple[int, float]]) -> str:
    (hour_sarl, gos_sarl), (hour_amarl, gos_amarl) = lowest["sarl"], lowest["amarl"]
    if hour_sarl == hour_amarl:
        return f"both lowest at {hour_sarl} h ({gos_sarl:.1f} and {gos_amarl:.1f} %)"
    return f"lowest at {hour_sarl} h (SARL, {gos_sarl:.1f} %) and {hour_amarl} h (AMARL, {gos_amarl:.1f} %)"


@drawing
def gos_by_service(outcomes: pd.DataFrame) -> Picture:
    """Draw the grade of service of each service, lowest at the top."""
    figure, (axes,) = new_figure(height_in=3.0)
    services, means = _draw_services(axes, outcomes)
    axes.legend(loc="lower left")
    hardest = services[0]
    finding = (
        f"{service_name(hardest)} is the hardest service: {means['sarl'][0]:.1f} % with SARL, "
        f"{means['amarl'][0]:.1f} % with AMARL"
    )
    alt = "; ".join(
        f"{service_name(s)}: SARL {a:.2f} %, AMARL {b:.2f} %"
        for s, a, b in zip(services, means["sarl"], means["amarl"], strict=True)
    )
    caption = f"Accepted over offered requests by service. {sample_size(outcomes)}; whiskers: {BAND}."
    return finish(figure, finding, caption, alt)


def _draw_services(axes: Axes, outcomes: pd.DataFrame) -> tuple[list[str], dict[str, np.ndarray]]:
    services = list(gos(outcomes[outcomes["method"] == "amarl"], ["service"]).sort_values().index)
    rows, means = np.arange(len(services)), {}
    for method, shift in zip(METHODS, (-0.16, 0.16), strict=True):
        mean, low, high = intervals_by(outcomes, method, "service", services).T
        means[method] = mean
        axes.errorbar(
            mean,
            rows + shift,
            xerr=[mean - low, high - mean],
            fmt=METHOD_MARKERS[method],
            markersize=5,
            color=METHOD_COLORS[method],
            elinewidth=1.4,
            capsize=0,
            label=method_name(method),
        )
    axes.set(yticks=rows, yticklabels=[service_name(s) for s in services], xlabel="grade of service (%)")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    return services, means


@drawing
def gos_over_training(progress: pd.DataFrame, timing: pd.DataFrame) -> Picture:
    """Draw the grade of service during training against wall-clock, each seed a line."""
    figure, (axes,) = new_figure(height_in=3.2)
    for (method, seed), rows in progress.groupby(["method", "seed"], sort=False):
        curve = window_gos(rows)
        first = seed == progress["seed"].min()
        axes.plot(
            curve["wall_s"],
            curve["gos"],
            color=METHOD_COLORS[method],
            linewidth=1.5,
            alpha=0.85,
            linestyle="-" if method == "amarl" else (0, (5, 1.2)),
            label=method_name(method) if first else None,
        )
        axes.plot(
            curve["wall_s"].iloc[-1],
            curve["gos"].iloc[-1],
            METHOD_MARKERS[method],
            markersize=5,
            color=METHOD_COLORS[method],
        )
    axes.set(xlabel="training wall-clock (s)", ylabel="grade of service (%)", xlim=(0, None))
    axes.legend(loc="lower right")
    train_s = timing.pivot(index="seed", columns="method", values="train_s")
    ratio = (train_s["amarl"] / train_s["sarl"]).median()
    finding = (
        f"AMARL needs {ratio:.2f} x SARL's training wall-clock for the same requests "
        f"({train_s['amarl'].mean():.0f} against {train_s['sarl'].mean():.0f} s)"
    )
    seeds = len(train_s)
    caption = (
        "Sampled actions on training days, one attempt; accepted over offered requests in a moving "
        f"window of 8 % of the run. n = {seeds} seed{'s' * (seeds != 1)}, a line each; the marker is the "
        "end of training."
    )
    return finish(figure, finding, caption)


@drawing
def latency_against_budget(latency: pd.DataFrame) -> Picture:
    """Draw mean and 95th percentile latency of accepted requests as a share of each service's budget."""
    figure, (axes,) = new_figure(height_in=3.1)
    table = latency.groupby(["service", "method"])[["budget_ms", "mean_ms", "p95_ms"]].mean()
    share = (table["p95_ms"] / table["budget_ms"]).unstack("method").max(axis=1).sort_values(ascending=False)
    for row, service in enumerate(share.index):
        for method, shift in zip(METHODS, (-0.16, 0.16), strict=True):
            line = 100 * table.loc[(service, method)] / table.loc[(service, method), "budget_ms"]
            axes.plot(
                [line["mean_ms"], line["p95_ms"]],
                [row + shift] * 2,
                color=METHOD_COLORS[method],
                linewidth=1.6,
            )
            axes.plot(
                line["mean_ms"],
                row + shift,
                METHOD_MARKERS[method],
                color=METHOD_COLORS[method],
                markersize=5,
                label=f"{method_name(method)}, mean" if row == 0 else None,
            )
            axes.plot(
                line["p95_ms"],
                row + shift,
                "|",
                color=METHOD_COLORS[method],
                markersize=9,
                markeredgewidth=2,
                label=f"{method_name(method)}, 95th percentile" if row == 0 else None,
            )
    axes.axvline(100, color="#8c2d3f", linewidth=1.1)
    axes.text(100, -0.62, "budget ", color="#8c2d3f", ha="right", va="center", fontsize=9)
    names = [f"{service_name(s)} ({table.loc[s, 'budget_ms'].iloc[0]:g} ms)" for s in share.index]
    axes.set(
        yticks=range(len(names)),
        yticklabels=names,
        xlabel="latency, % of the budget",
        xlim=(0, max(106, 105 * share.max())),
        ylim=(len(names) - 0.5, -0.9),
    )
    axes.grid(axis="y", visible=False)
    legend_below(figure, axes, 4)
    tightest = share.index[0]
    p95, budget = table.loc[tightest, "p95_ms"].max(), table.loc[tightest, "budget_ms"].iloc[0]
    over = int((share > 1).sum())
    finding = f"{service_name(tightest)} runs closest to its bound: 95th percentile {p95:.2f} of {budget:g} ms" + (
        f"; {over} services exceed theirs" if over else ""
    )
    alt = "; ".join(
        f"{service_name(s)} {m.upper()}: mean {r.mean_ms:.2f}, 95th percentile {r.p95_ms:.2f} of {r.budget_ms:g} ms"
        for (s, m), r in table.iterrows()
    )
    caption = f"Accepted requests only; mean over days of each day's mean and 95th percentile. {sample_size(latency)}."
    return finish(figure, finding, caption, alt)


@drawing
def figure_2(outcomes: pd.DataFrame) -> Picture:
    """The paper's Figure 2 in one picture: grade of service by hour and by service."""
    figure, (left, right) = new_figure(columns=2, height_in=3.0, widths=(1.35, 1))
    lowest = _draw_hours(left, outcomes)
    services, means = _draw_services(right, outcomes)
    left.legend(loc="lower left")
    alt = "; ".join(
        f"{service_name(s)}: SARL {a:.2f} %, AMARL {b:.2f} %"
        for s, a, b in zip(services, means["sarl"], means["amarl"], strict=True)
    )
    caption = f"Figure 2. Grade of service by hour and by service. {sample_size(outcomes)}; band and whiskers: {BAND}."
    return finish(figure, f"{_difference(outcomes)}; {_when_lowest(lowest)}", caption, alt)
