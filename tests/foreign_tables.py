"""Small hand-written files in each format that somebody may bring, and how the tests read them."""

from __future__ import annotations

from pathlib import Path

from amarl_core.scenario import load_scenario
from amarl_core.traces import Loaded, read_traffic_file

FIXTURES = Path(__file__).parent / "fixtures" / "traces"
TOY = load_scenario("toy")
NODES = {"ATLAng": "DU-W", "CHINng": "DU-C", "WASHng": "DU-E"}
MILAN_FILE = "sms-call-internet-mi-2013-11-01.txt"
FORMATS = {
    "requests.tsv": ({}, "requests"),
    "operator.csv": (FIXTURES / "operator.toml", None),
    MILAN_FILE: ({"volume": {"busy_load_gbps": 0.5}}, "milan"),
    "abilene": (
        {"source": {"table": NODES}, "destination": {"table": NODES}, "volume": {"busy_load_gbps": 0.5}},
        "sndlib",
    ),
    "coordsim_nodes.csv": ({}, "coordsim"),
    "coordsim_default.csv": ({"source": {"column": "", "rule": "each"}}, "coordsim"),
}
"""Mapping and preset of each fixture."""
VOLUMES = {
    "kind": "volumes",
    "time": {"column": "t", "unit": "s", "origin": "midnight"},
    "source": {"column": "place"},
    "volume": {"column": "v", "unit": "Mbps", "interval_s": 600},
}
"""A mapping of a volume table with the columns t, place and v."""


def load(name: str, **options) -> Loaded:
    """Read a fixture."""
    mapping, preset = FORMATS[name]
    return read_traffic_file(FIXTURES / name, TOY, mapping, preset, **options)


def load_text(
    folder: Path, text: str, mapping, preset: str | None = None, name: str = "table.csv", **options
) -> Loaded:
    """Write a table and read it."""
    (folder / name).write_text(text, encoding="utf-8")
    return read_traffic_file(folder / name, TOY, mapping, preset, **options)


def volume_rows(folder: Path, rows: list[tuple], changes: dict | None = None, **options) -> Loaded:
    """Write a volume table of (t, place, v) and read it by `VOLUMES`, with changes to its parts."""
    mapping = {key: {**value, **(changes or {}).get(key, {})} if isinstance(value, dict) else value
               for key, value in VOLUMES.items()}  # fmt: skip
    mapping |= {key: value for key, value in (changes or {}).items() if key not in VOLUMES}
    text = "t,place,v\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    return load_text(folder, text, mapping, **options)
