"""Shifts are served by everybody on the same requests, and the records say what was served."""

import numpy as np
import pandas as pd
import pytest

from amarl_core import robustness
from amarl_core.agents import train
from amarl_core.baselines import tuned
from amarl_core.config import METHODS
from amarl_core.errors import RunError
from amarl_core.evaluation import play_trace
from amarl_core.overlays import ORDINARY, known_overlays, read_overlay
from amarl_core.robustness import (
    COMPARED_RULES,
    N_SIZES,
    Shift,
    aborts_by_service,
    accepted_by_size,
    measure,
    shifts_of,
)
from amarl_core.scenario import OVERLAYS_FOLDER, find_overlay, load_scenario
from amarl_core.teams import load_run

DAYS = ["test-weekday", "test-weekend"]
SHIFTS = [Shift(ORDINARY, ORDINARY, tuple(DAYS)), Shift("toy-load-200", "load", tuple(DAYS[:1]))]


@pytest.fixture(scope="module")
def study(toy, tmp_path_factory):
    """Two seeds of both methods, a day of training each."""
    folder = tmp_path_factory.mktemp("study")
    for method in METHODS:
        for seed in (0, 1):
            train(toy, method, seed, folder=folder / method / f"seed={seed}", days=1)
    return folder


@pytest.fixture(scope="module")
def measured(study):
    return measure(study, "toy", [0, 1], SHIFTS, jobs=0)


def test_there_is_a_row_for_every_combination(measured):
    shifts = measured[0]
    learners = {(m, s) for m in METHODS for s in (0, 1)}
    everybody = learners | {(rule, 0) for rule in COMPARED_RULES}
    expected = {(s.overlay, m, seed, day) for s in SHIFTS for day in s.days for m, seed in everybody}
    rows = list(zip(shifts["overlay"], shifts["method"], shifts["seed"], shifts["day"], strict=True))
    assert set(rows) == expected and len(rows) == len(expected)


def test_what_is_finished_is_not_served_again(measured, study, monkeypatch):
    monkeypatch.setattr(robustness, "play_trace", None)
    again = measure(study, "toy", [0, 1], SHIFTS, jobs=0)
    for first, second in zip(measured, again, strict=True):
        pd.testing.assert_frame_equal(first, second)


