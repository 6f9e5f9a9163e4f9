"""How policies trained on ordinary days fare when demand or network change: every overlay, served without retraining.

A shift is an overlay of the study's scenario (`data/overlays/`); "ordinary" is the scenario itself. Every method serves
the same requests of a day, in order of arrival with the attempts of the headline.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from amarl_core.audit import audit
from amarl_core.baselines import tuned
from amarl_core.config import METHODS
from amarl_core.evaluation import Played, play_trace
from amarl_core.latency_drift import latency_drift
from amarl_core.overlays import ORDINARY, known_overlays, read_overlay
from amarl_core.scenario import OVERLAYS_FOLDER, SEPARATOR, Scenario, find_overlay, load_scenario
from amarl_core.stats import traffic_gos
from amarl_core.teams import load_run
from amarl_core.traces import Trace

log = logging.getLogger(__name__)

COMPARED_RULES = ("priced_admission", "priced_reservation", "shortest_feasible")
"""The best two rules of the ordinary day, and the plain one."""

TWO_DAYS = (ORDINARY, "load", "hot spot")
"""Families that a full study serves on a weekday and a weekend day; the others on the weekday."""

N_SIZES = 10
"""Classes of request size, with as many requests of the day in each."""


@dataclass(frozen=True)
class Shift:
    """What is served: an overlay's name, or "ordinary", and on which days."""

    overlay: str
    family: str
    days: tuple[str, ...]


def shifts_of(scenario: str, days: list[str], profile: str) -> list[Shift]:
    """List what a study serves.

    Args:
        scenario: Name of the study's scenario.
        days: A weekday and a weekend day of it.
        profile: "full" takes every overlay meant for the scenario, "smoke" too, any other profile the last of each
            family on the weekday.
    """
    if SEPARATOR in scenario or not (OVERLAYS_FOLDER.parent / scenario).is_dir():
        return [Shift(ORDINARY, ORDINARY, tuple(days))]
    families = {name: read_overlay(find_overlay(name)).family for name in known_overlays(OVERLAYS_FOLDER, scenario)}
    if profile not in ("full", "smoke"):
        families = {name: family for family, name in {family: name for name, family in families.items()}.items()}
        days = days[:1]
    chosen = [Shift(ORDINARY, ORDINARY, tuple(days))]
    for name, family in families.items():
        is_long = family in TWO_DAYS or profile == "smoke"
        chosen.append(Shift(name, family, tuple(days if is_long else days[:1])))
    return chosen


