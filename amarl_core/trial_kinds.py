"""The two kinds of trial that every study needs: train a team, and serve a day by a team or a routing rule."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from amarl_core import stats
from amarl_core.agents import train
from amarl_core.audit import audit
from amarl_core.baselines import RULES, SLOW_RULES, Baseline, baseline, tuned
from amarl_core.config import ALL_METHODS, TrainConfig, make_config
from amarl_core.errors import AmarlError, RunError
from amarl_core.evaluation import EVAL_ATTEMPTS, EVAL_LAG_S, EVAL_WINDOW, Played, play_trace
from amarl_core.routing import CAUSES
from amarl_core.runs import RunFolder, read_json
from amarl_core.scenario import load_scenario
from amarl_core.simulation import ORDERS
from amarl_core.teams import Run, load_run
from amarl_core.traces import Trace
from amarl_core.trials import Kind, Trial, take
from amarl_core.windows import held

KEPT = 4
"""Scenarios, days and teams that a process keeps for the next trial."""


# ------------------------------------------------------------------------------------ what a process keeps
@lru_cache(KEPT)
def _kept_scenario(place: str) -> Any:
    return load_scenario(place)


@lru_cache(KEPT)
def _kept_day(place: str, digest: str, day: str) -> Trace:
    return find_day(_kept_scenario(place), day)


@lru_cache(KEPT)
def _kept_team(folder: Path, digest: str, place: str, scenario_digest: str) -> Run:
    return load_run(folder, _kept_scenario(place))


def forget() -> None:
    """Let go of what this process keeps, so that files that were changed are read again."""
    for kept in (_kept_scenario, _kept_day, _kept_team):
        kept.cache_clear()


def name_scenario(place: str | Path) -> dict[str, str]:
    """Return a scenario's place and the digest of its content."""
    return {"place": str(place), "digest": _kept_scenario(str(place)).digest}


def open_scenario(named: Mapping[str, str]) -> Any:
    """Return the scenario that a trial names.

    Raises:
        RunError: It is not the one that was named: its files have changed since.
    """
    if _kept_scenario(named["place"]).digest != named["digest"]:
        forget()
    scenario = _kept_scenario(named["place"])
    if scenario.digest != named["digest"]:
        raise RunError(
            f"scenario {named['place']}: its digest is {scenario.digest[:12]}; expected {named['digest'][:12]}, as "
            "when the study was read. Its files were changed while the study ran; start the study again"
        )
    return scenario


def find_day(scenario: Any, day: str) -> Trace:
    """Return a held-out day by its name, or day 3 of training seed 7 as "train-7-3".

    Raises:
        AmarlError: There is no such day.
    """
    if day in scenario.test_days:
        return scenario.test_trace(day)
    words = day.split("-")
    if len(words) != 3 or words[0] != "train" or not (words[1] + words[2]).isdecimal():
        valid = ", ".join(scenario.test_days)
        raise AmarlError(f"day is {day!r}; expected one of {valid}, or train-SEED-DAY, such as train-7-0")
    return scenario.training_trace(int(words[1]), days=1, first_day=int(words[2]))


def run_digest(folder: Path) -> str:
    """Return the sha256 of a finished run's settings and weights.

    Raises:
        RunError: The run is not finished.
    """
    place = RunFolder(folder).require_finished()
    digest = hashlib.sha256()
    for path in [place.path / "config.json", *sorted((place.path / "model").glob("*"))]:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------- train
