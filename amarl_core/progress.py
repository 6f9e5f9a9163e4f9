"""What training reports while it runs: a row per agent and update, log lines, and seconds by phase."""

import logging
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core.actors import Cast
from amarl_core.arena import Agent
from amarl_core.boards import Boards
from amarl_core.runs import write_frame

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
"""Seconds between log lines, and between writings of progress.parquet."""

RECENT = 0.9
"""Weight of the past in the running GoS."""


COLUMNS = [
    "agent", "update", "wall_s", "sim_t_s", "steps", "requests", "accepted", "gos", "gos_recent", "reward", "entropy",
    "kl", "value_loss", "policy_loss", "conflicts", "staleness", "wait_s", "idle_s", "update_s", "rollout_s",
]  # fmt: skip
COUNTS = {"update", "steps", "requests", "accepted", "conflicts"}


class Progress:
    """Collects what agents note from their threads; `tick`, on the caller's thread, logs and writes it.

    Args:
        cast: the agents and their actors; a row sums over the actors of an agent.
        n_requests: requests of the whole run.
        folder: where progress.parquet goes; None for nowhere.
        on_progress: called with the table at each heartbeat.
    """

    def __init__(
        self,
        cast: Cast,
        n_requests: int,
        folder: Path | None,
        on_progress: Callable[[pd.DataFrame], None] | None,
    ):
        self.cast, self.n_requests, self.folder, self.on_progress = cast, n_requests, folder, on_progress
        self.agents = cast.agents
        self._rows: list[dict] = []
        self._lock = threading.Lock()  # guards _rows and _last
        self._last = [
            dict(
                update=0,
                requests=0,
                accepted=0,
                conflicts=0,
                commits=0,
                stale=0,
                reward=0.0,
                steps=0,
                gos_recent=np.nan,
                rollout_s=0.0,
                update_s=0.0,
                wait_s=0.0,
                idle_s=0.0,
                clock=0.0,
            )
            for _ in cast.names
        ]
        self._began = self._logged = time.perf_counter()
        self.boards: Boards | None = None
        self._n_told = 0  # rows that the boards know

    def note(self, a: int, agent: Agent, stats, n: int, rollout_s: float, update_s: float) -> None:
        """Note one rollout of actor a, with its update's statistics if there was one."""
        stream = agent.stream[0]
        with self._lock:
            last = self._last[a]
            last["rollout_s"] += rollout_s
            last["update_s"] += update_s
            if stats is None:
                return
            wait_s = stream["wait_ns"] / 1e9
            now = {
                name: stream[name].item()
                for name in ("accepted", "conflicts", "commits", "stale", "reward", "steps", "clock")
            } | {"requests": int(stream["cursor"])}
            past = {name: now[name] - last[name] for name in now}
            gos = past["accepted"] / max(past["requests"], 1)
            recent = gos if np.isnan(last["gos_recent"]) else RECENT * last["gos_recent"] + (1 - RECENT) * gos
            last |= now | {"update": last["update"] + 1, "wait_s": wait_s}
            agent_number = self.cast.agent_of_actor[a]
            for b in self.cast.actors_of(agent_number):
                self._last[b]["gos_recent"] = recent
            total = self._total(agent_number)
            self._rows.append(
                {
                    "agent": self.agents[agent_number],
                    "update": total["update"],
                    "wall_s": time.perf_counter() - self._began,
                    "sim_t_s": max(self._last[b]["clock"] for b in self.cast.actors_of(agent_number)),
                    "steps": total["steps"],
                    "requests": total["requests"],
                    "accepted": total["accepted"],
                    "gos": gos,
                    "gos_recent": recent,
                    "reward": past["reward"] / max(past["requests"], 1),
                    "entropy": stats.entropy,
                    "kl": stats.kl,
                    "value_loss": stats.value_loss,
                    "policy_loss": stats.policy_loss,
                    "conflicts": total["conflicts"],
                    "staleness": past["stale"] / max(past["commits"], 1),
                    "wait_s": total["wait_s"],
                    "idle_s": total["idle_s"],
                    "update_s": total["update_s"],
                    "rollout_s": total["rollout_s"] - total["wait_s"],
                }
            )

    def _total(self, agent: int) -> dict:
        """Return an agent's totals over its actors; the caller holds the lock."""
        entries = [self._last[b] for b in self.cast.actors_of(agent)]
        return {name: sum(entry[name] for entry in entries) for name in entries[0]}

    def note_idle(self, a: int, seconds: float) -> None:
        """Note how long actor a waited for the others at an update."""
        with self._lock:
            self._last[a]["idle_s"] += seconds

    def tick(self) -> None:
        """Tell the boards, and every HEARTBEAT_S log a line per agent and write progress.parquet."""
        self.tell_boards()
        now = time.perf_counter()
        if now - self._logged < HEARTBEAT_S:
            return
        self._logged = now
        with self._lock:
            last = [dict(entry) for entry in self._last]
        requests = sum(entry["requests"] for entry in last)
        share = requests / max(self.n_requests, 1)
        left = (now - self._began) * (1 / share - 1) if share > 0 else float("nan")
        steps = sum(entry["steps"] for entry in last)
        log.info(
            "%3.0f %%  %6.0f s  %.0f s left  %.0fk steps/s  GoS %s",
            100 * share,
            now - self._began,
            left,
            steps / (now - self._began) / 1000,
            "  ".join(
                f"{agent} {100 * last[b]['gos_recent']:.1f} %"
                for agent, b in zip(self.agents, self.cast.first, strict=True)
            ),
        )
        frame = self.frame()
        if self.folder is not None:
            write_frame(self.folder / "progress.parquet", frame)
        if self.on_progress is not None:
            self.on_progress(frame)

    def tell_boards(self) -> None:
        """Hand rows that are new to the TensorBoard logs, if there are any."""
        if self.boards is not None:
            for row in self.rows_after(self._n_told):
                self.boards.write(row)
                self._n_told += 1

    def frame(self) -> pd.DataFrame:
        """Return the table so far, one row per agent and update."""
        with self._lock:
            rows = list(self._rows)
        return pd.DataFrame(rows, columns=COLUMNS)

    def rows_after(self, n: int) -> list[dict]:
        """Return the rows of the table after the first n."""
        with self._lock:
            return self._rows[n:]

    def updates(self) -> list[int]:
        """Return how many updates each agent has done."""
        with self._lock:
            return [self._total(a)["update"] for a in range(len(self.agents))]

    @property
    def wall_s(self) -> float:
        """Seconds since training began, without those between its parts."""
        return time.perf_counter() - self._began

    def state(self) -> dict[str, np.ndarray]:
        """Return what `restore` takes: the table, a column an array, and the totals of each agent."""
        with self._lock:
            rows, last = list(self._rows), [dict(entry) for entry in self._last]
        arrays = {name: np.array([row[name] for row in rows], np.int64 if name in COUNTS else float)
                  for name in COLUMNS[1:]}  # fmt: skip
        arrays["agent"] = np.array([self.agents.index(row["agent"]) for row in rows], np.int64)
        return arrays | {f"last/{name}": np.array([entry[name] for entry in last]) for name in last[0]}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on with a table that `state` returned."""
        table = {name: arrays[name].tolist() for name in COLUMNS[1:]}
        table["agent"] = [self.agents[a] for a in arrays["agent"].tolist()]
        rows = [{name: table[name][i] for name in COLUMNS} for i in range(len(table["agent"]))]
        with self._lock:
            self._rows, self._n_told = rows, len(rows)
            for a, entry in enumerate(self._last):
                entry |= {name: arrays[f"last/{name}"][a].item() for name in entry}

    def go_on_from(self, wall_s: float) -> None:
        """Count seconds from now on, so many having passed already."""
        self._logged = time.perf_counter()
        self._began = self._logged - wall_s

    def timing(self, agents: Sequence[Agent], spent, compile_s: float) -> dict:
        """Return seconds by phase and agent, counts and peak memory.

        Args:
            agents: the actors' memory; requests and steps are counted up to now, also after the last update.
            spent: `agents.Spent`, over all parts of the training; `train_s` counts waits and checkpoints too.
            compile_s: seconds of getting ready.
        """
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        by_agent = {}
        for a, name in enumerate(self.agents):
            with self._lock:
                entry = self._total(a)
            actors = [agents[b].stream[0] for b in self.cast.actors_of(a)]
            by_agent[name] = {
                "rollout_s": entry["rollout_s"] - entry["wait_s"],
                "update_s": entry["update_s"],
                "wait_s": entry["wait_s"],
                "idle_s": entry["idle_s"],
                "steps": sum(int(actor["steps"]) for actor in actors),
                "requests": sum(int(actor["cursor"]) for actor in actors),
                "updates": entry["update"],
                "actors": len(actors),
            }
        steps = sum(entry["steps"] for entry in by_agent.values())
        return {
            "train_s": spent.wall_s,
            "cpu_s": spent.cpu_s,
            "checkpoint_s": spent.checkpoint_s,
            "checkpoints": spent.n_checkpoints,
            "resumed": spent.n_resumed,
            "compile_s": compile_s,
            "env_steps": steps,
            "requests": sum(entry["requests"] for entry in by_agent.values()),
            "updates": sum(entry["update"] for entry in self._last),
            "steps_per_s": steps / max(spent.wall_s, 1e-9),
            "peak_rss_mb": peak / (1024 if sys.platform != "darwin" else 1024**2),
            "by_agent": by_agent,
        }
