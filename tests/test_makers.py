"""Scenarios made of imported networks load as they are, can be served, and say what was assumed."""

import shutil
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linprog

from amarl_core import makers
from amarl_core.agents import train
from amarl_core.audit import audit
from amarl_core.baselines import baseline
from amarl_core.errors import ScenarioError
from amarl_core.evaluation import play_trace
from amarl_core.foreign.idle_routes import ChainRoutes
from amarl_core.foreign.load_size import fullest
from amarl_core.foreign.placement import place_by_tier
from amarl_core.freeze import freeze
from amarl_core.imported import Rules, load_network
from amarl_core.makers import make_scenario
from amarl_core.scenario import load_scenario

FIXTURES = Path(__file__).parent / "fixtures" / "networks"
FEW = dict(weekdays=1, weekends=1)


@pytest.fixture(scope="module")
def germany(tmp_path_factory):
    """Germany's fifty cities, all six services, bounds as they are."""
    return make_scenario("topohub:sndlib/germany50", tmp_path_factory.mktemp("made") / "germany50", **FEW)


@pytest.fixture(scope="module")
def abilene(tmp_path_factory):
    """Eleven cities of the United States: too far apart for the tight services, whose bounds are raised."""
    folder = tmp_path_factory.mktemp("made") / "abilene"
    return make_scenario("topohub:topozoo/Abilene", folder, latency="scale", load_gbps=15, **FEW)


@pytest.fixture
def towns():
    """Three towns at a scale on which every bound holds."""
    return load_network(FIXTURES / "zoo.gml")


def routes_of(scenario, s):
    return ChainRoutes(
        scenario.network,
        scenario.services[s],
        scenario.functions,
        scenario.rate_mcpu_per_gbps,
        scenario.budget_mcpu,
        scenario.traffic.area_node,
        scenario.traffic.destination[s],
    )


@pytest.mark.parametrize("world", ["germany", "abilene"])
def test_every_service_can_be_completed_in_time_from_every_area(world, request):
    scenario = request.getfixturevalue(world)
    for s in range(len(scenario.services)):
        latency = routes_of(scenario, s).latencies_ms()
        asked = scenario.traffic.destination[s] > 0
        assert asked.any(axis=1).all()
        assert (latency[asked] <= scenario.latency_ms[s]).all()


def test_least_latencies_are_those_of_the_scenario_where_every_request_fits(germany):
    for s in range(len(germany.services)):
        found = routes_of(germany, s).latencies_ms()
        expected = germany.delay_to_go[s, 0][:, germany.traffic.area_node].T
        assert np.allclose(found, expected)


@pytest.mark.parametrize("world", ["germany", "abilene"])
def test_every_access_node_is_an_area_that_asks_for_every_service(world, request):
    scenario = request.getfixturevalue(world)
    assert set(scenario.traffic.area_node) == set(scenario.network.tier_nodes("du"))
    assert (scenario.traffic.rate_per_s[0].max(axis=2) > 0).all()
    day = scenario.test_trace("test-weekday")
    assert set(day.source) == set(scenario.traffic.area_node)
    assert set(day.service) == set(range(6))


def test_raised_bounds_are_recorded_and_others_kept(abilene):
    before = abilene.settings.source.latency_before_ms
    bounds = {service.service: service.latency_ms for service in abilene.services}
    assert set(before) == {"augmented_reality", "massive_iot", "industry_4_0"}
    for service, old in before.items():
        assert bounds[service] > old
    assert (bounds["voip"], bounds["video_streaming"], bounds["cloud_gaming"]) == (100, 100, 80)
    assert "augmented_reality 10 to " in (abilene.folder / "assumptions.csv").read_text()


