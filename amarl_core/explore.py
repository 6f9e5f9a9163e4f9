"""Pickers and sliders for JupyterLab: a served day on the map, hour by hour, and a request hop by hop.

Choosing never trains. A callback only redraws what is in memory, or hands the choice to a thread that reads the
record (or lets a quick rule serve the day) and then sets the widgets' traits; the latest choice wins. No pyplot and no
`print`: a map is an SVG text in an HTML widget.
"""

from __future__ import annotations

import html
import logging
import threading
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets as widgets
import numpy as np

from amarl_core.catalogue import REMEDY, RULE, Recorded, list_recorded, play_rule_day, read_day
from amarl_core.errors import AmarlError
from amarl_core.hop_view import HopView
from amarl_core.hop_walk import STUB
from amarl_core.look import METHOD_NAMES, service_name
from amarl_core.maps import NetworkMap
from amarl_core.records import RUNS_FOLDER
from amarl_core.scenario import Scenario, known_scenarios, load_scenario
from amarl_core.utilisation import Utilisation, utilisation

log = logging.getLogger(__name__)

NOTHING = "none: a rule serves the day now"
ALL_SERVICES = "all services"
MEASURES = ("mean", "peak")
MOST_LINKS = 5


class _Choice(NamedTuple):
    """What is asked for."""

    scenario: str
    study: str
    method: str
    seed: int
    day: str
    service: str


class _Shown(NamedTuple):
    """What is in memory and drawn."""

    chart: NetworkMap
    used: Utilisation
    label: str


