"""Verdicts on rejections against brute force in plain Python, and on worlds and races made by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import PlainState, contended, make_network, make_trace, make_world, offer, random_world

from amarl_core.agents import untrained
from amarl_core.audit import audit
from amarl_core.baselines import baseline
from amarl_core.config import make_config
from amarl_core.errors import AmarlError, AuditError
from amarl_core.evaluation import play_trace
from amarl_core.rollout import depart, look_at_store, plan, try_commit
from amarl_core.simulation import Simulation, options_for
from amarl_core.verdicts import BINDINGS, VERDICTS, judge, summary, tally

RELAXATIONS = ("bandwidth", "compute", "latency")


# ------------------------------------------------------------------------------------------------ brute force
class Enumeration:
    """Whether any walk of one request is feasible on a state, by trying them all; one kind of limit may be lifted."""

    def __init__(self, world, state: PlainState, row, lifted: str = ""):
        self.world, self.row, self.lifted = world, row, lifted
        self.kbps, self.mcpu = list(state.kbps.values()), list(state.mcpu.values())
        service = world.service_ids.index(row.service)
        self.chain = [int(f) for f in world.chains[service] if f >= 0]
        self.bound = math.inf if lifted == "latency" else float(world.latency_ms[service])
        self.destination = world.network.node_index[row.destination]
        self.out = [np.flatnonzero(world.network.source == v).tolist() for v in range(world.network.n_nodes)]

    def any(self) -> bool:
        source = self.world.network.node_index[self.row.source]
        return self._from(source, 0, {source}, {}, 0.0)

    def _from(self, node: int, stage: int, segment: set, own: dict, latency: float) -> bool:
        if latency > self.bound:
            return False
        if stage == len(self.chain) and node == self.destination:
            return True
        if stage < len(self.chain) and self._runs(node, stage, own, latency):
            return True
        demand, network = int(self.row.demand_kbps), self.world.network
        for e in self.out[node]:
            target, mine = int(network.target[e]), own.get(e, 0)
            fits = self.kbps[e] + mine + demand <= network.capacity_kbps[e] or self.lifted == "bandwidth"
            enters = target == self.destination or not self.world.stub[target]
            if fits and enters and target not in segment:
                taken = own | {e: mine + demand}
                if self._from(target, stage, segment | {target}, taken, latency + float(network.delay_ms[e])):
                    return True
        return False

    def _runs(self, node: int, stage: int, own: dict, latency: float) -> bool:
        world, function = self.world, self.chain[stage]
        rate, mine = int(world.rate_mcpu_per_gbps[node, function]), own.get(("node", node), 0)
        need = -(-int(self.row.demand_kbps) * rate // 1_000_000)
        fits = self.mcpu[node] + mine + need <= world.budget_mcpu[node] or self.lifted == "compute"
        if rate < 0 or not fits:
            return False
        rho = self.mcpu[node] / int(world.network.compute_mcpu[node])
        ms = float(world.processing_ms[function]) / (1 - rho)
        return self._from(node, stage + 1, {node}, own | {("node", node): mine + need}, latency + ms)


class LedgerStates:
    """The state at every version, by replaying the ledger in plain Python."""

    def __init__(self, world, decisions, ledger):
        self.rows = {row.request_id: row for row in decisions.itertuples()}
        state = PlainState(world)
        self.versions = [self._copy(state)]
        for event in ledger.itertuples():
            if event.kind != "abort":
                state._change(self.rows[event.request_id], +1 if event.kind == "commit" else -1)
                self.versions.append(self._copy(state))

    @staticmethod
    def _copy(state: PlainState) -> SimpleNamespace:
        return SimpleNamespace(kbps=dict(state.kbps), mcpu=dict(state.mcpu))


def states_at_turns(world, decisions) -> dict[int, SimpleNamespace]:
    """The state when each request's turn comes, by serving the decisions one after the other."""
    state, at_turn = PlainState(world), {}
    for row in decisions.itertuples():
        state.depart_until(row.t_s)
        at_turn[row.request_id] = SimpleNamespace(kbps=dict(state.kbps), mcpu=dict(state.mcpu))
        if row.accepted:
            state.admit(row)
    return at_turn


