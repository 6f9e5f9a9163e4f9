"""Bursty arrivals: a Markov-modulated Poisson process (MMPP) of two states whose mean rate is that of the hour.

A chain is quiet or in a burst. In a burst requests come `burst_factor` times as often as when it is quiet; the quiet
rate is lowered so that the mean stays. Sojourns are exponential, and a day begins in the stationary state. Fischer and
Meier-Hellstern, "The Markov-modulated Poisson process (MMPP) cookbook", Performance Evaluation 18, 1993.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PROCESSES = ("poisson", "mmpp")
SCOPES = ("network", "service", "area", "cell")
BURST_STREAM = 3
"""Branch of a day's random stream that bursts are drawn from, so that the day's other draws stay what they are."""
_DAY_S, _MINUTE_S = 86_400.0, 60.0


@dataclass(frozen=True)
class Arrivals:
    """How requests arrive.

    Attributes:
        process: "poisson" or "mmpp".
        burst_factor: Rate in a burst over the quiet rate.
        burst_share: Share of time in a burst.
        burst_s: Mean length of a burst in s.
        scope: What bursts together: the whole "network", a "service", an "area", or each service of an area ("cell").
    """

    process: str = "poisson"
    burst_factor: float = 1.0
    burst_share: float = 0.5
    burst_s: float = 300.0
    scope: str = "network"

    @property
    def is_bursty(self) -> bool:
        """Whether arrivals are anything but Poisson."""
        return self.process == "mmpp"


POISSON = Arrivals()


def burst_factors(arrivals: Arrivals, n_services: int, n_areas: int, day: np.random.SeedSequence) -> np.ndarray:
    """Return the rate of each minute over that of its hour, float64 [S or 1, A or 1, 1440], of mean 1 in the long run.

    A minute that a burst covers in part has the mean of both rates.

    Args:
        arrivals: How they arrive.
        n_services: Number of services, S.
        n_areas: Number of areas, A.
        day: The day's own seed.
    """
    stream = np.random.SeedSequence(day.entropy, spawn_key=(*day.spawn_key, BURST_STREAM))
    rng = np.random.default_rng(stream)
    shape = {"network": (1, 1), "service": (n_services, 1), "area": (1, n_areas), "cell": (n_services, n_areas)}
    rows, columns = shape[arrivals.scope]
    share = np.stack([_share_in_burst(arrivals, rng) for _ in range(rows * columns)])  # [chains, 1440]
    quiet = 1 / (1 - arrivals.burst_share + arrivals.burst_share * arrivals.burst_factor)
    return quiet * (1 + (arrivals.burst_factor - 1) * share).reshape(rows, columns, -1)


def _share_in_burst(arrivals: Arrivals, rng: np.random.Generator) -> np.ndarray:
    """Draw one chain and return the share of each minute that it spends in a burst, float64 [1440]."""
    quiet_s = arrivals.burst_s * (1 - arrivals.burst_share) / arrivals.burst_share
    begins_in_burst = bool(rng.random() < arrivals.burst_share)
    means = np.array([arrivals.burst_s, quiet_s] if begins_in_burst else [quiet_s, arrivals.burst_s])
    switches = [0.0]
    while switches[-1] < _DAY_S:  # two sojourns at a time
        switches.extend(switches[-1] + np.cumsum(rng.standard_exponential(2) * means))
    times = np.array(switches)
    is_burst = (np.arange(len(times) - 1) % 2 == 0) == begins_in_burst
    in_burst_s = np.concatenate([[0.0], np.cumsum(np.diff(times) * is_burst)])  # until each switch
    edges = np.arange(0.0, _DAY_S + _MINUTE_S, _MINUTE_S)
    return np.diff(np.interp(edges, times, in_burst_s)) / _MINUTE_S
