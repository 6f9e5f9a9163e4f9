"""Checkpoints: a resumed training is the uninterrupted one, and a damaged or foreign checkpoint is refused."""

import dataclasses
import errno
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_actors import AFTER_THE_LAST_UPDATE
from test_agents import WALL_CLOCK, same_weights
from test_rollout import stop_soon

import amarl_core.agents
from amarl_core import actors, checkpoint
from amarl_core.agents import train, training_trace
from amarl_core.audit import audit
from amarl_core.errors import AmarlError, RunError
from amarl_core.policy import model_state
from amarl_core.runs import RunFolder, read_json, write_json
from amarl_core.simulation import AgentError
from amarl_core.store import VERSION

DAYS = 3
HERE = Path(__file__).parent


def stop_after(n_events: int):
    """Return an `on_start` that stops a training as soon as its store has seen so many events more."""

    def watch(training) -> None:
        seen = int(training.simulation.arena.shared.control[VERSION])
        stop_soon(training.simulation, seen + n_events)

    return watch


def train_with_stops(toy, folder, draw: random.Random, most: int, **choices):
    """Stop a training at random events, and go on until it is finished."""
    for _ in range(50):
        run = train(toy, folder=folder, on_start=stop_after(draw.randrange(1, most)), **choices)
        if run.status == "finished":
            return run
    raise AssertionError("it never comes to an end")


def assert_the_same(run, other) -> None:
    """Hold decisions, ledger, weights, optimisers and progress of two runs together, to the bit."""
    assert run.simulation.decisions().equals(other.simulation.decisions())
    assert run.simulation.ledger().equals(other.simulation.ledger())
    for model, as_before in zip(run.models, other.models, strict=True):
        mine, yours = model_state(model), model_state(as_before)
        assert mine.keys() == yours.keys() and len(mine) == 4 * 12 + 1, "with Adam's averages and steps"
        assert all(np.array_equal(mine[name], yours[name]) for name in mine)
    pd.testing.assert_frame_equal(
        run.progress.drop(columns=WALL_CLOCK), other.progress.drop(columns=WALL_CLOCK), check_exact=True
    )


