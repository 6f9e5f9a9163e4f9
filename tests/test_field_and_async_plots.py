"""Figures and tables of the field of rules and of asynchrony: their findings are those of the records."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fake_study import fake_bounds, shared_study

from amarl_core import async_plots, field_plots
from amarl_core.paper import gather
from amarl_core.records import load_bounds, load_forms, load_study, load_sweep, load_verdicts


@pytest.fixture(scope="module")
def study():
    return load_study(shared_study())


@pytest.fixture(scope="module")
def evidence(study):
    return gather(study)


def test_the_field_stands_in_order_of_gos(study, evidence):
    means = [matrix.mean() for matrix in field_plots.field(evidence).values()]
    assert means == sorted(means)
    table = field_plots.field_table(evidence, load_bounds(study)).frame
    assert len(table) == len(means)
    shown = [float(text.split()[0]) for text in table["GoS, %"]]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == pytest.approx(means[-1], abs=0.005)


def test_the_distance_to_the_bound_is_that_of_the_records(study, evidence):
    bounds = load_bounds(study)
    table = field_plots.field_table(evidence, bounds).frame.set_index("method")
    upper = 100 * bounds[bounds["weight"] == "requests"].set_index("day")["upper"]
    missing = np.mean([upper[day] - field_plots.gos_on(evidence, "amarl", day) for day in upper.index])
    assert table.loc["AMARL", "to bound (closed)"].startswith(f"{missing:.2f} (")
    assert table.loc["shortest feasible", "to bound (closed)"].endswith(" (0 %)")


def test_latency_is_that_of_the_accepted_requests_in_the_records(study, evidence):
    table = field_plots.field_table(evidence, load_bounds(study)).frame.set_index("method")
    for label, folders in {
        "AMARL": [study.run_folder("amarl", seed) for seed in study.seeds],
        "priced": [study.folder / "baselines" / "priced"],
    }.items():
        names = [folder / f"decisions_{day}.parquet" for folder in folders for day in study.days]
        accepted = pd.concat([pd.read_parquet(name) for name in names]).query("accepted")
        used = (accepted["latency_ms"] / accepted["budget_ms"]).mean()
        shown = f"{accepted['latency_ms'].mean():.2f} ({100 * used:.0f} %)"
        assert table.loc[label, "latency, ms (of its bound)"] == shown


def test_the_field_says_who_lets_requests_wait(study, evidence):
    audits = evidence.audits.assign(waited_s=np.where(evidence.audits["method"] == "amarl", np.nan, 0.0))
    plain = field_plots.field_table(replace(evidence, audits=audits), load_bounds(study)).caption
    assert "after arrival" not in plain
    rule = pd.DataFrame([{"method": "milp_batch", "seed": 0, "waited_s": 2.5, "requests": 10}])
    waiting = replace(evidence, audits=pd.concat([audits, rule], ignore_index=True))
    assert "milp batch decides" in field_plots.field_table(waiting, load_bounds(study)).caption
    assert "2.5 s after arrival" in field_plots.field_table(waiting, load_bounds(study)).caption


def test_the_services_of_the_field_are_those_of_the_records(evidence):
    table = field_plots.service_table(evidence).frame.set_index("method")
    part = evidence.arrival3.query("method == 'sarl' and service == 'voip'")
    accepted = part.loc[part["cause"] == "accepted", "requests"].sum() / part["requests"].sum()
    assert table.loc["SARL", "VoIP"] == f"{100 * accepted:.2f}"
    assert (
        table.index.tolist() == field_plots.field_table(evidence, fake_bounds("test-weekday")).frame["method"].tolist()
    )


def test_the_field_figure_names_the_best_rule_and_what_is_off_its_scale(evidence):
    picture = field_plots.field_figure(evidence)
    best = evidence.rules()[-1].replace("_", " ")
    assert best in picture.alt
    assert "fixed shortest" in picture.caption
    assert "n = 2 seeds, 3 held-out days" in picture.caption


def test_the_answer_says_less_when_the_interval_is_below_zero(evidence):
    best = evidence.rules()[-1]
    gain = evidence.gain_over_rule(best)
    text = field_plots.field_answer(evidence, load_bounds(evidence.study)).text
    assert f"{gain.mean():+.2f} points" in text
    assert ("accepts less than that" in text) == (field_plots.interval(gain)[2] < 0)


def test_the_staleness_figure_gives_the_loss_of_the_records(study):
    sweep = load_sweep(study)
    part = sweep[(sweep["sweep"] == "pipeline") & (sweep["attempts"] == 1)].groupby("window")["gos"].mean()
    assert f"cost {part[0] - part[12]:.1f} points" in async_plots.staleness_figure(sweep).alt


def test_the_lag_figure_gives_the_artefact_of_the_records(study):
    sweep = load_sweep(study)
    exact = sweep.query("sweep == 'pipeline' and attempts == 1 and window == 0")["gos"].mean()
    free = sweep[(sweep["sweep"] == "lag") & np.isinf(sweep["lag_s"]) & (sweep["attempts"] == 3)]["gos"].mean()
    assert f"{free - exact:+.1f} points" in async_plots.lag_figure(sweep).alt


def test_the_attempts_table_has_a_row_for_each_order_and_number(study):
    sweep = load_sweep(study)
    table = async_plots.attempts_table(sweep).frame
    chosen = sweep[sweep["sweep"] == "attempts"]
    assert len(table) == len(chosen.groupby(["order", "attempts"]))


def test_forms_stand_beside_the_studys_sarl_and_amarl(study, evidence):
    forms = async_plots.forms_of(evidence, load_forms(study))
    assert {"sarl", "amarl", "sarl-async", "amarl-serial", "amarl-sync"} <= set(forms["form"])
    assert (forms.groupby("form").size() == len(study.seeds) * len(study.days)).all()
    table = async_plots.forms_table(forms).frame.set_index("form")
    seconds = forms[forms["form"] == "amarl-sync"].groupby("seed")["train_s"].first().median()
    assert table.loc["a policy a service, in step", "training, s"] == f"{seconds:.1f}"
    assert "train" in async_plots.forms_figure(forms).alt


def test_verdicts_are_those_of_the_variant_asked_for(study):
    assert set(load_verdicts(study, "free3")["method"]) == {"sarl", "amarl"}
    assert "reservation" in set(load_verdicts(study)["method"])


def test_the_bound_table_measures_the_distance_that_is_closed(study, evidence):
    bounds = load_bounds(study)
    table = field_plots.bound_table(evidence, bounds)
    assert len(table.frame) == len(bounds)
    assert field_plots.closed_share(evidence, bounds, "shortest_feasible") == 0
    raised = bounds.assign(upper=bounds["upper"] + 0.01)
    best = evidence.rules()[-1]
    closed = [field_plots.closed_share(evidence, b, best) for b in (bounds, raised)]
    assert closed[0] > closed[1] > 0, "the higher the bound, the smaller the part that is closed"
