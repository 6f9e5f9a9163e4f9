"""Volumes of places and intervals, summed into cells and drawn as requests by the generator's rules.

A cell is what one node asks for in one interval, perhaps of one service or towards one destination. The number of its
requests is Poisson, they begin evenly within the interval, and all else is drawn as for a generated day. With a mean
bandwidth b and a mean hold h of a service (`services.csv`), traffic of v kbps over T seconds takes v T / (b h)
requests, by Little's law. The expected offered traffic, or number, is therefore that of the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amarl_core.draws import draw_bundles, draw_destinations, draw_holds_ms
from amarl_core.errors import TraceError, problem
from amarl_core.foreign.places import area_of_nodes, fixed_shares, generator_mix, population_share
from amarl_core.foreign.trace_mappings import BYTE_UNITS, RATE_UNITS, TrafficMapping
from amarl_core.foreign.trace_reports import Report
from amarl_core.foreign.trace_times import Clock

if TYPE_CHECKING:
    from amarl_core.scenario import Scenario

REQUESTS_MAX = 10_000_000
"""More would not fit in 2 GB while they are drawn."""
NO_ONE = -1
"""Stands for "no node", "no service" or "no destination" in a cell."""


@dataclass(frozen=True, eq=False)
class Cells:
    """C cells, in any order.

    Attributes:
        start_s: Beginning of the interval in t_s, float64 [C].
        length_s: Its length, float64 [C].
        source: Node, int32 [C]; `NO_ONE` to split over the areas or to give to each of them.
        destination: Node, int32 [C]; `NO_ONE` for the scenario's rules.
        service: Service, int16 [C]; `NO_ONE` for shares.
        volume: In the unit of the mapping, float64 [C].
    """

    start_s: np.ndarray
    length_s: np.ndarray
    source: np.ndarray
    destination: np.ndarray
    service: np.ndarray
    volume: np.ndarray

    def __len__(self) -> int:
        return len(self.volume)

    def part(self, index: np.ndarray) -> Cells:
        """Return the cells of a mask or of indices."""
        return Cells(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def draw_requests(
    path: Path,
    cells: Cells,
    scenario: Scenario,
    mapping: TrafficMapping,
    clock: Clock,
    rng: np.random.Generator,
    report: Report,
) -> dict[str, np.ndarray]:
    """Draw the requests of all cells.

    Args:
        path: The file, for errors.
        cells: What is asked for.
        scenario: Whose services and destination rules.
        mapping: Unit, scale and shares.
        clock: Which kind of day and hour it is, for the generator's mix of services.
        rng: To draw from.
        report: Where to report.

    Returns:
        The columns of a trace by name, in order of arrival.

    Raises:
        TraceError: There is nothing to ask for, or far too much.
    """
    cells = sum_equal(_spread(cells, scenario, mapping))
    cells = _without_local(cells, scenario, report)
    expected = expected_requests(cells, scenario, mapping, clock, report)  # [C, S]
    total = float(expected.sum())
    if not 0 < total <= REQUESTS_MAX:
        raise TraceError(
            problem(
                path,
                None,
                "expected number of requests",
                float(f"{total:.6g}"),
                f"above 0 and at most {REQUESTS_MAX:,}",
                "Set volume.scale or volume.busy_load_gbps in the mapping, or correct volume.unit.",
            )
        )
    counts = rng.poisson(expected)
    cell, service = np.divmod(np.repeat(np.arange(counts.size), counts.reshape(-1)), counts.shape[1])
    if not len(cell):
        raise TraceError(problem(path, None, "requests", 0, f"some, of {total:.3g} expected", "Raise volume.scale."))
    t_ms = cells.start_s[cell] * 1000 + np.floor(rng.random(len(cell)) * cells.length_s[cell] * 1000)
    order = np.argsort(t_ms, kind="stable")
    cell, service = cell[order], service[order].astype(np.int16)
    report.note("requests", len(cell), f"{total:,.1f} expected", "drawn from the volumes")
    return {"t_s": t_ms[order] / 1000} | _details(cells, cell, service, scenario, rng)


def _details(
    cells: Cells, cell: np.ndarray, service: np.ndarray, scenario: Scenario, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return all columns but the time of requests of known cells and services."""
    bundle, unit_kbps = draw_bundles(scenario.services, service, rng)
    hold_s = draw_holds_ms(scenario.services, service, rng) / 1000.0
    source, destination = cells.source[cell], cells.destination[cell].copy()
    is_free = destination == NO_ONE
    if is_free.any():
        area = area_of_nodes(scenario.traffic)[source[is_free]]
        destination[is_free] = draw_destinations(scenario.traffic, service[is_free], area, rng)
    return {
        "request_id": np.arange(len(cell)),
        "service": service,
        "source": source,
        "destination": destination,
        "bundle": bundle.astype(np.int32),
        "demand_kbps": bundle * unit_kbps,
        "hold_s": hold_s,
    }


