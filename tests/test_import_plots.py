"""The page on imported networks says what its functions compute, and every figure states its finding."""

import html
import re

import numpy as np
import pandas as pd
import pytest

from amarl_core import batch, import_plots
from amarl_core.imported import load_network
from amarl_core.makers import make_scenario


@pytest.fixture(scope="module")
def abilene():
    return load_network("topohub:topozoo/Abilene")


@pytest.fixture(scope="module")
def scenario(abilene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "abilene"
    return make_scenario(abilene, folder, latency="scale", load_gbps=5, weekdays=1, weekends=1)


@pytest.fixture(scope="module")
def decisions():
    service = ["voip", "voip", "massive_iot", "massive_iot"]
    frames = {"amarl": [True, True, True, False], "priced": [True, True, False, False]}
    cause = {True: "accepted", False: "refused"}
    return {
        name: pd.DataFrame({"service": service, "accepted": accepted, "cause": [cause[ok] for ok in accepted]})
        for name, accepted in frames.items()
    }


def test_the_table_tells_file_from_rule_and_choices(scenario):
    frame = import_plots.assumptions_table(import_plots.told(scenario)).frame.set_index("quantity")
    assert frame.loc["position", "from the file"] == 11 and frame.loc["position", "by rule"] == ""
    assert frame.loc["delay", "by rule"] == 28
    assert frame.loc["placement", "rule or choice"].startswith("auto: light functions")


def test_raised_bounds_stand_beside_what_they_were(scenario):
    frame = import_plots.bounds_table(scenario).frame.set_index("service")
    assert frame.loc["AR", "before, ms"] == "10" and float(frame.loc["AR", "bound, ms"]) > 10
    assert frame.loc["VoIP", "before, ms"] == frame.loc["VoIP", "bound, ms"]


def test_load_in_progress_is_that_of_a_count_request_by_request(scenario):
    day = scenario.test_trace("test-weekday")
    at_s = np.array([0.0, 30_000.0, 60_000.0, 86_400.0])
    slow = [int(day.demand_kbps[(day.t_s <= t) & (day.t_s + day.hold_s > t)].sum()) for t in at_s]
    assert import_plots._in_progress(day, at_s).tolist() == slow
    assert f"{len(day):,} requests" in import_plots.traffic_figure(scenario, day).alt


def test_grades_of_service_are_counted_by_service_and_over_all(decisions):
    gos = import_plots.gos_by_service(decisions)
    assert gos.loc["massive_iot"].tolist() == [50.0, 0.0]
    assert gos.loc["all"].tolist() == [75.0, 50.0]
    assert "AMARL accepts most, 75.00 %; Massive IoT is served least" in import_plots.gos_figure(decisions, "a day").alt
    rows = import_plots.gos_table(decisions).frame.iloc[-2:].to_numpy().tolist()
    assert rows == [["all requests", "75.00", "50.00"], ["refused, % of all", "25.00", "50.00"]]


def test_the_answer_names_what_was_assumed(abilene, scenario, decisions):
    answer = import_plots.import_answer(abilene, scenario, decisions).text
    assert "11 nodes and 28 directed links" in answer
    assert "left length, delay, capacity, tier, compute and population to rules" in answer
    assert "The bounds of AR, Massive IoT and Industry 4.0 had to be raised" in answer


def test_the_page_runs_from_a_network_to_trained_agents(tmp_path):
    page, _ = batch.run_job(batch.Job("15_bring_your_own", {"smoke": True}), tmp_path)
    text = html.unescape((tmp_path / page.href).read_text(encoding="utf-8"))
    assert "Answer." in text and "abilene has 11 nodes and 28 directed links" in text
    grades = re.search(r"On a held-out day: (.*?)\. ", text)[1]
    assert "SARL" in grades and "AMARL" in grades and "shortest feasible" in grades