def test_bounds_that_no_placement_meets_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(ScenarioError) as caught:
        make_scenario("topohub:topozoo/Abilene", tmp_path / "abilene")
    assert "massive_iot 14.4 ms of 5 ms" in str(caught.value)
    assert "No placement can meet them: pass latency='scale'" in str(caught.value)
    assert "services=['cloud_gaming', 'voip', 'video_streaming']" in str(caught.value)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_light_functions_are_hosted_at_access_nodes_and_all_at_pools(germany):
    rate = place_by_tier(germany.network, germany.services, germany.functions)
    assert (rate == germany.rate_mcpu_per_gbps).all()
    access = np.array(germany.network.tier) == "du"
    light = np.array([function.mcpu_per_gbps <= 1000 for function in germany.functions])
    assert (rate[access][:, light] > 0).all() and (rate[access][:, ~light] == -1).all()
    assert (rate[~access] > 0).all()


def test_a_placement_is_widened_where_only_that_meets_a_bound(towns, tmp_path):
    folder = shutil.copytree(load_scenario("montreal").folder, tmp_path / "services")
    table = pd.read_csv(folder / "services.csv")
    table.loc[table["service"] == "industry_4_0", ["chain", "latency_ms"]] = ["TM-VOC", 2]
    table.to_csv(folder / "services.csv", index=False)
    rules = Rules(tiers={"Harbour": "du", "Castle": "du", "Lake": "core"})
    world = load_network(FIXTURES / "zoo.graphml", rules=rules)
    scenario = make_scenario(world, tmp_path / "towns", services=folder, latency="scale", load_gbps=1, **FEW)
    assert "those of industry_4_0 at every node with compute" in scenario.settings.source.placement
    assert "industry_4_0" not in scenario.settings.source.latency_before_ms


def test_the_load_fills_the_fullest_link_or_pool_as_asked(germany):
    hour = int(germany.traffic.offered_kbps()[0].sum(axis=(0, 1)).argmax())
    offered = germany.traffic.offered_kbps()[0][:, :, hour]
    full = fullest(
        [routes_of(germany, s) for s in range(6)], offered, germany.network.capacity_kbps, germany.budget_mcpu
    )
    assert max(full.spread_link, full.spread_pool) == pytest.approx(makers.UTILISATION, rel=1e-3)
    assert max(full.shortest_link, full.shortest_pool) >= max(full.spread_link, full.spread_pool)


def least_utilisation(scenario, s, offered):
    """The least utilisation of the fullest link or pool that any split routing reaches, by linear programming."""
    network, n, layers = scenario.network, scenario.network.n_nodes, int(scenario.chain_length[s]) + 1
    arcs = []  # from, to, link, pool, millicores for each kbps
    for k in range(layers):
        for e in range(network.n_links):
            arcs.append((network.source[e] + k * n, network.target[e] + k * n, e, -1, 0.0))
        for v in np.flatnonzero(scenario.rate_mcpu_per_gbps[:, scenario.chains[s, k]] >= 0) if k < layers - 1 else []:
            rate = scenario.rate_mcpu_per_gbps[v, scenario.chains[s, k]] / 1e6
            arcs.append((v + k * n, v + (k + 1) * n, -1, v, rate))
    wanted = [(a, t) for a in range(len(offered)) for t in np.flatnonzero(scenario.traffic.destination[s, a])]
    size, room = len(arcs), np.concatenate([network.capacity_kbps, scenario.budget_mcpu])
    flow, amount = np.zeros((len(wanted) * layers * n, len(wanted) * size + 1)), np.zeros(len(wanted) * layers * n)
    use = np.zeros((len(room), len(wanted) * size + 1))
    for w, (a, t) in enumerate(wanted):
        kbps = offered[a] * scenario.traffic.destination[s, a, t]
        amount[w * layers * n + scenario.traffic.area_node[a]] += kbps
        amount[w * layers * n + (layers - 1) * n + t] -= kbps
        for i, (begin, end, e, v, rate) in enumerate(arcs):
            flow[w * layers * n + begin, w * size + i] += 1
            flow[w * layers * n + end, w * size + i] -= 1
            use[e if e >= 0 else network.n_links + v, w * size + i] = 1.0 if e >= 0 else rate
    use[:, -1] = -room
    found = linprog(np.eye(1, use.shape[1], use.shape[1] - 1)[0], use, np.zeros(len(use)), flow, amount)
    assert found.success
    return found.fun


