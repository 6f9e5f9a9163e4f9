"""The measurements of notebook 80, each a record below `performance/` in a study's folder.

    python -m amarl_core.steps performance <folder of the study>

They run alone on the machine, in one process. A record that is there is kept, so that an interrupted step goes on.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from amarl_core.agents import training_trace
from amarl_core.config import METHODS, make_config
from amarl_core.growth import load_rows, size_rows
from amarl_core.limits import limit_rows
from amarl_core.peers import PEERS, peer_rows
from amarl_core.phases import cost_of_watching, profile
from amarl_core.runs import write_frame, write_json
from amarl_core.scaling import core_rows, service_rows, thread_rows, train_team
from amarl_core.scenario import load_scenario

log = logging.getLogger(__name__)

FOLDER = "performance"
DONE = "performance.json"
"""Written last: plan and seconds of each part."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    profile_days: int = 4
    pairs: int = 5  # of trainings with the watches on and off
    services: tuple[int, ...] = (1, 2, 3, 6, 12)
    repeats: int = 3
    days: int = 1  # of each training that is timed
    loads: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 3.0)
    sizes: tuple[int, ...] = (40, 100, 200, 400, 1000)
    size_requests: int = 20_000
    thread_requests: int = 40_000
    peers: tuple[str, ...] = tuple(PEERS)
    peer_steps: int = 4096
    rate_s: float = 0.7


PLANS = {
    "full": Plan(),
    "quick": Plan(profile_days=2, pairs=2, services=(1, 2, 6, 12), repeats=1, loads=(0.5, 1.0, 2.0), sizes=(40, 200),
                  size_requests=5000, thread_requests=20_000, peers=("stock", "DummyVecEnv, 6", "threads, 6"),
                  peer_steps=1024, rate_s=0.3),
    "smoke": Plan(profile_days=2, pairs=1, services=(1, 2, 3, 6), repeats=1, loads=(0.5, 2.0), sizes=(20, 40),
                  size_requests=500, thread_requests=1000, peers=("stock", "DummyVecEnv, 6", "threads, 6"),
                  peer_steps=128, rate_s=0.05),
}  # fmt: skip
"""By the study's profile."""


def measure(folder: Path, info: dict) -> None:
    """Measure everything that is not there yet.

    Args:
        folder: of the study.
        info: its study.json.
    """
    plan, place = PLANS[info["profile"]], folder / FOLDER
    scenario, seed = load_scenario(info["scenario"]), info["seeds"][0]
    for method in METHODS:  # compiles and warms up
        config = make_config(method=method, days=1, seed=seed)
        train_team(scenario, config, training_trace(scenario, config).head(3000))
    parts: dict[str, Callable[[], pd.DataFrame | dict]] = {
        "limits.json": lambda: limit_rows(scenario, plan.days, plan.repeats, plan.rate_s, seed),
        "watching.parquet": lambda: cost_of_watching(scenario, plan.days, plan.pairs, seed),
        "services.parquet": lambda: service_rows(scenario, plan.services, plan.repeats, plan.days, seed),
        "cores.parquet": lambda: core_rows(scenario, plan.repeats, plan.days, seed),
        "threads.parquet": lambda: thread_rows(scenario, plan.repeats, seed, plan.thread_requests),
        "load.parquet": lambda: load_rows(scenario, plan.loads, seed),
        "peers.parquet": lambda: peer_rows(info["scenario"], plan.peer_steps, {p: PEERS[p] for p in plan.peers}, seed),
        "sizes.parquet": lambda: size_rows(plan.sizes, seed, plan.size_requests),
    }
    took = {}
    if not (place / "phases.parquet").exists():
        took["phases"] = _clocked(lambda: _profile(place, scenario, plan.profile_days, seed))
    for name, part in parts.items():
        if not (place / name).exists():
            took[name.partition(".")[0]] = _clocked(lambda name=name, part=part: _write(place / name, part()))
    write_json(place / DONE, {"plan": asdict(plan), "seconds": took})


def _profile(place: Path, scenario, days: int, seed: int) -> None:
    """Profile a training of each method; the timelines, then the phases, which mark this part as done."""
    profiles = {method: profile(scenario, make_config(method=method, days=days, seed=seed)) for method in METHODS}
    timelines = [found.timeline.assign(method=method) for method, found in profiles.items()]
    write_frame(place / "timeline.parquet", pd.concat(timelines, ignore_index=True))
    phases = [
        found.phases.assign(method=method, train_s=found.train_s, cpu_s=found.cpu_s, steps=sum(found.steps.values()))
        for method, found in profiles.items()
    ]
    write_frame(place / "phases.parquet", pd.concat(phases, ignore_index=True))


def _write(path: Path, record: pd.DataFrame | dict) -> None:
    (write_json if path.suffix == ".json" else write_frame)(path, record)


def _clocked(part: Callable[[], None]) -> float:
    start = time.perf_counter()
    part()
    return time.perf_counter() - start