class DayExplorer:
    """A served day on the map of its network: choose the scenario, the run, the service and the hour.

    Args:
        scenario: name of a scenario to begin with.
        study: name of a study to begin with; "" takes the first that has the scenario.
        hour: hour to begin with.
        root: folder of the studies.

    Attributes:
        widget: what a notebook shows.
        map: the widget whose `value` is the map.
    """

    def __init__(self, scenario: str = "montreal", study: str = "", hour: int = 16, root: Path = RUNS_FOLDER) -> None:
        self._days = list_recorded(Path(root))
        self._worlds: dict[str, tuple[Scenario, NetworkMap]] = {}
        self._measured: dict[_Choice, tuple[Utilisation, str]] = {}
        self._shown: _Shown | None = None
        self._loading = threading.Lock()  # one thread reads at a time; guards _worlds and _measured
        self._latest = 0
        self._filling, self._filled_for = False, ""
        self._thread: threading.Thread | None = None
        names = dict.fromkeys([*known_scenarios(), *(day.scenario for day in self._days), scenario])
        self.scenario = widgets.Dropdown(options=list(names), value=scenario, description="scenario")
        self.study = widgets.Dropdown(description="study")
        self.method = widgets.Dropdown(description="method")
        self.seed = widgets.Dropdown(description="seed")
        self.day = widgets.Dropdown(description="day")
        self.service = widgets.Dropdown(description="service")
        self.measure = widgets.ToggleButtons(options=MEASURES, description="use", style={"button_width": "60px"})
        self.hour = widgets.IntSlider(hour, 0, 23, description="hour", continuous_update=True)
        self.play = widgets.Play(value=hour, min=0, max=23, interval=700, repeat=True)
        self.status, self.map, self.list = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._world(scenario)
        self._fill(study)
        for picker in (self.scenario, self.study, self.method, self.seed, self.day, self.service):
            picker.observe(self._picked, "value")
        for control in (self.hour, self.measure):
            control.observe(lambda change: self._draw(), "value")
        self._link = widgets.jslink((self.play, "value"), (self.hour, "value"))
        self.widget = self._layout()
        self._ask()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)

    def wait(self, timeout_s: float = 60.0) -> DayExplorer:
        """Wait until the last choice is drawn, for use without a browser."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self

    def _layout(self) -> widgets.Widget:
        grid = widgets.Layout(display="flex", flex_flow="row wrap")
        pickers = [self.scenario, self.study, self.method, self.seed, self.day, self.service]
        for picker in pickers:
            picker.layout.width = "260px"
        self.map.layout.width, self.map.layout.max_width = "100%", "760px"
        self.hour.layout.width = "420px"
        hours = widgets.HBox([self.play, self.hour, self.measure], layout=grid)
        return widgets.VBox([widgets.HBox(pickers, layout=grid), hours, self.status, self.map, self.list])

    # ----------------------------------------------------------------------------------- what there is to pick
    def _fill(self, study: str = "") -> None:
        """Offer in every picker what the ones before it leave; what still exists stays chosen within a scenario."""
        is_same, self._filled_for = self._filled_for == self.scenario.value, self.scenario.value
        days = [day for day in self._days if day.scenario == self.scenario.value]
        _offer(self.study, [*dict.fromkeys(day.study for day in days), NOTHING], study or is_same and self.study.value)
        days = [day for day in days if day.study == self.study.value]
        methods = sorted(dict.fromkeys(day.method for day in days), key=lambda m: (m not in METHOD_NAMES, m != "amarl"))
        _offer(self.method, methods or [RULE], is_same and self.method.value)
        days = [day for day in days if day.method == self.method.value]
        _offer(self.seed, sorted({day.seed for day in days}) or [0], is_same and self.seed.value)
        days = [day for day in days if day.seed == self.seed.value]
        _offer(self.day, [day.day for day in days] or self._test_days(), is_same and self.day.value)
        services = [(ALL_SERVICES, ""), *((service_name(s), s) for s in self._service_ids())]
        _offer(self.service, services, is_same and self.service.value)

    def _test_days(self) -> list[str]:
        return list(self._world(self.scenario.value)[0].test_days)

    def _service_ids(self) -> tuple[str, ...]:
        return self._world(self.scenario.value)[0].service_ids

    def _world(self, name: str) -> tuple[Scenario, NetworkMap]:
        if name not in self._worlds:
            world = load_scenario(name)
            self._worlds[name] = (world, NetworkMap(world))
        return self._worlds[name]

    # ------------------------------------------------------------------------------------------ reading, drawing
    def _picked(self, change: Any) -> None:
        """Take a choice: refill the pickers that depend on it, then have a thread read what is chosen."""
        if not self._filling:
            self._refill()
            self._ask()

    def _refill(self) -> None:
        """Fill the pickers anew without taking that for a choice; a scenario that is not read yet waits for `_read`."""
        if self.scenario.value in self._worlds:
            self._filling = True
            try:
                self._fill()
            finally:
                self._filling = False

    def _choice(self) -> _Choice:
        pickers = (self.scenario, self.study, self.method, self.seed, self.day, self.service)
        return _Choice(*(picker.value for picker in pickers))

    def _ask(self) -> None:
        """Have the choice read in a thread; an older one that still waits gives up."""
        self._latest += 1
        self._say("Reading the decisions ...")
        self._thread = threading.Thread(target=self._read, args=(self._latest,), daemon=True)
        self._thread.start()

    def _read(self, ticket: int) -> None:
        try:
            with self._loading:
                if ticket != self._latest:
                    return
                if self.scenario.value not in self._worlds:
                    self._world(self.scenario.value)
                    self._refill()
                choice = self._choice()
                world, chart = self._world(choice.scenario)
                if choice not in self._measured:
                    served = self._served(world, choice)
                    self._measured[choice] = (
                        utilisation(served.decisions, world, choice.service or None),
                        served.label,
                    )
                used, label = self._measured[choice]
        except Exception as error:
            self._say(f"{type(error).__name__}: {error}")
            if not isinstance(error, AmarlError):
                log.exception("the day could not be drawn")
            return
        if ticket == self._latest:
            self._shown = _Shown(chart, used, label)
            self._say(self._about(world, choice, label))
            self._draw()

    def _served(self, world: Scenario, choice: _Choice) -> Any:
        recorded = self._recorded(choice)
        return read_day(recorded) if recorded else play_rule_day(world, choice.day)

    def _recorded(self, choice: _Choice) -> Recorded | None:
        """Return the recorded day that was chosen; None when a rule is to serve it."""
        wanted = (choice.scenario, choice.study, choice.method, choice.seed, choice.day)
        return next((d for d in self._days if (d.scenario, d.study, d.method, d.seed, d.day) == wanted), None)

    def _about(self, world: Scenario, choice: _Choice, label: str) -> str:
        recorded = self._recorded(choice)
        if recorded is None:
            return f"{label}, served now; nothing is recorded for {choice.scenario}: {REMEDY}"
        changed = recorded.digest not in ("", world.digest)
        return label + (". The scenario has been changed since: names may not fit" if changed else "")

    def _say(self, text: str) -> None:
        self.status.value = f"<small>{html.escape(text)}</small>"

    def _draw(self) -> None:
        """Draw the map of the hour from what is in memory."""
        if self._shown is None:
            return
        chart, used, label = self._shown
        h, is_mean = self.hour.value, self.measure.value == "mean"
        links, nodes = (used.link_mean, used.node_mean) if is_mean else (used.link_peak, used.node_peak)
        self.map.value = chart.svg(links[h], nodes[h], title=f"{h}:00 to {h + 1}:00, {label}")
        self.list.value = _fullest(chart, links[h])


class HopStepper:
    """A request step by step: the map with what the mask allows and prunes, and every reason in a table.

    Args:
        view: the walk, from `hop_view.route_by_hops`.
        chart: the map of its scenario.
    """

    def __init__(self, view: HopView, chart: NetworkMap) -> None:
        self.view, self.chart = view, chart
        self.step = widgets.IntSlider(1, 1, len(view.hops), description="step", continuous_update=True)
        self.map, self.table = widgets.HTML(), widgets.HTML()
        self.map.layout.width, self.map.layout.max_width = "100%", "680px"
        self.step.observe(lambda change: self._draw(), "value")
        self.widget = widgets.VBox([self.step, self.map, self.table])
        self._draw()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)

    def _draw(self) -> None:
        hop = self.view.hops[self.step.value - 1]
        self.map.value = self.view.svg(self.chart, self.step.value)
        shown = [neighbour for neighbour in hop.neighbours if neighbour.verdict != STUB]
        rows = [(n.node, n.verdict, n.detail, "taken" if n.link == hop.taken else "") for n in shown]
        hidden = len(hop.neighbours) - len(shown)
        note = f"and {hidden} radio sites, entered only as destinations" if hidden else ""
        self.table.value = _table(("neighbour", "verdict", "figures", ""), rows, note)


def _offer(picker: widgets.Dropdown, options: list[Any], wish: Any) -> None:
    """Set a picker's options, and the wish where it is among them, else the first."""
    values = [option[1] if isinstance(option, tuple) else option for option in options]
    picker.options = options
    picker.value = wish if wish in values else values[0]


def _fullest(chart: NetworkMap, share: np.ndarray) -> str:
    """List the links that are fullest now."""
    network = chart.scenario.network
    order = np.argsort(-share)[:MOST_LINKS]
    rows = [
        (network.link_ids[e], f"{100 * share[e]:.1f} %", f"{network.capacity_kbps[e] / 1e6:.4g} Gb/s") for e in order
    ]
    return _table(("fullest links", "in use", "capacity"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], note: str = "") -> str:
    cells = 'style="text-align:left;padding:1px 14px 1px 0;line-height:1.5"'
    first = "".join(f"<th {cells}>{html.escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td {cells}>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table><small>{html.escape(note)}</small>"
