"""A world changed by an overlay: its capacities, links, placement and traffic, as new objects.

Where people want to go stays what it was when links fail or weaken: destinations are those of the whole network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from amarl_core.errors import ScenarioError, problem
from amarl_core.overlays import HotSpot, Overlay
from amarl_core.services import Function
from amarl_core.tables import Column, names, read_csv
from amarl_core.topology import Network
from amarl_core.traffic import HOURS, Traffic, check_volume

VENUES_FILE = "venues.csv"
VENUE_COLUMNS = {
    "name": Column("text", unique=True),
    "node_id": Column("text"),
    "lat": Column("float", least=-90, most=90, unit="degrees"),
    "lon": Column("float", least=-180, most=180, unit="degrees"),
    "capacity": Column("int", above=0),
}
ALL = "all"
_BY_LINK = ("link_ids", "source", "target", "capacity_kbps", "delay_ms", "length_km")


def overlaid_network(network: Network, overlay: Overlay) -> Network:
    """Return the network with an overlay's capacities, and without the links that failed."""
    ends = [(network.tier[u], network.tier[v]) for u, v in zip(network.source, network.target, strict=True)]
    pairs = ["-".join(sorted(pair)) for pair in ends]
    link_factors = {_sorted_pair(key, network): factor for key, factor in overlay.link_factors.items()}
    links = _factors(overlay, "capacity.links", link_factors, network.link_ids, pairs)
    compute = _factors(overlay, "capacity.compute", overlay.compute_factors, network.node_ids, list(network.tier))
    changed = replace(
        network,
        capacity_kbps=np.maximum(1, np.round(network.capacity_kbps * links)).astype(np.int64),
        compute_mcpu=np.round(network.compute_mcpu * compute).astype(np.int64),
    )
    return _without(changed, overlay) if overlay.failed_links else changed


def overlaid_placement(
    rate: np.ndarray, network: Network, functions: tuple[Function, ...], overlay: Overlay
) -> np.ndarray:
    """Return millicores for each Gb/s by node and function, int64 [N, F], with an overlay's hosts.

    A node that hosted a function already keeps its own rate for it.
    """
    index, changed = {function.function: f for f, function in enumerate(functions)}, rate.copy()
    for node, hosted in overlay.placement.items():
        v = _known(overlay, "placement", node, network.node_index)
        if network.compute_mcpu[v] == 0:
            raise _wrong(overlay, f"placement.{node}", node, "a node with compute")
        changed[v] = -1
        for function in hosted:
            f = _known(overlay, f"placement.{node}", function, index)
            changed[v, f] = rate[v, f] if rate[v, f] >= 0 else functions[f].mcpu_per_gbps
    return changed


def overlaid_traffic(traffic: Traffic, folder: Path, overlay: Overlay) -> Traffic:
    """Return the traffic with an overlay's load, mix, events, arrivals and holding times.

    Args:
        traffic: As it is without.
        folder: The scenario's folder, where venues.csv is.
        overlay: What changes.
    """
    index = {service.service: s for s, service in enumerate(traffic.services)}
    rate = traffic.rate_per_s * overlay.load_factor
    for service, factor in overlay.service_factors.items():
        rate[:, _known(overlay, "traffic.services", service, index)] *= factor
    if overlay.hot_spots:
        ordinary, venues = rate.copy(), _read_venues(folder)
        for spot in overlay.hot_spots:
            rate += ordinary * _extra(traffic, spot, venues, overlay)  # events of one hour add up
    check_volume(rate)
    arrivals = overlay.arrivals if overlay.arrivals.is_bursty else traffic.arrivals
    holding = overlay.holding if overlay.holding.shape else traffic.holding
    return replace(traffic, rate_per_s=rate, arrivals=arrivals, holding=holding)


