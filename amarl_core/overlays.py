"""Overlays: small TOML files that say how a scenario's world or traffic differs, such as twice the load.

`load_scenario("montreal+load-200")` is Montreal changed by `data/overlays/load-200.toml`; several may follow each
other. Here a file is read and its form checked; `overlaid` changes the world by it. `data/README.md` lists all keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from amarl_core.bursts import POISSON, PROCESSES, SCOPES, Arrivals
from amarl_core.draws import DISTRIBUTIONS, EXPONENTIAL, Holding
from amarl_core.errors import ScenarioError, problem
from amarl_core.settings import TABLES, Section, read_toml
from amarl_core.tables import names

SEPARATOR = "+"
FACTOR_MAX = 100.0
ORDINARY = "ordinary"
"""What a scenario without an overlay is called beside those with one."""

FAMILIES = {
    "service mix": "demand",
    "load": "demand",
    "hot spot": "demand",
    "arrivals": "demand",
    "holding times": "demand",
    "capacity": "network",
    "failed link": "network",
    "placement": "network",
    "unseen network": "network",
    "other": "other",
}
"""Each family of overlays, and whether demand changes or the network."""
_KEYS = ("title", "base", "family", "traffic", "hot_spots", "arrivals", "holding", "capacity", "failed", "placement")


@dataclass(frozen=True)
class HotSpot:
    """An event that draws people to a place for some hours.

    Attributes:
        venue: A name in venues.csv of the scenario's folder, or "".
        node: The site of an area, if no venue is given.
        from_h: When it begins, hour of the day.
        hours: How long it lasts.
        attendance: People it draws, who ask for services as residents do; None: the venue's capacity.
        activity: How often one of them asks for a service, over how often a resident does.
        factor: Requests over those of an ordinary day, instead of people.
        services: Which services; () for all.
    """

    venue: str
    node: str
    from_h: float
    hours: float
    attendance: float | None
    activity: float
    factor: float | None
    services: tuple[str, ...]


@dataclass(frozen=True)
class Overlay:
    """What an overlay says; factors multiply what the scenario has.

    Attributes:
        name: Name of the file, without suffix.
        path: The file.
        title: What it is, in words.
        base: The scenario it is meant for, or "" for any.
        family: The kind of change, one of `FAMILIES`; for grouping in figures.
        load_factor: Of the requests of all services.
        service_factors: Of the requests of one.
        hot_spots: Events.
        arrivals: How requests arrive.
        holding: How long they hold.
        link_factors: Of capacity: of "all" links, between two tiers ("agg-core"), or of one link by its id.
        compute_factors: Of compute: of "all" nodes, a tier, or one node by its id.
        failed_links: Identifiers of links that are gone, each with the link the other way.
        placement: Functions by node, where they differ.
        tables: Files that stand in for the scenario's.
        digest: sha256 of all that changes the world.
    """

    name: str
    path: Path
    title: str
    base: str
    family: str
    load_factor: float
    service_factors: Mapping[str, float]
    hot_spots: tuple[HotSpot, ...]
    arrivals: Arrivals
    holding: Holding
    link_factors: Mapping[str, float]
    compute_factors: Mapping[str, float]
    failed_links: tuple[str, ...]
    placement: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, Path]
    digest: str

    @property
    def changes_demand(self) -> bool:
        """Whether requests come in other numbers, at other places, at other times or for longer."""
        is_even = self.load_factor == 1 and not self.service_factors and not self.hot_spots
        return not is_even or self.arrivals.is_bursty or self.holding != EXPONENTIAL


def known_overlays(folder: Path, base: str = "") -> tuple[str, ...]:
    """Return the names of the overlays in a folder that are meant for a scenario, or of all."""
    listed = {path.stem: read_toml(path).given.get("base", "") for path in sorted(folder.glob("*.toml"))}
    return tuple(name for name, meant in listed.items() if not base or meant in ("", base))


def read_overlay(path: Path) -> Overlay:
    """Read an overlay; an unknown key is an error that lists the valid ones.

    Raises:
        ScenarioError: At the first fault, with file, key, value and expectation.
    """
    top = read_toml(path)
    top.only(*_KEYS, "tables")
    if SEPARATOR in path.stem:
        raise ScenarioError(problem(path, None, "file name", path.name, f"one without {SEPARATOR!r}", "Rename it."))
    traffic = top.section("traffic", optional=True)
    traffic.only("load_factor", "services")
    capacity, failed = top.section("capacity", optional=True), top.section("failed", optional=True)
    capacity.only("links", "compute")
    failed.only("links")
    tables, placement = top.section("tables", optional=True), top.section("placement", optional=True)
    tables.only(*TABLES)
    if top.text("family", "other") not in FAMILIES:
        raise top.fail("family", f"one of {', '.join(FAMILIES)}")
    files = {table: tables.path(table) for table in tables.given}
    return Overlay(
        name=path.stem,
        path=path,
        title=top.text("title", path.stem),
        base=top.text("base", ""),
        family=top.text("family", "other"),
        load_factor=traffic.number("load_factor", FACTOR_MAX, 1.0),
        service_factors=_factors(traffic, "services"),
        hot_spots=tuple(_read_hot_spot(section) for section in top.sections("hot_spots")),
        arrivals=_read_arrivals(top.section("arrivals")) if "arrivals" in top.given else POISSON,
        holding=_read_holding(top.section("holding")) if "holding" in top.given else EXPONENTIAL,
        link_factors=_factors(capacity, "links"),
        compute_factors=_factors(capacity, "compute"),
        failed_links=failed.texts("links"),
        placement={node: placement.texts(node) for node in placement.given},
        tables=files,
        digest=_digest(top, files),
    )


def _factors(section: Section, key: str) -> dict[str, float]:
    """Read a table of positive factors."""
    table = section.section(key, optional=True)
    return {name: table.number(name, FACTOR_MAX) for name in table.given}


def _read_hot_spot(section: Section) -> HotSpot:
    """Read one of [[hot_spots]]."""
    section.only("venue", "node", "from_h", "hours", "attendance", "activity", "factor", "services")
    given = section.given
    if ("venue" in given) == ("node" in given):
        raise section.fail("venue", "a place: either venue or node")
    if "factor" in given and ("attendance" in given or "activity" in given):
        raise section.fail("factor", "either factor, or attendance and activity")
    if "node" in given and "factor" not in given and "attendance" not in given:
        raise section.fail("attendance", "people who come, or a factor; only a venue has a capacity of its own")
    from_h = 0.0 if given.get("from_h") == 0 else section.number("from_h", 24.0)
    hours = section.number("hours", 24.0)
    if from_h + hours > 24:
        raise section.fail("hours", f"an end by midnight, so at most {24 - from_h:g}")
    return HotSpot(
        section.text("venue", ""),
        section.text("node", ""),
        from_h,
        hours,
        section.number("attendance", 1e9) if "attendance" in given else None,
        section.number("activity", FACTOR_MAX, 1.0),
        section.number("factor", FACTOR_MAX) if "factor" in given else None,
        section.texts("services"),
    )


def _read_arrivals(section: Section) -> Arrivals:
    """Read [arrivals]."""
    section.only("process", "burst_factor", "burst_share", "burst_s", "scope")
    process, scope = section.text("process"), section.text("scope", "network")
    for key, value, valid in (("process", process, PROCESSES), ("scope", scope, SCOPES)):
        if value not in valid:
            raise section.fail(key, f"one of {names(valid)}")
    if process == "poisson":
        section.only("process")
        return POISSON
    factor, share = section.number("burst_factor", 1000.0), section.number("burst_share", 0.99, 0.5)
    return Arrivals(process, factor, share, section.number("burst_s", 86_400.0, 300.0), scope)


def _read_holding(section: Section) -> Holding:
    """Read [holding]."""
    section.only("distribution", "sigma", "alpha")
    distribution = section.text("distribution")
    if distribution not in DISTRIBUTIONS:
        raise section.fail("distribution", f"one of {names(DISTRIBUTIONS)}")
    key = {"lognormal": "sigma", "pareto": "alpha"}.get(distribution)
    section.only("distribution", *([key] if key else []))
    if key is None:
        return EXPONENTIAL
    shape = section.number(key, 10.0)
    if key == "alpha" and shape <= 1:
        raise section.fail(key, "a tail index above 1: at 1 and below there is no mean to keep")
    return Holding(distribution, shape)


def _digest(top: Section, files: Mapping[str, Path]) -> str:
    """Return the sha256 of what changes the world: all but the words, and the tables themselves."""
    said = {key: value for key, value in top.given.items() if key not in ("title", "base", "family", "tables")}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for table in sorted(files):
        content = files[table].read_bytes().replace(b"\r\n", b"\n") if files[table].is_file() else b""
        digest.update(f"{table} {len(content)}\n".encode() + content)
    return digest.hexdigest()