def measure(
    study: Path, scenario: str, seeds: list[int], shifts: list[Shift], n_jobs: int = 2
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Serve every shift by all trained runs of a study and by the compared rules.

    Args:
        study: The study's folder, with finished runs of both methods.
        scenario: Name of its scenario, which the runs were trained on.
        seeds: Of the runs.
        shifts: From `shifts_of`.
        n_jobs: Processes at once.

    Returns:
        Three frames. Shifts: one row an overlay, method, seed and day (see `serve_day`). Sizes: accepted and offered
        requests of the ordinary days by method, seed, day, service and class of request size. Drift: flow-time over
        the latency bound on the ordinary days, by method, seed, day, service and hour (see `latency_drift`).
    """
    tasks = [(shift, day) for shift in shifts for day in shift.days]
    tasks.sort(key=lambda task: -_work(task[0]))  # the longest first, so that no core is left waiting
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    served: list[tuple[pd.DataFrame, ...]] = []
    for part in parallel(joblib.delayed(_serve_all)(study, scenario, seeds, shift, day) for shift, day in tasks):
        served.append(part)
        row = part[0].iloc[0]
        log.info("robustness [%d/%d]: %s on %s", len(served), len(tasks), row["overlay"], row["day"])
    shown = [pd.concat([part[i] for part in served if len(part[i])], ignore_index=True) for i in range(3)]
    shown[0] = shown[0].sort_values(["overlay", "method", "seed", "day"], ignore_index=True)
    return shown[0], shown[1], shown[2]


def _work(shift: Shift) -> float:
    """Return about how long a shift takes, over the ordinary day."""
    overlay = None if shift.overlay == ORDINARY else read_overlay(find_overlay(shift.overlay))
    return 1.5 if overlay is None else overlay.load_factor * float(np.mean([1.0, *overlay.service_factors.values()]))


def _serve_all(
    study: Path, scenario: str, seeds: list[int], shift: Shift, day: str
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Serve one day of one shift by everybody; sizes and drift on the ordinary day only."""
    changed = load_scenario(scenario if shift.overlay == ORDINARY else f"{scenario}{SEPARATOR}{shift.overlay}")
    trace = changed.test_trace(day)
    rows, sizes, drift = [], [], []
    for method, seed, policy in _policies(study, seeds, changed):
        played = play_trace(policy, trace, scenario=changed)
        audited = seed == seeds[0] and (method in METHODS or shift.overlay == ORDINARY)
        who = dict(method=method, seed=seed, day=day)
        rows.append(_about(shift, changed) | who | serve_day(changed, trace, played, audited))
        if shift.overlay == ORDINARY:
            sizes.append(accepted_by_size(played.decisions).assign(**who))
            drift.append(latency_drift(played.decisions, changed).assign(**who))
    empty = pd.DataFrame()
    return pd.DataFrame(rows), pd.concat(sizes) if sizes else empty, pd.concat(drift) if drift else empty


def _policies(study: Path, seeds: list[int], scenario: Scenario) -> Iterator[tuple[str, int, Any]]:
    """Yield every run of the study as method, seed and policy, then the rules."""
    for method in METHODS:
        for seed in seeds:
            yield method, seed, load_run(study / method / f"seed={seed}", scenario)
    for rule in COMPARED_RULES:
        yield rule, 0, tuned(rule)


def _about(shift: Shift, scenario: Scenario) -> dict[str, Any]:
    """Describe a shift: overlay, family, title, digest; the service whose demand changes, if it is one, and factor."""
    overlay = scenario.overlays[0] if scenario.overlays else None
    one = dict(overlay.service_factors) if overlay and len(overlay.service_factors) == 1 else {}
    service, factor = next(iter(one.items()), ("", overlay.load_factor if overlay else 1.0))
    return {
        "overlay": shift.overlay,
        "family": shift.family,
        "title": overlay.title if overlay else "An ordinary day",
        "digest": scenario.digest,
        "service": service,
        "factor": factor,
    }


def serve_day(scenario: Scenario, trace: Trace, played: Played, audited: bool) -> dict[str, Any]:
    """Reduce a served day to one row.

    Returns:
        requests, accepted, gos and traffic_gos (%), conflicts (aborted commits), replanned (requests planned again),
        violations (nan if it was not audited), and for each service offered_, accepted_ and aborted_ (commits).
    """
    decisions = played.decisions
    services = list(scenario.service_ids)
    offered = decisions["service"].value_counts().reindex(services, fill_value=0)
    accepted = decisions.loc[decisions["accepted"], "service"].value_counts().reindex(services, fill_value=0)
    aborted = aborts_by_service(played, trace).reindex(services, fill_value=0)
    violations = np.nan
    if audited:
        violations = audit(scenario, decisions, played.ledger, trace).n_violations
    counts = {"offered": offered, "accepted": accepted, "aborted": aborted}
    return {
        "requests": len(decisions),
        "accepted": int(decisions["accepted"].sum()),
        "gos": 100 * float(decisions["accepted"].mean()),
        "traffic_gos": 100 * traffic_gos(decisions),
        "conflicts": int(aborted.sum()),
        "replanned": int((decisions["attempts"] > 1).sum()),
        "violations": violations,
    } | {f"{name}_{service}": int(count[service]) for name, count in counts.items() for service in services}


def aborts_by_service(played: Played, trace: Trace) -> pd.Series:
    """Count aborted commits by the service of their request; requests of a trace are in order of their ids."""
    aborted = played.ledger.loc[played.ledger["kind"] == "abort", "request_id"].to_numpy()
    service = trace.service[np.searchsorted(trace.request_id, aborted)]
    return pd.Series(np.bincount(service, minlength=len(trace.service_ids)), index=list(trace.service_ids))


def accepted_by_size(decisions: pd.DataFrame) -> pd.DataFrame:
    """Count accepted and offered requests by service and class of request size, smallest first.

    Returns:
        One row a service and class that occurs: service, size (0 to `N_SIZES` - 1), least_kbps and most_kbps of the
        class over all services, requests, accepted.
    """
    demand = decisions["demand_kbps"]
    edges = np.unique(np.quantile(demand, np.arange(1, N_SIZES) / N_SIZES))
    size = np.searchsorted(edges, demand, side="left")
    table = pd.DataFrame({"service": decisions["service"].astype(str), "size": size, "kbps": demand,
                          "accepted": decisions["accepted"]})  # fmt: skip
    bounds = table.groupby("size")["kbps"].agg(least_kbps="min", most_kbps="max")
    counts = table.groupby(["service", "size"])["accepted"].agg(requests="size", accepted="sum").reset_index()
    return counts.join(bounds, on="size")
