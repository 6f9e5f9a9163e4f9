"""Live training: it runs beside its caller, stops, goes on, fails in red, and its view is written by one thread."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_agents import same_weights

import amarl_core.agents
from amarl_core import learning_plots, live, live_cost
from amarl_core.agents import train
from amarl_core.errors import AmarlError, RunError
from amarl_core.runs import RunFolder, write_frame
from amarl_core.simulation import AgentError

LONG = 300
"""Days of the toy scenario that nobody waits for."""


@pytest.fixture
def started(toy, tmp_path):
    """A long training that runs in the background; it is stopped in the end."""
    training = live.start(toy, "amarl", 0, folder=tmp_path, days=LONG)
    yield training
    training.stop()
    training.join(30)


def wait_for(what, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


def begin(training) -> live.View:
    """Wait until a training shows curves and a table."""
    view = training.open()
    wait_for(lambda: view._curves.value and len(training.progress))
    return view


def test_it_trains_beside_its_caller_and_stops_and_goes_on_by_its_buttons(started, tmp_path):
    view = begin(started)
    assert started.state == "training" and started.is_at_work and started.timing["requests"] > 0
    assert not view._stop.disabled and view._resume.disabled
    view._stop.click()
    assert started.join(30) == "stopped" == RunFolder(tmp_path).status
    wait_for(lambda: view._stop.disabled and not view._resume.disabled)
    assert ">stopped<" in view._head.value and view._resume.description == "Resume"
    served = started.timing["requests"]
    assert served > 0 and (tmp_path / "checkpoint" / "checkpoint.json").exists()
    view._resume.click()
    wait_for(lambda: started.state == "training" and started.timing["requests"] > served)
    assert started.timing["resumed"] == 1


def test_watching_changes_nothing(toy, tmp_path):
    watched = live.start(toy, "amarl", 2, folder=tmp_path, days=2, deterministic=True)
    view = watched.open()
    assert watched.join(120) == "finished"
    alone = train(toy, "amarl", 2, days=2, deterministic=True)
    assert same_weights(watched.run, alone)
    assert watched.run.simulation.decisions().equals(alone.simulation.decisions())
    wait_for(lambda: ">finished<" in view._head.value and view._bar.value == live.BAR_STEPS)
    assert "100.0 %" in view._numbers.value and view._stop.disabled and view._resume.disabled


def test_one_thread_writes_the_widgets_at_most_five_times_a_second(started):
    view, writes = started.open(), []
    everything = (view._head, view._numbers, view._table, view._note, view._curves, view._map_html, view._bar)
    for widget in everything:
        widget.observe(lambda change: writes.append((threading.current_thread().name, change.owner, time.monotonic())))
    begin(started)
    seen = len(writes)
    wait_for(lambda: len(writes) > seen + 20)
    assert {name for name, _, _ in writes} == {"live view"}
    for widget in everything:
        times = [moment for _, owner, moment in writes if owner is widget]
        # a widget fires once for the value and once for what the page is sent
        assert len(times) <= 2 * (1 + (times[-1] - times[0]) / live.TICK_S) if times else widget in (view._note,)


def test_buttons_only_set_events(toy, tmp_path):
    """Whatever they start or stop is done by the updater, so that no callback can hold the kernel up."""
    training = live.start(toy, "amarl", 0, folder=tmp_path, days=1, paused=True)
    assert training.state == "new" and training.open()._resume.description == "Start"
    threads, did = threading.active_count(), []
    training.obey = lambda: did.append(threading.current_thread().name)
    training.open()._stop.click()
    training.open()._resume.click()
    wait_for(lambda: did)
    assert set(did) == {"live view"} and threading.active_count() == threads and training.state == "new"


def test_an_agent_s_failure_is_shown_in_red_with_its_name_and_can_be_resumed(toy, tmp_path, monkeypatch):
    update, calls = amarl_core.agents.update, []

    def failing(*arguments):
        calls.append(threading.current_thread().name)
        if len(calls) == 5:
            raise FloatingPointError("the <gradient> is nan")
        return update(*arguments)

    with monkeypatch.context() as broken:
        broken.setattr(amarl_core.agents, "update", failing)
        training = live.start(toy, "amarl", 0, folder=tmp_path, days=2)
        view = training.open()
        assert training.join(60) == "failed" == RunFolder(tmp_path).status
    assert isinstance(training.error, AgentError)
    wait_for(lambda: 'role="alert"' in view._note.value)
    assert f"Agent {calls[4]} failed" in view._note.value and "the &lt;gradient&gt; is nan" in view._note.value
    assert view._table.value.count('class="failed"') == 1 and ">failed<" in view._head.value
    view._resume.click()
    wait_for(lambda: training.state == "finished")
    wait_for(lambda: view._note.value.count("alert") == 0 and 'class="failed"' not in view._table.value)


def test_running_the_cell_again_shows_the_same_training(toy, started, tmp_path):
    assert live.start(toy, "amarl", 0, folder=tmp_path, days=LONG) is started is live.current()
    with pytest.raises(RunError, match="other settings"):
        live.start(toy, "amarl", 0, folder=tmp_path, days=LONG + 1)
    view = started.open()
    assert view is started.open()
    shown = started._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown or "text/plain" in shown


def test_a_finished_run_is_loaded_and_shown(toy, tmp_path):
    train(toy, "amarl", 4, folder=tmp_path, days=1)
    training = live.start(toy, "amarl", 4, folder=tmp_path, days=9)
    assert training.state == "finished" and training.config.days == 1, "its own settings, not those asked for"
    view = training.open()
    assert view._curves.value and view._bar.value == live.BAR_STEPS and len(training.progress)
    training.resume()
    assert training.join(10) == "finished" and training.run.simulation is None, "it is never trained again"


def test_waiting_trains_on_the_caller_s_thread_and_raises_what_goes_wrong(toy, tmp_path, monkeypatch):
    before = threading.active_count()
    training = live.start(toy, "sarl", 0, folder=tmp_path / "a", days=1, wait=True)
    assert training.state == "finished" and threading.active_count() == before
    monkeypatch.setattr(amarl_core.agents, "update", lambda *rest: 1 / 0)
    with pytest.raises(AgentError, match="sarl: ZeroDivisionError"):
        live.start(toy, "sarl", 0, folder=tmp_path / "b", days=1, wait=True)


def test_settings_are_checked_before_anything_starts(toy, tmp_path):
    with pytest.raises(AmarlError, match="learning_rate"):
        live.start(toy, "amarl", 0, folder=tmp_path, learningrate=1.0)


def test_a_process_that_ends_saves_what_it_trains(toy, tmp_path):
    """So does a kernel that is shut down; what it had is gone on with."""
    code = (
        "import sys, time\n"
        "from amarl_core import live\n"
        "from amarl_core.scenario import load_scenario\n"
        f"training = live.start(load_scenario('toy'), 'amarl', 0, folder=sys.argv[1], days={LONG})\n"
        "while not len(training.progress): time.sleep(0.01)\n"
    )
    root = str(Path(live.__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"PYTHONPATH": root},
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert RunFolder(tmp_path).status == "stopped" and (tmp_path / "checkpoint" / "checkpoint.json").exists()
    again = live.start(toy, "amarl", 0, folder=tmp_path, days=LONG)
    wait_for(lambda: again.state == "training" and again.timing["resumed"] == 1)
    again.stop()
    assert again.join(30) == "stopped"


def test_a_stop_that_comes_before_training_does_is_obeyed(toy, tmp_path):
    training = live.start(toy, "amarl", 0, folder=tmp_path, days=LONG)
    training.stop()
    assert training.join(60) == "stopped"


def test_cells_below_a_training_that_has_only_just_begun_say_so(toy, tmp_path):
    training = live.start(toy, "amarl", 0, folder=tmp_path, days=1, paused=True)
    assert learning_plots.learning_answer(training.progress, training.timing) is learning_plots.NOTHING_YET
    assert learning_plots.gos_per_agent(training.progress) is learning_plots.NOTHING_YET
    assert learning_plots.time_shares(training.timing) is learning_plots.NOTHING_YET


# --------------------------------------------------------------------------------------------------- its cost
def test_the_cost_of_the_view_is_the_median_of_paired_ratios(toy, tmp_path):
    assert "python -m amarl_core.live_cost" in live_cost.cost_table(tmp_path).text
    rows = pd.DataFrame(
        {
            "pair": [0, 0, 1, 1, 2, 2],
            "view": [True, False] * 3,
            "train_s": [2.02, 2.0, 3.06, 3.0, 4.12, 4.0],
            "cpu_s": 1.0,
            "view_s": [0.02, 0.0] * 3,
            "days": 4,
        }
    )
    assert np.allclose(live_cost.slowdown(rows), [1, 2, 3])
    write_frame(tmp_path / live_cost.RECORD, rows)
    text = live_cost.cost_table(tmp_path)._repr_html_()
    assert "2.00 [1.00, 3.00]" in text and "3 pairs" in text


def test_pairs_take_turns():
    rows = live_cost.pairs("toy", 2, 1)
    assert [(row["pair"], row["view"]) for row in rows] == [(0, False), (0, True), (1, True), (1, False)]
    assert all(row["train_s"] > 0 and (row["view_s"] > 0) == row["view"] for row in rows)
