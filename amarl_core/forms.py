"""The ablation between SARL and AMARL: {one policy, six policies} x {serial, asynchronous}, and what else differs."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core.agents import train, training_trace
from amarl_core.audit import audit
from amarl_core.config import SELFISH
from amarl_core.evaluation import play_trace
from amarl_core.runs import read_frame, record_name
from amarl_core.teams import Run
from amarl_core.traces import Trace

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


def train_form(scenario, form: str, seed: int, folder: Path, **choices: object) -> Run:
    """Train one form into a run folder, or go on with it.

    Args:
        scenario: the world.
        form: a name in `FORMS`.
        seed: of the training.
        folder: the run folder.
        **choices: of the study, as `agents.train` takes them.
    """
    run = train(scenario, seed=seed, folder=folder, **(choices | FORMS[form]))
    log.info("%s seed %d: %s in %.1f s", form, seed, run.status, run.timing["train_s"])
    return run


def serve_form(run: Run, form: str, traces: list[Trace]) -> pd.DataFrame:
    """Audit the training of a form, and serve some days by it, in order of arrival with the attempts of the headline.

    Args:
        run: a finished run, from its folder.
        form: its name.
        traces: days to serve.

    Returns:
        One row a day: form, seed, day, gos in %, and of the training: train_s, cpu_s, env_steps, updates, wait_s for
        the slowest clock, idle_s at the barrier, both summed over agents, parameters, violations, overbooked % and
        peak.
    """
    decisions, ledger = (
        read_frame(run.folder / record_name(kind, "train", "train")) for kind in ("decisions", "ledger")
    )
    report = audit(run.scenario, decisions, ledger, training_trace(run.scenario, run.config), order="free")
    models = {id(model): model for model in run.models}.values()
    by_agent = run.timing["by_agent"].values()
    about = {
        "form": form,
        "seed": run.seed,
        **{name: run.timing[name] for name in ("train_s", "cpu_s", "env_steps", "updates")},
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
        served = audit(run.scenario, played.decisions, played.ledger, day)
        gos = 100 * played.decisions["accepted"].mean()
        rows.append(about | {"day": day.name, "gos": gos, "violations": about["violations"] + served.n_violations})
    log.info("%s seed %d: GoS %.2f %%", form, run.seed, np.mean([row["gos"] for row in rows]))
    return pd.DataFrame(rows)
