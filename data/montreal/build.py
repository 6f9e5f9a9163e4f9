"""Write the Montreal scenario's network tables from areas.csv and capacities.toml.

After editing either run ``python data/montreal/build.py && python -m amarl_core.freeze data/montreal``.

``python data/montreal/build.py --sibling 1 data/overlays/sibling-1`` writes the tables of another network of the same
family instead: the same sites and the same sums of capacity, but another ring, other uplinks, other second homes of
some radio sites, pools of other sizes with other functions. A seed gives one network.
"""

from __future__ import annotations

import csv
import math
import random
import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
SITES = {
    "PC": "Pointe-Claire",
    "LS": "LaSalle",
    "VM": "Ville-Marie",
    "AN": "Anjou",
    "AH": "Ahuntsic-Cartierville",
    "SL": "Saint-Laurent",
}
RING = ("PC", "LS", "VM", "AN", "AH", "SL")
CORE_OF_SITE = {"PC": "SL", "LS": "VM", "VM": "VM", "AN": "VM", "AH": "SL", "SL": "SL"}
CORE_SITES = ("VM", "SL")
SPREAD = 0.25 # a sibling's uplinks and pools are this much smaller or larger at most, before the sums are restored
THIRD_HOMES = 0.3 # share of a sibling's radio sites whose second home is the third nearest aggregation router
CABLE_FACTOR = 1.4
MS_PER_KM = 0.005
EARTH_KM = 6371.0
DESTINATIONS = [
    ("cloud_gaming", "node:COR-VM", 1.0),
    ("augmented_reality", "nearest:cu", 0.6),
    ("augmented_reality", "node:CU-VM", 0.4),
    ("voip", "nearest:core", 0.75),
    ("voip", "other:core", 0.25),
    ("video_streaming", "nearest:core", 0.75),
    ("video_streaming", "other:core", 0.25),
    ("massive_iot", "nearest:cu", 1.0),
    ("industry_4_0", "nearest:cu", 0.5),
    ("industry_4_0", "industry:8", 0.5),
]


@dataclass(frozen=True)
class Plan:
    """How the sites are joined."""

    ring: tuple[str, ...] = RING
    core_of_site: dict[str, str] = field(default_factory=lambda: CORE_OF_SITE)
    third_homes: frozenset[str] = frozenset() # radio sites whose second home is the third nearest router


def read(name: str) -> list[dict[str, str]]:
    """Return the rows of one of the folder's tables."""
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(name: str, header: tuple[str, ...], rows: list[tuple], folder: Path = HERE) -> None:
    """Write a table of a folder."""
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def fibre_km(a: dict, b: dict) -> float:
    """Return the length of fibre between two nodes: 1.4 times the great circle."""
    lat_a, lon_a, lat_b, lon_b = (math.radians(float(x)) for x in (a["lat"], a["lon"], b["lat"], b["lon"]))
    h = (
        math.sin((lat_b - lat_a) / 2) ** 2
        + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    )
    return round(CABLE_FACTOR * 2 * EARTH_KM * math.asin(math.sqrt(h)), 2)


def area_peaks_gbps(load_gbps: float) -> dict[str, float]:
    """Return each area's highest weekday load, all services together, by the generator's own rates."""
    areas, services = read("areas.csv"), read("services.csv")
    landuse = [row for row in read("landuse_profiles.csv") if row["day"] == "weekday"]
    profiles = read("service_profiles.csv")
    uses = ("residential", "office", "transport", "entertainment")
    mean_use = {use: sum(float(row[use]) for row in landuse) / 24 for use in uses}
    people = sum(float(area["population"]) for area in areas)
    industry = sum(float(area["w_industrial"]) * float(area["land_km2"]) for area in areas)
    total = {area["node_id"]: [0.0] * 24 for area in areas}
    for service in services:
        profile = [float(row[service["service"]]) for row in profiles]
        mean = sum(profile) / 24
        demand = {}
        for area in areas:
            attraction = (
                float(service["attract_population"]) * float(area["population"])
                + float(service["attract_jobs"]) * float(area["jobs"])
                + float(service["attract_industry"])
                * float(area["w_industrial"])
                * float(area["land_km2"])
                * people
                / industry
            )
            demand[area["node_id"]] = []
            for hour in range(24):
                used = sum(
                    float(area[f"w_{use}"]) * float(landuse[hour][use]) / mean_use[use] for use in uses
                )
                used += float(area["w_industrial"]) * float(landuse[hour]["office"]) / mean_use["office"]
                flat = service["follows_landuse"] == "0"
                demand[area["node_id"]].append(
                    attraction * (1 if flat else math.sqrt(used * profile[hour] / mean))
                )
        peak = max(sum(by_hour[hour] for by_hour in demand.values()) for hour in range(24))
        for node, by_hour in demand.items():
            for hour in range(24):
                total[node][hour] += by_hour[hour] / peak * float(service["busy_load_share"]) * load_gbps
    return {node: max(by_hour) for node, by_hour in total.items()}


