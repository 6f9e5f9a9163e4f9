"""Making of scenario folders from imported networks: services, areas, placement, load, held-out days.

`make_scenario` writes a folder that `load_scenario` reads like any other. It is built beside its place and renamed
when it is complete, so that there is never half a scenario; one that it replaces waits beside it until then.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core.errors import ScenarioError, StorageError, problem
from amarl_core.files import beside, storing, sweep_one
from amarl_core.foreign.idle_routes import ChainRoutes
from amarl_core.foreign.load_size import fullest
from amarl_core.foreign.placement import place
from amarl_core.foreign.scenario_files import CPU_CAP, WEEKEND_LEVEL, Draft, toml, write_tables
from amarl_core.freeze import freeze
from amarl_core.imported import Imported, load_network
from amarl_core.scenario import DATA_FOLDER, Scenario, load_scenario
from amarl_core.services import Service, read_functions, read_placement, read_services
from amarl_core.settings import SETTINGS_FILE, TABLES
from amarl_core.topology import read_network
from amarl_core.traffic import Traffic, read_traffic

logger = logging.getLogger(__name__)

SERVICES_FROM = DATA_FOLDER / "montreal"
SLACK = 1.25
"""A bound that is raised becomes this times the worst idle latency, since busy pools take longer."""
UTILISATION = 1.2


def make_scenario(
    network: Imported | str | Path,
    folder: str | Path,
    *,
    services: Sequence[str] | str | Path | None = None,
    placement: str | Path | pd.DataFrame = "auto",
    areas: Path | pd.DataFrame | None = None,
    destinations: Path | pd.DataFrame | None = None,
    latency: str = "strict",
    utilisation: float = UTILISATION,
    load_gbps: float | None = None,
    name: str | None = None,
    held_out_seed: int = 20260525,
    weekdays: int = 5,
    weekends: int = 5,
    overwrite: bool = False,
) -> Scenario:
    """Make a scenario of an imported network, write it as a folder, freeze its held-out days and load it.

    Args:
        network: From `load_network`, or what `load_network` takes.
        folder: Where the scenario is written.
        services: Names of services of Montreal (None: all six), or a scenario folder whose services, functions and
            profiles are used.
        placement: "auto", or a table with `node_id, function` and perhaps `mcpu_per_gbps` (a file or a frame).
        areas: A table as areas.csv; None: every access node is an area, by the network's population.
        destinations: A table as destinations.csv; None: tight services end at the nearest edge pool, industrial
            ones half there and half at other industrial areas, the others at the core.
        latency: "strict" refuses bounds that no placement can meet, "scale" raises them, which is recorded.
        utilisation: Busy-hour utilisation of the fullest link or pool when traffic is spread evenly; sizes the load.
        load_gbps: The load itself, instead of `utilisation`.
        name: Name of the scenario; None: the folder's.
        held_out_seed: Seed of the held-out days.
        weekdays: Number of held-out weekdays.
        weekends: Number of held-out days of the weekend.
        overwrite: Replace a scenario that is already there.

    Returns:
        The scenario, loaded from its folder.

    Raises:
        ScenarioError: Something given is wrong, the folder exists, or some request could never be served.
        StorageError: The folder cannot be written; what was there before stays.
    """
    folder = Path(folder)
    _restore(folder)
    _check_options(folder, latency, utilisation, load_gbps, overwrite)
    imported = network if isinstance(network, Imported) else load_network(network)
    building = beside(folder)
    with storing(folder), _made_beside(building, folder):
        building.mkdir(parents=True)
        draft = write_tables(building, imported, _services_folder(services), _chosen(services), areas, destinations)
        maker = _Maker(building, draft)
        maker.place(placement)
        maker.meet_bounds(latency)
        load, how = (load_gbps, "given") if load_gbps is not None else maker.size_load(utilisation)
        draft.record("load", f"{load:.6g} Gb/s in the busy hour, {how}")
        held_out = {"seed": held_out_seed, "weekdays": weekdays, "weekends": weekends}
        text = toml(name or folder.name, imported, draft, float(f"{load:.6g}"), held_out)
        (building / SETTINGS_FILE).write_text(text, encoding="utf-8", newline="\n")
        draft.assumptions.to_csv(building / "assumptions.csv", index=False, lineterminator="\n")
        imported.origins.to_csv(building / "origins.csv", index=False, lineterminator="\n")
        freeze(building)
        put_in_place(building, folder)
    logger.info("%s: %d nodes, %d links, %.4g Gb/s", folder, imported.network.n_nodes, imported.network.n_links, load)
    return load_scenario(folder)


def _check_options(folder: Path, latency: str, utilisation: float, load_gbps: float | None, overwrite: bool) -> None:
    """Refuse options out of range and a folder that is there."""
    if latency not in ("strict", "scale"):
        raise ScenarioError(problem(None, None, "latency", latency, "strict or scale"))
    for name, value in (("utilisation", utilisation), ("load_gbps", load_gbps)):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 < value <= 1e6):
            raise ScenarioError(problem(None, None, name, value, "a positive number"))
    refuse_taken(folder, overwrite)


def refuse_taken(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that is there, unless it is a scenario that may be replaced."""
    if folder.exists() and not (overwrite and (folder / SETTINGS_FILE).is_file()):
        remedy = "Pass overwrite=True to replace a scenario." if (folder / SETTINGS_FILE).is_file() else ""
        raise ScenarioError(problem(None, None, "folder", str(folder), "one that does not exist yet", remedy))


