"""Automatic placement: which node hosts which function, by tier, and wider only where a bound demands it.

The rule is Montreal's: access nodes host what is light, edge pools and core nodes host all. If a service is then
late from some area, its functions are hosted at every node with compute; if it is late even so, no placement can
help, since every route may then run its chain where it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from amarl_core.errors import ScenarioError, problem
from amarl_core.services import Function, Service
from amarl_core.topology import Network

ACCESS = "du"
LIGHT_MCPU_PER_GBPS = 1000
"""A function that needs at most this is light: an access node hosts it."""


def place_by_tier(network: Network, services: Iterable[Service], functions: Iterable[Function]) -> np.ndarray:
    """Return millicores for each Gb/s by node and function, int64 [N, F], -1 where not hosted.

    Only functions of some chain are hosted, and only at nodes with compute.
    """
    functions = tuple(functions)
    used = {function for service in services for function in service.chain}
    rate = np.full((network.n_nodes, len(functions)), -1, dtype=np.int64)
    for v in np.flatnonzero(network.compute_mcpu > 0):
        for f, function in enumerate(functions):
            is_light = function.mcpu_per_gbps <= LIGHT_MCPU_PER_GBPS
            if function.function in used and (is_light or network.tier[v] != ACCESS):
                rate[v, f] = function.mcpu_per_gbps
    return rate


def widen(rate: np.ndarray, network: Network, service: Service, functions: Iterable[Function]) -> np.ndarray:
    """Return a placement that hosts a service's functions at every node with compute as well."""
    wider = rate.copy()
    for f, function in enumerate(functions):
        if function.function in service.chain:
            wider[(network.compute_mcpu > 0) & (rate[:, f] < 0), f] = function.mcpu_per_gbps
    return wider


def place(
    network: Network,
    services: tuple[Service, ...],
    functions: tuple[Function, ...],
    worst_ms: Callable[[Service, np.ndarray], float],
) -> tuple[np.ndarray, list[str]]:
    """Place functions by tier, and wider for services that would be late.

    Args:
        network: The network.
        services: The services.
        functions: The functions.
        worst_ms: The worst idle latency of a service under a placement, inf if some request cannot be served.

    Returns:
        The placement, int64 [N, F], and the services for which it was widened.

    Raises:
        ScenarioError: No node has compute.
    """
    if not network.compute_mcpu.any():
        raise ScenarioError(
            problem(None, None, "compute of all nodes", 0, "a node with compute", "Pass Rules(cores_per_gbps=...).")
        )
    rate, widened = place_by_tier(network, services, functions), []
    for service in services:
        if worst_ms(service, rate) > service.latency_ms:
            wider = widen(rate, network, service, functions)
            if worst_ms(service, wider) < worst_ms(service, rate):
                rate = wider
                widened.append(service.service)
    return rate, widened
