"""What several actors of a service gain where it carries most requests: trainings in turn, and a held-out day."""

import hashlib
import logging
from dataclasses import replace

import numpy as np
import pandas as pd

from amarl_core.agents import train, training_trace
from amarl_core.audit import audit
from amarl_core.errors import AmarlError
from amarl_core.evaluation import play_trace
from amarl_core.runs import usable_cores
from amarl_core.scenario import Scenario

log = logging.getLogger(__name__)

RECORD = "actors.parquet"
FORMS: dict[str, dict] = {
    "sarl": dict(method="sarl"),
    "one": dict(method="amarl", actors="one"),
    "by_load": dict(method="amarl", actors="by_load"),
}
"""The central agent, and AMARL with one actor a service and with as many as the load asks for."""

SHARE = 0.75
HELD_OUT_DAY = 21
"""The first day, a Monday, that no training of three weeks or less sees."""


def skewed(scenario: Scenario, service: str, share: float = SHARE) -> Scenario:
    """Return a scenario in which one service makes a given share of a weekday's requests, and the load is as before.

    Its requests become more and those of all others fewer, each by one factor at all hours and places, so that the
    weekday's load, sum of requests x bandwidth x holding time, stays what it was.

    Args:
        scenario: the world.
        service: the service that is to carry most.
        share: of the requests, above 0 and below 1.

    Raises:
        AmarlError: an unknown service, or a share out of range.
    """
    if service not in scenario.service_ids:
        raise AmarlError(f"service is {service!r}; expected one of {', '.join(scenario.service_ids)}")
    if not 0 < share < 1:
        raise AmarlError(f"share is {share!r}; expected a share of the requests above 0 and below 1")
    rate = scenario.traffic.rate_per_s  # float64[2, S, A, 24]
    requests = rate[0].sum(axis=(1, 2))
    load = scenario.traffic.offered_kbps()[0].sum(axis=(1, 2))
    is_it = np.array(scenario.service_ids) == service
    factor = np.where(is_it, share / requests[is_it].sum(), (1 - share) / requests[~is_it].sum())
    factor *= load.sum() / (factor * load).sum()
    return replace(
        scenario,
        name=f"{scenario.name}, {100 * share:g} % {service}",
        traffic=replace(scenario.traffic, rate_per_s=rate * factor[:, None, None]),
        digest=hashlib.sha256(f"{scenario.digest} {service} {share!r}".encode()).hexdigest(),
    )


def busiest_service(scenario: Scenario) -> str:
    """Return the service with the largest share of the offered load, which can carry most without a lighter network."""
    return max(scenario.services, key=lambda one: one.busy_load_share).service


def measure(scenario: Scenario, repeats: int, days: int, seed: int = 0, **choices: object) -> pd.DataFrame:
    """Train every form in turn, repeat by repeat with another seed, audit it, and serve a held-out day by it.

    Args:
        scenario: the world; see `skewed`.
        repeats: trainings of each form; the order alternates.
        days: training days of each, at most `HELD_OUT_DAY`.
        seed: of the first repeat.
        **choices: any other field of the configuration.

    Returns:
        One row a training: repeat, seed, form, actors (of the busiest agent), share (of all decisions that it makes,
        %), train_s, cpu_s, wait_s, updates, env_steps, conflicts (% of requests, in training), gos (%, held-out day),
        violations, days, cores (that the machine lends).
    """
    for form in FORMS.values():
        train(scenario, seed=seed, days=1, **(choices | form))  # compiles and warms up
    day, rows = scenario.training_trace(seed=seed, days=1, first_day=HELD_OUT_DAY), []
    for repeat in range(repeats):
        for name in list(FORMS)[:: 1 if repeat % 2 == 0 else -1]:
            run = train(scenario, seed=seed + repeat, days=days, **(choices | FORMS[name]))
            about = {"repeat": repeat, "seed": run.seed, "form": name, "days": days, "cores": usable_cores()}
            rows.append(about | _row(scenario, run, day))
        log.info("actors: %s", ", ".join(f"{row['form']} {row['train_s']:.2f} s" for row in rows[-len(FORMS) :]))
    return pd.DataFrame(rows)


def _row(scenario: Scenario, run, day) -> dict:
    """Return what a training took, and how it serves a day."""
    decisions, ledger = run.simulation.decisions(), run.simulation.ledger()
    report = audit(scenario, decisions, ledger, training_trace(scenario, run.config), order="free")
    played = play_trace(run, day)
    served = audit(scenario, played.decisions, played.ledger, day)
    agents = run.timing["by_agent"].values()
    busiest = max(agents, key=lambda entry: entry["steps"])
    return {
        "actors": busiest["actors"],
        "share": 100 * busiest["steps"] / run.timing["env_steps"],
        "train_s": run.timing["train_s"],
        "cpu_s": run.timing["cpu_s"],
        "wait_s": float(sum(entry["wait_s"] for entry in agents)),
        "updates": run.timing["updates"],
        "env_steps": run.timing["env_steps"],
        "conflicts": 100 * decisions["cause"].isin(["conflict_link", "conflict_node"]).mean(),
        "gos": 100 * played.decisions["accepted"].mean(),
        "violations": report.n_violations + served.n_violations,
    }