def expected_verdict(world, row, states: LedgerStates, aborts, at_turn) -> dict:
    """Judge one rejected request in the words of the module's table."""
    snapshot = states.versions[row.snapshot_version]
    first = states.versions[aborts[0].snapshot_version] if aborts else snapshot
    is_conflict = row.cause.startswith("conflict")
    if is_conflict:
        place = states.versions[aborts[-1].store_version]
    else:
        place = snapshot if at_turn is None else at_turn[row.request_id]
    at_first, at_snapshot, at_place = (Enumeration(world, s, row).any() for s in (first, snapshot, place))
    overtaken = is_conflict and aborts[-1].store_version > row.snapshot_version
    if at_snapshot and not overtaken:
        verdict = "missed"
    elif not (at_first or at_snapshot or at_place):
        verdict = "unroutable"
    else:
        verdict = "lost_race"
    found = dict(verdict=verdict, routable_at_first=at_first, routable_at_snapshot=at_snapshot,
                 routable_at_commit=at_place)  # fmt: skip
    lifts = {name: verdict == "unroutable" and Enumeration(world, place, row, name).any() for name in RELAXATIONS}
    found |= {f"relaxing_{name}": freed for name, freed in lifts.items()}
    first_lift = next((name for name in RELAXATIONS if lifts[name]), "several")
    return found | {"binding": first_lift if verdict == "unroutable" else ""}


def compare_with_enumeration(world, trace, played, order: str) -> dict[str, int]:
    """Hold every verdict on a run to brute force; return how often each verdict and binding was met."""
    decisions, ledger = played.decisions, played.ledger
    audit(world, decisions, ledger, trace, order).raise_if_violated()
    verdicts = judge(world, decisions, ledger, trace)
    rejected = decisions[~decisions["accepted"]]
    assert verdicts["request_id"].tolist() == rejected["request_id"].tolist()
    states = LedgerStates(world, decisions, ledger)
    at_turn = states_at_turns(world, decisions) if order == "arrival" else None
    aborts: dict[int, list] = {}
    for event in ledger[ledger["kind"] == "abort"].itertuples():
        aborts.setdefault(event.request_id, []).append(event)
    met: dict[str, int] = {}
    for row, judged in zip(rejected.itertuples(), verdicts.to_dict("records"), strict=True):
        expected = expected_verdict(world, row, states, aborts.get(row.request_id, []), at_turn)
        assert {name: judged[name] for name in expected} == expected, row
        left = "" if expected["verdict"] != "lost_race" else f" left {expected['routable_at_commit']}"
        for what in (expected["verdict"] + left, expected["binding"]):
            met[what] = met.get(what, 0) + 1
    return met


MODES = [
    ("pipeline", 1, dict(window=6)),
    ("pipeline", 3, dict(window=6)),
    ("arrival", 3, dict(window=6)),
    ("free", 1, {}),
    ("free", 2, {}),
]


@pytest.mark.parametrize("order, attempts, how", MODES, ids=lambda value: str(value))
def test_verdicts_on_six_agents_agree_with_brute_force(order, attempts, how):
    """An untrained team that does not look ahead on a small busy network, in every order."""
    world = contended()
    trace = offer(world, 400, seed=5, gap_s=0.3, hold_s=45.0)
    team = untrained(world, make_config(method="amarl", seed=1, mask="delay"))
    played = play_trace(team, trace, order, attempts, **how)
    met = compare_with_enumeration(world, trace, played, "free" if order == "free" else "arrival")
    assert met["unroutable"] > 10 and met["missed"] > 10, met
    if (order, attempts) == ("pipeline", 1):
        assert met["lost_race left True"] > 5, "plans made ahead on a busy network must meet"


