"""A scenario: a folder of small tables that defines the whole world, read and checked in one go.

`load_scenario("montreal")` reads `data/montreal/`; `load_scenario("path/to/folder")` reads any other folder
of the same form; `load_scenario("montreal+load-200")` is Montreal with the overlay `data/overlays/load-200.toml`.
`data/README.md` describes the files.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np

from amarl_core.errors import ScenarioError, TraceError, problem
from amarl_core.overlaid import overlaid_network, overlaid_placement, overlaid_traffic
from amarl_core.overlays import SEPARATOR, Overlay, known_overlays, read_overlay
from amarl_core.services import (
    CHAIN_SEPARATOR,
    Function,
    Service,
    chain_delays,
    read_functions,
    read_placement,
    read_services,
)
from amarl_core.settings import SETTINGS_FILE, TABLES, Settings, read_settings
from amarl_core.topology import Network, read_network
from amarl_core.traces import Trace, join, load_trace
from amarl_core.traffic import Traffic, generate_day, read_traffic

logger = logging.getLogger(__name__)

DATA_FOLDER = Path(__file__).resolve().parent.parent / "data"
OVERLAYS_FOLDER = DATA_FOLDER / "overlays"
DAYS_A_WEEK = 7
WORKING_DAYS = 5
TRAINING_STREAM = 0
HELD_OUT_STREAM = 1


@dataclass(frozen=True, eq=False)
class Scenario:
    """A world (N nodes, E links, S services of at most K stages, F functions).

    Attributes:
        name: Name of the scenario.
        folder: Where it was read from.
        settings: What its scenario.toml says.
        network: The network.
        services: The services, S.
        functions: The functions, F.
        traffic: What the generator draws from.
        budget_mcpu: Usable millicores of each node (paper: kappa_v), int64 [N].
        chains: Function index of each stage, int32 [S, K], padded with -1.
        chain_length: Number of stages, int32 [S].
        latency_ms: Bound of each service (paper: tau_p), float64 [S].
        rate_mcpu_per_gbps: Millicores for each Gb/s (paper: c_{v,f}), int64 [N, F], -1 where not hosted.
        processing_ms: Idle processing delay of each function, float64 [F].
        delay_to_go: Least idle delay still to go, float64 [S, K+1, N, N] by
            [service, stage, destination, node].
        delay_so_far: Least idle delay so far, float64 [S, K+1, N, N] by [service, stage, source, node].
        stub: True for a node entered only as a destination, bool [N].
        digest: sha256 of the defining files.
        overlays: What changes the scenario in the folder, in order.
    """

    name: str
    folder: Path
    settings: Settings
    network: Network
    services: tuple[Service, ...]
    functions: tuple[Function, ...]
    traffic: Traffic
    budget_mcpu: np.ndarray
    chains: np.ndarray
    chain_length: np.ndarray
    latency_ms: np.ndarray
    rate_mcpu_per_gbps: np.ndarray
    processing_ms: np.ndarray
    delay_to_go: np.ndarray
    delay_so_far: np.ndarray
    stub: np.ndarray
    digest: str
    overlays: tuple[Overlay, ...] = ()

    @property
    def cpu_cap(self) -> float:
        """Share of a node's compute that may be used."""
        return self.settings.cpu_cap

    @cached_property
    def service_ids(self) -> tuple[str, ...]:
        """Identifiers of the services."""
        return tuple(service.service for service in self.services)

    @cached_property
    def hold_mean_s(self) -> np.ndarray:
        """Mean holding time of each service in s, float64 [S]."""
        return np.array([service.hold_mean_s for service in self.services])

    @cached_property
    def function_ids(self) -> tuple[str, ...]:
        """Identifiers of the functions."""
        return tuple(function.function for function in self.functions)

    @property
    def test_days(self) -> tuple[str, ...]:
        """Names of the held-out days."""
        return self.settings.test_days

    @property
    def test_day_sha256(self) -> dict[str, str]:
        """Recorded checksum of each held-out day."""
        return dict(self.settings.frozen_sha256)

    def training_trace(self, seed: int, days: int = 1, first_day: int = 0) -> Trace:
        """Generate training days as one continuous timeline.

        Day 0 is a Monday and starts at second 0. A day depends on the seed and its number only, and never
        coincides with a held-out day, whose random stream is another one.

        Args:
            seed: Any integer from 0.
            days: Number of days.
            first_day: Number of the first one.

        Returns:
            The requests, with t_s from `first_day` x 86400.
        """
        for key, value, least in (("seed", seed, 0), ("days", days, 1), ("first_day", first_day, 0)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise TraceError(problem(None, None, key, value, f"an integer of at least {least}"))
        parts = []
        for day in range(first_day, first_day + days):
            stream = np.random.SeedSequence(seed, spawn_key=(TRAINING_STREAM, day))
            kind = int(day % DAYS_A_WEEK >= WORKING_DAYS)
            parts.append(generate_day(self.traffic, stream, day, kind, f"train-{seed}"))
        return join(parts, f"train-{seed}-{first_day}-{days}")

    def generate_test_day(self, day: str) -> Trace:
        """Generate a held-out day from its reserved seed, without any check."""
        if day not in self.test_days:
            raise TraceError(problem(None, None, "test day", day, f"one of {', '.join(self.test_days)}"))
        stream = np.random.SeedSequence(
            self.settings.held_out_seed, spawn_key=(HELD_OUT_STREAM, self.test_days.index(day))
        )
        return generate_day(self.traffic, stream, 0, int(day.startswith("test-weekend")), day)

    def test_trace(self, day: str) -> Trace:
        """Return a held-out day, checked against its recorded checksum.

        Under an overlay nothing is recorded: the day is drawn from the same seed, so where the overlay leaves the
        traffic alone it is the same day, request by request.

        Args:
            day: One of `test_days`.

        Returns:
            The requests, with t_s from 0.

        Raises:
            TraceError: The day is unknown, none is recorded for it, or it is not the day that was recorded.
        """
        if self.overlays:
            return self.generate_test_day(day)
        recorded = self.settings.frozen_sha256.get(day)
        if day in self.test_days and recorded is None:
            raise TraceError(
                problem(
                    self.folder / SETTINGS_FILE,
                    None,
                    f"test_day_sha256 of {day}",
                    "missing",
                    "a recorded checksum",
                    f"Run `python -m amarl_core.freeze {self.folder}` first.",
                )
            )
        committed = self.settings.committed.get(day)
        if committed is None:
            trace = self.generate_test_day(day)
        else:
            loaded = load_trace(committed, self)
            trace = loaded if loaded.name == day else replace(loaded, name=day)
        if trace.sha256 != recorded:
            raise TraceError(
                problem(
                    committed or self.folder / SETTINGS_FILE,
                    None,
                    f"sha256 of {day}",
                    trace.sha256[:12],
                    f"{recorded[:12]}, as recorded when the scenario was frozen",
                    "Restore the scenario's files, or freeze it anew before any learner trains.",
                )
            )
        return trace


def known_scenarios() -> tuple[str, ...]:
    """Return the names of the scenarios that come with the project."""
    return tuple(sorted(path.parent.name for path in DATA_FOLDER.glob(f"*/{SETTINGS_FILE}")))


def find_folder(name_or_path: str | Path) -> Path:
    """Return a scenario's folder by its name or path, or list the known names."""
    known = known_scenarios()
    if isinstance(name_or_path, str) and name_or_path in known:
        return DATA_FOLDER / name_or_path
    path = Path(name_or_path)
    if (path / SETTINGS_FILE).is_file():
        return path
    raise ScenarioError(
        problem(
            None,
            None,
            "scenario",
            str(name_or_path),
            f"one of {', '.join(known)}, or a folder with {SETTINGS_FILE}",
        )
    )


def find_overlay(name: str) -> Path:
    """Return the file of an overlay by its name, or list the known names."""
    path = OVERLAYS_FOLDER / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(known_overlays(OVERLAYS_FOLDER))
        raise ScenarioError(problem(None, None, "overlay", name, f"one of {known}", "Or give the path of a file."))
    return path


def _parts_of(name_or_path: str | Path) -> tuple[Path, tuple[Overlay, ...]]:
    """Return the folder of a scenario and the overlays that its name adds."""
    if str(name_or_path).endswith(".toml") and Path(name_or_path).is_file():
        overlay = read_overlay(Path(name_or_path))
        if not overlay.base:
            expected = 'the scenario that it changes, such as base = "montreal"'
            raise ScenarioError(problem(overlay.path, None, "base", "missing", expected))
        return find_folder(overlay.base), (overlay,)
    if isinstance(name_or_path, str) and not Path(name_or_path).exists():
        base, *added = name_or_path.split(SEPARATOR)
        return find_folder(base), tuple(read_overlay(find_overlay(name)) for name in added)
    return find_folder(name_or_path), ()


def load_scenario(name_or_path: str | Path) -> Scenario:
    """Read a scenario, checked in full.

    Args:
        name_or_path: Name of a folder in `data/`, or the path of any scenario folder, followed by any number of
            overlays of `data/overlays/` ("montreal+load-200"); or the path of an overlay that names its base.

    Returns:
        The scenario.

    Raises:
        ScenarioError: At the first fault, with file, row, column, value, expectation and remedy.
    """
    folder, overlays = _parts_of(name_or_path)
    settings = read_settings(folder)
    for overlay in overlays:
        name = f"{settings.name}{SEPARATOR}{overlay.name}"
        settings = replace(settings, name=name, tables={**settings.tables, **overlay.tables}, frozen_digest="")
    tables = settings.tables
    network = read_network(tables["nodes"], tables["links"])
    functions = read_functions(tables["functions"])
    services = read_services(tables["services"], functions)
    rate = read_placement(tables["placement"], network, functions)
    traffic = read_traffic(tables, network, services, settings.load_gbps, settings.weekend_level)
    for overlay in overlays:
        network = overlaid_network(network, overlay)
        rate = overlaid_placement(rate, network, functions, overlay)
        traffic = overlaid_traffic(traffic, folder, overlay)
    chains, chain_length = _chain_arrays(services, functions)
    processing_ms = np.array([function.processing_ms for function in functions])
    delays = chain_delays(network, chains, chain_length, rate >= 0, processing_ms)
    _check_completable(network, services, traffic, delays.to_go, any(overlay.failed_links for overlay in overlays))
    digest = _digest(settings, overlays)
    if settings.frozen_digest and settings.frozen_digest != digest:
        logger.warning("%s has changed since it was frozen: its records do not compare with earlier ones", folder)
    cap = Fraction(str(settings.cpu_cap))
    budget = [int(raw) * cap.numerator // cap.denominator for raw in network.compute_mcpu]
    return Scenario(
        name=settings.name,
        folder=folder,
        settings=settings,
        network=network,
        services=services,
        functions=functions,
        traffic=traffic,
        budget_mcpu=np.array(budget, dtype=np.int64),
        chains=chains,
        chain_length=chain_length,
        latency_ms=np.array([service.latency_ms for service in services]),
        rate_mcpu_per_gbps=rate,
        processing_ms=processing_ms,
        delay_to_go=delays.to_go,
        delay_so_far=delays.so_far,
        stub=~network.transit,
        digest=digest,
        overlays=overlays,
    )


def _chain_arrays(services: tuple[Service, ...], functions: tuple[Function, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return chains as function indices, int32 [S, K] padded with -1, and their lengths, int32 [S]."""
    index = {function.function: f for f, function in enumerate(functions)}
    chains = np.full((len(services), max(len(service.chain) for service in services)), -1, dtype=np.int32)
    for s, service in enumerate(services):
        chains[s, : len(service.chain)] = [index[function] for function in service.chain]
    return chains, np.array([len(service.chain) for service in services], dtype=np.int32)


def _check_completable(
    network: Network, services: tuple[Service, ...], traffic: Traffic, delay_to_go: np.ndarray, has_failed: bool
) -> None:
    """Refuse a world in which a request that may be asked for cannot be served even when all is idle.

    Where links failed that is part of what is studied: such requests are rejected, and a warning says so.
    """
    for s, service in enumerate(services):
        asked = traffic.rate_per_s[:, s].sum(axis=(0, 2)) > 0  # [A]
        least = delay_to_go[s, 0][:, traffic.area_node].T  # [A, N], indexed [area, destination]
        late = asked[:, None] & (traffic.destination[s] > 0) & (least > service.latency_ms)
        if late.any():
            area, destination = np.unravel_index(np.argmax(late), late.shape)
            chain = CHAIN_SEPARATOR.join(service.chain)
            route = f"{network.node_ids[traffic.area_node[area]]} to {network.node_ids[destination]}"
            said = problem(
                None,
                None,
                f"least idle delay in ms of {service.service} from {route} through {chain}",
                round(float(least[area, destination]), 3),
                f"at most its bound of {service.latency_ms:g}",
                "Shorten its links, host its functions nearer, or raise latency_ms in services.csv.",
            )
            if not has_failed:
                raise ScenarioError(said)
            logger.warning("with links failed, %d pairs cannot be served, the first: %s", late.sum(), said)


def _digest(settings: Settings, overlays: tuple[Overlay, ...]) -> str:
    """Return the sha256 of all that defines the scenario, whatever the line endings of its files."""
    defining = [settings.name, settings.cpu_cap, settings.load_gbps, dict(settings.weekend_level)]
    digest = hashlib.sha256(
        json.dumps([*defining, settings.held_out_seed, settings.test_days], sort_keys=True).encode()
    )
    for table in TABLES:
        content = settings.tables[table].read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{table} {len(content)}\n".encode() + content)
    for overlay in overlays:
        digest.update(f"overlay {overlay.digest}\n".encode())
    return digest.hexdigest()
