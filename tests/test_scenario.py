"""Scenario folders: what is loaded, what is frozen, and what is refused."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amarl_core.errors import AmarlError, ScenarioError, TraceError
from amarl_core.freeze import freeze
from amarl_core.freeze import main as freeze_main
from amarl_core.scenario import DATA_FOLDER, known_scenarios, load_scenario
from amarl_core.settings import TABLES


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a copy of the toy scenario that a test may spoil."""
    return Path(shutil.copytree(DATA_FOLDER / "toy", tmp_path / "toy"))


def edit(path: Path, old: str, new: str) -> None:
    """Replace the first occurrence of a text in a file."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_montreal_has_the_tiers_and_services_it_promises():
    scenario = load_scenario("montreal")
    tiers = {tier: scenario.network.tier.count(tier) for tier in dict.fromkeys(scenario.network.tier)}
    assert tiers == {"du": 33, "agg": 6, "cu": 6, "core": 2, "dc": 2}
    assert scenario.network.n_links == 2 * 87
    assert scenario.service_ids == (
        "cloud_gaming",
        "augmented_reality",
        "voip",
        "video_streaming",
        "massive_iot",
        "industry_4_0",
    )
    assert scenario.function_ids == ("NAT", "FW", "TM", "VOC", "WO", "IDPS")
    assert scenario.services[0].chain == ("NAT", "FW", "VOC", "WO", "IDPS")
    assert np.array_equal(scenario.stub, np.array(scenario.network.tier) == "du")


def test_tight_services_cannot_go_round_through_the_core():
    """AR (10 ms), IoT (5) and industry (8) must stay at the edge: core and back takes over 10 ms."""
    scenario = load_scenario("montreal")
    cores = scenario.network.tier_nodes("core")
    pools = scenario.network.tier_nodes("cu")
    for name in ("augmented_reality", "massive_iot", "industry_4_0"):
        s = scenario.service_ids.index(name)
        through = scenario.delay_so_far[s, 0][:, cores][scenario.stub]  # [du, core]
        onward = scenario.delay_to_go[s, 0][pools][:, cores]  # [pool, core]
        assert through.min() + onward.min() > scenario.latency_ms[s]


def test_arrays_have_the_promised_shapes_and_types():
    scenario = load_scenario("toy")
    n, f, s, k = scenario.network.n_nodes, len(scenario.functions), len(scenario.services), 3
    assert scenario.chains.shape == (s, k) and scenario.chains.dtype == np.int32
    assert scenario.chains.tolist() == [[0, 1, 2], [0, 1, -1], [0, -1, -1]]
    assert scenario.chain_length.tolist() == [3, 2, 1]
    assert scenario.rate_mcpu_per_gbps.shape == (n, f) and scenario.rate_mcpu_per_gbps.dtype == np.int64
    assert scenario.delay_to_go.shape == scenario.delay_so_far.shape == (s, k + 1, n, n)
    assert scenario.budget_mcpu.dtype == np.int64 and scenario.latency_ms.dtype == np.float64


def test_the_budget_is_the_cap_in_exact_arithmetic(folder):
    edit(folder / "scenario.toml", "cpu_cap = 0.8", "cpu_cap = 0.07")
    edit(folder / "nodes.csv", "45.47,-73.68,200,", "45.47,-73.68,100,")
    assert int(np.floor(0.07 * 100)) == 7 and 0.07 * 100 > 7  # floats may land on either side
    assert load_scenario(folder).budget_mcpu[0] == 7


def test_committed_scenarios_are_frozen_as_they_are():
    for name in known_scenarios():
        scenario = load_scenario(name)
        assert scenario.digest == scenario.settings.frozen_digest
        assert set(scenario.test_day_sha256) == set(scenario.test_days)


def test_held_out_days_are_five_weekdays_and_five_days_of_the_weekend():
    scenario = load_scenario("montreal")
    assert scenario.test_days == (
        *("test-weekday", "test-weekday-2", "test-weekday-3", "test-weekday-4", "test-weekday-5"),
        *("test-weekend", "test-weekend-2", "test-weekend-3", "test-weekend-4", "test-weekend-5"),
    )
    for day in scenario.test_days:
        trace = scenario.test_trace(day)
        assert trace.sha256 == scenario.test_day_sha256[day]
        assert trace.name == day
        weekday = abs(len(trace) - 79_634) < 5 * np.sqrt(79_634)
        assert weekday == day.startswith("test-weekday")


def test_committed_files_are_what_the_seed_generates():
    scenario = load_scenario("montreal")
    assert set(scenario.settings.committed) == {"test-weekday", "test-weekend"}
    for day, path in scenario.settings.committed.items():
        assert path.stat().st_size < 1_500_000
        assert scenario.generate_test_day(day).sha256 == scenario.test_trace(day).sha256


def test_an_unknown_scenario_lists_the_known_ones():
    with pytest.raises(
        ScenarioError, match="scenario is 'atlantis'; expected one of montreal, montreal_ru, toy, or a folder"
    ):
        load_scenario("atlantis")


def test_an_unknown_test_day_lists_the_known_ones():
    with pytest.raises(TraceError, match="test day is 'sunday'; expected one of test-weekday, test-weekend"):
        load_scenario("toy").test_trace("sunday")


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 1.5}, {"seed": 1, "days": 0}, {"seed": 1, "first_day": -1}])
def test_a_senseless_training_trace_is_refused(wrong):
    with pytest.raises(TraceError, match="expected an integer of at least"):
        load_scenario("toy").training_trace(**wrong)


def test_a_copied_folder_is_the_same_scenario_whatever_its_line_endings(folder):
    toy = load_scenario("toy")
    assert load_scenario(folder).digest == toy.digest
    assert load_scenario(str(folder)).digest == toy.digest
    for table in ("nodes.csv", "links.csv"):
        content = (folder / table).read_bytes()
        (folder / table).write_bytes(content.replace(b"\n", b"\r\n"))
    assert load_scenario(folder).digest == toy.digest


def test_a_changed_folder_has_another_digest_and_says_so(folder, caplog):
    edit(folder / "links.csv", "600000", "600001")
    with caplog.at_level(logging.WARNING):
        changed = load_scenario(folder)
    assert changed.digest != load_scenario("toy").digest
    assert "has changed since it was frozen" in caplog.text


def test_a_changed_held_out_day_is_refused(folder):
    edit(folder / "services.csv", "4000,4000,600", "4000,4000,601")
    with pytest.raises(TraceError, match="as recorded when the scenario was frozen"):
        load_scenario(folder).test_trace("test-weekday")


def test_a_day_without_a_checksum_is_refused(folder):
    text = (folder / "scenario.toml").read_text()
    (folder / "scenario.toml").write_text(text.split("[frozen]")[0])
    with pytest.raises(TraceError, match="python -m amarl_core.freeze"):
        load_scenario(folder).test_trace("test-weekday")


def test_freezing_writes_committed_days_and_is_idempotent(folder):
    edit(folder / "links.csv", "600000", "610000")
    edit(
        folder / "scenario.toml",
        "weekends = 1",
        'weekends = 1\n[held_out.committed]\ntest-weekend = "days/end.parquet"',
    )
    first = freeze(folder)
    text = (folder / "scenario.toml").read_text()
    assert (folder / "days" / "end.parquet").is_file()
    assert first.digest == first.settings.frozen_digest
    assert first.test_trace("test-weekend").name == "test-weekend"
    assert freeze_main([str(folder)]) == 0
    assert (folder / "scenario.toml").read_text() == text
    assert freeze_main([str(folder / "missing")]) == 2


def test_a_chain_that_is_late_even_when_idle_names_service_source_and_destination(folder):
    edit(folder / "services.csv", "video,FW-TM-VOC,60", "video,FW-TM-VOC,4")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(folder)
    assert "least idle delay in ms of video from DU-W to COR through FW-TM-VOC is 6." in str(caught.value)
    assert "expected at most its bound of 4. Shorten its links" in str(caught.value)


def test_a_chain_without_a_host_is_named(folder):
    text = (folder / "placement.csv").read_text()
    kept = [line for line in text.splitlines() if ",VOC," not in line]
    (folder / "placement.csv").write_text("\n".join(kept) + "\n")
    with pytest.raises(
        ScenarioError, match="least idle delay in ms of video from DU-W to COR through FW-TM-VOC is inf"
    ):
        load_scenario(folder)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "cpu_cap = 0.8",
            "cpu_cap = 1.8",
            "scenario.toml: cpu_cap is 1.8; expected a positive number of at most 1",
        ),
        ("cpu_cap = 0.8", "cpu_cap = true", "cpu_cap is True"),
        ("cpu_cap = 0.8", "cpu_cap = nan", "cpu_cap is nan"),
        ("cpu_cap = 0.8", "cpucap = 0.8", "key is 'cpucap'; expected one of name, title, cpu_cap"),
        ("cpu_cap = 0.8", "cpu_cap 0.8", "not TOML"),
        ("[traffic]", "[trafic]", "key is 'trafic'"),
        ("load_gbps = 0.55", "", "traffic.load_gbps is 'missing'"),
        ("load_gbps = 0.55", "load_gbps = 0", "traffic.load_gbps is 0"),
        ("load_gbps = 0.55", "load_gbps = 900000", "requests a day is"),
        (
            "office = 0.56",
            "offices = 0.56",
            "weekend_level is 'offices'; expected one of residential, office",
        ),
        ("seed = 41", "seed = -41", "held_out.seed is -41"),
        ("weekdays = 1", "weekdays = 0", "held_out.weekdays is 0"),
        (
            'nodes = "nodes.csv"',
            'nodes = "../nodes.csv"',
            "tables.nodes is '../nodes.csv'; expected a path inside",
        ),
        ('nodes = "nodes.csv"', 'nodes = "/etc/hostname"', "expected a path inside the scenario's folder"),
        ('nodes = "nodes.csv"', 'nodes = "knots.csv"', "knots.csv: no such file"),
        ('nodes = "nodes.csv"', 'knots = "nodes.csv"', "key is 'tables.knots'"),
        (
            "[frozen.test_day_sha256]",
            '[frozen.test_day_sha256]\nmonday = "x"',
            "key is 'frozen.test_day_sha256.monday'",
        ),
    ],
)
def test_a_bad_setting_is_named(folder, old, new, words):
    edit(folder / "scenario.toml", old, new)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(folder)
    assert words in str(caught.value)


def test_a_table_behind_a_link_that_leaves_the_folder_is_refused(folder, tmp_path):
    shutil.move(folder / "nodes.csv", tmp_path / "outside.csv")
    (folder / "nodes.csv").symlink_to(tmp_path / "outside.csv")
    with pytest.raises(ScenarioError, match="expected a path inside the scenario's folder"):
        load_scenario(folder)


@pytest.mark.parametrize(
    ("table", "old", "new", "words"),
    [
        ("destinations", "nearest:core", "nearest:moon", "destinations.csv row 2: rule is 'nearest:moon'"),
        (
            "destinations",
            "node:CU-E",
            "node:CU-X",
            "rule is 'node:CU-X'; expected node:<node_id> with one of DU-W",
        ),
        (
            "destinations",
            "industry:3",
            "industry:9",
            "expected nearest:<tier>, other:<tier>, node:<node_id> or",
        ),
        ("destinations", "industry:3", "random", "rule is 'random'"),
        ("destinations", "CU-E,0.3", "CU-E,0.2", "sum of weights of ar is 0.8999"),
        (
            "destinations",
            "ar,nearest",
            "xr,nearest",
            "service is 'xr'; expected a known service: video, ar, voice",
        ),
        ("areas", "DU-E,East", "DU-X,East", "areas.csv row 4: node_id is 'DU-X'"),
        ("areas", "0.7,0.1,0.05,0.1,0.05", "0,0,0,0,0", "areas.csv row 2: w_residential is 0"),
        ("landuse_profiles", "weekday,3,", "weekday,2,", "hour is 2; expected each hour once"),
        ("landuse_profiles", "weekday,3,", "weekend,3,", "each hour once"),
        (
            "landuse_profiles",
            "weekday,3,",
            "holiday,3,",
            "day is 'holiday'; expected a known kind of day: weekday",
        ),
        (
            "service_profiles",
            "hour,video",
            "hour,movie",
            "column name is 'movie'; expected one of hour, video, ar, voice",
        ),
        ("service_profiles", "\n3,", "\n33,", "hour is 33"),
        ("services", "4000,4000,600", "4000,4000,1e-300", "requests a day is"),
        ("functions", "FW,", "F-W,", "a name without '-'"),
        ("functions", "TM,", "DPI,", "services.csv row 2: chain is 'FW-TM-VOC'"),
    ],
)
def test_a_bad_table_of_the_generator_is_named(folder, table, old, new, words):
    edit(folder / f"{table}.csv", old, new)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(folder)
    assert words in str(caught.value)


def test_a_service_that_nobody_asks_for_on_any_weekday_is_refused(folder):
    lines = (folder / "service_profiles.csv").read_text().splitlines()
    silent = [line.rsplit(",", 1)[0] + (",0" if i > 1 else ",1") for i, line in enumerate(lines[1:], 1)]
    (folder / "service_profiles.csv").write_text("\n".join([lines[0], *silent]) + "\n")
    uses = (folder / "landuse_profiles.csv").read_text().splitlines()
    uses[1] = "weekday,0,0,0,0,0"
    (folder / "landuse_profiles.csv").write_text("\n".join(uses) + "\n")
    with pytest.raises(ScenarioError, match="weekday demand for voice is 0"):
        load_scenario(folder)


def test_a_profile_without_an_hour_is_refused(folder):
    lines = (folder / "service_profiles.csv").read_text().splitlines()
    (folder / "service_profiles.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ScenarioError, match="23 hours; expected all 24 hours"):
        load_scenario(folder)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_scenario_is_refused_clearly_or_loaded(tmp_path_factory, data):
    """Any edit of one file ends in an error of ours or in a scenario that can draw a day."""
    spoiled = tmp_path_factory.mktemp("spoiled") / "toy"
    shutil.copytree(DATA_FOLDER / "toy", spoiled)
    name = data.draw(st.sampled_from([*(f"{table}.csv" for table in TABLES), "scenario.toml"]))
    content = bytearray((spoiled / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 6)))
        words = [
            b",",
            b"\n",
            b"-",
            b"nan",
            b"0",
            b'"',
            b"1e400",
            b"9" * 19,
            b"DU-W",
            b"=",
            b"[",
            b"\x00",
            b":",
        ]
        content[start:end] = data.draw(st.one_of(st.binary(max_size=4), st.sampled_from(words)))
    (spoiled / name).write_bytes(bytes(content))
    try:
        scenario = load_scenario(spoiled)
        trace = scenario.training_trace(seed=0)
    except AmarlError as error:
        assert "expected" in str(error)
    else:
        assert (trace.demand_kbps > 0).all()
    finally:
        shutil.rmtree(spoiled)


def test_the_tables_of_montreal_are_what_its_build_script_writes(tmp_path):
    copy = Path(shutil.copytree(DATA_FOLDER / "montreal", tmp_path / "montreal"))
    for table in ("nodes", "links", "placement", "destinations"):
        (copy / f"{table}.csv").unlink()
    subprocess.run([sys.executable, copy / "build.py"], check=True)
    for path in (DATA_FOLDER / "montreal").glob("*.*"):
        assert (copy / path.name).read_bytes() == path.read_bytes(), path.name
