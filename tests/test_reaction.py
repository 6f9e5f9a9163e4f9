"""Clocks on single requests, and one lock around the whole routing."""

import numpy as np
import pytest

from amarl_core.arena import TIMES
from amarl_core.audit import audit
from amarl_core.reaction import KINDS, LOCKS, ORDERS, measure, quantiles_us
from amarl_core.simulation import Simulation, options_for, play


def simulate(team, day, order="free", n_threads=None, is_timed=True, **options):
    simulation = Simulation(team.scenario, team.world, day, team.team, team.nets,
                            options_for(team.config, **options), is_timed=is_timed)  # fmt: skip
    play(simulation, order, n_threads)
    return simulation


@pytest.mark.parametrize("n_threads", [1, 3])
def test_under_one_lock_no_commit_aborts_and_the_audit_finds_nothing(toy_team, toy, toy_day, n_threads):
    served = simulate(toy_team, toy_day, attempts=3, lag_s=60.0, locks_routing=True, n_threads=n_threads)
    decisions, ledger = served.decisions(), served.ledger()
    assert (ledger["kind"] != "abort").all() and (decisions["attempts"] == 1).all()
    report = audit(toy, decisions, ledger, toy_day, "free")
    assert report.ok, report.summary()


@pytest.mark.parametrize("order", ["free", "arrival"])
def test_every_request_is_timed(toy_team, toy_day, order):
    served = simulate(toy_team, toy_day, order, attempts=3, lag_s=60.0, window=4)
    times, accepted = served.arena.times, served.arena.records.rows["commit_version"] >= 0
    assert len(times) == len(toy_day)
    assert (times["plan_ns"] > 0).all()
    assert (times["commit_ns"][accepted] > 0).all()
    assert (times["routing_wait_ns"] == 0).all()


def test_nothing_is_timed_unless_asked(toy_team, toy_day):
    assert len(simulate(toy_team, toy_day.head(200), is_timed=False).arena.times) == 0


def test_clocks_change_nothing(toy_agent, toy_day):
    plain, timed = (simulate(toy_agent, toy_day, "pipeline", is_timed=timed).decisions() for timed in (False, True))
    assert plain.equals(timed)


def test_quantiles_are_in_microseconds():
    times = np.zeros(100, TIMES)
    times["plan_ns"], times["commit_ns"][:50] = np.arange(1, 101) * 1000, 2000
    table = quantiles_us(times, np.full(100, 2)).set_index("kind")
    assert tuple(table.index) == KINDS
    assert table.loc["decision", "max"] == 100 and table.loc["hop", "max"] == 50
    assert table.loc["decision", "p50"] == pytest.approx(50.5)
    assert table.loc["commit", ["n", "p50", "p99"]].tolist() == [50, 2, 2]


def test_all_ways_are_measured_in_turn(toy_team, toy_agent, toy_day):
    rows, table = measure([toy_team, toy_agent], toy_day.head(300), 2, threads=(1, 3))
    ways = rows.groupby(["method", "order", "lock", "threads"]).size()
    assert set(ways) == {2}
    assert len(ways) == len(ORDERS) * (len(LOCKS) * 2 + 1)  # SARL has one thread, and nobody to lock out
    assert len(table) == len(rows) * len(KINDS)
    assert (rows.query("lock == 'pessimistic'")["aborts"] == 0).all()
