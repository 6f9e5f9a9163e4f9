"""Trained policies and rules on days that went wrong: links and sites that fail, telemetry that is late, slow locks.

    python -m amarl_core.disruptions --study full

Nobody is trained again. Every day is audited, and days with a failure once more by `outage_audit`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core import reaction
from amarl_core.audit import audit
from amarl_core.baselines import Baseline, tuned
from amarl_core.config import METHODS
from amarl_core.evaluation import EVAL_ATTEMPTS
from amarl_core.failures import FAILURES_FILE, REFERENCE, Failure, locate, read_failures
from amarl_core.late_news import AGES_S, outcome, play_late
from amarl_core.outage_audit import check_outage
from amarl_core.outages import Disrupted, Outage, first_part, play_outage, server
from amarl_core.recovery import by_minute, summarise
from amarl_core.runs import ROOT, read_json, write_frame
from amarl_core.scenario import load_scenario
from amarl_core.teams import load_run

log = logging.getLogger(__name__)

FOLDER = "disruptions"
"""Folder of a study with records `failures_*`, `minutes_*`, `telemetry_*` of every part, and `locks_*`, `times_*`."""

COMMAND = "python -m amarl_core.disruptions"
RULES_PART, WHOLE_PART = "rules", "all"
DISRUPTED_RULES = ("shortest_feasible", "priced_reservation", "priced_admission")
MOST_REPEATS = 5
"""Timed servings of each kind at most."""

HOUR_MIN = 60
"""Minutes on record before a failure and after its repair."""


def label(policy) -> dict:
    """Return method and seed of a run or a rule, as records name them."""
    is_rule = isinstance(policy, Baseline)
    return {"method": policy.name, "seed": 0} if is_rule else {"method": policy.method, "seed": policy.seed}


def outages_of(scenario, trace, failures: Iterable[Failure]) -> list[tuple[Failure, Outage]]:
    """Say what fails on a day: the same for every method."""
    reference = server(tuned(REFERENCE), scenario)
    decisions = first_part(reference, trace, np.inf).decisions
    return [(failure, locate(failure, scenario, decisions)) for failure in failures]


def measure_failures(policy, scenario, trace, outages: list[tuple[Failure, Outage]]) -> tuple[list[dict], pd.DataFrame]:
    """Serve a day once for every outage by one policy.

    Returns:
        A row each: method, seed, day, failure, resources (names), the columns of `recovery.summarise`, violations (of
        `outage_audit`) and audit_violations; and the minutes of `recovery.by_minute`, failure by failure.
    """
    serve, rows, minutes = server(policy, scenario), [], []
    names = (*scenario.network.link_ids, *scenario.network.node_ids)
    parts, ordinary = {}, first_part(serve, trace, np.inf).decisions
    for failure, outage in outages:
        if outage.starts_s not in parts:
            parts[outage.starts_s] = first_part(serve, trace, outage.starts_s)
        repair = round((outage.ends_s - outage.starts_s) / 60)
        until_s = outage.ends_s + 60.0 * HOUR_MIN
        served = play_outage(serve, parts[outage.starts_s], trace, outage, until_s)
        counted = by_minute(served.decisions, ordinary, outage.starts_s, -HOUR_MIN, repair + HOUR_MIN)
        about = label(policy) | {"day": trace.name, "failure": failure.name}
        found = check_disrupted(scenario, served, trace)
        failed = {"resources": ", ".join(names[r] for r in outage.resources)}
        rows.append(about | failed | summarise(counted, served.decisions, repair) | found)
        minutes.append(counted.assign(**about))
    return rows, pd.concat(minutes, ignore_index=True)


def check_disrupted(scenario, served: Disrupted, offered) -> dict[str, int]:
    """Judge a day with an outage by both audits; return the number of violations of each."""
    outage = served.outage
    found = check_outage(scenario, served.decisions, outage.resources, outage.starts_s, outage.ends_s, offered)
    report = audit(scenario, served.decisions, served.ledger, served.trace)
    return {"violations": sum(found.values()), "audit_violations": report.n_violations}


def measure_telemetry(policy, scenario, trace, ages_s: Iterable[float] = AGES_S) -> list[dict]:
    """Serve a day once for every age of telemetry; return a row each, with the columns of `late_news.outcome`."""
    rows = []
    for age_s in ages_s:
        simulation = play_late(policy, trace, age_s, EVAL_ATTEMPTS, scenario)
        report = audit(scenario, simulation.decisions(), simulation.ledger(), trace)
        about = label(policy) | {"day": trace.name, "age_s": age_s}
        rows.append(about | outcome(simulation) | {"violations": report.n_violations})
    return rows


def disrupt(folder: Path, info: dict, part: str, path: str | Path = FAILURES_FILE) -> None:
    """Measure one part of a study and write its records.

    Args:
        folder: the study's.
        info: its `study.json`.
        part: "seed=0" for both learners with that seed, `RULES_PART`, or `WHOLE_PART` for all of them.
        path: file of failures.
    """
    scenario = load_scenario(info["scenario"])
    seeds = [] if part == RULES_PART else [part] if part != WHOLE_PART else [f"seed={seed}" for seed in info["seeds"]]
    policies = [load_run(folder / method / seed, scenario) for seed in seeds for method in METHODS]
    if part in (RULES_PART, WHOLE_PART):
        policies += [tuned(name) for name in DISRUPTED_RULES]
    days = [scenario.test_trace(day) for day in failure_days(info)]
    rows, minutes, late = [], [], []
    for day in days:
        outages = outages_of(scenario, day, read_failures(path).values())
        for policy in policies:
            found, counted = measure_failures(policy, scenario, day, outages)
            rows += found
            minutes.append(counted)
        log.info("failures: %s on %s, %d of %d days", part, day.name, len(minutes) // len(policies), len(days))
    for policy in policies:
        late += measure_telemetry(policy, scenario, days[0])
        log.info("telemetry: %s on %s", label(policy)["method"], days[0].name)
    for name, frame in (("minutes", pd.concat(minutes, ignore_index=True)), ("telemetry", pd.DataFrame(late))):
        write_frame(folder / FOLDER / f"{name}_{part}.parquet", frame)
    write_frame(folder / FOLDER / f"failures_{part}.parquet", pd.DataFrame(rows))  # last: the part is whole


def time_reaction(folder: Path, info: dict) -> None:
    """Time decisions, commits and locks of a study's first seed on its first day; nothing else should run meanwhile."""
    scenario = load_scenario(info["scenario"])
    runs = [load_run(folder / method / f"seed={info['seeds'][0]}", scenario) for method in METHODS]
    threads = reaction.THREADS if info["profile"] == "full" else reaction.THREADS[::2]
    servings, quantiles = reaction.measure(
        runs, scenario.test_trace(info["test_days"][0]), min(info["repeats"], MOST_REPEATS), threads
    )
    write_frame(folder / FOLDER / "times_all.parquet", quantiles)
    write_frame(folder / FOLDER / "locks_all.parquet", servings)


def failure_days(info: dict) -> list[str]:
    """Return the weekdays of a study on which things fail: two, or one in a short study."""
    return [day for day in info["test_days"] if "weekend" not in day][:2]


def parts_of(info: dict) -> list[str]:
    """Return the parts of a study that are measured apart, side by side; a short study has one."""
    if len(info["seeds"]) == 1:
        return [WHOLE_PART]
    return [*(f"seed={seed}" for seed in info["seeds"]), RULES_PART]


def main() -> int:
    """Measure a study that is trained, part by part."""
    parser = argparse.ArgumentParser(description="Serve days with failures and with late telemetry.")
    parser.add_argument("--study", default="full", help="a folder below reports/runs, or the path of one")
    parser.add_argument("--failures", default=str(FAILURES_FILE), help="a file such as data/failures.toml")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = Path(options.study)
    if "/" not in options.study:
        folder = Path(__file__).resolve().parent.parent / ROOT / options.study
    info = read_json(folder / "study.json")
    for part in parts_of(info):
        disrupt(folder, info, part, options.failures)
    time_reaction(folder, info)
    return 0


if __name__ == "__main__":
    sys.exit(main())