# ----------------------------------------------------------------------------------------- exact, to the bit
@pytest.mark.parametrize(("method", "seed"), [("amarl", 0), ("amarl", 5), ("sarl", 1), ("sarl-async", 2)])
def test_a_training_stopped_at_random_events_is_the_uninterrupted_one(toy, tmp_path, method, seed):
    choices = dict(method=method, seed=seed, days=DAYS, deterministic=True)
    whole = train(toy, **choices)
    events = len(whole.simulation.ledger())
    resumed = train_with_stops(toy, tmp_path, random.Random(seed), events // 2, **choices)
    assert resumed.timing["resumed"] >= 1
    assert_the_same(resumed, whole)


def test_several_actors_of_an_agent_go_on_exactly_where_they_were(toy, tmp_path):
    choices = dict(method="amarl", seed=6, days=DAYS, deterministic=True, actors={"video": 2, "ar": 3})
    whole = train(toy, **choices)
    resumed = train_with_stops(toy, tmp_path, random.Random(6), len(whole.simulation.ledger()) // 2, **choices)
    assert resumed.timing["resumed"] >= 1
    assert_the_same(resumed, whole)
    paused = train(toy, folder=tmp_path / "paused", checkpoint_s=0.03, **choices)
    assert paused.timing["checkpoints"] >= 2
    assert_the_same(paused, whole)


def test_a_training_goes_on_with_as_many_actors_as_it_began_with(toy, tmp_path, monkeypatch):
    """However many cores the machine has by then."""
    choices = dict(method="amarl", seed=0, days=4, actors="by_load")
    monkeypatch.setattr(actors, "usable_cores", lambda: 4)
    train(toy, folder=tmp_path, on_start=stop_after(2000), **choices)
    counts = read_json(tmp_path / "checkpoint" / "checkpoint.json")["actors"]
    monkeypatch.setattr(actors, "usable_cores", lambda: 1)
    run = train(toy, folder=tmp_path, **choices)
    assert run.timing["resumed"] == 1 and max(counts) > 1
    assert [entry["actors"] for entry in run.timing["by_agent"].values()] == counts
    assert run.timing["requests"] == len(training_trace(toy, run.config))


def test_a_turn_that_was_interrupted_is_finished_first(toy, tmp_path):
    """Where many events of different agents come at the same minute, whose turn it is does not follow from clocks."""
    trace = toy.training_trace(seed=0, days=2)
    trace = dataclasses.replace(trace, t_s=np.floor(trace.t_s / 600) * 600, hold_s=np.ceil(trace.hold_s / 600) * 600)
    choices = dict(method="amarl", seed=0, days=2, deterministic=True, trace=trace)
    resumed = train_with_stops(toy, tmp_path, random.Random(1), 600, **choices)
    assert resumed.timing["resumed"] >= 5
    assert_the_same(resumed, train(toy, **choices))


def test_pauses_for_checkpoints_change_nothing(toy, tmp_path):
    whole = train(toy, "amarl", 3, days=DAYS, deterministic=True)
    paused = train(toy, "amarl", 3, days=DAYS, deterministic=True, folder=tmp_path, checkpoint_s=0.03)
    assert paused.timing["checkpoints"] >= 2 and paused.timing["resumed"] == 0
    assert_the_same(paused, whole)


KILLED = """
import sys; sys.path[:0] = {path!r}
from amarl_core.agents import train
from amarl_core.scenario import load_scenario
train(load_scenario("toy"), "amarl", 7, days={days}, deterministic=True, folder={folder!r}, checkpoint_s=0.01)
"""


def kill_at_random(folder: Path, days: int) -> bool:
    """Train in another process and kill it some time after it has written a checkpoint; return whether it was alive."""
    code = KILLED.format(path=[str(HERE.parent)], days=days, folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", code])
    manifest = folder / "checkpoint" / "checkpoint.json"
    while process.poll() is None and not manifest.exists():
        time.sleep(0.002)
    time.sleep(random.random() * 0.5)
    was_alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return was_alive


def test_a_killed_training_goes_on_and_is_the_uninterrupted_one(toy, tmp_path):
    """SIGKILL at moments that nobody chose, some of them while a checkpoint is being written."""
    days = 12
    assert kill_at_random(tmp_path, days), "it was over before it could be killed"
    assert RunFolder(tmp_path).status == "running"
    resumed = train(toy, "amarl", 7, days=days, deterministic=True, folder=tmp_path)
    assert resumed.status == "finished" and resumed.timing["resumed"] == 1
    assert_the_same(resumed, train(toy, "amarl", 7, days=days, deterministic=True))


@pytest.mark.parametrize("breaks", ["savez", "write_json", "unlink"])
def test_a_write_that_is_cut_short_leaves_the_checkpoint_before_it(toy, tmp_path, monkeypatch, breaks):
    """An error stands in for the kill, at every file of every save but the first."""
    choices = dict(method="amarl", seed=1, days=DAYS, deterministic=True)
    place = {"savez": np, "write_json": checkpoint, "unlink": Path}[breaks]
    works, calls = getattr(place, breaks), []

    def cut(path, *arguments, **named):
        ours = checkpoint.FOLDER in str(path.name if breaks == "savez" else path)
        calls.append(ours)
        if sum(calls) > 2 and ours:
            if breaks == "savez":
                path.write(b"PK half a file")
            raise OSError(errno.ENOSPC, "no space left on device")
        return works(path, *arguments, **named)

    with monkeypatch.context() as broken:
        broken.setattr(place, breaks, cut)
        with pytest.raises((RunError, OSError), match="no space left"):
            train_with_stops(toy, tmp_path, random.Random(3), 600, **choices)
    assert RunFolder(tmp_path).status == "failed"
    assert_the_same(train(toy, folder=tmp_path, **choices), train(toy, **choices))


def test_a_failed_training_goes_on_from_its_last_checkpoint(toy, tmp_path, monkeypatch):
    choices = dict(method="amarl", seed=1, days=DAYS, deterministic=True)
    train(toy, folder=tmp_path, on_start=stop_after(400), **choices)
    with monkeypatch.context() as broken:
        broken.setattr(amarl_core.agents, "update", lambda *rest: 1 / 0)
        with pytest.raises(AgentError, match="ZeroDivisionError"):
            train(toy, folder=tmp_path, **choices)
    assert_the_same(train(toy, folder=tmp_path, **choices), train(toy, **choices))


# ------------------------------------------------------------------------------------------------ in threads
@pytest.mark.parametrize("actors", ["one", {"video": 3}], ids=["one actor", "three actors"])
@pytest.mark.parametrize("method", ["amarl", "sarl", "amarl-sync", "sarl-async"])
def test_agents_in_threads_lose_nothing_and_serve_nothing_twice(toy, tmp_path, method, actors):
    actors = {"sarl": 3} if method == "sarl" and actors != "one" else actors
    choices = dict(method=method, days=3, checkpoint_s=0.05, actors=actors)
    run = train_with_stops(toy, tmp_path, random.Random(4), 4000, **choices)
    assert run.timing["resumed"] >= 1 and run.timing["checkpoints"] >= 1
    trace = training_trace(toy, run.config)
    decisions = run.simulation.decisions()
    assert decisions["request_id"].tolist() == trace.request_id.tolist()
    report = audit(toy, decisions, run.simulation.ledger(), trace, "free")
    assert report.ok, report.summary()
    last = run.progress.groupby("agent")[["requests", "steps"]].max().sum()
    assert run.timing["requests"] == len(trace)
    assert sum({id(m): m.num_timesteps for m in run.models}.values()) == last["steps"]
    # a last rollout of one decision teaches nothing and leaves no row, and rollouts fall as the threads race
    assert 0 <= len(trace) - last["requests"] < AFTER_THE_LAST_UPDATE
    n_actors = sum(entry["actors"] for entry in run.timing["by_agent"].values())
    assert 0 <= run.timing["env_steps"] - last["steps"] <= n_actors


def test_what_the_parts_took_adds_up(toy, tmp_path):
    first = train(toy, "amarl", 0, days=8, folder=tmp_path, on_start=stop_after(2000))
    assert first.status == RunFolder(tmp_path).status == "stopped"
    assert (first.timing["checkpoints"], first.timing["resumed"]) == (1, 0)
    done = train(toy, "amarl", 0, days=8, folder=tmp_path)
    assert (done.timing["checkpoints"], done.timing["resumed"]) == (1, 1)
    assert done.timing["train_s"] > first.timing["train_s"] - first.timing["checkpoint_s"]
    wall = done.progress.groupby("agent", observed=True)["wall_s"]
    assert wall.apply(lambda s: s.is_monotonic_increasing).all() and wall.max().max() <= done.timing["train_s"]
    assert done.progress[: len(first.progress)].equals(first.progress)
    assert read_json(tmp_path / "timing.json")["resumed"] == 1
    assert not (tmp_path / "checkpoint").exists(), "a finished run needs none"


def test_a_run_shorter_than_the_interval_writes_no_checkpoint(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.Checkpoint, "save", lambda *rest: 1 / 0)
    assert train(toy, "amarl", 0, days=1, folder=tmp_path).timing["checkpoints"] == 0


# --------------------------------------------------------------------------------------- refused, or begun anew
@pytest.fixture
def stopped(toy, tmp_path):
    """The folder of a training that was stopped early on."""
    run = train(toy, "amarl", 0, days=DAYS, folder=tmp_path / "run", on_start=stop_after(500))
    assert run.status == "stopped"
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("change", "words"),
    [(dict(days=DAYS + 1), "days is 3; expected 4"), (dict(beta=0.01), "beta is 0.05"), (dict(seed=1), "seed is 0")],
)
def test_another_configuration_is_refused_and_nothing_is_touched(toy, stopped, change, words):
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=words) as error:
        train(toy, **(dict(method="amarl", seed=0, days=DAYS) | change), folder=stopped)
    assert "resume=False" in str(error.value) and str(stopped) in str(error.value)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_another_trace_scenario_or_version_is_refused(toy, stopped, monkeypatch):
    with pytest.raises(RunError, match="trace is"):
        train(toy, "amarl", 0, days=DAYS, folder=stopped, trace=toy.training_trace(seed=9, days=DAYS))
    with monkeypatch.context() as other, pytest.raises(RunError, match="version is"):
        other.setattr(checkpoint, "__version__", "99.0")
        train(toy, "amarl", 0, days=DAYS, folder=stopped)
    manifest = read_json(stopped / "checkpoint" / "checkpoint.json")
    manifest["identity"]["scenario"] = "of another world"
    write_json(stopped / "checkpoint" / "checkpoint.json", manifest)
    with pytest.raises(RunError, match="scenario is 'of another world'"):
        train(toy, "amarl", 0, days=DAYS, folder=stopped)


def test_resume_false_begins_anew(toy, stopped):
    run = train(toy, "amarl", 0, days=1, deterministic=True, folder=stopped, resume=False)
    assert run.status == "finished" and run.timing["resumed"] == 0
    assert same_weights(run, train(toy, "amarl", 0, days=1, deterministic=True))


def test_a_damaged_checkpoint_is_an_error_that_names_the_remedy(toy, stopped):
    for name in ("state-1.npz", "served-1.npz"):
        whole = (stopped / "checkpoint" / name).read_bytes()
        with zipfile.ZipFile(stopped / "checkpoint" / name) as archive:
            largest = max(archive.infolist(), key=lambda member: member.compress_size)
        # of data: a header has bytes that say nothing
        middle = largest.header_offset + largest.compress_size // 2 + 100
        assert largest.compress_size > 400
        for bad in (whole[:middle], whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]):
            (stopped / "checkpoint" / name).write_bytes(bad)
            with pytest.raises(RunError, match="damaged.*resume=False"):
                train(toy, "amarl", 0, days=DAYS, folder=stopped)
        (stopped / "checkpoint" / name).write_bytes(whole)
    assert train(toy, "amarl", 0, days=DAYS, folder=stopped).status == "finished"
    (stopped / "status.json").unlink()
    (stopped / "checkpoint").mkdir()
    (stopped / "checkpoint" / "checkpoint.json").write_text("[]")
    with pytest.raises(RunError, match="not a checkpoint"):
        train(toy, "amarl", 0, days=DAYS, folder=stopped)


def test_nothing_is_unpickled(stopped):
    for path in (stopped / "checkpoint").iterdir():
        assert path.suffix in (".npz", ".json")
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                assert all(arrays[name].dtype.kind in "biuf" or arrays[name].dtype.names for name in arrays)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_an_interval_that_is_none_is_refused(toy, seconds):
    with pytest.raises(AmarlError, match="checkpoint_s"):
        train(toy, "amarl", 0, days=1, checkpoint_s=seconds)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_narrow_integers_are_the_same_integers(values):
    wide = np.array(values, np.int64)
    slim = checkpoint.narrow(wide)
    assert slim.tolist() == values and slim.itemsize <= wide.itemsize
    if values and all(-128 <= value < 128 for value in values):
        assert slim.itemsize == 1
