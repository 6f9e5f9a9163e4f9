"""Latency after admission is what an engineer computes by hand, and what a plain replay gives."""

import numpy as np
import pandas as pd
import pytest
from worlds import PlainState, make_network, make_trace, make_world

from amarl_core.baselines import tuned
from amarl_core.evaluation import play_trace
from amarl_core.latency_drift import latency_drift, utilisation_at_ticks
from amarl_core.transcript import read_decisions


def one_pool(bound_ms: float):
    """A site, a router and a pool of 1,000 millicores; F takes 1 ms on an idle pool and 1 mcpu for each Mb/s."""
    network = make_network(
        {"S": ("du", 0, False), "R": ("agg", 0, True), "P": ("cu", 1000, True)},
        {"S-R": (10**9, 0.5), "R-P": (10**9, 0.25)},
    )
    return make_world(network, {"F": 1.0}, {"s": (("F",), bound_ms)}, {("P", "F"): 1000})


def decided(world, requests: list[tuple]) -> pd.DataFrame:
    """Return decisions of (t_s, hold_s, Mb/s, accepted), all from S to P."""
    rows = [(t_s, "s", "S", "P", mbps * 1000, hold_s) for t_s, hold_s, mbps, _ in requests]
    trace = make_trace(world, rows)
    accepted = np.array([row[3] for row in requests])
    n = len(requests)
    return pd.DataFrame(
        {"request_id": trace.request_id, "t_s": trace.t_s, "hold_s": trace.hold_s, "service": "s", "source": "S",
         "destination": "P", "demand_kbps": trace.demand_kbps, "accepted": accepted,
         "cause": np.where(accepted, "accepted", "refused"), "latency_ms": 1.75, "budget_ms": world.latency_ms[0],
         "links": [["S>R", "R>P"] if yes else [] for yes in accepted],
         "hosts": [["P"] if yes else [] for yes in accepted],
         "attempts": np.ones(n, np.int64), "snapshot_version": np.zeros(n, np.int64),
         "commit_version": np.arange(n)}
    )  # fmt: skip


def test_a_flow_is_over_its_bound_while_another_loads_its_pool():
    """A of 100 Mb/s holds from 30 s to 630 s; B of 500 Mb/s from 290 s to 590 s.

    Alone A has rho 0.1: 0.75 + 1 / 0.9 = 1.861 ms. With B rho is 0.6: 0.75 + 1 / 0.4 = 3.25 ms, over the bound of 3 ms
    at the minutes 300, 360, 420, 480 and 540. B itself is over at the same ones. A is there at 60, 120, ..., 600.
    """
    world = one_pool(bound_ms=3.0)
    table = latency_drift(decided(world, [(30.0, 600.0, 100, True), (290.0, 300.0, 500, True)]), world)
    first = table[table["hour"] == 0].iloc[0]
    assert (first["flow_s"], first["over_s"]) == (10 * 60 + 5 * 60, 5 * 60 + 5 * 60)
    assert first["excess_ms"] == pytest.approx(0.25)
    assert table[table["hour"] > 0][["flow_s", "over_s"]].to_numpy().sum() == 0


def test_at_the_bound_is_not_over_it():
    world = one_pool(bound_ms=0.75 + 1 / 0.9)
    table = latency_drift(decided(world, [(0.0, 60.0, 100, True)]), world)
    assert (table["flow_s"].sum(), table["over_s"].sum()) == (60, 0)


def test_who_was_rejected_neither_loads_a_pool_nor_counts():
    world = one_pool(bound_ms=3.0)
    table = latency_drift(decided(world, [(30.0, 600.0, 100, True), (290.0, 300.0, 500, False)]), world)
    assert (table["flow_s"].sum(), table["over_s"].sum()) == (600, 0)


def test_flow_time_falls_into_the_hour_of_its_tick_and_ends_with_the_day():
    world = one_pool(bound_ms=1.0)
    table = latency_drift(decided(world, [(3500.0, 200.0, 100, True), (86_000.0, 9e5, 100, True)]), world)
    by_hour = table.set_index("hour")["over_s"]
    assert by_hour[by_hour > 0].to_dict() == {0: 60, 1: 120, 23: 360}


def test_a_finer_tick_converges_to_the_flow_time(toy, toy_day):
    decisions = play_trace(tuned("priced"), toy_day, scenario=toy).decisions
    accepted = decisions[decisions["accepted"]]
    exact = (np.minimum(accepted["t_s"] + accepted["hold_s"], 86_400) - accepted["t_s"]).sum()
    assert latency_drift(decisions, toy, tick_s=10.0)["flow_s"].sum() == pytest.approx(exact, rel=1e-3)


def test_it_is_what_a_plain_replay_gives(toy, toy_day):
    """Flow by flow in plain Python, on the worst hours of a day, with other code for the use of nodes."""
    decisions = play_trace(tuned("priced"), toy_day, scenario=toy).decisions
    wanted = decisions[decisions["accepted"]].astype({"service": str, "source": str, "destination": str})
    network, ticks = toy.network, np.arange(17 * 3600, 19 * 3600, 600)
    rho = utilisation_at_ticks(read_decisions(decisions, toy), toy, 600.0, 144)
    over = flow = 0
    for tick in ticks:
        state, there = PlainState(toy), wanted[(wanted["t_s"] <= tick) & (wanted["t_s"] + wanted["hold_s"] > tick)]
        for row in there.itertuples():
            state.admit(row)
        for v, node in enumerate(network.node_ids):
            assert rho[v, tick // 600] == state.mcpu[node] / max(1, network.compute_mcpu[v])
        for row in there.itertuples():
            service = toy.service_ids.index(row.service)
            latency = sum(network.delay_ms[network.link_index[link]] for link in row.links)
            for stage, host in enumerate(row.hosts):
                used = state.mcpu[host] / network.compute_mcpu[network.node_index[host]]
                latency += toy.processing_ms[toy.chains[service, stage]] / (1 - used)
            flow += 600
            over += 600 * (latency > toy.latency_ms[service] + 1e-9)
    table = latency_drift(decisions, toy, tick_s=600.0)
    part = table[table["hour"].isin([17, 18])]
    assert (part["flow_s"].sum(), part["over_s"].sum()) == (flow, over) and flow > 0
