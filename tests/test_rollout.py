"""Agents in threads on one network: contention, both commit orders, conflicts, stopping and failing."""

import heapq
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import contended, make_network, make_trace, make_world, offer

from amarl_core.arena import AHEAD, DONE, STOPPED, make_flows
from amarl_core.audit import audit
from amarl_core.config import make_config
from amarl_core.departures import pop, push
from amarl_core.errors import AmarlError
from amarl_core.evaluation import play_trace
from amarl_core.rollout import depart, look_at_store, plan, try_commit
from amarl_core.routing import CAUSES
from amarl_core.simulation import AgentError, Simulation, Team, options_for, peak_active, play, run_threads
from amarl_core.store import VERSION
from amarl_core.teams import untrained
from amarl_core.traces import repeat

CONFLICTS = ("conflict_link", "conflict_node")
DEAD_ENDS = ("dead_end_bandwidth", "dead_end_compute", "dead_end_latency")


@pytest.fixture(scope="module")
def world():
    """Six services on eight nodes."""
    return contended()


@pytest.fixture(scope="module")
def busy(world):
    """Some 3,000 requests that fight for the middle of the network."""
    return offer(world, 3000, seed=4, gap_s=1.0, hold_s=60.0)


@pytest.fixture(scope="module")
def team(world):
    """Six untrained agents, one a service."""
    return untrained(world, make_config(method="amarl", seed=1))


@pytest.fixture(scope="module")
def single(world):
    """One untrained agent for all."""
    return untrained(world, make_config(method="sarl", seed=1))


def simulation_of(run, trace, **options) -> Simulation:
    return Simulation(run.scenario, run.world, trace, run.team, run.nets, options_for(run.config, **options))


def records(simulation):
    return simulation.decisions(), simulation.ledger()


# ----------------------------------------------------------------------------------- the heap of departures
@given(st.lists(st.one_of(st.floats(0, 100), st.integers(0, 5), st.none()), max_size=80))
def test_flows_depart_earliest_first(script):
    """A number is pushed; None pops, if there is anything: against heapq."""
    flows, n, oracle = make_flows(len(script)), 0, []
    for row, t_s in enumerate(script):
        if t_s is not None:
            push(flows, n, float(t_s), row)
            heapq.heappush(oracle, float(t_s))
            n += 1
        elif n > 0:
            earliest, gone = float(flows.t_s[0]), int(flows.row[0])
            assert earliest == heapq.heappop(oracle)
            assert script[gone] == earliest, "time and row stay together"
            pop(flows, n)
            n -= 1
    left = sorted(flows.t_s[:n].tolist())
    assert left == sorted(oracle)
    assert sorted(script[row] for row in flows.row[:n]) == left


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=40))
def test_the_most_active_flows_are_counted_as_they_could_ever_be(flows):
    """A departure at the time of an arrival is not counted on to come first: memory must suffice either way."""
    flows.sort()
    t_s, hold_s = np.array(flows, float).T
    most = max(((t_s <= t) & (t <= t_s + hold_s)).sum() for t in t_s)
    least = max(((t_s <= t) & (t < t_s + hold_s)).sum() for t in t_s)
    assert least <= peak_active(t_s, hold_s) <= most


# ----------------------------------------------------------------------------------------------- contention
MODES = [
    pytest.param("free", 1, dict(lag_s=60.0), id="free lag 60 attempts 1"),
    pytest.param("free", 3, dict(lag_s=60.0), id="free lag 60 attempts 3"),
    pytest.param("free", 3, dict(lag_s=0.0), id="free lag 0 attempts 3"),
    pytest.param("free", 3, dict(lag_s=np.inf), id="free unbounded attempts 3"),
    pytest.param("arrival", 1, dict(window=4), id="arrival attempts 1"),
    pytest.param("arrival", 3, dict(window=4), id="arrival attempts 3"),
    pytest.param("arrival", 3, dict(window=0), id="arrival window 0 attempts 3"),
    pytest.param("arrival", 3, dict(window=50), id="arrival window 50 attempts 3"),
]


