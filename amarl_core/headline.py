"""`reports/headline.json`: the study's result in one machine-readable file, computed from its records."""

import os
from pathlib import Path

import numpy as np

from amarl_core.async_plots import forms_of
from amarl_core.disruption_records import robustness_headline
from amarl_core.large_plots import scaling
from amarl_core.paper import Evidence, gather
from amarl_core.perf_records import perf_headline
from amarl_core.plots import interval
from amarl_core.records import (
    METHODS,
    Study,
    conflict_rate,
    gos,
    gos_by_day,
    load_bounds,
    load_forms,
    load_masks,
    load_robustness,
    load_study,
    load_verdicts,
    seconds_to_paper,
)
from amarl_core.reliability import kills_summary, soak_summary
from amarl_core.robust_verdict import summary
from amarl_core.runs import read_json, write_json
from amarl_core.scenario import load_scenario
from amarl_core.seed_tables import seeds_summary
from amarl_core.verdict_plots import verdict_shares


def write_headline(study_folder: Path, reports: Path) -> Path:
    """Write headline.json beside the pages of a finished study; return its path."""
    path = Path(reports) / "headline.json"
    write_json(path, headline(gather(load_study(study_folder))))
    return path


def headline(evidence: Evidence) -> dict:
    """Return the result of a study. GoS in percent, differences in points, times in seconds."""
    study = evidence.study
    stock = evidence.stock
    difference = interval(evidence.gos_difference())
    result: dict = {method: _of_method(evidence, method) for method in METHODS}
    result |= {
        "amarl_minus_sarl": {"mean": difference[0], "ci95": list(difference[1:])},
        "amarl_minus_rule": {rule: _with_interval(evidence.gain_over_rule(rule)) for rule in evidence.rules()},
        "ratio_train": float(np.median(evidence.train_ratio())),
        "ratio_test": float(np.nanmedian(evidence.test_ratio("arrival"))),
        "ratio_test_free": float(np.nanmedian(evidence.test_ratio("free"))),
        "stock_steps_per_s": stock["steps_per_s"],
        "stock_env_steps": stock["env_steps"],
        "speedup_over_stock": evidence.speedup_over_stock(),
        "best_baseline": evidence.rules()[-1],
        "bound": load_bounds(study).to_dict("records"),
        "verdicts": _verdicts(study),
        "forms": _forms(evidence),
        "masks": _masks(study),
        "robustness": summary(load_robustness(study)) | robustness_headline(study.folder),
        "baselines": {rule: float(gos_by_day(evidence.baselines, rule).mean()) for rule in evidence.rules()},
        "gos_attempts_1": {method: float(gos_by_day(evidence.arrival1, method).mean()) for method in METHODS},
        "gos_free": {method: float(gos_by_day(evidence.free3, method).mean()) for method in METHODS},
        "conflict_rate": {variant: conflict_rate(study, variant) for variant in ("arrival3", "arrival1", "free3")},
        "audit_violations": int(evidence.audits["violations"].sum()),
        "audited_runs": len(evidence.audits),
        "machine": _machine(study),
        "seeds": list(study.seeds),
        "test_days": list(study.days),
        "test_day_sha256": {day: load_scenario(study.info["scenario"]).test_day_sha256[day] for day in study.days},
        "profile": study.info["profile"],
        "command": study.info["command"],
        "reproduce_s": study.info["seconds"],
        "reproduce_paper_s": seconds_to_paper(study),
        "ten_seeds": seeds_summary(study.folder.parent),
        "soak": soak_summary(study.folder.parent / "soak"),
        "kills": kills_summary(study.folder.parent / "kills"),
    }
    speed = perf_headline(study)
    return result | speed | {"scaling": {"services": speed["scaling"], **scaling(study.folder)}}


def _of_method(evidence: Evidence, method: str) -> dict:
    """Return one learner's figures; lists are by seed."""
    mean, low, high = interval(gos_by_day(evidence.arrival3, method))
    part = evidence.arrival3[evidence.arrival3["method"] == method]
    timing = evidence.timing[evidence.timing["method"] == method].sort_values("seed")
    test_s = np.nanmedian(evidence.test_s(method), axis=1)
    return {
        "gos_mean": mean,
        "gos_ci95": [low, high],
        "gos_by_service": gos(part, ["service"]).to_dict(),
        "train_s": timing["train_s"].tolist(),
        "train_cpu_s": timing["cpu_s"].tolist(),
        "test_s": test_s.tolist(),
        "env_steps": timing["env_steps"].tolist(),
        "steps_per_s": timing["steps_per_s"].tolist(),
        "updates": timing["updates"].tolist(),
        "peak_rss_mb": float(timing["peak_rss_mb"].max()),
    }


def _verdicts(study: Study) -> dict:
    """Return the share of each method's rejections by verdict, in percent."""
    shares = verdict_shares(load_verdicts(study), "verdict", ["method"]).drop(columns="requests")
    return {method: row.to_dict() for method, row in shares.iterrows()}


def _forms(evidence: Evidence) -> dict:
    """Return GoS (%) and training seconds of the forms between SARL and AMARL, means and medians."""
    forms = forms_of(evidence, load_forms(evidence.study)).groupby("form")
    return {form: {"gos_mean": part["gos"].mean(), "train_s": part["train_s"].median()} for form, part in forms}


def _masks(study: Study) -> dict:
    """Return GoS (%, validation days, three attempts) and µs a request by mask and method."""
    masks = load_masks(study)
    table = masks[masks["attempts"] == masks["attempts"].max()].groupby(["mask", "method"])
    result: dict = {}
    for (mask, method), part in table:
        figures = {"gos_mean": 100 * part["gos"].mean(), "us_per_request": part["us_per_request"].mean()}
        result.setdefault(mask, {})[method] = figures
    return result


def _with_interval(matrix: np.ndarray) -> dict:
    mean, low, high = interval(matrix)
    return {"mean": mean, "ci95": [low, high]}


def _machine(study: Study) -> dict:
    about = read_json(study.run_folder("amarl", study.seeds[0]) / "provenance.json")
    return about | {"cores": os.cpu_count(), "agents": {"sarl": 1, "amarl": 6}}