def test_spread_routes_come_near_the_best_that_any_routing_reaches(tmp_path):
    rules = Rules(tiers={"North": "core", "East": "cu", "South": "du", "West": "du"})
    square = load_network(FIXTURES / "units.json", rules=rules)
    scenario = make_scenario(square, tmp_path / "square", services=["video_streaming"], load_gbps=1, **FEW)
    offered = np.array([2e5, 6e5])
    full = fullest([routes_of(scenario, 0)], offered[None, :], scenario.network.capacity_kbps, scenario.budget_mcpu)
    best = least_utilisation(scenario, 0, offered)
    assert best <= max(full.spread_link, full.spread_pool) * (1 + 1e-9)
    assert max(full.spread_link, full.spread_pool) < 1.1 * best
    assert max(full.shortest_link, full.shortest_pool) > 1.3 * best


def test_shortest_routes_load_links_as_networkx_finds_them(abilene):
    s = abilene.service_ids.index("voip")
    graph = abilene.network.to_networkx()
    load = routes_of(abilene, s).load()
    for a, source in enumerate(abilene.traffic.area_node):
        share = abilene.traffic.destination[s, a]
        hops = 0.0
        for target in np.flatnonzero(share):
            ends = (abilene.network.node_ids[source], abilene.network.node_ids[target])
            hops += share[target] * (len(nx.dijkstra_path(graph, *ends, weight="delay_ms")) - 1)
        # voip's heavy stage runs at a pool on the way or at the destination, so that routes are the shortest
        assert load.link[a].sum() == pytest.approx(hops)


def test_what_was_assumed_is_recorded_and_read_back(germany):
    source = germany.settings.source
    assert source.network == "topohub:sndlib/germany50"
    assert source.rules == load_network("topohub:sndlib/germany50").rules
    told = pd.read_csv(germany.folder / "assumptions.csv").set_index("quantity")
    assert told.loc["delay", "rule"] == "length x 5 us/km"
    assert told.loc["load", "rule"].startswith(f"{germany.settings.load_gbps:g} Gb/s in the busy hour")
    origins = pd.read_csv(germany.folder / "origins.csv")
    assert (origins.query("quantity == 'capacity'")["origin"] == "rule").sum() == germany.network.n_links


def test_rules_and_names_of_any_kind_are_recorded_and_read_back(tmp_path):
    rules = Rules(detour=np.float64(1.3), tiers={"Lake": "core"}, default_km=7, core_share=0.1)
    odd = load_network(FIXTURES / "zoo.graphml", rules=rules, external="keep")
    name = 'Zoo "Süd" \\ 1'
    scenario = make_scenario(odd, tmp_path / "odd", name=name, services=["voip"], load_gbps=1, **FEW)
    assert scenario.name == name
    assert scenario.settings.source.rules == rules
    assert scenario.settings.source.warnings == odd.warnings


def test_a_made_scenario_is_frozen_and_can_be_frozen_again(abilene, tmp_path):
    assert abilene.settings.frozen_digest == abilene.digest
    copy = shutil.copytree(abilene.folder, tmp_path / "copy")
    assert freeze(copy).test_day_sha256 == abilene.test_day_sha256


def test_the_same_network_gives_the_same_scenario(abilene, tmp_path):
    again = make_scenario(
        "topohub:topozoo/Abilene", tmp_path / "again", name="abilene", latency="scale", load_gbps=15, **FEW
    )
    assert again.digest == abilene.digest
    assert again.test_day_sha256 == abilene.test_day_sha256


def test_a_short_training_on_an_imported_network_runs_and_passes_the_audit(abilene):
    run = train(abilene, "amarl", 0, trace=abilene.training_trace(0).head(1500))
    assert run.status == "finished"
    day = abilene.test_trace("test-weekday").head(1500)
    for policy in (run, baseline("shortest_feasible")):
        played = play_trace(policy, day, scenario=abilene)
        audit(abilene, played.decisions, played.ledger, day).raise_if_violated()
        assert played.decisions["accepted"].mean() > 0.5


