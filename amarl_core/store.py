"""The shared resource state (paper: E*): one lock, all-or-nothing commits, and a ledger in lock order.

Links and nodes are *resources* in one integer vector: resource e is link e (kbps), resource E + v is node v
(millicores). Integers, so that a day ends exactly where it began. `Shared.mutex` guards `used`, the version and
the ledger; a kernel takes it for a few dozen nanoseconds, and nothing waits or fails while holding it.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from numba import njit

from amarl_core.errors import AmarlError
from amarl_core.native import INLINE, INNER, held, lock, new_mutex, unlock
from amarl_core.stopwatch import note_lock

COMMIT, ABORT, RELEASE = 0, 1, 2
KINDS = ("commit", "abort", "release")

VERSION, N_LEDGER, STOP, LOCK_WAIT_NS, N_CONTROL = 0, 1, 2, 3, 4
"""Places in `Shared.control`: store version, ledger rows, stop flag, nanoseconds spent waiting for the mutex."""

LARGEST = 2**62
"""Amounts stay far below the end of int64."""

FULL_LEDGER = -2
"""What a kernel returns when the ledger has no row left."""

LEDGER = np.dtype(
    [
        ("t_s", "f8"),
        ("row", "i8"),
        ("snapshot_version", "i8"),
        ("store_version", "i8"),
        ("resource", "i8"),
        ("agent", "i8"),
        ("kind", "i8"),
    ]
)


class Shared(NamedTuple):
    """What all agents share. R resources = E links, then N nodes."""

    used: np.ndarray  # int64[R], kbps and millicores
    limit: np.ndarray  # int64[R], capacity (paper: C_e) and compute budget (paper: kappa_v)
    control: np.ndarray  # int64[N_CONTROL]
    mutex: np.ndarray  # int64[16]
    ledger: np.ndarray  # LEDGER[L]


def make_shared(capacity_kbps: np.ndarray, budget_mcpu: np.ndarray, n_ledger: int) -> Shared:
    """Return an empty network with room for n_ledger ledger rows."""
    limit = np.concatenate([capacity_kbps, budget_mcpu]).astype(np.int64)
    return Shared(
        np.zeros_like(limit),
        limit,
        np.zeros(N_CONTROL, np.int64),
        new_mutex(),
        np.empty(max(n_ledger, 1), LEDGER),
    )


@njit(**INLINE)
def read_snapshot(shared, into, watch=None):
    """Copy the state under the lock into int64[R]; return its version."""
    waited = lock(shared.mutex)
    for r in range(into.shape[0]):
        into[r] = shared.used[r]
    version = shared.control[VERSION]
    shared.control[LOCK_WAIT_NS] += waited
    unlock(shared.mutex)
    if watch is not None:
        note_lock(watch, waited)
    return version


@njit(**INNER)
def _write_ledger(shared, kind, row, agent, t_s, snapshot_version, resource):
    """Append a ledger row; the caller holds the lock and has checked that there is room."""
    entry = shared.ledger[shared.control[N_LEDGER]]
    entry.kind = kind
    entry.row = row
    entry.agent = agent
    entry.t_s = t_s
    entry.snapshot_version = snapshot_version
    entry.store_version = shared.control[VERSION]
    entry.resource = resource
    shared.control[N_LEDGER] += 1


@njit(**INLINE)
def commit(shared, resources, amounts, n, row, agent, t_s, snapshot_version, watch=None):
    """Apply a delta or none of it.

    Args:
        shared: the state.
        resources: int64[>= n], may name a resource several times.
        amounts: int64[>= n], what is asked of each.
        n: entries of the delta.
        row, agent, t_s, snapshot_version: for the ledger.
        watch: of the thread, which notes a wait for the lock.

    Returns:
        (resource, version): resource is -1 on a commit, else the first one without room (or FULL_LEDGER);
        version is the store's after the event.
    """
    waited = lock(shared.mutex)
    shared.control[LOCK_WAIT_NS] += waited
    if shared.control[N_LEDGER] >= shared.ledger.shape[0]:
        unlock(shared.mutex)
        return FULL_LEDGER, -1
    lacking = -1
    for i in range(n):
        r = resources[i]
        if amounts[i] > shared.limit[r] - shared.used[r]:
            lacking = r
            for j in range(i):  # all or nothing
                shared.used[resources[j]] -= amounts[j]
            break
        shared.used[r] += amounts[i]
    if lacking < 0:
        shared.control[VERSION] += 1
        _write_ledger(shared, COMMIT, row, agent, t_s, snapshot_version, -1)
    else:
        _write_ledger(shared, ABORT, row, agent, t_s, snapshot_version, lacking)
    version = shared.control[VERSION]
    unlock(shared.mutex)
    if watch is not None:
        note_lock(watch, waited)
    return lacking, version


@njit(**INLINE)
def release(shared, resources, amounts, n, row, agent, t_s, watch=None):
    """Give a committed delta back; return the store's version, or FULL_LEDGER."""
    waited = lock(shared.mutex)
    shared.control[LOCK_WAIT_NS] += waited
    if shared.control[N_LEDGER] >= shared.ledger.shape[0]:
        unlock(shared.mutex)
        return FULL_LEDGER
    for i in range(n):
        shared.used[resources[i]] -= amounts[i]
    shared.control[VERSION] += 1
    _write_ledger(shared, RELEASE, row, agent, t_s, -1, -1)
    version = shared.control[VERSION]
    unlock(shared.mutex)
    if watch is not None:
        note_lock(watch, waited)
    return version


