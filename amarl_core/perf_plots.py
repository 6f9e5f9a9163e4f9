"""Where the time goes, as figures and tables: phases, time to a grade of service, and the notebook's answer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from amarl_core.look import (
    METHOD_COLORS,
    METHOD_MARKERS,
    Answer,
    Note,
    Picture,
    Table,
    drawing,
    finish,
    legend_below,
    listing,
    method_name,
    new_figure,
    service_name,
    with_interval,
)
from amarl_core.perf_records import Measured, missing, packed_ratio, shares_by_agent, work_shares
from amarl_core.phases import ALL_PHASES, watching_percent
from amarl_core.records import METHODS
from amarl_core.stats import bootstrap_ci
from amarl_core.time_to_gos import LEVELS, gos_by_wall, reaching, requests_a_day, summary

GROUPS = {
    "look-ahead search": (("reach",), "#0b5c8a"),
    "price search": (("prices",), "#56b4e9"),
    "mask, observation": (("mask", "observe"), "#009e73"),
    "policy": (("forward",), "#e0a92e"),
    "state and events": (("events", "snapshot", "lock", "commit", "release"), "#6b4e9b"),
    "update": (("update",), "#d55e00"),
    "wait for the slowest clock": (("lag",), "#d0d0d0"),
    "wait for a core": (("queue", "no_core"), "#a3a3a3"),
    "Python, done": (("python", "done"), "#6f6f6f"),
}
"""Phases that a figure shows together, and their colour; greys do no work."""
NAMES = {"reach": "look-ahead search of the mask", "mask": "the mask itself", "prices": "price search",
         "observe": "observation", "forward": "policy", "events": "event loop, rewards", "snapshot": "snapshot",
         "lock": "wait for the lock", "commit": "commit", "release": "departures", "update": "update",
         "lag": "wait for the slowest clock", "queue": "wait for an update slot", "no_core": "ready, without a core",
         "python": "Python between kernels", "done": "done before the others"}  # fmt: skip
INTERVAL_COLORS = {"rollout": "#0b5c8a", "update": "#d55e00", "lag": "#d8d8d8", "queue": "#8a8a8a"}
INTERVAL_NAMES = {"rollout": "rollout", "update": "update", "lag": "waits for the slowest clock",
                  "queue": "waits for an update slot"}  # fmt: skip


def _name(agent: str) -> str:
    return method_name(agent) if agent in METHODS else service_name(agent)


# --------------------------------------------------------------------------------------------- phases
def timeline_figure(measured: Measured, method: str = "amarl", seconds: float = 1.5) -> Picture | Note:
    """Draw what every agent did in the middle of a profiled training."""
    rows = measured["timeline"]
    return _timeline(rows[rows["method"] == method], seconds) if len(rows) else missing(measured, "the timeline")


@drawing
def _timeline(rows: pd.DataFrame, seconds: float) -> Picture:
    busy = rows.groupby("agent", observed=True)["cpu_s"].sum().sort_values(ascending=False)
    first = max(0.0, rows["end_s"].max() / 2 - seconds / 2)
    part = rows[(rows["end_s"] > first) & (rows["start_s"] < first + seconds)]
    figure, (axes,) = new_figure(height_in=1.5 + 0.32 * len(busy))
    for interval in ("rollout", "lag", "update", "queue"):  # waits lie within rollouts
        for place, agent in enumerate(busy.index):
            own = part[(part["agent"] == agent) & (part["interval"] == interval)]
            bars = [(s - first, e - s) for s, e in zip(own["start_s"], own["end_s"], strict=True)]
            axes.broken_barh(bars, (place - 0.36, 0.72), color=INTERVAL_COLORS[interval], linewidth=0)
        axes.barh(0, 0, color=INTERVAL_COLORS[interval], label=INTERVAL_NAMES[interval])
    axes.set(xlim=(0, seconds), xlabel=f"seconds of wall-clock, from {first:.1f} s on")
    axes.set(yticks=range(len(busy)), yticklabels=[_name(agent) for agent in busy.index])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    legend_below(figure, axes, 4)
    waits = rows[rows["interval"] == "lag"]
    waiting = (waits["end_s"] - waits["start_s"]).sum() / (len(busy) * rows["end_s"].max())
    n = (rows["interval"] == "update").sum()
    finding = (
        f"Every agent updates in its own time ({n} updates); {100 * waiting:.0f} % of all agents' time is waiting for "
        "the slowest clock"
    )
    caption = (
        f"{seconds:g} s from the middle of one profiled training of {rows['end_s'].max():.1f} s, one seed; agents by "
        "processor time. An agent that waits needs no core; one that is ready may wait for a core unseen in here."
    )
    return finish(figure, finding, caption)


def shares_figure(measured: Measured) -> Picture | Note:
    """Draw the phases of every agent as shares of its wall-clock."""
    return _shares(measured["phases"]) if len(measured["phases"]) else missing(measured, "the phases")


@drawing
def _shares(phases: pd.DataFrame) -> Picture:
    tables = [shares_by_agent(phases, method) for method in METHODS]
    table = pd.concat([tables[0], tables[1].sort_values(["lag", "done"], ascending=True)])
    figure, (axes,) = new_figure(height_in=2.0 + 0.3 * len(table))
    left = np.zeros(len(table))
    for label, (group, color) in GROUPS.items():
        share = table[list(group)].sum(axis=1).to_numpy()
        axes.barh(range(len(table)), share, left=left, height=0.66, color=color, label=label)
        left += share
    axes.set(yticks=range(len(table)), yticklabels=[_name(agent) for agent in table.index], xlim=(0, 100))
    axes.set(xlabel="share of the agent's wall-clock (%)")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    legend_below(figure, axes, 3)
    work = work_shares(phases, "sarl").sort_values(ascending=False)
    finding = (
        f"Of SARL's work {work.iloc[0]:.0f} % is {NAMES[work.index[0]]}, {work.iloc[1]:.0f} % {NAMES[work.index[1]]} "
        "and "
        f"{work.iloc[2]:.0f} % {NAMES[work.index[2]]}; waiting for the lock is {_lock_percent(phases):.2f} % of AMARL's"
    )
    caption = (
        "One profiled training of each method, one seed. Coloured: work. Grey: waiting. A thread without a core sees "
        "the clock run on: that time is known of whole rollouts and updates only and taken from their phases in "
        "proportion."
    )
    return finish(figure, finding, caption)


def _lock_percent(phases: pd.DataFrame) -> float:
    return float(work_shares(phases, "amarl").get("lock", 0.0))


def phases_table(measured: Measured) -> Table | Note:
    """Show seconds, share and microseconds a decision of every phase, for both methods."""
    phases = measured["phases"]
    if phases.empty:
        return missing(measured, "the phases")
    total = phases.groupby(["method", "phase"], observed=True)["seconds"].sum().unstack("method")
    steps = phases.groupby("method", observed=True)["steps"].first()
    rows = []
    for phase in ALL_PHASES:
        row = [NAMES[phase]]
        for method in METHODS:
            seconds = total.loc[phase, method]
            row += [f"{seconds:.2f}", f"{1e6 * seconds / steps[method]:.3f}"]
        rows.append(row)
    columns = ["phase"] + [f"{method_name(m)}, {unit}" for m in METHODS for unit in ("s", "µs a decision")]
    took = phases.groupby("method", observed=True)[["train_s", "cpu_s"]].first()
    text = ", ".join(f"{method_name(m)} {took.loc[m, 'train_s']:.1f} s ({took.loc[m, 'cpu_s']:.1f} s of processor time)"
                     for m in METHODS)  # fmt: skip
    caption = f"All agents together, so that AMARL's six threads add up to six times its wall-clock. Trained in {text}."
    if len(measured["watching"]):
        cost = bootstrap_ci(watching_percent(measured["watching"]), np.median)
        n = measured["watching"]["pair"].nunique()
        caption += f" Reading the clock costs {with_interval(*cost, digits=1)} % of processor time ({n} pairs of SARL)."
    return Table(pd.DataFrame(rows, columns=columns), caption)


# ------------------------------------------------------------------------------------- time to a GoS
@drawing
def time_to_gos_figure(progress: pd.DataFrame) -> Picture:
    """Draw training GoS against wall-clock for both methods, a band over seeds."""
    figure, (axes,) = new_figure(height_in=3.4)
    for method in METHODS:
        runs = [run for _, run in progress[progress["method"] == method].groupby("seed")]
        curves = [gos_by_wall(run, requests_a_day(run)) for run in runs]
        wall = np.linspace(max(c["wall_s"].iloc[0] for c in curves), min(c["wall_s"].iloc[-1] for c in curves), 200)
        gos = np.array([np.interp(wall, c["wall_s"], c["gos"]) for c in curves])  # (seeds, 200)
        color = METHOD_COLORS[method]
        axes.plot(wall, gos.mean(axis=0), color=color, label=method_name(method))
        axes.fill_between(wall, gos.min(axis=0), gos.max(axis=0), color=color, alpha=0.18, linewidth=0)
        for level in LEVELS:
            where = np.flatnonzero(gos.mean(axis=0) >= level)
            if len(where):
                axes.plot(wall[where[0]], level, METHOD_MARKERS[method], color=color, markersize=6)
    axes.set(xlabel="wall-clock of training (s)", ylabel="grade of service of the last day (%)", xlim=(0, None))
    legend_below(figure, axes)
    caption = (
        "Requests of training, sampled actions, one attempt: all agents' requests of the last simulated day. Line: "
        "mean "
        f"of {progress['seed'].nunique()} seeds; band: least and most of the seeds; markers: {_levels_text()} reached."
    )
    return finish(figure, time_to_gos_finding(progress), caption)


def _levels_text() -> str:
    return listing(f"{level:g} %" for level in LEVELS)


def time_to_gos_finding(progress: pd.DataFrame) -> str:
    """Say how long each method takes to the highest level that both reach with every seed."""
    found = summary(reaching(progress)).pivot(index="level", columns="method", values="seconds")
    both = found.dropna()
    if both.empty:
        return f"No level ({_levels_text()}) is reached by every seed of both methods"
    level = both.index[-1]
    sarl, amarl = both.loc[level, "sarl"], both.loc[level, "amarl"]
    return f"AMARL is at {level:g} % after {amarl:.1f} s, SARL after {sarl:.1f} s: {amarl / sarl:.2f} of the time"


def time_to_gos_table(progress: pd.DataFrame) -> Table:
    """Show the seconds until each grade of service, with intervals over seeds."""
    rows = []
    for row in summary(reaching(progress)).itertuples():
        whole = row.n_reached == row.n_seeds
        text = with_interval(row.seconds, row.low, row.high, 1) if whole else "not by every seed"
        rows.append([f"{row.level:g} %", method_name(row.method), text, f"{row.n_reached} of {row.n_seeds}"])
    frame = pd.DataFrame(rows, columns=["grade of service", "method", "seconds", "seeds"])
    caption = (
        "Seconds of training until the requests of the last simulated day have that grade of service, the first day "
        "being served whole. Brackets: 95 % interval over seeds, Student's t."
    )
    return Table(frame.sort_values(["grade of service", "method"]), caption, ("method",))


def performance_answer(measured: Measured, progress: pd.DataFrame) -> Answer:
    """Answer the question of the notebook in a few numbers."""
    said = []
    if len(measured["phases"]):
        work = work_shares(measured["phases"], "amarl").sort_values(ascending=False)
        parts = listing(f"{share:.0f} % {NAMES[phase]}" for phase, share in work.head(4).items())
        said.append(f"Of AMARL's work, {parts}; waiting for the lock is {work.get('lock', 0.0):.2f} %.")
    said.append(f"{time_to_gos_finding(progress)}.")
    limits = measured.limits
    if limits:
        share = limits["amarl"]["share"]
        met = "met" if share >= 0.5 else "not met"
        said.append(
            f"On {limits['cores']} cores AMARL / SARL is "
            f"{limits['amarl']['train_s'] / limits['sarl']['train_s']:.2f} on a "
            f"day (aim 0.55), and would be {packed_ratio(limits):.2f} if its work were packed without a gap. The "
            "update's "
            f"arithmetic alone would take {100 * share:.0f} % of AMARL's training, {1 / share:.0f} x (aim 2 x: "
            f"{met}): most of "
            "the rest is search on the network, which is no matrix arithmetic."
        )
    else:
        said.append(missing(measured, "phases, speed-up, peers and limit").text)
    return Answer(" ".join(said))