@pytest.mark.parametrize("order, attempts, how", MODES)
def test_six_agents_on_one_network_break_no_rule(world, busy, team, order, attempts, how):
    """Real threads, several times over: every decision and every ledger row is judged by the audit."""
    conflicts = 0
    for _ in range(4):
        played = play_trace(team, busy, order, attempts, **how)
        report = audit(world, played.decisions, played.ledger, busy, order)
        assert report.ok, report.summary()
        assert report.requests == len(busy)
        assert 0 < report.admissions <= len(busy)
        if how.get("lag_s") != np.inf:  # without a bound, agents may be served one after the other and never meet
            assert report.admissions < len(busy)
        assert played.decisions["attempts"].between(1, attempts).all()
        aborts = (played.ledger["kind"] == "abort").sum()
        assert aborts == played.conflicts
        conflicts += aborts
    if order == "arrival" and how["window"] > 0:
        assert conflicts > 0, "plans made ahead on a busy network must meet"
    if order == "arrival" and how["window"] == 0:
        assert conflicts == 0, "without planning ahead every plan is on the state it commits to"


@pytest.mark.parametrize("mask", ["immediate", "delay"])
@pytest.mark.parametrize("order, how", [("free", dict(lag_s=60.0)), ("arrival", dict(window=4))])
def test_agents_that_do_not_look_ahead_break_no_rule(world, busy, order, how, mask):
    """The masks that walk into dead ends, in threads and with plans made again after a conflict."""
    near = untrained(world, make_config(method="amarl", seed=1, mask=mask))
    played = play_trace(near, busy, order, 3, **how)
    report = audit(world, played.decisions, played.ledger, busy, order)
    assert report.ok, report.summary()
    assert 0 < report.admissions < report.requests == len(busy)


def test_agents_really_run_at_the_same_time(busy, team):
    """In free order without a bound, the ledger of six threads is not one agent after the other."""
    for _ in range(5):
        agents = play_trace(team, busy, "free", 1, lag_s=60.0).ledger["agent"].astype(str)
        if (agents != agents.shift()).sum() > 50:
            return
    pytest.fail("no interleaving in five runs")


def test_a_plan_is_at_most_window_requests_old(busy, team):
    """In arrival order a snapshot lacks at most the commits of `window` requests, and the departures meanwhile."""
    for window in (1, 4):
        played = play_trace(team, busy, "arrival", 1, window=window)
        ledger, decisions = played.ledger, played.decisions
        commits = ledger[ledger["kind"] == "commit"]
        position = np.searchsorted(busy.t_s, commits["t_s"].to_numpy())  # which arrival made each version
        version = commits["store_version"].to_numpy()
        seen = decisions["snapshot_version"].to_numpy()
        for i in range(len(decisions)):
            newest = np.searchsorted(version, seen[i], side="right") - 1
            first_missed = newest + 1
            if first_missed < len(position) and position[first_missed] < i:
                assert i - position[first_missed] <= window


def test_the_snapshot_of_arrival_order_never_lies_in_the_future(busy, team):
    played = play_trace(team, busy, "arrival", 3, window=4)
    accepted = played.decisions[played.decisions["accepted"]]
    assert (accepted["snapshot_version"] < accepted["commit_version"]).all()


# --------------------------------------------------------------------------------------- who waits for whom
def test_one_agent_decides_alike_in_every_order(busy, single):
    """SARL commits what it has just seen: order, attempts, lag and window are of no account."""
    first = play_trace(single, busy, "arrival", 3)
    outcome = [c for c in first.decisions.columns if c != "attempts"]
    assert first.conflicts == 0
    for order, attempts, how in (("arrival", 1, {}), ("free", 3, {}), ("free", 1, dict(lag_s=0.0)),
                                 ("arrival", 3, dict(window=0)), ("arrival", 3, dict(window=100))):  # fmt: skip
        other = play_trace(single, busy, order, attempts, **how)
        assert other.decisions[outcome].equals(first.decisions[outcome])
        assert other.ledger.equals(first.ledger)


