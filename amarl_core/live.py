"""A training that goes on in the background, and its view in JupyterLab: curves, map, table, Stop and Resume.

    live.start(scenario, "amarl", seed=0, folder="reports/runs/mine/amarl/seed=0", days=16)

returns at once. Agents train in threads of the kernel, which stays usable. One further thread, the *updater*, looks at
their counters, writes all widgets, and does what the buttons ask for: a button's callback only sets an event. Closing
the page stops nothing, and running the cell again shows the same training again.
"""

from __future__ import annotations

import atexit
import logging
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets
import numpy as np

from amarl_core import live_table
from amarl_core.actors import agent_of
from amarl_core.agents import CHECKPOINT_S
from amarl_core.background import AT_WORK, FAILED, FINISHED, PREPARING, TRAINING, Background
from amarl_core.config import TrainConfig, make_config
from amarl_core.errors import RunError
from amarl_core.live_curves import curves_svg
from amarl_core.look import AGENT_COLORS
from amarl_core.maps import NetworkMap
from amarl_core.simulation import AgentError, Team
from amarl_core.watch import CLOCK, REQUESTS, History

if TYPE_CHECKING:
    from amarl_core.scenario import Scenario

log = logging.getLogger(__name__)

TICK_S = 0.2
"""Numbers change at most five times a second."""

DRAW_S = 1.0
"""Curves and map change once a second: the page that shows them runs on the agents' cores, as a rule."""

BAR_STEPS = 1000
SECONDS_TO_SAVE = 4.0
"""Jupyter kills a kernel that has not ended five seconds after it was asked to."""

_known: dict[Path, Live] = {}
"""Trainings of this process by folder, so that a notebook that is opened again finds its own."""


class View:
    """The widgets of one training; only the updater writes them.

    Args:
        training: what they show, and what the buttons ask to stop and resume.
    """

    def __init__(self, training: Background):
        self._training = training
        self._agents = Team.of(training.scenario, training.config.method).agents
        self._order = list(range(len(self._agents)))  # of lines in the table, busiest first
        self._colors = [""] * len(self._agents)
        self._map = NetworkMap(training.scenario)
        self._draw_at = 0.0  # when to draw again
        self._head, self._numbers, self._note = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._curves, self._map_html, self._table = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._bar = widgets.IntProgress(max=BAR_STEPS, tooltip="share of the requests that are served")
        self._stop = widgets.Button(description="Stop", icon="stop", tooltip="Write a checkpoint and leave the cores")
        self._resume = widgets.Button(description="Start", icon="play", tooltip="Start, or go on from the checkpoint")
        self._stop.on_click(lambda _: training.stop())
        self._resume.on_click(lambda _: training.resume())
        self.box = self._laid_out()

    def _laid_out(self) -> widgets.VBox:
        """Set the widgets in their places."""
        layout = widgets.Layout
        self._stop.layout, self._resume.layout = (layout(width="110px", flex="0 0 auto") for _ in range(2))
        self._bar.layout = layout(width="100%", height="14px")
        self._curves.layout = self._map_html.layout = self._table.layout = layout(width="100%")
        self._numbers.layout = layout(margin="0 0 0 12px")
        caption = widgets.HTML(live_table.CAPTION, layout=layout(margin="0 0 0 10px"))
        curves = widgets.VBox([self._curves, caption], layout=layout(flex="3 1 430px", min_width="0"))
        self._chart = widgets.Box([self._map_html], layout=layout(flex="2 1 300px", min_width="0", display="none"))
        for panel in (curves, self._chart):
            panel.add_class("amarl-live-card")
        self._panels = widgets.Box(
            [curves, self._chart], layout=layout(flex_flow="row wrap", grid_gap="8px", display="none")
        )
        line = widgets.HBox([self._stop, self._resume, self._numbers], layout=layout(align_items="center"))
        rows = [self._head, line, self._bar, self._note, self._panels, self._table]
        box = widgets.VBox(rows, layout=layout(width="100%", max_width="1180px", grid_gap="4px"))
        box.add_class("amarl-live")
        return box

    def show(self, state: str, view_s: float) -> None:
        """Bring everything up to date."""
        training = self._training
        watch, error, train_s = training.watch, training.error, training.timing.get("train_s", 0.0)
        self._head.value = live_table.headline(training.config, training.scenario.name, state)
        self._note.value = live_table.note(state, error, train_s, view_s)
        self._stop.disabled = state not in (PREPARING, TRAINING)
        self._resume.disabled = state in (*AT_WORK, FINISHED)
        self._resume.description = "Start" if state == "new" else "Resume"
        self._bar.bar_style = {"finished": "success", "failed": "danger", "stopped": "warning"}.get(state, "info")
        if watch is not None:
            self._show_watched(state, agent_of(str(error).split(":")[0]) if isinstance(error, AgentError) else "")
        elif state == FINISHED:  # loaded
            self._bar.value = BAR_STEPS
            self._draw(History.of(training.progress, self._agents))

    def _show_watched(self, state: str, failed: str) -> None:
        watch, now = self._training.watch, time.perf_counter()
        watch.look()
        self._rank(watch.requests)
        self._bar.value = round(BAR_STEPS * watch.share)
        self._numbers.value = live_table.numbers(watch)
        self._table.value = live_table.table(watch, self._agents, self._colors, self._order, failed)
        if now < self._draw_at and state in AT_WORK:
            return
        hours = watch.history.latest[:, CLOCK].max() / 3600
        title = f"In use now: day {1 + hours // 24:.0f}, {hours % 24:.0f} h"
        self._map_html.value = self._map.svg(*watch.use(), title=title)
        self._chart.layout.display = "flex"
        self._draw(watch.history)
        self._draw_at = now + DRAW_S

    def _draw(self, history: History) -> None:
        """Draw the curves."""
        if history.wall_s > 0:
            self._rank(history.latest[:, REQUESTS])
            self._curves.value = curves_svg(history.curves(), self._colors)
            self._panels.layout.display = "flex"

    def _rank(self, requests: np.ndarray) -> None:
        """Give agents their places and colours by their requests, once and for all, as other figures do."""
        if not self._colors[0]:
            self._order = np.argsort(-requests, kind="stable").tolist()
            for place, a in enumerate(self._order):
                self._colors[a] = AGENT_COLORS[place % len(AGENT_COLORS)]