def _extra(traffic: Traffic, spot: HotSpot, venues: Mapping[str, tuple[str, int]], overlay: Overlay) -> np.ndarray:
    """Return an event's requests over those of an ordinary day, float64 [S, A, 24]; an hour counts by its part."""
    node, people = spot.node, spot.attendance
    if spot.venue:
        _known(overlay, "hot_spots.venue", spot.venue, venues)
        node, capacity = venues[spot.venue]
        people = capacity if people is None else people
    areas = {traffic.node_ids[v]: a for a, v in enumerate(traffic.area_node)}
    a = _known(overlay, "hot_spots.node", node, areas)
    services = {service.service: s for s, service in enumerate(traffic.services)}
    chosen = [_known(overlay, "hot_spots.services", name, services) for name in spot.services or services]
    hours = np.arange(HOURS)
    during = np.clip(np.minimum(hours + 1, spot.from_h + spot.hours) - np.maximum(hours, spot.from_h), 0, 1)  # [24]
    extra = np.zeros((len(services), len(areas), HOURS))
    for s in chosen:
        if spot.factor is not None:
            more = spot.factor - 1
        else:
            wants = traffic.attraction[s, a]
            more = traffic.services[s].attract_population * people * spot.activity / wants if wants > 0 else 0.0
        extra[s, a] = more * during
    return extra


def _read_venues(folder: Path) -> dict[str, tuple[str, int]]:
    """Return site and capacity of each venue of a scenario; a scenario may have none."""
    if not (folder / VENUES_FILE).is_file():
        return {}
    table = read_csv(folder / VENUES_FILE, VENUE_COLUMNS, ScenarioError)
    return dict(zip(table["name"], zip(table["node_id"], table["capacity"].tolist(), strict=True), strict=True))


def _factors(
    overlay: Overlay, key: str, given: Mapping[str, float], ids: tuple[str, ...], groups: list[str]
) -> np.ndarray:
    """Return the product of all factors that apply to each of n things, float64 [n]."""
    factor = np.ones(len(ids))
    for name, value in given.items():
        applies = np.array([name in (ALL, one, group) for one, group in zip(ids, groups, strict=True)])
        if not applies.any():
            valid = f"{ALL}, one of {', '.join(sorted(set(groups)))}, or an id such as {ids[0]}"
            raise _wrong(overlay, key, name, valid)
        factor[applies] *= value
    return factor


def _sorted_pair(key: str, network: Network) -> str:
    """Return a pair of tiers in the order of the alphabet, and anything else as it is."""
    tiers = key.split("-")
    return "-".join(sorted(tiers)) if len(tiers) == 2 and set(tiers) <= set(network.tier) else key


def _without(network: Network, overlay: Overlay) -> Network:
    """Return the network without an overlay's failed links, in both directions."""
    failed = [_known(overlay, "failed.links", link, network.link_index) for link in overlay.failed_links]
    ends = {frozenset((int(network.source[e]), int(network.target[e]))) for e in failed}
    both = zip(network.source.tolist(), network.target.tolist(), strict=True)
    kept = np.array([frozenset(pair) not in ends for pair in both])
    parts = {name: getattr(network, name) for name in (f.name for f in fields(network)) if name in _BY_LINK}
    left = {name: values[kept] for name, values in parts.items() if name != "link_ids"}
    return replace(network, link_ids=tuple(np.array(network.link_ids)[kept].tolist()), **left)


def _known(overlay: Overlay, key: str, name: str, index: Mapping[str, object]) -> int:
    """Return the index of a name, or list the known ones."""
    if name not in index:
        known = names(index) if index else f"nothing: the scenario has no {VENUES_FILE}"
        raise _wrong(overlay, key, name, f"one of {known}" if index else known)
    return index[name]


def _wrong(overlay: Overlay, key: str, value: str, expected: str) -> ScenarioError:
    remedy = f"The overlay is meant for {overlay.base}." if overlay.base else "Correct the name."
    return ScenarioError(problem(overlay.path, None, key, value, expected, remedy))