@contextmanager
def _made_beside(building: Path, folder: Path) -> Iterator[None]:
    """Remove a folder in the making at the end, if it is still there; an error names the folder that was asked for."""
    try:
        yield
    except StorageError as error:
        raise StorageError(str(error).replace(str(building), str(folder))) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def put_in_place(building: Path, folder: Path) -> None:
    """Rename the finished folder to its place; one that is replaced is removed afterwards."""
    if folder.exists():
        folder.rename(_replaced(folder))
    building.rename(folder)
    shutil.rmtree(_replaced(folder), ignore_errors=True)


def _restore(folder: Path) -> None:
    """Undo what a process that was killed in the midst of replacing a scenario left behind."""
    old = _replaced(folder)
    with storing(folder):
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        for left in folder.parent.glob(f".{folder.name}.*.tmp"):
            sweep_one(left)


def _replaced(folder: Path) -> Path:
    """Where a scenario waits while it is replaced."""
    return folder.with_name(f".{folder.name}.replaced")


def _services_folder(services: Sequence[str] | str | Path | None) -> Path:
    """Return the folder that services come from."""
    if not isinstance(services, (str, Path)):
        return SERVICES_FROM
    if not (Path(services) / "services.csv").is_file():
        expected = "a list of services of Montreal, or a folder with services.csv"
        raise ScenarioError(problem(None, None, "services", str(services), expected))
    return Path(services)


def _chosen(services: Sequence[str] | str | Path | None) -> tuple[str, ...] | None:
    """Return the names of services that were chosen, or None for all."""
    return None if services is None or isinstance(services, (str, Path)) else tuple(services)


