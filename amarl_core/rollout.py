"""The event loop of one agent, compiled and free of the interpreter lock: arrivals, departures, plan, commit.

Planning runs in parallel on private snapshots. `serve_free` lets an agent serve its own requests, as training does: it
commits as soon as the store's lock is free, with a clock per agent and a bounded lag between clocks. In evaluation any
thread serves any agent: `clocks.serve_clocks` in the same free order, `arrival.serve_arrival` in order of arrival.
"""

import numpy as np
from numba import njit

from amarl_core.arena import AHEAD, BUSY, DONE, EVENTS_PER_CALL, FULL, NO_LEDGER, NO_ROOM, STOPPED, WAITING
from amarl_core.departures import pop, push
from amarl_core.gate import announce, slowest, wait_for
from amarl_core.inference import actor, critic, most_likely, sample
from amarl_core.native import INLINE, KERNEL, lock, now_ns, unlock
from amarl_core.prices import charge
from amarl_core.routing import (
    ACCEPTED,
    CONFLICT_LINK,
    CONFLICT_NODE,
    REFUSED,
    begin,
    observe,
    route_delta,
    take,
    to_decision,
)
from amarl_core.stopwatch import COMMIT, EVENTS, FORWARD, OBSERVE, RELEASE, SNAPSHOT, begin_laps, lap, lap_of_lag
from amarl_core.store import STOP, commit, read_snapshot, release

SERVED_ANYWAY = 4
"""In training one request in so many is never refused. With one in eight an agent could come to refuse nearly all of
its requests within four days, and saw too few of the others to notice."""


@njit(**INLINE)
def _note_inputs(buffer, b, work):
    """Copy observation and mask into the rollout, by element: copying whole rows may allocate."""
    for i in range(work.observation.shape[0]):
        buffer.observation[b, i] = work.observation[i]
    for i in range(work.mask.shape[0]):
        buffer.mask[b, i] = work.mask[i]


@njit(**INLINE)
def _refuses(arena, agent, options, row, policy):
    """Whether an agent expects less of serving the request than `failure`, which is what refusing it earns.

    In training some requests are served all the same, or the critic would not learn that times have changed.
    """
    if not options.rules.may_refuse or (options.learn and row % SERVED_ANYWAY == 0):
        return False
    return critic(arena.nets, policy, agent.work.observation, agent.scratch) < options.failure


@njit(**INLINE)
def plan(arena, agent, options, row, policy):
    """Walk one request on the snapshot in `agent.work`, asking the policy wherever there is a choice; or refuse it.

    Returns:
        Whether the route is complete; the route stands in `arena.records` either way.
    """
    world, work, buffer = arena.world, agent.work, agent.buffer
    request = arena.requests[row]
    w = work.walk[0]
    while to_decision(world, work, request, options.rules):
        is_first = not w.priced
        observe(world, work, request, options.rules)
        lap(work.watch, OBSERVE)
        if is_first and _refuses(arena, agent, options, row, policy):
            w.cause = REFUSED
            lap(work.watch, FORWARD)
            break
        actor(arena.nets, policy, work.observation, agent.scratch)
        if options.learn:
            b = buffer.fill[0]
            slot, log_prob = sample(agent.scratch.logits, work.mask, buffer.uniform[b])
            _note_inputs(buffer, b, work)
            buffer.action[b] = slot
            buffer.log_prob[b] = log_prob
            buffer.value[b] = critic(arena.nets, policy, work.observation, agent.scratch)
            buffer.price[b] = w.price
            buffer.hops[b] = w.n_links
            buffer.fill[0] = b + 1
        else:
            slot = most_likely(agent.scratch.logits, work.mask)
        agent.stream[0].steps += 1
        lap(work.watch, FORWARD)
        take(world, work, request, work.slot_link[slot])
    write_route(arena.records, work, row)
    if arena.times.shape[0] > 0:
        arena.times[row].plan_ns += now_ns() - arena.times[row].began_ns
    return w.cause == ACCEPTED


