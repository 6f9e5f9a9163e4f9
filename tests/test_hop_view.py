"""What the hop view says about a mask is what the compiled mask does, and every reason it gives is true."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reach import Completions, worlds
from walkers import Walker
from worlds import contended, make_trace, offer

from amarl_core.baselines import baseline
from amarl_core.config import make_config
from amarl_core.env import RoutingEnv
from amarl_core.errors import AmarlError
from amarl_core.evaluation import play_trace, route
from amarl_core.hop_view import fill_store, route_by_hops, telling_request
from amarl_core.hop_walk import ALLOWED, NO_WAY, NOTHING_TO_RUN, REASONS, STUB, TRUNCATED, Neighbour
from amarl_core.maps import NetworkMap
from amarl_core.routing import LOOP, NO_BANDWIDTH, NO_COMPUTE, NO_LATENCY, UNREACHABLE
from amarl_core.store import ResourceStore, Snapshot


def snapshot_of(world, used: np.ndarray, version: int = 0) -> Snapshot:
    """A snapshot with so much in use, links before nodes."""
    n, limit = world.network.n_links, np.concatenate([world.network.capacity_kbps, world.budget_mcpu])
    return Snapshot(version, used[:n], used[n:], (limit - used)[:n], (limit - used)[n:])


@pytest.mark.parametrize("mask", ["immediate", "delay", "reachable"])
def test_allowed_is_what_the_environment_allows_at_every_choice(toy, mask):
    """Whole stretches of a day, choices at random: the environment walks, and the view is asked about each request."""
    config = make_config(mask=mask, may_refuse=False)
    env = RoutingEnv(toy, toy.training_trace(seed=3)[1200:1700], config=config)
    draw = np.random.default_rng(1)
    compared = pruned = 0
    env.reset(seed=0)
    while compared < 150:
        row = env._row
        before = env._agent.work.snapshot.copy()
        chosen: list[str] = []
        masks: list[set[str]] = []
        ended = False
        while not ended:
            links = env._agent.work.slot_link
            slots = np.flatnonzero(env.action_masks())
            masks.append({toy.network.link_ids[links[slot]] for slot in slots})
            slot = int(draw.choice(slots))
            chosen.append(toy.network.link_ids[links[slot]])
            _, _, ended, _, info = env.step(slot)
        turns = iter(chosen)
        view = route_by_hops(
            toy, env.trace[row : row + 1], snapshot_of(toy, before), config=config,
            choose=lambda allowed, turns=turns: allowed[0] if len(allowed) == 1 else next(turns),
        )  # fmt: skip
        assert [set(hop.allowed) for hop in view.hops if len(hop.allowed) > 1] == masks
        assert view.cause == info["cause"]
        assert list(view.links) == list(env.decisions().iloc[-1]["links"])
        compared += len(masks)
        pruned += sum(n.verdict in REASONS.values() for hop in view.hops for n in hop.neighbours)
        env.reset()
    assert pruned > 20


def check(world, walk: Walker, neighbour: Neighbour, mask: str) -> None:
    """Check a verdict by plain arithmetic, and by trying every completion."""
    network, w = world.network, Completions(walk)
    e = network.link_index[neighbour.link]
    target, after = int(network.target[e]), w.latency + float(network.delay_ms[e])
    service, done = int(walk.request["service"]), w.stage == len(w.chain)
    fits = w.kbps[e] + w.used_kbps[e] + w.demand <= network.capacity_kbps[e]
    is_leaf = len({int(network.source[i]) for i in np.flatnonzero(network.target == target)}) == 1
    idle = float(world.delay_to_go[service, w.stage, w.destination, target])
    if neighbour.verdict == ALLOWED:
        assert fits and target not in w.seen and after <= w.bound
        return
    need = -1 if done else -(-w.demand * int(world.rate_mcpu_per_gbps[target, w.chain[w.stage]]) // 1_000_000)
    reasons = {
        REASONS[LOOP]: target in w.seen,
        REASONS[NO_BANDWIDTH]: not fits,
        REASONS[NO_LATENCY]: after + (idle if mask != "immediate" else 0) > w.bound,
        REASONS[UNREACHABLE]: mask == "reachable" and not w.exist_after(e),
        REASONS[NO_COMPUTE]: not done and is_leaf and (
            world.rate_mcpu_per_gbps[target, w.chain[w.stage]] < 0
            or w.mcpu[target] + w.used_mcpu[target] + need > world.budget_mcpu[target]),
        STUB: bool(world.stub[target]) and target != w.destination,
        NO_WAY: not np.isfinite(idle),
        NOTHING_TO_RUN: done and is_leaf and target != w.destination,
        TRUNCATED: int((network.source == network.source[e]).sum()) > walk.n_slots,
    }  # fmt: skip
    assert reasons[neighbour.verdict], neighbour


@settings(max_examples=120)
@given(
    worlds() | st.just(contended()),
    st.integers(0, 2**32 - 1),
    st.floats(0.2, 1),
    st.sampled_from(["immediate", "delay", "reachable"]),
)
def test_every_reason_is_true(world, seed, load, mask):
    draw = np.random.default_rng(seed)
    full = np.concatenate([world.network.capacity_kbps, world.budget_mcpu]).astype(np.int64)
    used = (full * (1 - (1 - load) * draw.random(len(full)) ** 2)).astype(np.int64)
    names = world.network.node_ids
    source, destination = map(str, draw.choice(names, 2, replace=False))
    service, demand = str(draw.choice(world.service_ids)), int(draw.integers(1000, 60_000))
    config = make_config(mask=mask, max_slots=3)
    trace = make_trace(world, [(0.0, service, source, destination, demand, 60.0)])
    view = route_by_hops(
        world, trace, snapshot_of(world, used), config=config, choose=lambda allowed: str(draw.choice(allowed))
    )
    walk = Walker(world, mask, max_slots=3)
    walk.start(service, source, destination, demand, dict(zip(world.network.link_ids + names, used, strict=True)))
    for hop in view.hops:
        assert hop.latency_ms == pytest.approx(Completions(walk).latency)
        if hop.neighbours:
            around = np.flatnonzero(world.network.source == world.network.node_index[hop.node])
            assert sorted(n.link for n in hop.neighbours) == sorted(world.network.link_ids[e] for e in around)
        for neighbour in hop.neighbours:
            check(world, walk, neighbour, mask)
        if hop.taken:
            walk.hop(hop.taken)
    assert list(view.links) == walk.links and list(view.hosts) == walk.hosts


def test_a_trained_run_takes_the_way_it_takes_elsewhere(toy, toy_team):
    """On a loaded network: routes and refusals as `evaluation.route` gives them."""
    trace = toy.training_trace(seed=5)
    store = ResourceStore.of(toy)
    limit = store.shared.limit
    draw = np.random.default_rng(2)
    causes = set()
    for i in range(0, 1500, 25):
        store.shared.used[:] = (limit * (1 - 0.9 * draw.random(len(limit)) ** 2)).astype(np.int64)
        view = route_by_hops(toy, trace[i : i + 1], store.snapshot(), run=toy_team)
        known = route(toy_team, trace[i : i + 1], store.snapshot())
        if not known["cause"].startswith("conflict"):
            assert (view.cause, list(view.links), list(view.hosts)) == (
                known["cause"], list(known["links"]), list(known["hosts"]))  # fmt: skip
            causes.add(view.cause)
    assert "accepted" in causes and len(causes) > 1


def test_what_a_route_takes_is_what_a_played_day_commits():
    """Committing the view's delta leaves the store as the simulation of the same request does."""
    world = contended()
    trace = offer(world, 1, seed=3)
    store = ResourceStore.of(world)
    view = route_by_hops(world, trace, store.snapshot())
    assert view.cause == "accepted"
    assert store.commit(1, view.delta(), view.version).accepted
    played = play_trace(baseline("shortest_feasible"), trace, scenario=world).decisions
    assert played["accepted"].all()
    taken = store.snapshot()
    network, demand = world.network, int(trace.demand_kbps[0])
    by_hand = [demand * view.links.count(link) for link in network.link_ids]
    assert taken.used_kbps.tolist() == by_hand
    assert taken.used_mcpu.sum() == sum(view.delta().nodes.values()) > 0


