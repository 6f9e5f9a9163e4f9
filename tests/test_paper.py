"""The paper's table beside ours, targets and verdict: numbers against records, words against numbers."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from fake_study import shared_study

from amarl_core import paper, study_tables, targets
from amarl_core.intervals import t_interval
from amarl_core.records import gos_by_day, load_study


@pytest.fixture(scope="module")
def evidence():
    return paper.gather(load_study(shared_study()))


def shifted(evidence, points):
    """The same evidence with some points of AMARL's requests moved from refused to accepted."""
    frame = evidence.arrival3.astype({"requests": float})
    cells = ["method", "seed", "day", "hour", "service"]
    moved = frame.groupby(cells)["requests"].transform("sum") * points / 100
    gains = (frame["method"] == "amarl") & (frame["cause"] == "accepted")
    taken = frame[gains].assign(cause="dead_end_compute", requests=-moved[gains])
    frame.loc[gains, "requests"] += moved[gains]
    return dataclasses.replace(evidence, arrival3=pd.concat([frame, taken], ignore_index=True))


def test_the_paper_s_own_ratios_are_those_of_its_table():
    assert paper.PAPER_TRAIN_S["amarl"] / paper.PAPER_TRAIN_S["sarl"] == pytest.approx(1 - 0.299, abs=5e-4)
    assert paper.PAPER_TEST_S["amarl"] / paper.PAPER_TEST_S["sarl"] == pytest.approx(1 - 0.150, abs=5e-4)
    assert paper.PAPER_GOS["amarl"] - paper.PAPER_GOS["sarl"] == pytest.approx(0.67)


def test_table_1_shows_the_mean_and_the_interval_of_the_records(evidence):
    frame = paper.table_1(evidence).frame.set_index("")
    mean, low, high = t_interval(gos_by_day(evidence.arrival3, "amarl"))
    assert frame.loc["AMARL, ours", "average GoS, %"] == f"{mean:.2f} [{low:.2f}, {high:.2f}]"
    assert frame.loc["SARL, paper"].tolist() == ["97.81", "7:25:05", "0:45:22"]
    train_s = evidence.timing.groupby("method")["train_s"].median()
    assert frame.loc["SARL, ours", "training"] == f"{train_s['sarl']:.1f} s"


def test_a_gain_moves_the_table_by_just_that(evidence):
    gain = evidence.gos_difference().mean()
    assert shifted(evidence, 0.5).gos_difference().mean() == pytest.approx(gain + 0.5, abs=0.01)


def test_timings_are_paired_also_when_seeds_take_turns(evidence):
    duel = pd.DataFrame(
        [
            {"repeat": r, "method": m, "seed": r % 2, "order": "arrival", "test_s": s * (1 + r), "cpu_s": 1.0}
            for r in range(5)
            for m, s in (("sarl", 10.0), ("amarl", 7.0))
        ]
    )
    alternating = dataclasses.replace(evidence, duel=duel)
    assert alternating.test_ratio() == pytest.approx(np.full((1, 5), 0.7))
    assert "× 0.70 [0.70, 0.70]" in paper.table_1(alternating).frame.iloc[-1, -1]


def test_each_commit_order_is_timed_on_its_own(evidence):
    for order in ("arrival", "free"):
        part = evidence.duel[evidence.duel["order"] == order].set_index(["seed", "repeat"])
        by_method = {method: rows["test_s"] for method, rows in part.groupby("method")}
        expected = (by_method["amarl"] / by_method["sarl"]).median()
        assert np.median(evidence.test_ratio(order)) == pytest.approx(expected)


def test_each_rule_is_compared_on_the_same_days(evidence):
    expected = gos_by_day(evidence.arrival3, "amarl") - gos_by_day(evidence.baselines, "priced")
    assert evidence.gain_over_rule("priced") == pytest.approx(expected)
    frame = study_tables.baseline_table(evidence).frame
    assert list(frame["rule"])[-1] == "fixed shortest"


def test_attempts_and_orders_come_from_their_own_records(evidence):
    frame = study_tables.gos_table(evidence).frame.set_index("definition")
    one = gos_by_day(evidence.arrival1, "amarl").mean()
    assert frame.loc["all requests, 1 attempt (as the paper)", "AMARL"].startswith(f"{one:.2f} ")
    assert one < gos_by_day(evidence.arrival3, "amarl").mean()


def test_the_latency_table_holds_every_service_against_its_budget(evidence):
    frame = study_tables.latency_table(evidence).frame.set_index("service")
    assert frame.loc["AR", "budget, ms"] == "10"
    assert (frame["AMARL 95th"].astype(float) <= frame["budget, ms"].astype(float)).all()


def test_processor_time_stands_beside_every_wall_clock(evidence):
    frame = study_tables.timing_table(evidence).frame.set_index("")
    walls = [name for name in frame.index if "wall-clock" in name]
    assert len(walls) == 3
    for name in walls:
        assert name.replace("wall-clock", "processor") in frame.index
    train_s = evidence.timing.groupby("method")["train_s"].median()
    assert frame.loc["training, wall-clock s", "AMARL"] == f"{train_s['amarl']:.1f}"


def test_the_audit_table_counts_every_run_once(evidence):
    frame = study_tables.audit_table(evidence).frame
    assert frame["number"].astype(int).sum() == len(evidence.audits)


def by_name(evidence, start):
    return next(t for t in targets.targets(evidence) if t.figure.startswith(start))


def test_nine_targets_are_held_against_their_bars(evidence):
    assert len(targets.targets(evidence)) == 9
    ratio = by_name(evidence, "training wall-clock")
    assert ratio.meets_must and not ratio.meets_aim
    assert float(ratio.measured) == pytest.approx(np.median(evidence.train_ratio()), abs=0.005)


@pytest.mark.parametrize(("points", "met"), [(-1.0, False), (0.0, True)])
def test_the_must_on_gos_follows_the_measurement(evidence, points, met):
    assert by_name(shifted(evidence, points), "GoS of AMARL minus SARL").meets_must is met


def test_one_violation_is_enough_to_miss_the_target_and_to_be_named(evidence):
    audits = evidence.audits.copy()
    audits.loc[3, "violations"] = 1
    bad = dataclasses.replace(evidence, audits=audits)
    assert not by_name(bad, "violations").meets_must
    assert "found 1 violation." in targets.verdict(bad)
    assert "not met: " in targets.verdict(bad) and "violations found by the audit" in targets.verdict(bad)


def test_no_audit_is_not_a_clean_audit(evidence):
    assert not by_name(dataclasses.replace(evidence, audits=evidence.audits.iloc[:0]), "violations").meets_must


@pytest.mark.parametrize(
    ("points", "words"),
    [(2.0, "AMARL accepts more than SARL"), (-2.0, "AMARL accepts less than SARL")],
)
def test_the_verdict_says_what_the_interval_says(evidence, points, words):
    assert targets.verdict(shifted(evidence, points)).startswith(words)


def test_the_verdict_claims_no_difference_where_the_interval_holds_zero(evidence):
    sarl = evidence.arrival3[evidence.arrival3["method"] == "sarl"]
    both = pd.concat([sarl, sarl.assign(method="amarl")])
    assert "cannot be told apart" in targets.verdict(dataclasses.replace(evidence, arrival3=both))


def test_tables_become_markdown_for_the_readme(evidence):
    lines = paper.headline_table(evidence).markdown().splitlines()
    assert lines[0].startswith("|  | GoS, % |") and lines[1].startswith("| :-- | --: |")
    assert len({line.count("|") for line in lines}) == 1
