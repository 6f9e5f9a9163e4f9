"""Crews: processes of this machine and a real Dask cluster, one of whose workers is killed on the way."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from amarl_core.crews import Cluster, Processes
from amarl_core.errors import AmarlError
from amarl_core.runs import usable_cores
from amarl_core.worklist import run
from tests.slow_trials import lines_of, make_study
from tests.test_worklist import found, wait_for

PROJECT = Path(__file__).resolve().parent.parent


def test_each_process_has_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr("amarl_core.crews.usable_cores", lambda: 8)
    with Processes(4) as crew:
        monkeypatch.setenv("AMARL_CORES", "1")  # of this process, not of theirs
        assert crew.submit(os.getenv, "AMARL_CORES").result() == "2"


def test_the_environment_limits_the_cores(monkeypatch):
    all_cores = usable_cores()
    monkeypatch.setenv("AMARL_CORES", "1")
    assert usable_cores() == 1
    monkeypatch.setenv("AMARL_CORES", "100000")
    assert usable_cores() == all_cores


def test_a_cluster_without_dask_or_address_or_scheduler_is_refused_with_the_remedy(monkeypatch):
    with pytest.raises(AmarlError, match="give its address"):
        Cluster(None)
    monkeypatch.setattr("amarl_core.crews.SECONDS_TO_CONNECT", 0.5)
    with pytest.raises(AmarlError, match="start `dask scheduler`"):
        Cluster("tcp://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(AmarlError, match="pip install distributed"):
        Cluster("tcp://127.0.0.1:8786")


@contextmanager
def dask_cluster(folder: Path, n_workers: int):
    """A scheduler and workers in processes of their own, on loopback; yields its address and the workers."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}
    address_file, processes = folder / "scheduler.json", []

    def start(*command):
        log = open(folder / f"{len(processes)}.log", "w")
        command = [sys.executable, "-m", "distributed.cli." + command[0], *command[1:]]
        processes.append(subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log))
        log.close()

    try:
        start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show",
              "--scheduler-file", str(address_file))  # fmt: skip
        wait_for(address_file.exists)
        for _ in range(n_workers):
            start("dask_worker", "--scheduler-file", str(address_file), "--no-nanny", "--no-dashboard", "--nthreads",
                  "1", "--local-directory", str(folder))  # fmt: skip
        yield address_file, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_on_a_dask_cluster_a_killed_worker_loses_nothing_and_nothing_is_done_twice(tmp_path):
    """The runner is a process of its own too: the study goes on while a worker is killed in the midst of a trial."""
    study, log = make_study(range(8), seconds=1.0), tmp_path / "squares" / "log.txt"
    with dask_cluster(tmp_path, 2) as (address_file, workers):
        address = json.loads(address_file.read_text())["address"]
        code = (
            "from amarl_core.worklist import run\n"
            "from tests.slow_trials import make_study\n"
            "study = make_study(range(8), seconds=1.0)\n"
            f"raise SystemExit(not run(study, {str(tmp_path)!r}, backend='dask', scheduler={address!r}).ok)"
        )
        runner = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stderr=subprocess.PIPE, text=True)
        pids = {worker.pid: worker for worker in workers}

        def works(pid):
            lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
            mine = Counter(word for word, _, number in lines if number == str(pid))
            return mine["start"] == mine["end"] + 1 and mine["end"] >= 1

        victims = []
        wait_for(lambda: victims.extend(pid for pid in pids if works(pid)) or victims)
        os.kill(victims[0], signal.SIGKILL)
        _, said = runner.communicate(timeout=300)
        assert runner.returncode == 0, said
    counts = Counter(lines_of(tmp_path / "squares"))
    assert all(counts[f"end {n}"] == 1 for n in range(8))
    assert sum(counts[f"start {n}"] for n in range(8)) == 9  # one was begun anew
    assert len({line.split()[2] for line in log.read_text().splitlines()}) == 2
    alone = tmp_path / "alone"
    assert run(study, alone, jobs=0).ok
    assert found(study, tmp_path) == found(study, alone)
