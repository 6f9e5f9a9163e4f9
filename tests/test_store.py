"""The shared state: commits are all or nothing, capacities hold, and every unit comes back."""

import threading
import time

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from amarl_core.errors import AmarlError
from amarl_core.native import held, lock, new_mutex, try_lock, unlock
from amarl_core.store import ABORT, Delta, ResourceStore, commit, make_shared, read_snapshot, release

LINKS = {"a": 10, "b": 7, "c": 3}
NODES = {"x": 5, "y": 2}
LIMIT = LINKS | NODES


def small_store(n_ledger: int = 1000) -> ResourceStore:
    return ResourceStore(LINKS, NODES, n_ledger)


def used(store: ResourceStore) -> dict[str, int]:
    seen = store.snapshot()
    return dict(zip([*LINKS, *NODES], [*seen.used_kbps.tolist(), *seen.used_mcpu.tolist()], strict=True))


def in_threads(*works, within_s: float = 30.0) -> None:
    """Run functions in threads of their own; a thread that hangs or raises fails the test."""
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(within_s)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]


# ------------------------------------------------------------------------------------ one store, one thread
def test_a_commit_takes_and_a_release_gives_back():
    store = small_store()
    taken = store.commit(1, Delta({"a": 4, "c": 3}, {"x": 5}), snapshot_version=0)
    assert (taken.accepted, taken.resource, taken.version) == (True, "", 1)
    assert used(store) == {"a": 4, "b": 0, "c": 3, "x": 5, "y": 0}
    free = store.snapshot()
    assert (free.free_kbps.tolist(), free.free_mcpu.tolist()) == ([6, 7, 0], [0, 2])
    assert store.release(1) == 2
    assert used(store) == dict.fromkeys(LIMIT, 0)


def test_a_commit_without_room_takes_nothing_and_names_the_resource():
    store = small_store()
    store.commit(1, Delta({"c": 2}), 0)
    refused = store.commit(2, Delta({"a": 1, "b": 1, "c": 2}, {"x": 1}), 0)
    assert (refused.accepted, refused.resource, refused.version) == (False, "c", 1)
    assert used(store) == {"a": 0, "b": 0, "c": 2, "x": 0, "y": 0}
    refused = store.commit(2, Delta({"a": 1}, {"y": 3}), 0)
    assert (refused.accepted, refused.resource) == (False, "y")
    assert store.commit(2, Delta({"c": 1}), 0).accepted, "a refused request may try again"


def test_a_capacity_can_be_filled_to_the_last_unit_and_not_beyond():
    store = small_store()
    assert store.commit(1, Delta({"a": 10}), 0).accepted
    assert not store.commit(2, Delta({"a": 1}), 0).accepted


def test_a_snapshot_does_not_change_with_the_store():
    store = small_store()
    before = store.snapshot()
    store.commit(1, Delta({"a": 4}), before.version)
    assert before.used_kbps.tolist() == [0, 0, 0]
    assert (before.version, store.snapshot().version) == (0, 1)
    before.used_kbps[:] = 99
    assert used(store)["a"] == 4


def test_the_ledger_tells_every_event_in_order():
    store = small_store()
    store.commit(7, Delta({"c": 3}), 0, agent="ar", t_s=1.5)
    store.commit(8, Delta({"a": 1, "c": 1}), 0, agent="voice", t_s=2.0)
    store.release(7, agent="ar", t_s=3.0)
    ledger = store.ledger()
    assert ledger["seq"].tolist() == [0, 1, 2]
    assert ledger["kind"].tolist() == ["commit", "abort", "release"]
    assert ledger["request_id"].tolist() == [7, 8, 7]
    assert ledger["agent"].tolist() == ["ar", "voice", "ar"]
    assert ledger["t_s"].tolist() == [1.5, 2.0, 3.0]
    assert ledger["snapshot_version"].tolist() == [0, 0, -1]
    assert ledger["store_version"].tolist() == [1, 1, 2]
    assert ledger["resource"].tolist() == ["", "c", ""]


