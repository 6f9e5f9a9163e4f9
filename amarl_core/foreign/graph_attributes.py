"""Attributes of nodes and links in GraphML, GML and node-link JSON, read by name and unit.

A name may carry its unit (`capacity_gbps`, `delay_ms`, `length_km`, `compute_mcpu`). The Topology Zoo's
`LinkSpeedRaw` is bit/s, its `LinkSpeed` counts `LinkSpeedUnits` ("K", "M", "G"); `dist` is km as the crow flies,
as topohub writes it. A quantity without a unit is an error unless the user says which unit it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from amarl_core.foreign.raw_graph import KBPS, KM, MS, Place, RawLink, RawNode, Reading, kbps_in, lowered, plain

CAPACITY_NAMES = ("capacity", "bandwidth", "bw", "speed")
DELAY_NAMES = ("delay", "latency")
CABLE_NAMES = ("length",)
CROW_NAMES = ("distance", "dist")
USED_NODE = {"id", "label", "name", "pos", "x", "y", "lon", "lat", "longitude", "latitude", "tier", "population"}
USED_NODE |= {"compute_mcpu", "internal"}
USED_LINK = {"id", "key", "source", "target", "linkspeed", "linkspeedunits", "linkspeedraw"}
_NOTHING = ("", None)
_CLOSE = 0.02  # relative difference up to which two figures for the same thing agree


def read_node(node_id: str, attributes: Mapping[str, object], place: Place) -> RawNode:
    """Read a node: its label, position, tier, compute and population, where given."""
    given = lowered(attributes, place)
    x, y = _position(given, place)
    label = next((given[name] for name in ("label", "name") if given.get(name) not in _NOTHING), "")
    tier = given.get("tier")
    internal = given.get("internal")
    return RawNode(
        node_id=node_id,
        label=plain(str(label)),
        x=x,
        y=y,
        tier=place.text("tier", tier) if tier not in _NOTHING else None,
        compute_mcpu=_optional(given, "compute_mcpu", place),
        population=_optional(given, "population", place),
        is_external=internal not in _NOTHING and place.number("Internal", internal, 0, 1) == 0,
    )


def _position(given: Mapping[str, object], place: Place) -> tuple[float | None, float | None]:
    """Return (x, y), which are longitude and latitude where the names say so."""
    pos = given.get("pos")
    if pos not in _NOTHING:
        if not isinstance(pos, (list, tuple)) or len(pos) != 2:
            place.fail("pos", pos, "two numbers, [longitude, latitude] or [x, y]")
        return place.number("pos", pos[0]), place.number("pos", pos[1])
    for across, up in (("longitude", "latitude"), ("lon", "lat"), ("x", "y")):
        x, y = given.get(across), given.get(up)
        if (x in _NOTHING) != (y in _NOTHING):
            place.fail(up if y in _NOTHING else across, "missing", f"both {across} and {up}, or neither")
        if x not in _NOTHING:
            is_degrees = across != "x"
            bounds = ((-180, 180), (-90, 90)) if is_degrees else ((-1e9, 1e9), (-1e9, 1e9))
            return place.number(across, x, *bounds[0]), place.number(up, y, *bounds[1])
    return None, None


def _optional(given: Mapping[str, object], name: str, place: Place) -> float | None:
    return place.number(name, given[name], 0.0, 1e12) if given.get(name) not in _NOTHING else None


def read_link(source: str, target: str, attributes: Mapping[str, object], reading: Reading, place: Place) -> RawLink:
    """Read a link: capacity, delay and length, where given, in the units that names or the user state."""
    given = lowered(attributes, place)
    default = {
        "capacity": kbps_in(reading.capacity_unit, place) if reading.capacity_unit else None,
        "delay": MS[reading.delay_unit] if reading.delay_unit else None,
        "length": KM[reading.length_unit] if reading.length_unit else None,
    }
    bandwidth = {f"{prefix}{end}": factor for prefix, factor in KBPS.items() for end in ("bps", "bit")}
    capacity = _measures(given, CAPACITY_NAMES, bandwidth, default["capacity"], "capacity_unit='Mb/s'", place)
    capacity |= _zoo_speed(given, place)
    delay = _measures(given, DELAY_NAMES, MS, default["delay"], "delay_unit='ms'", place)
    cable = _measures(given, CABLE_NAMES, KM, default["length"], "length_unit='km'", place)
    in_km = {"dist_km" if name == "dist" else name: value for name, value in given.items()}
    crow = _measures(in_km, CROW_NAMES, KM, default["length"], "length_unit='km'", place)
    return RawLink(
        source,
        target,
        capacity_kbps=_agreed(capacity, "kbps", place),
        delay_ms=_agreed(delay, "ms", place),
        cable_km=_agreed(cable, "km", place),
        crow_km=_agreed(crow, "km", place),
    )


def _measures(
    given: Mapping[str, object],
    stems: tuple[str, ...],
    units: Mapping[str, float],
    default: float | None,
    option: str,
    place: Place,
) -> dict[str, float]:
    """Return what attributes of some stems say, by name, in the base unit."""
    found = {}
    for stem in stems:
        for unit, factor in units.items():
            name = f"{stem}_{unit}"
            if given.get(name) not in _NOTHING:
                found[name] = place.number(name, given[name], 0.0) * factor
        if given.get(stem) not in _NOTHING:
            value = place.number(stem, given[stem], 0.0)
            if default is None:
                place.fail(stem, value, f"a name with its unit, such as {stem}_{next(iter(units))}", f"Pass {option}.")
            found[stem] = value * default
    return found


def _zoo_speed(given: Mapping[str, object], place: Place) -> dict[str, float]:
    """Return the Topology Zoo's speeds by name, in kbps; a speed without its unit needs the raw figure beside it."""
    found = {}
    if given.get("linkspeedraw") not in _NOTHING:
        found["LinkSpeedRaw"] = place.number("LinkSpeedRaw", given["linkspeedraw"], 0.0) * KBPS[""]
    if given.get("linkspeed") not in _NOTHING:
        speed, unit = given["linkspeed"], given.get("linkspeedunits")
        if unit in _NOTHING and not found:
            place.fail("LinkSpeedUnits", "missing", "the unit of LinkSpeed: K, M, G or T", "Add it to the file.")
        if unit not in _NOTHING:
            found["LinkSpeed"] = place.number("LinkSpeed", speed, 0.0) * kbps_in(unit, place)
    return found


def _agreed(found: Mapping[str, float], unit: str, place: Place) -> float | None:
    """Return the one figure that all attributes for a quantity agree on, or None without any."""
    if not found:
        return None
    (first, value), *others = found.items()
    for name, other in others:
        if abs(other - value) > _CLOSE * max(other, value):
            place.fail(
                first,
                f"{value:g} {unit}",
                f"what {name} says, {other:g} {unit}",
                "The units are mixed: keep the figure that is right and remove the other.",
            )
    return value


def unused(names: set[str], is_link: bool) -> list[str]:
    """Return which attribute names (in lower case) nothing is read from, sorted."""
    stems = (*CAPACITY_NAMES, *DELAY_NAMES, *CABLE_NAMES, *CROW_NAMES) if is_link else ()
    return sorted(names - (USED_LINK if is_link else USED_NODE) - {n for n in names if n.split("_")[0] in stems})