@njit(**INLINE)
def write_route(records, work, row):
    """Write the walk, as far as it went, into a request's record."""
    w = work.walk[0]
    record = records.rows[row]
    record.cause = w.cause
    record.latency = w.latency if w.cause == ACCEPTED else np.nan
    record.snapshot_version = w.version
    record.commit_version = -1
    record.n_links = w.n_links
    record.n_hosts = w.n_hosts
    record.attempts += 1
    for i in range(w.n_links):
        records.links[row, i] = work.links[i]
    for i in range(w.n_hosts):
        records.hosts[row, i] = work.hosts[i]


@njit(**INLINE)
def look_at_store(arena, work, row):
    """Take a fresh snapshot and start a walk on it."""
    if arena.times.shape[0] > 0:
        arena.times[row].began_ns = now_ns()
    version = read_snapshot(arena.shared, work.snapshot, work.watch)
    begin(arena.world, work, arena.requests[row], version)
    lap(work.watch, SNAPSHOT)


@njit(**KERNEL)
def try_commit(arena, work, stream, row):
    """Commit a complete plan; write the conflict otherwise. Returns 1 committed, 0 aborted, -1 ledger full."""
    records = arena.records
    record = records.rows[row]
    request = arena.requests[row]
    is_timed = arena.times.shape[0] > 0
    began_ns = now_ns() if is_timed else 0
    n = route_delta(
        arena.world,
        records.links[row],
        record.n_links,
        records.hosts[row],
        record.n_hosts,
        request,
        work.resources,
        work.amounts,
    )
    lacking, version = commit(
        arena.shared,
        work.resources,
        work.amounts,
        n,
        row,
        request.agent,
        request.t_s,
        record.snapshot_version,
        work.watch,
    )
    if is_timed:
        arena.times[row].commit_ns += now_ns() - began_ns
    lap(work.watch, COMMIT)
    if lacking == -1:
        record.commit_version = version
        stream.commits += 1
        stream.stale += version - 1 - record.snapshot_version
        return 1
    if lacking < 0:
        return -1
    record.cause = CONFLICT_LINK if lacking < arena.world.links.shape[0] else CONFLICT_NODE
    stream.conflicts += 1
    return 0


@njit(**KERNEL)
def depart(arena, work, row, t_s):
    """Give back what a request took; return the store's version or a negative code."""
    record = arena.records.rows[row]
    request = arena.requests[row]
    n = route_delta(
        arena.world,
        arena.records.links[row],
        record.n_links,
        arena.records.hosts[row],
        record.n_hosts,
        request,
        work.resources,
        work.amounts,
    )
    version = release(arena.shared, work.resources, work.amounts, n, row, request.agent, t_s, work.watch)
    lap(work.watch, RELEASE)
    return version


@njit(**KERNEL)
def close_episode(agent, options, first, accepted, hold):
    """Turn the decisions of one request into rewards, advantages (GAE) and returns; `hold` scales its prices.

    A request without a decision, refused or at a dead end from the start, has its outcome for a reward.
    """
    buffer = agent.buffer
    w = agent.work.walk[0]
    price, hops = w.price, w.n_links
    outcome = options.success if accepted else options.failure
    if buffer.fill[0] == first:
        agent.stream[0].reward += outcome
    advantage = 0.0
    next_value = 0.0
    for b in range(buffer.fill[0] - 1, first - 1, -1):
        charged = charge(options, hold, price) - charge(options, hold, buffer.price[b])
        reward = outcome - charged - options.hop_cost * (hops - buffer.hops[b])
        outcome = 0.0
        price, hops = buffer.price[b], buffer.hops[b]
        delta = reward + options.gamma * next_value - buffer.value[b]
        advantage = delta + options.gamma * options.gae_lambda * advantage
        next_value = buffer.value[b]
        buffer.reward[b] = reward
        buffer.advantage[b] = advantage
        buffer.returns[b] = advantage + buffer.value[b]
        agent.stream[0].reward += reward


@njit(**INLINE)
def _lock_routing(arena, row):
    """Take the lock of the whole routing: the pessimistic way, under which no commit can abort."""
    waited = lock(arena.routing_mutex)
    if arena.times.shape[0] > 0:
        arena.times[row].routing_wait_ns += waited


