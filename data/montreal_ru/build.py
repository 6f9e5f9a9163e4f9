"""Write the radio-unit scenario from Montreal's tables: the same world, whose traffic starts at 161 radio units.

After editing run ``python data/montreal_ru/build.py && python -m amarl_core.freeze data/montreal_ru``. Capacities,
pools, placement and load are copied from ``data/montreal``; nothing was calibrated here.

Every area gets one radio unit for each 1.2 Gb/s of its weekday peak, two at least. They share its people, jobs and
land, and hang off its DU. A DU is on the way up only: links lead from its radio units to it and from it to its two
routers. So no path by-passes the metro ring through a DU, which in ``data/montreal`` its being a stub sees to. What is
bound for industry in one of the eight most industrial areas ends at that area's site, a stub on the way down.
"""

from __future__ import annotations

import csv
import math
import runpy
import shutil
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "montreal"
GBPS_A_UNIT = 1.2
LEAST_UNITS = 2
INDUSTRY_SITES = 8
COPIED = ("functions", "services", "placement", "landuse_profiles", "service_profiles", "outline")
FRONTHAUL_GBPS = 25.0
FRONTHAUL_MS = 0.05
RADIUS_KM = 1.2
KM_PER_DEGREE = 111.2


def read(name: str) -> list[dict[str, str]]:
    """Return the rows of one of Montreal's tables."""
    with (SOURCE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(name: str, rows: list[dict]) -> None:
    """Write a table of this folder."""
    with (HERE / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def shares(total: int, n: int) -> list[int]:
    """Split an integer into n parts that differ by one at most."""
    return [total // n + (i < total % n) for i in range(n)]


def units_of(areas: list[dict], peaks: dict[str, float]) -> dict[str, list[str]]:
    """Return the radio units of each DU."""
    counts = {area["node_id"]: max(LEAST_UNITS, math.ceil(peaks[area["node_id"]] / GBPS_A_UNIT)) for area in areas}
    return {du: [f"RU-{du.removeprefix('DU-')}-{i + 1}" for i in range(n)] for du, n in counts.items()}


def area_rows(areas: list[dict], units: dict[str, list[str]]) -> list[dict]:
    """Return areas.csv: each radio unit has its share of the area's people, jobs and land."""
    rows = []
    for area in areas:
        own = units[area["node_id"]]
        people, jobs = shares(int(area["population"]), len(own)), shares(int(area["jobs"]), len(own))
        for i, unit in enumerate(own):
            split = {"land_km2": round(float(area["land_km2"]) / len(own), 4), "population": people[i], "jobs": jobs[i]}
            rows.append(area | {"node_id": unit, "name": f"{area['name']} {i + 1}"} | split)
    return rows


def industrial(areas: list[dict]) -> list[str]:
    """Return the DUs of the most industrial areas, which Montreal's rule `industry:8` picks."""
    ranked = sorted(areas, key=lambda area: -float(area["w_industrial"]) * float(area["land_km2"]))
    return [area["node_id"] for area in ranked[:INDUSTRY_SITES]]


def node_rows(nodes: list[dict], units: dict[str, list[str]], sites: list[str]) -> list[dict]:
    """Return nodes.csv: Montreal's nodes, with sites and radio units."""
    rows, more = [], []
    for node in nodes:
        if node["tier"] != "du":
            rows.append(node)
            continue
        rows.append(node | {"transit": 1})
        if node["node_id"] in sites:
            site = {"node_id": site_of(node["node_id"]), "name": f"{node['name']} industry", "tier": "site"}
            more.append(node | site | {"compute_mcpu": 0, "transit": 0})
        own = units[node["node_id"]]
        for i, unit in enumerate(own):
            angle = 2 * math.pi * i / len(own)
            lat = float(node["lat"]) + RADIUS_KM * math.cos(angle) / KM_PER_DEGREE
            lon = float(node["lon"]) + RADIUS_KM * math.sin(angle) / (KM_PER_DEGREE * math.cos(math.radians(lat)))
            place = {"lat": round(lat, 5), "lon": round(lon, 5), "compute_mcpu": 0, "transit": 0}
            more.append(node | {"node_id": unit, "name": f"{node['name']} {i + 1}", "tier": "ru"} | place)
    return rows + more


def site_of(du: str) -> str:
    """Return the node where what is bound for an area's industry ends."""
    return f"IND-{du.removeprefix('DU-')}"


def link_rows(links: list[dict], units: dict[str, list[str]], sites: list[str]) -> list[dict]:
    """Return links.csv: Montreal's, with DUs on the way up only, and sites on the way down."""
    rows = []
    for link in links:
        if not link["target"].startswith("DU-"):
            rows.append(link)
        if link["target"] in sites:
            site = site_of(link["target"])
            rows.append(link | {"link_id": f"{link['source']}>{site}", "target": site})
        if link["source"] in sites:  # nobody starts there, but a route may go on from its destination
            site = site_of(link["source"])
            rows.append(link | {"link_id": f"{site}>{link['target']}", "source": site})
    for du, own in units.items():
        for unit in own:
            rows.append(
                {
                    "link_id": f"{unit}>{du}",
                    "source": unit,
                    "target": du,
                    "capacity_kbps": round(FRONTHAUL_GBPS * 1e6),
                    "delay_ms": round(FRONTHAUL_MS + 1.4 * RADIUS_KM * 0.005, 4),
                    "length_km": round(1.4 * RADIUS_KM, 2),
                }
            )
    return rows


def destination_rows(rows: list[dict], sites: list[str]) -> list[dict]:
    """Return destinations.csv: industry at the sites instead of the DUs."""
    kept = []
    for row in rows:
        if not row["rule"].startswith("industry:"):
            kept.append(row)
            continue
        weight = float(row["weight"]) / len(sites)
        kept += [row | {"rule": f"node:{site_of(du)}", "weight": weight} for du in sites]
    return kept


def main() -> None:
    """Write all tables."""
    calibrated = tomllib.loads((SOURCE / "capacities.toml").read_text(encoding="utf-8"))
    peaks = runpy.run_path(str(SOURCE / "build.py"))["area_peaks_gbps"](calibrated["load_gbps"])
    areas = read("areas.csv")
    units, sites = units_of(areas, peaks), industrial(areas)
    for table in COPIED:
        shutil.copyfile(SOURCE / f"{table}.csv", HERE / f"{table}.csv")
    write("areas.csv", area_rows(areas, units))
    write("nodes.csv", node_rows(read("nodes.csv"), units, sites))
    write("links.csv", link_rows(read("links.csv"), units, sites))
    write("destinations.csv", destination_rows(read("destinations.csv"), sites))


if __name__ == "__main__":
    main()
