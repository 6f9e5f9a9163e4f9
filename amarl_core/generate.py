"""Generated networks: a metropolitan or regional O-RAN network of any size, by the structural rules of Montreal.

    python -m amarl_core.generate --nodes 1000 --seed 0 data/region1000

One ring of aggregation routers for about fifty nodes, with a pool hanging off each router as a leaf and access sites
homed to their two nearest routers as stubs; a core router and a data centre for each ring (two at least), the core
routers in a ring of their own. Services, functions and profiles are Montreal's, and so are the ratios of capacities to
the load they meet; what a place asks for and how well it is equipped is drawn from the seed.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core.errors import AmarlError, ScenarioError, problem
from amarl_core.freeze import freeze
from amarl_core.makers import put_in_place, refuse_taken
from amarl_core.scenario import DATA_FOLDER, Scenario
from amarl_core.services import Service, read_functions, read_services
from amarl_core.settings import SETTINGS_FILE, TABLES, read_settings
from amarl_core.topology import MOST_NODES, read_network
from amarl_core.traffic import LAND_USES, Traffic, read_traffic

logger = logging.getLogger(__name__)

LEAST_NODES = 20
REQUESTS_A_NODE = 1000
"""Requests a weekday for each node, when nothing else is asked for."""

NODES_A_RING, NODES_A_SITE = 50, 8
CORES_MIN, SITES_MIN = 2, 3
CPU_CAP = 0.8
WEEKEND_LEVEL = {"office": 0.56, "transport": 0.67}
COPIED = ("services", "functions", "landuse_profiles", "service_profiles")

HOSTED = {
    "du": ("NAT", "FW"),
    "dc": ("NAT", "FW", "TM", "VOC", "WO", "IDPS"),
    "cu": ("NAT", "FW", "IDPS"),
}
AT_SITE = (("TM",), ("VOC",), ("TM", "VOC"), ("VOC",), ("TM",), ("TM", "VOC"))
"""What else the pools of a ring host, one after the other, as around Montreal's ring."""

DESTINATIONS = [
    ("cloud_gaming", "nearest:core", 1.0),
    ("augmented_reality", "nearest:cu", 1.0),
    ("voip", "nearest:core", 0.75),
    ("voip", "other:core", 0.25),
    ("video_streaming", "nearest:core", 0.75),
    ("video_streaming", "other:core", 0.25),
    ("massive_iot", "nearest:cu", 1.0),
    ("industry_4_0", "nearest:cu", 1.0),
]
FAR = 0.15
"""Share of the load that ends at another core router than the nearest: a quarter of video and of voice."""

FIXED_MS = {"access": 0.9, "ring": 1.2, "pool": 0.10, "uplink": 5.0, "core": 1.0, "data_centre": 0.2}
MS_PER_KM = 0.005
CABLE_FACTOR = 1.4
KM_PER_DEGREE = 111.2
CENTRE = (45.5, -73.6)

GBPS_PER_GBPS = {"access": 3.0, "uplink": 0.74, "ring": 0.93, "pool": 3.7, "core": 0.62, "data_centre": 3.1}
"""Capacity for each Gb/s of busy-hour load of the site, ring or core router that it serves: Montreal's ratios,
uplinks and pools a little above them, since everybody here sends to the nearest core and pool."""
VCPU_PER_GBPS = {"du": 15.0, "cu": 4.2, "dc": 22.7}
SPREAD = 0.10
"""Standard deviation of the logarithm of uplinks and pools around these ratios: nowhere is planned perfectly."""


@dataclass
class Plan:
    """A network in the making: nodes, undirected links, and what serves whose load."""

    nodes: list[dict] = field(default_factory=list)
    links: list[tuple] = field(default_factory=list)  # (a, b, kind, index of what it serves)
    site_of_du: list[int] = field(default_factory=list)
    ring_of_site: list[int] = field(default_factory=list)
    core_of_site: list[int] = field(default_factory=list)

    def add(self, node_id: str, name: str, tier: str, at: np.ndarray, transit: int) -> dict:
        """Add a node at (km east, km north) of the centre."""
        lat = CENTRE[0] + at[1] / KM_PER_DEGREE
        lon = CENTRE[1] + at[0] / (KM_PER_DEGREE * np.cos(np.radians(CENTRE[0])))
        node = {"node_id": node_id, "name": name, "tier": tier, "lat": round(lat, 5), "lon": round(lon, 5),
                "compute_mcpu": 1000 if tier in VCPU_PER_GBPS else 0, "transit": transit, "at": at}  # fmt: skip
        self.nodes.append(node)
        return node


