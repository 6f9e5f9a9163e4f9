"""Peers in the same run: stock `sb3_contrib.MaskablePPO` in the ways a user would try, on the same requests.

Each peer is what a few lines of Python give: one environment, several in turn (`DummyVecEnv`), several in processes of
their own (`SubprocVecEnv`), or one stock model a service in a thread of its own. Every one learns at stock's defaults
from rollouts of 2,048 decisions in all. The environments of a vectorised peer have a network each: they are not six
agents on one network, which stock cannot do.
"""

import logging
import threading
import time
from collections.abc import Callable

import pandas as pd
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from amarl_core.config import TrainConfig
from amarl_core.env import RoutingEnv
from amarl_core.scenario import load_scenario

log = logging.getLogger(__name__)

ROLLOUT = 2048
WARM = 64
PEERS = {
    "stock": ("one", 1),
    "DummyVecEnv, 6": ("dummy", 6),
    "SubprocVecEnv, 2": ("processes", 2),
    "SubprocVecEnv, 6": ("processes", 6),
    "threads, 6": ("threads", 6),
}
"""Each peer as its kind and how many environments (or models) it has."""


class MakeEnv:
    """Makes an environment, in whichever process it is called."""

    def __init__(self, scenario_name: str, seed: int, n_requests: int, service: str | None = None):
        self.scenario_name, self.seed, self.n_requests, self.service = scenario_name, seed, n_requests, service

    def __call__(self) -> RoutingEnv:
        scenario = load_scenario(self.scenario_name)
        trace = scenario.training_trace(seed=self.seed, days=1).head(self.n_requests)
        return RoutingEnv(scenario, trace, service=self.service, config=TrainConfig())


def peer_rows(scenario_name: str, n_steps: int, peers: dict = PEERS, seed: int = 0) -> pd.DataFrame:
    """Train every peer for about n_steps decisions on one torch thread a model.

    Returns:
        A row a peer: peer, kind, width, env_steps, seconds, steps_per_s, cpu_s (of this process).
    """
    rows, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)  # the better for it: at minibatches of 64 a second thread only costs
    try:
        for name, (kind, width) in peers.items():
            took = (_threads if kind == "threads" else _vectorised)(scenario_name, n_steps, kind, width, seed)
            rows.append({"peer": name, "kind": kind, "width": width} | took)
            log.info("%s: %.0f steps/s", name, took["steps_per_s"])
    finally:
        torch.set_num_threads(threads)
    return pd.DataFrame(rows)


def _vectorised(scenario_name: str, n_steps: int, kind: str, width: int, seed: int) -> dict:
    makers = [MakeEnv(scenario_name, seed + n, 8 * n_steps) for n in range(width)]
    env = SubprocVecEnv(makers, start_method="forkserver") if kind == "processes" else DummyVecEnv(makers)
    try:
        _model(env, seed, WARM // width).learn(WARM)
        model = _model(env, seed, min(ROLLOUT, n_steps) // width)
        return _clock(lambda: model.learn(n_steps), lambda: model.num_timesteps)
    finally:
        env.close()


def _threads(scenario_name: str, n_steps: int, kind: str, width: int, seed: int) -> dict:
    """Let one stock model a service learn in a thread of its own; their steps together."""
    services = load_scenario(scenario_name).service_ids[:width]
    envs = [MakeEnv(scenario_name, seed, 8 * n_steps, service)() for service in services]
    each = max(WARM, n_steps // len(envs))
    models = [_model(env, seed, min(ROLLOUT, n_steps) // len(envs)) for env in envs]
    _model(envs[0], seed, WARM).learn(WARM)

    def learn() -> None:
        workers = [threading.Thread(target=model.learn, args=(each,)) for model in models]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return _clock(learn, lambda: sum(model.num_timesteps for model in models))


def _model(env, seed: int, n_steps: int) -> MaskablePPO:
    return MaskablePPO("MlpPolicy", env, seed=seed, device="cpu", n_steps=max(2, n_steps), verbose=0)


def _clock(learn: Callable[[], object], count: Callable[[], int]) -> dict:
    wall, cpu = time.perf_counter(), time.process_time()
    learn()
    seconds, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    return {"env_steps": int(count()), "seconds": seconds, "steps_per_s": count() / seconds, "cpu_s": cpu_s}
