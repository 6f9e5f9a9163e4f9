"""The audit passes a correct run and finds each corruption, in the row where it is.

Runs are made here by a small simulator in plain Python, which shares no code with the compiled one.
"""

import heapq
import random
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amarl_core import rules, transcript
from amarl_core.audit import audit
from amarl_core.errors import AuditError
from amarl_core.scenario import load_scenario
from amarl_core.transcript import Lists
from amarl_core.walks import Walks, host_positions, revisits

# --------------------------------------------------------------------------------------- a world and its runs


def small_world() -> SimpleNamespace:
    """Two sites (stubs), two routers, two pools; two services."""
    nodes = ("D1", "D2", "R1", "R2", "P1", "P2")
    pairs = [("D1", "R1"), ("D1", "R2"), ("D2", "R2"), ("R1", "R2"), ("R1", "P1"), ("R2", "P2")]
    links = pairs + [(b, a) for a, b in pairs]
    index = {node: i for i, node in enumerate(nodes)}
    rate = np.full((6, 2), -1, np.int64)
    rate[index["P1"]] = [5400, 900]
    rate[index["P2"]] = [5400, 1200]
    rate[index["D1"], 1] = 900
    compute = np.array([600, 0, 0, 0, 8000, 6000], np.int64)
    network = SimpleNamespace(
        node_ids=nodes,
        link_ids=tuple(f"{a}-{b}" for a, b in links),
        source=np.array([index[a] for a, _ in links], np.int32),
        target=np.array([index[b] for _, b in links], np.int32),
        capacity_kbps=np.array([1_200_000] * len(links), np.int64),
        delay_ms=np.array([0.9, 1.1, 0.9, 1.2, 0.1, 0.1] * 2),
        compute_mcpu=compute,
    )
    return SimpleNamespace(
        network=network,
        service_ids=("video", "ar"),
        budget_mcpu=compute * 8 // 10,
        chains=np.array([[0, 1], [1, -1]], np.int32),
        chain_length=np.array([2, 1], np.int32),
        latency_ms=np.array([20.0, 6.0]),
        rate_mcpu_per_gbps=rate,
        processing_ms=np.array([0.3, 0.2]),
        stub=np.array([True, True, False, False, False, False]),
    )


def offer(world, n: int, seed: int) -> SimpleNamespace:
    """Draw a trace of n requests between the world's stubs."""
    draw = np.random.default_rng(seed)
    ends = np.flatnonzero(world.stub)
    return SimpleNamespace(
        request_id=1000 + np.arange(n),
        t_s=np.sort(draw.uniform(0, 10.0 * n, n)),
        service=draw.integers(0, len(world.service_ids), n).astype(np.int16),
        source=draw.choice(ends, n).astype(np.int32),
        destination=draw.choice(np.flatnonzero(world.budget_mcpu * ~world.stub + world.stub), n).astype(np.int32),
        demand_kbps=draw.integers(150_000, 600_000, n),
        hold_s=draw.exponential(60.0, n),
    )


