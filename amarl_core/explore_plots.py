"""What a world asks for and what it leaves: demand by hour, service and area, hosts, slack, the fullest links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from amarl_core.hop_view import HopView
from amarl_core.hop_walk import ALLOWED, STUB
from amarl_core.look import (
    AGENT_COLORS,
    METHOD_COLORS,
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
from amarl_core.map_symbols import tier_words
from amarl_core.maps import Drawing, NetworkMap
from amarl_core.utilisation import Utilisation, heaviest_links

HOURS = np.arange(24)
KINDS = ("weekday", "weekend day")
TWIN_HOURS = (4, 10, 16, 21)
"""Hours of the maps that stand for the slider in an exported page."""


# -------------------------------------------------------------------------------------- the network
def network_map(chart: NetworkMap) -> Drawing:
    """Draw the network without any load, with what it has in the caption."""
    world, network = chart.scenario, chart.scenario.network
    gbps = network.capacity_kbps / 1e6
    cores = world.budget_mcpu[world.budget_mcpu > 0] / 1000
    finding = (
        f"{world.name.capitalize()}: {network.n_nodes} nodes, {network.n_links} directed links of {gbps.min():.3g} to "
        f"{gbps.max():.3g} Gb/s, {len(cores)} nodes with {cores.sum():,.0f} usable cores"
    )
    tiers = dict.fromkeys(network.tier)
    alt = "; ".join(f"{len(network.tier_nodes(tier))} {tier}" for tier in tiers)
    return Drawing(
        (chart.svg(title=finding),),
        "Positions from coordinates, symbols at one place moved apart; thicker links lead to routers and the core. "
        "Hover for names, capacity, delay and hosted functions."
        + (" The outline of the land is approximate." if chart.has_outline else ""),
        f"{finding}. Nodes by tier: {alt}",
    )


# --------------------------------------------------------------------------------------------- demand
def offered_gbps(scenario: Any, kind: int = 0) -> np.ndarray:
    """Return the mean load that a kind of day offers in Gb/s, float64 [S, A, 24]."""
    return scenario.traffic.offered_kbps()[kind] / 1e6


@drawing
def demand_by_service(scenario: Any, kind: int = 0) -> Picture:
    """Draw the offered load by hour, service upon service."""
    load = offered_gbps(scenario, kind).sum(axis=1)  # [S, 24]
    order = np.argsort(-load.sum(axis=1))
    figure, (axes,) = new_figure(height_in=3.1)
    names = [service_name(scenario.service_ids[s]) for s in order]
    colors = [AGENT_COLORS[i % len(AGENT_COLORS)] for i in range(len(names))]
    axes.stackplot(HOURS, load[order], labels=names, colors=colors, alpha=0.85, linewidth=0)
    axes.set(
        xlabel="hour of the day", ylabel="offered load (Gb/s)", xlim=(0, 23), xticks=range(0, 24, 3), ylim=(0, None)
    )
    legend_below(figure, axes, 3)
    total = load.sum(axis=0)
    peak, calm = int(total.argmax()), int(total.argmin())
    first = names[0]
    finding = (
        f"A {KINDS[kind]} asks for {total[peak]:.3g} Gb/s at {peak} h and {total[calm]:.3g} at {calm} h; "
        f"{first} is {100 * load[order[0], peak] / total[peak]:.0f} % of the peak"
    )
    caption = (
        "Mean of the traffic generator, arrivals x bandwidth x holding time, all areas; synthetic. "
        "Demand of a service is stacked on that of the services below."
    )
    alt = "; ".join(f"{name} {load[s, peak]:.3g} Gb/s" for name, s in zip(names, order, strict=True))
    return finish(figure, finding, caption, f"At {peak} h: {alt}")


@drawing
def demand_by_area(scenario: Any, kind: int = 0) -> Picture:
    """Draw the offered load of every area by hour, the busiest area on top."""
    load = offered_gbps(scenario, kind).sum(axis=0)  # [A, 24]
    order = np.argsort(-load.max(axis=1))
    names = [scenario.network.name[scenario.traffic.area_node[a]] for a in order]
    figure, (axes,) = new_figure(height_in=0.9 + 0.165 * max(len(names), 6))
    image = axes.imshow(load[order], aspect="auto", cmap="YlOrBr", vmin=0, interpolation="nearest")
    axes.set(xlabel="hour of the day", xticks=range(0, 24, 3), yticks=range(len(names)))
    axes.set_yticklabels([name if len(name) < 26 else f"{name[:24]}…" for name in names], fontsize=7.5)
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, label="offered load (Gb/s)", shrink=0.7 if len(names) > 12 else 1.0)
    half = int(np.searchsorted(np.cumsum(load[order].sum(axis=1)) / max(load.sum(), 1e-12), 0.5)) + 1
    peak = int(load[order[0]].argmax())
    finding = (
        f"{names[0]} asks for most, {load[order[0], peak]:.3g} Gb/s at {peak} h; "
        f"half of the day's load comes from {half} of {len(names)} areas"
    )
    caption = f"Mean of the traffic generator on a {KINDS[kind]}, all services; darker is more; synthetic."
    busiest = "; ".join(f"{n} {load[a].max():.3g} Gb/s" for n, a in list(zip(names, order, strict=True))[:6])
    return finish(figure, finding, caption, f"Highest by area: {busiest}")


# ------------------------------------------------------------------------------------------ utilisation
def day_maps(chart: NetworkMap, used: Utilisation, label: str, hours: tuple[int, ...] = TWIN_HOURS) -> Drawing:
    """Draw the map at a few hours of a day: what the slider shows, for a page without one."""
    svgs = tuple(chart.svg(used.link_mean[h], used.node_mean[h], title=f"{h}:00 to {h + 1}:00") for h in hours)
    means = "; ".join(
        f"{h} h: links {100 * used.link_mean[h].mean():.0f} % on average, the fullest "
        f"{100 * used.link_mean[h].max():.0f} %, pools {100 * np.nanmean(used.node_mean[h]):.0f} %"
        for h in hours
    )
    busiest, calm = (pick(hours, key=lambda h: used.link_mean[h].mean()) for pick in (max, min))
    e = int(used.link_mean[busiest].argmax())
    finding = (
        f"From {calm} h to {busiest} h links fill from {100 * used.link_mean[calm].mean():.0f} to "
        f"{100 * used.link_mean[busiest].mean():.0f} % on average; {chart.scenario.network.link_ids[e]} is then "
        f"{100 * used.link_mean[busiest, e]:.0f} % in use"
    )
    return Drawing(
        svgs,
        f"Mean use in the hour; each direction of a link is drawn on its right-hand side. Served by: {label}. "
        "Hover for names and figures. Symbols at one place are moved apart.",
        f"{finding}. {means}",
        finding,
    )


@drawing
def fullest_links(used: Utilisation, scenario: Any, label: str, n: int = 6) -> Picture:
    """Draw the links that are fullest in their busiest hour, by hour."""
    table = heaviest_links(used, scenario, n)
    figure, (axes,) = new_figure(height_in=3.1)
    for i, link in enumerate(table["link"]):
        share = 100 * used.link_mean[:, scenario.network.link_index[link]]
        color = AGENT_COLORS[i % len(AGENT_COLORS)]
        axes.plot(np.arange(len(share)), share, color=color, label=link, linestyle=("-", "--", ":")[i // 3 % 3])
    axes.set(xlabel="hour of the day", ylabel="use of capacity (%)", xticks=range(0, 24, 3), ylim=(0, 103))
    legend_below(figure, axes, 3)
    first = table.iloc[0]
    n_full = int((used.link_mean.max(axis=0) > 0.9).sum())
    finding = (
        f"{first['link']} is fullest: {100 * first['mean_busiest']:.0f} % on average at {first['busiest_hour']} h; "
        f"{n_full} of {scenario.network.n_links} links exceed 90 % in some hour"
    )
    return finish(figure, finding, f"Mean use in each hour, the {len(table)} fullest links. Served by: {label}.")


def links_table(used: Utilisation, scenario: Any, label: str, n: int = 12) -> Table:
    """List the fullest links."""
    table = heaviest_links(used, scenario, n)
    rows = pd.DataFrame(
        {
            "link": table["link"],
            "capacity, Gb/s": table["capacity_gbps"].map("{:.4g}".format),
            "delay, ms": table["delay_ms"].map("{:.2f}".format),
            "busiest hour": table["busiest_hour"],
            "mean then, %": (100 * table["mean_busiest"]).map("{:.1f}".format),
            "peak, %": (100 * table["peak"]).map("{:.1f}".format),
            "mean of the day, %": (100 * table["mean_day"]).map("{:.1f}".format),
        }
    )
    return Table(rows, f"Fullest first. Served by: {label}. Peak: at any moment of the day.")


# ---------------------------------------------------------------------------------------- hosts and slack
def hosts_table(scenario: Any) -> Table:
    """Say of each function where it is hosted, what it needs and which services use it."""
    network, rows = scenario.network, []
    for f, function in enumerate(scenario.functions):
        hosts = np.flatnonzero(scenario.rate_mcpu_per_gbps[:, f] >= 0)
        tiers = list(dict.fromkeys(network.tier[v] for v in hosts))
        places = []
        for tier in tiers:
            there = [network.node_ids[v] for v in hosts if network.tier[v] == tier]
            everywhere = len(there) == len(network.tier_nodes(tier))
            all_of_them = f"all {len(there)} {tier_words(tier, len(there))}"
            places.append(all_of_them if everywhere else ", ".join(there))
        users = [service_name(s.service) for s in scenario.services if function.function in s.chain]
        row = [function.function, function.name, f"{function.mcpu_per_gbps:,}", f"{function.processing_ms:g}"]
        rows.append([*row, "; ".join(places) or "nowhere", ", ".join(users) or "none"])
    columns = ["function", "name", "millicores/Gb/s", "processing, ms", "hosted at", "used by"]
    return Table(
        pd.DataFrame(rows, columns=columns), "Fixed placement of the scenario.", ("name", "hosted at", "used by")
    )


def slack_ms(scenario: Any) -> np.ndarray:
    """Return how much of its bound each service leaves from each area, on an idle network.

    Returns:
        float64 [S, A], ms: bound minus the least latency of the whole chain, mean over the destinations by their
        probability; nan where an area asks for none of the service.
    """
    traffic = scenario.traffic
    slack = np.full((len(scenario.service_ids), len(traffic.area_node)), np.nan)
    for s in range(len(slack)):
        least = scenario.delay_to_go[s, 0][:, traffic.area_node].T  # [A, N], by area and destination
        weight = traffic.destination[s]
        mean = np.where(weight > 0, least, 0.0) * weight
        asked = traffic.rate_per_s[:, s].sum(axis=(0, 2)) > 0
        slack[s] = np.where(asked, scenario.latency_ms[s] - mean.sum(axis=1), np.nan)
    return slack


@drawing
def slack_figure(scenario: Any) -> Picture:
    """Draw the slack of every service from every area as a share of the bound."""
    slack = slack_ms(scenario)
    share = 100 * slack / scenario.latency_ms[:, None]
    order = np.argsort(np.nanmin(share, axis=1))
    figure, (axes,) = new_figure(height_in=1.3 + 0.33 * len(order))
    for row, s in enumerate(order):
        axes.plot(share[s], np.full(share.shape[1], row), "o", color="#0b5c8a", alpha=0.3, markersize=6, mew=0)
        axes.plot(np.nanmin(share[s]), row, "o", color="#b0303c", markersize=6)
    names = [f"{service_name(scenario.service_ids[s])} ({scenario.latency_ms[s]:g} ms)" for s in order]
    axes.set(yticks=range(len(order)), yticklabels=names, xlabel="slack, % of the latency bound", xlim=(0, 100))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    tight = int(order[0])
    area = int(np.nanargmin(share[tight]))
    name = scenario.network.name[scenario.traffic.area_node[area]]
    finding = (
        f"{service_name(scenario.service_ids[tight])} leaves least room: from {name} {slack[tight, area]:.2f} ms "
        f"of {scenario.latency_ms[tight]:g} ms even when all is idle"
    )
    caption = (
        "Latency bound minus the least latency of the whole chain on an idle network, a dot for each area (red: the "
        "tightest); mean over its destinations. What load adds must fit in there."
    )
    alt = "; ".join(
        f"{service_name(scenario.service_ids[s])} {np.nanmin(share[s]):.0f} to {np.nanmax(share[s]):.0f} %"
        for s in order
    )
    return finish(figure, finding, caption, f"Slack as a share of the bound: {alt}")


def slack_table(scenario: Any, n: int = 10) -> Table:
    """List the services and areas with least slack, as a share of the bound."""
    slack = slack_ms(scenario)
    share = slack / scenario.latency_ms[:, None]
    order = [i for i in np.argsort(share, axis=None) if np.isfinite(share.flat[i])][:n]
    rows = []
    for i in order:
        s, a = divmod(int(i), share.shape[1])
        area = scenario.network.name[scenario.traffic.area_node[a]]
        rows.append([service_name(scenario.service_ids[s]), area, f"{scenario.latency_ms[s]:g}",
                     f"{slack[s, a]:.2f}", f"{100 * share[s, a]:.0f}"])  # fmt: skip
    columns = ["service", "area", "bound, ms", "slack, ms", "slack, %"]
    return Table(pd.DataFrame(rows, columns=columns), "Tightest first; on an idle network.", ("area",))


def network_answer(scenario: Any, used: Utilisation, label: str) -> Answer:
    """Answer what the network looks like, from the scenario and a day's decisions."""
    load = offered_gbps(scenario).sum(axis=(0, 1))
    h = used.busiest_hour
    full = heaviest_links(used, scenario, 3)["link"].tolist()
    pools = 100 * np.nanmax(used.node_mean[h])
    network = scenario.network
    return Answer(
        f"{network.n_nodes} nodes and {network.n_links} directed links carry {len(scenario.service_ids)} services. A "
        f"weekday asks for {load.min():.3g} to {load.max():.3g} Gb/s. At the busiest hour, {h} h, the fullest link is "
        f"{100 * used.link_mean[h].max():.0f} % in use and the fullest pool {pools:.0f} % ({label}); over the day "
        f"{listing(full)} are the fullest links."
    )


