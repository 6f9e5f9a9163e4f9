"""The command line: mistakes are refused before anything runs, and pages come from notebooks run afresh."""

import nbformat
import pytest
from fake_study import shared_pages, shared_study

from amarl_core import batch, study
from amarl_core.errors import RunError
from amarl_core.runs import read_json


@pytest.fixture
def own_notebooks(tmp_path, monkeypatch):
    """A folder of notebooks with one that works, `10_try`, and one that fails, `11_fail`."""
    for name, source in {"10_try": "print(days * 2)", "11_fail": "raise ValueError('no such thing')"}.items():
        notebook = nbformat.v4.new_notebook()
        notebook.cells = [
            nbformat.v4.new_markdown_cell("# A try\n\n**Question.** Does it\nwork?\n\n**Answer.** Below."),
            nbformat.v4.new_code_cell('days = 2  # days\nname = "x"\nfast = False', metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(source),
        ]
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(batch, "NOTEBOOKS", tmp_path)
    return tmp_path


def test_an_unknown_notebook_is_refused_with_the_known_ones(capsys):
    assert batch.main(["run", "31_gos"]) == 2
    assert "no notebook '31_gos'; expected one of " in (told := capsys.readouterr().err)
    assert "20_train, 30_gos_curves" in told


def test_an_unknown_parameter_is_refused_with_the_valid_ones_and_their_defaults(capsys):
    assert batch.main(["run", "30_gos_curves", "-p", "stduy", "quick"]) == 2
    message = capsys.readouterr().err
    assert "no parameter 'stduy'" in message and "study = 'full', interactive = False, smoke = False" in message


@pytest.mark.parametrize(
    ("name", "value"), [("days", "many"), ("days", "2.5"), ("days", "true"), ("fast", "1"), ("name", "3")]
)
def test_a_value_of_another_type_is_refused(own_notebooks, name, value):
    with pytest.raises(RunError, match=f"parameter {name} is"):
        batch.check_parameters(batch.notebook_path("10_try"), {name: batch.parse_value(value)})


def test_values_are_read_as_literals_and_otherwise_as_text():
    given = {"12": 12, "0.5": 0.5, "true": True, "False": False, "quick": "quick", "a b": "a b", "'3'": "3"}
    assert {text: batch.parse_value(text) for text in given} == given


def test_parameters_and_defaults_are_read_from_the_cell():
    assert batch.notebook_parameters(batch.notebook_path("20_train")) == {
        "scenario": "montreal", "method": "amarl", "seed": 0, "days": 16, "study": "full",
        "interactive": False, "tensorboard": False, "smoke": False,
    }  # fmt: skip


def test_a_notebook_is_run_with_its_parameters_and_becomes_a_page(own_notebooks, tmp_path, capsys):
    reports = tmp_path / "reports"
    assert batch.main(["run", "10_try", "-p", "days", "21", "--reports", str(reports)]) == 0
    page = (reports / "10_try.html").read_text(encoding="utf-8")
    assert "<pre>42" in page and "batch run 10_try -p days 21" in page
    assert "10_try.html ..." in capsys.readouterr().out
    assert [path.name for path in reports.iterdir()] == ["10_try.html"], "temporary files were left behind"


def test_a_failing_cell_names_the_error_keeps_the_notebook_and_leaves_the_old_page(own_notebooks, tmp_path, capsys):
    reports = tmp_path / "reports"
    reports.mkdir()
    (reports / "11_fail.html").write_text("old")
    assert batch.main(["run", "11_fail", "--reports", str(reports)]) == 2
    assert "ValueError: no such thing" in capsys.readouterr().err
    assert (reports / "11_fail.html").read_text() == "old"
    kept = nbformat.read(reports / "11_fail.failed.ipynb", as_version=4)
    assert any(output.output_type == "error" for cell in kept.cells for output in cell.get("outputs", []))


def test_a_kernel_that_dies_is_an_error_with_its_last_words(own_notebooks, tmp_path, capsys):
    path = own_notebooks / "11_fail.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].source = "import os\nos.write(2, b'farewell')\nos._exit(1)"
    nbformat.write(notebook, path)
    assert batch.main(["run", "11_fail", "--reports", str(tmp_path / "reports")]) == 2
    assert "farewell" in capsys.readouterr().err


def test_an_unknown_profile_is_refused_with_the_known_ones(capsys):
    assert batch.main(["reproduce", "--profile", "fast"]) == 2
    assert "no profile 'fast'; expected one of full, quick, smoke" in capsys.readouterr().err


def test_reproduce_writes_every_page_the_index_and_the_headline():
    names = {path.name for path in shared_pages().iterdir()}
    assert names == {
        "00_quickstart.html", "10_explore_network_and_traffic.html",
        "20_train_sarl.html", "20_train_amarl.html", "30_gos_curves.html", "40_failure_causes.html",
        "50_baselines_and_bound.html", "60_asynchrony.html", "70_robustness.html", "75_failures.html",
        "80_performance.html", "85_scale_and_reliability.html", "90_reproduce_paper.html",
        "index.html", "headline.json", "runs",
    }  # fmt: skip
    headline = read_json(shared_pages() / "headline.json")
    assert 90 < headline["amarl"]["gos_mean"] < 100
    assert headline["baselines"][headline["best_baseline"]] == max(headline["baselines"].values())
    assert sum(headline["verdicts"]["amarl"].values()) == pytest.approx(100)
    assert {"sarl", "amarl", "sarl-async", "amarl-sync"} <= set(headline["forms"])
    assert headline["masks"]["reachable"]["amarl"]["gos_mean"] > headline["masks"]["delay"]["amarl"]["gos_mean"]


def test_the_pages_of_the_paper_are_made_before_the_rest_is_measured(tmp_path, monkeypatch, capsys):
    folder, made = shared_study(), []

    def run(profile, name, root, at_paper):
        at_paper(folder)
        made.append("the rest")
        return folder

    monkeypatch.setattr(study, "run_study", run)
    monkeypatch.setattr(batch, "make_pages", lambda jobs, reports: made.append([job.notebook for job in jobs]) or [])
    batch.reproduce("quick", "quick", tmp_path)
    assert made[0] == list(batch.PAPER_PAGES) and made[1] == "the rest" and len(made[2]) > 10
    said = capsys.readouterr().out.splitlines()
    assert "beyond the paper is measured now" in said[2] and said[-1].startswith("Open ") and len(said) == 5
    assert (tmp_path / "headline.json").exists()


def test_figures_for_the_readme_are_small(tmp_path):
    written = batch.figures(str(shared_study()), tmp_path)
    assert [path.name for path in written] == ["figure_2.png", "figure_3.png", "headline.md", "targets.md"]
    assert all(1_000 < path.stat().st_size < 150_000 for path in written[:2])
    assert "AMARL against SARL" in written[2].read_text(encoding="utf-8")
    assert "| GoS of AMARL minus SARL (points) |" in written[3].read_text(encoding="utf-8")