def build_nodes(calibrated: dict) -> dict[str, dict]:
    """Return the nodes by identifier, in the order of nodes.csv."""
    peaks = area_peaks_gbps(calibrated["load_gbps"])
    areas = {area["name"]: area for area in read("areas.csv")}
    cores = calibrated["vcpu"]
    nodes = {}

    def add(node: str, name: str, tier: str, area: dict, vcpu: float, transit: int, **more: object) -> None:
        mcpu = round(vcpu * calibrated["pools_scale"] * 1000)
        nodes[node] = {
            "name": name,
            "tier": tier,
            "lat": area["lat"],
            "lon": area["lon"],
            "mcpu": mcpu,
            "transit": transit,
            **more,
        }

    for name, area in areas.items():
        large = peaks[area["node_id"]] > calibrated["busy_area_gbps"]
        add(area["node_id"], name, "du", area, cores["du_large" if large else "du_small"], 0, large=large)
    for site, name in SITES.items():
        add(f"AGG-{site}", f"{name} aggregation", "agg", areas[name], 0, 1)
    for site, name in SITES.items():
        add(f"CU-{site}", f"{name} pool", "cu", areas[name], cores[f"CU-{site}"], 1)
    for site in CORE_SITES:
        add(f"COR-{site}", f"{SITES[site]} core", "core", areas[SITES[site]], 0, 1)
    for site in CORE_SITES:
        add(f"DC-{site}", f"{SITES[site]} data centre", "dc", areas[SITES[site]], cores[f"DC-{site}"], 1)
    return nodes


def build_links(nodes: dict[str, dict], calibrated: dict, plan: Plan) -> list[tuple]:
    """Return the rows of links.csv, both directions of each link."""
    gbps, fixed = calibrated["gbps"], calibrated["fixed_ms"]
    links: list[tuple] = []

    def add(a: str, b: str, capacity: float, fixed_ms: float) -> None:
        km = fibre_km(nodes[a], nodes[b])
        kbps = round(capacity * calibrated["links_scale"] * 1e6)
        delay_ms = round(fixed_ms + km * MS_PER_KM, 4)
        links.extend((f"{u}>{v}", u, v, kbps, delay_ms, km) for u, v in ((a, b), (b, a)))

    routers = [f"AGG-{site}" for site in SITES]
    for node, facts in nodes.items():
        if facts["tier"] == "du":
            nearest = sorted(routers, key=lambda router: fibre_km(facts, nodes[router]))
            for router in (nearest[0], nearest[2 if node in plan.third_homes else 1]):
                add(node, router, gbps["access_large" if facts["large"] else "access_small"], fixed["access"])
    for site, following in zip(plan.ring, plan.ring[1:] + plan.ring[:1], strict=True):
        add(f"AGG-{site}", f"AGG-{following}", gbps["ring"], fixed["ring"])
    for site in SITES:
        add(f"AGG-{site}", f"CU-{site}", gbps["pool"], fixed["pool"])
    for site, core in plan.core_of_site.items():
        add(f"AGG-{site}", f"COR-{core}", gbps[f"uplink_AGG-{site}"], fixed["uplink"])
    add("COR-VM", "COR-SL", gbps["core_core"], fixed["core_core"])
    for site in CORE_SITES:
        add(f"COR-{site}", f"DC-{site}", gbps["data_centre"], fixed[f"data_centre_DC-{site}"])
    return links