def ledger_frame(
    shared: Shared, request_id: np.ndarray | None, agents: tuple[str, ...], resource_ids: tuple[str, ...]
) -> pd.DataFrame:
    """Return the ledger in lock order.

    Args:
        shared: the state.
        request_id: int64[rows], the request behind each ledger row number; None when that is the request itself.
        agents: name of each agent.
        resource_ids: link ids, then node ids.
    """
    rows = shared.ledger[: shared.control[N_LEDGER]].copy()
    names = np.array(("",) + resource_ids, dtype=object)
    return pd.DataFrame(
        {
            "seq": np.arange(len(rows), dtype=np.int64),
            "kind": pd.Categorical.from_codes(rows["kind"], KINDS),
            "request_id": rows["row"] if request_id is None else request_id[rows["row"]],
            "agent": pd.Categorical.from_codes(rows["agent"], agents),
            "t_s": rows["t_s"],
            "snapshot_version": rows["snapshot_version"],
            "store_version": rows["store_version"],
            "resource": pd.Categorical.from_codes(rows["resource"] + 1, names),
        }
    )


@dataclass(frozen=True)
class Snapshot:
    """A private copy of the state: its version, and what is used and free, by link (kbps) and node (mcpu)."""

    version: int
    used_kbps: np.ndarray
    used_mcpu: np.ndarray
    free_kbps: np.ndarray
    free_mcpu: np.ndarray


@dataclass(frozen=True)
class Delta:
    """What a route takes: kbps by link id and millicores by node id."""

    links: Mapping[str, int] = field(default_factory=dict)
    nodes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CommitResult:
    """Whether a commit was accepted, the resource that had no room otherwise, and the store's version after it."""

    accepted: bool
    resource: str
    version: int


