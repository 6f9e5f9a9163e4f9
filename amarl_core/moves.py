"""The memory of re-optimisation: the table of flows that were moved, and the scratch to plan a few moves."""

from typing import NamedTuple

import numpy as np

from amarl_core.arrays import World

N_CANDIDATES = 32
"""Flows tried for each move at most."""

N_MOVES, N_RESCUED, N_MADE = range(3)

MOVE = np.dtype(
    [
        ("t_s", "f8"),
        ("latency", "f8"),
        ("row", "i8"),
        ("made_for", "i8"),
        ("snapshot_version", "i8"),
        ("commit_version", "i8"),
        ("n_links", "i8"),
        ("n_hosts", "i8"),
    ]
)
"""A move: the flow, the request it made room for, and what the flow's record said before."""


class Plan(NamedTuple):
    """Scratch: M flows to be moved, and the route they make room for."""

    row: np.ndarray  # int64[M]
    n_links: np.ndarray  # int64[M]
    links: np.ndarray  # int16[M, H]
    hosts: np.ndarray  # int16[M, K]
    candidate: np.ndarray  # int64[C], rows of flows
    key: np.ndarray  # float64[C]
    own_n_links: np.ndarray  # int64[1]
    own_links: np.ndarray  # int16[H]
    own_hosts: np.ndarray  # int16[K]


class Moves(NamedTuple):
    """The moves of a run, at most R, and the scratch to plan M of them for one request."""

    table: np.ndarray  # MOVE[R]
    links: np.ndarray  # int16[R, H], the former routes
    hosts: np.ndarray  # int16[R, K]
    made: np.ndarray  # int64[N_MADE]: rows of the table, requests that found room this way
    plan: Plan


def make_moves(world: World, n_movable: int, max_hops: int, n_rows: int = 1024) -> Moves:
    """Return an empty table; with n_movable 0 no flow is ever moved."""
    k = world.chains.shape[1]
    plan = Plan(
        np.zeros(n_movable, np.int64),
        np.zeros(n_movable, np.int64),
        np.zeros((n_movable, max_hops), np.int16),
        np.zeros((n_movable, k), np.int16),
        np.zeros(N_CANDIDATES, np.int64),
        np.zeros(N_CANDIDATES),
        np.zeros(1, np.int64),
        np.zeros(max_hops, np.int16),
        np.zeros(k, np.int16),
    )
    n_rows = max(n_rows, n_movable) if n_movable else 0
    return Moves(
        np.zeros(n_rows, MOVE),
        np.zeros((n_rows, max_hops), np.int16),
        np.zeros((n_rows, k), np.int16),
        np.zeros(N_MADE, np.int64),
        plan,
    )


def enlarged(moves: Moves) -> Moves:
    """Return the same moves with room for as many again."""
    table, links, hosts = (np.concatenate([a, np.zeros_like(a)]) for a in (moves.table, moves.links, moves.hosts))
    return moves._replace(table=table, links=links, hosts=hosts)