def write_load(calibrated: dict) -> None:
    """Carry cpu_cap and load_gbps over into scenario.toml, leaving the rest of it as it is."""
    path = HERE / "scenario.toml"
    text = path.read_text(encoding="utf-8")
    for key in ("cpu_cap", "load_gbps"):
        text = re.sub(rf"(?m)^{key} = [^ #\n]+", f"{key} = {calibrated[key]}", text)
    path.write_text(text, encoding="utf-8", newline="\n")


def sibling(seed: int, calibrated: dict) -> tuple[Plan, dict]:
    """Draw another network of the family: how it is joined, and its capacities and placement."""
    draw = random.Random(seed)
    ring = [RING[0], *draw.sample(RING[1:], len(RING) - 1)]
    others = draw.sample([site for site in SITES if site not in CORE_SITES], len(SITES) - len(CORE_SITES))
    half = len(others) // 2
    core_of_site = {site: CORE_SITES[0] for site in (CORE_SITES[0], *others[:half])}
    core_of_site |= {site: CORE_SITES[1] for site in (CORE_SITES[1], *others[half:])}
    third = frozenset(area["node_id"] for area in read("areas.csv") if draw.random() < THIRD_HOMES)
    changed = {key: dict(calibrated[key]) for key in ("gbps", "vcpu", "placement")}
    for table, prefix in (("gbps", "uplink_"), ("vcpu", "CU-")):
        keys = [key for key in changed[table] if key.startswith(prefix)]
        size = {key: changed[table][key] * draw.uniform(1 - SPREAD, 1 + SPREAD) for key in keys}
        whole = sum(changed[table][key] for key in keys) / sum(size.values())
        changed[table] |= {key: round(value * whole, 1) for key, value in size.items()}
    pools = [f"CU-{site}" for site in SITES]
    hosted = draw.sample([calibrated["placement"][pool] for pool in pools], len(pools))
    changed["placement"] |= dict(zip(pools, hosted, strict=True))
    plan = Plan(tuple(ring), {site: core_of_site[site] for site in SITES}, third)
    return plan, {**calibrated, **changed}


def write_network(calibrated: dict, plan: Plan, folder: Path) -> None:
    """Write nodes, links and placement."""
    nodes = build_nodes(calibrated)
    write(
        "nodes.csv",
        ("node_id", "name", "tier", "lat", "lon", "compute_mcpu", "transit"),
        [
            (node, *(facts[key] for key in ("name", "tier", "lat", "lon", "mcpu", "transit")))
            for node, facts in nodes.items()
        ],
        folder,
    )
    write(
        "links.csv",
        ("link_id", "source", "target", "capacity_kbps", "delay_ms", "length_km"),
        build_links(nodes, calibrated, plan),
        folder,
    )
    hosted = calibrated["placement"]
    write(
        "placement.csv",
        ("node_id", "function"),
        [
            (node, function)
            for node, facts in nodes.items()
            if facts["mcpu"]
            for function in hosted["du" if facts["tier"] == "du" else node]
        ],
        folder,
    )


def main(arguments: list[str]) -> None:
    """Write the tables and the two numbers, or a sibling's tables into a folder."""
    calibrated = tomllib.loads((HERE / "capacities.toml").read_text(encoding="utf-8"))
    if arguments:
        option, seed, folder = arguments
        if option != "--sibling":
            sys.exit("usage: python data/montreal/build.py [--sibling SEED FOLDER]")
        Path(folder).mkdir(parents=True, exist_ok=True)
        plan, drawn = sibling(int(seed), calibrated)
        write_network(drawn, plan, Path(folder))
        return
    write_network(calibrated, Plan(), HERE)
    write("destinations.csv", ("service", "rule", "weight"), DESTINATIONS)
    write_load(calibrated)


if __name__ == "__main__":
    main(sys.argv[1:])
