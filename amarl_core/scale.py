"""Scale: the same code on 218 nodes with every radio unit, and on a thousand nodes with a million requests a day.

    python -m amarl_core.scale radio --study full      # Montreal by radio units, and memory against requests
    python -m amarl_core.scale million --study full    # a generated region of 1,000 nodes; takes about half an hour

Each measurement is a process of its own, so that its time and its peak of memory are its own. Traces are served in
chunks (`long_runs`) and audited in chunks (`long_audit`), by trained agents and by the best rules alike.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from amarl_core.agents import train
from amarl_core.baselines import tuned
from amarl_core.config import METHODS
from amarl_core.errors import AmarlError, RunError
from amarl_core.evaluation import EVAL_ATTEMPTS, play_trace
from amarl_core.generate import generate
from amarl_core.long_audit import audit_records
from amarl_core.long_runs import peak_rss_mb, record_paths, serve_in_chunks
from amarl_core.runs import ROOT, read_json, write_frame, write_json
from amarl_core.scenario import load_scenario
from amarl_core.teams import load_run
from amarl_core.trace_chunks import CHUNK_REQUESTS, cut, file_chunks, training_chunks
from amarl_core.traces import Trace

log = logging.getLogger(__name__)

RECORDS = {"radio": "scale.parquet", "million": "scale_million.parquet"}
COMMANDS = {part: f"python -m amarl_core.scale {part}" for part in RECORDS}
RULES_COMPARED = ("shortest_feasible", "priced_reservation", "priced_admission")
PROJECT = Path(__file__).resolve().parent.parent

RADIO_UNITS = "montreal_ru"
NODES, REQUESTS = 1000, 1_000_000
TRAIN_FROM_S, TRAIN_REQUESTS = 16 * 3600.0, 150_000
"""What agents of the thousand nodes are trained on: so many requests of a training day from this time on, in s: the
afternoon and the evening, when room is scarce."""
TRAIN_ROLLOUTS = 400
"""Rollouts of each agent on them at the pace of an untrained one, which walks twenty hops among a thousand nodes before
it gives up. A trained one asks its policy three times a request, so that there are far fewer in the end."""
MEMORY_REQUESTS = (100_000, 300_000, 1_000_000)
MEMORY_WHOLE = (100_000, 300_000)


# ------------------------------------------------------------------------------------- one measurement, one process
def measure(task: dict) -> dict:
    """Do one measurement in this process; return its row.

    Args:
        task: `kind` train or serve; `scenario`, its name or folder; `method`, a method or a rule; `seed`; `run`, the
            folder of a trained run; `n_train`, `from_s` and `choices` of a training; `day` (a test day), `trace` (a
            file) or `n_requests` (of training days) to be served; `chunk` requests at a time, 0 for all in one piece;
            `records`, where they are kept; `is_audited`, which is so unless it says otherwise.
    """
    started = time.perf_counter()
    scenario = load_scenario(task["scenario"])
    row = {
        "scenario": scenario.name,
        "nodes": scenario.network.n_nodes,
        "links": scenario.network.n_links,
        "method": task["method"],
        "seed": task.get("seed", 0),
        "load_s": time.perf_counter() - started,
    }
    return row | (_train if task["kind"] == "train" else _serve)(task, scenario)


def _train(task: dict, scenario) -> dict:
    """Train, and say what it took."""
    trace = None
    if task.get("n_train"):
        day = scenario.training_trace(task["seed"], 1)
        trace = day[day.t_s >= task["from_s"]].head(task["n_train"])
    run = train(scenario, task["method"], task["seed"], folder=task["run"], trace=trace, **task.get("choices", {}))
    return {
        "train_requests": len(run.simulation.trace),
        "train_s": run.timing["train_s"],
        "train_steps_per_s": run.timing["steps_per_s"],
        "train_peak_rss_mb": peak_rss_mb(),
    }


def _requests(task: dict, scenario) -> Iterator[Trace]:
    """Yield what is to be served, in pieces."""
    chunk = task["chunk"] or 10**9
    if "trace" in task:
        return file_chunks(task["trace"], scenario, chunk)
    if "day" in task:
        return cut(scenario.test_trace(task["day"]), chunk)
    return _some_days(scenario, task["seed"], task["n_requests"], chunk)


def _some_days(scenario, seed: int, n: int, chunk: int) -> Iterator[Trace]:
    """Yield the first n requests of training days."""
    for piece in training_chunks(scenario, seed, 10_000, n=chunk):
        yield piece[:n]
        n -= len(piece)
        if n <= 0:
            return


def _serve(task: dict, scenario) -> dict:
    """Serve in chunks and audit in chunks; say what both took."""
    policy = load_run(task["run"], scenario) if task["method"] in METHODS else tuned(task["method"])
    play_trace(policy, scenario.training_trace(99).head(500), attempts=EVAL_ATTEMPTS, scenario=scenario)  # compiles
    base_mb = _rss_mb()
    folder = Path(task["records"])
    served = serve_in_chunks(policy, _requests(task, scenario), folder, "scale", scenario=scenario)
    serve_peak_mb = peak_rss_mb()
    row = {
        "requests": served.requests,
        "gos": served.gos,
        "steps": served.steps,
        "conflicts": served.conflicts,
        "ledger_rows": served.ledger_rows,
        "serve_s": served.clocked.wall_s,
        "serve_cpu_s": served.clocked.cpu_s,
        "chunk": task["chunk"],
        "base_rss_mb": base_mb,
        "peak_rss_mb": serve_peak_mb,
        "chunks": served.chunks,
    }
    if not task.get("is_audited", True):
        return row
    report = audit_records(scenario, *record_paths(folder, "scale"), _requests(task, scenario))
    found = {"audit_s": report.seconds, "audit_peak_rss_mb": peak_rss_mb(), "violations": report.n_violations}
    return row | found


def _rss_mb() -> float:
    """Return the memory this process has now, in MB; its peak where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    except OSError:
        return peak_rss_mb()
    return pages * resource.getpagesize() / 1e6