@pytest.mark.parametrize("name", ["shortest_feasible", "reservation", "fixed_shortest"])
def test_verdicts_on_rules_agree_with_brute_force_on_random_networks(name):
    """24 networks of 5 to 7 nodes with pools that are leaves, chains of up to three stages."""
    met: dict[str, int] = {}
    for seed in range(24):
        world = random_world(seed)
        trace = offer(world, 30, seed, gap_s=1.0, hold_s=30.0)
        setting = dict(loose_ms=5.0) if name == "reservation" else {}
        played = play_trace(baseline(name, **setting), trace, scenario=world)
        for what, n in compare_with_enumeration(world, trace, played, "arrival").items():
            met[what] = met.get(what, 0) + n
    assert met["unroutable"] > 10 and {"bandwidth", "compute", "latency", "several"} <= set(met), met
    assert ("missed" in met) == (name != "shortest_feasible"), met
    assert "lost_race" not in met, "a rule serves one request at a time"


@settings(max_examples=10)
@given(st.integers(100, 10**6))
def test_verdicts_agree_with_brute_force_on_any_network(seed):
    world = random_world(seed)
    trace = offer(world, 25, seed, gap_s=1.0, hold_s=30.0)
    agent = untrained(world, make_config(method="amarl", seed=seed))
    compare_with_enumeration(world, trace, play_trace(agent, trace, "arrival", 1, window=5), "arrival")


# ----------------------------------------------------------------------------------------------------- rules
@pytest.fixture(scope="module")
def busy_day(toy):
    """A training day whose flows stay five times as long: pools and links fill up."""
    trace = toy.training_trace(seed=3, days=1)
    return replace(trace, hold_s=5 * trace.hold_s)


def test_a_rule_that_is_exact_never_misses_and_never_loses_a_race(toy, busy_day):
    played = play_trace(baseline("shortest_feasible"), busy_day, scenario=toy)
    verdicts = judge(toy, played.decisions, played.ledger, busy_day)
    assert len(verdicts) == (~played.decisions["accepted"]).sum() > 100
    assert (verdicts["verdict"] == "unroutable").all()
    assert not verdicts[["routable_at_first", "routable_at_snapshot", "routable_at_commit"]].any(axis=None)


def test_a_rule_blind_to_load_misses_and_loses_no_race(toy, busy_day):
    """Its plan meets a full link on the very state it was made on: nobody overtook it."""
    played = play_trace(baseline("fixed_shortest"), busy_day, scenario=toy)
    verdicts = judge(toy, played.decisions, played.ledger, busy_day)
    assert verdicts["cause"].str.startswith("conflict").all()
    assert set(verdicts["verdict"]) == {"missed", "unroutable"}


def test_verdicts_do_not_depend_on_the_order_of_the_rows(toy, busy_day):
    played = play_trace(baseline("fixed_shortest"), busy_day, scenario=toy)
    verdicts = judge(toy, played.decisions, played.ledger, busy_day)
    shuffled = judge(toy, played.decisions.sample(frac=1, random_state=1), played.ledger[::-1], busy_day)
    text = ["service", "cause", "verdict", "binding"]
    assert verdicts.astype(dict.fromkeys(text, str)).equals(shuffled.astype(dict.fromkeys(text, str)))


@pytest.mark.parametrize("worth, verdict", [(1e-9, "refused"), (1e9, "unroutable")])
def test_what_is_let_go_on_purpose_is_refused_and_not_missed(toy, busy_day, worth, verdict):
    """The exact rule by price: with next to no worth it refuses all it could route, with much of it nothing."""
    played = play_trace(baseline("priced_admission", worth=worth), busy_day, scenario=toy)
    verdicts = judge(toy, played.decisions, played.ledger, busy_day)
    assert len(verdicts) > 100
    assert (verdicts["verdict"] == verdict).all()


