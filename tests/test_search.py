"""The exact search against an enumeration of every feasible walk, in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import PlainState, contended, make_network, make_trace, make_world, offer, random_world

from amarl_core.arrays import make_world as make_arrays
from amarl_core.audit import audit
from amarl_core.baselines import baseline
from amarl_core.config import make_config
from amarl_core.evaluation import play_trace
from amarl_core.rule_play import MAX_HOPS
from amarl_core.search import make_search
from amarl_core.teams import untrained

MU = 100.0


class Enumeration:
    """The cheapest feasible walk of one request, by trying all.

    Args:
        world: the world.
        state: what is in use.
        row: the request, with the columns of a decision.
        by_price: minimise the exponential price; else the latency.
        sees_load: whether the plan knows what is in use.
    """

    def __init__(self, world, state: PlainState, row, by_price=False, sees_load=True):
        self.world, self.network, self.row, self.by_price = world, world.network, row, by_price
        self.sees_load = sees_load
        self.demand = int(row.demand_kbps)
        service = world.service_ids.index(row.service)
        self.chain = [int(f) for f in world.chains[service] if f >= 0]
        self.bound = float(world.latency_ms[service])
        self.kbps = [state.kbps[link] for link in world.network.link_ids]
        self.mcpu = [state.mcpu[node] for node in world.network.node_ids]
        self.table = make_arrays(world, MU).price
        self.out = [np.flatnonzero(self.network.source == v).tolist() for v in range(self.network.n_nodes)]
        self.cost, self.latency, self.links, self.n_walks = math.inf, math.inf, None, 0

    def best(self):
        """Return the least cost (infinite when no walk is feasible); `latency` and `links` are its walk's."""
        source = self.network.node_index[self.row.source]
        self._extend(source, 0, {source}, {}, 0.0, 0.0, [])
        return self.cost

    def price(self, used, capacity):
        steps = len(self.table) - 1
        return float(self.table[min(steps, int(used * (1 / capacity) * steps))])

    def _extend(self, node, stage, segment, own, cost, latency, links):
        if latency > self.bound or cost >= self.cost:
            return
        if stage == len(self.chain) and node == self.network.node_index[self.row.destination]:
            self.n_walks += 1
            self.cost, self.latency, self.links = cost, latency, list(links)
            return
        if stage < len(self.chain):
            self._run_stage(node, stage, own, cost, latency, links)
        if len(links) == MAX_HOPS:
            return
        for e in self.out[node]:
            target = int(self.network.target[e])
            is_end = self.network.node_ids[target] == self.row.destination
            if target in segment or self.world.stub[target] and not is_end:
                continue
            mine, capacity = own.get(e, 0), int(self.network.capacity_kbps[e])
            if self.sees_load and self.kbps[e] + mine + self.demand > capacity:
                continue
            delay = float(self.network.delay_ms[e])
            step = self.price(self.kbps[e], capacity) * self.demand / capacity if self.by_price else delay
            self._extend(target, stage, segment | {target}, own | {e: mine + self.demand}, cost + step,
                         latency + delay, [*links, self.network.link_ids[e]])  # fmt: skip

    def _run_stage(self, node, stage, own, cost, latency, links):
        function = self.chain[stage]
        rate = int(self.world.rate_mcpu_per_gbps[node, function])
        need = -(-self.demand * rate // 1_000_000)
        budget, mine = int(self.world.budget_mcpu[node]), own.get(("node", node), 0)
        if rate < 0 or self.sees_load and self.mcpu[node] + mine + need > budget:
            return
        rho = self.mcpu[node] / int(self.network.compute_mcpu[node]) if self.sees_load else 0.0
        delay = float(self.world.processing_ms[function]) / (1 - rho)
        step = self.price(self.mcpu[node], budget) * need / budget if self.by_price else delay
        own = own | {("node", node): mine + need}
        self._extend(node, stage + 1, {node}, own, cost + step, latency + delay, links)


def price_of_route(search: Enumeration, row) -> float:
    """Return the exponential price of a decision's route on the state it was planned on."""
    network, total = search.network, 0.0
    for link in row.links:
        e = network.link_ids.index(link)
        capacity = int(network.capacity_kbps[e])
        total += search.price(search.kbps[e], capacity) * search.demand / capacity
    for stage, host in enumerate(row.hosts):
        v = network.node_index[host]
        need = -(-search.demand * int(search.world.rate_mcpu_per_gbps[v, search.chain[stage]]) // 1_000_000)
        budget = int(search.world.budget_mcpu[v])
        total += search.price(search.mcpu[v], budget) * need / budget
    return total


def compare_with_enumeration(world, trace, name: str) -> dict[str, int]:
    """Serve a trace by a rule and hold every decision to the enumeration; return what was met."""
    by_price = name == "priced"
    played = play_trace(baseline(name, **({"mu": MU} if by_price else {})), trace, scenario=world)
    audit(world, played.decisions, played.ledger, trace).raise_if_violated()
    state, met = PlainState(world), {"accepted": 0, "rejected": 0, "link_twice": 0, "detour": 0}
    for row in played.decisions.itertuples():
        state.depart_until(row.t_s)
        search = Enumeration(world, state, row, by_price)
        least = search.best()
        assert row.accepted == math.isfinite(least), f"{row}: enumeration found {search.links}"
        if not row.accepted:
            met["rejected"] += 1
            continue
        cost = price_of_route(search, row) if by_price else row.latency_ms
        assert cost == pytest.approx(least, rel=1e-9, abs=1e-12), f"{row}: enumeration found {search.links}"
        met["accepted"] += 1
        met["link_twice"] += len(set(row.links)) < len(row.links)
        idle = Enumeration(world, PlainState(world), row, by_price=False)
        idle.best()
        met["detour"] += idle.links != list(row.links)
        state.admit(row)
    return met


@pytest.mark.parametrize("name", ["shortest_feasible", "priced"])
def test_a_rule_finds_the_best_of_all_feasible_walks(name):
    """24 random networks of 5 to 7 nodes, loaded until some requests fail; some routes use a link twice."""
    met = {}
    for seed in range(24):
        world = random_world(seed)
        trace = offer(world, 25, seed, gap_s=1.0, hold_s=20.0)
        for what, n in compare_with_enumeration(world, trace, name).items():
            met[what] = met.get(what, 0) + n
    assert met["accepted"] > 150 and met["rejected"] > 50
    assert met["link_twice"] > 10, "links walked twice are part of the claim"
    assert met["detour"] > 20, "load must change routes"


@settings(max_examples=15)
@given(st.integers(100, 10**6), st.sampled_from(["shortest_feasible", "priced"]))
def test_a_rule_finds_the_best_walk_on_any_network(seed, name):
    world = random_world(seed)
    compare_with_enumeration(world, offer(world, 15, seed, gap_s=1.0, hold_s=30.0), name)


@pytest.mark.parametrize("name", ["shortest_feasible", "priced"])
def test_a_rule_finds_the_best_of_all_feasible_walks_from_stubs_to_pools(name):
    world = contended()
    rows = offer(world, 200, 5, gap_s=0.4, hold_s=60.0)
    rows = rows[~world.stub[rows.destination]]
    met = compare_with_enumeration(world, rows, name)
    assert met["rejected"] > 0 and met["detour"] > 0


def one_way_loop(n_stages: int):
    """A loop w > D1 > .. > Dn > u > w whose hosts lie in the chain's reverse order, so that every segment takes u > w.

    From S to w it goes quickly over u, or slowly at once; u > w has room for as many uses as the chain has stages.
    """
    hosts, functions = [f"D{i + 1}" for i in range(n_stages)], [f"F{i + 1}" for i in range(n_stages)]
    nodes = {node: ("agg", 0, True) for node in "SuwT"} | {host: ("cu", 10_000, True) for host in hosts}
    loop = ["w", *hosts, "u"]
    links = {"S-u": (10**6, 0.1), "u-w": (10_000 * n_stages, 0.1), "S-w": (10**6, 5.0), "w-T": (10**6, 0.1)}
    links |= {f"{a}-{b}": (10**6, 0.1) for a, b in zip(loop, loop[1:], strict=False)}
    return make_world(
        make_network(nodes, links, both_ways=False),
        dict.fromkeys(functions, 0.1),
        {"f": (tuple(functions[::-1]), 50.0)},
        {pair: 1000 for pair in zip(hosts, functions, strict=True)},
    )


@pytest.mark.parametrize("n_stages", [1, 2, 3])
def test_a_route_that_leaves_room_for_a_link_s_last_use_is_not_dropped(n_stages):
    """A chain of n stages has n + 1 segments: all but the first need u > w, so the first must not take it."""
    world = one_way_loop(n_stages)
    trace = make_trace(world, [(0.0, "f", "S", "T", 10_000, 5.0)])
    played = play_trace(baseline("shortest_feasible"), trace, scenario=world)
    audit(world, played.decisions, played.ledger, trace).raise_if_violated()
    (links,) = played.decisions["links"]
    assert links[0] == "S>w"
    assert list(links).count("u>w") == n_stages


def one_way_world(seed: int):
    """Four or five nodes, one-way links with room for one to four uses by 10 Mb/s, a service of one to three stages."""
    draw = np.random.default_rng(seed)
    nodes = [f"V{i}" for i in range(int(draw.integers(4, 6)))]
    pairs = [(a, b) for a in nodes for b in nodes if a != b and draw.random() < 0.4]
    pairs += [pair for pair in zip(nodes, nodes[1:] + nodes[:1], strict=True) if pair not in pairs]  # a ring at least
    uses = [1, 1, 1, 2, 2, 3, 4]
    links = {f"{a}-{b}": (10_000 * int(draw.choice(uses)), float(draw.uniform(0.1, 3))) for a, b in pairs}
    network = make_network({node: ("cu", 1000, True) for node in nodes}, links, both_ways=False)
    chain = ("F", "G", "H")[: int(draw.integers(1, 4))]
    hosts = {(str(draw.choice(nodes)), function): 1000 for function in chain}
    return make_world(network, dict.fromkeys(chain, 0.1), {"f": (chain, 60.0)}, hosts)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_the_best_walk_is_found_where_links_have_room_for_so_many_uses(seed):
    """A chain of K functions has K + 1 segments, and every one of them may use a link."""
    world = one_way_world(seed)
    ends = np.random.default_rng(seed + 1).permutation(world.network.node_ids)[:2]
    compare_with_enumeration(world, make_trace(world, [(0.0, "f", *ends, 10_000, 5.0)]), "shortest_feasible")


def line(capacity: int, budget_mcpu: int = 10_000):
    """A - B - P, where P is a leaf pool that hosts F: from A to A every link but none is used in both ways."""
    network = make_network(
        {"A": ("agg", 0, True), "B": ("agg", 0, True), "P": ("cu", budget_mcpu, True),
         "Q": ("cu", budget_mcpu, True)},
        {"A-B": (10**6, 1.0), "B-P": (capacity, 0.1), "B-Q": (10**6, 0.1)},
    )  # fmt: skip
    hosts = {("P", "F"): 1000, ("Q", "G"): 1000}
    return make_world(network, {"F": 0.1, "G": 0.1}, {"fgf": (("F", "G", "F"), 50.0)}, hosts)


@pytest.mark.parametrize("capacity, accepted", [(20_000, True), (19_999, False)])
@pytest.mark.parametrize("name", ["shortest_feasible", "priced"])
def test_a_link_walked_twice_needs_room_for_two(name, capacity, accepted):
    """F runs at P, G at Q, F at P again: B>P is walked twice by one request of 10 Mb/s."""
    world = line(capacity)
    trace = make_trace(world, [(0.0, "fgf", "A", "A", 10_000, 5.0)])
    played = play_trace(baseline(name), trace, scenario=world)
    row = next(played.decisions.itertuples())
    assert row.accepted == accepted
    if accepted:
        assert list(row.links).count("B>P") == 2
    else:
        assert row.cause == "dead_end_bandwidth"
    audit(world, played.decisions, played.ledger, trace).raise_if_violated()


@pytest.mark.parametrize("mcpu, accepted", [(25, True), (24, False)])
def test_a_pool_that_runs_two_stages_needs_room_for_both(mcpu, accepted):
    """10 Mb/s x 1000 mcpu per Gb/s is 10 mcpu a stage, and the budget is four fifths of the pool."""
    world = line(10**6, budget_mcpu=mcpu)
    trace = make_trace(world, [(0.0, "fgf", "A", "A", 10_000, 5.0)])
    row = next(play_trace(baseline("shortest_feasible"), trace, scenario=world).decisions.itertuples())
    assert row.accepted == accepted


def test_a_rule_and_an_agent_have_the_same_walks_to_choose_from():
    """Over the destination is the only way to the pool; audit and agents take it, so an exact rule must."""
    network = make_network(
        {"S": ("du", 0, False), "T": ("du", 0, False), "A": ("agg", 0, True), "B": ("agg", 0, True),
         "P": ("cu", 1000, True)},
        {"S-A": (10**6, 1.0), "A-T": (10**6, 1.0), "T-B": (10**6, 1.0), "B-P": (10**6, 0.1)},
    )  # fmt: skip
    world = make_world(network, {"F": 0.1}, {"v": (("F",), 50.0)}, {("P", "F"): 1000})
    trace = make_trace(world, [(0.0, "v", "S", "T", 1000, 10.0)])
    by_agent = play_trace(untrained(world, make_config(method="sarl")), trace)
    by_rule = play_trace(baseline("shortest_feasible"), trace, scenario=world)
    assert by_rule.decisions["accepted"].tolist() == by_agent.decisions["accepted"].tolist()


def test_a_search_that_runs_out_of_labels_says_so_and_writes_nothing_beyond(monkeypatch, toy, toy_day):
    """With eight labels most searches are cut short: those requests are rejected, and the records stay sound."""
    monkeypatch.setattr("amarl_core.rule_play.make_search", lambda world: make_search(world, n_labels=8))
    trace = toy_day.head(300)
    played = play_trace(baseline("shortest_feasible"), trace, scenario=toy)
    assert (played.decisions["cause"] == "hop_limit").any()
    audit(toy, played.decisions, played.ledger, trace).raise_if_violated()
