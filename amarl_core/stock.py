"""The peer: stock `sb3_contrib.MaskablePPO` at its defaults on `RoutingEnv`, untouched, for its rate."""

import time

import torch
from sb3_contrib import MaskablePPO

from amarl_core.config import TrainConfig
from amarl_core.env import RoutingEnv


def stock_rate(scenario, n_steps: int, seed: int = 0) -> dict:
    """Train stock MaskablePPO for at least n_steps on one torch thread; return what it took.

    Returns:
        env_steps, seconds, steps_per_s, torch_threads.
    """
    trace = scenario.training_trace(seed=seed, days=1)
    env = RoutingEnv(scenario, trace, config=TrainConfig())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the better for it: at minibatches of 64 a second thread only costs
    try:
        MaskablePPO("MlpPolicy", env, seed=seed, device="cpu", n_steps=64).learn(64)  # kernels and torch get warm
        model = MaskablePPO("MlpPolicy", env, seed=seed, device="cpu", n_steps=min(2048, n_steps))
        start = time.perf_counter()
        model.learn(total_timesteps=n_steps)
        seconds = time.perf_counter() - start
    finally:
        torch.set_num_threads(threads)
    return {
        "env_steps": int(model.num_timesteps),
        "seconds": seconds,
        "steps_per_s": model.num_timesteps / seconds,
        "torch_threads": 1,
    }