def expected_requests(
    cells: Cells, scenario: Scenario, mapping: TrafficMapping, clock: Clock, report: Report
) -> np.ndarray:
    """Return the expected number of requests of each cell and service, float64 [C, S]."""
    volume, load = mapping.volume, np.array([p.mean_kbps * p.hold_mean_s for p in scenario.services])  # kbit each
    is_load = volume.unit in RATE_UNITS or volume.unit in BYTE_UNITS
    shares = _shares(cells, scenario, mapping, clock, in_load=is_load)  # [C, S]
    if volume.unit in RATE_UNITS:
        expected = shares * (cells.volume * RATE_UNITS[volume.unit] * cells.length_s)[:, None] / load
    elif volume.unit in BYTE_UNITS:
        expected = shares * (cells.volume * BYTE_UNITS[volume.unit] * 8e-3)[:, None] / load
    else:  # requests or activity; a mean time between requests has been made a number before
        expected = shares * cells.volume[:, None]
    factor = volume.scale or 1.0
    if volume.busy_load_gbps is not None:
        busiest = busiest_kbps(cells.start_s, cells.length_s, expected @ load)
        factor = volume.busy_load_gbps * 1e6 / busiest if busiest > 0 else 0.0
        report.note("scale", 1, f"{factor:.6g}", f"so that the busiest hour offers {volume.busy_load_gbps:g} Gb/s")
    elif volume.scale is not None:
        report.note("scale", 1, f"{factor:.6g}", "as the mapping says")
    with np.errstate(over="ignore"):  # refused by the caller
        return expected * factor


def busiest_kbps(start_s: np.ndarray, length_s: np.ndarray, kbit: np.ndarray) -> float:
    """Return the mean traffic in kbps of the clock hour that has most of it, over the part of it that is covered.

    Args:
        start_s: Beginnings of intervals, float64 [C].
        length_s: Their lengths, float64 [C].
        kbit: What is offered evenly over each, float64 [C].
    """
    when = np.concatenate([start_s, start_s + length_s])
    order = np.argsort(when, kind="stable")
    hours = np.arange(int(when.min() // 3600), int(np.ceil(when.max() / 3600)) + 1) * 3600.0

    def by_hour(rate: np.ndarray, most: float) -> np.ndarray:
        """Integrate a step function, given by what each interval adds, over each hour."""
        steps = np.minimum(np.cumsum(np.concatenate([rate, -rate])[order]), most)
        whole = np.concatenate([[0.0], np.cumsum(steps[:-1] * np.diff(when[order]))])
        return np.diff(np.interp(hours, when[order], whole))

    covered_s = by_hour(np.ones(len(start_s)), 1.0)
    return float((by_hour(kbit / length_s, np.inf) / np.maximum(covered_s, 1.0)).max())


def _shares(cells: Cells, scenario: Scenario, mapping: TrafficMapping, clock: Clock, *, in_load: bool) -> np.ndarray:
    """Return the share of each service in each cell, float64 [C, S]."""
    n_services = len(scenario.services)
    if mapping.service.column:
        return np.eye(n_services)[cells.service]
    fixed = fixed_shares(mapping.service, scenario)
    if fixed is not None:
        return np.broadcast_to(fixed, (len(cells), n_services))
    kind, hour = clock.hours(cells.start_s + cells.length_s / 2)
    area = area_of_nodes(scenario.traffic)[cells.source]
    return generator_mix(scenario.traffic, in_load=in_load)[kind, area, hour]


def _spread(cells: Cells, scenario: Scenario, mapping: TrafficMapping) -> Cells:
    """Give cells without a node to the areas: a part by population, or the whole to each."""
    if mapping.source.rule not in ("split", "each"):
        return cells
    cells, areas = sum_equal(cells), scenario.traffic.area_node
    weight = population_share(scenario) if mapping.source.rule == "split" else np.ones(len(areas))
    spread = cells.part(np.repeat(np.arange(len(cells)), len(areas)))
    return Cells(
        spread.start_s,
        spread.length_s,
        np.tile(areas, len(cells)).astype(np.int32),
        spread.destination,
        spread.service,
        spread.volume * np.tile(weight, len(cells)),
    )


def sum_equal(cells: Cells) -> Cells:
    """Sum cells that differ in volume only; the result is in order of time and place, whatever the order given."""
    keys = (cells.service, cells.destination, cells.source, cells.length_s, cells.start_s)
    order = np.lexsort((cells.volume, *keys))
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    first = np.flatnonzero(new)
    summed = cells.part(order[first])
    return Cells(
        summed.start_s, summed.length_s, summed.source, summed.destination, summed.service,
        np.add.reduceat(cells.volume[order], first),
    )  # fmt: skip


def _without_local(cells: Cells, scenario: Scenario, report: Report) -> Cells:
    """Leave out what a node asks of itself, which needs no network, and report it."""
    is_local = cells.source == cells.destination
    if not is_local.any():
        return cells
    node = scenario.network.node_ids[int(cells.source[np.argmax(is_local)])]
    share = cells.volume[is_local].sum() / max(cells.volume.sum(), 1e-300)
    report.warn("volume from a node to itself", is_local.sum(), f"{node}; {share:.1%} of all volume", "left out")
    return cells.part(~is_local)
