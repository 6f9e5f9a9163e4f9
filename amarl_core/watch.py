"""What a training is doing right now, and did since it began, read from its counters without holding it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from amarl_core.agents import Training

REQUESTS, ACCEPTED, CONFLICTS, STALE, REWARD, STEPS, CLOCK = range(7)
COUNTERS = ("cursor", "accepted", "conflicts", "stale", "reward", "steps", "clock")
"""Fields of `arena.STREAM` in a sample, all of them sums since the training began but for the clock."""

MOST_SAMPLES = 600
"""More are thinned out, so that hours of training draw as quickly as seconds."""

NOW_S, RATE_S = 4.0, 30.0
"""Seconds that "now" looks back, and over which the time left is estimated."""

POINTS, WINDOW = 100, 0.06
"""Points of a curve, and the share of the time so far that each looks back."""

SECONDS_PER_MINUTE = 60.0


@dataclass(frozen=True)
class Measures:
    """Measures of A agents at T times (or at one, without the first axis); NaN where there was nothing to measure."""

    wall_s: np.ndarray  # float64[T]
    gos: np.ndarray  # float64[T, A], accepted requests, %
    reward: np.ndarray  # of a request
    steps_per_s: np.ndarray
    conflicts: np.ndarray  # % of requests
    staleness: np.ndarray  # versions of the store between snapshot and commit
    lag: np.ndarray  # minutes of simulated time behind the fastest clock


class History:
    """Counters of all agents over time.

    Args:
        agents: their names.
    """

    def __init__(self, agents: Sequence[str]):
        self.agents = tuple(agents)
        self._times: list[float] = [0.0]
        self._samples: list[np.ndarray] = [np.zeros((len(agents), len(COUNTERS)))]  # float64[A, C] each
        self._apart_s = 0.0  # least time between samples, once there are many

    @classmethod
    def of(cls, progress: pd.DataFrame, agents: Sequence[str]) -> History:
        """Return the history of a training's first part, from its progress table."""
        history = cls(agents)
        if progress.empty:
            return history
        times = np.unique(progress["wall_s"].to_numpy(float))
        times = times[:: max(1, 2 * len(times) // MOST_SAMPLES)]
        samples = np.zeros((len(times), len(history.agents), len(COUNTERS)))
        for a, agent in enumerate(history.agents):
            rows = progress[progress["agent"] == agent]
            offered, taken = (np.diff(rows[name], prepend=0) for name in ("requests", "accepted"))
            stale, reward = np.cumsum(rows["staleness"] * taken), np.cumsum(rows["reward"] * offered)
            sums = (rows["requests"], rows["accepted"], rows["conflicts"], stale, reward, rows["steps"],
                    rows["sim_t_s"])  # fmt: skip
            for column, values in enumerate(sums):
                wall, values = np.append(0.0, rows["wall_s"]), np.append(0.0, values)
                samples[:, a, column] = np.interp(times, wall, values)
        history._times += times.tolist()
        history._samples += list(samples)
        return history

    def add(self, wall_s: float, sample: np.ndarray) -> None:
        """Add counters float64[A, C]; the newest replaces the one before when that came but a moment ago."""
        if len(self._times) > 2 and self._times[-1] - self._times[-2] < self._apart_s:
            self._times[-1], self._samples[-1] = wall_s, sample
            return
        self._times.append(wall_s)
        self._samples.append(sample)
        if len(self._times) > MOST_SAMPLES:
            self._times = self._times[:1] + self._times[2::2]
            self._samples = self._samples[:1] + self._samples[2::2]
            self._apart_s = self._times[-1] / MOST_SAMPLES

    def at(self, wall_s: np.ndarray) -> np.ndarray:
        """Return the counters at some times, between samples in proportion: float64[T, A, C]."""
        times = np.array(self._times)
        right = np.clip(np.searchsorted(times, wall_s), 1, max(len(times) - 1, 1))
        right = np.minimum(right, len(times) - 1)
        left = np.maximum(right - 1, 0)
        gap = np.maximum(times[right] - times[left], 1e-9)
        weight = np.clip((wall_s - times[left]) / gap, 0.0, 1.0)[:, None, None]
        before, after = (np.stack([self._samples[i] for i in index]) for index in (left, right))
        return before + weight * (after - before)

    @property
    def wall_s(self) -> float:
        """Seconds of training at the last sample."""
        return self._times[-1]

    @property
    def latest(self) -> np.ndarray:
        """Counters at the last sample: float64[A, C]."""
        return self._samples[-1]

    def measures(self, wall_s: np.ndarray, back_s: float) -> Measures:
        """Return the measures over the `back_s` seconds before each of some times."""
        before, after = self.at(wall_s - back_s), self.at(wall_s)
        new = after - before  # (T, A, C)
        seconds = np.minimum(back_s, np.maximum(wall_s, 1e-9))[:, None]
        clock = after[:, :, CLOCK]
        with np.errstate(invalid="ignore", divide="ignore"):
            return Measures(
                wall_s,
                100 * new[:, :, ACCEPTED] / new[:, :, REQUESTS],
                new[:, :, REWARD] / new[:, :, REQUESTS],
                new[:, :, STEPS] / seconds,
                100 * new[:, :, CONFLICTS] / new[:, :, REQUESTS],
                new[:, :, STALE] / new[:, :, ACCEPTED],
                (clock.max(axis=1, keepdims=True) - clock) / SECONDS_PER_MINUTE,
            )

    def curves(self) -> Measures:
        """Return the measures from the beginning until now."""
        back_s = max(WINDOW * self.wall_s, 0.5)
        return self.measures(np.linspace(min(back_s, self.wall_s), self.wall_s, POINTS), back_s)

    def now(self) -> Measures:
        """Return the measures of the last few seconds."""
        return self.measures(np.array([self.wall_s]), NOW_S)

    def requests_per_s(self) -> float:
        """Return how many requests all agents serve a second, lately."""
        (past, now), seconds = self.at(np.array([self.wall_s - RATE_S, self.wall_s])), min(RATE_S, self.wall_s)
        return float((now - past)[:, REQUESTS].sum() / max(seconds, 1e-9))


class Watch:
    """Looks at a training from another thread: a copy of a few hundred bytes, no lock.

    Args:
        training: whose threads are about to start.
    """

    def __init__(self, training: Training):
        self._training, simulation = training, training.simulation
        self._shared, self._stream = simulation.arena.shared, simulation.arena.lanes.stream
        self.n_requests = max(training.progress.n_requests, 1)
        self.days = training.end_s / 86_400.0
        self._first = training.cast.first  # int64[A], each agent's first actor
        self.requests = np.add.reduceat([len(actor.mine) for actor in simulation.agents], self._first)
        self.n_links = len(simulation.scenario.network.link_ids)
        self.history = History.of(training.progress.frame(), training.run.team.agents)

    def look(self) -> None:
        """Add the counters as they stand to the history."""
        stream = self._stream.copy()
        stream["clock"] = np.minimum(stream["clock"], self._training.end_s)  # later, flows only leave
        counters = np.stack([stream[name].astype(float) for name in COUNTERS], axis=1)  # an actor a row
        sample = np.add.reduceat(counters, self._first)  # (A, C)
        sample[:, CLOCK] = np.minimum.reduceat(counters[:, CLOCK], self._first)
        is_over = all(self._training.is_done) or self._training.simulation.stopped
        if is_over and np.array_equal(sample, self.history.latest):
            return  # nothing is served any more: records are being written
        self.history.add(self._training.progress.wall_s, sample)

    @property
    def share(self) -> float:
        """Share of the requests that are served."""
        return float(self.history.latest[:, REQUESTS].sum() / self.n_requests)

    @property
    def day(self) -> float:
        """Days of simulated time that the slowest agent has behind it."""
        return float(self.history.latest[:, CLOCK].min() / 86_400.0)

    @property
    def left_s(self) -> float:
        """Seconds that are left, at the rate of late; NaN before there is one."""
        rate = self.history.requests_per_s()
        return (1 - self.share) * self.n_requests / rate if rate > 0 else float("nan")

    def updates(self) -> list[int]:
        """Return how many updates each agent has done."""
        return self._training.progress.updates()

    def use(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the used share of each link's capacity, float64[E], and of each node's compute, float64[N]."""
        with np.errstate(invalid="ignore", divide="ignore"):
            share = self._shared.used / self._shared.limit
        return share[: self.n_links], share[self.n_links :]