def test_arrival_order_without_planning_ahead_is_the_sequential_run(busy, team):
    """Six threads with window 0 take turns: the same outcome each time, and the same as with one thread."""
    played = [play_trace(team, busy, "arrival", 1, window=0) for _ in range(3)]
    simulation = simulation_of(team, busy)
    for row in range(len(busy)):  # one thread, request by request
        a = int(team.team.agent_of_service[busy.service[row]])
        agent = simulation.agents[a]
        t_s = float(busy.t_s[row])
        while simulation.arena.n_departures[0] > 0 and simulation.arena.departures.t_s[0] <= t_s:
            gone = simulation.arena.departures
            depart(simulation.arena, agent.work, int(gone.row[0]), float(gone.t_s[0]))
            pop(gone, simulation.arena.n_departures[0])
            simulation.arena.n_departures[0] -= 1
        look_at_store(simulation.arena, agent.work, row)
        if plan(simulation.arena, agent, simulation.options, row, a):
            assert try_commit(simulation.arena, agent.work, agent.stream[0], row) == 1
            push(simulation.arena.departures, simulation.arena.n_departures[0],
                 t_s + float(busy.hold_s[row]), row)  # fmt: skip
            simulation.arena.n_departures[0] += 1
    plain = simulation.decisions()
    for run in played:
        assert run.decisions.equals(plain)
        assert run.ledger.head(len(simulation.ledger())).equals(simulation.ledger())


def test_more_attempts_accept_more_of_what_was_planned_ahead(busy, team):
    """On the contended network 3 attempts gained 4 to 8 points over 1, for three seeds of the weights."""
    gos = {n: play_trace(team, busy, "pipeline", n, window=4).decisions["accepted"].mean() for n in (1, 3)}
    assert gos[3] > gos[1] + 0.02


@pytest.mark.parametrize("order", ["arrival", "pipeline"])
def test_with_enough_attempts_no_conflict_is_final_in_order_of_arrival(busy, team, order):
    """A second plan is made in one's own turn, on the state that it commits to."""
    decisions = play_trace(team, busy, order, 2, window=4).decisions
    assert not decisions["cause"].isin(CONFLICTS).any()
    if order == "pipeline":  # threads may happen not to meet
        assert (decisions["attempts"] == 2).any()


def rolled_out_in_threads(team, trace, lag_s: float, late_s: float):
    """Let every agent serve its own requests, as training does, the first one late; return the ledger."""
    simulation = simulation_of(team, trace, lag_s=lag_s)

    def roll_out(a):
        time.sleep(late_s if a == 0 else 0.0)
        assert simulation.roll_out(a) == DONE

    run_threads(team.team.agents, roll_out, simulation.stop)
    return simulation.ledger()


def furthest_ahead(ledger, n_agents: int) -> float:
    """Return how far any event lay ahead of another agent's next event in lock order, in s of simulated time."""
    t_s, agents = ledger["t_s"].to_numpy(), ledger["agent"].cat.codes.to_numpy()
    upcoming, most = np.full(n_agents, np.inf), 0.0
    for i in range(len(t_s) - 1, -1, -1):
        upcoming[agents[i]] = t_s[i]
        most = max(most, t_s[i] - upcoming.min())
    return most


@pytest.mark.parametrize("lag_s", [0.0, 30.0, 300.0])
def test_no_agent_runs_ahead_by_more_than_the_lag(busy, team, lag_s):
    """In training the first agent starts a third of a second late, and the others must have waited for it."""
    assert furthest_ahead(rolled_out_in_threads(team, busy, lag_s, 0.3), 6) <= lag_s
    assert furthest_ahead(play_trace(team, busy, "free", 1, lag_s=lag_s).ledger, 6) <= lag_s


def test_an_unbounded_lag_lets_agents_run_ahead(busy, team):
    """The contrast without which the test above would prove nothing."""
    assert furthest_ahead(rolled_out_in_threads(team, busy, np.inf, 0.3), 6) > 1000
    assert furthest_ahead(play_trace(team, busy, "free", 1, lag_s=np.inf).ledger, 6) > 1000


def test_agents_use_the_lag_they_may(busy, team):
    """Threads serve an agent until it is as far ahead as it may be, and do not hand over event by event."""
    ledger = play_trace(team, busy, "free", 1, lag_s=300.0).ledger
    assert furthest_ahead(ledger, 6) > 150
    agents = ledger["agent"].astype(str)
    assert (agents != agents.shift()).mean() < 0.5


def test_an_agent_without_requests_keeps_nobody_waiting(world, busy, team):
    for order in ("free", "arrival"):
        for trace in (busy[busy.service == 2], busy[busy.service != 0], busy.head(1), busy.head(0)):
            played = play_trace(team, trace, order, 3, lag_s=0.0)
            assert len(played.decisions) == len(trace)
            assert audit(world, played.decisions, played.ledger, trace, order).ok


