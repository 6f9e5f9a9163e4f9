"""Plans made on late news: the network as it was some seconds ago, while commits are checked on the network as it is.

Telemetry is the ledger, read late: `catch_up` applies commits and releases to a copy of the state only once they are
`age_s` seconds old in simulated time. One thread serves requests in order of arrival, so that the age is exact and the
only thing that differs. A commit that aborts names the resource that had no room; the request's next plan is made on
the same late news, with what has refused it taken as full. Age 0 is the serial run.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from amarl_core.arena import BUSY, CLAIMED, DONE, EVENTS_PER_CALL, NO_LEDGER, STOPPED, TURN
from amarl_core.arrival import note_admission, settle_departures
from amarl_core.native import INLINE, KERNEL
from amarl_core.rollout import plan, try_commit, write_route
from amarl_core.routing import ACCEPTED, begin, route_delta
from amarl_core.rule_routes import plan_by_rule
from amarl_core.store import ABORT, COMMIT, N_LEDGER, STOP


class Feed(NamedTuple):
    """The state as telemetry knows it."""

    used: np.ndarray  # int64[R], kbps and millicores
    state: np.ndarray  # int64[N_STATE]: the next ledger row to be told of, the version told, refusals of this request
    refused: np.ndarray  # int64[attempts], resources that refused the request at hand


PLACE, TOLD, N_REFUSED, N_STATE = range(4)


def make_feed(n_resources: int, attempts: int) -> Feed:
    """Return the feed of an empty network."""
    return Feed(np.zeros(n_resources, np.int64), np.zeros(N_STATE, np.int64), np.zeros(attempts, np.int64))


@njit(**KERNEL)
def catch_up(arena, work, feed, until_s):
    """Tell the feed what changed until a moment, in s of simulated time."""
    shared, records = arena.shared, arena.records
    while feed.state[PLACE] < shared.control[N_LEDGER]:
        entry = shared.ledger[feed.state[PLACE]]
        if entry.t_s > until_s:
            return
        feed.state[PLACE] += 1
        if entry.kind == ABORT:
            continue
        row = entry.row
        record = records.rows[row]
        n = route_delta(arena.world, records.links[row], record.n_links, records.hosts[row], record.n_hosts,
                        arena.requests[row], work.resources, work.amounts)  # fmt: skip
        sign = 1 if entry.kind == COMMIT else -1
        for i in range(n):
            feed.used[work.resources[i]] += sign * work.amounts[i]
        feed.state[TOLD] = entry.store_version


@njit(**INLINE)
def _look_at_feed(arena, work, feed):
    """Copy the late state into the snapshot, what has refused this request taken as full."""
    for r in range(feed.used.shape[0]):
        work.snapshot[r] = feed.used[r]
    for i in range(feed.state[N_REFUSED]):
        work.snapshot[feed.refused[i]] = arena.shared.limit[feed.refused[i]]
    return feed.state[TOLD]


@njit(**INLINE)
def _note_refusal(arena, feed):
    """Remember the resource that the last row of the ledger names."""
    feed.refused[feed.state[N_REFUSED]] = arena.shared.ledger[arena.shared.control[N_LEDGER] - 1].resource
    feed.state[N_REFUSED] += 1


@njit(**INLINE)
def _begin_turn(arena, agent, feed, age_s):
    """Let flows depart and news arrive before the next request; return its row, and DONE, BUSY or what ran out."""
    row = arena.gate.state[TURN]
    if row == arena.requests.shape[0]:
        return row, DONE if settle_departures(arena, agent, np.inf) else NO_LEDGER
    t_s = arena.requests[row].t_s
    if not settle_departures(arena, agent, t_s):
        return row, NO_LEDGER
    catch_up(arena, agent.work, feed, t_s - age_s)
    feed.state[N_REFUSED] = 0
    return row, BUSY


@njit(**INLINE)
def _end_turn(arena, agent, row, committed):
    """Note how a request ended and hand the turn on; return DONE or what ran out."""
    arena.gate.state[TURN] = row + 1
    arena.gate.state[CLAIMED] = row + 1
    if committed < 0:
        return NO_LEDGER
    return note_admission(arena, agent.stream[0], row) if committed == 1 else DONE


@njit(**KERNEL)
def serve_late(arena, agent, options, feed, age_s):
    """Serve requests in order of arrival by the agents' policies, every plan made on news `age_s` seconds old.

    Returns:
        DONE, BUSY, STOPPED, NO_LEDGER or NO_ROOM.
    """
    for _ in range(EVENTS_PER_CALL):
        if arena.shared.control[STOP]:
            return STOPPED
        row, code = _begin_turn(arena, agent, feed, age_s)
        if code != BUSY:
            return code
        request = arena.requests[row]
        committed = 0
        while committed == 0 and feed.state[N_REFUSED] < options.attempts:
            version = _look_at_feed(arena, agent.work, feed)
            begin(arena.world, agent.work, request, version)
            if not plan(arena, agent, options, row, request.agent):
                break
            committed = try_commit(arena, agent.work, agent.stream[0], row)
            if committed == 0:
                _note_refusal(arena, feed)
        code = _end_turn(arena, agent, row, committed)
        if code != DONE:
            return code
    return BUSY


@njit(**KERNEL)
def serve_rule_late(arena, agent, search, planner, feed, age_s):
    """The same by a routing rule, which plans anew after an abort as often as the feed has room for refusals."""
    work = agent.work
    for _ in range(EVENTS_PER_CALL):
        if arena.shared.control[STOP]:
            return STOPPED
        row, code = _begin_turn(arena, agent, feed, age_s)
        if code != BUSY:
            return code
        committed = 0
        while committed == 0 and feed.state[N_REFUSED] < feed.refused.shape[0]:
            work.walk[0].version = _look_at_feed(arena, work, feed)
            plan_by_rule(arena.world, work, search, arena.requests[row], row, planner)
            write_route(arena.records, work, row)
            if work.walk[0].cause != ACCEPTED:
                break
            committed = try_commit(arena, work, agent.stream[0], row)
            if committed == 0:
                _note_refusal(arena, feed)
        code = _end_turn(arena, agent, row, committed)
        if code != DONE:
            return code
    return BUSY
