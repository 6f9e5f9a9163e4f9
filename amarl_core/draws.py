"""The generator's rules for one request: its bundle, bandwidth, holding time and destination, drawn for many at once.

Bundle and bandwidth of a session are uniform within the service's bounds, holding times exponential (or, in an overlay,
heavy-tailed with the same mean) and in whole milliseconds, so that checksums do not depend on the machine. The order of
the draws is part of the frozen days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from amarl_core.services import Service

if TYPE_CHECKING:
    from amarl_core.traffic import Traffic

DISTRIBUTIONS = ("exponential", "lognormal", "pareto")


@dataclass(frozen=True)
class Holding:
    """How holding times are distributed around a service's mean, which stays what it is.

    Attributes:
        distribution: One of `DISTRIBUTIONS`.
        shape: Of the lognormal its sigma, of the Pareto its tail index alpha (above 1; the variance is infinite up to
            2), of the exponential nothing.
    """

    distribution: str = "exponential"
    shape: float = 0.0


EXPONENTIAL = Holding()
_AT_ONCE = 10_000_000
"""Numbers compared at once, requests times nodes."""


def draw_bundles(services: Sequence[Service], service: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return sessions and kbps of one session for each request, int64 [n] each.

    Args:
        services: The services.
        service: Index of each request's service, int [n].
        rng: Generator to draw from.
    """
    bounds = np.array(
        [(p.bundle_min, p.bundle_max, p.unit_kbps_min, p.unit_kbps_max) for p in services], dtype=np.int64
    )[service]  # [n, 4]
    bundle = rng.integers(bounds[:, 0], bounds[:, 1] + 1)
    return bundle, rng.integers(bounds[:, 2], bounds[:, 3] + 1)


def draw_holds_ms(
    services: Sequence[Service], service: np.ndarray, rng: np.random.Generator, holding: Holding = EXPONENTIAL
) -> np.ndarray:
    """Return the holding time of each request in whole ms, at least 1, float64 [n].

    Every distribution takes the same draws: the request that holds longest under one does so under the others.

    Args:
        services: The services.
        service: Index of each request's service, int [n].
        rng: Generator to draw from.
        holding: How they are distributed.
    """
    hold_mean_s = np.array([p.hold_mean_s for p in services])[service]
    relative = _of_mean_one(rng.standard_exponential(len(service)), holding)
    return np.maximum(1, np.round(relative * hold_mean_s * 1000.0))


def _of_mean_one(exponential: np.ndarray, holding: Holding) -> np.ndarray:
    """Turn exponential draws, float64 [n], into those of another distribution of mean 1 with the same ranks."""
    if holding.distribution == "lognormal":
        return np.exp(-holding.shape * ndtri(np.exp(-exponential)) - holding.shape**2 / 2)
    if holding.distribution == "pareto":
        return (1 - 1 / holding.shape) * np.exp(exponential / holding.shape)
    return exponential


def draw_destinations(traffic: Traffic, service: np.ndarray, area: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a destination for each request by the scenario's rules, node index, int64 [n].

    Args:
        traffic: Whose destinations.
        service: Index of each request's service, int [n].
        area: Index of each request's area, int [n].
        rng: Generator to draw from.
    """
    draw = rng.random(len(service))
    cumulative = np.cumsum(traffic.destination, axis=2)  # [S, A, N]
    cumulative[cumulative > 1 - 1e-9] = 1.0
    destination = np.empty(len(service), dtype=np.int64)
    step = max(1, _AT_ONCE // cumulative.shape[2])
    for i in range(0, len(service), step):  # n x N numbers at once would not fit
        part = slice(i, i + step)
        destination[part] = (draw[part, None] >= cumulative[service[part], area[part]]).sum(axis=1)
    return destination
