"""How one run learned, agent by agent: grade of service, learning signals, conflicts, time."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from amarl_core.look import (
    AGENT_COLORS,
    Answer,
    Note,
    Picture,
    Table,
    clock,
    drawing,
    finish,
    legend_below,
    listing,
    method_name,
    new_figure,
    service_name,
)
from amarl_core.records import window_gos

P, T = ParamSpec("P"), TypeVar("T")

NOTHING_YET = Note("No agent has updated its policy yet: run this cell again in a moment.")
"""What stands in place of a figure of a training that has only just begun."""

PHASE_COLORS = {"rollout": "#0b5c8a", "update": "#c98a12", "wait": "#cfcfcf"}


def once_begun(draw: Callable[P, T]) -> Callable[P, T | Note]:
    """Decorate a function of a training's records: while there are none, it gives `NOTHING_YET`."""

    @wraps(draw)
    def draw_or_wait(*records: P.args) -> T | Note:
        has_begun = all(
            records.get("updates", 0) > 0 if isinstance(records, dict) else len(records) > 0 for records in records
        )
        return draw(*records) if has_begun else NOTHING_YET

    return draw_or_wait


def _agents(progress: pd.DataFrame) -> list[str]:
    """Agents of a run, the one with most requests first."""
    return list(progress.groupby("agent", observed=True)["requests"].max().sort_values(ascending=False).index)


def _agent_name(agent: str) -> str:
    return method_name(agent) if agent == "sarl" else service_name(agent)


def _draw_agents(axes: Axes, progress: pd.DataFrame, column: str, scale: float = 1.0) -> None:
    for agent, color in zip(_agents(progress), AGENT_COLORS * 4, strict=False):
        rows = progress[progress["agent"] == agent]
        axes.plot(rows["wall_s"], scale * rows[column], color=color, linewidth=1.4, label=_agent_name(agent))
    axes.set(xlabel="wall-clock (s)", xlim=(0, None))


@once_begun
@drawing
def gos_per_agent(progress: pd.DataFrame) -> Picture:
    """Draw each agent's recent grade of service during training, and that of all of them together.

    Args:
        progress: `progress.parquet` of one run.
    """
    figure, (axes,) = new_figure(height_in=3.2)
    _draw_agents(axes, progress, "gos_recent", 100)
    together = window_gos(progress)
    agents = _agents(progress)
    if len(agents) > 1 and len(together):
        axes.plot(together["wall_s"], together["gos"], color="black", linewidth=2, label="all requests")
    axes.set_ylabel("grade of service (%)")
    legend_below(figure, axes, 4)
    if together.empty:
        finding = "Too short to show a curve"
    else:
        start, end = together["gos"].iloc[[0, -1]]
        seconds = progress["wall_s"].max()
        finding = f"From {start:.1f} to {end:.1f} % of requests accepted in {clock(seconds)} of training"
    caption = "Training days, sampled actions, one attempt. n = 1 seed; each agent's mean over its last rollouts" + (
        "; black: all agents together, by requests." if len(agents) > 1 else "."
    )
    return finish(figure, finding, caption)


@once_begun
@drawing
def learning_signals(progress: pd.DataFrame) -> Picture:
    """Draw mean reward of a request, entropy of the policy, and KL divergence of each update."""
    figure, panels = new_figure(columns=3, height_in=2.9)
    for axes, column, title in zip(
        panels,
        ("reward", "entropy", "kl"),
        ("reward of a request", "entropy (nat)", "KL of an update"),
        strict=True,
    ):
        _draw_agents(axes, progress, column)
        axes.set_title(title)
    legend_below(figure, panels[0])
    entropy = progress.groupby("agent", observed=True)["entropy"]
    finding = (
        f"Entropy goes from {entropy.first().mean():.2f} to {entropy.last().mean():.2f} nat; the median "
        f"update moves the policy by {progress['kl'].median():.4f} nat"
    )
    return finish(figure, finding, "Means of each rollout (reward) and update (entropy, KL). n = 1 seed, no band.")


