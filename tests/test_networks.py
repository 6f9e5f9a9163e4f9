"""Networks from elsewhere: a right file loads with known figures, a wrong one never loads by luck."""

import json
import logging
import math
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amarl_core.errors import AmarlError, ScenarioError
from amarl_core.imported import Rules, load_network

FIXTURES = Path(__file__).parent / "fixtures" / "networks"
FILES = sorted(path.name for path in FIXTURES.iterdir())


def links_of(imported):
    network = imported.network
    return {
        link: (int(network.capacity_kbps[e]), float(network.delay_ms[e])) for e, link in enumerate(network.link_ids)
    }


def summary(imported):
    return imported.assumptions.set_index("quantity")


def spoiled(tmp_path, name, old, new, count=1):
    content = (FIXTURES / name).read_text(encoding="utf-8")
    assert old in content
    path = tmp_path / name
    path.write_text(content.replace(old, new, count), encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------ right files
def test_topology_zoo_graphml_keeps_speeds_merges_parallel_links_and_drops_other_networks():
    imported = load_network(FIXTURES / "zoo.graphml")
    assert imported.network.node_ids == ("Harbour", "Lake", "Castle", "Somewhere")
    links = links_of(imported)
    assert links["Harbour>Lake"][0] == links["Lake>Harbour"][0] == 20_000_000
    assert links["Lake>Castle"][0] == 2_500_000
    told = " ".join(imported.warnings)
    assert "1 external nodes and 1 links were left out" in told
    assert "2 parallel links" in told
    assert "1 nodes without a position stand at the mean of their neighbours" in told
    kept = load_network(FIXTURES / "zoo.graphml", external="keep")
    assert "Other network" in kept.network.node_ids


def test_a_node_without_position_stands_between_its_neighbours():
    network = load_network(FIXTURES / "zoo.graphml").network
    at = network.node_index
    middle = (network.lat[at["Lake"]] + network.lat[at["Castle"]]) / 2
    assert network.lat[at["Somewhere"]] == pytest.approx(middle, abs=1e-4)


def test_gml_and_graphml_of_the_same_towns_agree():
    gml, graphml = links_of(load_network(FIXTURES / "zoo.gml")), links_of(load_network(FIXTURES / "zoo.graphml"))
    assert gml["Harbour>Castle"][1] == graphml["Harbour>Castle"][1]
    assert gml["Harbour>Lake"][0] == 10_000_000


def test_sndlib_xml_and_native_of_the_same_network_agree():
    xml, native = load_network(FIXTURES / "sndlib.xml"), load_network(FIXTURES / "sndlib.txt")
    assert links_of(xml) == links_of(native)
    assert links_of(xml)["Nord>Mitte"][0] == 40_000_000, "pre-installed, in Mb/s"
    assert links_of(xml)["Mitte>Ost"][0] == 40_000_000, "the largest module"
    assert any("read as Mb/s" in warning for warning in xml.warnings)
    in_gbps = load_network(FIXTURES / "sndlib.xml", capacity_unit="Gb/s")
    assert links_of(in_gbps)["West>Mitte"][0] == 10_000_000_000
    assert not any("read as Mb/s" in warning for warning in in_gbps.warnings)


@pytest.mark.parametrize("name", ["units.json", "links.json"])
def test_node_link_json_is_read_under_either_key_with_the_units_in_its_names(name):
    links = links_of(load_network(FIXTURES / name))
    assert links["North>East"] == (40_000_000, 0.9)
    assert links["East>South"] == (10_000_000, 1.0)  # 200 km of cable
    assert links["South>West"] == (10_000_000, pytest.approx(132.5 * 1.4 * 5 / 1000))


def test_repetita_is_directed_in_kbps_and_microseconds():
    links = links_of(load_network(FIXTURES / "ring.graph"))
    assert links["0_North>1_East"] == (10_000_000, 0.7)
    assert links["0_North>3_West"] == (5_000_000, 0.7), "parallel edges: capacities add up, the shortest delay counts"
    assert links["3_West>0_North"] == (2_500_000, 0.7)
    assert links_of(load_network(FIXTURES / "ring.graph", delay_unit="ms"))["1_East>2_South"][1] == 700


@pytest.mark.parametrize(("name", "nodes", "links"), [("sndlib/germany50", 50, 176), ("topozoo/Abilene", 11, 28)])
def test_topohub_networks_are_read_by_name(name, nodes, links):
    imported = load_network(f"topohub:{name}")
    network = imported.network
    assert (network.n_nodes, network.n_links) == (nodes, links)
    assert set(network.tier) == {"core", "cu", "du"}
    assert summary(imported).loc["delay", ["from_file", "by_rule"]].tolist() == [0, links]
    assert np.allclose(network.delay_ms, network.length_km * 0.005, atol=1e-5)


def test_every_value_is_told_apart_by_where_it_came_from():
    imported = load_network(FIXTURES / "units.json")
    table, network = summary(imported), imported.network
    assert table.loc["compute", "from_file"] == 4
    assert table.loc["population", ["from_file", "by_rule"]].tolist() == [1, 3]
    assert table.loc["delay", ["from_file", "by_rule"]].tolist() == [2, 6]
    assert (table["from_file"] + table["by_rule"]).isin([network.n_nodes, network.n_links]).all()
    delays = imported.origins.query("quantity == 'delay' and origin == 'file'")["element"]
    assert set(delays) == {"North>East", "East>North"}


@pytest.mark.parametrize("name", ["sndlib.txt", "zoo.gml", "ring.graph"])
def test_networks_survive_a_round_trip_through_node_link_json(name, tmp_path):
    first = load_network(FIXTURES / name)
    graph = first.network.to_networkx()
    path = tmp_path / "again.json"
    path.write_text(json.dumps(nx.node_link_data(graph, edges="edges")), encoding="utf-8")
    again = load_network(path)
    assert links_of(again) == links_of(first)
    assert again.network.tier == first.network.tier
    assert summary(again).loc[["position", "delay", "capacity", "tier", "compute"], "by_rule"].sum() == 0


def test_a_graph_written_by_networkx_as_graphml_is_read_again(tmp_path):
    graph = load_network(FIXTURES / "units.json").network.to_networkx()
    nx.write_graphml(graph, tmp_path / "again.graphml")
    assert links_of(load_network(tmp_path / "again.graphml")) == links_of(load_network(FIXTURES / "units.json"))


# ----------------------------------------------------------------------------------------------------- rules
def test_delay_is_distance_times_detour_times_light_in_fibre():
    network = load_network("topohub:sndlib/germany50", rules=Rules(detour=2.0, us_per_km=4.9)).network
    e = network.link_index["Aachen>Koeln"]
    assert network.delay_ms[e] == pytest.approx(61.63 * 2.0 * 4.9 / 1000, rel=1e-5)


def test_capacity_follows_tier_or_degree_and_its_scale():
    by_tier = load_network("topohub:topozoo/Abilene", rules=Rules(capacity_gbps=dict(du=1, cu=2, core=3))).network
    rank = {"du": 1, "cu": 2, "core": 3}
    for e in range(by_tier.n_links):
        ends = [rank[by_tier.tier[v]] for v in (by_tier.source[e], by_tier.target[e])]
        assert by_tier.capacity_kbps[e] == min(ends) * 10**6
    by_degree = load_network("topohub:topozoo/Abilene", rules=Rules(capacity_by="degree", capacity_scale=0.5)).network
    degree = np.bincount(by_degree.source)
    assert (by_degree.capacity_kbps == 5_000_000 * np.minimum(degree[by_degree.source], degree[by_degree.target])).all()


def test_tiers_can_be_given_and_unknown_nodes_are_refused():
    network = load_network(FIXTURES / "zoo.gml", rules=Rules(tiers={"Lake": "core", "Harbour": "du"})).network
    assert network.tier == ("du", "core", "cu")
    with pytest.raises(
        ScenarioError, match=r"node in Rules\(tiers=...\) is 'Atlantis'; expected a node of the network"
    ):
        load_network(FIXTURES / "zoo.gml", rules=Rules(tiers={"Atlantis": "core"}))


def test_core_nodes_are_those_that_most_shortest_paths_pass():
    imported = load_network("topohub:sndlib/germany50")
    graph = imported.network.to_networkx()
    central = nx.betweenness_centrality(graph, weight="delay_ms")
    core = [node for node, tier in graph.nodes(data="tier") if tier == "core"]
    assert sorted(central, key=central.get)[-len(core) :] == sorted(core, key=central.get)


@pytest.mark.parametrize(
    "wrong",
    [dict(detour=0), dict(us_per_km=math.nan), dict(core_share=1.5), dict(capacity_by="age"), dict(least_km="1")],
)
def test_a_rule_out_of_range_is_refused(wrong):
    with pytest.raises(ScenarioError, match=f"{next(iter(wrong))} is .*; expected"):
        Rules(**wrong)


def test_a_drawing_needs_a_scale_or_a_default_length(tmp_path):
    path = spoiled(tmp_path, "sndlib.xml", '"geographical"', '"pixel"')
    with pytest.raises(ScenarioError, match="expected a delay, a length or positions in degrees. Pass rules=Rules"):
        load_network(path)
    assert set(load_network(path, rules=Rules(default_km=100)).network.delay_ms) == {0.5}
    scaled = load_network(path, rules=Rules(km_per_unit=100)).network
    e = scaled.link_index["Nord>Mitte"]
    assert scaled.length_km[e] == pytest.approx(1.4 * 100 * math.hypot(0.3, 1.1), abs=1e-3)


def test_distances_that_come_from_a_drawing_are_doubted():
    with pytest.raises(ScenarioError, match="positions that are no degrees.*Pass rules=Rules"):
        load_network("topohub:sndlib/zib54")
    scaled = load_network("topohub:sndlib/zib54", rules=Rules(km_per_unit=0.01))
    assert 1 < scaled.network.length_km.max() < 20
    assert any("one unit is taken as one km" in warning for warning in load_network("topohub:gabriel/25/0").warnings)
    india = load_network("topohub:sndlib/india35")
    assert any("all positions are whole degrees, as in a drawing" in warning for warning in india.warnings)


# ----------------------------------------------------------------------------------------------- wrong files
@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("zoo.graphml", ">10000000000.0", ">10,000,000,000", "'10,000,000,000'; expected a plain number"),
        ("zoo.graphml", "<data key=\"d6\">G", "<data key=\"d6\">M", "LinkSpeed says, 10000 kbps. The units are mixed"),
        ("zoo.graphml", "<data key=\"d6\">G", "<data key=\"d6\">GB", "'GB'; expected a unit of bandwidth"),
        ("zoo.graphml", '2.5</data><data key="d6">G</data>', "2.5</data>", "LinkSpeedUnits of edge 3"),
        ("zoo.graphml", "60.17", "160.17", "latitude of node 0 is 160.17"),
        ("zoo.graphml", "60.17", "nan", "latitude of node 0 is 'nan'"),
        ("zoo.graphml", '<data key="d1">60.17</data>', "", "latitude of node 0 is 'missing'"),
        ("zoo.graphml", '<node id="1">', '<node id="0">', "node is 0; expected each node once"),
        ("zoo.graphml", 'source="2" target="0"', 'source="2" target="9"', "end of link 4 is 9; expected a known"),
        ("zoo.graphml", "undirected", "both", "edgedefault is 'both'"),
        ("zoo.graphml", 'key="d3">Lake', 'key="d99">Lake', "key of node 2 is 'd99'"),
        ("zoo.graphml", "</graphml>", "", "broken XML"),
        ("zoo.gml", "id 1", "id 0", "not GML"),
        ("zoo.gml", "10000000000.0", "10,000", "not GML"),
        ("zoo.gml", "    source 1\n    target 2", "    source 1\n    target 7", "not GML"),
        ("zoo.gml", 'LinkSpeed "10"', 'LinkSpeed "10 "', None),
        ("zoo.gml", 'LinkSpeed "10"', 'LinkSpeed "1.0.0"', "LinkSpeed of edge 1"),
        ("units.json", '"capacity_gbps": 40', '"capacity": 40', "capacity of edge 1 (1 to 2) is 40.0; expected a"),
        ("units.json", '"capacity_gbps": 40', '"capacity_gbps": "40,0"', "'40,0'; expected a plain number"),
        ("units.json", '"capacity_gbps": 40', '"capacity_gbps": 40, "capacity_mbps": 40', "The units are mixed"),
        ("units.json", '"delay_ms": 0.9', '"delay_ms": -0.9', "delay_ms of edge 1 (1 to 2) is -0.9"),
        ("units.json", '"id": 2', '"id": 1', "node is 1; expected each node once"),
        ("units.json", '"id": 2', '"ID": 2', "id of node 2 is None"),
        ("units.json", '"edges"', '"lines"', "JSON with no links"),
        ("units.json", '"source": 1, "target": 2,', '"source": 1, "target": 2, "source": 3,', "a key twice"),
        ("units.json", "[10.0, 51.0]", "[10.0]", "expected two numbers"),
        ("units.json", "}\n  ]\n}", "}", "not JSON"),
        ("sndlib.xml", "40000.0", "40.000,0", "capacity of link L1 is '40.000,0'"),
        ("sndlib.xml", '"geographical"', '"polar"', "coordinatesType of <nodes> is 'polar'"),
        ("sndlib.xml", "<y>53.5</y>", "<y>153.5</y>", "position is '(10, 153.5)'"),
        ("sndlib.xml", "<y>53.5</y>", "", "0 elements <y>"),
        ("sndlib.xml", 'id="L2"', 'id="L1"', "expected each link once"),
        ("sndlib.xml", "<network ", "<net ", "broken XML"),
        ("sndlib.txt", "L2 (", "L1 (", "expected each link once"),
        ("sndlib.txt", "Mitte ( 9.7 52.4 )", "Mitte ( 9,7 52.4 )", "sndlib.txt row 6: x of node Mitte is '9,7'"),
        ("sndlib.txt", "40000.00 0.00 0.00 0.00 ( )", "40000.00 0.00 0.00 ( )", "expected link_id ( source target )"),
        ("sndlib.txt", "type: network", "type: model", "expected ?SNDlib native format; type: network"),
        ("sndlib.txt", "\n)\n\nDEMANDS", "\n\nDEMANDS", "expected"),
        ("sndlib.txt", "LINKS (", "LINES (", "section is 'LINES'"),
        ("ring.graph", "NODES 4", "NODES 5", "ring.graph row"),
        ("ring.graph", "EDGES 9", "EDGES 8", "expected no line after the edges"),
        ("ring.graph", "EDGES 9", "EDGES 10", "as many rows as there are (9)"),
        ("ring.graph", "edge_1 1 0 1 10000000 700", "edge_0 1 0 1 10000000 700", "expected each edge once"),
        ("ring.graph", "edge_1 1 0 1 10000000 700", "edge_1 1 4 1 10000000 700", "the number of a node, 0 to 3"),
        ("ring.graph", "edge_1 1 0 1 10000000 700", "edge_1 1 0 1 10,000,000 700", "bw of edge edge_1 is '10,000,000'"),
        ("ring.graph", "edge_1 1 0 1 10000000 700", "edge_1 1 0 1 10000000", "6 words"),
        ("ring.graph", "label src", "name src", "expected label src dest weight bw delay"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_the_place_and_the_remedy(tmp_path, name, old, new, words):
    path = spoiled(tmp_path, name, old, new)
    if words is None:
        load_network(path)
        return
    with pytest.raises(ScenarioError) as caught:
        load_network(path)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_lfs_pointers_and_empty_and_missing_files_are_refused(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(ScenarioError, match="no such file"):
        load_network(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ScenarioError, match="a Git-LFS pointer file; expected the data itself. Run `git lfs pull`"):
        load_network(path)
    path.write_text(" \n")
    with pytest.raises(ScenarioError, match="an empty file; expected nodes and links"):
        load_network(path)


@pytest.mark.parametrize("name", ["zoo.graphml", "sndlib.xml"])
@pytest.mark.parametrize(
    "prologue",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE x SYSTEM "https://example.org/x.dtd">',
    ],
)
def test_entities_and_dtds_are_refused(tmp_path, name, prologue):
    content = (FIXTURES / name).read_text()
    head, rest = content.split("\n", 1)
    (tmp_path / name).write_text(f"{head}\n{prologue}\n{rest}")
    with pytest.raises(ScenarioError, match="XML with a DTD or entities .* Remove the DOCTYPE."):
        load_network(tmp_path / name)


def test_a_name_that_tells_no_format_and_an_unknown_topohub_name_list_the_known_ones():
    with pytest.raises(ScenarioError, match=r"expected a name ending in .graphml, .xml, .gml"):
        load_network("network.csv")
    with pytest.raises(ScenarioError, match="topohub name is 'sndlib/germany5'; expected .* sndlib/germany50"):
        load_network("topohub:sndlib/germany5")
    for name in ("../data/sndlib/germany50", "sndlib", ""):
        with pytest.raises(ScenarioError, match="topohub name is"):
            load_network(f"topohub:{name}")


def test_an_option_out_of_range_is_refused():
    path = FIXTURES / "zoo.gml"
    for wrong in (dict(external="x"), dict(component="x"), dict(capacity_unit="MB/s"), dict(delay_unit="h"),
                  dict(length_unit="mi"), dict(positions="x"), dict(directed="x")):  # fmt: skip
        with pytest.raises(ScenarioError, match="; expected"):
            load_network(path, **wrong)


def test_a_network_in_parts_is_refused_unless_its_largest_part_is_wanted(tmp_path):
    content = json.loads((FIXTURES / "units.json").read_text())
    content["nodes"].append({"id": 5, "name": "Island"})
    path = tmp_path / "parts.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ScenarioError, match="2 parts that do not reach each other, without Island in the largest"):
        load_network(path)
    imported = load_network(path, component="largest")
    assert imported.network.n_nodes == 4
    assert any("1 nodes outside the largest connected part" in warning for warning in imported.warnings)


def test_one_way_links_that_were_meant_both_ways_are_named(tmp_path):
    path = spoiled(tmp_path, "units.json", '"directed": false', '"directed": true')
    path.write_text(path.read_text().replace('"source": 4, "target": 1', '"source": 1, "target": 4'))
    with pytest.raises(ScenarioError, match="Pass directed=False if each link was meant both ways"):
        load_network(path)
    assert load_network(path, directed=False).network.n_links == 8


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("ring.graph", " 700", " 0", "have a delay of 0 in the file"),
        ("ring.graph", " 700", " 7", "shorter than light in vacuum takes"),
        ("ring.graph", "10000000", "0", "have a capacity of 0 in the file"),
        ("ring.graph", "1 0 1 10000000", "1 0 1 10", "the units may be mixed"),
        ("ring.graph", "edge_8 0 3", "edge_8 3 3", "links from a node to itself were left out"),
        ("units.json", '"dist": 132.5', '"dist": 5', None),
        ("units.json", '"delay_ms": 0.9', '"cost": 9', "attributes of links that were not used: cost"),
        ("sndlib.xml", "0000.0", ".0", "check capacity_unit"),
    ],
)  # fmt: skip
def test_a_doubtful_file_loads_with_a_listed_warning(tmp_path, caplog, name, old, new, words):
    path = spoiled(tmp_path, name, old, new, count=-1)
    with caplog.at_level(logging.WARNING):
        imported = load_network(path)
    if words is not None:
        assert any(words in warning for warning in imported.warnings)
        assert words in caplog.text


