"""Figures, tables and the part of the headline on days that went wrong, from invented records."""

import json
from pathlib import Path

import pytest
from fake_disruptions import FAILURES, write_disruptions

from amarl_core.disruption_plots import (
    disruption_answer,
    failed_table,
    failure_figure,
    recovery_table,
    telemetry_figure,
)
from amarl_core.disruption_records import load_disruptions, lock_ratio, not_measured, robustness_headline
from amarl_core.disruptions import DISRUPTED_RULES
from amarl_core.look import Note, Picture, Table
from amarl_core.reaction import THREADS
from amarl_core.reaction_plots import decision_table, lock_table

TABLES = (recovery_table, failed_table, decision_table, lock_table)
FIGURES = (failure_figure, telemetry_figure)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_disruptions(folder, (0, 1))
    return folder


@pytest.mark.parametrize("show", [*TABLES, *FIGURES])
def test_a_study_without_these_records_says_how_to_make_them(tmp_path, show):
    shown = show(tmp_path)
    assert isinstance(shown, Note) and "amarl_core.disruptions --study" in shown.text
    assert not_measured(tmp_path).text == shown.text


def test_the_headline_of_a_study_without_these_records_is_empty(tmp_path):
    assert robustness_headline(tmp_path) == {}


def test_the_answer_is_computed_from_the_records(study, tmp_path):
    text = disruption_answer(study).text
    assert all(said in text for said in ("a CU site", "back 2 minutes", "1.2 points", "0.042 ms", "1.98 times as long"))
    assert disruption_answer(tmp_path) == not_measured(tmp_path)


@pytest.mark.parametrize("draw", FIGURES)
def test_a_figure_says_what_was_found_and_what_stands_behind_it(study, draw):
    picture = draw(study)
    assert isinstance(picture, Picture) and picture.narrow is not None
    assert "n = 2 seeds" in picture.caption and "AMARL" in picture.alt
    for axes in picture.figure.axes:
        assert axes.get_xlabel() and "nan" not in picture.alt


def test_the_grade_of_service_in_a_title_is_that_of_the_records(study):
    rows = load_disruptions(study, "failures")
    part = rows[(rows["failure"] == "three_links") & (rows["method"] == "amarl")]
    assert f"{part['gos_during'].mean():.1f} % (AMARL)" in failure_figure(study, ("three_links",)).alt


def test_every_failure_and_method_has_a_row(study):
    table = recovery_table(study)
    assert isinstance(table, Table)
    assert len(table.frame) == len(FAILURES) * (2 + len(DISRUPTED_RULES))
    times = table.frame.set_index(["fails", "method"])["recovered / settled / after repair, min"]
    assert times["1 link", "AMARL"] == "4 / 3 / 2" and times["a CU site", "AMARL"] == "no / 3 / 2"


def test_decision_times_stand_against_ten_milliseconds(study):
    row = decision_table(study).frame.iloc[0]
    assert row["route, µs"] == "10 / 20 / 40 / 1,000" and row["a hop, µs"] == "3.0 / 6.0 / 12 / 300"
    assert row["10 ms over p99"] == "238"


def test_the_ratio_of_the_locks_is_of_pairs(study):
    rows = lock_table(study).frame.set_index(["order", "threads"])
    assert rows.loc[("free", 1), "ratio"].startswith("1.00 ")
    assert rows.loc[("free", 6), "ratio"].startswith("1.98 ")
    locks = load_disruptions(study, "locks").query("method == 'amarl' and order == 'free'")
    assert len(lock_ratio(locks)) == len(THREADS) * 3


def test_the_headline_has_all_parts_and_is_json(study):
    headline = json.loads(json.dumps(robustness_headline(study)))
    assert set(headline) == {"failures", "telemetry", "violations", "decision_us", "commit_us",
                             "locked_over_optimistic"}  # fmt: skip
    assert headline["failures"]["edge_site"]["amarl"]["recovery_min"] is None
    assert headline["failures"]["one_link"]["sarl"]["dropped"] == 50
    assert headline["telemetry"]["amarl"]["60"]["gos"] == pytest.approx(97.2)
    assert headline["decision_us"]["free"]["6"] == {"p50": 10, "p99": 40}
    assert headline["violations"] == 0