def test_a_day_that_cannot_be_served_is_an_error_that_says_which(study, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no such luck")

    monkeypatch.setattr(robustness, "play_trace", fail)
    with pytest.raises(RunError, match="scenario=toy\\+toy-ar-200 day=test-weekday.*no such luck"):
        measure(study, "toy", [0], [Shift("toy-ar-200", "service mix", tuple(DAYS[:1]))], jobs=0)


def test_everybody_serves_the_same_requests(measured, toy):
    shifts = measured[0]
    offered = [column for column in shifts if column.startswith("offered_")]
    assert (shifts.groupby(["overlay", "day"])[[*offered, "requests"]].nunique() == 1).all().all()
    assert (shifts[offered].sum(axis=1) == shifts["requests"]).all()
    ordinary = shifts[(shifts["overlay"] == ORDINARY) & (shifts["day"] == DAYS[0])]
    assert (ordinary["requests"] == len(toy.test_trace(DAYS[0]))).all()
    assert ordinary["digest"].unique().tolist() == [toy.digest]
    double = load_scenario("toy+toy-load-200")
    part = shifts[shifts["overlay"] == "toy-load-200"]
    assert part["digest"].unique().tolist() == [double.digest] and (part["factor"] == 2).all()
    assert (part["requests"] == len(double.test_trace(DAYS[0]))).all()


def test_what_is_recorded_is_what_serving_gives(measured, study, toy):
    """SARL and the rules decide one request after the other, so a second time gives the same."""
    shifts = measured[0].set_index(["overlay", "method", "seed", "day"])
    double = load_scenario("toy+toy-load-200")
    trace = double.test_trace(DAYS[0])
    run = load_run(study / "sarl" / "seed=1", double)
    for method, seed, policy in (("sarl", 1, run), ("priced_admission", 0, tuned("priced_admission"))):
        decisions = play_trace(policy, trace, scenario=double).decisions
        row = shifts.loc["toy-load-200", method, seed, DAYS[0]]
        assert row["gos"] == 100 * decisions["accepted"].mean()
        traffic = decisions["demand_kbps"] * decisions["hold_s"]
        assert row["traffic_gos"] == pytest.approx(100 * traffic[decisions["accepted"]].sum() / traffic.sum())
        ar = decisions["service"] == "ar"
        assert (row["offered_ar"], row["accepted_ar"]) == (ar.sum(), (ar & decisions["accepted"]).sum())


def test_the_first_seed_of_the_learners_is_audited_without_a_finding(measured):
    shifts = measured[0]
    is_audited = shifts["violations"].notna()
    of_rules = shifts["method"].isin(COMPARED_RULES) & (shifts["overlay"] == ORDINARY)
    assert (is_audited == (shifts["method"].isin(METHODS) & (shifts["seed"] == 0)) | of_rules).all()
    assert shifts["violations"].sum() == 0


def test_sizes_and_drift_are_those_of_the_ordinary_days(measured):
    shifts, sizes, drift = measured
    ordinary = shifts[shifts["overlay"] == ORDINARY].set_index(["method", "seed", "day"])[["requests", "accepted"]]
    summed = sizes.groupby(["method", "seed", "day"])[["requests", "accepted"]].sum()
    assert summed.sort_index().astype(np.int64).equals(ordinary.sort_index().astype(np.int64))
    assert len(drift) == len(ordinary) * 3 * 24
    assert (drift["over_s"] <= drift["flow_s"]).all() and drift["flow_s"].sum() > 0


def test_aborts_belong_to_the_service_of_their_request(study, toy, toy_day):
    run = load_run(study / "amarl" / "seed=0", toy)
    played = play_trace(run, toy_day, "pipeline", window=20)
    aborts = aborts_by_service(played, toy_day)
    service = played.decisions.set_index("request_id")["service"].astype(str)
    ledger = played.ledger[played.ledger["kind"] == "abort"]
    expected = ledger["request_id"].map(service).value_counts()
    assert aborts[aborts > 0].sort_index().to_dict() == expected.sort_index().to_dict()
    assert aborts.sum() == played.conflicts > 0


def test_classes_of_size_hold_about_as_many_requests_each_and_do_not_overlap():
    demand = np.repeat(np.arange(1, 101), 20) * 1000
    frame = pd.DataFrame({"service": "a", "demand_kbps": demand, "accepted": demand < 50_500})
    table = accepted_by_size(frame)
    assert table["requests"].tolist() == [200] * N_SIZES
    assert table["accepted"].tolist() == [200] * 5 + [0] * 5
    assert table["most_kbps"].tolist() == [10_000 * k for k in range(1, 11)]
    assert (table["least_kbps"].to_numpy()[1:] > table["most_kbps"].to_numpy()[:-1]).all()


def test_one_size_for_all_is_one_class():
    frame = pd.DataFrame({"service": "a", "demand_kbps": [5, 5, 5], "accepted": [True, True, False]})
    table = accepted_by_size(frame)
    assert table[["requests", "accepted"]].to_numpy().tolist() == [[3, 2]]


def test_a_full_study_serves_every_overlay_and_a_quick_one_each_family_once():
    full, quick = (shifts_of("montreal", DAYS, profile) for profile in ("full", "quick"))
    known = known_overlays(OVERLAYS_FOLDER, "montreal")
    assert [s.overlay for s in full] == [ORDINARY, *known]
    assert {s.family for s in quick} == {s.family for s in full} and len(quick) == len({s.family for s in quick})
    assert {len(s.days) for s in full if s.family in robustness.TWO_DAYS} == {2}
    assert {s.days for s in quick} == {("test-weekday",)}
    assert all(s.family == read_overlay(find_overlay(s.overlay)).family for s in full[1:])


def test_a_scenario_without_overlays_has_ordinary_days_only(tmp_path):
    assert [s.overlay for s in shifts_of(str(tmp_path), DAYS, "full")] == [ORDINARY]
