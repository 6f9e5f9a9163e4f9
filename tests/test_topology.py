"""The network: reading, refusing, converting, and least delays that obey stubs."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amarl_core.errors import ScenarioError
from amarl_core.scenario import load_scenario
from amarl_core.topology import MOST_NODES, Network, from_networkx, least_delays, read_network

NODES = """node_id,name,tier,lat,lon,compute_mcpu,transit
A,Alpha,du,45.5,-73.6,1000,0
B,Beta,agg,45.5,-73.6,0,1
C,Gamma,cu,45.5,-73.6,2000,1
"""
LINKS = """link_id,source,target,capacity_kbps,delay_ms,length_km
A>B,A,B,1000,0.5,1
B>A,B,A,1000,0.5,1
B>C,B,C,1000,0.1,0
C>B,C,B,1000,0.1,0
"""


def read(folder, nodes: str = NODES, links: str = LINKS) -> Network:
    """Write both tables into a folder and read them."""
    (folder / "nodes.csv").write_text(nodes, encoding="utf-8")
    (folder / "links.csv").write_text(links, encoding="utf-8")
    return read_network(folder / "nodes.csv", folder / "links.csv")


def test_a_network_is_read_in_the_order_of_its_files(tmp_path):
    network = read(tmp_path)
    assert network.node_ids == ("A", "B", "C")
    assert network.link_ids == ("A>B", "B>A", "B>C", "C>B")
    assert network.source.tolist() == [0, 1, 1, 2]
    assert network.target.tolist() == [1, 0, 2, 1]
    assert network.transit.tolist() == [False, True, True]
    assert network.capacity_kbps.dtype == np.int64
    assert network.node_index["C"] == 2
    assert network.link_index["B>C"] == 2


@pytest.mark.parametrize(
    ("table", "old", "new", "words"),
    [
        (
            "links",
            "A>B,A,B,1000",
            "A>B,A,B,-5",
            "links.csv row 2: capacity_kbps is -5; expected a positive integer",
        ),
        ("links", "A>B,A,B,1000", "A>B,A,B,0", "capacity_kbps is 0; expected a positive integer"),
        ("links", "A>B,A,B,1000", "A>B,A,B,", "capacity_kbps is ''; expected a positive integer"),
        ("links", "A>B,A,B,1000", "A>B,A,B,1e3", "expected a positive integer"),
        ("links", "A>B,A,B,1000", "A>B,A,B,99999999999999999999", "expected a positive integer"),
        (
            "links",
            "1000,0.5,1\nB>A",
            "1000,nan,1\nB>A",
            "delay_ms is 'nan'; expected a positive finite number",
        ),
        (
            "links",
            "1000,0.5,1\nB>A",
            "1000,inf,1\nB>A",
            "delay_ms is 'inf'; expected a positive finite number",
        ),
        ("links", "1000,0.5,1\nB>A", "1000,1e999,1\nB>A", "delay_ms is 1e999"),
        ("links", "1000,0.5,1\nB>A", "1000,0.5,-1\nB>A", "length_km is -1"),
        ("links", "B>C,B,C", "B>C,B,X", "links.csv row 4: target is 'X'; expected a known node: A, B, C"),
        ("links", "B>C,B,C", "B>C,B,B", "a link to itself"),
        (
            "links",
            "B>C,B,C",
            "B>C,A,B",
            "links.csv row 4: target is 'B'; expected one link a direction; row 2",
        ),
        ("links", "B>C,B,C", "A>B,B,C", "row 4: link_id is 'A>B'; expected each value once"),
        (
            "links",
            "capacity_kbps",
            "capacity_mbps",
            "column name is 'capacity_mbps'; expected one of link_id, source",
        ),
        ("links", ",length_km", ",delay_ms", "each column once"),
        ("links", "1000,0.5,1\nB>A", "1000,0.5\nB>A", "links.csv row 2: 5 cells; expected 6"),
        ("links", "A>B,A,B", '"A>B,A,B', "not CSV"),
        ("nodes", "A,Alpha,du", "B,Alpha,du", "nodes.csv row 3: node_id is 'B'; expected each value once"),
        ("nodes", "A,Alpha,du", "A,Alpha,DU", "a lower-case word"),
        ("nodes", "A,Alpha,du", "A,,du", "name is ''; expected a text that is not empty"),
        ("nodes", "45.5,-73.6,1000,0", "95.5,-73.6,1000,0", "lat is 95.5"),
        ("nodes", "1000,0\n", "1000,2\n", "transit is 2"),
        ("nodes", "1000,0\n", "-1,0\n", "compute_mcpu is -1; expected an integer of at least 0"),
    ],
)
def test_a_bad_cell_is_named_with_file_row_column_value_and_expectation(tmp_path, table, old, new, words):
    tables = {"nodes": NODES, "links": LINKS}
    assert old in tables[table]
    tables[table] = tables[table].replace(old, new, 1)
    with pytest.raises(ScenarioError) as caught:
        read(tmp_path, **tables)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "links.csv: an empty file"),
        ("\n \n", "an empty file"),
        ("link_id,source,target,capacity_kbps,delay_ms,length_km\n", "a header without rows"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a Git-LFS pointer file"),
        ("link_id,source,target,capacity_kbps,delay_ms\nA>B,A,B,1,1\n", "no column 'length_km'"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content, words):
    with pytest.raises(ScenarioError) as caught:
        read(tmp_path, links=content)
    assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ScenarioError, match="nodes.csv: no such file"):
        read_network(tmp_path / "nodes.csv", tmp_path / "links.csv")


def test_a_network_survives_the_way_through_networkx():
    network = load_scenario("montreal").network
    graph = network.to_networkx()
    assert graph.number_of_nodes() == 49
    assert graph.number_of_edges() == 174
    again = from_networkx(graph)
    assert again.node_ids == network.node_ids
    assert set(again.link_ids) == set(network.link_ids)
    order = [again.link_index[link] for link in network.link_ids]
    for column in ("source", "target", "capacity_kbps", "delay_ms", "length_km"):
        assert np.array_equal(getattr(again, column)[order], getattr(network, column))
    for column in ("lat", "lon", "compute_mcpu", "transit"):
        assert np.array_equal(getattr(again, column), getattr(network, column))


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("capacity_kbps", 0),
        ("capacity_kbps", 1.5),
        ("capacity_kbps", 10**30),
        ("delay_ms", float("nan")),
        ("delay_ms", None),
    ],
)
def test_a_graph_with_a_bad_attribute_is_refused(tmp_path, attribute, value):
    graph = read(tmp_path).to_networkx()
    graph.edges["A", "B"][attribute] = value
    with pytest.raises(ScenarioError, match=f"graph edges row 1: {attribute}"):
        from_networkx(graph)


def test_a_graph_without_directions_is_refused():
    with pytest.raises(ScenarioError, match="DiGraph"):
        from_networkx(nx.Graph())


def test_montreal_keeps_pools_as_leaves_and_sites_as_stubs():
    network = load_scenario("montreal").network
    graph = network.to_networkx()
    for node, tier, transit in zip(network.node_ids, network.tier, network.transit, strict=True):
        assert transit == (tier != "du")
        if tier in ("cu", "dc"):
            assert graph.out_degree(node) == graph.in_degree(node) == 1
        assert (network.compute_mcpu[network.node_index[node]] > 0) == (tier in ("du", "cu", "dc"))


@st.composite
def networks(draw) -> Network:
    """Draw a small network, connected or not, with stubs anywhere."""
    n = draw(st.integers(2, 6))
    pairs = [(u, v) for u in range(n) for v in range(n) if u != v]
    links = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=14, unique=True))
    delays = draw(st.lists(st.integers(1, 40), min_size=len(links), max_size=len(links)))
    transit = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    graph = nx.DiGraph()
    for v in range(n):
        graph.add_node(f"n{v}", tier="agg", lat=0.0, lon=0.0, compute_mcpu=1000, transit=int(transit[v]))
    for (u, v), delay in zip(links, delays, strict=True):
        graph.add_edge(f"n{u}", f"n{v}", capacity_kbps=1000, delay_ms=delay / 8)
    return from_networkx(graph)


@settings(max_examples=150, deadline=None)
@given(networks())
def test_least_delays_are_those_of_dijkstra_on_the_graph_without_other_stubs(network):
    delays = least_delays(network)
    graph = network.to_networkx()
    for u, source in enumerate(network.node_ids):
        for v, target in enumerate(network.node_ids):
            usable = [x for i, x in enumerate(network.node_ids) if network.transit[i] or i in (u, v)]
            try:
                expected = nx.dijkstra_path_length(graph.subgraph(usable), source, target, weight="delay_ms")
            except nx.NetworkXNoPath:
                expected = np.inf
            assert delays[u, v] == expected


def test_a_network_beyond_the_largest_is_refused(tmp_path):
    rows = [f"n{i},n{i},du,0,0,0,1" for i in range(MOST_NODES + 1)]
    (tmp_path / "nodes.csv").write_text("node_id,name,tier,lat,lon,compute_mcpu,transit\n" + "\n".join(rows) + "\n")
    header = "link_id,source,target,capacity_kbps,delay_ms,length_km\n"
    (tmp_path / "links.csv").write_text(header + "a,n0,n1,1,1.0,0\n")
    with pytest.raises(ScenarioError, match="number of nodes is 1501; expected at most 1,500"):
        read_network(tmp_path / "nodes.csv", tmp_path / "links.csv")