@njit(**INLINE)
def _serve_one(arena, agent, options, row):
    """Plan, commit and, after a conflict, plan again: one request in free order. Returns a negative code on failure."""
    stream = agent.stream[0]
    policy = arena.requests[row].agent
    while True:
        first = agent.buffer.fill[0]
        if options.locks_routing:
            _lock_routing(arena, row)
        look_at_store(arena, agent.work, row)
        committed = 0
        if plan(arena, agent, options, row, policy):
            committed = try_commit(arena, agent.work, stream, row)
        if options.locks_routing:
            unlock(arena.routing_mutex)
        if options.learn:
            close_episode(agent, options, first, committed == 1, arena.world.hold[arena.requests[row].service])
        if committed < 0:
            return -NO_LEDGER
        if committed == 1:
            stream.accepted += 1
            if stream.n_active >= agent.flows.row.shape[0]:
                return -NO_ROOM
            request = arena.requests[row]
            push(agent.flows, stream.n_active, request.t_s + request.hold_s, row)
            stream.n_active += 1
            return 1
        conflict = arena.records.rows[row].cause >= CONFLICT_LINK
        if not conflict or arena.records.rows[row].attempts >= options.attempts:
            return 0


@njit(**INLINE)
def next_event(arena, agent):
    """Return the times of the next arrival and the next departure of an agent, infinite where there is none."""
    stream = agent.stream[0]
    arrival, departure = np.inf, np.inf
    if stream.cursor < agent.mine.shape[0]:
        arrival = arena.requests[agent.mine[stream.cursor]].t_s
    if stream.n_active > 0:
        departure = agent.flows.t_s[0]
    return arrival, departure


@njit(**INLINE)
def serve_event(arena, agent, options, arrival, departure):
    """Serve an agent's next event, departures first at equal times; return DONE or what ran out."""
    stream = agent.stream[0]
    stream.clock = min(arrival, departure)
    if departure <= arrival:
        if depart(arena, agent.work, agent.flows.row[0], departure) < 0:
            return NO_LEDGER
        pop(agent.flows, stream.n_active)
        stream.n_active -= 1
        return DONE
    stream.cursor += 1
    code = _serve_one(arena, agent, options, agent.mine[stream.cursor - 1])
    return -code if code < 0 else DONE


@njit(**KERNEL)
def serve_free(arena, agent, options, horizon_s):
    """Serve this agent's events in order of its own clock, at most `lag_s` ahead of the slowest agent.

    Args:
        arena, agent, options: the run.
        horizon_s: return AHEAD before an event later than this (the deterministic mode takes turns by it).

    Returns:
        DONE, FULL, BUSY, STOPPED, AHEAD, NO_LEDGER or NO_ROOM.
    """
    stream, gate, buffer = agent.stream[0], arena.gate, agent.buffer
    begin_laps(agent.work.watch)
    for _ in range(EVENTS_PER_CALL):
        if arena.shared.control[STOP]:
            return STOPPED
        if options.learn and buffer.fill[0] + options.rules.max_hops * options.attempts > buffer.action.shape[0]:
            return FULL
        arrival, departure = next_event(arena, agent)
        t_s = min(arrival, departure)
        gate.clock[stream.agent] = t_s
        if t_s > horizon_s and t_s < np.inf:
            return AHEAD
        if gate.state[WAITING] > 0 or t_s == np.inf:
            announce(gate)
        if t_s == np.inf:
            return DONE
        if options.lag_s < np.inf and t_s - slowest(gate) > options.lag_s:
            # waking at half the lag hands the core over in batches instead of event by event
            lap(agent.work.watch, EVENTS)
            is_reached = wait_for(arena, agent, t_s - 0.5 * options.lag_s)
            lap_of_lag(agent.work.watch)
            if not is_reached:
                return BUSY
        lap(agent.work.watch, EVENTS)
        code = serve_event(arena, agent, options, arrival, departure)
        if code != DONE:
            return code
    lap(agent.work.watch, EVENTS)
    return BUSY