def test_equal_times_of_arrival_and_departure(world, team):
    """Departures go first at equal times, so a full link is free again for the next request."""
    rows = [(float(t), "s2", "S1", "C", 300_000, 1.0) for t in range(20)]
    trace = make_trace(world, rows)
    for order in ("free", "arrival"):
        played = play_trace(team, trace, order, 1, window=0)
        assert audit(world, played.decisions, played.ledger, trace, order).ok
        assert played.decisions["accepted"].nunique() == 1, "each meets the same empty network"
    many = make_trace(world, [(5.0, s, "S1", "C", 40_000, 3.0) for s in world.service_ids for _ in range(5)])
    for order in ("free", "arrival"):
        played = play_trace(team, many, order, 3, window=4)
        assert audit(world, played.decisions, played.ledger, many, order).ok


# ------------------------------------------------------------------------------------------------- refusing
def pessimist(world, agent: int, expects: float):
    """Return an untrained team of which one agent expects so much of every request."""
    run = untrained(world, make_config(method="amarl", seed=1))
    run.nets.critic_3[agent, -1] = expects
    return run


@pytest.mark.parametrize("order", ["free", "arrival", "pipeline"])
def test_an_agent_refuses_what_it_expects_to_earn_less_than_a_failure(world, busy, order):
    played = play_trace(pessimist(world, 2, -1.1), busy, order, 3)
    causes = played.decisions["cause"].astype(str)
    at_choice = played.decisions["service"] == world.service_ids[2]
    assert (causes[~at_choice] != "refused").all()
    assert (causes[at_choice] == "refused").sum() > 0.5 * at_choice.sum()
    assert set(causes[at_choice]) <= {"refused", *DEAD_ENDS}, "what cannot be served at all is not refused"
    assert audit(world, played.decisions, played.ledger, busy, "free" if order == "free" else "arrival").ok


def test_an_agent_serves_what_it_expects_to_earn_as_much_as_a_failure(world, busy):
    played = play_trace(pessimist(world, 2, -1.0), busy, "arrival", 3)
    assert not (played.decisions["cause"] == "refused").any()


def test_in_training_one_request_in_four_is_served_all_the_same(world, busy):
    run = pessimist(world, 2, -1.1)
    options = options_for(run.config, learn=True)
    simulation = Simulation(world, run.world, busy, run.team, run.nets, options, [8 * len(busy)] * 6)
    assert simulation.roll_out(2) == DONE
    decisions = simulation.decisions()
    rows = np.flatnonzero(busy.service == 2)
    refused = set(busy.request_id[rows[rows % 4 != 0]])
    assert set(decisions.loc[decisions["cause"] == "refused", "request_id"]) == refused
    buffer, stream = simulation.agents[2].buffer, simulation.agents[2].stream[0]
    assert buffer.fill[0] > 0, "those served are learned from"
    at_once = decisions["cause"].astype(str).str.startswith("dead_end") & (decisions["hops"] == 0)
    undecided = len(refused) + at_once.sum()
    assert stream["reward"] == pytest.approx(buffer.reward[: buffer.fill[0]].sum() - undecided, rel=1e-4)


# ------------------------------------------------------------------------------------------------ conflicts
def crossing():
    """Two sites, one router, one pool; the link to the pool has room for one request, the pool for one stage."""

    def build(link_kbps, mcpu):
        network = make_network(
            {"S": ("du", 0, False), "T": ("du", 0, False), "A": ("agg", 0, True), "P": ("cu", mcpu, True)},
            {"S-A": (10**6, 1.0), "T-A": (10**6, 1.0), "A-P": (link_kbps, 0.1)},
        )  # fmt: skip
        services = {"one": (("F",), 50.0), "two": (("F",), 50.0)}
        return make_world(network, {"F": 0.1}, services, {("P", "F"): 1000})

    return build


