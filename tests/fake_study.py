"""An invented study folder in the format of a real one, to test reports without training."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from dataclasses import asdict
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_disruptions import write_disruptions
from fake_performance import write_performance

from amarl_core import batch
from amarl_core.asynchrony import settings
from amarl_core.forms import FORMS
from amarl_core.routing import CAUSES as ALL_CAUSES

#            service: (share of requests, budget ms, hardness, mean kbps)
SERVICES = {
    "augmented_reality": (0.14, 10.0, 4.5, 250_000),
    "cloud_gaming": (0.05, 80.0, 1.0, 190_000),
    "industry_4_0": (0.05, 8.0, 1.5, 175_000),
    "massive_iot": (0.03, 5.0, 0.6, 320_000),
    "video_streaming": (0.42, 100.0, 0.8, 300_000),
    "voip": (0.31, 100.0, 0.15, 9_600),
}
CAUSES = (
    "dead_end_compute",
    "dead_end_bandwidth",
    "dead_end_latency",
    "dead_end_loop",
    "hop_limit",
    "conflict_link",
    "conflict_node",
)
DAYS = ("test-weekday", "test-weekday-2", "test-weekend")
RULES = {
    "fixed_shortest": 9.0,
    "shortest_feasible": 2.1,
    "priced": 1.06,
    "reservation": 1.02,
    "priced_reservation": 1.0,
}
VARIANTS = {"arrival3": "", "arrival1": "_attempts1", "free3": "_free"}
LINKS = ("AGG-PC>COR-SL", "AGG-VM>COR-VM", "AGG-LS>COR-VM", "AGG-ANJ>COR-VM", "COR-VM>DC-VM")
POOLS = ("CU-VM", "CU-LS", "CU-ANJ", "DC-VM")


def fake_decisions(rng: np.random.Generator, agent: str, hardness: float, conflicts: float, n: int) -> pd.DataFrame:
    """Invent the decisions of one day, with a busy afternoon and a service that is hard to place."""
    hours = np.arange(24)
    load = 0.4 + 1.2 * np.exp(-(((hours - 16.5) / 4.5) ** 2))
    hour = np.sort(rng.choice(24, n, p=load / load.sum()))
    names = np.array(list(SERVICES))
    service = rng.choice(len(names), n, p=[SERVICES[s][0] for s in names])
    budget = np.array([SERVICES[s][1] for s in names])[service]
    hard = np.array([SERVICES[s][2] for s in names])[service]
    refused = rng.random(n) < 0.012 * hardness * hard * load[hour] ** 2
    weights = np.array([0.62, 0.2, 0.12, 0.03, 0.02, 0.01 + 40 * conflicts, 0.01 + 20 * conflicts])
    cause = np.where(refused, rng.choice(CAUSES, n, p=weights / weights.sum()), "accepted")
    latency = budget * np.clip(rng.normal(0.6, 0.12, n), 0.1, 0.99)
    latency = np.where(refused & ~np.char.startswith(cause.astype(str), "conflict"), np.nan, latency)
    who = names[service] if agent == "amarl" else np.full(n, agent)
    frame = pd.DataFrame(
        {
            "request_id": np.arange(n, dtype=np.int64),
            "t_s": np.sort(hour * 3600 + rng.random(n) * 3600),
            "hold_s": rng.exponential(600, n),
            "service": pd.Categorical(names[service]),
            "agent": who,
            "source": rng.choice(["DU-01", "DU-02", "DU-18"], n),
            "destination": rng.choice(["COR-VM", "COR-SL", "CU-VM"], n),
            "demand_kbps": (np.array([SERVICES[s][3] for s in names])[service] * rng.uniform(0.5, 1.5, n)).astype(
                np.int64
            ),
            "accepted": ~refused,
            "cause": pd.Categorical(cause),
            "latency_ms": latency,
            "budget_ms": budget,
            "hops": rng.integers(2, 7, n).astype(np.int16),
            "links": [[LINKS[i], LINKS[j]] for i, j in rng.integers(0, len(LINKS), (n, 2))],
            "hosts": [[POOLS[i]] * 3 for i in rng.integers(0, len(POOLS), n)],
            "attempts": rng.choice([1, 1, 1, 2], n).astype(np.int8),
            "snapshot_version": np.arange(n, dtype=np.int64),
            "commit_version": np.where(refused, -1, np.arange(n) + 1),
        }
    )
    return frame


def fake_ledger(rng: np.random.Generator, decisions: pd.DataFrame, conflicts: float) -> pd.DataFrame:
    """Invent the ledger that goes with some decisions: a commit each, and aborts at a few resources."""
    n = len(decisions)
    aborted = rng.random(n) < conflicts
    kind = np.where(aborted, "abort", "commit")
    resource = np.where(
        aborted, rng.choice(LINKS + POOLS, n, p=[0.3, 0.25, 0.1, 0.05, 0.02, 0.15, 0.07, 0.05, 0.01]), ""
    )
    return pd.DataFrame(
        {
            "seq": np.arange(n, dtype=np.int64),
            "kind": kind,
            "request_id": decisions["request_id"],
            "agent": decisions["agent"].astype(str),
            "t_s": decisions["t_s"],
            "snapshot_version": np.maximum(0, np.arange(n) - rng.integers(0, 3, n)),
            "store_version": np.cumsum(~aborted),
            "resource": resource,
        }
    )


def write_decisions(frame: pd.DataFrame, path: Path) -> None:
    """Write decisions with links and hosts as lists of dictionary-encoded strings."""
    lists = pa.list_(pa.dictionary(pa.int32(), pa.string()))
    table = pa.Table.from_pandas(frame.drop(columns=["links", "hosts"]), preserve_index=False)
    for name in ("links", "hosts"):
        table = table.append_column(name, pa.array(frame[name].tolist(), type=pa.list_(pa.string())).cast(lists))
    pq.write_table(table, path)


def fake_progress(rng: np.random.Generator, method: str, train_s: float) -> pd.DataFrame:
    """Invent a learning curve for each agent."""
    rows = []
    for agent in ["sarl"] if method == "sarl" else list(SERVICES):
        share = 1.0 if agent == "sarl" else SERVICES[agent][0]
        updates = max(6, int(40 * share**0.5))
        wall = np.linspace(train_s / updates, train_s * rng.uniform(0.9, 1), updates)
        gos = 0.98 - 0.07 * np.exp(-np.arange(updates) / updates * 4) + rng.normal(0, 0.002, updates)
        requests = (np.arange(1, updates + 1) * 80_000 * share / 4).astype(np.int64)
        busy = wall * rng.uniform(0.7, 0.95)
        rows.append(
            pd.DataFrame(
                {
                    "agent": agent,
                    "update": np.arange(1, updates + 1),
                    "wall_s": wall,
                    "sim_t_s": wall / train_s * 3 * 86_400,
                    "steps": requests * 5,
                    "requests": requests,
                    "accepted": np.cumsum(np.diff(requests, prepend=0) * gos).astype(np.int64),
                    "gos": gos,
                    "gos_recent": pd.Series(gos).rolling(5, min_periods=1).mean(),
                    "reward": 2 * gos - 1.2,
                    "entropy": 0.9 * np.exp(-np.arange(updates) / updates) + rng.normal(0, 0.01, updates),
                    "kl": np.abs(rng.normal(0.01, 0.003, updates)),
                    "value_loss": 0.1,
                    "policy_loss": -0.01,
                    "conflicts": 0 if method == "sarl" else np.cumsum(rng.poisson(20, updates)),
                    "staleness": 0.0 if method == "sarl" else rng.uniform(1, 30, updates),
                    "rollout_s": busy * 0.6,
                    "update_s": busy * 0.4,
                    "wait_s": wall - busy,
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def write_run(folder: Path, method: str, seed: int, n: int) -> None:
    """Write one finished run with its training records and all its test days."""
    rng = np.random.default_rng([seed, len(method)])
    (folder / "model").mkdir(parents=True)
    train_s = (60.0 if method == "sarl" else 38.0) * rng.uniform(0.95, 1.05)
    write_json(
        folder / "config.json",
        {
            "method": method,
            "seed": seed,
            "days": 12,
            "mask": "reachable",
            "ppo": {"learning_rate": 0.0003, "batch_size": 2048},
        },
    )
    write_json(
        folder / "provenance.json",
        {
            "cores": 2,
            "threads": {"torch": 1, "numba": 1},
            "git_commit": "0123456789abcdef",
            "python": "3.11.7",
            "versions": {"numpy": "2.4.1", "torch": "2.13.0"},
            "scenario_digest": "ab" * 32,
            "trace_sha256": "cd" * 32,
        },
    )
    write_json(folder / "status.json", {"status": "finished", "error": None})
    progress = fake_progress(rng, method, train_s)
    agents = {
        name: {
            "rollout_s": float(g["rollout_s"].max()),
            "update_s": float(g["update_s"].max()),
            "wait_s": float(g["wait_s"].max()),
            "steps": int(g["steps"].max()),
        }
        for name, g in progress.groupby("agent")
    }
    steps = sum(a["steps"] for a in agents.values())
    write_json(
        folder / "timing.json",
        {
            "train_s": train_s,
            "cpu_s": train_s * 1.7,
            "compile_s": 4.0,
            "env_steps": steps,
            "requests": steps // 5,
            "updates": len(progress),
            "steps_per_s": steps / train_s,
            "peak_rss_mb": 700.0,
            "by_agent": agents,
        },
    )
    progress.to_parquet(folder / "progress.parquet")
    conflicts = {"arrival3": 0.0, "arrival1": 0.0, "free3": 0.0}
    if method == "amarl":
        conflicts = {"arrival3": 0.004, "arrival1": 0.02, "free3": 0.01}
    for day in (*DAYS, "train"):
        for variant, suffix in VARIANTS.items() if day != "train" else (("arrival3", ""),):
            hardness = (1.1 if method == "sarl" else 1.0) * (0.8 if "weekend" in day else 1) + 6 * conflicts[variant]
            decisions = fake_decisions(rng, method, hardness, conflicts[variant], n)
            write_decisions(decisions, folder / f"decisions_{day}{suffix}.parquet")
            fake_ledger(rng, decisions, conflicts[variant]).to_parquet(folder / f"ledger_{day}{suffix}.parquet")


def fake_verdicts(rng: np.random.Generator, seeds: tuple[int, ...]) -> pd.DataFrame:
    """Invent tallies of verdicts."""
    methods = [("sarl", seed) for seed in seeds] + [("amarl", seed) for seed in seeds] + [(rule, 0) for rule in RULES]
    kinds = (("unroutable", "compute"), ("unroutable", "bandwidth"), ("missed", ""), ("lost_race", ""))
    return pd.DataFrame(
        {"method": method, "seed": seed, "day": day, "variant": variant, "service": service, "verdict": verdict,
         "binding": binding, "requests": int(rng.integers(1, 40))}
        for method, seed in methods
        for day in DAYS
        for variant in (VARIANTS if method in ("sarl", "amarl") else ("arrival3",))
        for service in SERVICES
        for verdict, binding in kinds
    )  # fmt: skip


def fake_sweep(rng: np.random.Generator, seeds: tuple[int, ...]) -> pd.DataFrame:
    """Invent a sweep over commit orders, bounds and attempts, GoS falling with the age of snapshots."""
    rows = []
    for seed in seeds:
        for setting in settings():
            age = min(setting.window if setting.order != "free" else setting.lag_s / 60, 12)
            loss = 0.3 * age if setting.attempts == 1 else 0.02 * age
            rows.append(
                dict(method="amarl", seed=seed, day=DAYS[0], **asdict(setting), gos=97.9 - loss + rng.normal(0, 0.02),
                     conflict_rate=0.004 * age, replans=0.005 * age, stale_events=1.5 * age, stale_s=0.4 + age,
                     overbooked=3.0 * age if setting.order == "free" else 0.0, peak=1.0, lock_wait_s=0.02, wall_s=0.5,
                     violations=0)
            )  # fmt: skip
    return pd.DataFrame(rows)


def fake_forms(rng: np.random.Generator, seeds: tuple[int, ...]) -> pd.DataFrame:
    """Invent the forms between SARL and AMARL."""
    return pd.DataFrame(
        {"form": form, "seed": seed, "day": day, "gos": 97.8 + rng.normal(0, 0.1), "train_s": 20.0 + rng.uniform(0, 5),
         "cpu_s": 30.0, "env_steps": 100_000, "updates": 60, "wait_s": 3.0, "idle_s": 9.0 if "sync" in form else 0.0,
         "parameters": 34_000, "violations": 0, "overbooked": 4.0, "peak": 1.3}
        for form in FORMS
        for seed in seeds
        for day in DAYS
    )  # fmt: skip


def fake_actors(n: int = 5) -> pd.DataFrame:
    """Invent trainings on a skewed mix: AMARL trains in 0.8 of SARL's time, and in 0.55 with two actors."""
    about = {"sarl": (10.0, 1, 100.0), "one": (8.0, 1, 78.0), "by_load": (5.5, 2, 78.0)}
    rows = [
        dict(repeat=i, seed=i, form=form, days=3, cores=2, actors=count, share=share, train_s=seconds * (1 + 0.1 * i),
             cpu_s=11.0, wait_s=1.0, updates=100, env_steps=10**6, conflicts=0.4, gos=98.0 + 0.1 * i, violations=0)
        for i in range(n) for form, (seconds, count, share) in about.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def fake_masks(rng: np.random.Generator, seeds: tuple[int, ...]) -> pd.DataFrame:
    """Invent an ablation of action masks: the further a mask looks, the fewer dead ends."""
    rows = []
    for mask, lost in (("immediate", 0.03), ("delay", 0.025), ("reachable", 0.02)):
        for method, seed, day, attempts in product(("sarl", "amarl"), seeds, (1, 3), (3, 1)):
            conflicts = 0.002 if attempts == 1 and method == "amarl" else 0.0
            shares = {f"share_{cause}": 0.0 for cause in ALL_CAUSES[1:]}
            shares |= {"share_dead_end_compute": lost, "share_conflict_node": conflicts}
            rows.append(
                {"mask": mask, "method": method, "seed": seed, "day": day, "attempts": attempts,
                 "gos": 1 - lost - conflicts, "decisions_per_request": 3.0, "us_per_decision": rng.uniform(1, 2),
                 "us_per_request": rng.uniform(3, 6), "untrained_gos": 0.8, "train_gos_1": 0.9 - lost,
                 "train_gos_2": 0.98 - lost} | shares
            )  # fmt: skip
    return pd.DataFrame(rows)


def fake_robustness(
    rng: np.random.Generator, seeds: tuple[int, ...]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Invent what every method accepts under a few shifts, by request size, and over the bound after admission."""
    days, rules = (DAYS[0], DAYS[-1]), ("priced_admission", "priced_reservation", "shortest_feasible")
    who = [(method, seed, day) for method in ("sarl", "amarl") for seed in seeds for day in days]
    who += [(rule, 0, day) for rule in rules for day in days]
    shifts, sizes, drift = [], [], []
    for overlay, family, service, factor, lost in (
        ("ordinary", "ordinary", "", 1.0, 0.0), ("load-050", "load", "", 0.5, -1.5),
        ("load-200", "load", "", 2.0, 30.0), ("iot-300", "service mix", "massive_iot", 3.0, 4.0),
        ("video-300", "service mix", "video_streaming", 3.0, 35.0),
        ("grand-prix", "hot spot", "", 1.0, 0.6), ("sibling-1", "unseen network", "", 1.0, 1.5),
    ):  # fmt: skip
        for method, seed, day in who:
            gos = 98.4 - lost * (1.02 if method == "sarl" else 1.0) - 2.0 * (method == rules[2])
            gos, n = gos + rng.normal(0, 0.05), int(1000 * factor)
            counts = {f"offered_{s}": int(n * about[0]) for s, about in SERVICES.items()}
            counts |= {f"accepted_{s}": int(counts[f"offered_{s}"] * (1 - 0.02 * about[2]))
                       for s, about in SERVICES.items()}  # fmt: skip
            counts |= {f"aborted_{s}": int(rng.integers(0, 3)) * (method == "amarl") for s in SERVICES}
            shifts.append(dict(overlay=overlay, family=family, title=overlay.title(), digest="ab", service=service,
                               factor=factor, method=method, seed=seed, day=day, requests=n,
                               accepted=int(n * gos / 100), gos=gos, traffic_gos=gos - 1, conflicts=3, replanned=3,
                               violations=0.0 if seed == 0 else np.nan) | counts)  # fmt: skip
    for method, seed, day in who:
        sizes += [dict(method=method, seed=seed, day=day, service=s, size=size, least_kbps=10_000 * size + 1,
                       most_kbps=10_000 * (size + 1), requests=100, accepted=int(rng.integers(90, 100)))
                  for s in SERVICES for size in range(10)]  # fmt: skip
        drift += [dict(method=method, seed=seed, day=day, service=s, hour=hour, flow_s=60_000.0,
                       over_s=60.0 * int(rng.integers(0, 30)) * (s == "augmented_reality"), excess_ms=0.1)
                  for s in SERVICES for hour in range(24)]  # fmt: skip
    return pd.DataFrame(shifts), pd.DataFrame(sizes), pd.DataFrame(drift)


def fake_bounds(day: str) -> pd.DataFrame:
    """Invent the bounds of a day."""
    return pd.DataFrame(
        {"day": day, "weight": weight, "upper": 0.996, "primal": 0.995, "gap": 0.001, "n_requests": 3000,
         "covered": 1.0, "block_s": 120.0, "window_s": 7200.0, "seconds": 12.0, "n_windows": 8}
        for weight in ("requests", "traffic")
    )  # fmt: skip


def write_study(reports: Path, name: str = "fake", seeds: tuple[int, ...] = (0, 1), n: int = 3_000) -> Path:
    """Write a finished study below `reports` and return its folder, `reports/runs/<name>`."""
    folder = reports / "runs" / name
    rng = np.random.default_rng(7)
    duel, audits = [], []
    for method in ("sarl", "amarl"):
        for seed in seeds:
            write_run(folder / method / f"seed={seed}", method, seed, n)
            for order in ("arrival", "free"):
                base = 10.0 if method == "sarl" else (7.8 if order == "arrival" else 6.1)
                duel += [
                    {
                        "repeat": r,
                        "method": method,
                        "seed": seed,
                        "order": order,
                        "test_s": base * rng.uniform(0.97, 1.03),
                        "cpu_s": base * 1.3,
                    }
                    for r in range(7)
                ]
            audits.append(
                {
                    "method": method,
                    "seed": seed,
                    "day": "train",
                    "variant": "train",
                    "requests": n,
                    "admissions": n - 50,
                    "violations": 0,
                    "overbooked": 40 if method == "amarl" else 0,
                    "peak": 1.08,
                    "seconds": 1.0,
                }
            )
            audits += [
                {
                    "method": method,
                    "seed": seed,
                    "day": day,
                    "variant": variant,
                    "requests": n,
                    "admissions": n - 50,
                    "violations": 0,
                    "overbooked": 31 if variant == "free3" and method == "amarl" else 0,
                    "peak": 1.09 if variant == "free3" and method == "amarl" else 1.0,
                    "seconds": 0.4,
                }
                for day in DAYS
                for variant in VARIANTS
            ]
    for rule, hardness in RULES.items():
        (folder / "baselines" / rule).mkdir(parents=True)
        for day in DAYS:
            decisions = fake_decisions(np.random.default_rng([len(rule), DAYS.index(day)]), rule, hardness, 0.0, n)
            write_decisions(decisions, folder / "baselines" / rule / f"decisions_{day}.parquet")
    fake_verdicts(rng, seeds).to_parquet(folder / "verdicts.parquet")
    fake_sweep(rng, seeds).to_parquet(folder / "asynchrony.parquet")
    fake_forms(rng, seeds).to_parquet(folder / "forms.parquet")
    fake_masks(rng, seeds).to_parquet(folder / "masks.parquet")
    for part, frame in zip(("", "_sizes", "_drift"), fake_robustness(rng, seeds), strict=True):
        frame.to_parquet(folder / f"robustness{part}.parquet")
    fake_actors().to_parquet(folder / "actors.parquet")
    (folder / "bounds").mkdir()
    for day in (DAYS[0], DAYS[-1]):
        fake_bounds(day).to_parquet(folder / "bounds" / f"{day}.parquet")
    write_disruptions(folder, seeds)
    pd.DataFrame(duel).to_parquet(folder / "duel.parquet")
    pd.DataFrame(audits).to_parquet(folder / "audits.parquet")
    write_performance(folder, list(SERVICES))
    write_json(folder / "stock.json", {"env_steps": 20_480, "seconds": 27.3, "steps_per_s": 750.2})
    write_json(
        folder / "study.json",
        {
            "profile": "smoke",
            "study": name,
            "seeds": list(seeds),
            "test_days": list(DAYS),
            "scenario": "montreal",
            "started": "2026-02-03T10:00:00",
            "seconds": 312.5,
            "seconds_to_paper": 150.0,
            "command": "make reproduce PROFILE=smoke",
        },
    )
    return folder


def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="amarl-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def shared_study() -> Path:
    """A study folder for the whole test session, to be read only."""
    return write_study(_temporary_folder())


@cache
def shared_pages() -> Path:
    """Pages of the shared study, made by the command `reproduce` with everything real but the study itself.

    The notebooks run with smoke=True: 20_train trains on the toy scenario, the others read one seed and day.
    """
    reports = _temporary_folder()
    study = write_study(reports)

    def smoke_jobs(*arguments: object) -> list[batch.Job]:
        jobs = _study_jobs(*arguments)
        return [batch.Job(job.notebook, job.parameters | {"smoke": True}) for job in jobs]

    _study_jobs = batch.study_jobs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amarl_core.study.run_study", lambda profile, name, root, at_paper: study)
        patch.setattr(batch, "study_jobs", smoke_jobs)
        batch.reproduce("smoke", study.name, reports)
    return reports
