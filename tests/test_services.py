"""Services and functions, the placement, and the least delays of chains against a layered graph."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amarl_core.errors import ScenarioError
from amarl_core.scenario import Scenario, load_scenario
from amarl_core.services import chain_delays, read_functions, read_placement, read_services
from amarl_core.topology import Network
from tests.test_topology import networks

FUNCTIONS = "function,name,mcpu_per_gbps,processing_ms\nFW,firewall,900,0.03\nTM,monitor,13300,0.07\n"
SERVICES = """service,chain,latency_ms,bundle_min,bundle_max,unit_kbps_min,unit_kbps_max,hold_mean_s,\
busy_load_share,attract_population,attract_jobs,attract_industry
video,FW-TM,60,5,15,4000,4000,600,0.6,0.8,0.4,0
"""


def layered(
    network: Network, chain: list[int], is_host: np.ndarray, processing_ms: np.ndarray, entered_stub: int
) -> nx.DiGraph:
    """Return the graph of (node, stages done) in which only one stub, `entered_stub`, may be entered."""
    graph = nx.DiGraph()
    for stage in range(len(chain) + 1):
        for node in range(network.n_nodes):
            graph.add_node((node, stage))
            if stage < len(chain) and is_host[node, chain[stage]]:
                graph.add_edge((node, stage), (node, stage + 1), ms=processing_ms[chain[stage]])
        for u, v, delay in zip(network.source, network.target, network.delay_ms, strict=True):
            if network.transit[v] or v == entered_stub:
                graph.add_edge((int(u), stage), (int(v), stage), ms=delay)
    return graph


def check_to_go(network, chain, is_host, processing_ms, to_go, destination: int) -> None:
    """Compare [stage, node] delays to one destination with Dijkstra from its last stage backwards."""
    graph = layered(network, chain, is_host, processing_ms, destination).reverse()
    found = nx.single_source_dijkstra_path_length(graph, (destination, len(chain)), weight="ms")
    expected = np.full((len(chain) + 1, network.n_nodes), np.inf)
    for (node, stage), delay in found.items():
        expected[stage, node] = delay
    np.testing.assert_allclose(to_go[: len(chain) + 1, destination], expected, rtol=1e-12)
    assert np.isinf(to_go[len(chain) + 1 :]).all()


def check_so_far(network, chain, is_host, processing_ms, so_far, source: int, node: int) -> None:
    """Compare the delays of all stages at one node with Dijkstra from one source."""
    graph = layered(network, chain, is_host, processing_ms, node)
    found = nx.single_source_dijkstra_path_length(graph, (source, 0), weight="ms")
    expected = [found.get((node, stage), np.inf) for stage in range(len(chain) + 1)]
    np.testing.assert_allclose(so_far[: len(chain) + 1, source, node], expected, rtol=1e-12)


def chain_of(scenario: Scenario, s: int) -> list[int]:
    """Return a service's functions as indices."""
    return scenario.chains[s, : scenario.chain_length[s]].tolist()


@pytest.mark.parametrize(("name", "step"), [("toy", 1), ("montreal", 6)])
def test_delay_to_go_is_that_of_dijkstra_on_the_layered_graph(name, step):
    scenario = load_scenario(name)
    is_host = scenario.rate_mcpu_per_gbps >= 0
    for s in range(len(scenario.services)):
        for destination in range(s % step, scenario.network.n_nodes, step):
            to_go = scenario.delay_to_go[s]
            check_to_go(scenario.network, chain_of(scenario, s), is_host, scenario.processing_ms, to_go, destination)


@pytest.mark.parametrize(("name", "step"), [("toy", 1), ("montreal", 7)])
def test_delay_so_far_is_that_of_dijkstra_on_the_layered_graph(name, step):
    scenario = load_scenario(name)
    is_host = scenario.rate_mcpu_per_gbps >= 0
    nodes = range(scenario.network.n_nodes)
    for s in range(len(scenario.services)):
        for source in nodes[s % step :: step]:
            for node in nodes[(s + source) % step :: step]:
                so_far = scenario.delay_so_far[s]
                check_so_far(
                    scenario.network,
                    chain_of(scenario, s),
                    is_host,
                    scenario.processing_ms,
                    so_far,
                    source,
                    node,
                )


