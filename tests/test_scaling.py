"""Speed-up and growth: groups and halves of services keep the requests, and Amdahl's law bounds."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amarl_core import growth, scaling
from amarl_core.config import make_config


@given(st.floats(1, 64), st.floats(0.01, 1.0))
def test_amdahls_bound_is_the_time_of_the_best_schedule(cores, share):
    """One piece of `share`, the rest divisible at will: no schedule is shorter than either."""
    assert scaling.amdahl(cores, share) == pytest.approx(1.0 / max(share, 1.0 / cores))


def test_amdahls_bound_by_hand():
    assert scaling.amdahl(2, 0.4) == 2
    assert scaling.amdahl(6, 0.5) == 2
    assert scaling.amdahl(12, 1.0) == 1


def test_services_are_shared_out_whole_and_evenly(toy):
    team = scaling.grouped(toy, 2, np.array([5.0, 3.0, 2.0]))
    assert team.agent_of_service.tolist() == [0, 1, 1]
    assert team.agents == ("video", "ar+voice")
    assert len(scaling.grouped(toy, 1, np.ones(3)).agents) == 1


def test_services_split_in_two_ask_for_the_same_requests(toy, toy_day):
    world, trace = scaling.split_in_two(toy, toy_day)
    n = len(toy.service_ids)
    assert len(world.service_ids) == 2 * n and trace.service_ids == world.service_ids
    assert np.array_equal(trace.service % n, toy_day.service)
    for column in ("t_s", "source", "destination", "demand_kbps", "hold_s"):
        assert np.array_equal(getattr(trace, column), getattr(toy_day, column))
    counts = np.bincount(trace.service, minlength=2 * n)
    assert (np.abs(counts[:n] - counts[n:]) <= 1).all()
    assert np.array_equal(world.delay_to_go[:n], world.delay_to_go[n:])


def test_every_number_of_services_trains_on_the_same_requests(toy):
    rows = scaling.service_rows(toy, (1, 2, 6), repeats=1, days=1)
    assert rows.groupby(["n_services", "method"]).size().eq(1).all()
    assert (rows.loc[rows["method"] == "sarl", "largest_share"] == 1).all()
    shares = rows[rows["method"] == "amarl"].set_index("n_services")["largest_share"]
    assert shares[1] == 1 and 0.5 <= shares[2] < 1 and 1 / 6 <= shares[6] < 1
    assert (rows[["train_s", "cpu_s", "env_steps"]] > 0).all(axis=None)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are bound on Linux only")
def test_a_bound_to_one_core_ends_with_it():
    before = os.sched_getaffinity(0)
    with scaling.on_cores(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_every_number_of_threads_serves_the_whole_day(toy):
    rows = scaling.thread_rows(toy, repeats=1, n_requests=300)
    assert sorted(rows["threads"].unique()) == [1, 2, 3]
    assert rows.groupby(["threads", "order"]).size().eq(1).all() and (rows["test_s"] > 0).all()


def test_load_is_a_factor_on_the_number_of_requests(toy):
    rows = growth.load_rows(toy, (0.5, 2.0))
    requests = rows[rows["method"] == "amarl"].set_index("factor")["requests"]
    assert requests[2.0] / requests[0.5] == pytest.approx(4.0, rel=0.15)
    assert growth.with_load(toy, 1.0).training_trace(0).sha256 == toy.training_trace(0).sha256


def test_a_larger_network_is_profiled_by_phase():
    pytest.importorskip("amarl_core.generate")
    rows = growth.size_rows((20, 40), requests=400)
    assert set(rows["phase"]) == {"search", "policy", "update", "other"}
    assert rows.groupby("nodes")["us_per_decision"].sum().gt(0).all()


def test_a_group_of_services_has_a_network_of_its_own(toy):
    config = make_config(days=1)
    run, row = scaling.train_team(toy, config, toy.training_trace(0, 1), scaling.grouped(toy, 2, np.array([3.0, 2, 1])))
    assert len(run.models) == 2 == run.nets.actor_1.shape[0]
    assert 0.5 <= row["largest_share"] < 1