def test_a_filled_store_holds_the_active_requests_and_a_telling_one_shows_much(toy):
    trace, t_s = toy.training_trace(seed=4), 16 * 3600.0
    store = ResourceStore.of(toy)
    accepted = fill_store(store, toy, trace, t_s)
    active = (trace.t_s <= t_s) & (trace.t_s + trace.hold_s > t_s)
    ledger = store.ledger()
    assert 0 < accepted == (ledger["kind"] == "commit").sum() <= active.sum()
    assert set(ledger["request_id"]) <= set(trace.request_id[active])
    request = telling_request(toy, trace, store.snapshot(), "no such service", t_s, n=20)
    assert request.service[0] == 0 and request.t_s[0] >= t_s
    view = route_by_hops(toy, request, store.snapshot())
    assert len({n.verdict for hop in view.hops for n in hop.neighbours}) > 2
    with pytest.raises(AmarlError, match="take an earlier time"):
        telling_request(toy, trace, store.snapshot(), toy.service_ids[0], 1e6)
    store.shared.used[:] = store.shared.limit
    with pytest.raises(AmarlError, match="can be served on this snapshot; take a quieter hour or another service"):
        telling_request(toy, trace, store.snapshot(), toy.service_ids[0], t_s)


def test_the_table_names_every_neighbour_and_the_drawing_the_way():
    world = contended()
    view = route_by_hops(world, offer(world, 1, seed=3), ResourceStore.of(world).snapshot())
    table = view.frame()
    assert set(table.columns) >= {"step", "at", "latency_ms", "neighbour", "verdict", "detail", "taken"}
    assert table["taken"].sum() == len(view.links)
    assert (table.loc[table["taken"], "verdict"] == ALLOWED).all()
    assert "stub" not in set(view.frame(only_slots=True)["verdict"])
    chart = NetworkMap(world)
    shown = view.drawing(chart)._repr_html_()
    for link in view.links:
        assert f"{link.replace('>', '&gt;')}: path" in shown
    assert "Step 1: at " in view.svg(chart, 1) or len(view.hops[0].allowed) == 1


def test_more_than_one_request_or_another_networks_snapshot_is_refused(toy):
    world = contended()
    with pytest.raises(AmarlError, match="takes one request, got 2"):
        route_by_hops(world, offer(world, 2, seed=1), ResourceStore.of(world).snapshot())
    with pytest.raises(AmarlError, match=r"take it from ResourceStore.of\(scenario\)"):
        route_by_hops(world, offer(world, 1, seed=1), ResourceStore.of(toy).snapshot())