@settings(max_examples=100, deadline=None)
@given(networks(), st.data())
def test_chain_delays_hold_on_any_network(network, data):
    chain = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=3))
    is_host = np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=2, max_size=2), min_size=network.n_nodes,
                           max_size=network.n_nodes))
    )  # fmt: skip
    processing_ms = np.array([0.25, 0.5])
    chains = np.array([chain + [-1]], dtype=np.int32)
    delays = chain_delays(network, chains, np.array([len(chain)]), is_host, processing_ms)
    for node in range(network.n_nodes):
        check_to_go(network, chain, is_host, processing_ms, delays.to_go[0], node)
        for source in range(network.n_nodes):
            check_so_far(network, chain, is_host, processing_ms, delays.so_far[0], source, node)


def test_from_source_to_destination_both_delays_agree():
    for name in ("toy", "montreal"):
        scenario = load_scenario(name)
        for s, length in enumerate(scenario.chain_length):
            whole = scenario.delay_so_far[s, length]  # [source, node]
            np.testing.assert_allclose(whole, scenario.delay_to_go[s, 0].T, rtol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "FW-TM",
            "FW-DPI",
            "services.csv row 2: chain is 'FW-DPI'; expected functions of functions.csv (FW, TM)",
        ),
        ("FW-TM", "FW--TM", "'' is none"),
        ("FW-TM,60", "FW-TM,0", "latency_ms is 0; expected a positive finite number"),
        ("5,15,4000", "16,15,4000", "bundle_max is 15; expected at least bundle_min (16)"),
        ("4000,4000", "4000,3999", "unit_kbps_max is 3999"),
        ("4000,4000", "4000,999999999", "at most 1000000000 kbps times bundle_max"),
        ("600,0.6", "600,1.6", "busy_load_share is 1.6"),
        ("0.8,0.4,0", "0,0,0", "one positive attraction weight"),
        (
            "bundle_min",
            "bundle_least",
            "column name is 'bundle_least'; expected one of service, chain, latency_ms",
        ),
    ],
)
def test_a_bad_service_is_refused(tmp_path, old, new, words):
    (tmp_path / "functions.csv").write_text(FUNCTIONS)
    (tmp_path / "services.csv").write_text(SERVICES.replace(old, new, 1))
    with pytest.raises(ScenarioError) as caught:
        read_services(tmp_path / "services.csv", read_functions(tmp_path / "functions.csv"))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("X,FW", "placement.csv row 2: node_id is 'X'; expected a known node: DU-W"),
        ("DU-W,DPI", "function is 'DPI'; expected a known function: FW, TM, VOC"),
        ("DU-W,FW\nDU-W,FW", "row 3: function is 'FW'; expected each function once for node DU-W"),
        ("AGG-W,FW", "a node with compute"),
    ],
)
def test_a_bad_placement_is_refused(tmp_path, rows, words):
    toy = load_scenario("toy")
    (tmp_path / "placement.csv").write_text(f"node_id,function\n{rows}\n")
    with pytest.raises(ScenarioError) as caught:
        read_placement(tmp_path / "placement.csv", toy.network, toy.functions)
    assert words in str(caught.value)


def test_a_placement_may_carry_its_own_compute():
    toy = load_scenario("toy")
    voc = toy.function_ids.index("VOC")
    assert toy.rate_mcpu_per_gbps[toy.network.node_index["CU-E"], voc] == 5900
    assert toy.rate_mcpu_per_gbps[toy.network.node_index["DC"], voc] == 5400
    assert toy.rate_mcpu_per_gbps[toy.network.node_index["CU-W"], voc] == -1