def test_an_unused_store_has_an_empty_ledger():
    assert len(small_store().ledger()) == 0


def test_the_store_of_a_scenario_has_its_capacities_and_budgets(toy):
    store = ResourceStore.of(toy)
    assert store.link_ids == toy.network.link_ids
    assert store.snapshot().free_kbps.tolist() == toy.network.capacity_kbps.tolist()
    assert store.snapshot().free_mcpu.tolist() == toy.budget_mcpu.tolist()
    assert (toy.budget_mcpu * 10 == toy.network.compute_mcpu * 8).all()


@pytest.mark.parametrize("delta, says", [
    (Delta({"z": 1}), "'z'"),
    (Delta({}, {"z": 1}), "'z'"),
    (Delta({"a": 0}), "'a' is 0"),
    (Delta({"a": -4}), "'a' is -4"),
    (Delta({"b": 1.5}), "'b' is 1.5"),
    (Delta({}, {"x": "2"}), "'x' is '2'"),
    (Delta({"b": float("nan")}), "'b' is nan"),
])  # fmt: skip
def test_a_delta_that_is_not_one_is_refused_and_changes_nothing(delta, says):
    store = small_store()
    with pytest.raises(AmarlError, match=says):
        store.commit(1, delta, 0)
    assert store.version == 0 and len(store.ledger()) == 0 and used(store) == dict.fromkeys(LIMIT, 0)


@pytest.mark.parametrize("delta", [Delta({"x": 1}), Delta({}, {"a": 1})], ids=["node", "link"])
def test_a_node_is_no_link(delta):
    with pytest.raises(AmarlError):
        small_store().commit(1, delta, 0)


@pytest.mark.parametrize("amount", [2**31, 2**63 - 1, 2**63, 2**70])
def test_an_amount_too_large_for_anything_is_not_accepted(amount):
    store = small_store()
    store.commit(1, Delta({"a": 1}), 0)
    try:
        assert not store.commit(2, Delta({"a": amount}), 0).accepted
    except AmarlError:
        pass
    assert used(store)["a"] == 1


def test_a_request_commits_once_and_releases_once():
    store = small_store()
    store.commit(1, Delta({"a": 1}), 0)
    with pytest.raises(AmarlError, match="request 1 holds resources"):
        store.commit(1, Delta({"a": 1}), 0)
    store.release(1)
    with pytest.raises(AmarlError, match="request 1 holds nothing"):
        store.release(1)
    with pytest.raises(AmarlError, match="request 5 holds nothing"):
        store.release(5)
    assert used(store)["a"] == 0


@pytest.mark.parametrize("request_id", [10**12, -3])
def test_any_integer_is_a_request_id(request_id):
    store = small_store()
    store.commit(request_id, Delta({"a": 1}), 0)
    assert store.ledger()["request_id"].tolist() == [request_id]


def test_a_full_ledger_is_an_error_and_takes_nothing():
    store = small_store(n_ledger=1)
    store.commit(1, Delta({"a": 1}), 0)
    with pytest.raises(AmarlError, match="n_ledger"):
        store.commit(2, Delta({"a": 1}), 0)
    with pytest.raises(AmarlError, match="n_ledger"):
        store.release(1)
    assert used(store)["a"] == 1 and store.version == 1


def test_a_resource_that_a_route_takes_twice_counts_twice():
    """Each entry fits alone; together they do not: a delta names a link as often as it is walked."""
    shared = make_shared(np.array([10, 7]), np.array([5]), 10)
    resources, amounts = np.array([1, 0, 0]), np.array([3, 6, 6])
    assert commit(shared, resources, amounts, 3, 0, 0, 0.0, 0) == (0, 0)
    assert shared.used.tolist() == [0, 0, 0], "the first entries were taken back"
    assert shared.ledger[0]["kind"] == ABORT and shared.ledger[0]["resource"] == 0
    amounts[:] = [3, 6, 4]
    assert commit(shared, resources, amounts, 3, 0, 0, 0.0, 0) == (-1, 1)
    assert shared.used.tolist() == [10, 3, 0]
    release(shared, resources, amounts, 3, 0, 0, 0.0)
    assert shared.used.tolist() == [0, 0, 0]