class Simulator:
    """Runs a trace in the order given; `used` maps ("link" or "node", index) to what is taken.

    The first service has two attempts, the others one.
    """

    def __init__(self, world, trace, seed=0):
        self.world, self.trace = world, trace
        self.used, self.version = {}, 0
        self.rows, self.records, self.ledger = {}, {}, []
        self.dice = random.Random(seed)

    def amounts(self, i, links, hosts):
        world, demand, amounts = self.world, int(self.trace.demand_kbps[i]), {}
        for link in links:
            amounts["link", link] = amounts.get(("link", link), 0) + demand
        for function, node in zip(world.chains[self.trace.service[i]], hosts, strict=False):
            rate = int(world.rate_mcpu_per_gbps[node, function])
            amounts["node", node] = amounts.get(("node", node), 0) + -(-demand * rate // 10**6)
        return amounts

    def lacking(self, used, amounts):
        def limit(r):
            return (self.world.network.capacity_kbps if r[0] == "link" else self.world.budget_mcpu)[r[1]]

        return [r for r, amount in amounts.items() if used.get(r, 0) + amount > limit(r)]

    def plan(self, i):
        """Find a route on a snapshot: depth first, at random, the first that fits and is in time."""
        world, network, trace = self.world, self.world.network, self.trace
        used, service = dict(self.used), trace.service[i]
        chain = [f for f in world.chains[service] if f >= 0]
        best = []

        def latency(links, hosts):
            total = sum(network.delay_ms[link] for link in links)
            for function, node in zip(chain, hosts, strict=True):
                rho = used.get(("node", node), 0) / network.compute_mcpu[node]
                total += world.processing_ms[function] / (1 - rho)
            return float(total)

        def go(node, stage, links, hosts, seen):
            if best or len(links) > 8:
                return
            if self.lacking(used, self.amounts(i, links, hosts)):
                return
            if stage == len(chain) and node == trace.destination[i]:
                if latency(links, hosts) <= world.latency_ms[service]:
                    best.append((tuple(links), tuple(hosts), latency(links, hosts)))
                return
            steps = []
            if stage < len(chain) and world.rate_mcpu_per_gbps[node, chain[stage]] >= 0:
                steps.append(None)
            for link in np.flatnonzero(network.source == node):
                target = network.target[link]
                if target not in seen and (not world.stub[target] or target == trace.destination[i]):
                    steps.append(int(link))
            self.dice.shuffle(steps)
            for step in steps:
                if step is None:
                    go(node, stage + 1, links, [*hosts, node], {node})
                else:
                    target = int(network.target[step])
                    go(target, stage, [*links, step], hosts, seen | {target})

        go(int(trace.source[i]), 0, [], [], {int(trace.source[i])})
        record = self.records.setdefault(i, {"attempts": 0})
        record |= {"attempts": record["attempts"] + 1, "snapshot": self.version, "commit": -1}
        links, hosts, total = best[0] if best else ((), (), np.nan)
        record |= {"links": links, "hosts": hosts, "latency": total}
        record["cause"] = "accepted" if best else "dead_end_bandwidth"

    def write(self, kind, i, t_s, snapshot, resource=""):
        request_id = int(self.trace.request_id[i])
        self.ledger.append((len(self.ledger), kind, request_id, "a", t_s, snapshot, self.version, resource))

    def commit(self, i):
        record, network = self.records[i], self.world.network
        amounts = self.amounts(i, record["links"], record["hosts"])
        full = self.lacking(self.used, amounts)
        if full:
            kind, index = full[0]
            name = (network.link_ids if kind == "link" else network.node_ids)[index]
            self.write("abort", i, self.trace.t_s[i], record["snapshot"], name)
            record["cause"] = f"conflict_{kind}"
            return False
        for resource, amount in amounts.items():
            self.used[resource] = self.used.get(resource, 0) + amount
        self.version += 1
        record["commit"] = self.version
        self.write("commit", i, self.trace.t_s[i], record["snapshot"])
        return True

    def release(self, i, t_s):
        record = self.records[i]
        for resource, amount in self.amounts(i, record["links"], record["hosts"]).items():
            self.used[resource] -= amount
        self.version += 1
        self.write("release", i, t_s, -1)

    def settle(self, i):
        """Commit the plan of request i, planning again while attempts last."""
        while self.records[i]["cause"] == "accepted":
            if self.commit(i):
                return True
            if self.trace.service[i] > 0 or self.records[i]["attempts"] == 2:
                return False
            self.plan(i)
        return False

    def run_arrival(self, window=4):
        """Plan `window` requests ahead of the turn, commit in order of arrival, departures first."""
        n, active = len(self.trace.t_s), []
        for i in range(min(window, n)):
            self.plan(i)
        for i in range(n):
            while active and active[0][0] <= self.trace.t_s[i]:
                self.release(*heapq.heappop(active)[::-1])
            if i + window < n:
                self.plan(i + window)
            if self.settle(i):
                heapq.heappush(active, (self.trace.t_s[i] + self.trace.hold_s[i], i))
        while active:
            self.release(*heapq.heappop(active)[::-1])
        return self

    def run_free(self, lag_s=300.0):
        """One clock a service, none more than the lag ahead of the slowest; whose turn it is, is random."""
        agents = []
        for service in range(len(self.world.service_ids)):
            agents.append(([], [int(i) for i in np.flatnonzero(self.trace.service == service)[::-1]], []))
        while True:
            clocks = []
            for active, waiting, planned in agents:
                times = [active[0][0]] if active else []
                times += [self.trace.t_s[waiting[-1]]] if waiting else []
                clocks.append(self.trace.t_s[planned[0]] if planned else min(times, default=np.inf))
            if min(clocks) == np.inf:
                return self
            may = [a for a, clock in enumerate(clocks) if clock <= min(clocks) + lag_s and clock < np.inf]
            active, waiting, planned = agents[self.dice.choice(may)]
            if planned:  # the other agents may have committed since
                i = planned.pop()
                if self.settle(i):
                    heapq.heappush(active, (self.trace.t_s[i] + self.trace.hold_s[i], i))
            elif active and (not waiting or active[0][0] <= self.trace.t_s[waiting[-1]]):
                self.release(*heapq.heappop(active)[::-1])
            else:
                planned.append(waiting.pop())
                self.plan(planned[0])

    def frames(self):
        world, trace = self.world, self.trace
        network, order = world.network, sorted(self.records)
        of = [self.records[i] for i in order]
        decisions = pd.DataFrame(
            {
                "request_id": trace.request_id[order],
                "t_s": trace.t_s[order],
                "hold_s": trace.hold_s[order],
                "service": pd.Categorical([world.service_ids[s] for s in trace.service[order]]),
                "agent": "a",
                "source": [network.node_ids[v] for v in trace.source[order]],
                "destination": [network.node_ids[v] for v in trace.destination[order]],
                "demand_kbps": trace.demand_kbps[order],
                "accepted": [r["cause"] == "accepted" for r in of],
                "cause": pd.Categorical([r["cause"] for r in of]),
                "latency_ms": [r["latency"] for r in of],
                "budget_ms": world.latency_ms[trace.service[order]],
                "hops": np.array([len(r["links"]) for r in of], np.int16),
                "links": [[network.link_ids[e] for e in r["links"]] for r in of],
                "hosts": [[network.node_ids[v] for v in r["hosts"]] for r in of],
                "attempts": np.array([r["attempts"] for r in of], np.int8),
                "snapshot_version": [r["snapshot"] for r in of],
                "commit_version": [r["commit"] for r in of],
            }
        )
        names = ["seq", "kind", "request_id", "agent", "t_s", "snapshot_version", "store_version", "resource"]
        return decisions, pd.DataFrame(self.ledger, columns=names)


WORLD = small_world()
TRACE = offer(WORLD, 600, seed=1)
ARRIVAL = Simulator(WORLD, TRACE).run_arrival().frames()
FREE = Simulator(WORLD, TRACE).run_free().frames()


def copies(frames):
    return tuple(frame.copy(deep=True) for frame in frames)


# -------------------------------------------------------------------------------------------- correct runs


@pytest.mark.parametrize(("frames", "order"), [(ARRIVAL, "arrival"), (FREE, "free")])
def test_a_correct_run_passes(frames, order):
    report = audit(WORLD, *frames, TRACE, order).raise_if_violated()
    decisions, ledger = frames
    kinds = ledger["kind"].value_counts()
    assert report.ok and report.requests == 600 and "no violation" in report.summary()
    assert kinds["abort"] >= 10, "the run must have conflicts for the test to mean something"
    assert {"conflict_link", "dead_end_bandwidth"} <= set(decisions["cause"])
    assert (decisions["accepted"] & (decisions["attempts"] > 1)).any()
    assert report.admissions == kinds["commit"] == kinds["release"]


def test_arrival_order_is_never_overbooked_and_free_order_is_measured():
    assert audit(WORLD, *ARRIVAL, TRACE).overbooked == 0
    report = audit(WORLD, *FREE, TRACE, "free")
    overbooked, peak = sweep_in_time(WORLD, FREE[0])
    assert report.overbooked == len(overbooked) > 0 and report.peak == pytest.approx(peak) and peak > 1
    assert audit(WORLD, *ARRIVAL).peak == pytest.approx(sweep_in_time(WORLD, ARRIVAL[0])[1])


def sweep_in_time(world, decisions):
    """Oracle: sum the use of all flows alive at each admission."""
    network, kept = world.network, decisions[decisions["accepted"]].to_dict("records")
    index = {node: i for i, node in enumerate(network.node_ids)}
    for flow in kept:
        flow["takes"] = np.zeros(len(network.link_ids) + len(network.node_ids), np.int64)
        for link in flow["links"]:
            flow["takes"][network.link_ids.index(link)] += flow["demand_kbps"]
        for function, host in zip(world.chains[world.service_ids.index(flow["service"])], flow["hosts"], strict=False):
            rate = int(world.rate_mcpu_per_gbps[index[host], function])
            flow["takes"][len(network.link_ids) + index[host]] += -(-flow["demand_kbps"] * rate // 10**6)
    limit = np.concatenate([network.capacity_kbps, world.budget_mcpu])
    overbooked, peak = set(), 0.0
    for flow in kept:
        alive = [f for f in kept if f["t_s"] <= flow["t_s"] < f["t_s"] + f["hold_s"]]
        used = sum(f["takes"] for f in alive)
        peak = max(peak, *(used[limit > 0] / limit[limit > 0]))
        if (used > limit)[flow["takes"] > 0].any():
            overbooked.add(flow["request_id"])
    return overbooked, peak


def test_lists_may_be_python_numpy_or_arrow():
    decisions, ledger = copies(ARRIVAL)
    expected = audit(WORLD, decisions, ledger, TRACE).as_row()
    ids = pa.array(WORLD.network.link_ids)
    codes = pa.DictionaryArray.from_arrays(
        pa.array([WORLD.network.link_ids.index(e) for row in decisions["links"] for e in row], pa.int16()),
        ids,
    )
    offsets = pa.array(np.concatenate([[0], np.cumsum(decisions["links"].map(len))]).astype(np.int32))
    lists = pa.ListArray.from_arrays(offsets, codes)
    halves = pa.chunked_array([lists[:100], lists[100:]])
    for column in (
        decisions["links"].map(np.array),
        pd.Series(pd.arrays.ArrowExtensionArray(lists)),
        pd.Series(pd.arrays.ArrowExtensionArray(halves)),
        pd.Series(decisions["links"], dtype=pd.ArrowDtype(pa.list_(pa.string()))),
    ):
        got = audit(WORLD, decisions.assign(links=column), ledger, TRACE).as_row()
        assert {**got, "seconds": 0} == {**expected, "seconds": 0}


def test_decisions_may_come_in_any_order():
    decisions, ledger = ARRIVAL
    audit(WORLD, decisions.sample(frac=1, random_state=3), ledger, TRACE).raise_if_violated()


def test_request_ids_may_be_far_apart():
    decisions, ledger = copies(ARRIVAL)
    for frame in (decisions, ledger):
        frame["request_id"] = frame["request_id"] * 10**9
    audit(WORLD, decisions, ledger).raise_if_violated()
    ledger.loc[40, "request_id"] += 1
    assert "sequence" in audit(WORLD, decisions, ledger).count


@pytest.mark.parametrize("corrupt", ["corrupt_link", "walk_in_a_circle", "corrupt_latency"])
def test_blocks_do_not_change_what_is_found(corrupt, monkeypatch):
    decisions, ledger = copies(ARRIVAL)
    globals()[corrupt](decisions, ledger)
    whole = audit(WORLD, decisions, ledger, TRACE)
    monkeypatch.setattr(transcript, "BLOCK", 7)
    parts = audit(WORLD, decisions, ledger, TRACE)
    assert parts.count == whole.count and parts.peak == whole.peak
    pd.testing.assert_frame_equal(parts.violations, whole.violations)


def test_the_audit_uses_none_of_the_compiled_code():
    code = "import sys, amarl_core.audit; sys.exit(bool({'numba', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(rules.__file__).parents[1]).returncode == 0


def test_an_empty_run_passes():
    decisions, ledger = (frame.iloc[:0] for frame in ARRIVAL)
    report = audit(WORLD, decisions, ledger, offer(WORLD, 0, 1)).raise_if_violated()
    assert report.requests == 0 and report.peak == 0.0


def test_the_toy_scenario_fits_the_audit():
    toy = load_scenario("toy")
    trace = toy.training_trace(seed=1, days=1).head(150)
    audit(toy, *Simulator(toy, trace).run_arrival().frames(), trace).raise_if_violated()


# ---------------------------------------------------------------------------------------------- corruptions


def accepted_row(decisions, least_hops=3):
    """Pick an accepted request in the middle of the run, its walk long enough to be corrupted."""
    fits = decisions["accepted"] & (decisions["hops"] >= least_hops) & (decisions["service"] == "video")
    return int(np.flatnonzero(fits)[40])


def ledger_row(ledger, kind, k=25):
    return int(np.flatnonzero(ledger["kind"] == kind)[k])


def set_cell(frame, row, column, value):
    """Replace one cell of a frame, also one that holds a list."""
    values = list(frame[column])
    values[row] = value
    frame[column] = values


def corrupt_link(d, g):
    i = accepted_row(d)
    set_cell(d, i, "links", [d["links"][i][0], "D2-R2", *d["links"][i][2:]])
    return "route", i


def drop_last_link(d, g):
    i = accepted_row(d)
    set_cell(d, i, "links", d["links"][i][:-1])
    return "route", i


def unknown_link(d, g):
    i = accepted_row(d)
    set_cell(d, i, "links", ["nowhere", *d["links"][i][1:]])
    return "request", i


def corrupt_host(d, g):
    i = accepted_row(d)
    set_cell(d, i, "hosts", ["R1", d["hosts"][i][1]])
    return "chain", i


def host_off_the_walk(d, g):
    i = next(
        j
        for j in np.flatnonzero(d["accepted"] & (d["service"] == "video"))
        if "P1" not in {end for link in d["links"][j] for end in link.split("-")}
    )
    set_cell(d, i, "hosts", ["P1", *d["hosts"][i][1:]])
    return "chain", i


def stage_not_run(d, g):
    i = accepted_row(d)
    set_cell(d, i, "hosts", d["hosts"][i][:1])
    return "chain", i


def walk_in_a_circle(d, g):
    i = next(j for j in np.flatnonzero(d["accepted"]) if d["links"][j] and d["links"][j][0] == "D1-R1")
    set_cell(d, i, "links", ["D1-R1", "R1-R2", "R2-R1", *d["links"][i][1:]])
    return "simple", i


def pass_through_a_stub(d, g):
    i = next(
        j
        for j in np.flatnonzero(d["accepted"])
        if d["links"][j] and d["links"][j][0] == "D2-R2" and d["destination"][j] != "D1"
    )
    set_cell(d, i, "links", ["D2-R2", "R2-D1", "D1-R2", *d["links"][i][1:]])
    return "stub", i


def corrupt_latency(d, g):
    i = accepted_row(d)
    d.loc[i, "latency_ms"] += 2e-6
    return "latency", i


def latency_missing(d, g):
    i = accepted_row(d)
    d.loc[i, "latency_ms"] = np.nan
    return "latency", i


def other_snapshot(d, g):
    i = next(
        j
        for j in np.flatnonzero(d["accepted"])
        if 5 < d["snapshot_version"][j]
        and abs(
            d["latency_ms"][j] - sum(WORLD.network.delay_ms[WORLD.network.link_ids.index(e)] for e in d["links"][j])
        )
        > 0.9
    )
    d.loc[i, "snapshot_version"] = 0
    g.loc[g["store_version"].eq(d["commit_version"][i]) & g["kind"].eq("commit"), "snapshot_version"] = 0
    return "latency", i


def bound_loosened(d, g):
    i = accepted_row(d)
    d.loc[i, "budget_ms"] = 99.0
    return "budget", i


def accepted_by_another_cause(d, g):
    i = accepted_row(d)
    set_cell(d, i, "cause", "dead_end_loop")
    return "cause", i


def unknown_cause(d, g):
    i = int(np.flatnonzero(~d["accepted"])[3])
    set_cell(d, i, "cause", "bad_luck")
    return "cause", i


def decided_twice(d, g):
    i = accepted_row(d)
    d.loc[i + 1, "request_id"] = d.loc[i, "request_id"]
    return "request", i + 1


def demand_changed(d, g):
    i = accepted_row(d)
    d.loc[i, "demand_kbps"] += 1
    return "trace", i


def seq_repeated(d, g):
    g.loc[40, "seq"] = 39
    return "sequence", 40


def ledger_of_nobody(d, g):
    g.loc[40, "request_id"] = 1
    return "sequence", 40


def version_skipped(d, g):
    g.loc[40, "store_version"] += 1
    return "version", 40


def snapshot_of_the_future(d, g):
    k = ledger_row(g, "commit")
    g.loc[k, "snapshot_version"] = g.loc[k, "store_version"]
    return "version", k


def commit_twice(d, g):
    k = ledger_row(g, "commit")
    return "commit", k + 3, put(g, k + 3, g.iloc[k])


def put(ledger, place, row):
    """Insert a row and count seq and store_version anew, so that only its being there is wrong."""
    rows = ledger.to_dict("records")
    return renumbered([*rows[:place], dict(row), *rows[place:]])


def renumbered(rows):
    frame = pd.DataFrame(rows)
    frame["seq"] = np.arange(len(frame))
    frame["store_version"] = frame["kind"].ne("abort").cumsum()
    return frame


def swapped_in_lock_order(d, g):
    k = next(
        k
        for k in range(50, len(g) - 1)
        if g["kind"][k] == g["kind"][k + 1] == "commit" and g["t_s"][k] < g["t_s"][k + 1]
    )
    rows = g.to_dict("records")
    rows[k], rows[k + 1] = rows[k + 1], rows[k]
    return "order", k + 1, renumbered(rows)


def late_departure(d, g):
    k = next(k for k in range(50, len(g) - 1) if g["kind"][k] == "release" and g["kind"][k + 1] == "commit")
    rows = g.to_dict("records")
    rows[k], rows[k + 1] = rows[k + 1], rows[k]
    return "order", k + 1, renumbered(rows)


def early_departure(d, g):
    k = next(
        k
        for k in range(50, len(g) - 1)
        if g["kind"][k] == "commit" and g["kind"][k + 1] == "release" and g["request_id"][k] != g["request_id"][k + 1]
    )
    rows = g.to_dict("records")
    rows[k], rows[k + 1] = rows[k + 1], rows[k]
    return "order", k, renumbered(rows)


def release_of_other_amounts(d, g):
    k = ledger_row(g, "release")
    earlier = g["request_id"][ledger_row(g, "release", 3)]
    g.loc[k, "request_id"] = earlier
    return "release", k


def release_at_another_time(d, g):
    k = ledger_row(g, "release")
    g.loc[k, "t_s"] += 0.001
    return "release", k


def never_released(d, g):
    k = ledger_row(g, "release")
    i = int(np.flatnonzero(d["request_id"] == g["request_id"][k])[0])
    rows = g.to_dict("records")
    del rows[k]
    return "unreleased", i, renumbered(rows)


def never_committed(d, g):
    k = ledger_row(g, "commit")
    i = int(np.flatnonzero(d["request_id"] == g["request_id"][k])[0])
    rows = [row for row in g.to_dict("records") if row["request_id"] != g["request_id"][k]]
    return "uncommitted", i, renumbered(rows)


def committed_though_rejected(d, g):
    k = ledger_row(g, "commit")
    i = int(np.flatnonzero(d["request_id"] == g["request_id"][k])[0])
    d.loc[i, "accepted"] = False
    set_cell(d, i, "cause", "dead_end_loop")
    return "commit", k


def final_aborts(d, g, cause):
    lost = set(d.loc[d["cause"] == cause, "request_id"])
    return [int(k) for k in np.flatnonzero(g["kind"] == "abort") if g["request_id"][k] in lost]


def abort_blames_a_free_link(d, g):
    k = final_aborts(d, g, "conflict_link")[-1]
    i = int(np.flatnonzero(d["request_id"] == g["request_id"][k])[0])
    g.loc[k, "resource"] = next(e for e in WORLD.network.link_ids if e not in d["links"][i])
    return "abort", k


def abort_contradicts_the_cause(d, g):
    k = final_aborts(d, g, "conflict_link")[-1]
    g.loc[k, "resource"] = "P1"
    return "abort", k


def abort_of_a_route_that_fitted(d, g):
    k = final_aborts(d, g, "conflict_link")[-1]
    i = int(np.flatnonzero(d["request_id"] == g["request_id"][k])[0])
    d.loc[i, "demand_kbps"] = 1
    return "abort", k


def early_abort_with_room_for_any_route(d, g):
    lost = set(d.loc[d["cause"].isin(rules.CONFLICTS), "request_id"])
    k = next(int(k) for k in np.flatnonzero(g["kind"] == "abort") if g["request_id"][k] not in lost)
    g.loc[k, "resource"] = "D2"  # a node without compute: no stage could ask anything of it
    return "abort", k


def abort_of_nothing(d, g):
    k = ledger_row(g, "abort", 5)
    g.loc[k, "resource"] = ""
    return "abort", k


def conflict_without_abort(d, g):
    i = int(np.flatnonzero(d["cause"] == "conflict_link")[0])
    rows = [r for r in g.to_dict("records") if r["request_id"] != d["request_id"][i]]
    return "conflict", i, renumbered(rows)


def more_aborts_than_attempts(d, g):
    i = int(np.flatnonzero(d["cause"].isin(rules.CONFLICTS) & (d["attempts"] == 1))[0])
    k = int(np.flatnonzero(g["request_id"] == d["request_id"][i])[0])
    return "conflict", i, put(g, k, g.iloc[k])


CORRUPTIONS = [
    *(corrupt_link, drop_last_link, unknown_link, corrupt_host, host_off_the_walk, stage_not_run),
    *(
        walk_in_a_circle,
        pass_through_a_stub,
        corrupt_latency,
        latency_missing,
        other_snapshot,
        bound_loosened,
    ),
    *(
        accepted_by_another_cause,
        unknown_cause,
        decided_twice,
        demand_changed,
        seq_repeated,
        ledger_of_nobody,
    ),
    *(version_skipped, snapshot_of_the_future, commit_twice, swapped_in_lock_order, late_departure),
    *(early_departure, release_of_other_amounts, release_at_another_time, never_released, never_committed),
    *(committed_though_rejected, abort_blames_a_free_link, abort_contradicts_the_cause),
    *(abort_of_a_route_that_fitted, early_abort_with_room_for_any_route, abort_of_nothing),
    *(conflict_without_abort, more_aborts_than_attempts),
]


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda f: f.__name__)
def test_a_corruption_is_found_in_its_row(corrupt):
    decisions, ledger = copies(ARRIVAL)
    rule, row, *replaced = corrupt(decisions, ledger)  # in place, or a ledger to take its place
    report = audit(WORLD, decisions, *(replaced or [ledger]), TRACE)
    found = report.violations
    assert not report.ok and row in set(found.loc[found["rule"] == rule, "row"]), report.summary()
    with pytest.raises(AuditError, match=rule):
        report.raise_if_violated()


def test_a_capacity_exceeded_is_found_in_its_row():
    """Shrink what the busiest link and pool have: the commits that filled them exceed it."""
    decisions, ledger = ARRIVAL
    for rule, ids, name in (
        ("link_capacity", WORLD.network.link_ids, "capacity_kbps"),
        ("node_budget", WORLD.network.node_ids, "budget_mcpu"),
    ):
        world = small_world()
        limit = world.network.capacity_kbps if name == "capacity_kbps" else world.budget_mcpu
        limit[:] = limit * 9 // 10
        report = audit(world, decisions, ledger, TRACE)
        found = report.violations[report.violations["rule"] == rule]
        assert len(found) and (ledger["kind"][found["row"]] == "commit").all()
        assert found["detail"].iloc[0].split()[2] in ids
        first = found["row"].iloc[0]
        assert "overbooked" in report.count
        audit(world, *ledger_until(decisions, ledger, first), order="free").raise_if_violated()


def ledger_until(decisions, ledger, row):
    """Return what happened before a ledger row, with its flows released afterwards."""
    head = ledger.iloc[:row]
    gone = set(head.loc[head["kind"] == "release", "request_id"])
    head = head[(head["kind"] != "abort")]
    kept = set(head.loc[head["kind"] == "commit", "request_id"])
    rest = ledger.iloc[row:]
    tail = rest[(rest["kind"] == "release") & rest["request_id"].isin(kept - gone)]
    frame = pd.concat([head, tail]).reset_index(drop=True)
    frame["seq"] = np.arange(len(frame))
    frame["store_version"] = frame["kind"].ne("abort").cumsum()
    return decisions[decisions["request_id"].isin(kept)].reset_index(drop=True), frame


def test_a_route_that_takes_too_long_is_found_in_its_row():
    decisions, ledger = copies(ARRIVAL)
    i = accepted_row(decisions)
    world = small_world()
    world.latency_ms[0] = decisions["latency_ms"][i] - 0.001
    decisions.loc[decisions["service"] == "video", "budget_ms"] = world.latency_ms[0]
    report = audit(world, decisions, ledger, TRACE)
    too_long = decisions["accepted"] | decisions["cause"].isin(rules.CONFLICTS)
    too_long &= decisions["latency_ms"] > decisions["budget_ms"]
    assert set(report.count) == {"budget"} and report.count["budget"] == too_long.sum()
    assert i in set(report.violations["row"])


def test_a_network_that_is_not_empty_in_the_end_names_the_resource():
    decisions, ledger = copies(ARRIVAL)
    _, _, ledger = never_released(decisions, ledger)
    found = audit(WORLD, decisions, ledger, TRACE).violations
    zero = found[found["rule"] == "zero"]
    assert len(zero) and (zero["row"] == -1).all() and zero["detail"].str.contains("keeps").all()


def test_a_request_without_a_decision_is_missing():
    decisions, ledger = ARRIVAL
    i = int(np.flatnonzero(~decisions["accepted"] & ~decisions["cause"].isin(rules.CONFLICTS))[0])
    lost = decisions["request_id"][i]
    ledger = ledger[ledger["request_id"] != lost]
    report = audit(WORLD, decisions.drop(index=i), ledger, TRACE, "free")
    assert "missing" in report.count and report.violations["row"].iloc[0] == i
    extra = audit(WORLD, *ARRIVAL, SimpleNamespace(**{k: np.delete(v, i) for k, v in vars(TRACE).items()}))
    assert extra.count == {"trace": 1} and extra.violations["row"].iloc[0] == i


def test_free_order_is_not_judged_as_arrival_order():
    assert {"order", "overbooked"} <= set(audit(WORLD, *FREE, TRACE, "arrival").count)


def test_all_violations_are_counted_and_the_first_listed():
    decisions, ledger = copies(ARRIVAL)
    ledger["store_version"] += 1
    report = audit(WORLD, decisions, ledger, TRACE)
    assert report.count["version"] == len(ledger) == report.n_violations
    assert list(report.violations["row"]) == list(range(rules.LISTED))
    assert list(report.violations.columns) == ["rule", "row", "request_id", "detail"]


def test_the_table_of_rules_names_every_rule():
    table = [line.split("|")[1].strip() for line in rules.__doc__.splitlines() if line.startswith("| ")]
    assert tuple(table[1:]) == rules.RULES


def test_a_missing_column_or_an_unknown_order_is_refused():
    decisions, ledger = ARRIVAL
    with pytest.raises(AuditError, match="no column \\['hosts'\\]"):
        audit(WORLD, decisions.drop(columns="hosts"), ledger)
    with pytest.raises(AuditError, match="arrival"):
        audit(WORLD, decisions, ledger, order="lag")
    with pytest.raises(AuditError, match="t_s"):
        audit(WORLD, decisions, ledger.assign(t_s="noon"))


# ------------------------------------------------------------------------------------------------- walks


@settings(max_examples=300, deadline=None)
@given(walk=st.lists(st.integers(0, 3), min_size=1, max_size=8), hosts=st.lists(st.integers(0, 3), max_size=3))
def test_a_walk_is_valid_exactly_when_some_placing_of_its_hosts_makes_simple_segments(walk, hosts):
    def simple(places):
        cuts = [0, *places, len(walk) - 1]
        segments = [walk[a : b + 1] for a, b in zip(cuts, cuts[1:], strict=False)]
        return all(len(set(segment)) == len(segment) for segment in segments)

    choices = product(*([p for p, node in enumerate(walk) if node == host] for host in hosts))
    valid = any(list(places) == sorted(places) and simple(places) for places in choices)

    walks = Walks(np.array([0, len(walk)]), np.zeros(len(walk), np.int32), np.array(walk, np.int32))
    decisions = SimpleNamespace(hosts=Lists(np.array([0, len(hosts)]), np.array(hosts, np.int32)))
    position = host_positions(decisions, walks, np.array([True]))
    found = (position >= 0).all() and revisits(walks, decisions, position, np.array([True]))[0] < 0
    assert found == valid