class ResourceStore:
    """The shared state as an object, on the lock the compiled agents use.

    Args:
        link_capacity_kbps: capacity by link id.
        node_budget_mcpu: compute budget by node id.
        n_ledger: how many commits, aborts and releases the ledger holds.
    """

    def __init__(
        self,
        link_capacity_kbps: Mapping[str, int],
        node_budget_mcpu: Mapping[str, int],
        n_ledger: int = 100_000,
    ):
        self.link_ids = tuple(link_capacity_kbps)
        self.node_ids = tuple(node_budget_mcpu)
        self.shared = make_shared(
            np.array(list(link_capacity_kbps.values()), np.int64),
            np.array(list(node_budget_mcpu.values()), np.int64),
            n_ledger,
        )
        self._link_index = {name: i for i, name in enumerate(self.link_ids)}
        self._node_index = {name: len(self.link_ids) + i for i, name in enumerate(self.node_ids)}
        self._committed: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._agents: list[str] = []
        self._names = threading.Lock()  # guards _committed and _agents; never held while the mutex is

    @classmethod
    def of(cls, scenario, n_ledger: int = 100_000) -> "ResourceStore":
        """Return the empty store of a scenario."""
        network = scenario.network
        return cls(
            dict(zip(network.link_ids, network.capacity_kbps.tolist(), strict=True)),
            dict(zip(network.node_ids, scenario.budget_mcpu.tolist(), strict=True)),
            n_ledger,
        )

    @property
    def version(self) -> int:
        """Number of commits and releases so far."""
        return int(self.shared.control[VERSION])

    def snapshot(self) -> Snapshot:
        """Copy the state under the lock."""
        with held(self.shared.mutex):
            used, version = self.shared.used.copy(), int(self.shared.control[VERSION])
        free, n = self.shared.limit - used, len(self.link_ids)
        return Snapshot(version, used[:n], used[n:], free[:n], free[n:])

    def commit(
        self, request_id: int, delta: Delta, snapshot_version: int, agent: str = "notebook", t_s: float = 0.0
    ) -> CommitResult:
        """Re-check capacities (paper: equations 1 and 2) on the delta's resources, then apply all of it or nothing.

        Raises:
            AmarlError: an unknown link or node, an amount that is not a positive integer, a request that holds
                resources already, or a full ledger.
        """
        resources, amounts = self._arrays(delta)
        with self._names:
            if request_id in self._committed:
                raise AmarlError(f"request {request_id} holds resources already; release it before committing it again")
            self._committed[request_id] = (resources, amounts)
        lacking, version = commit(
            self.shared,
            resources,
            amounts,
            len(resources),
            request_id,
            self._agent(agent),
            t_s,
            snapshot_version,
        )
        if lacking == -1:
            return CommitResult(True, "", version)
        with self._names:
            del self._committed[request_id]
        self._refuse_full_ledger(lacking)
        return CommitResult(False, (self.link_ids + self.node_ids)[lacking], version)

    def release(self, request_id: int, agent: str = "notebook", t_s: float = 0.0) -> int:
        """Give back what a request holds; return the store's version.

        Raises:
            AmarlError: the request holds nothing, or the ledger is full.
        """
        with self._names:
            if request_id not in self._committed:
                raise AmarlError(f"request {request_id} holds nothing; release takes a committed request")
            resources, amounts = self._committed.pop(request_id)
        version = release(self.shared, resources, amounts, len(resources), request_id, self._agent(agent), t_s)
        if version == FULL_LEDGER:
            with self._names:
                self._committed[request_id] = (resources, amounts)
        self._refuse_full_ledger(version)
        return version

    def ledger(self) -> pd.DataFrame:
        """Return every commit, abort and release in lock order."""
        return ledger_frame(self.shared, None, tuple(self._agents), self.link_ids + self.node_ids)

    def _arrays(self, delta: Delta) -> tuple[np.ndarray, np.ndarray]:
        """Return a delta as (resources int64[n], amounts int64[n]), checked."""
        resources, amounts = [], []
        for kind, asked, index in (
            ("link", delta.links, self._link_index),
            ("node", delta.nodes, self._node_index),
        ):
            for name, amount in asked.items():
                if name not in index:
                    raise AmarlError(
                        f"'{name}' is no {kind} of this store; its {kind}s are {', '.join(list(index)[:5])} ..."
                    )
                is_integer = isinstance(amount, (int, np.integer)) and not isinstance(amount, bool)
                if not is_integer or not 0 < amount <= LARGEST:
                    raise AmarlError(
                        f"delta of {kind} '{name}' is {amount!r}; expected a positive integer "
                        f"({'kbps' if kind == 'link' else 'millicores'})"
                    )
                resources.append(index[name])
                amounts.append(int(amount))
        return np.array(resources, np.int64), np.array(amounts, np.int64)

    def _agent(self, name: str) -> int:
        with self._names:
            if name not in self._agents:
                self._agents.append(name)
            return self._agents.index(name)

    @staticmethod
    def _refuse_full_ledger(code: int) -> None:
        if code == FULL_LEDGER:
            raise AmarlError("the ledger is full; make the store with a larger n_ledger")