# ---------------------------------------------------------------------------------------- all interleavings
DELTAS = st.builds(
    Delta,
    st.dictionaries(st.sampled_from(sorted(LINKS)), st.integers(1, 6)),
    st.dictionaries(st.sampled_from(sorted(NODES)), st.integers(1, 3)),
)


class AnyInterleaving(RuleBasedStateMachine):
    """Commits and releases in any order, against plain dictionaries."""

    holding = Bundle("holding")

    def __init__(self):
        super().__init__()
        self.store, self.used, self.deltas = small_store(), dict.fromkeys(LIMIT, 0), {}
        self.n_requests = self.version = self.events = 0

    @rule(target=holding, delta=DELTAS)
    def commit(self, delta):
        self.n_requests += 1
        wanted = {**delta.links, **delta.nodes}
        lacking = [name for name in wanted if self.used[name] + wanted[name] > LIMIT[name]]
        result = self.store.commit(self.n_requests, delta, self.version)
        self.events += 1
        assert result.accepted == (not lacking)
        assert result.resource in lacking if lacking else result.resource == ""
        if not lacking:
            self.version += 1
            self.deltas[self.n_requests] = wanted
            for name, amount in wanted.items():
                self.used[name] += amount
        assert result.version == self.version
        return self.n_requests

    @rule(request=consumes(holding))
    def release(self, request):
        wanted = self.deltas.pop(request, None)
        if wanted is None:
            with pytest.raises(AmarlError):
                self.store.release(request)
            return
        self.version += 1
        self.events += 1
        assert self.store.release(request) == self.version
        for name, amount in wanted.items():
            self.used[name] -= amount

    @invariant()
    def nothing_is_over_capacity_or_lost(self):
        assert used(self.store) == self.used
        assert all(0 <= self.used[name] <= LIMIT[name] for name in LIMIT)
        assert self.store.version == self.version
        assert int(self.store.shared.control[1]) == self.events

    def teardown(self):
        for request in list(self.deltas):
            self.store.release(request)
        assert used(self.store) == dict.fromkeys(LIMIT, 0)


TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleaving.settings = settings(max_examples=60, stateful_step_count=30)


# --------------------------------------------------------------------------------------------- real threads
def replay(store: ResourceStore, deltas: dict[int, dict[str, int]]) -> dict[str, int]:
    """Replay a ledger from an empty network in plain dictionaries; return what is used in the end."""
    level, version = dict.fromkeys(LIMIT, 0), 0
    for row in store.ledger().itertuples():
        wanted = deltas[row.request_id]
        if row.kind == "abort":
            assert level[row.resource] + wanted[row.resource] > LIMIT[row.resource], f"row {row.seq} had room"
        else:
            version += 1
            for name, amount in wanted.items():
                level[name] += amount if row.kind == "commit" else -amount
                assert 0 <= level[name] <= LIMIT[name], f"row {row.seq}: {name} at {level[name]}"
        assert row.store_version == version
    return level


