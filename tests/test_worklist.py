"""Doing a study: once, by several processes at once, after a kill, and in spite of trials that fail."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from amarl_core import worklist
from amarl_core.errors import AmarlError
from amarl_core.runs import ROOT, RunFolder
from amarl_core.studies import outcomes
from amarl_core.trials import Ended, Study
from amarl_core.worklist import Worklist, duration, run
from tests.slow_trials import SQUARE, lines_of, make_study, squares

TESTS = Path(__file__).resolve().parent


def found(study, root):
    frame = outcomes(study, "square", root)
    return dict(zip(frame["n"], frame["square"], strict=True))


def start_runner(root, numbers, seconds, jobs=2) -> subprocess.Popen:
    """Another process that does the study, as a user's second terminal would."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background shell ignores it
        "import logging; logging.basicConfig(level='INFO')\n"
        "from amarl_core.worklist import run\n"
        "from tests.slow_trials import make_study\n"
        f"if __name__ == '__main__': run(make_study(range({numbers}), seconds={seconds}), {str(root)!r}, jobs={jobs})"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=TESTS.parent, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def test_a_study_is_done_once(tmp_path):
    study = make_study()
    report = run(study, tmp_path, jobs=0)
    assert report.ok and "6 of 6 trials finished, 6 of them now" in report.summary()
    assert found(study, tmp_path) == {n: n**2 for n in range(6)}
    again = run(study, tmp_path, jobs=0)
    assert again.ok and "6 of 6 trials finished, 0 of them now" in again.summary()
    larger = make_study(range(8))
    assert run(larger, tmp_path, jobs=0).ok
    assert Counter(lines_of(tmp_path / "squares")) == {f"{w} {n}": 1 for w in ("start", "end") for n in range(8)}


def test_a_trial_that_fails_is_reported_and_does_not_stop_the_others(tmp_path):
    study = Study("squares", "", (*squares([0]), *squares([100], does="fail"), *squares([1, 2])))
    report = run(study, tmp_path, jobs=2)
    assert [ended.status for ended in report.ended] == ["finished", "failed", "finished", "finished"]
    assert "failed: square n=100" in report.summary() and "100 cannot be squared" in report.summary()
    assert found(study, tmp_path) == {0: 0, 1: 1, 2: 4}


def test_what_needs_a_failed_trial_fails_with_it_and_says_so(tmp_path, monkeypatch):
    study = Study("squares", "", (*squares([5], after=4), *squares([6])))
    real = SQUARE.measure

    def measure(trial, folder, place):
        if trial.values["n"] == 4:
            raise AmarlError("four is out of order")
        return real(trial, folder, place)

    monkeypatch.setattr(type(SQUARE), "measure", staticmethod(measure))
    report = run(study, tmp_path, jobs=0)
    assert [ended.status for ended in report.ended] == ["failed", "failed", "finished"]
    assert "four is out of order" in report.summary()
    assert "it needs square n=4, which failed" in report.summary()
    place = report.folder / report.failed[0].trial.place
    assert RunFolder(place).error == "AmarlError: four is out of order"
    assert "Traceback" in (place / "error.txt").read_text()
    monkeypatch.undo()
    assert run(study, tmp_path, jobs=0).ok  # the same call tries them again


def test_two_processes_that_start_the_same_study_share_the_work(tmp_path):
    runners = [start_runner(tmp_path, 12, 0.2) for _ in range(2)]
    for runner in runners:
        _, said = runner.communicate(timeout=300)
        assert runner.returncode == 0, said
    study = make_study(range(12), seconds=0.2)
    assert found(study, tmp_path) == {n: n**2 for n in range(12)}
    lines = lines_of(tmp_path / "squares")
    assert Counter(lines) == {f"{w} {n}": 1 for w in ("start", "end") for n in range(12)}


