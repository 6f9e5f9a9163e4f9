"""Watching: measures are those of the counters, whenever they were looked at, and drawing them is bounded."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from amarl_core import live_table
from amarl_core.agents import train
from amarl_core.live_curves import Curves, limits_for
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
    assert Curves(["#000000", "#ff0000"]).png(history.curves())


def test_a_watched_training_shows_what_its_records_hold(toy):
    seen = {}
    run = train(toy, "amarl", 0, days=2, on_start=lambda training: seen.update(watch=Watch(training)))
    watch = seen["watch"]
    watch.look()
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


def test_axes_are_drawn_again_only_when_their_limits_change(monkeypatch):
    curves, drawn = Curves(["#000000", "#ff0000"]), []
    monkeypatch.setattr(curves._canvas, "draw", lambda draw=curves._canvas.draw: (drawn.append(1), draw()))
    pictures = [curves.png(steady(seconds, 50).curves()) for seconds in np.linspace(10, 12, 9)]
    assert len(drawn) <= 2 and len(set(pictures)) == 9, "lines move, axes stay"
    assert Image.open(io.BytesIO(pictures[0])).size == curves._canvas.get_width_height()


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_limits_hold_the_range_and_stay_while_they_do(low, size, old, old_size):
    before = (old, old + old_size)
    least, most = limits_for((low, low + size), before)
    assert least <= low + 1e-9 and low + size <= most + 1e-9 and least < most
    assert limits_for((low, low + size), (least, most)) == (least, most) or size < 0.5 * (most - least)


def test_the_table_escapes_names_and_marks_the_agent_that_failed(toy):
    seen = {}
    train(toy, "amarl", 0, days=1, on_start=lambda training: seen.update(watch=Watch(training)))
    names = ("<b>ar</b>", *toy.service_ids[1:])
    text = live_table.table(seen["watch"], names, ["#1", "#2", "#3"], [2, 0, 1], names[0])
    assert "&lt;b&gt;ar" in text and "<b>ar" not in text
    rows = text.split("<tr")[2:]
    assert [names[2] in rows[0], 'class="failed"' in rows[1], 'class="failed"' in rows[2]] == [True, True, False]
