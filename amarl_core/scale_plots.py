"""How fast it goes, as figures and tables: speed-up by services, cores and threads, growth, peers, the limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from amarl_core.look import (
    AGENT_COLORS,
    METHOD_COLORS,
    METHOD_MARKERS,
    REFERENCE_COLORS,
    Note,
    Picture,
    Table,
    drawing,
    finish,
    legend_below,
    method_name,
    new_figure,
)
from amarl_core.perf_records import Measured, engine_rows, missing, packed_ratio, speed_up
from amarl_core.records import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def services_figure(measured: Measured) -> Picture | Note:
    """Draw AMARL's speed-up over SARL against the number of services, with Amdahl's bound."""
    if measured["services"].empty or not measured.limits:
        return missing(measured, "speed-up by services")
    return _services(measured["services"], measured.limits["cores"])


def _draw_speed_up(axes: Axes, table: pd.DataFrame) -> None:
    places = np.arange(len(table))
    error = [table["speed_up"] - table["low"], table["high"] - table["speed_up"]]
    axes.errorbar(places, table["speed_up"], yerr=error, color=METHOD_COLORS["amarl"], marker="o", capsize=3,
                  label="AMARL over SARL")  # fmt: skip
    axes.plot(places, table["amdahl"], color=REFERENCE_COLORS[0], linestyle="--", marker="_", label="Amdahl's bound")
    axes.axhline(1.0, color="#c9c9c9", linewidth=0.8)
    axes.set(xticks=places, xticklabels=[str(n) for n in table.index], ylabel="speed-up of training")
    axes.set(ylim=(0, max(2.2, 1.1 * table[["amdahl", "high"]].to_numpy().max())))


@drawing
def _services(rows: pd.DataFrame, cores: int) -> Picture:
    table = speed_up(rows, "n_services", cores)
    figure, (left, right) = new_figure(columns=2, height_in=3.1)
    _draw_speed_up(left, table)
    left.set(xlabel="agents (services)")
    right.bar(range(len(table)), 100 * table["share"], color=REFERENCE_COLORS[1], width=0.6)
    right.axhline(100 / cores, color=REFERENCE_COLORS[0], linestyle="--", linewidth=1.1,
                  label=f"above, it binds {cores} cores")  # fmt: skip
    right.legend(loc="upper right")
    right.set(xticks=range(len(table)), xticklabels=[str(n) for n in table.index], ylim=(0, 105))
    right.set(xlabel="agents (services)", ylabel="busiest agent's share (%)")
    legend_below(figure, left, 2)
    best, last = table["speed_up"].idxmax(), table.iloc[-1]
    of_bound = 100 * table.loc[best, "speed_up"] / table.loc[best, "amdahl"]
    finding = (
        f"With {best} agents AMARL trains {table.loc[best, 'speed_up']:.2f} times as fast as SARL, {of_bound:.0f} % of "
        f"what {cores} cores and the imbalance of services allow"
    )
    caption = (
        f"{rows['repeat'].nunique()} paired repeats on {cores} cores, the same requests in each; points: medians, "
        "bars: "
        "least and most. Fewer agents than services: services shared out evenly; twice as many: each service split in "
        f"two. Bound: the smaller of the cores and 1 / the busiest agent's share ({100 * last['share']:.0f} % with "
        f"{table.index[-1]})."
    )
    return finish(figure, finding, caption)


def threads_figure(measured: Measured) -> Picture | Note:
    """Draw speed-up of training by cores, and of serving by threads."""
    if measured["cores"].empty or measured["threads"].empty:
        return missing(measured, "speed-up by threads")
    return _threads(measured["cores"], measured["threads"])


@drawing
def _threads(cores: pd.DataFrame, threads: pd.DataFrame) -> Picture:
    figure, (left, right) = new_figure(columns=2, height_in=3.1)
    table = speed_up(cores, "cores", 0)
    _draw_speed_up(left, table)
    left.set(xlabel="cores")
    left.set_title("training: AMARL over SARL on one thread")
    gains = {}
    for (order, rows), color in zip(threads.groupby("order"), AGENT_COLORS, strict=False):
        times = rows.pivot(index="threads", columns="repeat", values="test_s")
        gain = (times.loc[1] / times).median(axis=1)
        gains[order] = gain
        right.plot(gain.index, gain, marker="o", color=color, label=f"{order} order")
    right.axhline(1.0, color="#c9c9c9", linewidth=0.8)
    right.set(xlabel="threads", ylabel="speed-up over one thread", ylim=(0, None))
    right.set_title("serving a day")
    right.legend(loc="lower right")
    legend_below(figure, left, 2)
    n = int(table.index[-1])
    best = int(gains["arrival"].idxmax())
    finding = (
        f"On {n} core{'s' * (n > 1)} AMARL trains {table['speed_up'].iloc[-1]:.2f} times as fast as SARL; serving in "
        f"arrival order is fastest with {best} thread{'s' * (best > 1)}, {gains['arrival'].max():.2f} times one "
        "thread's rate"
    )
    caption = (
        f"{cores['repeat'].nunique()} repeats, medians (bars: least and most of paired ratios). Cores: threads are "
        "bound "
        "to so many. Serving: an untrained AMARL team, three attempts, any thread serves any agent."
    )
    return finish(figure, finding, caption)


# --------------------------------------------------------------------------------------------- growth
def growth_figure(measured: Measured) -> Picture | Note:
    """Draw what a decision costs by the size of the network, and a day by its load."""
    if measured["load"].empty:
        return missing(measured, "growth")
    return _growth(measured["sizes"], measured["load"])


@drawing
def _growth(sizes: pd.DataFrame, load: pd.DataFrame) -> Picture:
    figure, (left, right) = new_figure(columns=2, height_in=3.7)
    colors = {"search": "#0b5c8a", "policy": "#e0a92e", "other": "#6b4e9b", "update": "#d55e00"}
    finding = ""
    if len(sizes):
        table = sizes.pivot(index="nodes", columns="phase", values="us_per_decision")
        for phase, color in colors.items():
            left.plot(table.index, table[phase], marker="o", markersize=4, color=color, label=phase)
        total = table.sum(axis=1)
        left.plot(table.index, total, color="black", linewidth=1.2, linestyle="--", label="all")
        left.set(xscale="log", yscale="log", xticks=table.index, xticklabels=[f"{n:,}" for n in table.index])
        left.minorticks_off()
        slope = np.polyfit(np.log(table.index), np.log(table["search"]), 1)[0]
        finding = (
            f"From {table.index[0]} to {table.index[-1]:,} nodes a decision goes from {total.iloc[0]:.1f} to "
            f"{total.iloc[-1]:.0f} µs, the searches as nodes to the power {slope:.1f}; "
        )
    else:
        left.text(0.5, 0.5, "not measured in this study", ha="center", transform=left.transAxes)
    left.set(xlabel="nodes", ylabel="µs a decision")
    for method in METHODS:
        own = load[load["method"] == method]
        right.plot(own["requests"] / 1000, own["train_s"], marker=METHOD_MARKERS[method], markersize=5,
                   color=METHOD_COLORS[method], label=method_name(method))  # fmt: skip
    right.set(xlabel="requests a day (thousands)", ylabel="training on one day (s)", xlim=(0, None), ylim=(0, None))
    right.legend(loc="upper left")
    legend_below(figure, left, 5)
    ends = load.groupby("method")[["requests", "train_s"]].agg(["first", "last"])
    times = {m: ends.loc[m, ("train_s", "last")] / ends.loc[m, ("train_s", "first")] for m in METHODS}
    grown = ends.loc["sarl", ("requests", "last")] / ends.loc["sarl", ("requests", "first")]
    finding += (
        f"{grown:.1f} times the requests take AMARL {times['amarl']:.1f} and SARL {times['sarl']:.1f} times as long"
    )
    caption = (
        "Left: SARL on one thread, generated networks with as many requests on each, one training of a day "
        "each. Right: the study's network at several loads, one training each; requests that find nothing free "
        "cost less."
        "Left: SARL on one thread, a training of a day on generated networks with as many requests on each. Right: the "
        "study's network at several loads, one training each; requests that find nothing free cost less."
    )
    return finish(figure, finding, caption)


# ------------------------------------------------------------------------------------ peers and limit
def peers_figure(measured: Measured) -> Picture | Note:
    """Draw decisions a second of stock sb3-contrib in several forms, and of ours."""
    if measured["peers"].empty or not measured.limits:
        return missing(measured, "the peers")
    return _peers(pd.concat([measured["peers"], engine_rows(measured.limits)]), measured.limits["cores"])


@drawing
def _peers(rows: pd.DataFrame, cores: int) -> Picture:
    figure, (axes,) = new_figure(height_in=1.2 + 0.34 * len(rows))
    is_ours = rows["peer"].str.startswith("ours")
    axes.barh(
        range(len(rows)), rows["steps_per_s"], color=np.where(is_ours, METHOD_COLORS["amarl"], REFERENCE_COLORS[1])
    )
    for place, rate in enumerate(rows["steps_per_s"]):
        axes.text(rate * 1.08, place, f"{rate:,.0f}", va="center", fontsize=8.5)
    axes.set(xscale="log", xlabel="decisions a second in training (log scale)", yticks=range(len(rows)))
    axes.set_yticklabels(rows["peer"])
    axes.set_xlim(rows["steps_per_s"].min() / 3, rows["steps_per_s"].max() * 4)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    theirs, ours = rows[~is_ours], rows[is_ours]
    best = theirs.loc[theirs["steps_per_s"].idxmax()]
    finding = (
        f"AMARL trains at {ours['steps_per_s'].iloc[-1] / best['steps_per_s']:.0f} times the rate of the best of stock "
        f"sb3-contrib's forms ({best['peer']})"
    )
    caption = (
        f"The same scenario and run, {cores} cores. Stock MaskablePPO at its defaults (minibatches of 64, 10 epochs, "
        "rollouts "
        "of 2,048 decisions in all) on RoutingEnv; several environments have a network each. Ours: 2 epochs of "
        "minibatches of 2,048. One training a peer, medians of ours."
    )
    return finish(figure, finding, caption)


def limit_table(measured: Measured) -> Table | Note:
    """Show the machine's rates, the arithmetic of a training, and how near training comes to its limit."""
    limits = measured.limits
    if not limits:
        return missing(measured, "the limit")
    rates, shapes, cores = limits["gflops"], limits["shapes"], limits["cores"]
    of_shapes = rates["update_1"] / rates["shapes_1"]
    rows = [
        ["large matrices, one thread / all cores", f"{rates['peak_1']:.0f} / {rates['peak_all']:.0f} GFLOP/s"],
        ["the update's shapes, one thread / all cores", f"{rates['shapes_1']:.0f} / {rates['shapes_all']:.0f} GFLOP/s"],
        ["update alone, one thread", f"{rates['update_1']:.0f} GFLOP/s, {100 * of_shapes:.0f} % of its shapes' rate"],
        ["arithmetic of a decision, all epochs", f"{shapes['flops'] / 1000:.1f} kFLOP"],
    ]  # fmt: skip
    for method in METHODS:
        own = limits[method]
        rows += [
            [f"{method_name(method)}: training", f"{own['train_s']:.2f} s, {own['env_steps']:,.0f} decisions"],
            [f"{method_name(method)}: arithmetic limit on {cores} cores", f"{own['limit_s']:.3f} s"],
            [
                f"{method_name(method)}: share of the limit reached",
                f"{100 * own['share']:.1f} % ({1 / own['share']:.0f} x)",
            ],
        ]
    rows += [
        ["AMARL / SARL, measured", f"{limits['amarl']['train_s'] / limits['sarl']['train_s']:.2f}"],
        [f"AMARL / SARL, AMARL's work packed on {cores} cores", f"{packed_ratio(limits):.2f}"],
    ]
    caption = (
        f"Medians of {limits['repeats']} repeats; trainings of {limits['days']} day. Shapes: minibatch "
        f"{shapes['minibatch']:,}, "
        f"{shapes['inputs']} inputs, width {shapes['width']}, {shapes['slots']} slots, {shapes['epochs']} epochs. "
        "The limit "
        "counts the matrix products of the updates alone, at the rate of all cores doing nothing else."
    )
    return Table(pd.DataFrame(rows, columns=["", "measured"]), caption, ("measured",))