class _Maker:
    """The middle of making a scenario: placement, bounds and load, on the tables written so far."""

    def __init__(self, folder: Path, draft: Draft) -> None:
        self.folder, self.draft = folder, draft
        self.files = {table: folder / f"{table}.csv" for table in TABLES}
        self.network = read_network(self.files["nodes"], self.files["links"])
        self.functions = read_functions(self.files["functions"])
        self.budget = np.floor(self.network.compute_mcpu * CPU_CAP).astype(np.int64)
        self.services = read_services(self.files["services"], self.functions)
        self.traffic: Traffic = read_traffic(self.files, self.network, self.services, 1.0, WEEKEND_LEVEL)

    def routes(self, service: Service, rate: np.ndarray) -> ChainRoutes:
        """Return a service's routes under a placement."""
        s = [one.service for one in self.services].index(service.service)
        at, destination = self.traffic.area_node, self.traffic.destination[s]
        return ChainRoutes(self.network, service, self.functions, rate, self.budget, at, destination)

    def worst_ms(self, service: Service, rate: np.ndarray) -> float:
        """Return the worst idle latency that somebody may ask for, in ms."""
        s = [one.service for one in self.services].index(service.service)
        asked = (self.traffic.destination[s] > 0) & (self.traffic.rate_per_s[:, s].sum(axis=(0, 2)) > 0)[:, None]
        return float(self.routes(service, rate).latencies_ms()[asked].max())

    def place(self, placement: str | Path | pd.DataFrame) -> None:
        """Write placement.csv: the one given, or the automatic one."""
        path = self.files["placement"]
        if isinstance(placement, str) and placement == "auto":
            rate, widened = place(self.network, self.services, self.functions, self.worst_ms)
            rows = [
                (self.network.node_ids[v], self.functions[f].function)
                for v, f in zip(*np.nonzero(rate >= 0), strict=True)
            ]
            pd.DataFrame(rows, columns=["node_id", "function"]).to_csv(path, index=False, lineterminator="\n")
            rule = "light functions at access nodes, all at edge pools and core"
            wider = f"; those of {', '.join(widened)} at every node with compute" if widened else ""
            self.draft.record("placement", f"auto: {rule}{wider}")
        else:
            self.draft.copy(placement, path)
            self.draft.record("placement", "given")
        self.rate = read_placement(path, self.network, self.functions)

    def meet_bounds(self, latency: str) -> None:
        """Check that the largest request of every service can be completed in time, or raise bounds if told to."""
        worst = {service.service: self.worst_ms(service, self.rate) for service in self.services}
        for service in self.services:
            if not np.isfinite(worst[service.service]):
                self._refuse_too_large(service)
        late = [service for service in self.services if worst[service.service] > service.latency_ms]
        if late and latency == "strict":
            listed = "; ".join(f"{s.service} {worst[s.service]:.1f} ms of {s.latency_ms:g} ms" for s in late)
            why = (
                "No placement can meet them"
                if self.draft.told["placement"] != "given"
                else "This placement misses them"
            )
            kept = ", ".join(f"{s.service!r}" for s in self.services if s not in late)
            raise ScenarioError(
                f"bounds are missed even on an idle network: {listed}. {why}: pass latency='scale' to raise these "
                f"bounds (recorded in scenario.toml), or leave the services out: services=[{kept}]."
            )
        if late:
            bounds = {s.service: float(f"{SLACK * worst[s.service]:.3g}") for s in late}
            self.draft.raise_bounds({s.service: (s.latency_ms, bounds[s.service]) for s in late})

    def _refuse_too_large(self, service: Service) -> None:
        """Refuse a service whose largest request fits no route at all."""
        largest = service.bundle_max * service.unit_kbps_max
        raise ScenarioError(
            problem(
                None,
                None,
                f"largest request of {service.service} in kbps",
                largest,
                f"one that links (smallest {self.network.capacity_kbps.min():,} kbps) and pools can carry alone",
                "Raise capacities (Rules(capacity_scale=...)), compute (Rules(cores_per_gbps=...)), or leave it out.",
            )
        )

    def size_load(self, utilisation: float) -> tuple[float, str]:
        """Return the load in Gb/s that brings the fullest link or pool to a utilisation, and how it was found."""
        services = read_services(self.files["services"], self.functions)  # bounds may have been raised
        offered = self.traffic.offered_kbps()[0]  # weekday, [S, A, 24], for 1 Gb/s
        hour = int(offered.sum(axis=(0, 1)).argmax())
        routes = [self.routes(service, self.rate) for service in services]
        full = fullest(routes, offered[:, :, hour], self.network.capacity_kbps, self.budget)
        load = full.load_gbps(utilisation)
        shares = [f"{share * load:.0%}" for share in (full.spread_link, full.spread_pool)]
        shortest = [f"{share * load:.0%}" for share in (full.shortest_link, full.shortest_pool)]
        return load, (
            f"which fills the fullest link to {shares[0]} and the fullest pool to {shares[1]} when it is spread evenly "
            f"({' and '.join(shortest)} on shortest routes)"
        )
