"""Mappings for known formats of traffic, to be completed or changed by a mapping of one's own.

`data/README.md` lists their columns, units, time zones, sources and assumptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amarl_core.errors import TraceError, problem
from amarl_core.foreign.trace_mappings import TrafficMapping, build_mapping, merge, read_mapping

REQUESTS = {
    "kind": "requests",
    "id": "request_id",
    "time": {"column": "t_s", "unit": "s", "origin": "midnight"},
    "service": {"column": "service"},
    "source": {"column": "source"},
    "destination": {"column": "destination"},
    "bundle": {"column": "bundle"},
    "demand": {"column": "demand_kbps", "unit": "kbps"},
    "hold": {"column": "hold_s", "unit": "s"},
}
"""A plain table with the columns of this project's own trace files, in any of the formats and in any order."""

OWN = merge(REQUESTS, {"on_disorder": "refuse", "time": {"days_max": 1e9 / 86_400}})
"""The same, as strict as `traces.load_trace` without mapping, which reads large files of our own in this way."""

MILAN = {
    "kind": "volumes",
    "delimiter": "\t",
    "header": False,
    "columns": ["square_id", "time", "country_code", "sms_in", "sms_out", "call_in", "call_out", "internet"],
    "time": {"column": "time", "unit": "ms", "origin": "epoch", "zone": "Europe/Rome"},
    "source": {"column": "square_id", "rule": "population"},
    "volume": {
        "column": "internet",
        "unit": "activity",
        "interval_s": 600,
        "sum_over": ["country_code"],
        "blank": "zero",
    },
}
"""Telecom Italia, "Telecommunications - SMS, Call, Internet - MI" (Harvard Dataverse, doi 10.7910/DVN/EGZHFV; Barlacchi
et al., Scientific Data 2, 150055, 2015): a file a day, tab separated, no header, eight columns, the beginning of a
ten-minute interval in ms from the epoch, a row for each country code, empty cells where there was no activity. The
activity is proportional to the number of records and has no unit: say `volume.busy_load_gbps` or `volume.scale`."""

SNDLIB = {"kind": "volumes", "format": "sndlib", "time": {"zone": "UTC"}}
"""SNDlib, dynamic traffic (sndlib.put.poznan.pl; Orlowski et al., Networks 55(3), 2010): a folder of XML files, each
the demands between node ids over one interval, with `meta/time` (20040301-0000), `meta/granularity` (5min) and
`meta/unit` (MBITPERSEC). The files do not say the time zone: UTC is assumed and reported."""

COORDSIM = {
    "kind": "volumes",
    "time": {"column": "time", "unit": "ms", "origin": "midnight"},
    "source": {"column": "node"},
    "volume": {"column": "inter_arrival_mean", "unit": "inter_arrival_ms", "blank": "zero"},
}
"""coord-sim (github.com/RealVNF/coord-sim, `params/traces` and `params/convert_traces`): at `time` the mean time
between flows at `node` becomes `inter_arrival_mean`, both in simulated ms; "None" ends them. A file without nodes means
every place: then the source is `{"column": "", "rule": "each"}`."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "requests": REQUESTS,
    "milan": MILAN,
    "sndlib": SNDLIB,
    "coordsim": COORDSIM,
}


def resolve_mapping(
    mapping: TrafficMapping | Mapping[str, Any] | str | Path | None, preset: str | None
) -> TrafficMapping:
    """Return the checked mapping that a preset and a mapping laid over it make.

    Args:
        mapping: A `TrafficMapping`, a dictionary of its form, the path of a TOML file, or None.
        preset: Name of a preset, or None.

    Raises:
        TraceError: Neither is given, the preset is unknown, or the mapping is not complete and correct.
    """
    if preset is not None and preset not in PRESETS:
        raise TraceError(problem(None, None, "preset", preset, f"one of {', '.join(PRESETS)}"))
    if isinstance(mapping, TrafficMapping):
        if preset is not None:
            raise TraceError(
                problem(None, None, "mapping", "a TrafficMapping", "a dictionary of what differs from the preset")
            )
        return mapping
    if mapping is None and preset is None:
        raise TraceError(problem(None, None, "mapping", None, f"a mapping or a preset: {', '.join(PRESETS)}"))
    base = PRESETS[preset] if preset is not None else {}
    if not isinstance(mapping, (str, Path)):
        return build_mapping(merge(base, mapping) if isinstance(mapping, Mapping) else mapping or base)
    changes = read_mapping(mapping)
    try:
        return build_mapping(merge(base, changes))
    except TraceError as error:
        raise TraceError(f"{Path(mapping).name}: {error}") from error
