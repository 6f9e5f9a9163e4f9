"""Rules on routes: from source to destination, through the hosts of the chain, in simple segments.

A walk is the source followed by the target of each link: a request with h links has h + 1 positions. The
hosts split it into segments: source to first host, host to host, last host to destination, ends included.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from amarl_core.replay import stage_rates
from amarl_core.rules import Findings
from amarl_core.transcript import Decisions


class Walks(NamedTuple):
    """The walks of n requests, laid end to end."""

    start: np.ndarray  # int64[n + 1]: request i is at node[start[i]:start[i + 1]]
    row: np.ndarray  # int32[w], the request of each position
    node: np.ndarray  # int32[w]


def walks_of(decisions: Decisions, scenario: Any) -> Walks:
    """Return the nodes that each request's links lead through."""
    links = decisions.links
    start = links.start + np.arange(len(decisions) + 1)
    node = np.empty(start[-1], np.int32)
    node[start[:-1]] = decisions.source
    node[np.arange(len(links.code)) + links.row + 1] = scenario.network.target[links.code]
    return Walks(start, np.repeat(np.arange(len(decisions), dtype=np.int32), np.diff(start)), node)


def check_routes(found: Findings, decisions: Decisions, scenario: Any, wanted: np.ndarray) -> None:
    """Check rules route, simple, stub and chain.

    Args:
        found: Where violations go.
        decisions: n rows.
        scenario: The scenario.
        wanted: bool[n], requests whose route counted and whose identifiers are all known.
    """
    for rows, block in decisions.blocks():
        _check_block(found, block, scenario, wanted[rows], np.arange(rows.start, rows.stop))


def _check_block(found: Findings, d: Decisions, scenario: Any, wanted: np.ndarray, rows: np.ndarray) -> None:
    """Check the routes of a block of decisions, which stand at `rows` in the frame."""
    network = scenario.network
    walks = walks_of(d, scenario)
    gap = _gaps(d, walks, network)
    last = walks.node[walks.start[1:] - 1]
    ends_wrong = last != d.destination
    entered = network.target[d.links.code]
    stub = d.links.any(scenario.stub[entered] & (entered != d.destination[d.links.row]))

    chain_length = scenario.chain_length[d.service]
    foreign = stage_rates(d, scenario) < 0
    in_chain = wanted & (d.hosts.length == chain_length) & ~d.hosts.any(foreign)
    connected = wanted & ~d.links.any(gap) & ~ends_wrong
    position = host_positions(d, walks, in_chain)
    off_walk = d.hosts.any(position < 0)
    twice = revisits(walks, d, position, connected & in_chain & ~off_walk)

    names = network.node_ids
    all_of = [
        ("route", d.links.any(gap), lambda i: _describe_gap(d, walks, network, gap, i)),
        (
            "route",
            ends_wrong,
            lambda i: f"ends at {names[last[i]]}; its destination is {names[d.destination[i]]}",
        ),
        ("stub", stub, lambda i: "enters a stub that is not its destination"),
        (
            "chain",
            d.hosts.length != chain_length,
            lambda i: f"{d.hosts.length[i]} stages ran; the chain has {chain_length[i]}",
        ),
        ("chain", d.hosts.any(foreign), lambda i: _describe_host(d, scenario, foreign, i)),
        ("chain", in_chain & off_walk, lambda i: "the hosts do not lie in this order along the walk"),
        ("simple", twice >= 0, lambda i: f"passes {names[twice[i]]} twice within one segment"),
    ]
    for rule in ("route", "stub", "chain", "simple"):
        cases = [(flagged & wanted, describe) for name, flagged, describe in all_of if name == rule]
        found.check(rule, rows, d.request_id, cases)


def host_positions(decisions: Decisions, walks: Walks, wanted: np.ndarray) -> np.ndarray:
    """Find where along its walk each host is: the first place at or after that of the host before it.

    This is the only place it can be if the segments are to be simple: were it at a later visit to the same
    node, both visits would lie in one segment.

    Returns:
        int32[m], position of each host in its request's walk; -1 where it is not found or not wanted.
    """
    hosts = decisions.hosts
    position = np.full(len(hosts.code), -1, np.int32)
    rows = np.flatnonzero(wanted)
    at = np.zeros(len(rows), np.int64)
    for stage in range(int(hosts.length.max(initial=0))):
        goes_on = hosts.length[rows] > stage
        rows, at = rows[goes_on], at[goes_on]
        entry = hosts.start[rows] + stage
        looking = np.arange(len(rows))
        while len(looking):
            here = walks.start[rows[looking]] + at[looking]
            looking = looking[walks.node[here] != hosts.code[entry[looking]]]
            at[looking] += 1
            beyond = walks.start[rows[looking]] + at[looking] >= walks.start[rows[looking] + 1]
            at[looking[beyond]] = -1
            looking = looking[~beyond]
        position[entry] = at
        rows, at = rows[at >= 0], at[at >= 0]
    return position


def revisits(walks: Walks, decisions: Decisions, position: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Find a node that a request passes twice within one segment.

    Two visits lie in different segments when a host stands strictly between them.

    Args:
        walks: The walks of n requests.
        decisions: The decisions they are of.
        position: int[m], see ``host_positions``.
        wanted: bool[n], the requests to look at; their hosts have all been found.

    Returns:
        int32[n], the node, -1 where there is none.
    """
    placed = wanted[decisions.hosts.row]
    host_at = walks.start[decisions.hosts.row[placed]] + position[placed]
    hosts_so_far = np.cumsum(np.bincount(host_at, minlength=len(walks.node)))  # int64[w]
    twice = np.full(len(wanted), -1, np.int32)
    here = np.flatnonzero(wanted[walks.row])
    end = walks.start[walks.row[here] + 1]
    for distance in range(1, int(np.diff(walks.start).max(initial=0))):
        inside = here + distance < end
        here, end = here[inside], end[inside]
        there = here + distance
        same = walks.node[here] == walks.node[there]
        same &= hosts_so_far[there - 1] == hosts_so_far[here]
        twice[walks.row[here[same]]] = walks.node[here[same]]
    return twice


def _gaps(decisions: Decisions, walks: Walks, network: Any) -> np.ndarray:
    """Tell which links do not start where the walk stands, bool[m]."""
    before = np.arange(len(decisions.links.code)) + decisions.links.row
    return network.source[decisions.links.code] != walks.node[before]


def _describe_gap(decisions: Decisions, walks: Walks, network: Any, gap: np.ndarray, i: int) -> str:
    first = int(np.flatnonzero(gap[decisions.links.start[i] : decisions.links.start[i + 1]])[0])
    link = decisions.links.code[decisions.links.start[i] + first]
    stands = network.node_ids[walks.node[walks.start[i] + first]]
    starts = network.node_ids[network.source[link]]
    return f"link {first + 1} ({network.link_ids[link]}) starts at {starts}; the walk stands at {stands}"


def _describe_host(decisions: Decisions, scenario: Any, foreign: np.ndarray, i: int) -> str:
    first = int(np.flatnonzero(foreign[decisions.hosts.start[i] : decisions.hosts.start[i + 1]])[0])
    node = scenario.network.node_ids[decisions.hosts.code[decisions.hosts.start[i] + first]]
    return f"stage {first + 1} ran at {node}, which does not host it"
