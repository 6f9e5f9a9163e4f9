"""When each agent rolled out, waited for a core, updated, and waited for the slowest clock: intervals of a training."""

import threading
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd

INTERVALS = ("rollout", "queue", "update", "lag")
"""A rollout; waiting until an update may have a core; an update; within a rollout, waiting for the slowest clock."""


class Timeline:
    """Collects intervals from the agents' threads; appending to a list needs no lock."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, str, float, float, float]] = []
        self._cpu_s: dict[int, float] = {}  # processor time of each thread at its last note
        self.begin()

    def begin(self) -> None:
        """Count seconds from now on; what was noted so far is forgotten."""
        self.began_s = time.perf_counter()
        self._rows.clear()
        self._cpu_s.clear()

    def note(self, a: int, interval: str, start_s: float) -> float:
        """Note that agent a did something from `start_s` (of `time.perf_counter`) until now; return now."""
        now, cpu_s, thread = time.perf_counter(), time.thread_time(), threading.get_ident()
        self._rows.append((a, interval, start_s, now, cpu_s - self._cpu_s.get(thread, 0.0)))
        self._cpu_s[thread] = cpu_s
        return now

    def frame(self, agents: Sequence[str], waits: Sequence[np.ndarray] = ()) -> pd.DataFrame:
        """Return the intervals in order of their start.

        Args:
            agents: their names.
            waits: of each agent, float64[n, 2] as `stopwatch.waits_of` returns it.

        Returns:
            Columns agent, interval (one of `INTERVALS`), start_s and end_s, in seconds from the beginning, and cpu_s,
            processor time of the agent's thread since its last note (NaN for waits in a rollout, which use none).
        """
        to_ours = time.perf_counter() - time.time()
        lag = [(a, "lag", *(found + to_ours).tolist(), np.nan) for a, rows in enumerate(waits) for found in rows]
        frame = pd.DataFrame([*self._rows, *lag], columns=["agent", "interval", "start_s", "end_s", "cpu_s"])
        frame["agent"] = [agents[a] for a in frame["agent"]]
        frame[["start_s", "end_s"]] -= self.began_s
        return frame.sort_values("start_s", ignore_index=True)
