"""Watching: measures are those of the counters, whenever they were looked at, and drawing them is bounded."""

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amarl_core import live_table
from amarl_core.agents import train
from amarl_core.live_curves import PANELS, PLOT, curves_svg, round_ticks
from amarl_core.watch import ACCEPTED, CLOCK, COUNTERS, MOST_SAMPLES, POINTS, REQUESTS, STEPS, History, Watch

RATES = np.array([[10.0, 8.0, 1.0, 16.0, 5.0, 40.0, 600.0], [4.0, 4.0, 0.0, 2.0, 3.0, 8.0, 300.0]])
"""Counters of two agents a second: 80 and 100 % accepted, 10 and 0 % conflicts, 2 and half a version stale ..."""


def steady(seconds: float, n: int) -> History:
    history = History(("one", "two"))
    for wall_s in np.linspace(seconds / n, seconds, n):
        history.add(float(wall_s), RATES * wall_s)
    return history


@pytest.mark.parametrize("n", [1, 7, 5 * MOST_SAMPLES])
def test_steady_counters_give_steady_measures_however_often_they_are_looked_at(n):
    history = steady(60.0, n)
    for measures in (history.curves(), history.now()):
        assert np.allclose(measures.gos, [80.0, 100.0])
        assert np.allclose(measures.reward, [0.5, 0.75])
        assert np.allclose(measures.steps_per_s, [40.0, 8.0])
        assert np.allclose(measures.conflicts, [10.0, 0.0])
        assert np.allclose(measures.staleness, [2.0, 0.5])
        assert np.allclose(measures.lag, np.outer(measures.wall_s, [0.0, 5.0]))
    assert history.requests_per_s() == pytest.approx(14.0)
    assert history.curves().gos.shape == (POINTS, 2)


def test_samples_are_thinned_and_the_newest_is_kept():
    history = steady(900.0, 20 * MOST_SAMPLES)
    assert len(history._times) <= MOST_SAMPLES + 1
    assert history.wall_s == 900.0 and np.allclose(history.latest, 900 * RATES)
    assert np.all(np.diff(history._times) > 0)


def test_an_agent_without_requests_has_no_grade_of_service():
    history = History(("busy", "idle"))
    history.add(1.0, np.stack([RATES[0], np.zeros(len(COUNTERS))]))
    now = history.now()
    assert now.gos[0, 0] == pytest.approx(80.0) and np.isnan(now.gos[0, 1])
    assert len(drawn_lines(curves_svg(history.curves(), ["#000000", "#ff0000"]))) > 6


def test_a_watched_training_shows_what_its_records_hold(toy):
    seen = {}
    run = train(toy, "amarl", 0, days=2, on_start=lambda training: seen.update(watch=Watch(training)))
    watch = seen["watch"]
    watch.look()
    over = watch.history.wall_s
    watch.look()
    assert watch.history.wall_s == over, "writing records is no training"
    decisions = run.simulation.decisions()
    by_agent = decisions.groupby("agent", observed=False)["accepted"].agg(["size", "sum"]).loc[list(toy.service_ids)]
    assert watch.history.latest[:, REQUESTS].tolist() == by_agent["size"].tolist() == watch.requests.tolist()
    assert watch.history.latest[:, ACCEPTED].tolist() == by_agent["sum"].tolist()
    assert watch.history.latest[:, STEPS].sum() == run.timing["env_steps"]
    assert watch.share == 1.0 and watch.updates() == run.progress.groupby("agent")["update"].max()[
        list(toy.service_ids)].tolist()  # fmt: skip
    links, nodes = watch.use()
    assert len(links) == len(toy.network.link_ids) and len(nodes) == len(toy.network.node_ids)
    assert not links.any() and not np.nan_to_num(nodes).any(), "all flows have left"


def test_a_history_from_the_progress_table_ends_where_the_run_did(toy_team):
    agents = toy_team.team.agents
    history = History.of(toy_team.progress, agents)
    last = toy_team.progress.groupby("agent").last().loc[list(agents)]
    for column, name in ((REQUESTS, "requests"), (ACCEPTED, "accepted"), (STEPS, "steps"), (CLOCK, "sim_t_s")):
        assert np.allclose(history.latest[:, column], last[name])
    served = history.measures(np.array([history.wall_s]), history.wall_s)
    assert np.allclose(served.gos[0], 100 * last["accepted"] / last["requests"])


def drawn_lines(svg: str) -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("polyline")]


def test_every_panel_has_a_line_for_every_agent_within_its_plot():
    svg = curves_svg(steady(30.0, 50).curves(), ["#111111", "#222222"])
    lines = drawn_lines(svg)
    assert [line.get("stroke") for line in lines] == ["#111111", "#222222"] * len(PANELS)
    left, upper, right, lower = PLOT
    for line in lines:
        points = np.array(line.get("points").split(), int).reshape(-1, 2)
        assert len(points) == POINTS
        assert left <= points[:, 0].min() and points[:, 0].max() == right
        assert upper <= points[:, 1].min() and points[:, 1].max() <= lower
    titles = [e.text for e in ElementTree.fromstring(svg).iter() if e.get("class") == "name"]
    assert titles == list(PANELS.values())


def test_a_line_is_where_its_values_are():
    """Staleness of 2 and 0.5 versions, between ticks at 0 and 2."""
    lines = drawn_lines(curves_svg(steady(30.0, 50).curves(), ["#111111", "#222222"]))
    high, low = (int(line.get("points").split()[1]) for line in lines[8:10])
    _, upper, _, lower = PLOT
    assert (high, low) == (upper, round(lower - (lower - upper) / 4))


def test_a_line_has_a_gap_where_nothing_was_measured():
    history = steady(10.0, 10)
    for wall_s in (11.0, 20.0):  # the first agent has no request any more for a while
        history.add(wall_s, np.stack([RATES[0] * 10, RATES[1] * wall_s]))
    history.add(30.0, np.stack([RATES[0] * 20, RATES[1] * 30]))
    lines = drawn_lines(curves_svg(history.curves(), ["#111111", "#222222"]))
    grades = [line.get("stroke") for line in lines[:3]]
    assert grades == ["#111111", "#111111", "#222222"], "two stretches of the one, one of the other"


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_are_round_few_and_hold_the_range(low, size):
    ticks = round_ticks(low, low + size)
    slack = 1e-5 * (ticks[1] - ticks[0])
    assert ticks[0] <= low + slack and low + size <= ticks[-1] + slack
    assert 2 <= len(ticks) <= 7 and np.allclose(np.diff(ticks), ticks[1] - ticks[0])
    mantissa = float(f"{ticks[-1] - ticks[-2]:.3e}".split("e")[0])
    assert min(abs(mantissa - round_one) for round_one in (1, 2, 2.5, 5, 10)) < 0.01


def test_the_table_escapes_names_and_marks_the_agent_that_failed(toy):
    seen = {}
    train(toy, "amarl", 0, days=1, on_start=lambda training: seen.update(watch=Watch(training)))
    names = ("<b>ar</b>", *toy.service_ids[1:])
    text = live_table.table(seen["watch"], names, ["#1", "#2", "#3"], [2, 0, 1], names[0])
    assert "&lt;b&gt;ar" in text and "<b>ar" not in text
    rows = text.split("<tr")[2:]
    assert [names[2] in rows[0], 'class="failed"' in rows[1], 'class="failed"' in rows[2]] == [True, True, False]
