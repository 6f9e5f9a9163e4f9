"""Figures on speed say what their records give; a record that is missing is a note with its command."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from fake_study import shared_study

from amarl_core import perf_plots, scale_plots
from amarl_core.look import Note, Picture, Table
from amarl_core.perf_records import load_performance, perf_headline, speed_up
from amarl_core.records import load_progress, load_study
from amarl_core.time_to_gos import gos_by_wall, reaching, requests_a_day, seconds_to, summary

DRAWN = (perf_plots.timeline_figure, perf_plots.shares_figure, scale_plots.services_figure, scale_plots.threads_figure,
         scale_plots.growth_figure, scale_plots.peers_figure)  # fmt: skip


@pytest.fixture(scope="module")
def study():
    return load_study(shared_study())


@pytest.fixture(scope="module")
def measured(study):
    return load_performance(study)


@pytest.mark.parametrize("draw", DRAWN)
def test_every_figure_is_drawn_with_a_finding(measured, draw):
    picture = draw(measured)
    assert isinstance(picture, Picture)
    assert any(character.isdigit() for character in picture.alt.split(". ")[0])


@pytest.mark.parametrize("draw", [*DRAWN, perf_plots.phases_table, scale_plots.limit_table])
def test_a_record_that_is_missing_is_a_note_with_the_command(measured, draw):
    note = draw(dataclasses.replace(measured, frames={}, limits={}))
    assert isinstance(note, Note)
    assert "python -m amarl_core.steps performance" in note.text


def test_the_answer_does_without_what_was_not_measured(study, measured):
    text = perf_plots.performance_answer(dataclasses.replace(measured, frames={}, limits={}), load_progress(study)).text
    assert "Not measured in this study yet" in text


def test_the_finding_on_services_is_their_median_against_the_bound(measured):
    table = speed_up(measured["services"], "n_services", 2)
    assert table["amdahl"].tolist() == [1.0, 2.0, 2.0, 2.0, 2.0]
    assert table.loc[1, "speed_up"] == pytest.approx(0.9, abs=0.01)
    best = table["speed_up"].idxmax()
    assert (
        f"With {best} agents AMARL trains {table.loc[best, 'speed_up']:.2f} times"
        in scale_plots.services_figure(measured).alt
    )


def test_the_limit_table_states_share_and_rates(measured):
    table = scale_plots.limit_table(measured)
    assert isinstance(table, Table)
    assert "16.3 % (6 x)" in table.frame["measured"].tolist()


# ------------------------------------------------------------------------------------- time to a GoS
def run_of(gos: list[float], each: int = 100) -> pd.DataFrame:
    """One agent, a day's requests an update, an update a second."""
    n = np.arange(1, len(gos) + 1)
    accepted = np.cumsum(np.array(gos) * each / 100)
    return pd.DataFrame({"agent": "a", "wall_s": n.astype(float), "requests": n * each, "accepted": accepted,
                         "sim_t_s": 86_400.0 * n, "method": "sarl", "seed": 0})  # fmt: skip


def test_a_level_is_reached_when_the_last_days_requests_have_it():
    run = run_of([50, 90, 100, 100])
    assert requests_a_day(run) == 100
    curve = gos_by_wall(run, 100, points=401)
    assert curve["wall_s"].iloc[0] == 1.0 and curve["gos"].iloc[0] == pytest.approx(50)
    assert np.interp(2.5, curve["wall_s"], curve["gos"]) == pytest.approx(95)
    assert seconds_to(curve, 95.0) == pytest.approx(2.5, abs=0.02)


def test_a_level_that_a_seed_misses_has_no_mean():
    runs = pd.concat([run_of([50, 90, 100]), run_of([50, 60, 70]).assign(seed=1)])
    found = summary(reaching(runs, (60.0, 99.0))).set_index("level")
    assert np.isfinite(found.loc[60.0, "seconds"]) and found.loc[60.0, "n_reached"] == 2
    assert np.isnan(found.loc[99.0, "seconds"]) and found.loc[99.0, "n_reached"] == 1


def test_the_headline_has_times_shares_speed_ups_and_the_limit(study):
    found = perf_headline(study)
    assert {"time_to_gos", "phase_shares", "scaling", "limit_share"} == set(found)
    assert sum(found["phase_shares"]["amarl"].values()) == pytest.approx(100)
    assert found["limit_share"]["amarl"] == pytest.approx(0.163)
    assert set(found["scaling"]) == {"1", "2", "3", "6", "12"}
