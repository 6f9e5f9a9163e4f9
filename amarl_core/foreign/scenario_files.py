"""The files of a scenario that is made from an imported network: its tables and its scenario.toml."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from amarl_core.errors import ScenarioError, problem
from amarl_core.imported import Imported
from amarl_core.services import Service, read_functions, read_services
from amarl_core.tables import names
from amarl_core.topology import LINK_COLUMNS, NODE_COLUMNS, Network

CPU_CAP = 0.8
WEEKEND_LEVEL = {"office": 0.56, "transport": 0.67}
LAND_USE = {"residential": 0.5, "office": 0.2, "transport": 0.1, "entertainment": 0.1, "industrial": 0.1}
JOBS_PER_PERSON = 0.5
PEOPLE_PER_KM2 = 5000.0
TIGHT_MS = 20.0
"""A service with a bound below this ends at an edge pool, any other at the core."""
INDUSTRY_AREAS = 8


@dataclass
class Draft:
    """A folder in the making: where its files are, and what was told of how they were made."""

    folder: Path
    assumptions: pd.DataFrame
    told: dict[str, str] = field(default_factory=dict)
    before_ms: dict[str, float] = field(default_factory=dict)

    def record(self, quantity: str, told: str) -> None:
        """Add a row to the assumptions."""
        self.told[quantity] = told
        row = pd.DataFrame([{"quantity": quantity, "from_file": 0, "by_rule": 0, "rule": told}])
        self.assumptions = pd.concat([self.assumptions, row], ignore_index=True)

    def copy(self, table: str | Path | pd.DataFrame, path: Path) -> None:
        """Write a table that the user gives, as a file or a frame; it is checked when it is read."""
        if isinstance(table, pd.DataFrame):
            table.to_csv(path, index=False, lineterminator="\n")
        elif Path(table).is_file():
            shutil.copyfile(table, path)
        else:
            raise ScenarioError(problem(None, None, path.stem, str(table), "a file or a pandas.DataFrame"))

    def raise_bounds(self, bounds: dict[str, tuple[float, float]]) -> None:
        """Raise latency bounds in services.csv, from and to by service, and record it."""
        path = self.folder / "services.csv"
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        for service, (before, after) in bounds.items():
            table.loc[table["service"].str.strip() == service, "latency_ms"] = f"{after:g}"
            self.before_ms[service] = before
        table.to_csv(path, index=False, lineterminator="\n")
        listed = ", ".join(f"{service} {before:g} to {after:g} ms" for service, (before, after) in bounds.items())
        self.record("latency", f"bounds that no route meets, to 1.25 x the worst idle latency: {listed}")


def write_tables(
    folder: Path,
    imported: Imported,
    services_from: Path,
    chosen: tuple[str, ...] | None,
    areas: Path | pd.DataFrame | None,
    destinations: Path | pd.DataFrame | None,
) -> Draft:
    """Write every table but the placement.

    Args:
        folder: The folder in the making.
        imported: The network.
        services_from: Scenario folder of services, functions and profiles.
        chosen: Names of the services to keep, None for all.
        areas: The user's areas, or None.
        destinations: The user's destinations, or None.
    """
    draft = Draft(folder, imported.assumptions.copy())
    _write_network(folder, imported.network)
    for table in ("functions", "landuse_profiles"):
        draft.copy(services_from / f"{table}.csv", folder / f"{table}.csv")
    services = _write_services(folder, services_from, chosen)
    draft.record("services", f"{', '.join(s.service for s in services)}, as in {services_from.name}")
    if areas is None:
        _write_areas(folder / "areas.csv", imported)
        mix = ", ".join(f"{use} {share:g}" for use, share in LAND_USE.items())
        draft.record("areas", f"every access node; {JOBS_PER_PERSON:g} jobs a person, land use {mix}")
    else:
        draft.copy(areas, folder / "areas.csv")
        draft.record("areas", "given")
    if destinations is None:
        n_areas = len(pd.read_csv(folder / "areas.csv"))
        _write(
            folder / "destinations.csv",
            ("service", "rule", "weight"),
            _destinations(services, imported.network, n_areas),
        )
        told = f"bounds below {TIGHT_MS:g} ms: the nearest edge pool; half of what only work asks for: industrial areas"
        draft.record("destinations", f"{told}; others: nearest core node 0.75, others 0.25")
    else:
        draft.copy(destinations, folder / "destinations.csv")
        draft.record("destinations", "given")
    return draft


def _write(path: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_network(folder: Path, network: Network) -> None:
    """Write nodes.csv and links.csv."""
    numbers = (network.lat.tolist(), network.lon.tolist(), network.compute_mcpu.tolist())
    nodes = zip(
        network.node_ids, network.name, network.tier, *numbers, network.transit.astype(int).tolist(), strict=True
    )
    _write(folder / "nodes.csv", tuple(NODE_COLUMNS), list(nodes))
    ends = ([network.node_ids[v] for v in at] for at in (network.source, network.target))
    figures = (network.capacity_kbps.tolist(), network.delay_ms.tolist(), network.length_km.tolist())
    _write(folder / "links.csv", tuple(LINK_COLUMNS), list(zip(network.link_ids, *ends, *figures, strict=True)))


def _write_services(folder: Path, services_from: Path, chosen: tuple[str, ...] | None) -> tuple[Service, ...]:
    """Write services.csv and service_profiles.csv, with the chosen services only."""
    functions = read_functions(services_from / "functions.csv")
    known = [service.service for service in read_services(services_from / "services.csv", functions)]
    for service in chosen or ():
        if service not in known:
            raise ScenarioError(problem(None, None, "service", service, f"one of {names(known)}"))
    if chosen is not None and (not chosen or len(set(chosen)) < len(chosen)):
        raise ScenarioError(
            problem(None, None, "services", list(chosen), f"each of {names(known)} at most once, one at least")
        )
    kept = [service for service in known if chosen is None or service in chosen]
    table = pd.read_csv(services_from / "services.csv", dtype=str, keep_default_na=False)
    table[table["service"].str.strip().isin(kept)].to_csv(folder / "services.csv", index=False, lineterminator="\n")
    profiles = pd.read_csv(services_from / "service_profiles.csv", dtype=str, keep_default_na=False)
    columns = [column for column in profiles if column.strip() not in known or column.strip() in kept]
    profiles[columns].to_csv(folder / "service_profiles.csv", index=False, lineterminator="\n")
    return read_services(folder / "services.csv", functions)


def _write_areas(path: Path, imported: Imported) -> None:
    """Write areas.csv: an area for each access node."""
    network = imported.network
    rows = [
        (
            network.node_ids[v],
            network.name[v],
            round(max(imported.population[v] / PEOPLE_PER_KM2, 0.1), 3),
            int(imported.population[v]),
            round(imported.population[v] * JOBS_PER_PERSON),
            *LAND_USE.values(),
        )
        for v in network.tier_nodes("du")
    ]
    if not rows:
        expected = "an access node, tier du"
        raise ScenarioError(problem(None, None, "tiers", names(sorted(set(network.tier))), expected, "Pass areas=..."))
    header = ("node_id", "name", "land_km2", "population", "jobs", *(f"w_{use}" for use in LAND_USE))
    _write(path, header, rows)


def _destinations(services: tuple[Service, ...], network: Network, n_areas: int) -> list[tuple]:
    """Return destination rules by the services' bounds."""
    tiers = {tier: len(network.tier_nodes(tier)) for tier in ("cu", "core")}
    for tier, count in tiers.items():
        if not count:
            found = names(sorted(set(network.tier)))
            raise ScenarioError(problem(None, None, "tiers", found, f"a node of tier {tier}", "Pass destinations=..."))
    rows: list[tuple] = []
    for service in services:
        if service.latency_ms >= TIGHT_MS and tiers["core"] > 1:
            rows += [(service.service, "nearest:core", 0.75), (service.service, "other:core", 0.25)]
        elif service.latency_ms >= TIGHT_MS:
            rows += [(service.service, "nearest:core", 1)]
        elif not service.attract_population and service.attract_industry and n_areas > 1:
            industry = f"industry:{min(INDUSTRY_AREAS, n_areas)}"
            rows += [(service.service, "nearest:cu", 0.5), (service.service, industry, 0.5)]
        else:
            rows += [(service.service, "nearest:cu", 1)]
    return rows


