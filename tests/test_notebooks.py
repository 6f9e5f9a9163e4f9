"""Notebooks are thin and clean, and what they show when run is what the records give."""

import ast
import html
import re

import nbformat
import pytest
from fake_study import shared_pages

from amarl_core import (
    async_plots,
    batch,
    disruption_plots,
    explore_plots,
    failure_plots,
    fairness_plots,
    field_plots,
    mask_plots,
    paper,
    perf_plots,
    perf_records,
    records,
    robust_plots,
    targets,
    verdict_plots,
)
from amarl_core.catalogue import list_recorded, read_day
from amarl_core.scenario import load_scenario
from amarl_core.utilisation import utilisation

PATHS = sorted(batch.NOTEBOOKS.glob("*.ipynb"))
NAMES = [path.stem for path in PATHS]


@pytest.fixture(params=PATHS, ids=NAMES)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebooks_of_the_study_are_there():
    of_the_study = {"20_train", "30_gos_curves", "40_failure_causes", "50_baselines_and_bound", "60_asynchrony",
                    "75_failures", "80_performance", "85_scale_and_reliability"}  # fmt: skip
    exploring = {"00_quickstart", "10_explore_network_and_traffic"}
    assert of_the_study | exploring | {"90_reproduce_paper"} <= set(NAMES)


def test_no_outputs_are_committed(notebook):
    nbformat.validate(notebook)
    assert not [cell.id for cell in code_cells(notebook) if cell.outputs or cell.execution_count]


def test_the_first_cell_gives_question_answer_and_running_time(notebook):
    first = notebook.cells[0].source
    assert first.startswith("# ")
    assert "**Question.**" in first and "**Answer.**" in first and "Running time" in first


def test_the_second_cell_holds_literals_with_a_comment_each(notebook):
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == [notebook.cells[1]]
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)
    assert all("  # " in line for line in tagged[0].source.splitlines())
    assert {"interactive", "smoke"} <= set(batch.notebook_parameters(batch.notebook_path(PATHS[0].stem)))


def test_notebooks_are_thin(notebook):
    assert len(notebook.cells) <= 25
    for cell in code_cells(notebook):
        assert len(cell.source.splitlines()) <= 15, cell.id
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.ClassDef), cell.id
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 5, f"{cell.id}: {node.name}"


def test_cell_ids_are_words_that_stay(notebook):
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z][a-z0-9-]{2,}", cell_id) for cell_id in ids), ids


# -------------------------------------------------------- results, run with smoke=True by papermill
def page(name):
    return html.unescape((shared_pages() / f"{name}.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def smoke_study():
    return records.load_study(shared_pages() / "runs" / "fake", smoke=True)


def test_the_reproduction_gives_the_verdict_of_its_records(smoke_study):
    assert targets.verdict(paper.gather(smoke_study)) in page("90_reproduce_paper")


def test_the_gos_page_gives_the_table_of_its_records(smoke_study):
    evidence = paper.gather(smoke_study)
    assert paper.gos_answer(evidence).text in page("30_gos_curves")
    for value in paper.table_1(evidence).frame.to_numpy().ravel():
        assert value in page("30_gos_curves")


def test_the_causes_page_gives_the_finding_of_its_records(smoke_study):
    finding = failure_plots.failure_finding(records.load_outcomes(smoke_study))
    assert finding in page("40_failure_causes")
    assert mask_plots.mask_figure(records.load_masks(smoke_study)).alt in page("40_failure_causes")


def test_the_page_on_rules_gives_the_answers_of_its_records(smoke_study):
    assert field_plots.field_answer(paper.gather(smoke_study), records.load_bounds(smoke_study)).text in page(
        "50_baselines_and_bound"
    )
    assert verdict_plots.verdict_answer(records.load_verdicts(smoke_study)).text in page("50_baselines_and_bound")


def test_the_page_on_asynchrony_gives_the_answer_of_its_records(smoke_study):
    forms = async_plots.forms_of(paper.gather(smoke_study), records.load_forms(smoke_study))
    assert async_plots.async_answer(records.load_sweep(smoke_study), forms).text in page("60_asynchrony")


def test_the_page_on_failures_gives_the_answer_of_its_records(smoke_study):
    assert disruption_plots.disruption_answer(smoke_study.folder).text in page("75_failures")


def test_the_page_on_speed_gives_the_answer_of_its_records(smoke_study):
    measured = perf_records.load_performance(smoke_study)
    assert perf_plots.performance_answer(measured, records.load_progress(smoke_study)).text in page("80_performance")


def test_the_page_on_robustness_gives_the_verdict_of_its_records(smoke_study):
    shifts = records.load_robustness(smoke_study)
    assert robust_plots.robust_answer(shifts).text in page("70_robustness")
    assert fairness_plots.fairness_figure(shifts).alt in page("70_robustness")


def test_the_quickstart_routes_commits_aborts_trains_and_compares():
    text = page("00_quickstart")
    assert "Toy: 9 nodes, " in text and "Step 1: at DU-" in text and "The whole way: accepted" in text
    for event in ("commit", "abort", "release"):
        assert f">{event}</td>" in text
    steps = re.search(r"AMARL accepts ([\d.]+) % of the requests; before training ([\d.]+) % and shortest", text)
    assert float(steps[1]) > 50 and "points, on one day and one seed" in text


def test_the_exploration_shows_the_network_and_the_day_of_its_records(smoke_study):
    text = page("10_explore_network_and_traffic")
    world = load_scenario("montreal")
    recorded = next(day for day in list_recorded(smoke_study.folder.parent) if day.method == "amarl")
    used = utilisation(read_day(recorded).decisions, world)
    assert explore_plots.network_answer(world, used, recorded.label).text in text
    assert text.count("<svg") == 5, "the map, and four hours for the slider"
    for link in world.network.link_ids[:20]:
        assert f"<title>{link}: " in text
    assert "make reproduce PROFILE=quick" not in text and "widget" not in text.split("<main")[1]


@pytest.mark.parametrize(("method", "agents"), [("sarl", "1 agent took"), ("amarl", "3 agents took")])
def test_training_on_the_toy_scenario_learns_and_reports_every_agent(method, agents):
    text = page(f"20_train_{method}")
    assert f"How a method learns: {method.upper()}" in text
    assert agents in text
    steps = int(re.search(r"took ([\d,]+) steps", text)[1].replace(",", ""))
    assert steps > 1_000, "a day of the toy scenario asks for thousands of decisions"
    assert "scenario name" in text and "toy" in text