# ----------------------------------------------------------------------------------------------------- races
def crossing(ways: int = 1):
    """Two sites, a router, and one or two pools behind links with room for one request of 10 Mb/s each."""
    pools = ["P", "Q"][:ways]
    network = make_network(
        {"S": ("du", 0, False), "T": ("du", 0, False), "A": ("agg", 0, True)}
        | {pool: ("cu", 1000, True) for pool in pools},
        {"S-A": (10**6, 1.0), "T-A": (10**6, 1.0)} | {f"A-{pool}": (15_000, 0.1) for pool in pools},
    )
    services = {"one": (("F",), 50.0), "two": (("F",), 50.0)}
    return make_world(network, {"F": 0.1}, services, {(pool, "F"): 1000 for pool in pools})


class Script:
    """Two agents, of one mind, whose events happen in the order of the test."""

    def __init__(self, world, requests, attempts: int = 1):
        run = untrained(world, make_config(method="amarl"))
        self.world, self.trace = world, make_trace(world, requests)
        options = options_for(run.config, attempts=attempts)
        self.simulation = Simulation(world, run.world, self.trace, run.team, run.nets, options)

    def plan(self, row: int) -> bool:
        agent = self.simulation.agents[row % 2]
        look_at_store(self.simulation.arena, agent.work, row)
        return plan(self.simulation.arena, agent, self.simulation.options, row, 0)

    def commit(self, row: int) -> int:
        agent = self.simulation.agents[row % 2]
        return try_commit(self.simulation.arena, agent.work, agent.stream[0], row)

    def depart(self, row: int, t_s: float) -> None:
        depart(self.simulation.arena, self.simulation.agents[row % 2].work, row, t_s)

    def verdict(self):
        verdicts = judge(self.world, self.simulation.decisions(), self.simulation.ledger(), self.trace)
        assert verdicts["request_id"].tolist() == [101]
        return verdicts.iloc[0]


def two_requests(hold_s: float = 9.0):
    return [(0.0, "one", "S", "P", 10_000, hold_s), (1.0, "two", "T", "P", 10_000, 9.0)]


def test_of_two_plans_for_the_last_room_on_a_link_one_loses_the_race():
    script = Script(crossing(), two_requests())
    assert script.plan(0) and script.plan(1)
    assert script.commit(0) == 1 and script.commit(1) == 0
    verdict = script.verdict()
    assert (verdict["cause"], verdict["verdict"], verdict["binding"]) == ("conflict_link", "lost_race", "")
    assert verdict["routable_at_snapshot"] and not verdict["routable_at_commit"]


def test_a_race_lost_with_another_route_left_is_told_apart():
    """The destination is the router, so either pool would do; equal requests are planned through the same one."""
    script = Script(crossing(ways=2), [(t_s, "one", "S", "A", 10_000, 9.0) for t_s in (0.0, 1.0)])
    assert script.plan(0) and script.plan(1)
    decisions = script.simulation.decisions()
    assert list(decisions["hosts"][0]) == list(decisions["hosts"][1]), "no race without the same pool"
    assert script.commit(0) == 1 and script.commit(1) == 0
    verdict = script.verdict()
    assert verdict["verdict"] == "lost_race" and verdict["routable_at_commit"]


def test_of_several_aborts_the_last_is_where_a_request_was_decided():
    """First one pool is taken from under it, with the other left; then the other, and nothing is left."""
    script = Script(crossing(ways=2), [(t_s, "one", "S", "A", 10_000, 9.0) for t_s in (0.0, 1.0, 2.0)], attempts=2)
    assert script.plan(0) and script.plan(1)
    assert script.commit(0) == 1 and script.commit(1) == 0
    assert script.plan(1) and script.plan(2)
    assert script.commit(2) == 1 and script.commit(1) == 0
    verdict = script.verdict()
    assert verdict["verdict"] == "lost_race" and verdict["routable_at_snapshot"] and not verdict["routable_at_commit"]


