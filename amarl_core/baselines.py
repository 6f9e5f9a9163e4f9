"""Routing rules that users would pick instead of learning: their names, their settings, and the tuned ones.

Every rule serves requests on the same records and ledger as the agents, in order of arrival. How a rule plans a
request is in `rule_routes`, `k_shortest` and `reoptimise`; the windows of `milp_batch` and `milp_lookahead` are in
`windows`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from amarl_core.errors import AmarlError
from amarl_core.rule_routes import EXACT, LISTED, WALK, WIDEST
from amarl_core.search import BY_HOPS, BY_LATENCY, BY_PRICE, Rule

ALWAYS = 2.0
"""A reservation threshold that is never reached."""

RULES = (
    "fixed_shortest",
    "random_feasible",
    "min_hop",
    "widest_shortest",
    "shortest_feasible",
    "k_shortest_first_fit",
    "k_shortest_least_loaded",
    "priced",
    "reservation",
    "priced_reservation",
    "priced_admission",
    "reoptimise",
    "milp_batch",
)
"""Rules that serve a day in seconds."""

SLOW_RULES = ("milp_lookahead",)
"""Rules that take minutes a day."""

BASES = ("shortest_feasible", "priced", "reservation", "priced_reservation")
"""Rules that others build on."""

_OF_BASE = dict(base="reservation", mu=100.0, reserve_above=0.2, loose_ms=50.0)

SETTINGS: dict[str, dict[str, Any]] = {
    "fixed_shortest": {},
    "random_feasible": dict(seed=0),
    "min_hop": {},
    "widest_shortest": {},
    "shortest_feasible": {},
    "k_shortest_first_fit": dict(k=8),
    "k_shortest_least_loaded": dict(k=8),
    "priced": dict(mu=100.0),
    "reservation": dict(reserve_above=0.2, loose_ms=50.0),
    "priced_reservation": dict(mu=100.0, reserve_above=0.2, loose_ms=50.0),
    "priced_admission": dict(mu=100.0, worth=10.0),
    "reoptimise": dict(moves=4, **_OF_BASE),
    "milp_batch": dict(window_s=5.0, k=8, **_OF_BASE),
    "milp_lookahead": dict(window_s=30.0, k=8, **_OF_BASE),
}
"""The settings of each rule, with their defaults."""


def _is_integer(value: Any, least: int, most: float = np.inf) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and least <= value <= most


_VALID: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": (lambda value: _is_integer(value, 0, 2**62), "an integer from 0"),
    "k": (lambda value: _is_integer(value, 1, 1024), "an integer from 1 to 1024"),
    "moves": (lambda value: _is_integer(value, 1, 64), "an integer from 1 to 64"),
    "mu": (lambda value: 1 < value < np.inf, "a number over 1"),
    "worth": (lambda value: value > 0, "a number over 0"),
    "reserve_above": (lambda value: value >= 0, "a share, at least 0"),
    "loose_ms": (lambda value: value >= 0, "milliseconds, at least 0"),
    "window_s": (lambda value: 0 < value < np.inf, "seconds, over 0"),
    "base": (lambda value: value in BASES, f"one of {', '.join(BASES)}"),
}


@dataclass(frozen=True)
class Baseline:
    """A named rule with its settings, as the kernels take them."""

    name: str
    rule: Rule
    method: int = EXACT
    mu: float = 100.0  # base of the prices
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def waits_s(self) -> float:
        """How long a request waits for its decision at most, s: it is served as `windows.held` says."""
        return float(self.settings["window_s"]) if self.name == "milp_batch" else 0.0


def baseline(name: str, **settings: Any) -> Baseline:
    """Return a rule by name.

    Args:
        name: `fixed_shortest` (shortest delay on the idle network, no look at load), `random_feasible` (hop by hop,
            each allowed next hop as likely; it can walk into a dead end, as an agent can), `min_hop` (fewest links
            among the feasible routes, ties by latency), `widest_shortest` (of the feasible routes with fewest links
            the one whose narrowest link has most free bandwidth), `shortest_feasible` (least latency among the
            feasible routes), `k_shortest_first_fit` (the first that is feasible of the k shortest routes of an idle
            network), `k_shortest_least_loaded` (of these the one whose fullest link or pool is least full
            afterwards), `priced` (least exponential price mu^u - 1 of links and pools), `reservation` (shortest
            feasible, but a loose service leaves an edge pool alone once it is used by a share), `priced_reservation`
            (both), `priced_admission` (priced, and a request that costs more than it is worth is refused),
            `reoptimise` (a base rule that moves active flows when it finds no route), `milp_batch` (requests wait for
            the end of their window, are decided together, and hold from then on), `milp_lookahead` (the requests of a
            window are decided together when it begins, so it knows a window's length of the future).
        settings: those of the rule in `SETTINGS`:
            mu: base of the prices, over 1.
            worth: the highest price of a route that is taken, for a service that holds for 10 minutes on average; a
                service that holds twice as long pays twice.
            reserve_above: share of an edge pool's budget from which loose services leave it alone.
            loose_ms: a service is loose when its latency bound is at least this.
            seed: of the random walk.
            k: routes listed for each service, source and destination.
            base: the rule that `reoptimise` and the two of windows build on, one of `BASES`.
            moves: active flows that may be moved for one request.
            window_s: length of a window, s of simulated time.

    Raises:
        AmarlError: an unknown name or setting, with the valid ones, or a value out of range.
    """
    if name not in SETTINGS:
        raise AmarlError(f"unknown baseline {name!r}; the valid ones are {', '.join(SETTINGS)}")
    unknown = [key for key in settings if key not in SETTINGS[name]]
    if unknown:
        valid = ", ".join(SETTINGS[name]) or "none"
        raise AmarlError(f"{name} has no setting {unknown[0]!r}; the valid ones are: {valid}")
    chosen = SETTINGS[name] | settings
    for key, value in settings.items():
        is_valid, expected = _VALID[key]
        try:
            good = is_valid(value)
        except TypeError:
            good = False
        if not good:
            raise AmarlError(f"{key} of {name} is {value!r}; expected {expected}")
    planned_as = chosen.get("base", name)
    criterion = BY_LATENCY
    if planned_as.startswith("priced"):
        criterion = BY_PRICE
    elif name in ("min_hop", "widest_shortest"):
        criterion = BY_HOPS
    share = chosen["reserve_above"] if "reservation" in planned_as else ALWAYS
    rule = Rule(
        criterion,
        int(name != "fixed_shortest"),
        float(share),
        float(chosen.get("loose_ms", 50.0)),
        float(chosen.get("worth", np.inf)),
    )
    methods = {"random_feasible": WALK, "widest_shortest": WIDEST}
    method = LISTED if name.startswith("k_shortest") else methods.get(name, EXACT)
    return Baseline(name, rule, method, float(chosen.get("mu", 100.0)), MappingProxyType(chosen))


TUNED: dict[str, dict[str, Any]] = {
    "k_shortest_first_fit": dict(k=512),
    "k_shortest_least_loaded": dict(k=512),
    "priced": dict(mu=1e5),
    "reservation": dict(reserve_above=0.2),
    "priced_reservation": dict(mu=1e5, reserve_above=0.4),
    "priced_admission": dict(mu=1e3, worth=40.0),
    "reoptimise": dict(base="priced_reservation", mu=1e3, reserve_above=0.6, moves=1),
    "milp_batch": dict(base="reservation", reserve_above=0.1, window_s=1.0),
    "milp_lookahead": dict(base="reservation", reserve_above=0.1, window_s=30.0),
}
"""Settings with the best mean GoS on the training days of `python -m amarl_core.calibrate`."""


def tuned(name: str) -> Baseline:
    """Return a rule with the setting found on training days."""
    return baseline(name, **TUNED.get(name, {}))
