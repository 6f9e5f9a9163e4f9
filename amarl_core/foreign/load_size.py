"""Sizing of a scenario's load: how much the network carries in the busy hour when traffic is spread evenly.

All-shortest routes say little about a meshed network, whose traffic can go round a full link. So the busy hour's
mean load is spread over routes round by round (the method of successive averages, as in traffic assignment): each
round prices links and pools exponentially by how full they are and sends a share of all traffic the cheapest way
that is in time. What the fullest link or pool then holds sets the load.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amarl_core.foreign.idle_routes import ChainRoutes

ROUNDS, ROUNDS_IF_LARGE, LARGE = 20, 8, 100
"""Rounds of spreading, and fewer for a network of more nodes than `LARGE`, where each takes seconds."""
STEEPNESS = 12.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fullest:
    """Utilisation of the fullest link and pool for each Gb/s of load, on shortest and on spread routes."""

    shortest_link: float
    shortest_pool: float
    spread_link: float
    spread_pool: float

    def load_gbps(self, utilisation: float) -> float:
        """Return the load that brings the fullest link or pool to a utilisation when traffic is spread."""
        return utilisation / max(self.spread_link, self.spread_pool)


def fullest(
    routes: Sequence[ChainRoutes], offered_kbps: np.ndarray, capacity_kbps: np.ndarray, budget: np.ndarray
) -> Fullest:
    """Spread the busy hour's load over an idle network.

    Args:
        routes: Those of each service, S.
        offered_kbps: Mean load offered by each service and area at 1 Gb/s, float64 [S, A].
        capacity_kbps: Of the links, int64 [E].
        budget: Usable millicores, int64 [N].
    """
    room = np.maximum(budget, 1)

    def utilisation(links: np.ndarray | None, nodes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        loads = [route.load(links, nodes) for route in routes]
        on_links = sum(offered @ load.link for offered, load in zip(offered_kbps, loads, strict=True))
        on_nodes = sum(offered @ load.node for offered, load in zip(offered_kbps, loads, strict=True))
        return on_links / capacity_kbps, on_nodes / room

    links, pools = shortest = utilisation(None, None)
    best = (float(links.max()), float(pools.max()))
    rounds = ROUNDS if len(budget) <= LARGE else ROUNDS_IF_LARGE
    for turn in range(1, rounds + 1):
        top = max(links.max(), pools.max())
        by_link = np.exp(STEEPNESS * (links / top - 1)) / capacity_kbps
        by_pool = np.exp(STEEPNESS * (pools / top - 1)) / room
        new_links, new_pools = utilisation(by_link, by_pool)
        links, pools = (old + (new - old) / (turn + 1) for old, new in ((links, new_links), (pools, new_pools)))
        if max(links.max(), pools.max()) < max(best):
            best = (float(links.max()), float(pools.max()))
        if len(budget) > LARGE:
            logger.info("sizing the load: round %d of %d", turn, rounds)
    return Fullest(float(shortest[0].max()), float(shortest[1].max()), *best)
