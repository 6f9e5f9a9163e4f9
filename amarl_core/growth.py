"""What a decision costs as the network grows and as load grows."""

import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from amarl_core.config import make_config
from amarl_core.generate import generate
from amarl_core.phases import profile
from amarl_core.scaling import train_team
from amarl_core.scenario import Scenario
from amarl_core.stopwatch import PHASES

log = logging.getLogger(__name__)

REQUESTS = 20_000
"""Requests a day on every generated network."""

SEARCHES = ("reach", "prices")
KERNEL = tuple(phase for phase in PHASES if phase != "lag")


def with_load(scenario: Scenario, factor: float) -> Scenario:
    """Return a world in which so many times as many requests arrive, each like before."""
    return replace(scenario, traffic=replace(scenario.traffic, rate_per_s=factor * scenario.traffic.rate_per_s))


def load_rows(scenario: Scenario, factors: Sequence[float], seed: int = 0) -> pd.DataFrame:
    """Train both methods for a day at several loads.

    Returns:
        A row per factor and method: factor, method, requests, train_s, cpu_s, env_steps, gos (% of the training day).
    """
    rows = []
    for factor in factors:
        world = with_load(scenario, factor)
        trace = world.training_trace(seed, 1)
        for method in ("sarl", "amarl"):
            run, row = train_team(world, make_config(method=method, days=1, seed=seed), trace)
            rows.append({"factor": factor, "method": method, "requests": len(trace)} | row)
        log.info("load x %g: %s", factor, ", ".join(f"{r['method']} {r['train_s']:.2f} s" for r in rows[-2:]))
    return pd.DataFrame(rows)


def size_rows(sizes: Sequence[int], seed: int = 0, requests: int = REQUESTS) -> pd.DataFrame:
    """Profile SARL for a day of generated networks of several sizes, with as many requests on each.

    On one thread a phase is processor time and nothing else.

    Returns:
        A row per size and phase: nodes, links, phase (search, policy, other, update), requests, steps, us_per_decision;
        and `setup_s`, seconds of generating and loading the world.
    """
    rows = []
    for nodes in sizes:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            world = generate(nodes, seed, Path(folder) / f"nodes{nodes}", requests_per_day=requests)
            setup_s = time.perf_counter() - start
            trace = world.training_trace(seed, 1)
            took = profile(world, make_config(method="sarl", days=1, seed=seed), trace)
        seconds = took.phases.set_index("phase")["seconds"].reindex([*KERNEL, "update"])
        about = {"nodes": nodes, "links": world.network.n_links, "requests": len(trace), "setup_s": setup_s}
        steps = sum(took.steps.values())
        groups = {"search": list(SEARCHES), "policy": ["forward"], "update": ["update"]}
        groups["other"] = [p for p in seconds.index if not any(p in kinds for kinds in groups.values())]
        for phase, kinds in groups.items():
            us = 1e6 * float(seconds[kinds].sum()) / max(steps, 1)
            rows.append(about | {"phase": phase, "steps": steps, "us_per_decision": us})
        log.info("%d nodes: %.1f us a decision", nodes, sum(row["us_per_decision"] for row in rows[-len(groups) :]))
    return pd.DataFrame(rows)
