"""One request hop by hop: masks and their reasons, slots, observations, and walks that are always sound."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from walkers import MU, Walker, fork
from worlds import contended, make_network, make_world, random_world

from amarl_core.arrays import (
    GLOBAL_FEATURES,
    SLOT_FEATURES,
    observation_size,
    slot_count,
    truncated_nodes,
)
from amarl_core.arrays import make_world as make_arrays
from amarl_core.prices import price_to_go
from amarl_core.routing import (
    MASKS,
    SLOT_ORDERS,
    begin,
    is_complete,
    observe,
    take,
)
from amarl_core.store import commit, make_shared


# ---------------------------------------------------------------------------------- masks and their reasons
def test_an_idle_network_allows_every_useful_neighbour():
    walk = Walker(fork()).start("loose", "S", "T", 10_000).hop("S>A")
    assert walk.look() == {"P": "", "B": "", "D": ""}, "S is a stub and no slot; nearest to the goal first"
    assert walk.work.walk[0]["n_valid"] == 3


def test_a_stub_is_a_slot_only_as_the_destination():
    walk = Walker(fork()).start("loose", "S", "T", 10_000).hop("S>A").hop("A>B")
    assert "T" in walk.look()
    walk = Walker(fork()).start("loose", "S", "P", 10_000).hop("S>A").hop("A>B")
    assert "T" not in walk.look()


def test_a_link_without_room_is_masked_as_bandwidth():
    walk = Walker(fork()).start("loose", "S", "T", 10_000, {"A>B": 90_001}).hop("S>A")
    assert walk.look()["B"] == "dead_end_bandwidth"
    walk = Walker(fork()).start("loose", "S", "T", 10_000, {"A>B": 90_000}).hop("S>A")
    assert walk.look()["B"] == "", "the last unit may be used"


def test_the_request_s_own_earlier_use_of_a_link_counts():
    """A>P is walked to the pool, and back at A, two segments later, it would be walked again."""
    used = {"A>P": 85_000, "P": 700, "Q": 700}  # room for one stage of ceil(10 Mb/s x 10 mcpu per kbps) each
    walk = Walker(fork()).start("thrice", "S", "T", 10_000, used)
    for link in ("S>A", "A>P", "P>A", "A>B", "B>Q", "Q>B", "B>A"):
        walk.hop(link)
    assert walk.hosts == ["P", "Q"]
    assert walk.look()["P"] == "dead_end_compute", "its own first stage fills the pool"
    walk.work.own[walk.resource("P")] = 0
    assert walk.look()["P"] == "dead_end_bandwidth", "85 + 10 + 10 of 100 Mb/s"
    walk.work.own[walk.resource("A>P")] = 0
    assert walk.look()["P"] == ""


def test_a_full_pool_is_masked_as_compute_and_is_no_slot_once_the_chain_is_done():
    used = {"P": 701}
    walk = Walker(fork()).start("loose", "S", "T", 10_000, used).hop("S>A")
    assert walk.look()["P"] == "dead_end_compute"
    walk = Walker(fork()).start("loose", "S", "T", 10_000, {"P": 700}).hop("S>A")
    assert walk.look()["P"] == ""
    walk.hop("A>P").hop("P>A")
    assert walk.hosts == ["P"]
    assert "P" not in walk.look()


def test_the_delay_mask_counts_what_is_still_to_go_and_the_immediate_mask_does_not():
    """From A over B and Q to T takes 2 + 0.5 + 0.5 (F) + 0.5 + 1 ms, after 1 ms to A: 5.5; over D 2 more."""
    for mask, detour in (("delay", "dead_end_latency"), ("immediate", "")):
        walk = Walker(fork(), mask).start("tight", "S", "T", 10_000).hop("S>A")
        assert walk.look()["D"] == detour
        assert walk.look()["B"] == ""


def test_the_immediate_mask_counts_the_latency_so_far_and_the_link():
    walk = Walker(fork(), "immediate").start("tight", "S", "T", 10_000).hop("S>A").hop("A>D")
    assert walk.latency == 3.0
    assert walk.look()["B"] == "", "3 + 2 ms are within 6"
    walk.work.walk[0]["latency"] = 4.5
    assert walk.look()["B"] == "dead_end_latency"


def test_a_node_is_not_visited_twice_in_a_segment_and_may_be_in_the_next():
    walk = Walker(fork()).start("loose", "S", "T", 10_000).hop("S>A").hop("A>B")
    assert walk.look()["A"] == "dead_end_loop"
    walk.hop("B>Q")
    assert walk.hosts == ["Q"], "a new segment starts here"
    walk.hop("Q>B")
    assert walk.look()["A"] == "", "A was visited in the segment before"


@pytest.mark.parametrize("used, cause", [
    ({"A>B": 100_000, "A>D": 100_000, "A>P": 100_000}, "dead_end_bandwidth"),
    ({"A>B": 100_000, "A>D": 100_000, "P": 800}, "dead_end_compute"),
    ({"A>B": 100_000, "A>P": 100_000, "A>D": 0}, "dead_end_bandwidth"),
])  # fmt: skip
def test_a_dead_end_is_named_after_what_blocks_the_nearest_neighbour(used, cause):
    service = "tight" if used.get("A>D") == 0 else "loose"
    walk = Walker(fork()).start(service, "S", "T", 10_000, used)
    assert not walk.is_open()
    assert walk.cause == cause
    assert walk.links == ["S>A"]


def test_a_dead_end_of_visited_neighbours_alone_is_a_loop():
    walk = Walker(fork()).start("loose", "S", "T", 10_000).hop("S>A").hop("A>B").hop("B>D")
    assert walk.look() == {"B": "dead_end_loop", "A": "dead_end_loop"}
    assert not walk.is_open()
    assert walk.cause == "dead_end_loop"


def test_a_visited_neighbour_is_not_to_blame_for_a_dead_end():
    walk = Walker(fork()).start("loose", "S", "T", 10_000, {"B>Q": 100_000, "D>B": 100_000})
    walk.hop("S>A").hop("A>D")
    assert walk.look() == {"A": "dead_end_loop", "B": "dead_end_bandwidth"}
    assert not walk.is_open()
    assert walk.cause == "dead_end_bandwidth"


def test_a_complete_route_beyond_its_bound_is_a_dead_end_of_latency():
    """Processing on a loaded pool is slower than the idle estimate that the delay mask uses."""
    walk = Walker(fork()).start("tight", "S", "P", 100, {"P": 790}).hop("S>A")
    walk.work.walk[0]["latency"] = 5.0
    walk.hop("A>P")
    assert walk.hosts == ["P"]
    assert walk.latency == pytest.approx(5.0 + 0.4 + 0.5 / (1 - 0.79))
    assert not walk.is_open()
    assert walk.cause == "dead_end_latency"


def test_a_leaf_through_which_one_way_leads_on_is_no_dead_end():
    """A>X>B is one way only: X has a single link out and still is a way through."""
    network = make_network(
        {
            "A": ("agg", 0, True),
            "X": ("agg", 0, True),
            "B": ("agg", 0, True),
            "P": ("cu", 1000, True),
            "Z": ("agg", 0, True),
        },
        {
            "A-X": (1000, 1.0),
            "X-B": (1000, 1.0),
            "B-P": (1000, 1.0),
            "P-B": (1000, 1.0),
            "B-Z": (1000, 1.0),
        },
        both_ways=False,
    )
    world = make_world(network, {"F": 0.1}, {"s": (("F",), 50.0)}, {("P", "F"): 1000})
    walk = Walker(world).start("s", "A", "Z", 10)
    assert walk.look() == {"X": ""}


# ------------------------------------------------------------------------------------------------- the walk
def test_stages_run_on_arrival_several_in_a_row_where_they_can():
    walk = Walker(fork()).start("twice", "S", "T", 10_000).hop("S>A").hop("A>P")
    assert walk.hosts == ["P", "P"]
    assert walk.latency == pytest.approx(1.4 + 2 * 0.5)
    walk = Walker(fork()).start("twice", "S", "T", 10_000, {"P": 650}).hop("S>A").hop("A>P")
    assert walk.hosts == ["P"], "the second stage does not fit beside the first"
    assert walk.latency == pytest.approx(1.4 + 0.5 / (1 - 0.65)), "rho is of the raw capacity, on the snapshot"


ONE_WAY = {"A>D": 100_000, "A>P": 100_000, "B>D": 100_000, "B>A": 100_000}
"""With these links full there is one way from S to T: over A and B to Q, and back over B."""


def test_forced_hops_are_walked_without_asking():
    walk = Walker(fork()).start("loose", "S", "T", 10_000, ONE_WAY)
    assert not walk.is_open()
    assert walk.links == ["S>A", "A>B", "B>Q", "Q>B", "B>T"]
    assert (walk.cause, walk.hosts) == ("accepted", ["Q"])


def test_a_walk_stops_where_there_is_a_choice():
    walk = Walker(fork()).start("loose", "S", "T", 10_000, {"A>D": 100_000, "A>P": 100_000})
    assert walk.is_open()
    assert walk.links == ["S>A", "A>B"]
    assert [target for target, why in walk.slots().items() if not why] == ["Q", "D"]


def test_a_request_complete_at_its_source_needs_no_hop():
    walk = Walker(fork()).start("loose", "P", "P", 10_000)
    assert not walk.is_open()
    assert (walk.cause, walk.links, walk.hosts) == ("accepted", [], ["P"])
    assert is_complete(walk.arrays, walk.work, walk.request)


@pytest.mark.parametrize("max_hops", [1, 2, 3, 4])
def test_a_walk_ends_at_the_hop_limit(max_hops):
    walk = Walker(fork(), max_hops=max_hops).start("loose", "S", "T", 10_000, ONE_WAY)
    assert not walk.is_open()
    assert (walk.cause, len(walk.links)) == ("hop_limit", max_hops)


def test_a_route_of_exactly_the_hop_limit_is_accepted():
    walk = Walker(fork(), max_hops=5).start("loose", "S", "T", 10_000, ONE_WAY)
    assert not walk.is_open()
    assert (walk.cause, len(walk.links)) == ("accepted", 5)


def plain_route(walk):
    """Recompute a walk from its links and hosts in plain Python; return (latency, taken by resource)."""
    world, network, request = walk.world, walk.network, walk.request
    chain = [f for f in world.chains[request["service"]] if f >= 0]
    demand = int(request["demand"])
    hosts = list(walk.hosts)
    at, latency, taken = network.node_ids[request["source"]], 0.0, {}
    segment = [at]

    def run_stages():
        nonlocal latency, segment
        while hosts and hosts[0] == at:
            function = chain[len(walk.hosts) - len(hosts)]
            rate = int(world.rate_mcpu_per_gbps[network.node_index[at], function])
            assert rate >= 0, f"{at} does not host stage {len(walk.hosts) - len(hosts)}"
            rho = int(walk.work.snapshot[walk.resource(at)]) / int(network.compute_mcpu[network.node_index[at]])
            latency += float(world.processing_ms[function]) / (1 - rho)
            taken[at] = taken.get(at, 0) + -(-demand * rate // 1_000_000)
            hosts.pop(0)
            segment = [at]

    run_stages()
    for link in walk.links:
        e = network.link_ids.index(link)
        assert network.node_ids[network.source[e]] == at, "links follow each other"
        at = network.node_ids[network.target[e]]
        assert at not in segment, f"{at} twice in a segment"
        segment.append(at)
        assert network.transit[network.node_index[at]] or at == network.node_ids[request["destination"]]
        latency += float(network.delay_ms[e])
        taken[link] = taken.get(link, 0) + demand
        run_stages()
    assert not hosts, "every host lies on the walk, in order"
    if walk.cause == "accepted":
        assert len(walk.hosts) == len(chain)
        assert at == network.node_ids[request["destination"]]
    return latency, taken


@settings(max_examples=150)
@given(
    st.integers(0, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from(MASKS),
    st.sampled_from(SLOT_ORDERS),
    st.floats(0, 1),
)
def test_whatever_allowed_slots_are_taken_the_walk_is_sound(seed, choices, mask, slot_order, load):
    """Chains complete in order, segments are simple, and a complete route fits on its own snapshot."""
    world = random_world(seed)
    draw = np.random.default_rng(choices)
    walk = Walker(world, mask, slot_order, max_hops=int(draw.integers(3, 16)))
    network = world.network
    used = {link: int(draw.uniform(0, load) * c)
            for link, c in zip(network.link_ids, network.capacity_kbps, strict=True)}  # fmt: skip
    used |= {node: int(draw.uniform(0, load) * b)
             for node, b in zip(network.node_ids, world.budget_mcpu, strict=True)}  # fmt: skip
    for _ in range(3):  # the same memory serves request after request
        source, destination = draw.choice(network.node_ids, 2, replace=False)
        service = str(draw.choice(world.service_ids))
        walk.start(service, str(source), str(destination), int(draw.integers(1000, 80_000)), used)
        while walk.is_open():
            walk.observe()
            assert walk.work.mask.sum() == walk.work.walk[0]["n_valid"] >= 2
            slot = draw.choice(np.flatnonzero(walk.work.mask))
            take(walk.arrays, walk.work, walk.request, walk.work.slot_link[slot])
        latency, taken = plain_route(walk)
        assert walk.latency == pytest.approx(latency, abs=1e-9)
        assert len(walk.links) <= walk.rules.max_hops
        bound = world.latency_ms[walk.request["service"]]
        if walk.cause == "accepted":
            assert latency <= bound
            shared = make_shared(network.capacity_kbps, world.budget_mcpu, 4)
            shared.used[:] = walk.work.snapshot
            names = list(taken)
            resources = np.array([walk.resource(name) for name in names])
            amounts = np.array([taken[name] for name in names])
            assert commit(shared, resources, amounts, len(names), 0, 0, 0.0, 0)[0] == -1
        elif walk.cause == "hop_limit":
            assert len(walk.links) == walk.rules.max_hops


# ------------------------------------------------------------------------------------ slots and observation
def test_static_order_is_by_delay_to_go_and_priced_order_by_load():
    """B is nearer to the goal than D, but its link is nearly full."""
    used = {"A>B": 85_000, "B>Q": 85_000}
    walk = Walker(fork(), slot_order="static").start("loose", "S", "T", 10_000, used).hop("S>A")
    walk.look(), walk.observe()
    assert walk.targets() == ["P", "B", "D"]
    walk = Walker(fork(), slot_order="priced").start("loose", "S", "T", 10_000, {"A>P": 85_000}).hop("S>A")
    walk.look(), walk.observe()
    assert walk.targets()[-1] == "P"
    walk = Walker(fork(), slot_order="static").start("loose", "S", "T", 10_000, {"A>P": 85_000}).hop("S>A")
    walk.look(), walk.observe()
    assert walk.targets()[0] == "P"


def test_equal_prices_keep_the_static_order():
    walk = Walker(fork(), slot_order="priced").start("loose", "S", "T", 10_000).hop("S>A")
    static = list(walk.look())
    walk.observe()
    assert walk.targets() == static, "an idle network has no prices"


def test_the_observation_says_what_it_says():
    """Each feature of one slot, by hand: from A to P, where F would run with half its room left."""
    used = {"A>P": 50_000, "P": 400}
    walk = Walker(fork(), slot_order="static").start("loose", "S", "T", 10_000, used, t_s=6 * 3600.0).hop("S>A")
    walk.look()
    slots, overall = walk.observe()
    p = slots[walk.targets().index("P")]
    to_go = 0.5 + 0.4 + 2 + 1  # F at P, back to A, on to B, T
    assert p[:7] == pytest.approx([1, 0.5, 0.4 / 50, 1 - (1.4 + to_go) / 50, 1, 0.5, to_go / 50], abs=1e-6)
    b = slots[walk.targets().index("B")]
    assert b[4] == b[5] == 0, "B hosts nothing"
    assert (slots[3:] == 0).all(), "slots that do not exist are zero"
    assert overall[:6] == pytest.approx([4 / 6, 1 - 1 / 50, 0, 0.2, 1, 0], abs=1e-6)
    assert overall[GLOBAL_FEATURES:].tolist() == [0, 1, 0, 0], "one-hot service"
    walk.hop("A>B"), walk.look()
    slots, _ = walk.observe()
    assert slots[walk.targets().index("A")][6] == 2, "a visited neighbour"


def random_walks(world, slot_order, mask, n=300, load=1.0):
    """Yield (observation, mask, walker) at the choices of random walks on random snapshots."""
    draw = np.random.default_rng(1)
    walk = Walker(world, mask, slot_order)
    network = world.network
    for _ in range(n):
        level = draw.uniform(0, load, network.n_links + network.n_nodes)
        walk.start(str(draw.choice(world.service_ids)),
                   *map(str, draw.choice(network.node_ids, 2, replace=False)),
                   int(10 ** draw.uniform(2, 5)), t_s=float(draw.uniform(0, 2e5)))  # fmt: skip
        walk.work.snapshot[:] = level * np.concatenate([network.capacity_kbps, world.budget_mcpu])
        begin(walk.arrays, walk.work, walk.request, 0)
        while walk.is_open():
            observe(walk.arrays, walk.work, walk.request, walk.rules)
            yield walk.work.observation.copy(), walk.work.mask.copy(), walk
            slot = draw.choice(np.flatnonzero(walk.work.mask))
            take(walk.arrays, walk.work, walk.request, walk.work.slot_link[slot])


@pytest.mark.parametrize("slot_order", [
    "static",
    "priced",
])  # fmt: skip
@pytest.mark.parametrize("mask", MASKS)
def test_observations_lie_within_the_box(toy, slot_order, mask):
    seen = 0
    for world in (toy, contended()):
        for observation, _, _ in random_walks(world, slot_order, mask):
            assert np.isfinite(observation).all()
            assert np.abs(observation).max() <= 2.0
            seen += 1
    assert seen > 300


def test_an_observation_depends_on_nothing_but_request_and_snapshot(toy):
    """Memory that has served other requests gives the same observation as fresh memory."""
    checked = 0
    for observation, mask, walk in random_walks(toy, "priced", "immediate", n=400):
        fresh = Walker(toy, "immediate", "priced")
        fresh.request = walk.request
        fresh.work.snapshot[:] = walk.work.snapshot
        for scratch in (fresh.work.cost, fresh.work.link_cost, fresh.work.stage_cost, fresh.work.slot_key):
            scratch[:] = 1e9
        begin(fresh.arrays, fresh.work, fresh.request, 0)
        if not fresh.is_open():
            continue
        observe(fresh.arrays, fresh.work, fresh.request, fresh.rules)
        target = len(walk.links)
        while len(fresh.links) < target:
            link = walk.links[len(fresh.links)]
            fresh.hop(link)
            if fresh.is_open():
                observe(fresh.arrays, fresh.work, fresh.request, fresh.rules)
        assert fresh.links == walk.links
        np.testing.assert_array_equal(fresh.work.observation, observation)
        np.testing.assert_array_equal(fresh.work.mask, mask)
        checked += 1
    assert checked > 300


def test_an_observation_at_the_destination_stub_depends_on_nothing_but_request_and_snapshot():
    """A walk may pass its destination before the chain is done; links out of it have a price too."""
    network = make_network(
        {
            "S": ("du", 0, False),
            "T": ("du", 0, False),
            "A": ("agg", 0, True),
            "B": ("agg", 0, True),
            "D": ("agg", 0, True),
            "P": ("cu", 1000, True),
        },
        {
            "S-A": (1000, 1.0),
            "A-T": (1000, 1.0),
            "A-B": (1000, 5.0),
            "T-B": (1000, 1.0),
            "T-D": (1000, 1.0),
            "D-B": (1000, 1.0),
            "B-P": (1000, 0.1),
        },
    )
    world = make_world(network, {"F": 0.1}, {"s": (("F",), 50.0)}, {("P", "F"): 1000})
    seen = []
    for stale in (0.0, 0.01):
        walk = Walker(world)
        walk.work.link_cost[:] = stale * np.arange(network.n_links)
        walk.work.cost[:] = stale
        walk.start("s", "S", "T", 10)
        walk.hop("S>A").hop("A>T")
        assert walk.is_open()
        walk.observe()
        seen.append((walk.targets(), walk.work.observation.tolist()))
    assert seen[0] == seen[1]


def layered(world, arrays, walk, price):
    """Return the layered graph of (stage, node), priced, within the latency bound on an idle network."""
    network, request = world.network, walk.request
    service, source, destination = (int(request[name]) for name in ("service", "source", "destination"))
    demand, bound = int(request["demand"]), float(world.latency_ms[service])
    length = int(world.chain_length[service])
    so_far = world.delay_so_far[service, :, source]  # [K + 1, N], knows no route through a destination stub
    if world.stub[destination]:
        so_far = np.zeros_like(so_far)
    to_go = world.delay_to_go[service, :, destination]
    graph = nx.DiGraph()
    graph.add_node((length, destination))
    for stage in range(length + 1):
        for e in range(network.n_links):
            a, b = int(network.source[e]), int(network.target[e])
            if world.stub[b] and b != destination or world.stub[a] and a not in (source, destination):
                continue
            used, capacity = int(walk.work.snapshot[e]), int(network.capacity_kbps[e])
            if used + demand > capacity:
                continue
            if a != source and so_far[stage, a] + network.delay_ms[e] + to_go[stage, b] > bound:
                continue
            graph.add_edge((stage, a), (stage, b), weight=price(used, capacity) * demand / capacity)
        if stage == length:
            continue
        function = world.chains[service, stage]
        for node in range(network.n_nodes):
            rate = int(world.rate_mcpu_per_gbps[node, function])
            need = -(-demand * rate // 1_000_000)
            used, budget = int(walk.work.snapshot[network.n_links + node]), int(world.budget_mcpu[node])
            if rate < 0 or used + need > budget or so_far[stage, node] + to_go[stage, node] > bound:
                continue
            if world.stub[node] and node not in (source, destination):
                continue
            graph.add_edge((stage, node), (stage + 1, node), weight=price(used, budget) * need / budget)
    return graph, (length, destination)


@pytest.mark.parametrize("load", [0.3, 0.9, 1.0])
def test_priced_cost_to_go_is_dijkstra_s_on_the_layered_graph(toy, load):
    network = toy.network
    draw = np.random.default_rng(int(10 * load))
    walk = Walker(toy)
    table = walk.arrays.price

    def price(used, capacity):
        step = int(used * (1 / capacity) * (len(table) - 1))
        return MU ** (step / (len(table) - 1)) - 1

    compared = 0
    for _ in range(60):
        service = str(draw.choice(toy.service_ids))
        source = str(draw.choice(["DU-W", "DU-C", "DU-E", "COR"]))
        destination = str(draw.choice(["DC", "CU-E", "CU-W", "DU-W"]))
        if source == destination:
            continue
        walk.start(service, source, destination, int(10 ** draw.uniform(3, 4.8)))
        level = draw.uniform(0, load, network.n_links + network.n_nodes)
        walk.work.snapshot[:] = level * np.concatenate([network.capacity_kbps, toy.budget_mcpu])
        walk.work.cost[:] = -1.0
        price_to_go(walk.arrays, walk.work, walk.request, 0)
        graph, end = layered(toy, walk.arrays, walk, price)
        cost = nx.single_source_dijkstra_path_length(graph.reverse(copy=False), end)
        start = (0, int(walk.request["source"]))
        reached = nx.descendants(graph, start) if start in graph else set()
        for stage, node in reached | {start}:
            expected = cost.get((stage, node), np.inf)
            assert walk.work.cost[stage, node] == pytest.approx(expected, rel=1e-9, abs=1e-12), (stage, node)
            compared += np.isfinite(expected)
    assert compared > 200


# ----------------------------------------------------------------------------------------------- truncation
def test_as_many_slots_as_the_largest_number_of_useful_neighbours():
    arrays = make_arrays(fork())
    assert slot_count(arrays, 10) == 4, "B has A, D, Q and the stub T; of several stubs one counts"
    assert slot_count(make_arrays(contended()), 10) == 4, "A has B, P, C and three stubs"
    assert slot_count(arrays, 3) == 3
    assert observation_size(arrays, 4) == 4 * SLOT_FEATURES + GLOBAL_FEATURES + 4
    assert len(truncated_nodes(arrays, slot_count(arrays, 10))) == 0


def test_only_the_nearest_neighbours_are_kept_and_the_nodes_concerned_are_named():
    world = fork()
    arrays = make_arrays(world)
    assert [world.network.node_ids[v] for v in truncated_nodes(arrays, 2)] == ["A", "B"]
    walk = Walker(world, max_slots=2).start("loose", "S", "T", 10_000).hop("S>A")
    assert list(walk.look()) == ["P", "B"]


def test_a_dead_end_that_only_truncation_caused_is_counted_apart():
    used = {"A>P": 100_000, "A>B": 100_000}
    walk = Walker(fork(), max_slots=2).start("loose", "S", "T", 10_000, used)
    assert not walk.is_open()
    assert walk.cause == "dead_end_slots"
    walk = Walker(fork(), max_slots=2).start("loose", "S", "T", 10_000, used | {"A>D": 100_000})
    assert not walk.is_open()
    assert walk.cause == "dead_end_bandwidth", "the neighbour left out was blocked as well"
    walk = Walker(fork(), max_slots=3).start("loose", "S", "T", 10_000, used)
    walk.is_open()
    assert "A>D" in walk.links
