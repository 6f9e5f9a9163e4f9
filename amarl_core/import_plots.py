"""Figures and tables of an imported network: what was assumed, grades of service by service."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from amarl_core.foreign.filling import Imported
from amarl_core.look import (
    AGENT_COLORS,
    METHOD_COLORS,
    METHOD_MARKERS,
    METHOD_NAMES,
    REFERENCE_COLORS,
    Answer,
    Picture,
    Table,
    drawing,
    finish,
    legend_below,
    listing,
    method_name,
    new_figure,
    service_name,
)
from amarl_core.scenario import Scenario
from amarl_core.traces import DAY_S, Trace


def assumptions_table(assumptions: pd.DataFrame) -> Table:
    """Show what the file said and what a rule filled."""
    rows = [
        {
            "quantity": row.quantity,
            "from the file": row.from_file or "",
            "by rule": row.by_rule or "",
            "rule or choice": row.rule if isinstance(row.rule, str) else "",
        }
        for row in assumptions.itertuples()
    ]
    caption = "Links count each direction. A row without numbers is a choice of make_scenario."
    return Table(pd.DataFrame(rows), caption, text_columns=("rule or choice",))


def told(scenario: Scenario) -> pd.DataFrame:
    """Read the assumptions that a made scenario records in its folder."""
    return pd.read_csv(scenario.folder / "assumptions.csv", keep_default_na=False)


def warnings_table(warnings: tuple[str, ...]) -> Table:
    """Show what the reader warned of."""
    listed = list(warnings) or ["none"]
    return Table(pd.DataFrame({"warnings": listed}), "What the file left open or could not be used.")


def bounds_table(scenario: Scenario) -> Table:
    """Show each service's bound, and what it was before it was raised."""
    source = scenario.settings.source
    before = source.latency_before_ms if source is not None else {}
    rows = [
        {
            "service": service_name(service.service),
            "chain": "-".join(service.chain),
            "bound, ms": f"{service.latency_ms:g}",
            "before, ms": f"{before.get(service.service, service.latency_ms):g}",
        }
        for service in scenario.services
    ]
    return Table(pd.DataFrame(rows), "Latency bounds; a bound that no route can meet was raised.", ("chain",))


@drawing
def traffic_figure(scenario: Scenario, day: Trace) -> Picture:
    """Draw the load in progress over a day, stacked by service, and each area's share of the requests."""
    figure, (left, right) = new_figure(2, height_in=3.2, widths=(3, 2))
    at_s = np.arange(0, DAY_S + 1, 300.0)
    load = np.array([_in_progress(day[day.service == s], at_s) for s in range(len(scenario.services))]) / 1e6  # [S, t]
    names = [service_name(service) for service in scenario.service_ids]
    colors = [AGENT_COLORS[s % len(AGENT_COLORS)] for s in range(len(names))]
    left.stackplot(at_s / 3600, load, labels=names, colors=colors, alpha=0.85)
    left.set(xlabel="hour of the day", ylabel="asked for at a time, Gb/s", xlim=(0, 24), xticks=range(0, 25, 6))
    count = np.bincount(day.source, minlength=scenario.network.n_nodes)[scenario.traffic.area_node]
    right.bar(range(1, len(count) + 1), np.sort(count)[::-1] / len(day) * 100, color=REFERENCE_COLORS[0])
    right.set(xlabel="areas, busiest first", ylabel="share of requests, %")
    legend_below(figure, left, 6)
    peak = float(load.sum(axis=0).max())
    finding = f"{len(day):,} requests ask for up to {peak:.0f} Gb/s at a time, from {len(count)} areas"
    return finish(figure, finding, f"Held-out day {day.name}: requests in progress if all were accepted.")


def _in_progress(trace: Trace, at_s: np.ndarray) -> np.ndarray:
    """Return the kbps of requests in progress at some times, float64 [t]."""
    ends = trace.t_s + trace.hold_s
    order = np.argsort(ends)
    begun = np.concatenate([[0], np.cumsum(trace.demand_kbps)])
    ended = np.concatenate([[0], np.cumsum(trace.demand_kbps[order])])
    return begun[np.searchsorted(trace.t_s, at_s, "right")] - ended[np.searchsorted(ends[order], at_s, "right")]


