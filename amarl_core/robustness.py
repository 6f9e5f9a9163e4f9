"""How policies trained on ordinary days fare when demand or network change: every overlay, served without retraining.

A shift is an overlay of the study's scenario (`data/overlays/`); "ordinary" is the scenario itself. Every method serves
the same requests of a day, in order of arrival with the attempts of the headline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from amarl_core.audit import audit
from amarl_core.baselines import baseline, tuned
from amarl_core.config import METHODS
from amarl_core.errors import RunError
from amarl_core.evaluation import Played, play_trace
from amarl_core.latency_drift import latency_drift
from amarl_core.overlays import ORDINARY, known_overlays, read_overlay
from amarl_core.runs import RunFolder, read_frame, read_json
from amarl_core.scenario import OVERLAYS_FOLDER, SEPARATOR, Scenario, find_overlay
from amarl_core.stats import traffic_gos
from amarl_core.studies import Study
from amarl_core.teams import load_run
from amarl_core.traces import Trace
from amarl_core.trial_kinds import name_scenario, open_scenario, run_digest
from amarl_core.trials import Kind, Trial, take
from amarl_core.worklist import Report, run

COMPARED_RULES = ("priced_admission", "priced_reservation", "shortest_feasible")
"""The best two rules of the ordinary day, and the plain one."""

TWO_DAYS = (ORDINARY,)
"""Families that a full study serves on a weekday and a weekend day; the others on the weekday, for time's sake."""

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


class ServeShift(Kind):
    """Serve one day of one shift by every run and rule: scenario (with its overlay), day, runs, rules.

    Sizes and drift are measured on the ordinary day only. A trial is a day rather than a policy, so that the scenario
    and its day are made once.
    """

    name = "shift"

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """See `Kind.resolve`; `runs` are folders of finished runs, or what `describe_run` says of them."""
        values = take(given, {"scenario": ..., "day": ..., "runs": ..., "rules": list(COMPARED_RULES)}, "a shift trial")
        runs = [run if isinstance(run, Mapping) else describe_run(Path(run)) for run in values["runs"]]
        rules = {rule: dict(tuned(rule).settings) for rule in values["rules"]}
        return {"scenario": name_scenario(values["scenario"]), "day": values["day"], "runs": runs, "rules": rules}

    def label(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See `Kind.label`."""
        return {"scenario": values["scenario"]["place"], "day": values["day"]}

    def measure(self, trial: Trial, study: Path, place: RunFolder) -> dict[str, Any]:
        """Serve the day by everybody; the frames are records of the trial."""
        scenario = open_scenario(trial.values["scenario"])
        trace = scenario.test_trace(trial.values["day"])
        is_ordinary = not scenario.overlays
        rows, sizes, drift = [], [], []
        for method, seed, audited, policy in _policies(trial.values, scenario):
            played = play_trace(policy, trace, scenario=scenario)
            who = dict(method=method, seed=seed, day=trial.values["day"])
            rows.append(about(scenario) | who | serve_day(scenario, trace, played, audited))
            if is_ordinary:
                sizes.append(accepted_by_size(played.decisions).assign(**who))
                drift.append(latency_drift(played.decisions, scenario).assign(**who))
        place.save_frame("shifts.parquet", pd.DataFrame(rows))
        if is_ordinary:
            place.save_frame("sizes.parquet", pd.concat(sizes, ignore_index=True))
            place.save_frame("drift.parquet", pd.concat(drift, ignore_index=True))
        return {"served": len(rows), "requests": len(trace), "violations": sum(row["violations"] > 0 for row in rows)}


SHIFT = ServeShift()


def describe_run(folder: Path) -> dict[str, Any]:
    """Return a finished run's place, digest, method and seed."""
    config = read_json(folder / "config.json")
    named = {"method": config["method"], "seed": config["seed"]}
    return {"place": str(folder), "digest": run_digest(folder)} | named


def measure(
    folder: Path, scenario: str, seeds: list[int], shifts: list[Shift], jobs: int = 2
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Serve every shift by all trained runs of a study and by the compared rules; what is finished is loaded.

    Args:
        folder: The study's folder, with finished runs of both methods.
        scenario: Name of its scenario, which the runs were trained on.
        seeds: Of the runs.
        shifts: From `shifts_of`.
        jobs: Processes at once, 0 for this one alone.

    Returns:
        Three frames. Shifts: one row an overlay, method, seed and day (see `serve_day`). Sizes: accepted and offered
        requests of the ordinary days by method, seed, day, service and class of request size. Drift: flow-time over
        the latency bound on the ordinary days, by method, seed, day, service and hour (see `latency_drift`).

    Raises:
        RunError: A day could not be served; the message says which and why.
    """
    runs = [describe_run(folder / method / f"seed={seed}") for method in METHODS for seed in seeds]
    ordered = sorted(shifts, key=lambda shift: -_work(shift))  # the longest first, so that no core waits for it
    trials = [
        SHIFT.trial(scenario=_changed(scenario, shift), day=day, runs=runs) for shift in ordered for day in shift.days
    ]
    study = Study("shifts", "What do policies accept under shifts that they were not trained on?", tuple(trials))
    report = run(study, folder, jobs=jobs)
    if not report.ok:
        raise RunError(report.summary())
    served = {name: _collect(report, f"{name}.parquet") for name in ("shifts", "sizes", "drift")}
    rows = served["shifts"].sort_values(["overlay", "method", "seed", "day"], ignore_index=True)
    return rows, served["sizes"], served["drift"]


def _changed(scenario: str, shift: Shift) -> str:
    return scenario if shift.overlay == ORDINARY else f"{scenario}{SEPARATOR}{shift.overlay}"


def _collect(report: Report, name: str) -> pd.DataFrame:
    """Stack one record of all trials that have it."""
    paths = [report.folder / ended.trial.place / name for ended in report.ended]
    return pd.concat([read_frame(path) for path in paths if path.exists()], ignore_index=True)


def _work(shift: Shift) -> float:
    """Return about how long a shift takes, over the ordinary day."""
    overlay = None if shift.overlay == ORDINARY else read_overlay(find_overlay(shift.overlay))
    return 1.5 if overlay is None else overlay.load_factor * float(np.mean([1.0, *overlay.service_factors.values()]))


def _policies(values: Mapping[str, Any], scenario: Scenario) -> Iterator[tuple[str, int, bool, Any]]:
    """Yield every run and rule of a trial as method, seed, whether it is audited, and policy.

    Audited are the first seed of each method, and the rules on the ordinary day: all would take half as long again.
    """
    first = min(known["seed"] for known in values["runs"])
    for known in values["runs"]:
        yield known["method"], known["seed"], known["seed"] == first, load_run(Path(known["place"]), scenario)
    for rule, settings in values["rules"].items():
        yield rule, 0, not scenario.overlays, baseline(rule, **settings)


def about(scenario: Scenario) -> dict[str, Any]:
    """Describe a shift: overlay, family, title, digest; the service whose demand changes, if it is one, and factor."""
    if not scenario.overlays:
        known = {"overlay": ORDINARY, "family": ORDINARY, "title": "An ordinary day"}
        return known | {"digest": scenario.digest, "service": "", "factor": 1.0}
    overlay = scenario.overlays[-1]
    factors = dict(overlay.service_factors)
    service, factor = next(iter(factors.items())) if len(factors) == 1 else ("", overlay.load_factor)
    known = {"overlay": overlay.name, "family": overlay.family, "title": overlay.title}
    return known | {"digest": scenario.digest, "service": service, "factor": factor}


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