def sound(imported):
    network = imported.network
    assert (network.delay_ms > 0).all() and np.isfinite(network.delay_ms).all()
    assert (network.capacity_kbps > 0).all()
    assert nx.is_strongly_connected(network.to_networkx())


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**17, 10**400),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["1,000", "1e999", "٣", "\ud800", "du", [], {}, [1, 2], {"a": 1}, 0, -1, 1e-320]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_json_with_odd_values_ends_in_an_error_of_ours_or_a_sound_network(tmp_path_factory, data):
    content = json.loads((FIXTURES / "units.json").read_text())
    keys = ["id", "name", "label", "pos", "tier", "compute_mcpu", "population", "Internal", "lat", "lon", "x",
            "source", "target", "capacity_gbps", "capacity", "LinkSpeed", "LinkSpeedRaw", "LinkSpeedUnits",
            "delay_ms", "delay_ns", "length_km", "dist", "distance_m"]  # fmt: skip
    for _ in range(data.draw(st.integers(1, 3))):
        rows = content[data.draw(st.sampled_from(["nodes", "edges"]))]
        rows[data.draw(st.integers(0, 3))][data.draw(st.sampled_from(keys))] = data.draw(ODD)
    path = tmp_path_factory.mktemp("odd") / "odd.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        imported = load_network(path)
    except AmarlError as error:
        assert "expected" in str(error)
    else:
        sound(imported)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_ends_in_an_error_of_ours_or_a_sound_network(tmp_path_factory, data):
    name = data.draw(st.sampled_from(FILES))
    content = bytearray((FIXTURES / name).read_bytes())
    words = [b"", b"0", b"-1", b"nan", b"1e999", b"9" * 30, b"1,000", b'"', b"<", b">", b"&a;", b"]", b"[", b"(", b")",
             b"{", b"}", b"\x00", b"\xff", b"\n", b" ", b"null", b"true", b"\xd9\xa3", b"id", b"//"]  # fmt: skip
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["replace", "truncate", "copy", "swap"]))
        a = data.draw(st.integers(0, len(content)))
        b = data.draw(st.integers(a, min(len(content), a + 40)))
        if kind == "replace":
            content[a : min(b, a + 6)] = data.draw(st.one_of(st.sampled_from(words), st.binary(max_size=4)))
        elif kind == "truncate":
            del content[max(a, len(content) // 2) :]
        elif kind == "copy":
            content[a:a] = content[a:b]
        else:
            content[a:b] = content[a:b][::-1]
    path = tmp_path_factory.mktemp("spoiled") / name
    path.write_bytes(bytes(content))
    try:
        imported = load_network(path)
    except AmarlError as error:
        assert "expected" in str(error)
    else:
        sound(imported)