@pytest.mark.parametrize("link_kbps, mcpu, cause, resource", [
    (15_000, 1000, "conflict_link", "A>P"),
    (10**6, 20, "conflict_node", "P"),
])  # fmt: skip
def test_of_two_plans_on_one_snapshot_the_second_aborts(link_kbps, mcpu, cause, resource):
    """A scripted order of events: both plan, both commit, one goes, the other tries again."""
    world = crossing()(link_kbps, mcpu)
    run = untrained(world, make_config(method="amarl"))
    trace = make_trace(world, [(0.0, "one", "S", "P", 10_000, 5.0), (1.0, "two", "T", "P", 10_000, 9.0)])
    simulation = simulation_of(run, trace, attempts=2)
    arena, (first, second) = simulation.arena, simulation.agents
    for row, agent in ((0, first), (1, second)):
        look_at_store(arena, agent.work, row)
        assert plan(arena, agent, simulation.options, row, row)
    assert try_commit(arena, first.work, first.stream[0], 0) == 1
    used = arena.shared.used.copy()
    assert try_commit(arena, second.work, second.stream[0], 1) == 0
    assert (arena.shared.used == used).all(), "an abort takes nothing"
    decisions, ledger = records(simulation)
    assert decisions["cause"].astype(str).tolist() == ["accepted", cause]
    assert decisions["commit_version"].tolist() == [1, -1]
    assert ledger["kind"].astype(str).tolist() == ["commit", "abort"]
    assert ledger["resource"].astype(str).tolist() == ["", resource]
    assert depart(arena, first.work, 0, 5.0) == 2
    report = audit(world, *records(simulation), trace, "free")
    assert report.ok, report.summary()

    look_at_store(arena, second.work, 1)  # the second attempt, once there is room again
    assert plan(arena, second, simulation.options, 1, 1)
    assert try_commit(arena, second.work, second.stream[0], 1) == 1
    assert depart(arena, second.work, 1, 10.0) == 4
    assert (arena.shared.used == 0).all()
    decisions, ledger = records(simulation)
    assert decisions["attempts"].tolist() == [1, 2]
    report = audit(world, decisions, ledger, trace, "free")
    assert report.ok, report.summary()


# ------------------------------------------------------------------------------------- stopping and failing
@pytest.fixture
def one_agent_hangs(monkeypatch):
    """Hold the first agent's thread in Python, so that in a rollout the others wait for its clock."""
    let_go, roll_out = threading.Event(), Simulation.roll_out

    def hanging(self, a, *rest):
        if a == 0:
            let_go.wait(30)
        return roll_out(self, a, *rest)

    monkeypatch.setattr(Simulation, "roll_out", hanging)
    yield let_go
    let_go.set()


