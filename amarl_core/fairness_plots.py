"""Who is served: acceptance and aborts by service, by request size, and latency after admission, on ordinary days."""

from __future__ import annotations

import numpy as np
import pandas as pd

from amarl_core.look import (
    METHOD_MARKERS,
    Picture,
    drawing,
    finish,
    legend_below,
    method_name,
    new_figure,
    or_note,
    service_name,
)
from amarl_core.records import METHODS
from amarl_core.robust_plots import color_of, evidence_of, methods_of
from amarl_core.robust_verdict import jain_index, shares_by_service


@or_note
@drawing
def fairness_figure(shifts: pd.DataFrame) -> Picture:
    """Draw the accepted share by service for every method, and aborted commits by service for AMARL."""
    accepted, aborted = shares_by_service(shifts), shares_by_service(shifts, "aborted")
    services = list(accepted.loc["amarl"].sort_values().index)
    figure, (left, right) = new_figure(columns=2, height_in=1.3 + 0.36 * len(services), share_y=True, widths=(1.6, 1))
    methods = methods_of(shifts)
    for place, method in enumerate(methods):
        shift = 0.62 * (place / (len(methods) - 1) - 0.5)
        index = jain_index(accepted.loc[method].to_numpy())
        left.plot(accepted.loc[method, services], np.arange(len(services)) + shift, METHOD_MARKERS.get(method, "D"),
                  color=color_of(method), markersize=5, label=f"{method_name(method)} ({index:.4f})")  # fmt: skip
    right.barh(range(len(services)), aborted.loc["amarl", services], height=0.5, color="#4b3f8f")
    left.set(yticks=range(len(services)), yticklabels=[service_name(s) for s in services],
             ylim=(len(services) - 0.5, -0.5), xlabel="accepted requests (%)")  # fmt: skip
    right.set(xlabel="AMARL's aborted commits\n(% of requests)", xlim=(0, None))
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
    legend_below(figure, left, 3)
    worst, best_rule = services[0], methods[len(METHODS)]
    finding = (
        f"AMARL is hardest on {service_name(worst)}: it accepts {accepted.loc['amarl', worst]:.1f} %, "
        f"{method_name(_kindest(accepted, worst))} {accepted[worst].max():.1f} %"
    )
    caption = (
        "Ordinary days, seeds and days pooled. In brackets: Jain's index of the accepted shares, 1 if all services are "
        "served alike. Three attempts: an aborted commit is planned again. SARL and the rules decide one request after "
        f"the other and never abort. {evidence_of(shifts)}."
    )
    alt = "; ".join(
        f"{service_name(s)}: AMARL {accepted.loc['amarl', s]:.1f} %, SARL {accepted.loc['sarl', s]:.1f} %, "
        f"{method_name(best_rule)} {accepted.loc[best_rule, s]:.1f} %"
        for s in services
    )
    return finish(figure, finding, caption, alt)


def _kindest(accepted: pd.DataFrame, service: str) -> str:
    return str(accepted[service].idxmax())