class Train(Kind):
    """Train a team: scenario, and any field of `TrainConfig`."""

    name = "train"

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """See `Kind.resolve`."""
        defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
        values = take(given, {"scenario": ..., **defaults}, "a train trial")
        scenario = name_scenario(values.pop("scenario"))
        config = dataclasses.asdict(make_config(**values))
        # 1 and 1.0 are one setting, and have to have one digest
        floats = {key: float(value) for key, value in config.items() if isinstance(defaults[key], float)}
        return {"scenario": scenario, "config": config | floats}

    def label(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See `Kind.label`."""
        config = values["config"]
        return {"scenario": values["scenario"]["place"], "policy": config["method"], "seed": config["seed"]}

    def run(self, trial: Trial, study: Path) -> None:
        """Train, or go on from the checkpoint of a training that was stopped or killed."""
        scenario = open_scenario(trial.values["scenario"])
        train(scenario, config=make_config(**trial.values["config"]), folder=study / trial.place)

    def outcome(self, place: RunFolder) -> dict[str, Any]:
        """Return what the training took, and the grade of service it ended with."""
        timing, progress = place.json("timing.json"), place.frame("progress.parquet")
        last = progress.groupby("agent").last()
        figures = {key: value for key, value in timing.items() if isinstance(value, int | float)}
        return figures | {"train_gos": float(last["accepted"].sum() / last["requests"].sum())}


# ---------------------------------------------------------------------------------------------------- serve
class Serve(Kind):
    """Serve a day, audit it, and keep its figures.

    Keys: scenario; by (a method, which is trained first, a rule, or the folder of a finished run); seed of the training
    or of a random rule; train (settings of the training, among them its scenario); settings (of a rule; the tuned ones
    by default); day (held-out, or "train-SEED-DAY"); order, attempts, lag_s and window as `play_trace` takes them;
    keep (whether decisions and ledger are kept as well). A key that does not concern `by` is left out.
    """

    name = "serve"
    defaults: Mapping[str, Any] = {
        "scenario": ...,
        "by": ...,
        "day": ...,
        "seed": 0,
        "train": {},
        "settings": {},
        "order": "arrival",
        "attempts": EVAL_ATTEMPTS,
        "lag_s": EVAL_LAG_S,
        "window": EVAL_WINDOW,
        "keep": False,
    }

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """See `Kind.resolve`."""
        values = take(given, self.defaults, f"a {self.name} trial")
        scenario = name_scenario(values["scenario"])
        loaded = _kept_scenario(scenario["place"])
        day = values["day"]
        if day not in loaded.test_days:
            find_day(loaded, day)
        by = self._resolve_by(values)
        serving = _resolve_serving(values, "rule" in by)
        day = {"name": day, "sha256": loaded.test_day_sha256.get(day)}
        return {"scenario": scenario, "by": by, "day": day, "keep": bool(values["keep"]), **serving}

    def _resolve_by(self, values: Mapping[str, Any]) -> dict[str, Any]:
        by = values["by"]
        if by in ALL_METHODS:
            given = {"scenario": values["scenario"], "method": by, "seed": values["seed"], **values["train"]}
            return {"train": TRAIN.trial(**given).values}
        if by in (*RULES, *SLOW_RULES):
            seed = {"seed": values["seed"]} if by == "random_feasible" else {}
            settings = {**tuned(by).settings, **seed, **values["settings"]}
            return {"rule": by, "settings": dict(baseline(by, **settings).settings)}
        if not Path(by).is_dir():
            known = ", ".join((*ALL_METHODS, *RULES, *SLOW_RULES))
            raise AmarlError(f"by is {by!r}; expected one of {known}, or the folder of a finished run")
        config = read_json(Path(by) / "config.json")
        known = {"method": config["method"], "seed": config["seed"]}
        return {"run": {"place": str(by), "digest": run_digest(Path(by)), **known}}

    def needs(self, values: Mapping[str, Any]) -> tuple[Trial, ...]:
        """Return the training of the team, if one is to be trained."""
        return (Trial(TRAIN, values["by"]["train"]),) if "train" in values["by"] else ()

    def label(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See `Kind.label`."""
        by = values["by"]
        about = by["train"]["config"] if "train" in by else by.get("run", {})
        return {
            "scenario": values["scenario"]["place"],
            "policy": by.get("rule") or about["method"],
            "seed": about.get("seed", by.get("settings", {}).get("seed")),
            "day": values["day"]["name"],
            "order": values["order"],
            "attempts": values.get("attempts"),
        }

    def policy(self, values: Mapping[str, Any], study: Path) -> Run | Baseline:
        """Return who serves: a team, loaded once a process, or a rule."""
        by, scenario = values["by"], values["scenario"]
        if "rule" in by:
            return baseline(by["rule"], **by["settings"])
        if "run" in by:
            folder, digest = Path(by["run"]["place"]), by["run"]["digest"]
        else:
            trained = self.needs(values)[0]
            folder, digest = study / trained.place, trained.digest
        return _kept_team(folder, digest, scenario["place"], scenario["digest"])

    def measure(self, trial: Trial, study: Path, place: RunFolder) -> dict[str, Any]:
        """Serve the day and return its figures; see `figures_of`."""
        values = trial.values
        scenario = open_scenario(values["scenario"])
        policy = self.policy(values, study)
        trace = _kept_day(values["scenario"]["place"], values["scenario"]["digest"], values["day"]["name"])
        options = {key: values[key] for key in ("attempts", "lag_s", "window") if key in values}
        if "lag_s" in options and options["lag_s"] is None:  # JSON has no word for infinity
            options["lag_s"] = math.inf
        played = play_trace(policy, trace, values["order"], scenario=scenario, **options)
        if values["keep"]:
            for name in ("decisions", "ledger", "moves"):
                if getattr(played, name) is not None:
                    place.save_frame(f"{name}.parquet", getattr(played, name))
        if isinstance(policy, Baseline):
            trace = held(trace, policy.waits_s)
        return figures_of(played, scenario, trace, values["order"])


def _resolve_serving(values: Mapping[str, Any], is_rule: bool) -> dict[str, Any]:
    """Return how the day is served: order, attempts, and lag or window, whichever the order knows; rules know none."""
    order, attempts, lag_s, window = (values[key] for key in ("order", "attempts", "lag_s", "window"))
    if order not in ORDERS:
        raise AmarlError(f"order is {order!r}; expected one of {', '.join(ORDERS)}")
    if is_rule:
        if order != "arrival":
            raise AmarlError(f"order is {order!r}; a rule serves in order of arrival")
        return {"order": order}
    for name, value, least in (("attempts", attempts, 1), ("window", window, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise AmarlError(f"{name} is {value!r}; expected an integer of at least {least}")
    if order != "free":
        return {"order": order, "attempts": attempts, "window": window}
    if not isinstance(lag_s, int | float) or not lag_s >= 0:
        raise AmarlError(f"lag_s is {lag_s!r}; expected seconds, at least 0 (inf for no bound)")
    return {"order": order, "attempts": attempts, "lag_s": float(lag_s)}


def figures_of(played: Played, scenario: Any, trace: Trace, order: str) -> dict[str, Any]:
    """Audit a served day and return its figures.

    Args:
        played: The served day.
        scenario: The world.
        trace: The requests as they were served.
        order: Of the commits.

    Returns:
        Shares (gos and its kin), latency_ms (mean of the accepted, and by service), rejected (requests by cause),
        conflicts (aborted commits), serve_s (wall-clock s) and the row of the audit.
    """
    decisions = played.decisions
    in_order = "free" if order == "free" else "arrival"
    report = audit(scenario, decisions, played.ledger, trace, order=in_order, moves=played.moves)
    accepted = decisions[decisions["accepted"]]
    latency = accepted.groupby("service", observed=True)["latency_ms"].mean()
    causes = decisions["cause"].astype(str).value_counts().reindex(CAUSES[1:], fill_value=0)
    return {
        "gos": stats.gos(decisions),
        "gos_by_service": _texts(stats.gos_by(decisions, "service")),
        "mean_gos_of_services": stats.mean_gos_of_services(decisions),
        "traffic_gos": stats.traffic_gos(decisions),
        "busy_hour": stats.busy_hour(decisions),
        "busy_hour_gos": stats.busy_hour_gos(decisions),
        "latency_ms": float(accepted["latency_ms"].mean()),
        "latency_ms_by_service": _texts(latency),
        "rejected": _texts(causes),
        "conflicts": played.conflicts,
        "stale": played.stale,
        "steps": played.steps,
        "serve_s": played.clocked.wall_s,
        **{name: value for name, value in report.as_row().items() if name != "seconds"},
        "audit_s": report.seconds,
    }


def _texts(series: pd.Series) -> dict[str, Any]:
    return {str(name): value for name, value in series.items()}


TRAIN, SERVE = Train(), Serve()
