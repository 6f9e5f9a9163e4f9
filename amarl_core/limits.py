"""The machine's limit: how fast it multiplies matrices at the update's shapes, and how near training comes to that.

A training has to do the arithmetic of its updates, whatever else it does. At the rate at which the machine does nothing
but these products, on all cores at once, that takes `limit_s`: no training of the same updates is faster.
"""

import threading
import time
from collections.abc import Callable

import numpy as np
import torch

from amarl_core.agents import training_trace
from amarl_core.arena import make_buffer
from amarl_core.config import TrainConfig, make_config
from amarl_core.policy import build_model, update
from amarl_core.runs import usable_cores
from amarl_core.scaling import train_team
from amarl_core.teams import untrained

LARGE = 1024
"""Rows and columns of the matrices that the machine's peak is measured with."""

PIECE = 4
"""Repetitions between two looks at the clock."""


def update_flops(n_inputs: int, width: int, n_slots: int) -> int:
    """Return the floating-point operations that an epoch of the update needs for one decision.

    Matrix products alone, 2 operations a multiply-add: forward through actor and critic, the gradient by each weight,
    and the gradient by each layer's input but the first.
    """
    first = 2 * n_inputs * width  # of actor and critic
    later = 2 * width * width + width * n_slots + width
    return 2 * (first + later) + 2 * (first + later) + 2 * later


def products(minibatch: int, n_inputs: int, width: int, n_slots: int) -> Callable[[], None]:
    """Return a function that does the products of one minibatch, and nothing else."""
    draw = torch.Generator().manual_seed(0)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.rand(rows, columns, generator=draw)

    layers = []
    for outputs in (n_slots, 1):
        for i, o in ((n_inputs, width), (width, width), (width, outputs)):
            layers.append((matrix(minibatch, i), matrix(o, i), matrix(minibatch, o), i != n_inputs))
    space = [(torch.empty(minibatch, w.size(0)), torch.empty_like(w), torch.empty_like(x)) for x, w, _, _ in layers]

    def once() -> None:
        for (x, weight, delta, goes_on), (out, by_weight, by_input) in zip(layers, space, strict=True):
            torch.mm(x, weight.t(), out=out)
            torch.mm(delta.t(), x, out=by_weight)
            if goes_on:
                torch.mm(delta, weight, out=by_input)

    return once


def rate(make: Callable[[], Callable[[], None]], flops: float, threads: int, seconds: float) -> float:
    """Return the operations a second of several threads that each do nothing but some products."""
    counts, gate = [0] * threads, threading.Barrier(threads + 1)

    def work(t: int) -> None:
        torch.set_num_threads(1)
        once = make()
        once()
        gate.wait()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            for _ in range(PIECE):
                once()
            counts[t] += PIECE

    workers = [threading.Thread(target=work, args=(t,)) for t in range(threads)]
    for worker in workers:
        worker.start()
    gate.wait()
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    return flops * sum(counts) / (time.perf_counter() - start)


def _large() -> Callable[[], None]:
    a, out = torch.rand(LARGE, LARGE), torch.empty(LARGE, LARGE)
    return lambda: torch.mm(a, a, out=out)


def update_rate(config: TrainConfig, n_inputs: int, n_slots: int, seconds: float) -> float:
    """Return decisions a second of updates alone, on one thread: each counts once, whatever the epochs."""
    n, draw = 8 * config.minibatch, np.random.default_rng(0)
    buffer = make_buffer(n, n_inputs, n_slots)
    buffer.observation[:] = draw.random((n, n_inputs))
    buffer.mask[:] = True
    buffer.action[:] = draw.integers(0, n_slots, n)
    buffer.log_prob[:] = -np.log(n_slots)
    buffer.advantage[:] = draw.normal(size=n)
    model, n_done = build_model(config, n_inputs, n_slots, 0), 0
    update(model, buffer, n, 1.0, draw)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        update(model, buffer, n, 1.0, draw)
        n_done += n
    return n_done / (time.perf_counter() - start)


def limit_rows(scenario, days: int, repeats: int, seconds: float, seed: int = 0) -> dict:
    """Measure the machine's rates and trainings of both methods, in turn.

    Args:
        scenario: the world.
        days: training days.
        repeats: how often each is done; medians count.
        seconds: of measuring each rate.

    Returns:
        cores; shapes (minibatch, inputs, width, slots, epochs, flops of one decision, all epochs); gflops (shapes_1 and
        shapes_all: at the update's shapes on one thread and on all cores, peak_1, peak_all: large matrices, update_1:
        of the update alone); by method: train_s, cpu_s, update_s, env_steps, limit_s (the arithmetic of its updates at
        shapes_all), share (limit_s over train_s).
    """
    config, cores = make_config(days=days, seed=seed), usable_cores()
    fresh = untrained(scenario, config)
    n_inputs, n_slots = fresh.nets.actor_1.shape[1] - 1, fresh.nets.actor_3.shape[2]
    shape = (config.minibatch, n_inputs, config.width, n_slots)
    each = update_flops(*shape[1:])
    rates: dict[str, list[float]] = {}
    trained: dict[str, list[dict]] = {"sarl": [], "amarl": []}
    for _ in range(repeats):
        found = {"shapes_1": rate(lambda: products(*shape), each * config.minibatch, 1, seconds),
                 "shapes_all": rate(lambda: products(*shape), each * config.minibatch, cores, seconds),
                 "peak_1": rate(_large, 2.0 * LARGE**3, 1, seconds),
                 "peak_all": rate(_large, 2.0 * LARGE**3, cores, seconds),
                 "update_1": update_rate(config, n_inputs, n_slots, seconds) * each * config.epochs}  # fmt: skip
        for name, value in found.items():
            rates.setdefault(name, []).append(value / 1e9)
        for method, rows in trained.items():
            chosen = make_config(method=method, days=days, seed=seed)
            rows.append(train_team(scenario, chosen, training_trace(scenario, chosen))[1])
    gflops = {name: float(np.median(values)) for name, values in rates.items()}
    result: dict = {
        "cores": cores,
        "days": days,
        "repeats": repeats,
        "shapes": dict(zip(("minibatch", "inputs", "width", "slots"), shape, strict=True))
        | {"epochs": config.epochs, "flops": each * config.epochs},
        "gflops": gflops,
    }
    for method, rows in trained.items():
        middle = {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
        limit_s = middle["env_steps"] * each * config.epochs / (1e9 * gflops["shapes_all"])
        result[method] = middle | {"limit_s": limit_s, "share": limit_s / middle["train_s"]}
    return result
