"""Why requests fail (Figure 3): causes by service and hour, and the resources on which commits abort."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from amarl_core.look import (
    CAUSE_COLORS,
    CAUSE_NAMES,
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
from amarl_core.plots import HOURS, sample_size
from amarl_core.records import METHODS, gos


def failure_shares(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Failures by method, service and cause.

    Returns:
        Columns method, service, cause, per_day (requests a day, mean over seeds), share (percent of the
        service's requests).
    """
    offered = outcomes.groupby(["method", "service"])["requests"].sum()
    failed = (
        outcomes[outcomes["cause"] != "accepted"]
        .groupby(["method", "service", "cause"])["requests"]
        .sum()
        .reset_index()
    )
    days = len(outcomes[["seed", "day"]].drop_duplicates())
    total = offered.loc[list(zip(failed["method"], failed["service"], strict=True))].to_numpy()
    return failed.assign(per_day=failed["requests"] / days, share=100 * failed["requests"] / total).drop(
        columns="requests"
    )


@drawing
def failure_causes(outcomes: pd.DataFrame, label: str = "Figure 3") -> Picture:
    """The paper's Figure 3: causes of failure by service and method, in requests a day and in percent.

    Args:
        outcomes: from `records.load_outcomes`.
        label: how the caption begins.
    """
    shares = failure_shares(outcomes)
    dead = (
        shares[shares["cause"].str.startswith("dead_end")]
        .groupby(["service", "method"])["share"]
        .sum()
        .unstack(fill_value=0)
    )
    totals = shares.groupby(["service", "method"])["share"].sum().groupby("service").mean()
    services = sorted(outcomes["service"].unique(), key=lambda s: -totals.get(s, 0))
    figure, panels = new_figure(columns=2, height_in=1.2 + 0.44 * len(services), share_y=True)
    for axes, column, axis_label in zip(
        panels,
        ("per_day", "share"),
        ("failed requests a day", "failed, % of the service's requests"),
        strict=True,
    ):
        _draw_causes(axes, shares, services, column)
        axes.set(xlabel=axis_label, xlim=(0, None))
        axes.grid(axis="y", visible=False)
    panels[0].set(
        yticks=range(len(services)),
        yticklabels=[service_name(s) for s in services],
        ylim=(len(services) - 0.4, -0.6),
    )
    worst = _most_dead_ends(dead)
    if worst is not None:
        for axes in panels:
            axes.axhspan(services.index(worst) - 0.48, services.index(worst) + 0.48, color="#f7f0e3", zorder=0)
    legend_below(figure, panels[0])
    caption = (
        f"{label}. Causes of failure by service: the upper bar of each pair is SARL, the lower AMARL. "
        f"{sample_size(outcomes)}, means over both; shaded: the service with the largest share of dead "
        "ends."
    )
    alt = "; ".join(
        f"{service_name(s)}: dead ends SARL {dead.loc[s].get('sarl', 0):.2f} %, AMARL "
        f"{dead.loc[s].get('amarl', 0):.2f} %"
        for s in services
        if s in dead.index
    )
    return finish(figure, failure_finding(outcomes), caption, alt)


def _draw_causes(axes: Axes, shares: pd.DataFrame, services: list[str], column: str) -> None:
    table = shares.pivot_table(index=["service", "method"], columns="cause", values=column, fill_value=0, aggfunc="sum")
    causes = [cause for cause in CAUSE_COLORS if cause in table.columns]
    rows = [(service, method) for service in services for method in METHODS]
    table = table.reindex(rows, fill_value=0)
    places = np.array([services.index(s) + (-0.19 if m == "sarl" else 0.19) for s, m in rows])
    left = np.zeros(len(rows))
    for cause in causes:
        axes.barh(places, table[cause], left=left, height=0.33, color=CAUSE_COLORS[cause], label=CAUSE_NAMES[cause])
        left += table[cause].to_numpy()
    for place, end, (_, method) in zip(places, left, rows, strict=True):
        axes.annotate(
            method[0].upper(),
            (end, place),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color="#555555",
        )


def _most_dead_ends(dead: pd.DataFrame) -> str | None:
    return str(dead.mean(axis=1).idxmax()) if len(dead) else None


def failure_finding(outcomes: pd.DataFrame) -> str:
    """Say in a sentence where requests fail, from the AMARL runs."""
    shares = failure_shares(outcomes)
    ours = shares[shares["method"] == "amarl"]
    if ours.empty:
        return "No AMARL request failed"
    is_dead = ours["cause"].str.startswith("dead_end")
    of_all = 100 * ours.loc[is_dead, "per_day"].sum() / ours["per_day"].sum()
    by_service = ours[is_dead].groupby("service")["share"].sum()
    if by_service.empty:
        return "No AMARL request ended in a dead end"
    worst = str(by_service.idxmax())
    return (
        f"{of_all:.0f} % of AMARL's failures are dead ends; {service_name(worst)} has most for its "
        f"traffic: {by_service[worst]:.1f} % of its requests"
    )