def test_services_can_be_chosen_and_unknown_ones_are_refused(towns, tmp_path):
    scenario = make_scenario(towns, tmp_path / "two", services=["voip", "massive_iot"], load_gbps=1, **FEW)
    assert scenario.service_ids == ("voip", "massive_iot")
    for wrong in (["voip", "tv"], [], ["voip", "voip"], "nowhere"):
        with pytest.raises(ScenarioError, match="; expected"):
            make_scenario(towns, tmp_path / "wrong", services=wrong)


def test_placement_areas_and_destinations_can_be_given(towns, tmp_path):
    first = make_scenario(towns, tmp_path / "first", services=["voip"], load_gbps=1, **FEW)
    tables = {name: pd.read_csv(first.folder / f"{name}.csv") for name in ("placement", "areas", "destinations")}
    given = make_scenario(towns, tmp_path / "given", services=["voip"], name="first", load_gbps=1, **tables, **FEW)
    assert given.digest == first.digest
    assert given.settings.source.placement == "given"
    for name, table in tables.items():
        broken = table.assign(node_id="Atlantis") if "node_id" in table else table.assign(service="tv")
        with pytest.raises(ScenarioError, match=f"{name}.csv row 2: .* expected a known"):
            make_scenario(towns, tmp_path / "wrong", services=["voip"], **{name: broken})
        with pytest.raises(ScenarioError, match="expected a file or a pandas.DataFrame"):
            make_scenario(towns, tmp_path / "wrong", services=["voip"], **{name: tmp_path / "none.csv"})


def test_links_too_thin_for_the_largest_request_are_refused(tmp_path):
    thin = load_network(FIXTURES / "zoo.gml", rules=Rules(capacity_scale=0.01))
    with pytest.raises(ScenarioError, match="largest request of .* in kbps is .* Raise capacities"):
        make_scenario(thin, tmp_path / "thin")


def test_a_folder_is_replaced_only_when_asked_and_only_if_it_is_a_scenario(towns, tmp_path):
    folder = tmp_path / "towns"
    make_scenario(towns, folder, services=["voip"], load_gbps=1, **FEW)
    with pytest.raises(ScenarioError, match="Pass overwrite=True to replace a scenario"):
        make_scenario(towns, folder, services=["voip"])
    with pytest.raises(ScenarioError, match="requests a day is"):
        make_scenario(towns, folder, services=["voip"], load_gbps=9e5, overwrite=True)
    assert load_scenario(folder).settings.load_gbps == 1, "a failed attempt leaves the old one in place"
    assert make_scenario(towns, folder, services=["voip"], load_gbps=2, overwrite=True, **FEW).settings.load_gbps == 2
    assert [path.name for path in tmp_path.iterdir()] == ["towns"]
    other = tmp_path / "photos"
    other.mkdir()
    with pytest.raises(ScenarioError, match="expected one that does not exist yet"):
        make_scenario(towns, other, services=["voip"], overwrite=True)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("detour = 1.4", "detuor = 1.4", "key is 'source.rules.detuor'; expected one of detour"),
        ("detour = 1.4", "detour = -1", "detour is -1; expected a positive number"),
        ("[source]", "[source]\nauthor = 1", "key is 'source.author'"),
        ('format = "', 'format = 1 # "', "source.format is 1; expected a text"),
        ("warnings = [", "warnings = [1, ", "source.warnings is"),
    ],
)
def test_a_bad_record_of_the_source_is_named(abilene, tmp_path, old, new, words):
    copy = Path(shutil.copytree(abilene.folder, tmp_path / "copy"))
    text = (copy / "scenario.toml").read_text()
    assert old in text
    (copy / "scenario.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(copy)
    assert words in str(caught.value)


@pytest.mark.parametrize("wrong", [dict(latency="loose"), dict(utilisation=0), dict(load_gbps=-1)])
def test_an_option_out_of_range_is_refused(towns, tmp_path, wrong):
    with pytest.raises(ScenarioError, match=f"{next(iter(wrong))} is .*; expected"):
        make_scenario(towns, tmp_path / "x", **wrong)