def test_a_request_that_finds_nothing_left_after_its_abort_lost_the_race():
    script = Script(crossing(), two_requests(), attempts=2)
    assert script.plan(0) and script.plan(1)
    assert script.commit(0) == 1 and script.commit(1) == 0
    assert not script.plan(1), "the second attempt ends in a dead end"
    verdict = script.verdict()
    assert (verdict["cause"], verdict["verdict"]) == ("dead_end_bandwidth", "lost_race")
    assert verdict["routable_at_first"] and not verdict["routable_at_snapshot"] and not verdict["routable_at_commit"]


@pytest.mark.parametrize("hold_s, expected", [(0.5, "lost_race"), (1.0, "lost_race"), (9.0, "unroutable")])
def test_a_plan_on_a_snapshot_older_than_its_turn_may_miss_room_that_came_back(hold_s, expected):
    """Planned ahead of its turn while the link was full; a departure at the very time of its turn still counts."""
    script = Script(crossing(), two_requests(hold_s=hold_s))
    assert script.plan(0) and script.commit(0) == 1
    assert not script.plan(1)
    script.depart(0, hold_s)
    verdict = script.verdict()
    assert verdict["cause"] == "dead_end_bandwidth" and verdict["verdict"] == expected
    assert not verdict["routable_at_snapshot"]
    assert verdict["routable_at_commit"] == (expected == "lost_race")
    assert verdict["binding"] == ("bandwidth" if expected == "unroutable" else "")


def test_a_dead_end_in_free_order_is_judged_by_its_snapshot_alone():
    """The other agent, whose request arrives later, has been ahead: there was no turn to come."""
    script = Script(crossing(), two_requests())
    assert script.plan(1) and script.commit(1) == 1
    assert not script.plan(0)
    verdicts = judge(script.world, script.simulation.decisions(), script.simulation.ledger(), script.trace)
    assert verdicts["request_id"].tolist() == [100]
    assert verdicts["verdict"].tolist() == ["unroutable"], "on an empty network, in order of arrival, it fits"


# --------------------------------------------------------------------------------------------- what binds it
def narrow(link_kbps: int = 10**6, mcpu: int = 1000, bound_ms: float = 50.0):
    """One way to a near pool with room for one request of 10 Mb/s (10 mcpu), and no other pool."""
    network = make_network(
        {"S": ("du", 0, False), "A": ("agg", 0, True), "P": ("cu", mcpu, True)},
        {"S-A": (10**6, 1.0), "A-P": (link_kbps, 0.1)},
    )
    return make_world(network, {"F": 1.0}, {"v": (("F",), bound_ms)}, {("P", "F"): 1000})


def judge_second(world):
    """Offer the same request twice and judge the second, which is rejected."""
    trace = make_trace(world, [(t, "v", "S", "P", 10_000, 9.0) for t in (0.0, 1.0)])
    played = play_trace(baseline("shortest_feasible"), trace, scenario=world)
    assert played.decisions["accepted"].tolist() == [True, False]
    return judge(world, played.decisions, played.ledger, trace).iloc[0]


@pytest.mark.parametrize("world, binding", [
    (narrow(link_kbps=15_000), "bandwidth"),
    (narrow(mcpu=20), "compute"),
    (narrow(mcpu=25, bound_ms=2.5), "latency"),
    (narrow(link_kbps=15_000, mcpu=20), "several"),
], ids=str)  # fmt: skip
def test_the_limit_that_binds_is_the_one_whose_lifting_frees_the_request(world, binding):
    """In a pool of 25 mcpu, 10 in use, a stage takes 1 / (1 - 0.4) ms: 1.67 with 1.1 of links is over 2.5."""
    verdict = judge_second(world)
    assert verdict["verdict"] == "unroutable" and verdict["binding"] == binding
    for name in RELAXATIONS:
        assert verdict[f"relaxing_{name}"] == (name == binding)