@drawing
def failures_by_hour(outcomes: pd.DataFrame) -> Picture:
    """Draw the share of requests that fail in each hour by cause, SARL and AMARL side by side."""
    figure, panels = new_figure(columns=2, height_in=3.0, share_y=True)
    offered = outcomes.groupby(["method", "hour"])["requests"].sum()
    failed = outcomes[outcomes["cause"] != "accepted"]
    table = failed.groupby(["method", "hour", "cause"])["requests"].sum().unstack("cause", fill_value=0)
    share = 100 * table.div(offered, axis=0).fillna(0)
    causes = [cause for cause in CAUSE_COLORS if cause in share.columns]
    for axes, method in zip(panels, METHODS, strict=True):
        bottom = np.zeros(24)
        for cause in causes:
            height = share.xs(method, level="method")[cause].reindex(HOURS, fill_value=0).to_numpy()
            axes.bar(HOURS, height, bottom=bottom, width=0.85, color=CAUSE_COLORS[cause], label=CAUSE_NAMES[cause])
            bottom += height
        axes.set(title=method_name(method), xlabel="hour of the day", xticks=range(0, 24, 3))
        axes.grid(axis="x", visible=False)
    panels[0].set_ylabel("failed requests (%)")
    legend_below(figure, panels[0])
    all_failed = failed[failed["method"] == "amarl"].groupby("hour")["requests"].sum().reindex(HOURS, fill_value=0)
    busiest = all_failed.rolling(4).sum().idxmax() if all_failed.sum() else 0
    part = 100 * all_failed.loc[busiest - 3 : busiest].sum() / max(1, all_failed.sum())
    finding = f"{part:.0f} % of AMARL's failures fall between {max(0, busiest - 3)} and {busiest + 1} h"
    return finish(
        figure,
        finding,
        f"Failed over offered requests in each hour, by cause. {sample_size(outcomes)}, pooled.",
    )


@drawing
def conflicts_by_resource(aborts_by_attempts: dict[int, pd.DataFrame], top: int = 8) -> Picture:
    """Draw the aborted commits of AMARL by the link or pool that had no room.

    Args:
        aborts_by_attempts: attempts -> frame from `records.load_aborts`.
        top: number of resources to draw.
    """
    figure, panels = new_figure(columns=len(aborts_by_attempts), height_in=3.0)
    finding = "No commit of AMARL aborted"
    for axes, (attempts, aborts) in zip(panels, sorted(aborts_by_attempts.items()), strict=True):
        ours = aborts[aborts["method"] == "amarl"]
        days = max(1, len(ours[["seed", "day"]].drop_duplicates()))
        per_day = ours.groupby("resource")["aborts"].sum().sort_values(ascending=False) / days
        shown = per_day.head(top)[::-1]
        axes.barh(range(len(shown)), shown, color="#4b3f8f", height=0.62)
        axes.set(
            yticks=range(len(shown)),
            yticklabels=shown.index,
            xlabel="aborted commits a day",
            title=f"{attempts} attempt{'s' * (attempts != 1)}: {per_day.sum():,.0f} a day",
        )
        axes.grid(axis="y", visible=False)
        if len(per_day) and finding.startswith("No"):
            finding = (
                f"{100 * per_day.head(3).sum() / per_day.sum():.0f} % of aborted commits fall on "
                f"{min(3, len(per_day))} of {len(per_day)} resources, most on {per_day.index[0]}"
            )
    n = sample_size(next(iter(aborts_by_attempts.values())))
    caption = (
        f"Commits that found no room, by the first resource that was full (AMARL). {n}, means over both; "
        f"up to {top} shown."
    )
    return finish(figure, finding, caption)


def failure_table(outcomes: pd.DataFrame) -> Table:
    """Requests offered and failed by service and method, and how the failures divide."""
    offered = outcomes.groupby(["service", "method"])["requests"].sum()
    days = len(outcomes[["seed", "day"]].drop_duplicates())
    shares = failure_shares(outcomes)
    rows = []
    for service in offered.index.unique("service"):
        for method in METHODS:
            part = shares[(shares["service"] == service) & (shares["method"] == method)]
            kinds = [
                part.loc[part["cause"].str.startswith(k), "share"].sum() for k in ("dead_end", "conflict", "refused")
            ]
            kinds.append(part["share"].sum() - sum(kinds))
            counts = [f"{offered[(service, method)] / days:,.0f}", f"{part['per_day'].sum():,.1f}"]
            rows.append([service_name(service), method_name(method), *counts, *[f"{abs(k):.2f}" for k in kinds]])
    columns = [
        "service",
        "method",
        "offered a day",
        "failed a day",
        "dead ends, %",
        "conflicts, %",
        "refused, %",
        "hop limit, %",
    ]
    caption = f"Percent of the service's requests. {sample_size(outcomes)}, means over both."
    return Table(pd.DataFrame(rows, columns=columns), caption, text_columns=("method",))


def failure_answer(outcomes: pd.DataFrame) -> Answer:
    """Answer the question of the notebook on causes: how many fail, and why."""
    failed = 100 - gos(outcomes, ["method"])
    shares = failure_shares(outcomes)
    ours = shares[shares["method"] == "amarl"].groupby("cause")["per_day"].sum().sort_values(ascending=False)
    if ours.empty:
        return Answer("No request of AMARL failed.")
    conflicts = 100 * ours[ours.index.str.startswith("conflict")].sum() / ours.sum()
    return Answer(
        f"{failed['amarl']:.2f} % of requests fail with AMARL and {failed['sarl']:.2f} % with SARL. "
        f"{failure_finding(outcomes)}. The most frequent cause is {CAUSE_NAMES[ours.index[0]]} "
        f"({100 * ours.iloc[0] / ours.sum():.0f} %); conflicts between agents make up {conflicts:.1f} %."
    )
