"""Places and services as somebody else's table names them, translated into the nodes and services of a scenario."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from amarl_core.errors import TraceError, problem
from amarl_core.foreign.trace_files import Codes
from amarl_core.foreign.trace_mappings import DestinationRule, ServiceRule, SourceRule
from amarl_core.tables import names

if TYPE_CHECKING:
    from amarl_core.scenario import Scenario
    from amarl_core.traffic import Traffic

SKIPPED = -1


def node_of_places(
    codes: Codes, rule: SourceRule | DestinationRule, scenario: Scenario, seed: int, *, only_areas: bool
) -> np.ndarray:
    """Return the node of each different place of a column.

    Args:
        codes: The places.
        rule: How they are translated.
        scenario: Whose nodes.
        seed: For the rule "population": the draw depends on it and on the place's name only.
        only_areas: Whether a node must be an area of the scenario, because its own destination rules will be used.

    Returns:
        Node index, int32 [number of places], `SKIPPED` where a place is unknown and left out.

    Raises:
        TraceError: A place is unknown, or the table names no node of the scenario.
    """
    index = scenario.network.node_index
    for place, node in rule.table.items():
        if node not in index:
            raise TraceError(problem(None, None, f"mapping: table[{place!r}]", node, f"a known node: {names(index)}"))
    is_drawn = isinstance(rule, SourceRule) and rule.rule == "population"
    draw = _population_draw(scenario, seed) if is_drawn else None
    areas = set(scenario.traffic.area_node.tolist())
    node = np.empty(len(codes.texts), dtype=np.int32)
    for code, place in enumerate(codes.texts):
        if place in rule.table:
            node[code] = index[rule.table[place]]
        elif draw is not None:
            node[code] = draw(place)
        elif place in index:
            node[code] = index[place]
        elif rule.unknown == "skip":
            node[code] = SKIPPED
        else:
            codes.fail(
                code,
                f"a place of the mapping's table or a known node: {names(index)}",
                f"Add it to the table in the mapping's {rule.section.rstrip('.')}, or say unknown = 'skip' there.",
            )
        if only_areas and node[code] != SKIPPED and int(node[code]) not in areas:
            codes.fail(
                code,
                "a place whose node is an area of areas.csv, from which the scenario's destination rules start",
                "Give destination.column, or map it to an area.",
            )
    return node


def population_share(scenario: Scenario) -> np.ndarray:
    """Return each area's share of the residents, float64 [A]; even shares if nobody lives anywhere."""
    people = scenario.traffic.population
    return people / people.sum() if people.sum() > 0 else np.full(len(people), 1 / len(people))


def _population_draw(scenario: Scenario, seed: int) -> Callable[[str], int]:
    cumulative = np.cumsum(population_share(scenario))

    def draw(place: str) -> int:
        # by a hash, so that a place's area does not depend on which other places occur, nor in which order
        digest = hashlib.sha256(f"{seed} {place}".encode()).digest()
        area = np.searchsorted(cumulative, int.from_bytes(digest[:8], "big") / 2**64, side="right")
        return int(scenario.traffic.area_node[min(int(area), len(cumulative) - 1)])

    return draw


def area_of_nodes(traffic: Traffic) -> np.ndarray:
    """Return the area of each node, int64 [N], -1 where it is none."""
    area = np.full(len(traffic.node_ids), -1)
    area[traffic.area_node] = np.arange(len(traffic.area_node))
    return area


def service_of_names(codes: Codes, rule: ServiceRule, scenario: Scenario) -> np.ndarray:
    """Return the service index of each different name of a column, int16 [number of names]."""
    index = {service: s for s, service in enumerate(scenario.service_ids)}
    for name, service in rule.table.items():
        if service not in index:
            raise TraceError(
                problem(None, None, f"mapping: service.table[{name!r}]", service, f"a known service: {names(index)}")
            )
    found = [index.get(rule.table.get(name, name), -1) for name in codes.texts]
    if -1 in found:
        codes.fail(found.index(-1), f"a known service: {names(index)}", "Correct it, or translate it in service.table.")
    return np.array(found, dtype=np.int16)


def fixed_shares(rule: ServiceRule, scenario: Scenario) -> np.ndarray | None:
    """Return the share of each service that a rule fixes, float64 [S]; None for the generator's mix."""
    shares: Mapping[str, float] = {rule.constant: 1.0} if rule.constant else rule.shares
    if not shares:
        return None
    for service in shares:
        if service not in scenario.service_ids:
            raise TraceError(
                problem(None, None, "mapping: service", service, f"a known service: {names(scenario.service_ids)}")
            )
    return np.array([shares.get(service, 0.0) for service in scenario.service_ids])


def generator_mix(traffic: Traffic, *, in_load: bool) -> np.ndarray:
    """Return the share of each service in the generator's requests, or in the load they offer.

    Returns:
        float64 [2, A + 1, 24, S] by [kind of day, area, hour, service]; the last area is all of them together, which
        also stands in for an area or hour in which nobody asks.
    """
    rate = np.moveaxis(traffic.offered_kbps() if in_load else traffic.rate_per_s, 1, 3)  # [2, A, 24, S]
    rate = np.concatenate([rate, rate.sum(axis=1, keepdims=True)], axis=1)
    everything = rate[:, -1].sum(axis=(0, 1))  # [S]
    together = np.where(rate[:, -1:].sum(axis=3, keepdims=True) > 0, rate[:, -1:], everything)
    rate = np.where(rate.sum(axis=3, keepdims=True) > 0, rate, together)
    return rate / rate.sum(axis=3, keepdims=True)
