"""Overlays change what they say and nothing else, days pair with the base's, and mistakes name the remedy."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from amarl_core.arrays import make_world, observation_size, slot_count
from amarl_core.bursts import SCOPES, Arrivals, burst_factors
from amarl_core.draws import EXPONENTIAL, Holding, draw_holds_ms
from amarl_core.errors import ScenarioError
from amarl_core.freeze import freeze
from amarl_core.overlays import FAMILIES, known_overlays, read_overlay
from amarl_core.scenario import DATA_FOLDER, OVERLAYS_FOLDER, find_overlay, load_scenario

MONTREAL, TOY = load_scenario("montreal"), load_scenario("toy")
BASES = {"montreal": MONTREAL, "toy": TOY}
SHIPPED = [(base, name) for base in BASES for name in known_overlays(OVERLAYS_FOLDER, base)]
DAY = "test-weekday"


@pytest.fixture
def load_toy(tmp_path):
    """Load the toy scenario under an overlay given as text."""

    def load(text: str):
        (tmp_path / "mine.toml").write_text(f'base = "toy"\n{text}\n', encoding="utf-8")
        return load_scenario(tmp_path / "mine.toml")

    return load


# ------------------------------------------------------------------------------------ what is shipped
@pytest.mark.parametrize(("base", "name"), SHIPPED)
def test_every_overlay_loads_and_fits_models_of_its_base(base, name):
    world, changed = BASES[base], load_scenario(f"{base}+{name}")
    assert changed.name == f"{base}+{name}" and changed.digest != world.digest
    assert changed.service_ids == world.service_ids and changed.network.node_ids == world.network.node_ids
    slots = [slot_count(make_world(one, 100.0)) for one in (world, changed)]
    assert slots[0] == slots[1]
    sizes = [observation_size(make_world(one, 100.0), slots[0]) for one in (world, changed)]
    assert sizes[0] == sizes[1]
    (overlay,) = changed.overlays
    assert overlay.base == base and overlay.title != name and FAMILIES[overlay.family] in ("demand", "network")


def test_overlays_have_digests_of_their_own():
    digests = [(base, read_overlay(find_overlay(name)).digest) for base, name in SHIPPED]
    assert len(set(digests)) == len(SHIPPED) >= 40


def test_the_bases_are_as_they_were_frozen():
    for world in BASES.values():
        assert world.digest == world.settings.frozen_digest and world.overlays == ()


def test_every_service_is_shifted_to_half_twice_and_three_times():
    factors = {(s, f) for o in known_overlays(OVERLAYS_FOLDER, "montreal")
               for s, f in read_overlay(find_overlay(o)).service_factors.items()}  # fmt: skip
    assert factors == {(s, f) for s in MONTREAL.service_ids for f in (0.5, 2.0, 3.0)}


@pytest.mark.parametrize("seed", [1, 2])
def test_the_tables_of_siblings_are_what_the_build_script_writes(seed, tmp_path):
    command = [sys.executable, DATA_FOLDER / "montreal" / "build.py", "--sibling", str(seed), tmp_path]
    subprocess.run(command, check=True)
    for path in (OVERLAYS_FOLDER / f"sibling-{seed}").glob("*.csv"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_sibling_is_another_network_of_the_same_size():
    first, second = (load_scenario(f"montreal+sibling-{seed}").network for seed in (1, 2))
    for network in (first, second):
        assert network.n_links == MONTREAL.network.n_links
        assert network.capacity_kbps.sum() == pytest.approx(MONTREAL.network.capacity_kbps.sum(), rel=1e-3)
        assert network.compute_mcpu.sum() == pytest.approx(MONTREAL.network.compute_mcpu.sum(), rel=1e-3)
        assert set(network.link_ids) != set(MONTREAL.network.link_ids)
    assert set(first.link_ids) != set(second.link_ids)


def test_venues_lie_in_areas_of_the_scenario():
    sites = {MONTREAL.network.node_ids[v] for v in MONTREAL.traffic.area_node}
    lines = (DATA_FOLDER / "montreal" / "venues.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(lines) == 5 and {line.split(",")[1] for line in lines} <= sites


# ------------------------------------------------------------------------------------ demand
@pytest.mark.parametrize("name", ["links-080", "uplink-down", "placement-swapped", "sibling-1"])
def test_days_are_the_same_where_only_the_network_changes(name):
    changed = load_scenario(f"montreal+{name}")
    day, same = MONTREAL.test_trace(DAY), changed.test_trace(DAY)
    assert np.array_equal(day.t_s, same.t_s) and np.array_equal(day.hold_s, same.hold_s)
    assert np.array_equal(day.demand_kbps, same.demand_kbps)
    if name != "sibling-1":  # there another core may be the nearest
        assert day.sha256 == same.sha256


def test_a_load_factor_multiplies_requests_and_traffic(load_toy):
    ordinary, double = TOY.test_trace(DAY), load_toy("[traffic]\nload_factor = 2.0").test_trace(DAY)
    n = len(ordinary)
    assert abs(len(double) - 2 * n) < 5 * np.sqrt(2 * n + 4 * n)
    traffic = [trace.demand_kbps * trace.hold_s for trace in (ordinary, double)]
    spread = 5 * np.sqrt(np.square(traffic[1]).sum() + 4 * np.square(traffic[0]).sum())
    assert abs(traffic[1].sum() - 2 * traffic[0].sum()) < spread


def test_a_service_factor_leaves_the_other_services_alone(load_toy):
    rate = load_toy("[traffic.services]\nar = 3.0").traffic.rate_per_s
    s = TOY.service_ids.index("ar")
    others = [i for i in range(len(TOY.service_ids)) if i != s]
    assert np.allclose(rate[:, s], 3 * TOY.traffic.rate_per_s[:, s])
    assert np.array_equal(rate[:, others], TOY.traffic.rate_per_s[:, others])


def test_a_crowd_asks_as_residents_do_while_it_is_there(load_toy):
    event = '[[hot_spots]]\nnode = "DU-C"\nfrom_h = 18.5\nhours = 3\nattendance = 30000\nactivity = 2\n'
    ratio = load_toy(event + 'services = ["video"]').traffic.rate_per_s / TOY.traffic.rate_per_s
    video, centre = TOY.service_ids.index("video"), 1
    attraction = 0.8 * 60_000 + 0.4 * 90_000  # services.csv and areas.csv of toy
    more = 0.8 * 30_000 * 2 / attraction
    expected = np.ones(24)
    expected[18:22] += more * np.array([0.5, 1, 1, 0.5])
    assert np.allclose(ratio[:, video, centre], expected)
    ratio[:, video, centre] = 1
    assert np.array_equal(ratio, np.ones_like(ratio))


def test_two_events_at_once_add_up(load_toy):
    event = '[[hot_spots]]\nnode = "DU-C"\nfrom_h = 0\nhours = 24\nfactor = 1.5\n'
    ratio = load_toy(event * 2).traffic.rate_per_s / TOY.traffic.rate_per_s
    assert np.allclose(ratio[:, :, 1], 2.0) and np.allclose(ratio[:, :, [0, 2]], 1.0)


def test_a_venue_is_full_unless_told_otherwise():
    changed = load_scenario("montreal+bell-centre")
    ratio = changed.traffic.rate_per_s / MONTREAL.traffic.rate_per_s
    s, a = (MONTREAL.service_ids.index("voip"),
            [MONTREAL.network.node_ids[v] for v in MONTREAL.traffic.area_node].index("DU-VIM"))  # fmt: skip
    expected = 1 + 0.6 * 21_273 / MONTREAL.traffic.attraction[s, a]
    assert ratio[0, s, a, 20] == pytest.approx(expected) and ratio[0, s, a, 12] == 1


# ------------------------------------------------------------------------------------ bursts and holds
@pytest.mark.parametrize("scope", SCOPES)
def test_bursts_keep_the_mean_rate(scope):
    arrivals = Arrivals("mmpp", burst_factor=4.0, burst_share=0.25, burst_s=300.0, scope=scope)
    days = [burst_factors(arrivals, 2, 3, np.random.SeedSequence(7, spawn_key=(1, day))) for day in range(60)]
    assert days[0].shape == {"network": (1, 1, 1440), "service": (2, 1, 1440), "area": (1, 3, 1440),
                             "cell": (2, 3, 1440)}[scope]  # fmt: skip
    factor = np.stack(days)
    by_chain = factor.mean(axis=(0, 3))
    assert np.allclose(by_chain, 1.0, atol=0.06)
    quiet = 1 / (1 - 0.25 + 0.25 * 4)
    assert factor.min() == pytest.approx(quiet) and factor.max() == pytest.approx(4 * quiet)


def test_bursty_days_have_the_same_mean_and_a_larger_index_of_dispersion(load_toy):
    rate = "[traffic]\nload_factor = 3.0\n"
    bursty = '[arrivals]\nprocess = "mmpp"\nburst_factor = 8.0\nburst_share = 0.2\nburst_s = 240.0\n'
    even, uneven = load_toy(rate), load_toy(rate + bursty)

    def counts(world):
        """Requests by five minutes of 12 weekdays over what the hour expects, [day, 288]."""
        days = [world.training_trace(5, 1, first_day=7 * (d // 5) + d % 5) for d in range(12)]
        expected = np.repeat(world.traffic.rate_per_s[0].sum(axis=(0, 1)) * 300, 12)
        return np.stack([np.histogram(d.t_s % 86_400, 288, (0, 86_400))[0] for d in days]), expected

    (n_even, expected), (n_uneven, _) = counts(even), counts(uneven)
    dispersion = [((n - expected) ** 2 / expected).mean() for n in (n_even, n_uneven)]
    assert dispersion[0] == pytest.approx(1, abs=0.15) and dispersion[1] > 3
    assert n_uneven.sum() == pytest.approx(n_even.sum(), rel=0.05)


def test_bursts_leave_a_days_other_scenarios_alone(load_toy):
    load_toy('[arrivals]\nprocess = "mmpp"\nburst_factor = 2.0').test_trace(DAY)
    assert load_toy('[arrivals]\nprocess = "poisson"').test_trace(DAY).sha256 == TOY.test_trace(DAY).sha256


HEAVY = {
    "lognormal": (Holding("lognormal", 1.0), stats.lognorm(s=1.0, scale=np.exp(-0.5))),
    "pareto": (Holding("pareto", 2.5), stats.pareto(b=2.5, scale=1.5 / 2.5)),
}


@pytest.mark.parametrize("kind", HEAVY)
def test_heavy_tails_have_the_same_mean_and_the_distribution_they_say(kind):
    holding, law = HEAVY[kind]
    service = np.zeros(200_000, np.int64)
    mean_ms = TOY.services[0].hold_mean_s * 1000
    held = draw_holds_ms(TOY.services, service, np.random.default_rng(3), holding) / mean_ms
    assert law.mean() == pytest.approx(1.0)
    assert held.mean() == pytest.approx(1.0, abs=5 * law.std() / np.sqrt(len(held)))
    assert stats.kstest(held[:20_000], law.cdf).pvalue > 1e-3
    exponential = draw_holds_ms(TOY.services, service, np.random.default_rng(3), EXPONENTIAL) / mean_ms
    assert np.quantile(held, 0.9999) > 1.5 * np.quantile(exponential, 0.9999)
    ranks = stats.spearmanr(exponential[:5000], held[:5000]).statistic
    assert ranks > 1 - 1e-6, "the same draws, so the same ranks but for rounding"


def test_only_holding_times_change_with_their_distribution(load_toy):
    day, heavy = TOY.test_trace(DAY), load_toy('[holding]\ndistribution = "pareto"\nalpha = 1.5').test_trace(DAY)
    assert np.array_equal(day.t_s, heavy.t_s) and np.array_equal(day.destination, heavy.destination)
    assert not np.array_equal(day.hold_s, heavy.hold_s)


# ------------------------------------------------------------------------------------ network
def test_a_failed_link_is_gone_in_both_directions_and_destinations_stay(load_toy):
    changed = load_toy('[failed]\nlinks = ["DU-W>AGG-W"]')
    assert set(TOY.network.link_ids) - set(changed.network.link_ids) == {"DU-W>AGG-W", "AGG-W>DU-W"}
    assert changed.network.n_links == len(changed.network.capacity_kbps) == TOY.network.n_links - 2
    assert np.array_equal(changed.traffic.destination, TOY.traffic.destination)


def test_requests_that_a_failure_cuts_off_are_said_and_kept(load_toy, caplog):
    changed = load_toy('[failed]\nlinks = ["DU-W>AGG-W", "DU-W>AGG-E"]')
    assert "cannot be served" in caplog.text and "DU-W" in caplog.text
    assert (changed.test_trace(DAY).source == TOY.network.node_index["DU-W"]).any()


def test_capacity_factors_of_all_of_a_tier_and_of_one_multiply(load_toy):
    links = '[capacity.links]\nall = 0.5\ncore-agg = 0.5\n"AGG-W>COR" = 0.5\n'
    changed = load_toy(links + "[capacity.compute]\ncu = 0.5\nCU-W = 0.5")
    ratio = dict(zip(TOY.network.link_ids, changed.network.capacity_kbps / TOY.network.capacity_kbps, strict=True))
    assert ratio["DU-W>AGG-W"] == 0.5 and ratio["COR>AGG-E"] == 0.25 and ratio["AGG-W>COR"] == 0.125
    index = TOY.network.node_index
    assert changed.network.compute_mcpu[[index[v] for v in ("CU-W", "CU-E", "DC")]].tolist() == [900, 1500, 20_000]
    assert changed.budget_mcpu[index["CU-W"]] == 720


def test_a_placement_replaces_what_its_nodes_host_and_keeps_their_rates(load_toy):
    changed = load_toy('[placement]\nCU-E = ["FW", "VOC"]\nCU-W = ["FW", "TM", "VOC"]')
    hosted = {(v, f): changed.rate_mcpu_per_gbps[TOY.network.node_index[v], TOY.function_ids.index(f)]
              for v in ("CU-E", "CU-W", "DC") for f in ("FW", "TM", "VOC")}  # fmt: skip
    own = {f.function: f.mcpu_per_gbps for f in TOY.functions}
    assert hosted["CU-E", "TM"] == -1 and hosted["CU-E", "VOC"] == 5900
    assert hosted["CU-W", "VOC"] == own["VOC"] and hosted["DC", "VOC"] == 5400


def test_a_placement_on_which_a_chain_cannot_end_in_time_is_refused(load_toy):
    with pytest.raises(ScenarioError, match="least idle delay in ms of ar"):
        load_toy('[placement]\nCU-E = ["FW"]\nCU-W = ["FW"]')


def test_tables_stand_in_for_those_of_the_base(load_toy, tmp_path):
    text = (DATA_FOLDER / "toy" / "links.csv").read_text(encoding="utf-8")
    (tmp_path / "links.csv").write_text(text.replace("240000", "120000"), encoding="utf-8")
    changed = load_toy('[tables]\nlinks = "links.csv"')
    assert changed.network.capacity_kbps[TOY.network.link_index["AGG-W>COR"]] == 120_000
    (tmp_path / "links.csv").write_text(text.replace("240000", "130000"), encoding="utf-8")
    assert load_toy('[tables]\nlinks = "links.csv"').digest != changed.digest


# ------------------------------------------------------------------------------------ names and mistakes
def test_several_overlays_follow_each_other():
    both = load_scenario("toy+toy-load-200+toy-ar-200")
    s = TOY.service_ids.index("ar")
    assert np.allclose(both.traffic.rate_per_s[:, s], 4 * TOY.traffic.rate_per_s[:, s])
    assert both.digest not in (load_scenario("toy+toy-load-200").digest, load_scenario("toy+toy-ar-200").digest)


def test_words_do_not_change_a_digest(load_toy):
    assert load_toy('title = "a"\n[traffic]\nload_factor = 2').digest == load_toy("[traffic]\nload_factor = 2").digest


MISTAKES = {
    "[traffic]\nload = 2": "key is 'traffic.load'; expected one of load_factor, services",
    "loud = 1": "key is 'loud'; expected one of title, base, family, traffic",
    "[traffic]\nload_factor = -1": "traffic.load_factor is -1; expected a positive number",
    "[traffic.services]\nradio = 2": "'radio'; expected one of video, ar, voice",
    'family = "weather"': "family is 'weather'; expected one of service mix",
    '[[hot_spots]]\nnode = "DU-X"\nfrom_h = 1\nhours = 1\nfactor = 2': "'DU-X'; expected one of DU-W, DU-C, DU-E",
    '[[hot_spots]]\nvenue = "Bell"\nfrom_h = 1\nhours = 1': "'Bell'; expected nothing: the scenario has no venues.csv",
    '[[hot_spots]]\nnode = "DU-W"\nfrom_h = 23\nhours = 2\nfactor = 2': "end by midnight, so at most 1",
    '[[hot_spots]]\nnode = "DU-W"\nfrom_h = 23\nhours = 1': "attendance is 'missing'; expected people who come",
    '[[hot_spots]]\nnode = "DU-W"\nvenue = "x"\nfrom_h = 1\nhours = 1': "either venue or node",
    "[hot_spots]\nfactor = 2": r"expected tables \[\[hot_spots\]\]",
    '[arrivals]\nprocess = "hawkes"': "'hawkes'; expected one of poisson, mmpp",
    '[arrivals]\nprocess = "mmpp"': "arrivals.burst_factor is 'missing'",
    '[holding]\ndistribution = "pareto"\nalpha = 1.0': "tail index above 1",
    '[holding]\ndistribution = "pareto"\nsigma = 2.0': "key is 'holding.sigma'; expected one of distribution, alpha",
    "[capacity.links]\nedge = 0.5": "'edge'; expected all, one of agg-agg, .* or an id such as DU-W>AGG-W",
    "[capacity.compute]\nCU-X = 0.5": "'CU-X'; expected all, one of agg, core, cu, dc, du",
    '[failed]\nlinks = ["A>B"]': "'A>B'; expected one of DU-W>AGG-W",
    '[placement]\nCU-X = ["FW"]': "'CU-X'; expected one of DU-W",
    '[placement]\nCU-E = ["XX"]': "'XX'; expected one of FW, TM, VOC",
    '[placement]\nAGG-E = ["FW"]': "'AGG-E'; expected a node with compute",
    '[tables]\nlinks = "../links.csv"': "a path inside the scenario's folder",
    "[traffic": "not TOML",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_one_error_with_what_was_expected(load_toy, text):
    with pytest.raises(ScenarioError, match=MISTAKES[text]) as error:
        load_toy(text)
    assert str(error.value).startswith("mine.toml")


def test_an_unknown_overlay_is_refused_with_the_known_ones():
    with pytest.raises(ScenarioError, match="overlay is 'load-300'; expected one of .*load-200"):
        load_scenario("montreal+load-300")


def test_an_overlay_given_as_a_file_must_name_its_base(tmp_path):
    shutil.copy(find_overlay("load-200"), tmp_path / "mine.toml")
    assert load_scenario(str(tmp_path / "mine.toml")).digest != MONTREAL.digest
    (tmp_path / "mine.toml").write_text("[traffic]\nload_factor = 2.0\n", encoding="utf-8")
    with pytest.raises(ScenarioError, match="base is 'missing'; expected .*base = \"montreal\""):
        load_scenario(tmp_path / "mine.toml")


def test_only_a_base_can_be_frozen():
    before = (DATA_FOLDER / "toy" / "scenario.toml").read_bytes()
    with pytest.raises(ScenarioError, match="without overlays"):
        freeze("toy+toy-load-200")
    assert (DATA_FOLDER / "toy" / "scenario.toml").read_bytes() == before
