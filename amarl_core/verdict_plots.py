"""What became of rejected requests (beside Figure 3): the exact oracle's verdicts, and what binds the unroutable."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from amarl_core.look import (
    CAUSE_COLORS,
    Answer,
    Picture,
    Table,
    drawing,
    finish,
    legend_below,
    method_name,
    new_figure,
    service_name,
)
from amarl_core.plots import sample_size
from amarl_core.records import METHODS
from amarl_core.verdicts import VERDICTS

# As for the causes: a conflict is violet, a dead end red; grey is what nobody could have served.
VERDICT_COLORS = {
    "missed": "#d2626a",
    "lost_race": CAUSE_COLORS["conflict_link"],
    "refused": CAUSE_COLORS["refused"],
    "unroutable": "#b5b5b5",
}
VERDICT_NAMES = {
    "missed": "missed: there was a route",
    "lost_race": "lost race",
    "refused": "refused: there was a route, too dear",
    "unroutable": "unroutable: there was none",
}
BINDING_COLORS = {
    "compute": CAUSE_COLORS["dead_end_compute"],
    "bandwidth": CAUSE_COLORS["dead_end_bandwidth"],
    "latency": CAUSE_COLORS["dead_end_latency"],
    "several": "#9a9a9a",
}
BINDING_NAMES = {name: name for name in BINDING_COLORS} | {"several": "several at once"}
BAR_IN, GAP_IN = 0.17, 0.12


def methods_of(verdicts: pd.DataFrame) -> list[str]:
    """Return the methods of a frame: SARL, AMARL, then the others by name."""
    present = set(verdicts["method"])
    return [m for m in METHODS if m in present] + sorted(present - set(METHODS))


def verdict_shares(verdicts: pd.DataFrame, column: str, by: list[str]) -> pd.DataFrame:
    """Percent of the rejected requests of each group by the values of a column.

    Args:
        verdicts: columns method, seed, day, service, verdict, binding, requests.
        column: `verdict` or `binding`.
        by: columns that make a group, such as ["service", "method"].

    Returns:
        One row a group, one column a value, and `requests`, the size of the group over all seeds and days.
    """
    counts = verdicts.pivot_table(index=by, columns=column, values="requests", aggfunc="sum", fill_value=0)
    requests = counts.sum(axis=1)
    return (100.0 * counts.div(requests.where(requests > 0), axis=0)).assign(requests=requests)


@drawing
def rejection_verdicts(verdicts: pd.DataFrame, label: str = "Figure 3, verdicts") -> Picture:
    """Draw the shares of verdicts by service and method, and what binds the unroutable.

    Args:
        verdicts: tidy counts of rejected requests: method, seed, day, service, verdict, binding, requests
            (`verdicts.tally` makes them).
        label: how the caption begins.
    """
    methods = methods_of(verdicts)
    unroutable = verdicts[verdicts["verdict"] == "unroutable"]
    rejected = verdicts.groupby("service")["requests"].sum()
    services = [str(s) for s in rejected[rejected > 0].sort_values(ascending=False).index]
    height_in = 1.3 + len(services) * (GAP_IN + BAR_IN * max(len(methods), 1))
    figure, panels = new_figure(columns=2, height_in=height_in, share_y=True)
    keys = ["service", "method"]
    _draw_shares(panels[0], verdict_shares(verdicts, "verdict", keys), services, methods, VERDICT_COLORS, VERDICT_NAMES)
    _draw_shares(
        panels[1], verdict_shares(unroutable, "binding", keys), services, methods, BINDING_COLORS, BINDING_NAMES
    )
    panels[0].set(xlabel="share of the service's rejected requests (%)")
    panels[1].set(xlabel="what binds its unroutable requests (%)")
    panels[0].set(
        yticks=range(len(services)),
        yticklabels=[service_name(s) for s in services],
        ylim=(len(services) - 0.45, -0.55),
    )
    for axes in panels:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, fontsize=7.5, handlelength=1.1,
                    columnspacing=1.0)  # fmt: skip
    bars = ", ".join(method_name(m) for m in methods)
    caption = (
        f"{label}. Each rejected request judged by an exact search on the states it met; at a bar's end the number of "
        "requests. What binds is the first of bandwidth, compute, latency that frees the request when it alone is "
        f"lifted. Bars of a service from above: {bars}. {sample_size(verdicts)}, pooled."
    )
    return finish(figure, verdict_finding(verdicts), caption, _as_text(verdicts, methods))


@drawing
def verdicts_by_method(verdicts: pd.DataFrame) -> Picture:
    """Draw the rejected requests a day by verdict, one bar a method, over all services."""
    methods = methods_of(verdicts)
    figure, (axes,) = new_figure(height_in=1.1 + 0.36 * max(len(methods), 1))
    days = verdicts[["method", "seed", "day"]].drop_duplicates().groupby("method").size()
    counts = verdicts.pivot_table(index="method", columns="verdict", values="requests", aggfunc="sum", fill_value=0)
    counts = counts.div(days, axis=0).reindex(index=methods, columns=list(VERDICT_COLORS), fill_value=0)
    left = np.zeros(len(methods))
    for verdict, color in VERDICT_COLORS.items():
        width = counts[verdict].to_numpy(float)
        axes.barh(range(len(methods)), width, left=left, height=0.62, color=color, label=VERDICT_NAMES[verdict])
        left += width
    axes.set(xlabel="rejected requests a day", yticks=range(len(methods)), yticklabels=map(method_name, methods))
    axes.set(ylim=(max(len(methods), 1) - 0.5, -0.5), xlim=(0, None))
    axes.grid(axis="y", visible=False)
    if methods:
        legend_below(figure, axes, columns=3)
    caption = f"Rejected requests by the verdict of an exact search. {sample_size(verdicts)}, means over both."
    return finish(figure, verdict_finding(verdicts), caption, _as_text(verdicts, methods))


def _draw_shares(
    axes: Axes,
    shares: pd.DataFrame,
    services: list[str],
    methods: list[str],
    colors: Mapping[str, str],
    names: Mapping[str, str],
) -> None:
    """Stack shares in horizontal bars, the methods of a service below each other, with n at the end of each."""
    rows = [(service, method) for service in services for method in methods]
    table = shares.reindex(pd.MultiIndex.from_tuples(rows, names=["service", "method"])).fillna(0.0)
    step = 0.8 / max(len(methods), 1)
    middle = (len(methods) - 1) / 2
    places = np.array([services.index(s) + step * (methods.index(m) - middle) for s, m in rows])
    left = np.zeros(len(rows))
    for value, color in colors.items():
        width = table[value].to_numpy(float) if value in table else np.zeros(len(rows))
        axes.barh(places, width, left=left, height=0.86 * step, color=color, label=names[value])
        left += width
    for place, n, (_, method) in zip(places, table["requests"], rows, strict=True):
        text, at = f"{method_name(method)[0]} {n:,.0f}", (100 if n else 0, place)
        axes.annotate(text, at, (3, 0), textcoords="offset points", va="center", fontsize=7, color="#555555")
    axes.set(xlim=(0, 116), xticks=range(0, 101, 25))
    axes.grid(axis="y", visible=False)


def verdict_finding(verdicts: pd.DataFrame) -> str:
    """Say in a sentence how the rejections of AMARL divide (of the first method there is, without AMARL)."""
    methods = methods_of(verdicts)
    who = "amarl" if "amarl" in methods else next(iter(methods), "amarl")
    ours = verdicts[verdicts["method"] == who]
    total = ours["requests"].sum()
    if not total:
        return f"{method_name(who)} rejected 0 requests"
    share = 100 * ours.groupby("verdict")["requests"].sum() / total
    parts = {name: f"{share.get(name, 0):.0f} %" for name in VERDICT_COLORS}
    text = f"Of {method_name(who)}'s rejections {parts['unroutable']} had no route, {parts['refused']} were refused "
    text += f"as too dear, {parts['missed']} had a route that was missed and {parts['lost_race']} lost a race"
    bound = ours[ours["verdict"] == "unroutable"].groupby("binding")["requests"].sum().sort_values(ascending=False)
    if bound.sum() > 0:
        text += f"; {BINDING_NAMES[str(bound.index[0])]} binds {100 * bound.iloc[0] / bound.sum():.0f} % of the first"
    return text


def _as_text(verdicts: pd.DataFrame, methods: list[str]) -> str:
    """Write the shares of every method for those who cannot see the figure."""
    shares = verdict_shares(verdicts, "verdict", ["method"]) if methods else pd.DataFrame()
    return "; ".join(
        f"{method_name(m)}, {shares.loc[m, 'requests']:,.0f} rejected: "
        + ", ".join(f"{v.replace('_', ' ')} {shares.loc[m].get(v, 0):.1f} %" for v in VERDICT_COLORS)
        for m in methods
    )


def verdict_table(verdicts: pd.DataFrame) -> Table:
    """Rejected requests a day by method, and how they divide by verdict and by what binds the unroutable."""
    by_verdict = verdict_shares(verdicts, "verdict", ["method"])
    unroutable = verdicts[verdicts["verdict"] == "unroutable"]
    by_binding = verdict_shares(unroutable, "binding", ["method"])
    rows = []
    for method in methods_of(verdicts):
        days = len(verdicts.loc[verdicts["method"] == method, ["seed", "day"]].drop_duplicates())
        bound = by_binding.loc[method] if method in by_binding.index else {}
        rows.append(
            [method_name(method), f"{by_verdict.loc[method, 'requests'] / days:,.1f}"]
            + [f"{by_verdict.loc[method].get(verdict, 0):.1f}" for verdict in VERDICTS]
            + [f"{bound.get(binding, 0):.1f}" for binding in ("bandwidth", "compute", "latency", "several")]
        )
    columns = ["method", "rejected a day", "unroutable, %", "refused, %", "missed, %", "lost race, %"]
    columns += [f"{name} binds, %" for name in ("bandwidth", "compute", "latency", "several")]
    caption = f"Percent of the method's rejections; of the unroutable for what binds. {sample_size(verdicts)}, pooled."
    return Table(pd.DataFrame(rows, columns=columns), caption)


def verdict_answer(verdicts: pd.DataFrame) -> Answer:
    """Answer in a sentence or two what better routing could still win."""
    text = f"{verdict_finding(verdicts)}."
    for method in (m for m in methods_of(verdicts) if m in METHODS):
        ours = verdicts[verdicts["method"] == method]
        days = len(ours[["seed", "day"]].drop_duplicates())
        avoidable = ours.loc[ours["verdict"] != "unroutable", "requests"].sum() / days
        text += f" {method_name(method)}: {avoidable:,.1f} rejections a day had a route at some point."
    return Answer(text)