@once_begun
@drawing
def conflicts_and_staleness(progress: pd.DataFrame) -> Picture:
    """Draw the share of requests lost to a conflict, and how old snapshots were at commit."""
    figure, panels = new_figure(columns=2, height_in=2.9)
    rows = progress.sort_values(["agent", "update"])
    new = rows[["requests", "conflicts"]] - rows.groupby("agent", observed=True)[["requests", "conflicts"]].shift(
        fill_value=0
    )
    rows = rows.assign(share=100 * new["conflicts"] / new["requests"].clip(lower=1))
    _draw_agents(panels[0], rows, "share")
    _draw_agents(panels[1], rows, "staleness")
    panels[0].set_ylabel("aborts (% of requests)")
    panels[1].set_ylabel("staleness (versions)")
    legend_below(figure, panels[0])
    share = 100 * new["conflicts"].sum() / max(1, new["requests"].sum())
    finding = f"{share:.2f} % of requests met a conflict; a commit was {rows['staleness'].mean():.1f} versions late"
    caption = "Versions: commits and releases of others between an agent's snapshot and its own commit. n = 1 seed."
    return finish(figure, finding, caption)


@once_begun
@drawing
def time_shares(timing: dict) -> Picture:
    """Draw how each agent's thread spent the training: rollout, update, waiting.

    Args:
        timing: `timing.json` of one run.
    """
    agents = sorted(timing["by_agent"], key=lambda a: -timing["by_agent"][a]["steps"])
    figure, (axes,) = new_figure(height_in=1.3 + 0.3 * len(agents))
    left = np.zeros(len(agents))
    for phase, color in PHASE_COLORS.items():
        share = np.array([100 * timing["by_agent"][a][f"{phase}_s"] / timing["train_s"] for a in agents])
        axes.barh(range(len(agents)), share, left=left, height=0.62, color=color, label=phase)
        left += share
    axes.set(yticks=range(len(agents)), yticklabels=[_agent_name(a) for a in agents])
    axes.set(xlabel="share of the training wall-clock (%)", xlim=(0, max(100.0, left.max())))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    legend_below(figure, axes, 3)
    busiest = timing["by_agent"][agents[0]]
    busy = 100 * (busiest["rollout_s"] + busiest["update_s"]) / timing["train_s"]
    finding = (
        f"{_agent_name(agents[0])}, which has most steps, is busy {busy:.0f} % of the time; "
        f"{timing['steps_per_s']:,.0f} steps/s in all"
    )
    return finish(figure, finding, f"Seconds in each phase over {timing['train_s']:.1f} s of training. n = 1 seed.")


@once_begun
def run_table(progress: pd.DataFrame, timing: dict) -> Table:
    """What each agent did: updates, requests, steps, its last grade of service, and its seconds by phase."""
    rows = []
    for agent in _agents(progress):
        last, phases = progress[progress["agent"] == agent].iloc[-1], timing["by_agent"][agent]
        numbers = [f"{int(last[column]):,}" for column in ("update", "requests", "steps")]
        seconds = [f"{phases[phase]:.1f}" for phase in ("rollout_s", "update_s", "wait_s")]
        rows.append([_agent_name(agent), *numbers, f"{100 * last['gos_recent']:.2f}", *seconds])
    columns = ["agent", "updates", "requests", "steps", "last GoS, %", "rollout, s", "update, s", "wait, s"]
    caption = (
        f"Trained in {timing['train_s']:.1f} s wall-clock, {timing['cpu_s']:.1f} s of processor time, "
        f"{timing['peak_rss_mb']:.0f} MB at most; compiling and loading are not counted."
    )
    if timing.get("resumed"):
        caption += (
            f" In {timing['resumed'] + 1} parts, resumed from a checkpoint; the time is theirs together, "
            f"with {timing['checkpoint_s']:.1f} s of writing {timing['checkpoints']} checkpoints."
        )
    return Table(pd.DataFrame(rows, columns=columns), caption)


@once_begun
def learning_answer(progress: pd.DataFrame, timing: dict) -> Answer:
    """Answer the question of the training notebook in a few numbers."""
    together = window_gos(progress)
    agents = _agents(progress)
    level = f" and ends at {together['gos'].iloc[-1]:.1f} % of requests accepted" if len(together) else ""
    phases = {p: sum(a[f"{p}_s"] for a in timing["by_agent"].values()) for p in PHASE_COLORS}
    total = max(sum(phases.values()), 1e-9)
    parts = [f"{100 * seconds / total:.0f} % {phase}" for phase, seconds in phases.items()]
    return Answer(
        f"{len(agents)} agent{'s' * (len(agents) != 1)} took {timing['env_steps']:,} steps in "
        f"{timing['train_s']:.1f} s ({timing['steps_per_s']:,.0f} steps/s, {timing['updates']:,} "
        f"updates){level}. Their time: {listing(parts)}."
    )