# ------------------------------------------------------------------------------------------- a first result
def ledger_table(ledger: pd.DataFrame, caption: str) -> Table:
    """Show some rows of a ledger, in lock order."""
    rows = pd.DataFrame(
        {
            "event": ledger["kind"].astype(str),
            "agent": ledger["agent"].astype(str),
            "at": [f"{t // 3600}:{t // 60 % 60:02d}:{t % 60:02d}" for t in ledger["t_s"].astype(int)],
            "snapshot": ledger["snapshot_version"].astype(str).replace("-1", ""),
            "state after": ledger["store_version"].astype(str),
            "no room on": ledger["resource"].astype(str),
        }
    )
    return Table(rows, caption, ("agent", "no room on"))


@drawing
def compare_gos(days: Mapping[str, pd.DataFrame], of: str) -> Picture:
    """Draw the grade of service of a few methods on one day, by hour and by service.

    Args:
        days: decisions by method, the one of interest first.
        of: what was served, for the caption.
    """
    figure, (left, right) = new_figure(columns=2, height_in=3.0, widths=(1.3, 1))
    colors = [METHOD_COLORS["amarl"], *REFERENCE_COLORS]
    overall = {name: 100 * float(frame["accepted"].mean()) for name, frame in days.items()}
    services = sorted(next(iter(days.values()))["service"].astype(str).unique())
    for i, (name, frame) in enumerate(days.items()):
        by_hour = 100 * frame.groupby((frame["t_s"] // 3600 % 24).astype(int))["accepted"].mean()
        by_service = 100 * frame.groupby(frame["service"].astype(str))["accepted"].mean().reindex(services)
        style = {"color": colors[i % len(colors)], "marker": "os^"[i % 3], "markersize": 3.5}
        left.plot(by_hour.index, by_hour, label=method_name(name), linestyle="-" if i == 0 else "--", **style)
        right.plot(by_service, np.arange(len(services)) + 0.16 * i, linestyle="none", **style | {"markersize": 6})
    left.set(xlabel="hour of the day", ylabel="grade of service (%)", xticks=range(0, 24, 3))
    right.set(
        yticks=range(len(services)), yticklabels=[service_name(s) for s in services], xlabel="grade of service (%)"
    )
    right.invert_yaxis()
    right.grid(axis="y", visible=False)
    legend_below(figure, left)
    (first, ours), *others = overall.items()
    finding = f"{method_name(first)} accepts {ours:.2f} % of the requests; " + listing(
        f"{method_name(name)} {value:.2f} %" for name, value in others
    )
    caption = f"Accepted over offered requests, {of}. One seed, one day: a first look, no result."
    return finish(figure, finding, caption)


def first_answer(view: HopView, ours: pd.DataFrame, rule: pd.DataFrame, train_s: float) -> Answer:
    """Answer what a first look shows: one request, and what a short training is worth."""
    pruned = sum(n.verdict not in (ALLOWED, STUB) for hop in view.hops for n in hop.neighbours)
    gos, reference = (100 * float(frame["accepted"].mean()) for frame in (ours, rule))
    return Answer(
        f"A request is routed hop by hop ({len(view.links)} links here, {pruned} neighbours pruned by the mask) on a "
        f"snapshot, and a commit takes all of its route or nothing. After {train_s:.0f} seconds of training the agents "
        f"accept {gos:.2f} % of a held-out day's requests, the shortest feasible path {reference:.2f} %: "
        f"{gos - reference:+.2f} points, on one day and one seed."
    )
