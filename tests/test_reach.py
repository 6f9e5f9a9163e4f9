"""The look ahead of the `reachable` mask, against every completion that plain Python can find."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from walkers import Walker, fork
from worlds import contended, make_network, make_world, random_world

from amarl_core.agents import untrained
from amarl_core.audit import audit
from amarl_core.config import make_config
from amarl_core.evaluation import play_trace
from amarl_core.routing import FREE_SLOT, MASKS, REACHABLE, UNREACHABLE


# ------------------------------------------------------------------------------------- every completion there is
class Completions:
    """Can a walk be completed? Tries every hop by the agent's rules; shares no code with the kernels."""

    def __init__(self, walk: Walker):
        world, request, n_links = walk.world, walk.request, walk.network.n_links
        self.world, self.network = world, walk.network
        self.chain = [int(f) for f in world.chains[request["service"]] if f >= 0]
        self.bound = float(world.latency_ms[request["service"]])
        self.demand, self.destination = int(request["demand"]), int(request["destination"])
        self.kbps = walk.work.snapshot[:n_links].tolist()
        self.mcpu = walk.work.snapshot[n_links:].tolist()
        self.used_kbps = [0] * n_links
        self.used_mcpu = [0] * walk.network.n_nodes
        self.node, self.stage, self.latency = int(request["source"]), 0, 0.0
        self.seen = {self.node}
        self.run()
        for link in walk.links:
            self.hop(walk.network.link_ids.index(link))

    def need(self, node: int) -> int:
        """Compute of the next stage at a node, -1 where it is not hosted."""
        rate = int(self.world.rate_mcpu_per_gbps[node, self.chain[self.stage]])
        return -1 if rate < 0 else -(-self.demand * rate // 1_000_000)

    def run(self) -> None:
        """Run stages where the walk stands, as long as they fit."""
        while self.stage < len(self.chain):
            need, node = self.need(self.node), self.node
            if need < 0 or self.mcpu[node] + self.used_mcpu[node] + need > self.world.budget_mcpu[node]:
                return
            rho = self.mcpu[node] / int(self.network.compute_mcpu[node])
            self.latency += float(self.world.processing_ms[self.chain[self.stage]]) / (1 - rho)
            self.used_mcpu[node] += need
            self.stage += 1
            self.seen = {node}

    def hop(self, link: int) -> None:
        """Walk over a link."""
        self.node = int(self.network.target[link])
        self.seen = self.seen | {self.node}
        self.latency += float(self.network.delay_ms[link])
        self.used_kbps[link] += self.demand
        self.run()

    def may(self, link: int) -> bool:
        """Whether nothing at hand forbids a hop."""
        target = int(self.network.target[link])
        fits = self.kbps[link] + self.used_kbps[link] + self.demand <= self.network.capacity_kbps[link]
        is_open = not self.world.stub[target] or target == self.destination
        return fits and is_open and target not in self.seen

    def exist(self) -> bool:
        """Whether some completion exists from here."""
        if self.latency > self.bound:
            return False
        if self.stage == len(self.chain) and self.node == self.destination:
            return True
        return any(self.exist_after(link) for link in np.flatnonzero(self.network.source == self.node))

    def exist_after(self, link: int) -> bool:
        """Whether some completion exists after a hop; leaves the walk as it was."""
        if not self.may(link):
            return False
        before = self.node, self.stage, self.latency, self.seen, self.used_kbps.copy(), self.used_mcpu.copy()
        self.hop(link)
        found = self.exist()
        self.node, self.stage, self.latency, self.seen, self.used_kbps, self.used_mcpu = before
        return found


def verdicts(walk: Walker):
    """Yield (link, whether the mask allows it, whether a completion exists) at every step of a random walk."""
    draw = np.random.default_rng(int(walk.request["demand"]))
    delay, reachable = walk.rules, walk.rules._replace(mask=REACHABLE)
    while True:
        walk.rules = delay
        if not walk.is_open():  # hopeless hops are walked as well: the mask must be right from anywhere
            return
        walk.rules = reachable
        walk.look()
        slots = list(zip(walk.work.slot_link.tolist(), walk.work.slot_cause.tolist(), strict=True))
        slots = slots[: walk.work.walk[0]["n_slots"]]
        completions = Completions(walk)
        for link, cause in slots:
            yield link, cause == FREE_SLOT, completions.exist_after(link)
        onward = [link for link, cause in slots if cause in (FREE_SLOT, UNREACHABLE)]
        walk.hop(walk.network.link_ids[draw.choice(onward)])


def begin_somewhere(world, draw, level, demand, services=None) -> Walker:
    """Begin a walk of a random request on a network that is loaded to some level."""
    network = world.network
    walk = Walker(world, "delay", max_hops=40)
    source, destination = map(str, draw.choice(network.node_ids, 2, replace=False))
    walk.start(str(draw.choice(services or world.service_ids)), source, destination, demand,
               dict(zip(network.link_ids + network.node_ids, map(int, level), strict=True)))  # fmt: skip
    return walk


@st.composite
def worlds(draw):
    """A random small network, or the contended one with its stubs."""
    seed = draw(st.integers(0, 60))
    return contended() if seed == 0 else random_world(seed, through_pools=draw(st.booleans()))


@settings(max_examples=300)
@given(worlds(), st.integers(0, 2**32 - 1), st.floats(0.3, 1))
def test_a_hop_that_is_forbidden_has_no_completion(world, seed, load):
    """Soundness, on any snapshot, at any step, whatever the request uses twice."""
    draw = np.random.default_rng(seed)
    full = np.concatenate([world.network.capacity_kbps, world.budget_mcpu])
    level = full * (1 - (1 - load) * draw.random(len(full)) ** 2)
    for link, allowed, exists in verdicts(begin_somewhere(world, draw, level, int(draw.integers(1000, 80_000)))):
        assert allowed or not exists, world.network.link_ids[link]


@settings(max_examples=300)
@given(worlds(), st.integers(0, 2**32 - 1), st.booleans())
def test_a_hop_that_is_allowed_has_a_completion_unless_something_is_used_twice(world, seed, tight_pools):
    """Completeness: links are full or have room for a use in every segment; pools likewise, or the chain is short.

    A chain of two stages cannot come back to a pool that it has used up, so there the pools may be tight.
    """
    draw = np.random.default_rng(seed)
    demand = int(draw.integers(1000, 15_000))
    links = world.network.capacity_kbps * (draw.random(world.network.n_links) < 0.25)
    if tight_pools:
        services = [s for s, n in zip(world.service_ids, world.chain_length, strict=True) if n <= 2]
        pools = world.budget_mcpu - np.minimum(world.budget_mcpu, draw.integers(0, 150, world.network.n_nodes))
    else:
        services = None
        pools = world.budget_mcpu * (draw.random(world.network.n_nodes) < 0.3)
    level = np.concatenate([links, pools])
    for link, allowed, exists in verdicts(begin_somewhere(world, draw, level, demand, services)):
        assert allowed == exists, world.network.link_ids[link]


# --------------------------------------------------------------------------------------------- cases by hand
def at_router(world=None, **start):
    """A walk that looks ahead, from S to router A."""
    start = dict(service="loose", source="S", destination="T", demand=10_000) | start
    return Walker(world or fork(), "reachable").start(**start).hop("S>A")


def test_on_an_idle_network_nothing_is_out_of_reach():
    assert at_router().look() == {"P": "", "B": "", "D": ""}


def test_a_neighbour_beyond_which_the_way_is_blocked_is_masked():
    """Pool P is full and B>Q has no room: F runs nowhere beyond B; with P free, only P leads on."""
    walk = at_router(used={"B>Q": 100_000})
    assert walk.look() == {"P": "", "B": "unreachable", "D": "unreachable"}, "they could only come back over A"
    assert Walker(fork(), "delay").start("loose", "S", "T", 10_000, {"B>Q": 100_000}).hop("S>A").look()["B"] == ""


def test_room_for_one_stage_is_not_room_for_two_in_a_row():
    one_each = {"P": 700, "Q": 700}  # a stage takes 100 of 800
    walk = at_router(service="twice", used=one_each)
    assert walk.look()["P"] == "", "one stage at P, the other at Q"
    walk = at_router(service="twice", used=one_each | {"Q": 800})
    assert walk.look() == {"P": "unreachable", "B": "unreachable", "D": "unreachable"}
    walk = at_router(service="twice", used={"P": 600, "Q": 800})
    assert walk.look()["P"] == ""


def test_a_pool_counts_as_used_up_once_it_is():
    """Room for one stage in each pool and three stages: the search hopes to come back to P until it has been there."""
    walk = at_router(service="thrice", used={"P": 700, "Q": 700})
    assert walk.look()["P"] == ""
    assert walk.hop("A>P").look() == {"A": "unreachable"}
    assert not walk.is_open()
    assert walk.cause == "dead_end_compute"


def test_a_link_counts_as_used_up_once_it_is():
    """A>B has room once. Over B to Q, back to P, the way to T would lead over it again."""
    walk = at_router(service="twice", used={"P": 700, "Q": 700, "A>B": 90_000, "D>B": 100_000, "B>D": 100_000})
    assert walk.look() == {"P": "", "B": "", "D": "unreachable"}
    walk.hop("A>B")
    assert walk.look()["Q"] == "unreachable"
    assert not walk.is_open()
    assert walk.cause == "dead_end_bandwidth"


def quick_or_slow():
    """From S to T over X, which hosts F and is busy, or over Y, which hosts F as well and is idle."""
    network = make_network(
        {"S": ("agg", 0, True), "X": ("agg", 1000, True), "Y": ("agg", 1000, True), "T": ("agg", 0, True)},
        {"S-X": (1000, 1.0), "S-Y": (1000, 1.0), "X-Y": (1000, 0.1), "X-T": (1000, 1.0), "Y-T": (1000, 1.0)},
    )
    return make_world(network, {"F": 1.0}, {"s": (("F",), 4.0)}, {("X", "F"): 1000, ("Y", "F"): 1000})


def test_a_stage_runs_where_it_can_and_is_not_passed_by():
    """F takes 4 ms at X (75 % used): to go on to Y without it would be in time, but is not the agent's to choose."""
    walk = Walker(quick_or_slow(), "reachable").start("s", "S", "T", 1, {"X": 750})
    assert walk.look() == {"X": "unreachable", "Y": ""}
    walk = Walker(quick_or_slow(), "reachable").start("s", "S", "T", 1, {"X": 800, "Y": 0})
    assert walk.look() == {"X": "", "Y": ""}, "a full node is passed by"


def test_a_node_that_the_walk_may_have_used_up_by_then_may_be_passed_by():
    """F, G, F: the first F runs at X, which is slow and has room for one, so the last may go on to Z, in time."""
    network = make_network(
        {"S": ("agg", 0, True), "X": ("agg", 1000, True), "Y": ("cu", 1000, True), "Z": ("agg", 1000, True)},
        {"S-X": (10**6, 1.0), "X-Y": (10**6, 0.1), "X-Z": (10**6, 1.0)},
    )
    hosts = {("X", "F"): 1000, ("Y", "G"): 1000, ("Z", "F"): 1000}
    world = make_world(network, {"F": 1.0, "G": 0.1}, {"s": (("F", "G", "F"), 8.0)}, hosts)
    walk = Walker(world, "reachable").start("s", "S", "Z", 30_000, {"X": 750})
    assert walk.look() == {"X": ""}
    assert not walk.is_open(), "there is but one way"
    assert (walk.cause, walk.hosts) == ("accepted", ["X", "Y", "Z"])
    assert walk.latency == pytest.approx(1 + 4 + 0.1 + 0.1 + 0.1 + 1 + 1)


def slow_in_the_middle():
    """S - X, X - Y, X - Z: F, H and K run at X, which is busy, G at Y, and K at Z as well, quickly."""
    network = make_network(
        {"S": ("agg", 0, True), "X": ("agg", 1000, True), "Y": ("cu", 1000, True), "Z": ("agg", 1000, True)},
        {"S-X": (10**6, 1.0), "X-Y": (10**6, 0.1), "X-Z": (10**6, 1.0)},
    )
    hosts = {("X", "F"): 1000, ("Y", "G"): 1000, ("X", "H"): 1000, ("X", "K"): 1000, ("Z", "K"): 1000}
    return make_world(network, {"F": 0.1, "G": 0.1, "H": 0.1, "K": 2.0}, {"s": (("F", "G", "H", "K"), 7.0)}, hosts)


def test_a_row_of_stages_may_end_where_the_walk_may_have_used_up_the_room_for_the_next():
    """X has room for two stages. F takes one of them on the way to G, so of H and K only H runs there, and K at Z.

    Without the memory of F, X has room for H and K in a row, and K would have to run there: 8 ms, too late.
    """
    walk = Walker(slow_in_the_middle(), "reachable").start("s", "S", "Z", 30_000, {"X": 740})  # 800 less two of 30
    assert walk.look() == {"X": ""}
    assert not walk.is_open(), "there is but one way"
    assert (walk.cause, walk.hosts) == ("accepted", ["X", "Y", "X", "Z"])
    assert walk.latency == pytest.approx(1 + 0.1 / 0.26 + 0.1 + 0.1 + 0.1 + 0.1 / 0.26 + 1 + 2)


@pytest.mark.parametrize("used, service, cause", [
    ({"B>T": 100_000}, "loose", "dead_end_bandwidth"),
    ({"P": 800, "Q": 800}, "loose", "dead_end_compute"),
    ({"P": 800, "Q": 800, "B>T": 100_000}, "loose", "dead_end_compute"),
    ({"A>P": 100_000, "A>B": 100_000}, "tight", "dead_end_bandwidth"),
    ({"P": 790, "Q": 790}, "tight", "dead_end_latency"),
])  # fmt: skip
def test_a_request_that_cannot_be_completed_ends_at_its_source_with_the_cause(used, service, cause):
    """Named after the limit without which a completion would exist: links before pools, else it is the latency."""
    walk = Walker(fork(), "reachable").start(service, "S", "T", 500, used)
    assert not walk.is_open()
    assert (walk.cause, walk.links) == (cause, [])
    assert not walk.is_open(), "asked again, the answer is the same"
    assert walk.cause == cause


# --------------------------------------------------------------------------------------------- days of requests
def dead_ends_underway(world, trace, **choices) -> int:
    """How many requests an untrained agent leads into a dead end after a first hop."""
    played = play_trace(untrained(world, make_config(method="sarl", seed=1, **choices)), trace)
    report = audit(world, played.decisions, played.ledger, trace)
    assert report.ok, report.summary()
    lost = played.decisions["cause"].astype(str).str.startswith("dead_end")
    return int((lost & (played.decisions["hops"] > 0)).sum())


@pytest.mark.parametrize("slot_order", ["priced", "static"])
def test_an_untrained_agent_hardly_meets_a_dead_end_once_underway(toy, toy_day, slot_order):
    """Of some 2,000 requests: hundreds with the delay mask, next to none when looking ahead."""
    counts = {mask: dead_ends_underway(toy, toy_day, slot_order=slot_order, mask=mask) for mask in MASKS}
    assert counts["immediate"] > counts["delay"] > 200
    assert counts["reachable"] <= 3