def test_a_study_whose_runner_is_killed_goes_on_where_it_was(tmp_path):
    log = tmp_path / "squares" / "log.txt"
    runner = start_runner(tmp_path, 6, 1.5)
    wait_for(lambda: log.exists() and log.read_text().count("end") >= 2 and log.read_text().count("start") >= 4)
    os.kill(runner.pid, signal.SIGKILL)
    runner.communicate(timeout=60)  # as long as a worker lives the pipe stays open
    study = make_study(range(6), seconds=1.5)
    report = run(study, tmp_path, jobs=2)
    assert report.ok and found(study, tmp_path) == {n: n**2 for n in range(6)}
    counts = Counter(lines_of(tmp_path / "squares"))
    assert all(counts[f"end {n}"] == 1 for n in range(6))  # workers end with their parent: nothing was done twice
    assert sum(counts[f"start {n}"] - 1 for n in range(6)) in (1, 2)  # what was being done then was begun anew


def test_ctrl_c_ends_runner_and_workers_and_leaves_nothing_half_done(tmp_path):
    log = tmp_path / "squares" / "log.txt"
    runner = start_runner(tmp_path, 4, 20.0)
    wait_for(lambda: log.exists() and log.read_text().count("start") == 2)
    os.kill(runner.pid, signal.SIGINT)
    _, said = runner.communicate(timeout=60)
    assert runner.returncode != 0 and "KeyboardInterrupt" in said
    study = make_study(range(4), seconds=20.0)
    statuses = [RunFolder(tmp_path / "squares" / trial.place).status for trial in study.trials]
    assert Counter(statuses) == {"stopped": 2, "new": 2}
    for line in log.read_text().splitlines():
        pid = int(line.split()[-1])
        wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text(), 30)


def test_a_trial_that_brings_its_process_down_fails_and_the_others_are_done(tmp_path):
    study = Study("squares", "", (*squares([50], does="die"), *squares([51], does="stumble"), *squares(range(3))))
    report = run(study, tmp_path, jobs=2)
    assert [ended.trial.values["n"] for ended in report.failed] == [50]
    assert "its process died" in report.failed[0].error
    assert found(study, tmp_path) == {n: n**2 for n in (0, 1, 2, 51)}


def test_a_trial_that_another_process_holds_is_looked_at_again_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(worklist, "LOOK_AGAIN_S", 0.01)
    study = make_study(range(3))
    holder = RunFolder(tmp_path / "squares" / study.trials[0].place).start({})
    waits = []

    def sleep(seconds):
        if seconds != 0.01:
            return
        waits.append(lines_of(tmp_path / "squares").count("end 2"))
        holder.save_json("outcome.json", {"square": -1})
        holder.finish()

    monkeypatch.setattr(worklist.time, "sleep", sleep)
    assert run(study, tmp_path, jobs=0).ok
    assert waits == [1]  # the others were done first
    assert found(study, tmp_path) == {0: -1, 1: 1, 2: 4}


def test_time_left_is_estimated_by_kind_and_shared_by_the_workers(tmp_path):
    listed = Worklist(squares(range(5)), tmp_path)
    listed.n_workers = 2
    first, second, third, *_ = listed.take_ready(5)
    assert listed.seconds_left() is None
    for trial, seconds in ((first, 500.0), (second, 3.0), (third, 5.0)):  # the first compiled
        listed.note(Ended(trial, "finished", seconds))
    assert listed.seconds_left() == pytest.approx(5.0 * 2 / 2)
    assert [duration(s) for s in (7.4, 200, 7300)] == ["7 s", "3 min 20 s", "2 h 1 min"]


@pytest.mark.parametrize(
    ("options", "message"), [({"backend": "slurm"}, "one of local, dask"), ({"jobs": -1}, "jobs is -1")]
)
def test_an_unknown_crew_is_refused(tmp_path, options, message):
    with pytest.raises(AmarlError, match=message):
        run(make_study(), tmp_path, **options)


def test_studies_are_recorded_below_the_reports():
    assert str(make_study().folder()).endswith(str(ROOT / "squares"))
