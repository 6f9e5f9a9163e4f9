"""Services, the functions of their chains, where these are hosted, and the least delay of an idle chain.

A service function chain runs its functions in order; each stage runs at a node that hosts the function
(paper: equation 2 charges it b_p x c_{v,f} there).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amarl_core.errors import ScenarioError
from amarl_core.tables import Column, read_csv
from amarl_core.topology import Network, least_delays

CHAIN_SEPARATOR = "-"
_ROWS = 64
"""Sources whose delays are lowered together: as many as stay in the cache with a thousand nodes."""
DEMAND_MAX_KBPS = 10**9
FUNCTION_COLUMNS = {
    "function": Column("text", unique=True),
    "name": Column("text"),
    "mcpu_per_gbps": Column("int", above=0, most=10**9, unit="millicores per Gb/s"),
    "processing_ms": Column("float", above=0, unit="ms"),
}
SERVICE_COLUMNS = {
    "service": Column("text", unique=True),
    "chain": Column("text"),
    "latency_ms": Column("float", above=0, unit="ms"),
    "bundle_min": Column("int", above=0, most=10**6),
    "bundle_max": Column("int", above=0, most=10**6),
    "unit_kbps_min": Column("int", above=0, most=10**9, unit="kbps"),
    "unit_kbps_max": Column("int", above=0, most=10**9, unit="kbps"),
    "hold_mean_s": Column("float", above=0, unit="s"),
    "busy_load_share": Column("float", above=0, most=1),
    "attract_population": Column("float", least=0),
    "attract_jobs": Column("float", least=0),
    "attract_industry": Column("float", least=0),
    "follows_landuse": Column("int", least=0, most=1, optional=True),
    "nearest_5qi": Column("text", optional=True, blank=True),
}
PLACEMENT_COLUMNS = {
    "node_id": Column("text"),
    "function": Column("text"),
    "mcpu_per_gbps": Column("int", above=0, most=10**9, unit="millicores per Gb/s", optional=True),
}


@dataclass(frozen=True)
class Function:
    """A network function.

    Attributes:
        function: Identifier, as used in chains.
        name: What it is.
        mcpu_per_gbps: Millicores for each Gb/s (paper: c_{v,f}), unless the placement says otherwise.
        processing_ms: Delay it adds on an idle node, in ms.
    """

    function: str
    name: str
    mcpu_per_gbps: int
    processing_ms: float


@dataclass(frozen=True)
class Service:
    """A service (paper: a slice type with its chain and latency bound tau_p).

    Attributes:
        service: Identifier.
        chain: Functions in the order in which they must run.
        latency_ms: Bound on the end-to-end latency in ms (paper: tau_p).
        bundle_min: Fewest sessions that one request bundles.
        bundle_max: Most sessions that one request bundles.
        unit_kbps_min: Least bandwidth of one session in kbps.
        unit_kbps_max: Most bandwidth of one session in kbps.
        hold_mean_s: Mean holding time in s.
        busy_load_share: Share of the scenario's load that it offers in its own busiest weekday hour.
        attract_population: Weight of an area's residents.
        attract_jobs: Weight of its jobs.
        attract_industry: Weight of its industrial land, scaled to the total population.
        follows_landuse: False if its demand is flat all day.
    """

    service: str
    chain: tuple[str, ...]
    latency_ms: float
    bundle_min: int
    bundle_max: int
    unit_kbps_min: int
    unit_kbps_max: int
    hold_mean_s: float
    busy_load_share: float
    attract_population: float
    attract_jobs: float
    attract_industry: float
    follows_landuse: bool = True

    @property
    def mean_kbps(self) -> float:
        """Mean bandwidth of one request in kbps."""
        return (self.unit_kbps_min + self.unit_kbps_max) / 2 * (self.bundle_min + self.bundle_max) / 2


def read_functions(path: Path) -> tuple[Function, ...]:
    """Read functions.csv."""
    table = read_csv(path, FUNCTION_COLUMNS, ScenarioError)
    for i, function in enumerate(table["function"]):
        if CHAIN_SEPARATOR in function:
            table.fail(i, "function", f"a name without {CHAIN_SEPARATOR!r}, which separates the stages of a chain")
    return tuple(
        Function(
            table["function"][i],
            table["name"][i],
            int(table["mcpu_per_gbps"][i]),
            float(table["processing_ms"][i]),
        )
        for i in range(len(table))
    )


def read_services(path: Path, functions: tuple[Function, ...]) -> tuple[Service, ...]:
    """Read services.csv, whose chains may use only known functions."""
    table = read_csv(path, SERVICE_COLUMNS, ScenarioError)
    known = [function.function for function in functions]
    services = []
    for i in range(len(table)):
        chain = tuple(table["chain"][i].split(CHAIN_SEPARATOR))
        for function in chain:
            if function not in known:
                table.fail(
                    i,
                    "chain",
                    f"functions of functions.csv ({', '.join(known)}) separated by {CHAIN_SEPARATOR!r}; "
                    f"{function!r} is none",
                    "Correct the chain or add the function.",
                )
        for low, high in (("bundle_min", "bundle_max"), ("unit_kbps_min", "unit_kbps_max")):
            if table[low][i] > table[high][i]:
                table.fail(i, high, f"at least {low} ({table[low][i]})", "Exchange the two.")
        if table["attract_population"][i] + table["attract_jobs"][i] + table["attract_industry"][i] <= 0:
            table.fail(i, "attract_population", "one positive attraction weight at least", "Say who asks for it.")
        if table["bundle_max"][i] * table["unit_kbps_max"][i] > DEMAND_MAX_KBPS:
            table.fail(i, "unit_kbps_max", f"at most {DEMAND_MAX_KBPS} kbps times bundle_max", "Lower one of them.")
        services.append(
            Service(
                service=table["service"][i],
                chain=chain,
                follows_landuse=bool(table["follows_landuse"][i]) if "follows_landuse" in table else True,
                **{
                    name: int(table[name][i])
                    for name in SERVICE_COLUMNS
                    if SERVICE_COLUMNS[name].kind == "int" and name != "follows_landuse"
                },
                **{name: float(table[name][i]) for name in SERVICE_COLUMNS if SERVICE_COLUMNS[name].kind == "float"},
            )
        )
    return tuple(services)


def read_placement(path: Path, network: Network, functions: tuple[Function, ...]) -> np.ndarray:
    """Read placement.csv: which node hosts which function.

    Returns:
        int64 [N, F], millicores for each Gb/s, -1 where the node does not host the function.
    """
    table = read_csv(path, PLACEMENT_COLUMNS, ScenarioError)
    node = table.lookup("node_id", network.node_index, "node", "Add the node to nodes.csv or correct the name.")
    index = {function.function: f for f, function in enumerate(functions)}
    hosted = table.lookup("function", index, "function", "Add it to functions.csv or correct the name.")
    rate = np.full((network.n_nodes, len(functions)), -1, dtype=np.int64)
    for i, (v, f) in enumerate(zip(node.tolist(), hosted.tolist(), strict=True)):
        if network.compute_mcpu[v] == 0:
            table.fail(i, "node_id", "a node with compute (compute_mcpu in nodes.csv is 0)", "Give it compute.")
        if rate[v, f] != -1:
            table.fail(i, "function", f"each function once for node {network.node_ids[v]}", "Remove the duplicate.")
        own = table["mcpu_per_gbps"][i] if "mcpu_per_gbps" in table else functions[f].mcpu_per_gbps
        rate[v, f] = int(own)
    return rate


@dataclass(frozen=True, eq=False)
class ChainDelays:
    """Least delays of every chain on an idle network, in ms (S services, K stages at most, N nodes).

    Attributes:
        to_go: float64 [S, K+1, N, N] indexed [service, stage, destination, node].
        so_far: float64 [S, K+1, N, N] indexed [service, stage, source, node].
    """

    to_go: np.ndarray
    so_far: np.ndarray


def chain_delays(
    network: Network,
    chains: np.ndarray,
    chain_length: np.ndarray,
    is_host: np.ndarray,
    processing_ms: np.ndarray,
) -> ChainDelays:
    """Compute the least idle delay still to go, and so far, for every service, stage and pair of nodes.

    Idle means rho = 0. A stub may be entered only if it is the destination; leaving the origin is always
    allowed. `so_far` at a stub takes that stub as the destination, which the path may pass before its chain is done.
    Chains with a common end (to go) or beginning (so far) share the work. Stages beyond a chain's length are inf.

    Args:
        network: The network.
        chains: int32 [S, K], function index of each stage, padded with -1.
        chain_length: int32 [S].
        is_host: bool [N, F].
        processing_ms: float64 [F].

    Returns:
        The delays.
    """
    n_services, n_stages = chains.shape
    n = network.n_nodes
    link_delay = least_delays(network)  # [N, N]
    shape = (n_services, n_stages + 1, n, n)
    to_go, so_far = np.empty(shape), np.empty(shape)
    for s in range(n_services):
        to_go[s, chain_length[s] + 1 :], so_far[s, chain_length[s] + 1 :] = np.inf, np.inf
    sequences = [tuple(int(f) for f in chains[s, : chain_length[s]]) for s in range(n_services)]
    hosts = [np.flatnonzero(is_host[:, f] & network.transit) for f in range(is_host.shape[1])]
    to_host = [np.ascontiguousarray(link_delay[:, at]) for at in hosts]  # [N, H] each
    for destination in range(n):
        ends: dict[tuple[int, ...], np.ndarray] = {(): link_delay[:, destination]}
        for s, sequence in enumerate(sequences):
            for stage in range(len(sequence), -1, -1):
                end = sequence[stage:]
                if end not in ends:
                    f, after = end[0], ends[end[1:]] + processing_ms[end[0]]
                    best = (to_host[f] + after[hosts[f]]).min(axis=1, initial=np.inf)
                    if not network.transit[destination]:  # the path may pass it, and run the stage there
                        here = after[destination] if is_host[destination, f] else np.inf
                        here = min(here, (to_host[f][destination] + after[hosts[f]]).min(initial=np.inf))
                        best = np.minimum(best, link_delay[:, destination] + here)
                    ends[end] = np.where(is_host[:, f], np.minimum(best, after), best)
                to_go[s, stage, destination] = ends[end]
    begins: dict[tuple[int, ...], np.ndarray] = {(): link_delay}  # [N, N]: no stub but the origin runs a stage yet
    stubs = np.flatnonzero(~network.transit)
    loops = _Loops(link_delay, stubs, is_host, hosts, processing_ms)
    for s, sequence in enumerate(sequences):
        for stage in range(len(sequence) + 1):
            begin = sequence[:stage]
            if begin not in begins:
                # a stub that is the origin may run stages only while the path has not left it
                stayed = np.where(is_host[:, begin].all(axis=1), processing_ms[list(begin)].sum(), np.inf)
                begins[begin] = _one_stage_so_far(
                    begins[begin[:-1]] + processing_ms[begin[-1]],
                    stayed,
                    link_delay,
                    is_host[:, begin[-1]] & network.transit,
                )
            so_far[s, stage] = begins[begin]
            for first in range(stage):  # stages done when the path first enters the stub; it may go on from there
                entered = begins[sequence[:first]][:, stubs] + loops.least(sequence[first:stage])
                so_far[s, stage][:, stubs] = np.minimum(so_far[s, stage][:, stubs], entered)
    return ChainDelays(to_go=to_go, so_far=so_far)


class _Loops:
    """Least delays of walks that begin and end at a stub and run some stages in between, there or elsewhere.

    All D stubs at once: a search for each would take hours on a thousand nodes.
    """

    def __init__(
        self,
        link_delay: np.ndarray,
        stubs: np.ndarray,
        is_host: np.ndarray,
        hosts: list[np.ndarray],
        processing_ms: np.ndarray,
    ):
        self.link_delay, self.stubs, self.is_host, self.processing_ms = link_delay, stubs, is_host, processing_ms
        self.hosts = hosts
        self._least: dict[tuple[int, ...], np.ndarray] = {(): np.zeros(len(stubs))}
        self._away: dict[tuple[int, ...], np.ndarray] = {}

    def least(self, chain: tuple[int, ...]) -> np.ndarray:
        """Return the least delay of running a chain, float64 [D]: its last stage here, or a tour to end with."""
        if chain not in self._least:
            last = chain[-1]
            here = np.where(self.is_host[self.stubs, last], self.least(chain[:-1]) + self.processing_ms[last], np.inf)
            tours = [self.least(chain[:i]) + self._tour(chain[i:]) for i in range(len(chain))]
            self._least[chain] = np.min([here, *tours], axis=0)
        return self._least[chain]

    def _tour(self, chain: tuple[int, ...]) -> np.ndarray:
        """Return the least delay of leaving, running a whole chain at transit nodes and coming back, float64 [D]."""
        hosts = self.hosts[chain[-1]]
        back = self._out(chain) + self.link_delay[np.ix_(hosts, self.stubs)].T  # [D, H]
        return back.min(axis=1, initial=np.inf)

    def _out(self, chain: tuple[int, ...]) -> np.ndarray:
        """Return the least delay of leaving and running a chain that ends at each host of its last function, [D, H]."""
        if chain not in self._away:
            hosts = self.hosts[chain[-1]]
            if len(chain) == 1:
                best = self.link_delay[np.ix_(self.stubs, hosts)]
            else:
                best = np.full((len(self.stubs), len(hosts)), np.inf)
                before = self._out(chain[:-1])
                for i, host in enumerate(self.hosts[chain[-2]]):
                    np.minimum(best, before[:, i, None] + self.link_delay[host, hosts], out=best)
            self._away[chain] = best + self.processing_ms[chain[-1]]
        return self._away[chain]


def _one_stage_so_far(done: np.ndarray, stayed: np.ndarray, through: np.ndarray, hosts: np.ndarray) -> np.ndarray:
    """Return the least delay [source, node] with one stage more.

    Args:
        done: float64 [source, host], delay until this stage has run at a host.
        stayed: float64 [source], delay if all stages so far ran at the source itself.
        through: float64 [N, N], least delays between nodes.
        hosts: bool [N], hosts of this stage that may be entered.
    """
    best = stayed[:, None] + through
    for first in range(0, len(best), _ROWS):
        rows = slice(first, first + _ROWS)
        for host in np.flatnonzero(hosts):
            np.minimum(best[rows], done[rows, host, None] + through[host], out=best[rows])
    return best
