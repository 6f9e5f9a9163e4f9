"""Invented records of `performance/`, for the pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core.phases import ALL_PHASES
from amarl_core.runs import write_frame, write_json

WORK = ("events", "snapshot", "reach", "mask", "prices", "observe", "forward", "commit", "release", "update")


def fake_phases(agents: dict[str, list[str]]) -> pd.DataFrame:
    """Invent seconds by method, agent and phase; the look-ahead search takes most."""
    seconds = {phase: 0.1 for phase in WORK} | {"reach": 3.0, "update": 2.0, "forward": 1.0, "prices": 0.8}
    rows = []
    for method, names in agents.items():
        for place, agent in enumerate(names):
            own = {phase: seconds.get(phase, 0.0) / (1 + place) for phase in ALL_PHASES}
            own |= {"lock": 0.001, "lag": 1.0 * place, "no_core": 0.1}
            rows += [{"agent": agent, "phase": phase, "seconds": s, "method": method, "train_s": 8.0, "cpu_s": 8.0,
                      "steps": 1_000_000} for phase, s in own.items()]  # fmt: skip
    return pd.DataFrame(rows)


def fake_timeline(agents: dict[str, list[str]]) -> pd.DataFrame:
    """Invent intervals: rollouts and updates in turn, a wait in every other rollout."""
    rows = []
    for method, names in agents.items():
        for place, agent in enumerate(names):
            for n in range(20):
                start, step = 0.4 * n, 0.3 / (1 + 0.2 * place)
                rows.append((agent, "rollout", start, start + step, step, method))
                rows.append((agent, "update", start + step, start + 0.4, 0.4 - step, method))
                if n % 2 and place:
                    rows.append((agent, "lag", start, start + step / 2, np.nan, method))
    return pd.DataFrame(rows, columns=["agent", "interval", "start_s", "end_s", "cpu_s", "method"])


def fake_speed_ups(by: str, values: tuple[int, ...], repeats: int = 3) -> pd.DataFrame:
    """Invent trainings of both methods by services or cores."""
    rows = []
    for value in values:
        for repeat in range(repeats):
            for method, train_s in (("sarl", 2.0), ("amarl", 2.0 / min(1.7, 0.9 * value))):
                share = 1.0 if method == "sarl" else max(0.3, 1.0 / value)
                rows.append({by: value, "method": method, "repeat": repeat, "train_s": train_s + 0.01 * repeat,
                             "cpu_s": 2.4, "env_steps": 300_000, "largest_share": share})  # fmt: skip
    return pd.DataFrame(rows)


def fake_limits() -> dict:
    """Invent the machine's limit."""
    shapes = {"minibatch": 2048, "inputs": 93, "width": 32, "slots": 10, "epochs": 2, "flops": 76_000}
    gflops = {"shapes_1": 60.0, "shapes_all": 110.0, "peak_1": 100.0, "peak_all": 190.0, "update_1": 36.0}
    one = {"cpu_s": 2.2, "env_steps": 330_000, "largest_share": 0.4, "limit_s": 0.228}
    methods = {"sarl": one | {"train_s": 2.2, "share": 0.104}, "amarl": one | {"train_s": 1.4, "share": 0.163}}
    return {"cores": 2, "days": 1, "repeats": 3, "shapes": shapes, "gflops": gflops} | methods


def fake_growth() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Invent what sizes of the network cost, and loads."""
    kinds = (("search", 2.0, 1.0), ("policy", 1.0, 0.0), ("update", 2.0, 0.0), ("other", 1.0, 0.5))
    sizes = [
        {
            "nodes": n,
            "links": 4 * n,
            "requests": 20_000,
            "setup_s": 1.0,
            "phase": phase,
            "steps": 60_000,
            "us_per_decision": us * (n / 40) ** power,
        }
        for n in (40, 200, 1000)
        for phase, us, power in kinds
    ]
    load = [{"factor": f, "method": method, "requests": int(80_000 * f), "train_s": f * s, "cpu_s": 2 * f,
             "env_steps": 300_000, "largest_share": 0.4}
            for f in (0.5, 1.0, 3.0) for method, s in (("sarl", 2), ("amarl", 1.3))]  # fmt: skip
    return pd.DataFrame(sizes), pd.DataFrame(load)


def write_performance(folder: Path, services: list[str]) -> None:
    """Write what the step `performance` would."""
    agents = {"sarl": ["sarl"], "amarl": services}
    watching = [{"pair": p, "watched": w, "train_s": 2 + 0.05 * w, "cpu_s": 2 + 0.06 * w + 0.01 * p}
                for p in range(3) for w in (True, False)]  # fmt: skip
    threads = [{"threads": n, "order": order, "repeat": r, "test_s": 1.0 / min(n, 1.8)}
               for n in range(1, 7) for order in ("arrival", "free") for r in range(3)]  # fmt: skip
    sizes, load = fake_growth()
    rates = (("stock", 1100.0), ("DummyVecEnv, 6", 1300.0), ("threads, 6", 700.0))
    peers = [{"peer": peer, "kind": "one", "width": 1, "env_steps": 4096, "seconds": 4.0, "steps_per_s": rate,
              "cpu_s": 4.0} for peer, rate in rates]  # fmt: skip
    frames = {"phases": fake_phases(agents), "timeline": fake_timeline(agents), "watching": pd.DataFrame(watching),
              "services": fake_speed_ups("n_services", (1, 2, 3, 6, 12)), "cores": fake_speed_ups("cores", (1, 2)),
              "threads": pd.DataFrame(threads), "load": load, "sizes": sizes,
              "peers": pd.DataFrame(peers)}  # fmt: skip
    for name, frame in frames.items():
        write_frame(folder / "performance" / f"{name}.parquet", frame)
    write_json(folder / "performance" / "limits.json", fake_limits())
