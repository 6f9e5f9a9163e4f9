"""The ablation between SARL and AMARL: {one policy, six policies} x {serial, asynchronous}, and what else differs."""

import logging

import numpy as np
import pandas as pd

from amarl_core.agents import train, training_trace
from amarl_core.audit import audit
from amarl_core.config import SELFISH
from amarl_core.evaluation import play_trace

log = logging.getLogger(__name__)

FORMS: dict[str, dict] = {
    "sarl-async": dict(method="sarl-async"),  # six actors, one policy
    "amarl-serial": dict(method="amarl-serial"),  # six policies, one thread
    "amarl-sync": dict(method="amarl-sync"),  # six agents that wait for each other at every update
    "sarl-wide": dict(method="sarl", width=106),  # one policy of as many parameters as AMARL's six together
    "amarl-lag-60": dict(method="amarl", lag_s=60.0),  # clocks of training closer together than the study's
    "amarl-lag-600": dict(method="amarl", lag_s=600.0),
    "amarl-lag-inf": dict(method="amarl", lag_s=np.inf),
    "amarl-obliging": dict(method="amarl", may_refuse=False),  # serves whatever it can
    "amarl-selfish": dict(method="amarl", **SELFISH),
}
"""Each form as what it changes in the configuration of the study."""


def train_and_test(
    scenario, form: str, seed: int, traces: list, **choices: object
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train one form and serve some days by it, in order of arrival with the attempts of the headline.

    Args:
        scenario: the world.
        form: a name in `FORMS`.
        seed: of the training.
        traces: days to serve.
        **choices: of the study, as `agents.train` takes them.

    Returns:
        One row a day (form, seed, day, gos in %, and of the training: train_s, cpu_s, env_steps, updates, wait_s for
        the slowest clock, idle_s at the barrier, both summed over agents, parameters, violations, overbooked % and
        peak), and the progress of the training with form and seed.
    """
    run = train(scenario, seed=seed, **(choices | FORMS[form]))
    decisions, ledger = run.simulation.decisions(), run.simulation.ledger()
    report = audit(scenario, decisions, ledger, training_trace(scenario, run.config), order="free")
    models = {id(model): model for model in run.models}.values()
    by_agent = run.timing["by_agent"].values()
    about = {
        "form": form,
        "seed": seed,
        "train_s": run.timing["train_s"],
        "cpu_s": run.timing["cpu_s"],
        "env_steps": run.timing["env_steps"],
        "updates": run.timing["updates"],
        "wait_s": sum(entry["wait_s"] for entry in by_agent),
        "idle_s": sum(entry["idle_s"] for entry in by_agent),
        "parameters": sum(p.numel() for model in models for p in model.policy.parameters()),
        "violations": report.n_violations,
        "overbooked": 100 * report.overbooked_share,
        "peak": report.peak,
    }
    rows = []
    for day in traces:
        played = play_trace(run, day)
        served = audit(scenario, played.decisions, played.ledger, day)
        gos = 100 * played.decisions["accepted"].mean()
        rows.append(about | {"day": day.name, "gos": gos, "violations": about["violations"] + served.n_violations})
    log.info(
        "%s seed %d: GoS %.2f %%, trained in %.1f s", form, seed, np.mean([r["gos"] for r in rows]), about["train_s"]
    )
    return pd.DataFrame(rows), run.progress.assign(form=form, seed=seed)
