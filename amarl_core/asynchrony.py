"""What asynchrony costs: one trained team served under many commit orders, bounds and numbers of attempts."""

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd

from amarl_core.audit import audit
from amarl_core.evaluation import EVAL_ATTEMPTS, EVAL_LAG_S, EVAL_WINDOW, Played, play_trace
from amarl_core.simulation import ORDERS

log = logging.getLogger(__name__)

WINDOWS = (0, 1, 2, 3, 6, 12)
LAGS_S = (0.0, 1.0, 10.0, 60.0, 600.0, np.inf)
ATTEMPTS = (1, 2, 3, 5)
SHORT = dict(windows=(0, 3, 12), lags_s=(0.0, 60.0, np.inf), attempts=(1, 3))
"""A sweep of half as many settings, for a quick study."""


@dataclass(frozen=True)
class Setting:
    """One way to serve a day; `window` counts in arrival order and pipeline, `lag_s` in free order."""

    sweep: str  # what is varied: window, pipeline, lag or attempts
    order: str
    attempts: int
    window: int = EVAL_WINDOW
    lag_s: float = EVAL_LAG_S


def settings(
    windows: tuple[int, ...] = WINDOWS, lags_s: tuple[float, ...] = LAGS_S, attempts: tuple[int, ...] = ATTEMPTS
) -> list[Setting]:
    """Return the settings of the sweep: windows and lags with 1 and 3 attempts, attempts at the defaults."""
    both = (1, EVAL_ATTEMPTS)
    return [
        *(Setting("window", "arrival", n, window=window) for window in windows for n in both),
        *(Setting("pipeline", "pipeline", n, window=window) for window in windows for n in both),
        *(Setting("lag", "free", n, lag_s=lag_s) for lag_s in lags_s for n in both),
        *(Setting("attempts", order, n) for order in ("arrival", "free") for n in attempts),
    ]


def staleness_s(played: Played) -> float:
    """Return how old, in simulated seconds, the snapshots of accepted requests were on average.

    A snapshot is as old as the last event it saw, measured at the time of arrival of the request that commits on it.
    """
    changes = played.ledger[played.ledger["kind"] != "abort"]
    seen_until = np.maximum.accumulate(changes["t_s"].to_numpy())  # time of the latest event by version - 1
    accepted = played.decisions[played.decisions["accepted"]]
    version = accepted["snapshot_version"].to_numpy()
    has_seen = version > 0
    age = accepted["t_s"].to_numpy()[has_seen] - seen_until[version[has_seen] - 1]
    return float(np.maximum(age, 0.0).mean()) if has_seen.any() else 0.0


def measure(run, trace, setting: Setting) -> dict:
    """Serve a trace once under a setting, audit it, and return one row of the sweep.

    Returns:
        sweep, order, window, lag_s, attempts; gos (%), conflict_rate (aborts over requests), replans (extra attempts
        over requests), stale_events and stale_s (see `staleness_s`), overbooked (% of admissions in simulated time),
        peak (of capacity), lock_wait_s, wall_s, violations.
    """
    played = play_trace(run, trace, setting.order, setting.attempts, lag_s=setting.lag_s, window=setting.window)
    judged_as = "free" if setting.order == "free" else "arrival"
    report = audit(run.scenario, played.decisions, played.ledger, trace, order=judged_as)
    n = max(len(played.decisions), 1)
    return {
        "sweep": setting.sweep,
        "order": setting.order,
        "window": setting.window,
        "lag_s": setting.lag_s,
        "attempts": setting.attempts,
        "gos": 100 * played.decisions["accepted"].mean(),
        "conflict_rate": played.conflicts / n,
        "replans": (played.decisions["attempts"] - 1).sum() / n,
        "stale_events": played.stale,
        "stale_s": staleness_s(played),
        "overbooked": 100 * report.overbooked_share,
        "peak": report.peak,
        "lock_wait_s": played.lock_wait_s,
        "wall_s": played.clocked.wall_s,
        "violations": report.n_violations,
    }


def sweep(runs: list, traces: list, chosen: list[Setting] | None = None) -> pd.DataFrame:
    """Serve every trace by every run under every setting.

    Args:
        runs: trained teams; method and seed of each stand in the result.
        traces: days.
        chosen: the settings; all of `settings()` by default.

    Returns:
        One row a setting, run and trace: method, seed, day and the columns of `measure`.
    """
    rows = []
    for run in runs:
        for trace in traces:
            for order in ORDERS:
                play_trace(run, trace.head(500), order)  # warm before the first clock starts
            for setting in chosen or settings():
                rows.append(dict(method=run.method, seed=run.seed, day=trace.name) | measure(run, trace, setting))
            log.info("asynchrony: %s seed %d on %s, %d settings", run.method, run.seed, trace.name, len(rows))
    return pd.DataFrame(rows)
