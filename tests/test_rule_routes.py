"""Rules by number of links, and the random walk, against an enumeration of every feasible walk."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import PlainState, all_walks, make_network, make_trace, make_world, offer, random_world

from amarl_core.audit import audit
from amarl_core.baselines import baseline
from amarl_core.evaluation import play_trace


def width_of(world, state, links) -> float:
    """Return the least free bandwidth of some links, kbps."""
    index = world.network.link_ids.index
    return min((int(world.network.capacity_kbps[index(link)]) - state.kbps[link] for link in links), default=10**12)


def compare_with_all_walks(seed: int, name: str, n: int = 12) -> Counter:
    """Serve a random world by a rule and hold every decision to all feasible walks; return what was met."""
    world = random_world(seed)
    trace = offer(world, n, seed, gap_s=1.0, hold_s=20.0)
    played = play_trace(baseline(name), trace, scenario=world)
    audit(world, played.decisions, played.ledger, trace).raise_if_violated()
    state, met = PlainState(world), Counter()
    for row in played.decisions.itertuples():
        state.depart_until(row.t_s)
        walks = list(all_walks(world, row, state.kbps, state.mcpu))
        assert row.accepted == bool(walks), row
        met[row.accepted] += 1
        if not row.accepted:
            continue
        fewest = min(len(links) for links, _, _ in walks)
        shortest = [walk for walk in walks if len(walk[0]) == fewest]
        assert row.hops == fewest
        if name == "min_hop":
            assert row.latency_ms == pytest.approx(min(latency for _, _, latency in shortest), abs=1e-9)
        else:
            widths = {width_of(world, state, links) for links, _, _ in shortest}
            assert width_of(world, state, row.links) == max(widths)
            widest = [walk for walk in shortest if width_of(world, state, walk[0]) == max(widths)]
            assert row.latency_ms == pytest.approx(min(latency for _, _, latency in widest), abs=1e-9)
            met["choice of widths"] += len(widths) > 1
        met["longer but faster"] += min(latency for _, _, latency in walks) < row.latency_ms - 1e-9
        state.admit(row)
    return met


@pytest.mark.parametrize("name", ["min_hop", "widest_shortest"])
def test_a_rule_by_links_finds_the_best_of_all_feasible_walks(name):
    met = sum((compare_with_all_walks(seed, name) for seed in range(40)), Counter())
    assert met[True] > 60 and met[False] > 10
    assert met["longer but faster"] > 3, "latency alone would choose the same routes"
    if name == "widest_shortest":
        assert met["choice of widths"] > 10


@settings(max_examples=10)
@given(st.integers(100, 10**6), st.sampled_from(["min_hop", "widest_shortest"]))
def test_a_rule_by_links_finds_the_best_walk_on_any_network(seed, name):
    compare_with_all_walks(seed, name, 8)


def fan(n_ways: int):
    """S to T over one of n_ways routers; the pool P hangs off T."""
    nodes = {"S": ("agg", 0, True), "T": ("agg", 0, True), "P": ("cu", 10**6, True)}
    links = {"T-P": (10**9, 0.1)}
    for i in range(n_ways):
        nodes[f"R{i}"] = ("agg", 0, True)
        links |= {f"S-R{i}": (10**9, 1.0 + i), f"R{i}-T": (10**9, 1.0)}
    return make_world(make_network(nodes, links, both_ways=False), {"F": 0.1}, {"v": (("F",), 50.0)}, {("P", "F"): 10})


def test_a_random_walk_takes_every_allowed_next_hop_as_often():
    """Four ways, 4,000 walks: each about a thousand times (five standard deviations are 137)."""
    world = fan(4)
    trace = make_trace(world, [(float(t), "v", "S", "P", 10, 0.5) for t in range(4000)])
    decisions = play_trace(baseline("random_feasible", seed=7), trace, scenario=world).decisions
    assert decisions["accepted"].all()
    ways = Counter(links[0] for links in decisions["links"])
    assert len(ways) == 4 and all(abs(n - 1000) < 137 for n in ways.values()), ways


def test_a_random_walk_may_end_where_no_hop_is_allowed(toy, toy_day):
    decisions = play_trace(baseline("random_feasible"), toy_day, scenario=toy).decisions
    assert decisions["cause"].astype(str).str.startswith("dead_end").sum() > 50
