"""The scale study on small worlds: every row audited, the table and the figure drawn from the records."""

import pytest

from amarl_core.large_plots import load_chunks, memory_figure, scale_table, scaling
from amarl_core.look import Note, Picture, Table
from amarl_core.runs import read_frame
from amarl_core.scale import million, radio_units
from amarl_core.scenario import load_scenario

METHODS = ("amarl", "priced_admission")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Both parts, on the toy scenario and on a region of twenty nodes."""
    folder = tmp_path_factory.mktemp("study")
    radio_units(folder, days=1, methods=METHODS, n_memory=(600, 1800), scenario="toy", apart=False)
    million(folder, n_nodes=20, requests=600, n_train=200, apart=False)
    return folder


def test_every_row_is_audited_and_complete(study):
    radio, region = read_frame(study / "scale.parquet"), read_frame(study / "scale_million.parquet")
    assert radio["violations"].dropna().eq(0).all() and region["violations"].eq(0).all()
    assert radio["violations"].notna().sum() == len(METHODS)
    assert radio["part"].tolist() == ["day", "day"] + ["memory"] * 4
    assert radio.loc[radio["part"] == "memory", "requests"].tolist() == [600, 600, 1800, 1800]
    assert region["method"].tolist() == ["amarl", "shortest_feasible", "priced_reservation", "priced_admission"]
    assert region["requests"].nunique() == 1 and region["nodes"].eq(20).all()
    assert region.loc[0, "train_requests"] <= 200 and region.loc[0, "train_s"] > 0
    chunks = load_chunks(study, "million")
    assert chunks.groupby("run")["requests"].max().tolist() == region["requests"].tolist()


def test_table_and_figure_show_both_parts(study):
    table, picture = scale_table(study), memory_figure(study)
    assert isinstance(table, Table) and len(table.frame) == 2 + 4
    assert "AMARL" in table.markdown() and "20 nodes" in table.markdown()
    assert isinstance(picture, Picture) and "1,800 requests" in picture.alt
    summary = scaling(study)
    assert summary["radio"]["best_rule"] == "priced_admission" and summary["million"]["nodes"] == 20
    assert summary["million"]["violations"] == 0


def test_what_was_not_measured_is_said_with_its_command(tmp_path):
    for part in (scale_table(tmp_path), memory_figure(tmp_path)):
        assert isinstance(part, Note) and "python -m amarl_core.scale radio" in part.text
    assert scaling(tmp_path) == {}


def test_the_radio_unit_scenario_keeps_montreals_world():
    montreal, units = load_scenario("montreal"), load_scenario("montreal_ru")
    assert units.network.n_nodes >= 150
    day = units.test_trace("test-weekday")
    assert 75_000 < len(day) < 85_000
    assert {units.network.tier[node] for node in set(day.source.tolist())} == {"ru"}
    for node, budget in zip(montreal.network.node_ids, montreal.budget_mcpu, strict=True):
        assert units.budget_mcpu[units.network.node_index[node]] == budget
    shared = set(montreal.network.link_ids) & set(units.network.link_ids)
    assert len(shared) == montreal.network.n_links - 66  # the way down to the DUs
    for link in shared:
        ours, theirs = units.network.link_index[link], montreal.network.link_index[link]
        assert units.network.capacity_kbps[ours] == montreal.network.capacity_kbps[theirs]
    into_du = [e for e, v in enumerate(units.network.target) if units.network.tier[v] == "du"]
    assert {units.network.tier[units.network.source[e]] for e in into_du} == {"ru"}  # no by-pass of the ring
