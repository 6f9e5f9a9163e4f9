"""Failures of links and sites in the midst of a day, as data: who fails, when, and for how long.

`data/failures.toml` says what its keys mean. A failure is the same for every method: what is "most used" is measured
under one rule (`REFERENCE`) on the same day.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from amarl_core.errors import ScenarioError, problem
from amarl_core.outages import Outage
from amarl_core.scenario import DATA_FOLDER
from amarl_core.tables import names
from amarl_core.utilisation import HOUR_S, HOURS, utilisation

FAILURES_FILE = DATA_FOLDER / "failures.toml"
REFERENCE = "shortest_feasible"
BUSIEST = "busiest hour"


@dataclass(frozen=True)
class Failure:
    """What a table of `failures.toml` says.

    Attributes:
        name: the table's name.
        title: what fails, in words.
        at: `BUSIEST`, or hours after midnight.
        minutes: until it is repaired.
        most_used_links: how many links fail, both directions.
        links: ids of links that fail, each for its own direction.
        most_used_sites: how many nodes of `tier` fail, with all their links.
        sites: ids of nodes that fail, with all their links.
        tier: of the nodes that `most_used_sites` chooses from.
    """

    name: str
    title: str
    at: str | float = BUSIEST
    minutes: float = 60.0
    most_used_links: int = 0
    links: tuple[str, ...] = ()
    most_used_sites: int = 0
    sites: tuple[str, ...] = ()
    tier: str = "cu"


def read_failures(path: str | Path = FAILURES_FILE) -> dict[str, Failure]:
    """Read a file of failures.

    Raises:
        ScenarioError: it is missing, is not TOML, or a key or value is wrong; the message says which.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ScenarioError(
            problem(path, None, None, f"no such file in {path.parent}", "a file of failures", f"See {FAILURES_FILE}.")
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(problem(path, None, None, f"not TOML: {error}", "a TOML file")) from error
    return {name: _read_failure(path, name, table) for name, table in tables.items()}


def _read_failure(path: Path, name: str, given: object) -> Failure:
    valid = [field.name for field in fields(Failure)][1:]
    if not isinstance(given, dict):
        raise ScenarioError(problem(path, None, name, given, "a table such as [one_link]"))
    for key, value in given.items():
        kind = "number"
        if key not in valid:
            raise ScenarioError(problem(path, None, f"[{name}] {key}", value, f"one of {names(valid)}"))
        if key in ("links", "sites"):
            good, kind = isinstance(value, list) and all(isinstance(v, str) for v in value), "list of ids"
        elif key in ("title", "tier"):
            good, kind = isinstance(value, str) and value != "", "text"
        elif key in ("most_used_links", "most_used_sites"):
            good, kind = type(value) is int and value >= 0, "number of links or sites, from 0"
        elif key == "at":
            good, kind = value == BUSIEST or (_is_number(value) and 0 <= value < HOURS), f"{BUSIEST!r} or an hour"
        else:
            good, kind = _is_number(value) and value > 0, "number of minutes over 0"
        if not good:
            raise ScenarioError(problem(path, None, f"[{name}] {key}", value, kind))
    chosen = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    failure = Failure(name, **{"title": name.replace("_", " ")} | chosen)
    if not (failure.most_used_links or failure.links or failure.most_used_sites or failure.sites):
        raise ScenarioError(problem(path, None, name, given, "links or sites that fail", "Give most_used_links = 1."))
    return failure


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def locate(failure: Failure, scenario, decisions: pd.DataFrame) -> Outage:
    """Say which links and nodes of a scenario fail, and from when to when.

    Args:
        failure: what is to fail.
        scenario: the network.
        decisions: the same day, served by `REFERENCE` without a failure.

    Raises:
        ScenarioError: an unknown link, node or tier, or fewer of them than are to fail.
    """
    network, where = scenario.network, f"failure {failure.name}"
    used = utilisation(decisions, scenario)
    hour = used.busiest_hour if failure.at == BUSIEST else float(failure.at)
    before = max(int(np.ceil(hour)) - 1, 0)
    links = [_index(where, "links", link, network.link_ids) for link in failure.links]
    sites = [_index(where, "sites", site, network.node_ids) for site in failure.sites]
    of_tier = np.flatnonzero(np.array(network.tier) == failure.tier)
    share = np.nan_to_num(used.node_mean[before, of_tier])
    sites += of_tier[np.argsort(-share, kind="stable")][: failure.most_used_sites].tolist()
    links += np.flatnonzero(np.isin(network.source, sites) | np.isin(network.target, sites)).tolist()
    chosen = most_used_links(network, used.link_mean[before], failure.most_used_links)
    if len(chosen) < 2 * failure.most_used_links or len(of_tier) < failure.most_used_sites:
        raise ScenarioError(
            f"{where}: the scenario has not so many links (or nodes of tier {failure.tier}) whose loss leaves the "
            "others connected; let fewer fail"
        )
    links = sorted({*links, *chosen})
    resources = np.array(links + [network.n_links + site for site in sorted(set(sites))], np.int64)
    return Outage(failure.name, resources, hour * HOUR_S, hour * HOUR_S + 60.0 * failure.minutes)


def most_used_links(network, use: np.ndarray, n: int) -> list[int]:
    """Return the n most used links, both directions, without which the network still hangs together.

    Args:
        network: the network.
        use: float64[E], share of capacity; of two directions the fuller counts.
        n: how many.

    Returns:
        Indices of up to 2 n directed links, most used first.
    """
    chosen: list[int] = []
    back = {(a, b): e for e, (a, b) in enumerate(zip(network.source, network.target, strict=True))}
    pairs = {tuple(sorted((e, back.get((network.target[e], network.source[e]), e)))) for e in range(network.n_links)}
    for pair in sorted(pairs, key=lambda pair: (-max(use[list(pair)]), pair)):
        if len(chosen) < 2 * n and pair[0] != pair[1] and _is_connected(network, [*chosen, *pair]):
            chosen += pair
    return chosen


def _is_connected(network, without: list[int]) -> bool:
    kept = np.setdiff1d(np.arange(network.n_links), without)
    edges = (np.ones(len(kept)), (network.source[kept], network.target[kept]))
    graph = coo_array(edges, shape=(network.n_nodes, network.n_nodes))
    return connected_components(graph, directed=True, connection="strong", return_labels=False) == 1


def _index(where: str, key: str, name: str, known: tuple[str, ...]) -> int:
    if name not in known:
        raise ScenarioError(problem(None, None, f"{where}: {key}", name, f"one of {', '.join(known[:8])} ..."))
    return known.index(name)