def toml(name: str, imported: Imported, draft: Draft, load_gbps: float, held_out: dict[str, int]) -> str:
    """Return scenario.toml, without the section that freezing adds."""
    sections = {
        "": {"name": name, "title": f"{imported.name}, imported from {imported.source}", "cpu_cap": CPU_CAP},
        "tables": {},
        "traffic": {"load_gbps": load_gbps, "weekend_level": WEEKEND_LEVEL},
        "held_out": held_out,
        "source": {
            "network": imported.source,
            "format": imported.format,
            "sha256": imported.sha256,
            **{key: draft.told[key] for key in ("services", "placement", "load")},
            "warnings": list(imported.warnings),
        },
        "source.rules": imported.rules.record(),
        "source.latency_before_ms": draft.before_ms,
    }
    lines = []
    for section, values in sections.items():
        lines += ["", f"[{section}]"] if section else []
        lines += [
            f"{key if key.isascii() and key.isidentifier() else json.dumps(key, ensure_ascii=False)} = {_value(value)}"
            for key, value in values.items()
        ]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    """Write a value as TOML; texts hold printable characters only."""
    if isinstance(value, dict):
        inside = ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {_value(one)}" for key, one in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, (str, bool)):
        return json.dumps(value, ensure_ascii=False)
    return repr(float(value)) if isinstance(value, float) else str(int(value))