def in_process(task: dict, apart: bool = True) -> dict:
    """Do one measurement in a fresh process, or in this one, whose memory then says nothing.

    Raises:
        RunError: It failed; its message stands above.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "task.json"
        task = task | {"records": folder}
        if not apart:
            return measure(task)
        write_json(place, task)
        command = [sys.executable, "-m", "amarl_core.scale", "one", str(place)]
        if subprocess.run(command, cwd=PROJECT, check=False).returncode:
            raise RunError(f"measuring {task['method']} on {task['scenario']} failed; its message stands above")
        row = read_json(Path(folder) / "row.json")
    log.info("%s", {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()
                    if key != "chunks"})  # fmt: skip
    return row


# ------------------------------------------------------------------------------------------------ the two studies
def radio_units(
    folder: Path,
    days: int = 4,
    methods: tuple[str, ...] = (*METHODS, *RULES_COMPARED),
    n_memory: tuple[int, ...] = MEMORY_REQUESTS,
    scenario: str = RADIO_UNITS,
    apart: bool = True,
) -> pd.DataFrame:
    """Train and test on the radio-unit scenario, and serve ever more requests for the memory; write scale.parquet.

    Args:
        folder: of the study.
        days: training days.
        methods: what is trained and served, rules among them.
        n_memory: numbers of requests for the memory.
        scenario: another one, for tests.
        apart: each measurement in a process of its own.
    """
    day = load_scenario(scenario).test_days[0]
    work, rows = folder / "scale", []
    shutil.rmtree(work, ignore_errors=True)
    for method in methods:
        task = {"scenario": scenario, "method": method, "seed": 0, "run": str(work / method), "choices": {"days": days}}
        trained = in_process(task | {"kind": "train"}, apart) if method in METHODS else {}
        served = in_process(task | {"kind": "serve", "day": day, "chunk": CHUNK_REQUESTS}, apart)
        rows.append(trained | served | {"part": "day"})
    task = {"scenario": scenario, "method": "shortest_feasible", "seed": 7, "kind": "serve", "is_audited": False}
    for n in n_memory:
        rows.append(in_process(task | {"n_requests": n, "chunk": CHUNK_REQUESTS}, apart) | {"part": "memory"})
        if n in MEMORY_WHOLE or not apart:
            rows.append(in_process(task | {"n_requests": n, "chunk": 0}, apart) | {"part": "memory"})
    return _record(folder, "radio", rows)


def million(
    folder: Path,
    n_nodes: int = NODES,
    requests: int = REQUESTS,
    n_train: int = TRAIN_REQUESTS,
    seed: int = 0,
    apart: bool = True,
) -> pd.DataFrame:
    """Generate a region, train AMARL on part of a day and serve a whole day by it and by the best rules.

    Args:
        folder: of the study; the region and the day are kept below it.
        n_nodes: of the region.
        requests: a mean weekday.
        n_train: requests of the training.
        seed: of the region and of the training.
        apart: each measurement in a process of its own.
    """
    work = folder / "scale_million"
    shutil.rmtree(work, ignore_errors=True)
    region, day, rows = work / f"region{n_nodes}", work / "day.parquet", []
    scenario = generate(n_nodes, seed, region, requests_per_day=requests)
    scenario.test_trace(scenario.test_days[0]).write(day)
    del scenario  # its tables would stay in memory beside every measurement's
    for method in ("amarl", *RULES_COMPARED):
        task = {"scenario": str(region), "method": method, "seed": seed, "run": str(work / method)}
        learn = {"kind": "train", "n_train": n_train, "from_s": TRAIN_FROM_S}
        learn |= {"choices": {"days": 1, "rollouts_per_day": TRAIN_ROLLOUTS}}
        trained = in_process(task | learn, apart) if method in METHODS else {}
        rows.append(trained | in_process(task | {"kind": "serve", "trace": str(day), "chunk": CHUNK_REQUESTS}, apart))
        table = _record(folder, "million", [row | {"part": "million"} for row in rows])  # after each: it takes an hour
    return table


def _record(folder: Path, part: str, rows: list[dict]) -> pd.DataFrame:
    """Write a part's rows, and the rows of their chunks, into the study's folder."""
    chunks = [
        pd.DataFrame(row["chunks"]).assign(method=row["method"], nodes=row["nodes"], chunk=row["chunk"], run=i)
        for i, row in enumerate(rows)
    ]
    table = pd.DataFrame([{key: value for key, value in row.items() if key != "chunks"} for row in rows])
    write_frame(folder / RECORDS[part].replace(".parquet", "_chunks.parquet"), pd.concat(chunks, ignore_index=True))
    write_frame(folder / RECORDS[part], table)
    return table


def main(arguments: list[str] | None = None) -> int:
    """Run one part of the scale study, or one measurement of it."""
    parser = argparse.ArgumentParser(prog="python -m amarl_core.scale", description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=(*RECORDS, "one"))
    parser.add_argument("task", nargs="?", type=Path, help="of `one`: a JSON file; its row is written beside it")
    parser.add_argument("--study", default="full", help="a folder below reports/runs, or the path of one")
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("amarl_core.audit").setLevel(logging.WARNING)
    try:
        if given.part == "one":
            row = measure(json.loads(given.task.read_text(encoding="utf-8")))
            write_json(given.task.with_name("row.json"), row)
            return 0
        folder = Path(given.study) if "/" in given.study else PROJECT / ROOT / given.study
        table = radio_units(folder) if given.part == "radio" else million(folder, given.nodes, given.requests)
        log.info("\n%s", table.round(2).to_string(index=False))
    except AmarlError as reason:
        log.error("%s", reason)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
