"""Figures state what the records say; each has a caption, the size of its sample and an alternative text."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from fake_study import shared_study

from amarl_core import failure_plots, learning_plots, look, plots, records, stats
from amarl_core.errors import RunError
from amarl_core.runs import read_frame, read_json, write_json


@pytest.fixture(scope="module")
def study():
    return records.load_study(shared_study())


@pytest.fixture(scope="module")
def outcomes(study):
    return records.load_outcomes(study)


def raw_decisions(study, method, seed, day):
    return read_frame(study.run_folder(method, seed) / f"decisions_{day}.parquet")


# ------------------------------------------------------------------------------------------------ records
def test_gos_by_day_agrees_with_the_decisions_themselves(study, outcomes):
    matrix = records.gos_by_day(outcomes, "amarl")
    assert matrix.shape == (2, 3)
    for i, seed in enumerate(study.seeds):
        for j, day in enumerate(study.days):
            assert matrix[i, j] == pytest.approx(100 * raw_decisions(study, "amarl", seed, day)["accepted"].mean())


@pytest.mark.parametrize(
    ("measure", "oracle"),
    [
        ("services", stats.mean_gos_of_services),
        ("traffic", stats.traffic_gos),
        ("busy hour", stats.busy_hour_gos),
    ],
)
def test_other_definitions_of_gos_agree_with_stats(study, outcomes, measure, oracle):
    matrix = records.gos_by_day_as(outcomes, "sarl", measure)
    expected = 100 * oracle(raw_decisions(study, "sarl", 1, "test-weekday-2"))
    assert matrix[1, 1] == pytest.approx(expected)


def test_latency_agrees_with_stats(study):
    latency = records.load_latency(study)
    row = latency.query("method == 'amarl' and seed == 0 and day == 'test-weekend' and service == 'voip'").iloc[0]
    expected = stats.latency_by_service(raw_decisions(study, "amarl", 0, "test-weekend")).loc["voip"]
    assert row[["mean_ms", "p95_ms", "budget_ms"]].tolist() == pytest.approx(
        expected[["mean_ms", "p95_ms", "budget_ms"]].tolist()
    )


def test_conflict_rate_counts_days_without_conflicts(study):
    rates = records.conflict_rate(study, "arrival1")
    aborts = sum(
        (read_frame(study.run_folder("amarl", s) / f"ledger_{d}_attempts1.parquet")["kind"] == "abort").sum()
        for s in study.seeds
        for d in study.days
    )
    assert rates["amarl"] == pytest.approx(aborts / (3_000 * 6))
    assert rates["sarl"] == 0.0


def test_window_gos_weights_agents_by_their_requests():
    busy = pd.DataFrame({"agent": "busy", "wall_s": [5.0, 10.0], "requests": [450, 900], "accepted": [450, 900]})
    rare = pd.DataFrame({"agent": "rare", "wall_s": [5.0, 10.0], "requests": [50, 100], "accepted": [0, 0]})
    curve = records.window_gos(pd.concat([busy, rare]))
    assert curve["gos"].to_numpy() == pytest.approx(90.0)


def test_an_unknown_study_is_refused_with_the_remedy():
    with pytest.raises(RunError, match=r"no study 'nowhere'.*make reproduce"):
        records.load_study("nowhere")


def test_a_seed_that_one_method_has_not_finished_is_left_out(tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(shared_study(), folder, ignore=shutil.ignore_patterns("*.parquet"))
    write_json(folder / "amarl" / "seed=1" / "status.json", {"status": "stopped", "error": None})
    assert records.load_study(folder).seeds == (0,)
    write_json(folder / "sarl" / "seed=0" / "status.json", {"status": "failed", "error": "?"})
    with pytest.raises(RunError, match="no seed that both"):
        records.load_study(folder)


# ------------------------------------------------------------------------------------------------ figures
def all_pictures(study, outcomes):
    run = study.run_folder("amarl", 0)
    progress, timing = read_frame(run / "progress.parquet"), read_json(run / "timing.json")
    aborts = {1: records.load_aborts(study, "arrival1"), 3: records.load_aborts(study)}
    return {
        "hour": plots.gos_by_hour(outcomes, records.load_baselines(study)),
        "service": plots.gos_by_service(outcomes),
        "training": plots.gos_over_training(records.load_progress(study), records.load_timing(study)),
        "latency": plots.latency_against_budget(records.load_latency(study)),
        "figure 2": plots.figure_2(outcomes),
        "figure 3": failure_plots.failure_causes(outcomes),
        "failures by hour": failure_plots.failures_by_hour(outcomes),
        "conflicts": failure_plots.conflicts_by_resource(aborts),
        "gos per agent": learning_plots.gos_per_agent(progress),
        "signals": learning_plots.learning_signals(progress),
        "staleness": learning_plots.conflicts_and_staleness(progress),
        "time": learning_plots.time_shares(timing),
    }


def test_every_figure_has_a_finding_a_caption_with_n_and_an_alternative_text(study, outcomes):
    for name, picture in all_pictures(study, outcomes).items():
        title = picture.figure.get_suptitle()
        assert re.search(r"\d", title), f"{name}: the title states no number: {title!r}"
        assert "n = " in picture.caption, f"{name}: {picture.caption}"
        assert len(picture.alt) > 60, name
        assert picture.narrow is not None, f"{name} has no drawing for a phone"
        for axes in picture.figure.axes:
            assert axes.get_xlabel(), f"{name}: an axis without a label"


def test_the_title_states_the_difference_that_the_records_give(outcomes):
    gain = (records.gos_by_day(outcomes, "amarl") - records.gos_by_day(outcomes, "sarl")).mean()
    assert f"AMARL {gain:+.2f} points" in plots.figure_2(outcomes).alt


def test_the_title_follows_the_data_when_the_methods_are_exchanged(outcomes):
    swapped = outcomes.assign(method=outcomes["method"].map({"sarl": "amarl", "amarl": "sarl"}))
    gain = (records.gos_by_day(outcomes, "sarl") - records.gos_by_day(outcomes, "amarl")).mean()
    assert f"AMARL {gain:+.2f} points" in plots.figure_2(swapped).alt


def test_figure_3_names_the_service_with_most_dead_ends(study, outcomes):
    frames = [raw_decisions(study, "amarl", s, d) for s in study.seeds for d in study.days]
    decisions = pd.concat(frames)
    dead = decisions["cause"].astype(str).str.startswith("dead_end").groupby(decisions["service"].astype(str)).mean()
    assert dead.idxmax() == "augmented_reality"
    assert f"AR has most for its traffic: {100 * dead.max():.1f} %" in failure_plots.failure_finding(outcomes)


def test_failure_shares_add_up_to_all_failures(outcomes):
    shares = failure_plots.failure_shares(outcomes)
    failed = outcomes.query("cause != 'accepted' and method == 'sarl'")["requests"].sum() / 6
    assert shares.query("method == 'sarl'")["per_day"].sum() == pytest.approx(failed)


def test_figures_survive_a_study_without_failures_and_without_conflicts(study, outcomes):
    perfect = outcomes.assign(cause="accepted")
    assert failure_plots.failure_finding(perfect) == "No AMARL request failed"
    failure_plots.failure_causes(perfect)._repr_html_()
    failure_plots.failures_by_hour(perfect)._repr_html_()
    none = records.load_aborts(study).iloc[:0]
    assert "No commit of AMARL aborted" in failure_plots.conflicts_by_resource({1: none, 3: none}).alt


def test_a_service_without_requests_in_an_hour_does_not_break_a_figure(outcomes):
    few = outcomes[(outcomes["hour"] > 5) | (outcomes["service"] == "voip")]
    few = few[(few["hour"] > 2) | (few["seed"] == 0)]
    assert plots.gos_by_hour(few).alt


def test_the_same_figure_is_drawn_with_the_same_bytes(outcomes):
    first, second = (plots.gos_by_service(outcomes) for _ in range(2))
    assert first._repr_html_() == second._repr_html_()


def test_intervals_hold_the_mean_and_one_value_has_none():
    mean, low, high = plots.interval(np.array([[97.0, 98.0, 99.0], [97.5, 98.5, 99.5]]))
    assert low < mean < high
    mean, low, high = plots.interval(np.array([[98.0]]))
    assert mean == 98.0 and np.isnan(low) and np.isnan(high)


def test_a_difference_without_an_interval_has_no_brackets():
    assert look.signed(0.025, -0.01, 0.06, unit=" points") == "+0.03 points [-0.01, +0.06]"
    assert look.signed(0.025, float("nan"), float("nan"), digits=3) == "+0.025"


def test_a_sentence_has_no_markup_but_code_between_backticks():
    assert look.prose("<b> & `a < b` of `x`") == "&lt;b&gt; &amp; <code>a &lt; b</code> of <code>x</code>"


def test_a_picture_is_one_line_of_data_and_needs_no_network(outcomes):
    text = plots.gos_by_service(outcomes)._repr_html_()
    assert not re.search(r'(?:src|href|srcset)="(?!data:)', text)
    assert dataclasses.replace(plots.gos_by_service(outcomes), alt='"><b>')._repr_html_().count("<b>") == 0