def test_a_stop_ends_agents_that_wait_for_another(busy, team, one_agent_hangs):
    simulation = simulation_of(team, busy, lag_s=0.0)
    codes = {}

    def serve(a):
        codes[a] = simulation.roll_out(a)

    threads = [threading.Thread(target=serve, args=(a,), daemon=True) for a in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert not codes, "everybody waits for the first agent's clock"
    simulation.stop()
    for thread in threads[1:]:
        thread.join(5)
    assert codes == dict.fromkeys(range(1, 6), STOPPED)
    one_agent_hangs.set()
    threads[0].join(5)
    assert codes[0] == STOPPED


@pytest.mark.parametrize("order", ["free", "arrival"])
def test_in_evaluation_nobody_waits_for_a_thread_that_has_not_begun(world, busy, team, order):
    simulation = simulation_of(team, busy, window=2, lag_s=10.0)
    codes = {}
    threads = [
        threading.Thread(target=lambda a=a: codes.update({a: simulation.serve(a, order)}), daemon=True)
        for a in range(1, 6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert codes == dict.fromkeys(range(1, 6), DONE)
    decisions, ledger = records(simulation)
    assert len(decisions) == len(busy)
    assert not audit(world, decisions, ledger, busy, order).count


def stop_soon(simulation, n_events: int = 100) -> threading.Thread:
    """Stop a simulation, from a thread of its own, as soon as its store has seen so many events."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while simulation.arena.shared.control[VERSION] < n_events and time.monotonic() < deadline:
            time.sleep(0.0002)
        simulation.stop()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("order", ["free", "arrival"])
def test_a_stopped_run_keeps_sound_records_of_what_it_did(world, busy, team, order):
    trace = repeat(busy, 20, float(busy.t_s[-1]) + 1.0)
    simulation = simulation_of(team, trace, lag_s=60.0, window=4)
    stopper = stop_soon(simulation)
    play(simulation, order)
    stopper.join()
    decisions, ledger = records(simulation)
    assert simulation.stopped
    assert 0 < len(decisions) < len(trace)
    found = set(audit(world, decisions, ledger, None, order).count)
    assert found <= {"unreleased", "zero"}, "flows that were active at the stop, and nothing else"


@pytest.mark.parametrize("order", ["free", "arrival"])
def test_an_error_in_one_agent_stops_the_others_and_names_it(busy, team, monkeypatch, order):
    serve = Simulation.serve

    def failing(self, a, *rest):
        if a == 3:
            time.sleep(0.05)
            raise ValueError("the disk is on fire")
        return serve(self, a, *rest)

    monkeypatch.setattr(Simulation, "serve", failing)
    before = threading.active_count()
    start = time.perf_counter()
    with pytest.raises(AgentError, match="^s3: ValueError: the disk is on fire") as error:
        play_trace(team, busy, order, 1, lag_s=0.0, window=0)
    assert isinstance(error.value.__cause__, ValueError)
    assert time.perf_counter() - start < 10
    assert threading.active_count() == before, "no thread is left behind"


def test_an_error_in_the_caller_s_callback_stops_the_agents():
    stop, ended = threading.Event(), threading.Event()

    def work(a):
        stop.wait(20)
        ended.set()

    def tick():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_threads(("a",), work, stop.set, tick)
    assert ended.wait(1), "the agent runs on although its caller has failed"


def test_ctrl_c_stops_all_agents_waits_for_them_and_is_raised_again():
    stop, ended = threading.Event(), []

    def work(a):
        stop.wait(20)
        time.sleep(0.1)
        ended.append(a)

    def tick():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_threads(("a", "b"), work, stop.set, tick)
    assert sorted(ended) == [0, 1]


@pytest.mark.parametrize("order", ["free", "arrival"])
def test_memory_that_is_too_small_is_an_error_and_no_crash(busy, team, order):
    """Ledger and heap are sized by the simulation; should that ever be wrong, it must be said."""
    simulation = simulation_of(team, busy)
    shared = simulation.arena.shared._replace(ledger=simulation.arena.shared.ledger[:50])
    simulation.arena = simulation.arena._replace(shared=shared)
    with pytest.raises(AgentError, match="ledger"):
        play(simulation, order)
    simulation = simulation_of(team, busy)
    lanes = simulation.arena.lanes._replace(first_flow=np.arange(0, 14, 2))  # room for two flows an agent
    simulation.arena = simulation.arena._replace(departures=make_flows(2), lanes=lanes)
    with pytest.raises(AgentError, match="flows"):
        play(simulation, order)


def test_the_kernel_pauses_at_the_horizon(busy, single):
    simulation = simulation_of(single, busy)
    half = float(busy.t_s[1500])
    assert simulation.roll_out(0, half) == AHEAD
    decisions = simulation.decisions()
    assert len(decisions) == 1501, "an event at the horizon itself is served"
    assert simulation.ledger()["t_s"].max() <= half
    assert simulation.roll_out(0) == DONE
    assert len(simulation.decisions()) == len(busy)


def test_an_unknown_order_is_refused_with_the_valid_ones(busy, team):
    with pytest.raises(AmarlError, match="'sideways'.*free, arrival"):
        play_trace(team, busy, "sideways")


@pytest.mark.parametrize("wrong", [dict(attempts=0), dict(window=-1), dict(lag_s=-1.0)])
def test_options_out_of_range_are_refused(busy, team, wrong):
    with pytest.raises(AmarlError):
        play_trace(team, busy, **wrong)


def test_a_team_has_one_agent_a_service_or_one_for_all(world):
    assert Team.of(world, "amarl").agents == world.service_ids
    assert Team.of(world, "sarl").agents == ("sarl",)
    assert Team.of(world, "sarl").agent_of_service.tolist() == [0] * 6


def test_causes_are_those_that_the_records_promise():
    assert set(CAUSES) == {"accepted", "dead_end_bandwidth", "dead_end_compute", "dead_end_latency",
                           "dead_end_loop", "dead_end_slots", "hop_limit", "refused", *CONFLICTS}  # fmt: skip
