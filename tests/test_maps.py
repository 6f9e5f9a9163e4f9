"""The map shows every node and link, says in words what its colours say, and is safe to put in a page."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from worlds import contended, make_network, make_world

from amarl_core.errors import AmarlError, ScenarioError
from amarl_core.map_layout import Frame, label_box, place_labels, project, spread
from amarl_core.map_symbols import palette
from amarl_core.maps import Drawing, NetworkMap, network_svg
from amarl_core.scenario import load_scenario

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def montreal():
    return load_scenario("montreal")


def titles(svg: str) -> list[str]:
    """What one reads on hover, element by element."""
    return [title.text for title in ElementTree.fromstring(svg).iter(f"{SVG}title")]


def test_every_node_and_link_is_there_with_its_figures(montreal):
    network = montreal.network
    shares = np.random.default_rng(0)
    link_share, node_share = shares.random(network.n_links), shares.random(network.n_nodes)
    said = titles(network_svg(montreal, link_share, node_share))
    assert len(said) == network.n_links + network.n_nodes
    for e, link in enumerate(network.link_ids):
        (line,) = [text for text in said if text.startswith(f"{link}: ")]
        assert f"{network.capacity_kbps[e] / 1e6:.4g} Gb/s" in line
        assert line.endswith(f"{100 * link_share[e]:.1f} % in use")
    for v, node in enumerate(network.node_ids):
        (line,) = [text for text in said if text.startswith(f"{node}, ")]
        assert network.name[v] in line
        assert line.endswith(f"{100 * node_share[v]:.1f} % in use") == (montreal.budget_mcpu[v] > 0)


def test_colours_follow_the_shares_and_darken(montreal):
    def light(color):
        red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    colors = palette()[1:]
    assert len(set(colors)) == 101 and all(light(a) > light(b) for a, b in zip(colors, colors[1:], strict=False))
    share = np.zeros(montreal.network.n_links)
    share[7] = 0.64
    svg = network_svg(montreal, share)
    name = montreal.network.link_ids[7].replace(">", "&gt;")
    (drawn,) = re.findall(rf'<title>{name}: .*?stroke="(#\w+)"', svg)
    assert drawn == colors[64]
    assert f'stroke="{colors[0]}"' in svg


def test_the_label_of_a_loaded_map_names_the_fullest_link(montreal):
    share = np.full(montreal.network.n_links, 0.1)
    share[5] = 0.83
    label = re.search(r'aria-label="([^"]+)"', network_svg(montreal, share))[1]
    assert f"fullest {montreal.network.link_ids[5].replace('>', '&gt;')} 83 %" in label


def test_an_unknown_share_is_grey_and_one_above_full_says_its_figure(montreal):
    share = np.full(montreal.network.n_links, np.nan)
    share[0] = 1.25
    said = titles(network_svg(montreal, share))
    assert sum("125.0 % in use" in text for text in said) == 1
    assert sum("in use" in text for text in said) == 1


def test_names_from_data_are_text_not_markup():
    evil = '<script>alert("x")</script>'
    network = make_network({evil: ("du", 0, True), "B": ("core", 100, True)}, {f"{evil}-B": (1000, 1.0)})
    world = make_world(network, {'F"<b>': 0.1}, {"s": (('F"<b>',), 5.0)}, {("B", 'F"<b>'): 1000})
    svg = NetworkMap(world).svg(title=evil, marks={0: evil})
    html = Drawing((svg,), evil, evil)._repr_html_()

    class Tags(HTMLParser):
        found: list[str] = []

        def handle_starttag(self, tag, attributes):
            self.found.append(tag)
            assert not [name for name, _ in attributes if name.startswith("on")]

    Tags().feed(html)
    assert "script" not in Tags.found and "b" not in Tags.found
    assert "alert" in "".join(ElementTree.fromstring(svg).itertext())


@pytest.mark.parametrize("name", ["montreal", "toy"])
def test_symbols_do_not_cover_each_other_and_stay_in_the_picture(name):
    world = load_scenario(name)
    chart = NetworkMap(world)
    _, _, width, height = map(float, re.search(r'viewBox="([^"]+)"', chart.svg())[1].split())
    assert (chart.at > 0).all() and (chart.at[:, 0] < width).all() and (chart.at[:, 1] < height).all()
    apart = np.hypot(*(chart.at[:, None] - chart.at[None, :]).transpose(2, 0, 1))
    assert apart[np.triu_indices(len(apart), 1)].min() > 9


def test_distances_on_the_map_are_those_on_the_ground():
    lat, lon = np.array([45.0, 45.9, 45.0]), np.array([-73.0, -73.0, -72.0])
    at = project(lat, lon, (lat, lon), Frame(0, 0, 500, 500))
    north, east = np.hypot(*(at[1] - at[0])), np.hypot(*(at[2] - at[0]))
    assert at[1, 1] < at[0, 1] and at[2, 0] > at[0, 0]
    assert north / east == pytest.approx(0.9 / np.cos(np.radians(45.45)))


def test_fifty_nodes_at_one_place_are_moved_apart():
    at = spread(np.full((50, 2), 200.0), np.full(50, 5.0), np.arange(50), Frame(0, 0, 400, 400))
    apart = np.hypot(*(at[:, None] - at[None, :]).transpose(2, 0, 1))[np.triu_indices(50, 1)]
    assert apart.min() > 5


def test_of_many_names_only_those_are_written_that_cover_no_other():
    draw = np.random.default_rng(0)
    at, frame = draw.uniform(60, 640, (120, 2)), Frame(0, 0, 700, 700)
    texts = {v: f"Node-{v}" for v in range(60)}
    labels = place_labels(texts, at, np.full(120, 5.0), frame, (13.0, 21.0))
    boxes = [label_box(label, texts[label.node], 21.0) for label in labels]
    assert 20 < len(boxes) < 60
    for i, a in enumerate(boxes):
        assert 0 <= a[0] and a[2] <= 700 and 0 <= a[1] and a[3] <= 700
        for b in boxes[:i]:
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_a_network_without_coordinates_is_drawn_all_the_same():
    world = contended()
    assert len(titles(network_svg(world))) == world.network.n_nodes + world.network.n_links
    assert ">A</text>" in network_svg(world), "its routers are named"


def test_a_path_is_brought_out_and_the_rest_fades(montreal):
    svg = NetworkMap(montreal).svg(overlay={3: "path", 4: "pruned"}, marks={0: "NAT + FW"})
    link = montreal.network.link_ids
    assert {f"{link[3]}: path", f"{link[4]}: pruned"} <= set(titles(svg))
    assert 'class="am-fade"' in svg and "NAT + FW" in svg


def test_what_does_not_fit_is_refused(montreal):
    with pytest.raises(AmarlError, match=r"link_share is '\(3,\)'; expected an array of 174 shares"):
        network_svg(montreal, np.zeros(3))
    with pytest.raises(AmarlError, match="overlay is 'bold'; expected one of path, allowed, pruned"):
        network_svg(montreal, overlay={0: "bold"})


def test_an_outline_with_a_fault_names_row_and_column(tmp_path, montreal):
    (tmp_path / "outline.csv").write_text("lat,lon\n45.5,-73.6\n95,-73\n")
    world = SimpleNamespace(**{name: getattr(montreal, name) for name in
                               ("network", "name", "budget_mcpu", "rate_mcpu_per_gbps", "function_ids")})  # fmt: skip
    world.folder = tmp_path
    with pytest.raises(ScenarioError, match=r"outline.csv row 3: lat is 95"):
        NetworkMap(world)


def test_a_drawing_is_the_same_every_time_and_carries_its_words(montreal):
    svg = network_svg(montreal, title="Idle")
    assert svg == network_svg(montreal, title="Idle")
    shown = Drawing((svg, svg), "Two maps.", "Nothing is in use")._repr_html_()
    assert shown.count("<svg") == 2 and "Nothing is in use" in shown and "Two maps." in shown
    assert 'aria-label="Idle. 49 nodes and 174 directed links of montreal."' in svg