@or_note
@drawing
def size_figure(sizes: pd.DataFrame) -> Picture:
    """Draw the grade of service by request size for every method.

    Args:
        sizes: From `records.load_sizes`.
    """
    figure, (axes,) = new_figure(height_in=3.2)
    totals = sizes.groupby(["method", "size"])[["requests", "accepted"]].sum()
    share = (100 * totals["accepted"] / totals["requests"]).unstack("size")
    edges = sizes.groupby("size")[["least_kbps", "most_kbps"]].agg({"least_kbps": "min", "most_kbps": "max"}) / 1000
    rules = [m for m in share.mean(axis=1).sort_values(ascending=False).index if m not in METHODS]
    for method in (*METHODS, *rules):
        axes.plot(range(share.shape[1]), share.loc[method], _style_of(method), color=color_of(method), markersize=4.5,
                  marker=METHOD_MARKERS.get(method), label=method_name(method))  # fmt: skip
    names = [f"{low:.0f}–{high:.0f}" for low, high in edges.to_numpy()]
    axes.set(xticks=range(len(names)), xlabel=f"request size (Mb/s), {len(names)} classes of about as many requests",
             ylabel="grade of service (%)")  # fmt: skip
    axes.set_xticklabels(names, rotation=35, ha="right")
    legend_below(figure, axes, 5)
    worst = int(share.loc["amarl"].to_numpy().argmin())
    part = sizes[(sizes["method"] == "amarl") & (sizes["size"] == share.columns[worst])]
    rejected = (part["requests"] - part["accepted"]).groupby(part["service"]).sum()
    finding = (
        f"AMARL accepts least, {share.loc['amarl'].min():.1f} %, of requests of {names[worst]} Mb/s, where most "
        f"rejections are {service_name(str(rejected.idxmax()))}'s; of the largest {share.loc['amarl'].iloc[-1]:.1f} %"
    )
    seeds, days = sizes.loc[sizes["method"].isin(METHODS), "seed"].nunique(), sizes["day"].nunique()
    caption = (
        f"Accepted over offered requests on ordinary days by demand, all services together, pooled over {seeds} "
        f"seed{'s' * (seeds != 1)} and {days} day{'s' * (days != 1)}. Services differ in size, so a class is also a "
        "mix of services."
    )
    return finish(figure, finding, caption)


def _style_of(method: str) -> str:
    return "-" if method in METHODS else "--"


@or_note
@drawing
def drift_figure(drift: pd.DataFrame) -> Picture:
    """Draw the share of flow-time over the latency bound after admission, by service and by hour.

    Args:
        drift: From `records.load_drift`.
    """
    figure, (left, right) = new_figure(columns=2, height_in=3.2, widths=(1, 1.15))
    by_service = _share(drift, ["method", "service"]).unstack("service")
    rules = [method for method in by_service.index if method not in METHODS]
    methods, services = [*METHODS, *rules], list(by_service.mean().sort_values(ascending=False).index)
    worst = services[0]
    by_hour = _share(drift[drift["service"] == worst], ["method", "hour"]).unstack("hour")
    for place, method in enumerate(methods):
        rows, color = np.arange(len(services)) + 0.8 * ((place + 0.5) / len(methods) - 0.5), color_of(method)
        height = 0.8 / len(methods)
        left.barh(rows, by_service.loc[method, services], height, color=color, label=method_name(method))
        right.plot(by_hour.columns, by_hour.loc[method], _style_of(method), color=color, linewidth=1.4)
    left.set(yticks=range(len(services)), yticklabels=[service_name(s) for s in services],
             ylim=(len(services) - 0.5, -0.5), xlabel="flow-time over the bound (%)")  # fmt: skip
    right.set(xlabel="hour of the day", ylabel=f"{service_name(worst)}: over the bound (%)", xticks=range(0, 24, 3))
    left.grid(axis="y", visible=False)
    legend_below(figure, left, 5)
    n_days = drift["day"].nunique()
    over = drift[(drift["method"] == "amarl") & (drift["service"] == worst)]
    excess = np.average(over["excess_ms"].fillna(0), weights=over["over_s"]) if over["over_s"].sum() else 0.0
    finding = (
        f"{service_name(worst)} flows are over their bound for {by_service.loc['amarl', worst]:.2f} % of their time "
        f"with AMARL and {by_service.loc['sarl', worst]:.2f} % with SARL, by {excess:.2f} ms on average"
    )
    if not drift["over_s"].any():
        finding = "No accepted flow came to exceed its latency bound after admission"
    caption = (
        "Every accepted flow met its bound at admission; here its latency is computed again each minute as the nodes "
        "it runs on fill up or empty (processing / (1 − utilisation), its own use included). "
        f"Pooled over seeds and {n_days} ordinary day{'s' * (n_days != 1)}. A method that "
        "admits more of a tight service when pools are full has more to lose here."
    )
    return finish(figure, finding, caption)


def _share(drift: pd.DataFrame, by: list[str]) -> pd.Series:
    """Return flow-time over the bound in percent within each group."""
    sums = drift.groupby(by)[["flow_s", "over_s"]].sum()
    return (100 * sums["over_s"] / sums["flow_s"]).fillna(0.0)
