"""Use of links and pools by hour, against a sweep through time in plain Python."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import contended, offer

from amarl_core.baselines import baseline
from amarl_core.errors import AmarlError
from amarl_core.evaluation import play_trace
from amarl_core.runs import read_frame, write_frame
from amarl_core.utilisation import heaviest_links, utilisation

WORLD = contended()


def played(seed: int, n: int = 200, hold_s: float = 900.0) -> pd.DataFrame:
    """Decisions of a few hours, with rejections among them."""
    trace = offer(WORLD, n, seed, gap_s=60.0, hold_s=hold_s)
    return play_trace(baseline("shortest_feasible"), trace, scenario=WORLD).decisions


def sweep(decisions: pd.DataFrame, hour: int, service: str | None = None) -> tuple[dict, dict]:
    """Mean and peak use of every link and node in an hour, moment by moment."""
    network, begin, end = WORLD.network, hour * 3600.0, (hour + 1) * 3600.0
    flows = []
    for row in decisions[decisions["accepted"]].itertuples():
        if service in (None, row.service):
            chain = WORLD.chains[WORLD.service_ids.index(row.service)]
            takes = [(link, int(row.demand_kbps)) for link in row.links]
            for host, function in zip(row.hosts, chain, strict=False):
                rate = int(WORLD.rate_mcpu_per_gbps[network.node_index[host], function])
                takes.append((host, -(-int(row.demand_kbps) * rate // 1_000_000)))
            flows.append((row.t_s, row.t_s + row.hold_s, takes))
    moments = sorted({begin, end, *(t for a, b, _ in flows for t in (a, b) if begin < t < end)})
    mean = dict.fromkeys([*network.link_ids, *network.node_ids], 0.0)
    peak = dict(mean)
    for t, following in zip(moments, moments[1:], strict=False):
        now = dict.fromkeys(mean, 0)
        for a, b, takes in flows:
            if a <= t < b:
                for name, amount in takes:
                    now[name] += amount
        for name, amount in now.items():
            mean[name] += amount * (following - t) / 3600.0
            peak[name] = max(peak[name], amount)
    return mean, peak


@settings(max_examples=8)
@given(st.integers(0, 2**20), st.sampled_from([None, "s0", "s4"]))
def test_use_is_that_of_a_sweep_through_time(seed, service):
    decisions = played(seed)
    used = utilisation(decisions, WORLD, service, hours=4)
    network = WORLD.network
    for hour in range(4):
        mean, peak = sweep(decisions, hour, service)
        assert used.link_mean[hour] * network.capacity_kbps == pytest.approx([mean[e] for e in network.link_ids])
        assert used.link_peak[hour] * network.capacity_kbps == pytest.approx([peak[e] for e in network.link_ids])
        pools = WORLD.budget_mcpu > 0
        names = [v for v, has in zip(network.node_ids, pools, strict=True) if has]
        budget = WORLD.budget_mcpu[pools]
        assert used.node_mean[hour][pools] * budget == pytest.approx([mean[v] for v in names])
        assert used.node_peak[hour][pools] * budget == pytest.approx([peak[v] for v in names])
        assert np.isnan(used.node_mean[hour][~pools]).all()


def test_services_add_up_to_all_and_nothing_is_over_its_limit():
    decisions = played(3, n=400)
    used = utilisation(decisions, WORLD)
    parts = sum(utilisation(decisions, WORLD, service).link_mean for service in WORLD.service_ids)
    assert used.link_mean == pytest.approx(parts)
    assert 0.5 < used.link_peak.max() <= 1 and np.nanmax(used.node_peak) <= 1
    assert (used.link_mean <= used.link_peak + 1e-12).all()


def test_a_decisions_file_gives_the_same_as_the_frame(tmp_path):
    decisions = played(4)
    write_frame(tmp_path / "decisions.parquet", decisions)
    fresh, read = (utilisation(d, WORLD) for d in (decisions, read_frame(tmp_path / "decisions.parquet")))
    assert np.array_equal(fresh.link_mean, read.link_mean) and np.array_equal(fresh.link_peak, read.link_peak)


def test_a_flow_that_begins_before_the_first_hour_counts_in_it():
    decisions = played(5, n=30, hold_s=20_000.0)
    late, all_day = utilisation(decisions, WORLD, first_s=7200.0, hours=2), utilisation(decisions, WORLD)
    assert late.link_mean == pytest.approx(all_day.link_mean[2:4]) and late.link_mean.max() > 0
    assert late.link_peak == pytest.approx(all_day.link_peak[2:4])


def test_the_heaviest_links_are_the_fullest_first():
    used = utilisation(played(6, n=400), WORLD)
    table = heaviest_links(used, WORLD, 5)
    assert len(table) == 5 and table["mean_busiest"].is_monotonic_decreasing
    first = table.iloc[0]
    e = WORLD.network.link_index[first["link"]]
    assert first["mean_busiest"] == used.link_mean[:, e].max() == used.link_mean[first["busiest_hour"], e]
    assert first["peak"] == used.link_peak[:, e].max() and first["capacity_gbps"] > 0


def test_an_unknown_service_is_refused_with_the_known_ones():
    with pytest.raises(AmarlError, match="unknown service 'tv'; the scenario has s0, s1"):
        utilisation(played(7, n=5), WORLD, "tv")


def test_a_day_on_which_nobody_was_accepted_is_empty():
    decisions = played(8, n=5)
    decisions["accepted"] = False
    used = utilisation(decisions, WORLD)
    assert used.link_mean.max() == 0 and np.nanmax(used.node_peak) == 0 and used.busiest_hour == 0