def gos_by_service(decisions: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the GoS in % by service (rows, "all" last) and method (columns)."""
    table = pd.DataFrame(
        {m: d.groupby("service", observed=True)["accepted"].mean() * 100 for m, d in decisions.items()}
    )
    overall = pd.DataFrame({m: [d["accepted"].mean() * 100] for m, d in decisions.items()}, index=["all"])
    return pd.concat([table.sort_index(), overall])


@drawing
def gos_figure(decisions: Mapping[str, pd.DataFrame], day: str) -> Picture:
    """Draw the GoS of each service under each method, one point each."""
    gos = gos_by_service(decisions)
    figure, (axes,) = new_figure(height_in=3.4)
    at = np.arange(len(gos))[::-1]
    spread = np.linspace(0.24, -0.24, gos.shape[1])
    colors = iter((*REFERENCE_COLORS, "#333333", "#8c6d1f"))
    for method, offset in zip(gos, spread, strict=True):
        color = METHOD_COLORS.get(method) or next(colors, "#333333")
        marker = METHOD_MARKERS.get(method, "^")
        axes.plot(gos[method], at + offset, marker, color=color, markersize=6, label=method_name(method))
    axes.set_yticks(at, [service_name(service) if service != "all" else "All requests" for service in gos.index])
    axes.set_xlabel("grade of service in % (accepted over offered requests)")
    legend_below(figure, axes, gos.shape[1])
    overall = gos.loc["all"].sort_values(ascending=False)
    worst = gos.drop(index="all").min(axis=1).idxmin()
    finding = (
        f"{method_name(overall.index[0])} accepts most, {overall.iloc[0]:.2f} %; {service_name(worst)} is served least"
    )
    numbers = ", ".join(f"{method_name(method)} {value:.2f} %" for method, value in overall.items())
    caption = f"Held-out day {day}, one seed, three attempts a request; all requests: {numbers}."
    return finish(figure, finding, caption, numbers)


def gos_table(decisions: Mapping[str, pd.DataFrame]) -> Table:
    """Show the same as numbers, and how much was refused as too dear."""
    gos = gos_by_service(decisions)
    frame = gos.map(lambda value: f"{value:.2f}").rename(columns=method_name)
    frame.insert(0, "GoS, %", [service_name(service) if service != "all" else "all requests" for service in gos.index])
    refused = [f"{100 * (d['cause'] == 'refused').mean():.2f}" for d in decisions.values()]
    frame.loc["refused"] = ["refused, % of all", *refused]
    return Table(
        frame, "Accepted over offered requests; refused: a route was there, but too dear.", ours=(len(gos) - 1,)
    )


def import_answer(imported: Imported, scenario: Scenario, decisions: Mapping[str, pd.DataFrame]) -> Answer:
    """Say what came of bringing the network: what was read, what was assumed, and the grades of service."""
    filled = imported.assumptions.set_index("quantity")
    ruled = [quantity for quantity in filled.index if filled.loc[quantity, "by_rule"]]
    overall = gos_by_service(decisions).loc["all"].sort_values(ascending=False)
    grades = listing(f"{method_name(method)} {value:.2f} %" for method, value in overall.items())
    raised = scenario.settings.source.latency_before_ms if scenario.settings.source else {}
    bounds = f" The bounds of {listing(map(service_name, raised))} had to be raised." if raised else ""
    trained = listing(METHOD_NAMES[method] for method in decisions if method in METHOD_NAMES)
    return Answer(
        f"{imported.name} has {imported.network.n_nodes} nodes and {imported.network.n_links} directed links. "
        f"The file left {listing(ruled) or 'nothing'} to rules, which the scenario records.{bounds} "
        f"All services can be completed in time from every area. On a held-out day: {grades}."
        + (f" {trained} trained briefly, so this says that it works, not how good it gets." if trained else "")
    )
