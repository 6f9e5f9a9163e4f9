"""Who asks for what, when and where: the seeded generator of request traces.

A non-homogeneous Poisson process for every service and area, whose rate follows the area's land use and the
service's own profile by the hour:

    rate(area, service, t) = L_service x attraction(area) x sqrt(landuse(area, t) x profile(service, t))

L_service comes from Little's law: in its own busiest weekday hour a service offers its share of the load, so
share x load / (mean bandwidth) requests are in progress, which divided by the mean hold is the rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amarl_core.bursts import POISSON, Arrivals, burst_factors
from amarl_core.draws import EXPONENTIAL, Holding, draw_bundles, draw_destinations, draw_holds_ms
from amarl_core.errors import ScenarioError, problem
from amarl_core.services import Service
from amarl_core.tables import Column, names, read_csv
from amarl_core.topology import Network, least_delays
from amarl_core.traces import DAY_S, Trace

DAY_KINDS = ("weekday", "weekend")
HOURS = 24
MINUTES = 1440
REQUESTS_A_DAY_MAX = 10_000_000
"""Request ids of day d start at d times this."""
LAND_USES = ("residential", "office", "transport", "entertainment", "industrial")
LAND_USE_PROFILE = {use: use for use in LAND_USES} | {"industrial": "office"}
AREA_COLUMNS = {
    "node_id": Column("text", unique=True),
    "name": Column("text"),
    "kind": Column("text", optional=True),
    "lat": Column("float", least=-90, most=90, optional=True),
    "lon": Column("float", least=-180, most=180, optional=True),
    "land_km2": Column("float", above=0, unit="square km"),
    "population": Column("int", least=0),
    "jobs": Column("int", least=0),
    "jobs_flag": Column("text", optional=True),
    **{f"w_{use}": Column("float", least=0, most=1) for use in LAND_USES},
}
LANDUSE_COLUMNS = {
    "day": Column("text"),
    "hour": Column("int", least=0, most=23),
    **{use: Column("float", least=0) for use in LAND_USES if LAND_USE_PROFILE[use] == use},
}
DESTINATION_COLUMNS = {
    "service": Column("text"),
    "rule": Column("text"),
    "weight": Column("float", above=0, most=1),
}
RULES = "nearest:<tier>, other:<tier>, node:<node_id> or industry:<number of areas>"


@dataclass(frozen=True, eq=False)
class Traffic:
    """What the generator draws from (S services, A areas, N nodes).

    Attributes:
        services: The services.
        node_ids: Names of the nodes.
        area_node: Node index of each area's site, int32 [A].
        rate_per_s: Requests a second, float64 [2, S, A, 24], indexed [kind of day, service, area, hour].
        destination: Probability of each destination, float64 [S, A, N]; rows sum to 1.
        population: Residents of each area, float64 [A].
        attraction: How much of each service an area asks for, relative to others, float64 [S, A].
        arrivals: Whether requests come evenly or in bursts.
        holding: How holding times are distributed.
    """

    services: tuple[Service, ...]
    node_ids: tuple[str, ...]
    area_node: np.ndarray
    rate_per_s: np.ndarray
    destination: np.ndarray
    population: np.ndarray
    attraction: np.ndarray
    arrivals: Arrivals = POISSON
    holding: Holding = EXPONENTIAL

    def offered_kbps(self) -> np.ndarray:
        """Return the mean offered load in kbps, float64 [2, S, A, 24], as if each hour were stationary."""
        each = np.array([service.mean_kbps * service.hold_mean_s for service in self.services])
        return self.rate_per_s * each[None, :, None, None]


def read_traffic(
    files: Mapping[str, Path],
    network: Network,
    services: tuple[Service, ...],
    load_gbps: float,
    weekend_level: Mapping[str, float],
) -> Traffic:
    """Read areas, profiles and destination rules, and compute the rates.

    Args:
        files: Paths by "areas", "landuse_profiles", "service_profiles" and "destinations".
        network: The network whose sites the areas are.
        services: The services.
        load_gbps: Load in Gb/s that the services' shares refer to.
        weekend_level: Mean weekend level of a land use over its weekday level, where it is not 1.

    Returns:
        The generator's rates and destinations.

    Raises:
        ScenarioError: At the first fault in one of the files.
    """
    areas = read_csv(files["areas"], AREA_COLUMNS, ScenarioError)
    area_node = areas.lookup("node_id", network.node_index, "node", "Add the node to nodes.csv.").astype(np.int32)
    weights = np.stack([areas[f"w_{use}"] for use in LAND_USES])  # [use, A]
    for a in np.flatnonzero(weights.sum(axis=0) <= 0):
        areas.fail(int(a), "w_residential", "one positive land-use weight at least", "Say how the land is used.")
    industry = areas["w_industrial"] * areas["land_km2"]  # [A]
    landuse = _read_landuse(files["landuse_profiles"], weekend_level)  # [2, use, 24]
    profile = _read_service_profiles(files["service_profiles"], services)  # [S, 24]
    landuse_here = np.einsum("ua,duh->dah", weights, landuse)  # [2, A, 24]
    people = areas["population"].astype(np.float64)
    jobs = areas["jobs"].astype(np.float64)
    industrial = industry * (people.sum() / industry.sum()) if industry.sum() > 0 else industry
    rate = np.empty((2, len(services), len(people), HOURS))
    attractions = np.empty((len(services), len(people)))
    for s, service in enumerate(services):
        attraction = (
            service.attract_population * people + service.attract_jobs * jobs + service.attract_industry * industrial
        )
        if attraction.sum() <= 0:
            raise ScenarioError(
                problem(
                    files["areas"],
                    None,
                    "attraction",
                    0,
                    f"an area that asks for {service.service}",
                    "Give population, jobs or industry to some area.",
                )
            )
        attractions[s] = attraction
        shape = np.sqrt(landuse_here * profile[s]) if service.follows_landuse else np.ones_like(landuse_here)
        demand = attraction[:, None] * shape  # [2, A, 24]
        in_progress = service.busy_load_share * load_gbps * 1e6 / service.mean_kbps
        busiest = demand[0].sum(axis=0).max()
        if not busiest > 0:
            raise ScenarioError(
                problem(
                    files["service_profiles"],
                    None,
                    f"weekday demand for {service.service}",
                    0,
                    "an hour in which its profile and the land use are both positive",
                )
            )
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            rate[:, s] = demand / busiest * (in_progress / service.hold_mean_s)
            check_volume(rate[:, : s + 1])
    destination = _read_destinations(files["destinations"], network, services, area_node, industry)
    return Traffic(services, network.node_ids, area_node, rate, destination, people, attractions)


def check_volume(rate_per_s: np.ndarray) -> None:
    """Refuse rates, float64 [2, S, A, 24], that make more requests a day than there are numbers for."""
    with np.errstate(over="ignore", invalid="ignore"):
        a_day = rate_per_s.sum(axis=(1, 2, 3)).max() * 3600
    if not a_day <= REQUESTS_A_DAY_MAX / 2:
        raise ScenarioError(
            problem(
                None,
                None,
                "requests a day",
                float(np.round(a_day)),
                f"at most {REQUESTS_A_DAY_MAX // 2}",
                "Lower load_gbps in scenario.toml, or raise the bundles or holds in services.csv.",
            )
        )


def _read_landuse(path: Path, weekend_level: Mapping[str, float]) -> np.ndarray:
    """Return multipliers [kind of day, land use, hour] whose weekday mean is 1 each."""
    table = read_csv(path, LANDUSE_COLUMNS, ScenarioError)
    kind = table.lookup("day", {day: i for i, day in enumerate(DAY_KINDS)}, "kind of day")
    known = [use for use in LAND_USES if use in LANDUSE_COLUMNS]
    level = np.zeros((2, len(LAND_USES), HOURS))
    row = _row_of_hour(table, kind, path)  # [2, 24]
    for u, use in enumerate(LAND_USES):
        values = table[LAND_USE_PROFILE[use]][row]  # [2, 24]
        if (values.sum(axis=1) <= 0).any():
            raise ScenarioError(problem(path, None, use, 0, "a profile with a positive hour"))
        level[:, u] = values / values.mean(axis=1, keepdims=True)
        level[1, u] *= weekend_level.get(LAND_USE_PROFILE[use], 1.0)
    for use in weekend_level:
        if use not in known:
            raise ScenarioError(problem("scenario.toml", None, "weekend_level", use, f"one of {', '.join(known)}"))
    return level


def _row_of_hour(table, kind: np.ndarray, path: Path) -> np.ndarray:
    """Return the row, int64 [kinds, 24], of each hour, refusing repeated and missing ones."""
    row = np.full((int(kind.max()) + 1 if len(kind) else 1, HOURS), -1)
    for i, hour in enumerate(table["hour"]):
        if row[kind[i], hour] != -1:
            table.fail(i, "hour", "each hour once", "Remove the duplicate.")
        row[kind[i], hour] = i
    expected_kinds = 2 if "day" in table else 1
    if len(row) < expected_kinds or (row == -1).any():
        raise ScenarioError(
            problem(
                path,
                None,
                None,
                f"{len(table)} hours",
                f"all 24 hours for each of {expected_kinds} kinds of day",
                "Add the missing rows.",
            )
        )
    return row


def _read_service_profiles(path: Path, services: tuple[Service, ...]) -> np.ndarray:
    """Return multipliers [service, hour] of mean 1; a service that is flat needs no column."""
    hour = Column("int", least=0, most=23)
    own = {service.service: Column("float", least=0, optional=not service.follows_landuse) for service in services}
    columns = {"hour": hour, **own} | {"hour": hour}  # a service may not take the place of the hour
    table = read_csv(path, columns, ScenarioError)
    row = _row_of_hour(table, np.zeros(len(table), dtype=np.int64), path)[0]
    profile = np.ones((len(services), HOURS))
    for s, service in enumerate(services):
        if service.service in table:
            values = table[service.service][row]
            if values.sum() <= 0:
                raise ScenarioError(problem(path, None, service.service, 0, "a profile with a positive hour"))
            profile[s] = values / values.mean()
    return profile


def _read_destinations(
    path: Path, network: Network, services: tuple[Service, ...], area_node: np.ndarray, industry: np.ndarray
) -> np.ndarray:
    """Return the probability [service, area, node] of each destination."""
    table = read_csv(path, DESTINATION_COLUMNS, ScenarioError)
    index = {service.service: s for s, service in enumerate(services)}
    service = table.lookup("service", index, "service", "Correct the name or add it to services.csv.")
    delay = least_delays(network)[area_node]  # [A, N]
    probability = np.zeros((len(services), len(area_node), network.n_nodes))
    for i, s in enumerate(service.tolist()):
        share = _share_by_rule(table, i, network, delay, area_node, industry)  # [A, N]
        probability[s] += table["weight"][i] * share
    for s, total in enumerate(probability.sum(axis=2).min(axis=1)):
        if not 1 - 1e-6 < total < 1 + 1e-6:
            raise ScenarioError(
                problem(
                    path,
                    None,
                    f"sum of weights of {services[s].service}",
                    float(total),
                    "1",
                    "Complete the destination rules of this service.",
                )
            )
    return probability / probability.sum(axis=2, keepdims=True)


def _share_by_rule(
    table, i: int, network: Network, delay: np.ndarray, area_node: np.ndarray, industry: np.ndarray
) -> np.ndarray:
    """Return how one rule spreads an area's requests, float64 [A, N], each row summing to 1."""
    n_areas = len(area_node)
    areas = np.arange(n_areas)
    share = np.zeros((n_areas, network.n_nodes))
    kind, _, argument = table["rule"][i].partition(":")
    if kind == "node":
        if argument not in network.node_index:
            table.fail(i, "rule", f"node:<node_id> with one of {names(network.node_index)}", "Correct the name.")
        share[:, network.node_index[argument]] = 1.0
    elif kind in ("nearest", "other"):
        members = network.tier_nodes(argument)
        if len(members) < (1 if kind == "nearest" else 2):
            table.fail(i, "rule", f"a tier of nodes.csv: {names(sorted(set(network.tier)))}", "Correct the tier.")
        nearest = members[np.argmin(delay[:, members], axis=1)]  # [A]
        if kind == "nearest":
            share[areas, nearest] = 1.0
        else:
            share[:, members] = 1.0 / (len(members) - 1)
            share[areas, nearest] = 0.0
    elif kind == "industry" and argument.isascii() and argument.isdigit() and 2 <= int(argument) <= n_areas:
        sites = area_node[np.argsort(-industry, kind="stable")[: int(argument)]]
        share[:, sites] = 1.0
        share[areas, area_node] = 0.0  # nobody routes to the own site
        share /= share.sum(axis=1, keepdims=True)
    else:
        table.fail(i, "rule", RULES, "Correct the rule.")
    return share