def sizes(n_nodes: int) -> tuple[int, int, int, int]:
    """Return how many rings, core routers, aggregation sites and access sites a network of so many nodes has."""
    rings = max(1, round(n_nodes / NODES_A_RING))
    cores = max(CORES_MIN, rings)
    rest = n_nodes - 2 * cores
    sites = max(SITES_MIN * rings, round(rest / NODES_A_SITE))
    return rings, cores, sites, rest - 2 * sites


def generate(
    n_nodes: int,
    seed: int,
    folder: str | Path,
    *,
    requests_per_day: int | None = None,
    overwrite: bool = False,
) -> Scenario:
    """Generate a scenario, write it as a folder, freeze its held-out days and load it.

    Args:
        n_nodes: Number of nodes, 20 to 1,500.
        seed: Of places, people, land use and equipment; sizes of one seed are different networks.
        folder: Where the scenario is written, whole or not at all.
        requests_per_day: Mean number of requests of a weekday; None: 1,000 for each node. Capacities follow the load.
        overwrite: Replace a scenario that is already there.

    Returns:
        The scenario, loaded from its folder.

    Raises:
        ScenarioError: A value out of range, or the folder exists.
    """
    requests = REQUESTS_A_NODE * n_nodes if requests_per_day is None else requests_per_day
    for name, value, least, most in (
        ("n_nodes", n_nodes, LEAST_NODES, MOST_NODES),
        ("seed", seed, 0, 2**63),
        ("requests_per_day", requests, 100, 4_000_000),
    ):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
            raise ScenarioError(problem(None, None, name, value, f"an integer from {least:,} to {most:,}"))
    folder = Path(folder)
    refuse_taken(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(building, int(n_nodes), int(seed), int(requests), folder.name)
        frozen = freeze(building)
        building.chmod(0o755)
        put_in_place(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return replace(frozen, folder=folder, settings=read_settings(folder))


def _write(folder: Path, n_nodes: int, seed: int, requests: int, name: str) -> None:
    """Write the tables and scenario.toml; capacities need the load, which needs places and people."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, n_nodes]))
    for table in COPIED:
        shutil.copyfile(DATA_FOLDER / "montreal" / f"{table}.csv", folder / f"{table}.csv")
    plan = _places(n_nodes, rng)
    files = {table: folder / f"{table}.csv" for table in TABLES}
    _areas(plan, rng).to_csv(files["areas"], index=False, lineterminator="\n")
    pd.DataFrame(DESTINATIONS, columns=["service", "rule", "weight"]).to_csv(
        files["destinations"], index=False, lineterminator="\n"
    )
    _placement(plan).to_csv(files["placement"], index=False, lineterminator="\n")
    _write_network(plan, files)  # capacities of one unit, to know the traffic's shape
    services = read_services(files["services"], read_functions(files["functions"]))
    traffic = read_traffic(files, read_network(files["nodes"], files["links"]), services, 1.0, WEEKEND_LEVEL)
    load_gbps = float(f"{requests / (traffic.rate_per_s[0].sum() * 3600):.6g}")
    _equip(plan, traffic, load_gbps, services, rng)
    _write_network(plan, files)
    (folder / SETTINGS_FILE).write_text(_toml(name, n_nodes, seed, load_gbps), encoding="utf-8", newline="\n")


def _places(n_nodes: int, rng: np.random.Generator) -> Plan:
    """Lay out rings, sites, pools, cores and access sites, and their links."""
    n_rings, n_cores, n_sites, n_dus = sizes(n_nodes)
    plan = Plan()
    columns = int(np.ceil(np.sqrt(n_cores)))
    snake = [(i // columns, i % columns if i // columns % 2 == 0 else columns - 1 - i % columns)
             for i in range(n_cores)]  # fmt: skip
    metro = np.array([(70.0 * x, 70.0 * y) for y, x in snake]) + rng.normal(0, 8, (n_cores, 2))  # [C, 2] km
    if n_rings == 1:
        metro = np.array([[0.0, 0.0], [9.0, -6.0]])
    ring_of_site = np.sort(np.arange(n_sites) % n_rings)
    at_site = np.empty((n_sites, 2))
    for r in range(n_rings):
        own = np.flatnonzero(ring_of_site == r)
        angle = 2 * np.pi * (np.arange(len(own)) + rng.uniform(-0.25, 0.25, len(own))) / len(own)
        radius = rng.uniform(7.0, 13.0, len(own))
        at_site[own] = metro[r] + np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
    at_du = np.empty((n_dus, 2))
    for d in range(n_dus):
        at_du[d] = at_site[d % n_sites] + rng.normal(0, 3.5, 2)
    _add_access(plan, at_du, at_site, ring_of_site)
    _add_sites(plan, at_site, ring_of_site, n_cores)
    for c in range(n_cores):
        plan.add(f"COR-{c}", f"Core {c}", "core", metro[c], 1)
    for c in range(n_cores):
        plan.add(f"DC-{c}", f"Data centre {c}", "dc", metro[c], 1)
        plan.links.append((f"COR-{c}", f"DC-{c}", "data_centre", c))
    pairs = {tuple(sorted((c, (c + 1) % n_cores))) for c in range(n_cores)}
    plan.links += [(f"COR-{a}", f"COR-{b}", "core", a) for a, b in sorted(pairs)]
    return plan


def _add_access(plan: Plan, at_du: np.ndarray, at_site: np.ndarray, ring_of_site: np.ndarray) -> None:
    """Add access sites, stubs that are homed to the two nearest routers of one ring."""
    for d, at in enumerate(at_du):
        distance = np.hypot(*(at_site - at).T)
        first = int(np.argmin(distance))
        distance[(ring_of_site != ring_of_site[first])] = np.inf
        distance[first] = np.inf
        plan.add(f"DU-{d:03d}", f"Access site {d}", "du", at, 0)
        plan.site_of_du.append(first)
        for site in (first, int(np.argmin(distance))):
            plan.links.append((f"DU-{d:03d}", f"AGG-{site:02d}", "access", d))


def _add_sites(plan: Plan, at_site: np.ndarray, ring_of_site: np.ndarray, n_cores: int) -> None:
    """Add aggregation routers in their rings, each with a pool for a leaf and an uplink to one of two cores."""
    for i, at in enumerate(at_site):
        plan.add(f"AGG-{i:02d}", f"Router {i}", "agg", at, 1)
    for i, at in enumerate(at_site):
        plan.add(f"CU-{i:02d}", f"Pool {i}", "cu", at, 1)
        plan.links.append((f"AGG-{i:02d}", f"CU-{i:02d}", "pool", i))
    plan.ring_of_site = ring_of_site.tolist()
    for r in range(int(ring_of_site.max()) + 1):
        own = np.flatnonzero(ring_of_site == r)
        for k, i in enumerate(own):
            plan.links.append((f"AGG-{i:02d}", f"AGG-{own[(k + 1) % len(own)]:02d}", "ring", r))
            core = r if 2 * k < len(own) else (r + 1) % n_cores
            plan.core_of_site.append(core)
            plan.links.append((f"AGG-{i:02d}", f"COR-{core}", "uplink", int(i)))


def _areas(plan: Plan, rng: np.random.Generator) -> pd.DataFrame:
    """Draw who lives and works around each access site, and how its land is used."""
    dus = [node for node in plan.nodes if node["tier"] == "du"]
    n = len(dus)
    weights = rng.dirichlet([5.0, 2.0, 0.8, 1.2, 1.0], n).round(3)
    weights[:, 0] += 0.001  # rounded to nothing, a land use of no kind would be refused
    frame = pd.DataFrame({"node_id": [node["node_id"] for node in dus], "name": [node["name"] for node in dus]})
    frame["land_km2"] = rng.uniform(5, 25, n).round(2)
    frame["population"] = np.maximum(1000, rng.lognormal(10.8, 0.6, n)).astype(int)
    frame["jobs"] = np.maximum(500, rng.lognormal(10.0, 0.9, n)).astype(int)
    for u, use in enumerate(LAND_USES):
        frame[f"w_{use}"] = weights[:, u].round(3)
    return frame


def _placement(plan: Plan) -> pd.DataFrame:
    """Say what each pool hosts."""
    rows = []
    first_of_ring = {r: plan.ring_of_site.index(r) for r in set(plan.ring_of_site)}
    for node in plan.nodes:
        hosted = HOSTED.get(node["tier"], ())
        if node["tier"] == "cu":
            i = int(node["node_id"].removeprefix("CU-"))
            place = i - first_of_ring[plan.ring_of_site[i]]
            hosted += AT_SITE[place % len(AT_SITE)]
        rows += [(node["node_id"], function) for function in hosted]
    return pd.DataFrame(rows, columns=["node_id", "function"])


def _equip(
    plan: Plan, traffic: Traffic, load_gbps: float, services: tuple[Service, ...], rng: np.random.Generator
) -> None:
    """Give every link and pool capacity for the busy-hour load that it meets."""
    by_area = load_gbps * traffic.offered_kbps()[0].sum(axis=0) / 1e6  # [A, 24] Gb/s
    site, ring = np.array(plan.site_of_du), np.array(plan.ring_of_site)
    core = np.array(plan.core_of_site)

    def busy(groups: np.ndarray, n: int) -> np.ndarray:
        """Return the busiest hour's load of each group of access sites, Gb/s."""
        return np.array([by_area[groups == i].sum(axis=0).max(initial=0.0) for i in range(n)])

    n_cores = int(core.max()) + 1
    of_site = np.maximum(busy(site, len(ring)), 0.05 * by_area.sum(axis=0).max() / len(ring))
    of_ring, of_core = busy(ring[site], int(ring.max()) + 1), busy(core[site], n_cores)
    total = by_area.sum(axis=0).max()
    sites_of_ring = np.bincount(ring)
    meets = {
        "access": by_area.max(axis=1),
        "uplink": of_site * rng.lognormal(0, SPREAD, len(ring)),
        "ring": of_ring / sites_of_ring,
        "pool": of_site,
        "data_centre": of_core,
    }
    # the far traffic goes round half the ring of cores at most, a quarter of it on average, both ways
    far = FAR * total / 8 / GBPS_PER_GBPS["core"] if n_cores > CORES_MIN else 0.0
    meets["core"] = of_core.mean() * np.ones(n_cores) + 1.6 * far
    plan.links = [(a, b, kind, GBPS_PER_GBPS[kind] * meets[kind][i]) for a, b, kind, i in plan.links]
    pools = {"du": by_area.max(axis=1), "cu": of_site * rng.lognormal(0, SPREAD, len(ring)), "dc": of_core}
    for tier, load in pools.items():
        members = [node for node in plan.nodes if node["tier"] == tier]
        for node, gbps in zip(members, load, strict=True):
            node["compute_mcpu"] = max(4000, int(1000 * VCPU_PER_GBPS[tier] * gbps))


def _write_network(plan: Plan, files: dict[str, Path]) -> None:
    """Write nodes.csv and links.csv, both directions of each link."""
    nodes = pd.DataFrame(plan.nodes).drop(columns="at")
    nodes.to_csv(files["nodes"], index=False, lineterminator="\n")
    at = {node["node_id"]: node["at"] for node in plan.nodes}
    rows = []
    for a, b, kind, gbps in plan.links:
        km = round(CABLE_FACTOR * float(np.hypot(*(at[a] - at[b]))), 2)
        delay_ms = round(FIXED_MS[kind] + km * MS_PER_KM, 4)
        kbps = max(1_000_000, 1000 * int(1000 * gbps))
        rows += [(f"{u}>{v}", u, v, kbps, delay_ms, km) for u, v in ((a, b), (b, a))]
    columns = ["link_id", "source", "target", "capacity_kbps", "delay_ms", "length_km"]
    pd.DataFrame(rows, columns=columns).to_csv(files["links"], index=False, lineterminator="\n")


def _toml(name: str, n_nodes: int, seed: int, load_gbps: float) -> str:
    """Return scenario.toml without [frozen]."""
    return (
        f'name = "{name}"\n'
        f'title = "Generated region of {n_nodes} nodes, seed {seed}"\n'
        f"cpu_cap = {CPU_CAP}\n\n[tables]\n\n[traffic]\n"
        f"load_gbps = {load_gbps!r}\n"
        f"weekend_level = {{ {', '.join(f'{use} = {level}' for use, level in WEEKEND_LEVEL.items())} }}\n\n"
        f"[held_out] # reserved: training days come from another random stream\nseed = {20260525 + seed}\n"
        "weekdays = 1\nweekends = 1\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Generate the scenario described on the command line."""
    parser = argparse.ArgumentParser(prog="python -m amarl_core.generate", description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="where it is written")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--requests", type=int, help="of a mean weekday; by default 1,000 for each node")
    parser.add_argument("--overwrite", action="store_true")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        made = generate(
            given.nodes, given.seed, given.folder, requests_per_day=given.requests, overwrite=given.overwrite
        )
    except AmarlError as reason:
        logger.error("%s", reason)
        return 1
    network = made.network
    logger.info("%s: %d nodes, %d links, %.4g Gb/s", given.folder, network.n_nodes, network.n_links,
                made.settings.load_gbps)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