def test_six_threads_never_exceed_a_capacity_or_lose_a_unit():
    store, n_threads, n_each = small_store(n_ledger=50_000), 6, 600
    deltas: dict[int, dict[str, int]] = {}
    ready = threading.Barrier(n_threads)

    def hammer(t: int) -> None:
        draw = np.random.default_rng(t)
        held_by_me: list[int] = []
        ready.wait()
        for i in range(n_each):
            request = t * n_each + i
            names = draw.choice(sorted(LIMIT), draw.integers(1, 4), replace=False)
            wanted = {str(name): int(draw.integers(1, 3)) for name in names}
            deltas[request] = wanted
            delta = Delta({n: a for n, a in wanted.items() if n in LINKS},
                          {n: a for n, a in wanted.items() if n in NODES})  # fmt: skip
            seen = store.snapshot()
            assert (seen.free_kbps >= 0).all() and (seen.free_mcpu >= 0).all()
            if store.commit(request, delta, seen.version, agent=f"thread {t}").accepted:
                held_by_me.append(request)
            if len(held_by_me) > draw.integers(0, 3):
                store.release(held_by_me.pop(0), agent=f"thread {t}")
        for request in held_by_me:
            store.release(request, agent=f"thread {t}")

    in_threads(*[lambda t=t: hammer(t) for t in range(n_threads)])
    assert replay(store, deltas) == dict.fromkeys(LIMIT, 0) == used(store)
    ledger = store.ledger()
    assert set(ledger["kind"]) == {"commit", "abort", "release"}, "without conflicts this would prove nothing"
    assert ledger["agent"].nunique() == n_threads
    switches = (ledger["agent"].astype(str) != ledger["agent"].astype(str).shift()).sum()
    assert switches > n_threads, "the threads did not interleave"
    own = ledger["agent"].astype(str).str.removeprefix("thread ").astype(int)
    assert (own == ledger["request_id"] // n_each).all(), "an agent's name stands beside another's request"


def test_two_threads_cannot_release_one_request_twice():
    store = small_store()
    store.commit(1, Delta({"a": 4}), 0)
    store.commit(2, Delta({"a": 4}), 0)
    outcomes = []

    def give_back():
        try:
            outcomes.append(store.release(1))
        except AmarlError:
            outcomes.append(None)

    with held(store.shared.mutex):  # both threads get as far as they can before the first release happens
        threads = [threading.Thread(target=give_back, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join(10)
    assert used(store)["a"] == 4
    assert sorted(outcomes, key=str) == [3, None]


def test_two_threads_cannot_commit_one_request_twice():
    store = small_store()
    outcomes = []

    def take():
        try:
            outcomes.append(store.commit(1, Delta({"a": 4}), 0).accepted)
        except AmarlError:
            outcomes.append(None)

    with held(store.shared.mutex):
        threads = [threading.Thread(target=take, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join(10)
    store.release(1)
    assert used(store)["a"] == 0, "a unit was lost for ever"


def test_the_ledger_can_be_read_while_others_commit():
    store, done = small_store(n_ledger=50_000), threading.Event()

    def commits():
        for request in range(4000):
            store.commit(request, Delta({"a": 1}), 0)
            store.release(request)
        done.set()

    def reads():
        while not done.is_set():
            ledger = store.ledger()
            assert ledger["store_version"].is_monotonic_increasing

    in_threads(commits, reads)
    assert len(store.ledger()) == 8000


# -------------------------------------------------------------------------------------------- the same lock
def test_a_kernel_waits_for_the_lock_that_python_holds():
    store, finished = small_store(), threading.Event()

    def take():
        store.commit(1, Delta({"a": 1}), 0)
        finished.set()

    with held(store.shared.mutex):
        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        assert not finished.wait(0.2), "the kernel went through a held lock"
        assert store.version == 0
    assert finished.wait(10)
    thread.join(10)
    assert store.version == 1


def test_python_waits_for_the_lock_that_a_kernel_took_and_lets_other_threads_run():
    mutex, inside = new_mutex(), threading.Event()
    lock(mutex)

    def enter():
        with held(mutex):
            inside.set()

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    assert not inside.wait(0.2)  # that this line runs at all shows that the interpreter lock is free
    assert not try_lock(mutex)
    unlock(mutex)
    assert inside.wait(10)
    thread.join(10)


def test_held_gives_the_lock_back_after_an_error():
    mutex = new_mutex()
    with pytest.raises(ZeroDivisionError), held(mutex):
        raise ZeroDivisionError
    assert try_lock(mutex)
    unlock(mutex)


def test_kernels_count_the_time_they_waited():
    store = small_store()
    into = np.zeros(len(LIMIT), np.int64)
    read_snapshot(store.shared, into)  # compiled or loaded before the clock matters
    thread = threading.Thread(target=read_snapshot, args=(store.shared, into), daemon=True)
    with held(store.shared.mutex):
        thread.start()
        time.sleep(0.1)
    thread.join(10)
    assert store.shared.control[3] > 50_000_000