class Live(Background):
    """A training and its view; made by `start`."""

    def __init__(self, scenario: Scenario, config: TrainConfig, folder: Path, **choices: object):
        super().__init__(scenario, config, folder, **choices)
        self.view_s = 0.0  # processor seconds of the updater
        self._view: View | None = None

    def resume(self) -> None:
        """Ask for training to start, or to go on from its checkpoint; the updater does it."""
        super().resume()
        self.open()

    def open(self) -> View:
        """Make the view, and start the updater that writes it."""
        if self._view is None:
            self._view = View(self)
            self._view.show(self.state, self.view_s)
            threading.Thread(target=self._update_for_ever, name="live view", daemon=True).start()
        return self._view

    def _update_for_ever(self) -> None:
        """Do what is asked for and show what there is, at most five times a second; sleep while nothing happens."""
        state, shown_at = self.state, 0.0
        while True:
            self.wake.wait(TICK_S if state in AT_WORK or self.is_at_work else None)
            self.wake.clear()
            self.obey()
            time.sleep(max(0.0, shown_at + TICK_S - time.perf_counter()))
            shown_at, start = time.perf_counter(), time.thread_time()
            state = self.state
            self._view.show(state, self.view_s)
            self.view_s += time.thread_time() - start

    def __repr__(self) -> str:
        return f"Live({self.config.method} on {self.scenario.name}, seed {self.config.seed}: {self.state})"

    def _repr_mimebundle_(self, **named: object) -> dict:
        return self.open().box._repr_mimebundle_(**named)


def start(
    scenario: Scenario,
    method: str = "amarl",
    seed: int = 0,
    *,
    folder: str | Path | None = None,
    wait: bool = False,
    paused: bool = False,
    checkpoint_s: float = CHECKPOINT_S,
    tensorboard: bool | str | Path = False,
    **choices: object,
) -> Live:
    """Train in the background, or show again what already does; a finished run is loaded, an unfinished one goes on.

    Args:
        scenario: the world.
        method, seed, **choices: the configuration, as `agents.train` takes it.
        folder: where the run is recorded; a temporary one by default.
        wait: train now and come back when it is over (Ctrl-C stops it); nothing is shown unless asked for.
        paused: wait for the button Start.
        checkpoint_s, tensorboard: see `agents.train`.

    Returns:
        The training; in JupyterLab it shows itself.

    Raises:
        AmarlError: an unknown or invalid setting; with `wait`, whatever `agents.train` raises.
        RunError: the same folder is being trained with other settings.
    """
    config = make_config(method=method, seed=seed, **choices)
    place = Path(folder or tempfile.mkdtemp(prefix="amarl-")).resolve()
    live = _known.get(place)
    if live is not None and live.is_at_work and live.config != config:
        raise RunError(f"{place} is being trained with other settings; stop that, or give another folder")
    if live is None or live.config != config or not (live.is_at_work or place.exists()):
        for other in [other for other, known in _known.items() if other == place or not known.is_at_work]:
            del _known[other]  # with its records it may fill hundreds of MB
        live = Live(scenario, config, place, checkpoint_s=checkpoint_s, tensorboard=tensorboard)
    _known[place] = _known.pop(place, live)  # the latest is the current one
    if live.state == FINISHED:
        log.info("%s: loaded; it is finished", place)
    elif wait and not live.is_at_work:
        live.train()
    elif not paused and not live.is_at_work:
        live.resume()
    if wait and live.join() == FAILED:
        raise live.error
    return live


@atexit.register
def stop_all(seconds: float = SECONDS_TO_SAVE) -> None:
    """Stop all trainings of this process and let them save; so ends a kernel that is shut down."""
    at_work = [live for live in _known.values() if live.is_at_work]
    for live in at_work:
        live.stop()
    for live in at_work:
        live.join(seconds)


def current() -> Live:
    """Return the training that was started last in this process.

    Raises:
        RunError: there is none.
    """
    if not _known:
        raise RunError("nothing is being trained in this kernel; live.start(scenario, ...) begins a training")
    return next(reversed(_known.values()))