def test_of_two_limits_that_would_do_alone_both_are_recorded_and_compute_is_named():
    """A full pool near by, and a free one so far off that only a looser bound would reach it."""
    network = make_network(
        {"S": ("du", 0, False), "A": ("agg", 0, True), "P": ("cu", 20, True), "D": ("core", 1000, True)},
        {"S-A": (10**6, 1.0), "A-P": (10**6, 0.1), "A-D": (10**6, 30.0)},
    )  # fmt: skip
    verdict = judge_second(make_world(network, {"F": 1.0}, {"v": (("F",), 20.0)}, {("P", "F"): 1000, ("D", "F"): 1000}))
    assert verdict["relaxing_compute"] and verdict["relaxing_latency"] and not verdict["relaxing_bandwidth"]
    assert verdict["binding"] == "compute"


# ------------------------------------------------------------------------------------------- sums and errors
def test_summaries_add_up(toy, busy_day):
    played = play_trace(baseline("reservation", reserve_above=0.1, loose_ms=0.0), busy_day, scenario=toy)
    verdicts = judge(toy, played.decisions, played.ledger, busy_day)
    table, counts = summary(verdicts), tally(verdicts, method="reservation", seed=0, day="busy")
    assert table["requests"].sum() == len(verdicts) == counts["requests"].sum()
    assert table["share"].sum() == pytest.approx(100.0)
    assert set(table["verdict"]) == set(VERDICTS) and set(table["binding"]) == set(BINDINGS)
    for row in table.itertuples():
        part = counts[(counts["verdict"] == row.verdict) & (counts["binding"] == row.binding)]
        assert part["requests"].sum() == row.requests
        assert row.routable_at_commit <= row.requests
    assert counts.columns.tolist() == ["method", "seed", "day", "service", "verdict", "binding", "requests"]
    assert (counts["requests"] > 0).all()


def test_a_run_without_rejections_has_no_verdicts(toy, busy_day):
    for trace in (busy_day.head(3), busy_day.head(0)):
        played = play_trace(baseline("shortest_feasible"), trace, scenario=toy)
        verdicts = judge(toy, played.decisions, played.ledger, trace)
        assert len(verdicts) == 0 and len(tally(verdicts, method="x")) == 0
        assert summary(verdicts)["requests"].sum() == 0


def test_hours_are_of_the_day(toy, busy_day):
    late = replace(busy_day, t_s=busy_day.t_s + 3 * 86400.0)
    played = play_trace(baseline("shortest_feasible"), late, scenario=toy)
    verdicts = judge(toy, played.decisions, played.ledger, late)
    t_s = dict(zip(late.request_id, late.t_s, strict=True))
    assert verdicts["hour"].tolist() == [int(t_s[i] // 3600) % 24 for i in verdicts["request_id"]]


def test_records_that_do_not_belong_together_are_refused(toy, busy_day):
    played = play_trace(baseline("fixed_shortest"), busy_day, scenario=toy)
    decisions, ledger = played.decisions, played.ledger
    with pytest.raises(AuditError, match="not in trace"):
        judge(toy, decisions, ledger, busy_day.head(50))
    with pytest.raises(AuditError, match="ledger row"):
        judge(toy, decisions, ledger.drop(index=7), busy_day)
    with pytest.raises(AuditError, match="without a decision"):
        judge(toy, decisions.head(50), ledger, busy_day)
    with pytest.raises(AuditError, match="without an abort"):
        judge(toy, decisions, ledger[ledger["kind"] != "abort"], busy_day)
    with pytest.raises(AuditError, match="another scenario"):
        judge(contended(), decisions, ledger, busy_day)


def test_a_search_that_runs_out_of_memory_is_an_error_and_no_verdict(toy, busy_day):
    played = play_trace(baseline("fixed_shortest"), busy_day, scenario=toy)
    with pytest.raises(AmarlError, match="n_labels"):
        judge(toy, played.decisions, played.ledger, busy_day, n_labels=2)