def generate_day(traffic: Traffic, seed: np.random.SeedSequence, day: int, kind: int, name: str) -> Trace:
    """Draw one day of requests.

    Counts are Poisson by the minute, at the rate of the hour (times that of a burst, if requests come in bursts, which
    are drawn from a stream of their own); times and holds are rounded to the millisecond, so that the checksum of a day
    does not depend on the machine.

    Args:
        traffic: What to draw from.
        seed: The day's own seed.
        day: Its number on the timeline: times start at `day` x 86400 s, ids at `day` x `REQUESTS_A_DAY_MAX`.
        kind: 0 for a weekday, 1 for a day of the weekend.
        name: Name of the trace.

    Returns:
        The day's requests in order of arrival.
    """
    rng = np.random.default_rng(seed)
    n_services, n_areas = traffic.rate_per_s.shape[1:3]
    rate = minute_rates(traffic.rate_per_s[kind])  # [S, A, 1440]
    if traffic.arrivals.is_bursty:
        rate = rate * burst_factors(traffic.arrivals, n_services, n_areas, seed)
    counts = rng.poisson(rate.reshape(-1) * 60.0)  # [S x A x 1440]
    cell = np.repeat(np.arange(counts.size), counts)  # [n]
    n = len(cell)
    minute = cell % MINUTES
    area = cell // MINUTES % n_areas
    service = cell // (MINUTES * n_areas)
    t_ms = minute * 60_000 + rng.integers(0, 60_000, size=n)
    bundle, unit_kbps = draw_bundles(traffic.services, service, rng)
    hold_ms = draw_holds_ms(traffic.services, service, rng, traffic.holding)
    destination = draw_destinations(traffic, service, area, rng)
    order = np.argsort(t_ms, kind="stable")
    return Trace(
        name=name,
        service_ids=tuple(p.service for p in traffic.services),
        node_ids=traffic.node_ids,
        request_id=day * REQUESTS_A_DAY_MAX + np.arange(n),
        t_s=(t_ms[order] + day * int(DAY_S * 1000)) / 1000.0,
        service=service[order],
        source=traffic.area_node[area[order]],
        destination=destination[order],
        bundle=bundle[order],
        demand_kbps=(bundle * unit_kbps)[order],
        hold_s=hold_ms[order] / 1000.0,
    )


def minute_rates(rate_per_s: np.ndarray) -> np.ndarray:
    """Return the rate of each minute [..., 1440]: that of its hour [..., 24]."""
    return np.repeat(rate_per_s, MINUTES // HOURS, axis=-1)
