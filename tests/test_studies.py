"""Studies: settings as data, read with care, and the table of what was found."""

import pytest

from amarl_core import batch
from amarl_core.errors import AmarlError, RunError
from amarl_core.findings import matrix
from amarl_core.studies import Study, find_kind, grid, known_studies, outcomes, read_study
from amarl_core.trial_kinds import SERVE
from amarl_core.worklist import run
from tests.slow_trials import SQUARE, squares


def write(folder, text, name="mine"):
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_a_grid_is_the_product_of_its_lists(toy):
    trials = grid(SERVE, scenario="toy", by=["amarl", "priced"], seed=range(2), train={"days": [1, 2]}, day="held-out")
    n_days = len(toy.test_days)
    assert len(trials) == 2 * 2 * 2 * n_days
    study = Study("mine", "", tuple(trials))
    kinds = [trial.kind.name for trial in study.trials]
    assert kinds.count("train") == 2 * 2 and kinds.count("serve") == 2 * 2 * n_days + n_days  # a rule has no seed
    for place, trial in enumerate(study.trials):
        assert all(study.trials.index(need) < place for need in trial.needs)


def test_the_studies_that_come_with_the_project_are_valid():
    assert {"tiny", "seeds"} <= set(known_studies())
    for name in known_studies():
        study = read_study(name)
        assert study.name == name and study.question.endswith("?") and study.trials
    seeds = [trial.kind.name for trial in read_study("seeds").trials]
    assert seeds.count("train") == 20 and seeds.count("serve") == 22 * 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question = ", "mine.toml: not valid TOML"),
        ("question = 'x'", "mine.toml: 'trials' is missing; the valid ones are question, trials"),
        ("question = 'x'\ntrials = []\nseeds = 3", "unknown key 'seeds'"),
        ("question = 'x'\ntrials = 3", "mine.toml: trials is 3; expected blocks"),
        ("question = 'x'\n[[trials]]\nby = 'x'", "mine.toml, block 1 of trials: kind is None; expected one of train"),
        ("question = 'x'\n[[trials]]\nkind = 'nope:NAME'", "cannot be imported"),
        ("question = 'x'\n[[trials]]\nkind = 'amarl_core.trials:log'", "module:NAME of a Kind"),
        (
            "question = 'x'\n" + 2 * "[[trials]]\nkind = 'train'\nscenario = 'toy'\n" + "dais = 1",
            "block 2 of trials: a train trial: unknown key 'dais'",
        ),
        ("question = 'x'\n[[trials]]\nkind = 'train'\nscenario = 'toy'\nseed = []", "seed is an empty list"),
        (
            "question = 'x'\n[[trials]]\nkind = 'train'\nscenario = 'nowhere'",
            "block 1 of trials: scenario is 'nowhere'",
        ),
    ],
)
def test_a_file_that_is_not_valid_is_refused_with_the_block(tmp_path, text, message):
    with pytest.raises(AmarlError, match=message):
        read_study(write(tmp_path, text))


def test_a_kind_of_another_module_is_named_by_its_module(tmp_path):
    assert find_kind("tests.slow_trials:SQUARE") is SQUARE
    study = read_study(write(tmp_path, 'question = "?"\n[[trials]]\nkind = "tests.slow_trials:SQUARE"\nn = [1, 2]'))
    assert study.trials == squares([1, 2])


def test_a_study_that_is_not_there_lists_those_that_are():
    with pytest.raises(AmarlError, match="there is no study 'nothing'; expected one of .*tiny"):
        read_study("nothing")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_a_name_that_is_no_folder_is_refused(name):
    with pytest.raises(AmarlError, match="expected the name of a folder"):
        Study(name, "", ())


def test_outcomes_have_a_row_a_finished_trial_and_a_column_for_what_tells_trials_apart(tmp_path):
    study = Study("mine", "", (*squares([1, 2], seconds=0.0), *squares([2], seconds=0.001)))
    with pytest.raises(RunError, match="no finished square trial"):
        outcomes(study, "square", tmp_path)
    run(Study("mine", "", study.trials[1:]), tmp_path, jobs=0)
    frame = outcomes(study, "square", tmp_path)
    assert list(frame.columns) == ["n", "seconds", "digest", "square"]
    assert frame["square"].tolist() == [4, 4] and frame["seconds"].tolist() == [0.0, 0.001]
    assert frame["digest"].tolist() == [trial.digest for trial in study.trials[1:]]
    assert "seconds" not in outcomes(Study("mine", "", study.trials[:2]), "square", tmp_path)


def test_the_command_lists_studies_does_one_and_reports_what_failed(tmp_path, capsys):
    text = 'question = "?"\n[[trials]]\nkind = "tests.slow_trials:SQUARE"\nn = [1, 2]\ndoes = "{}"'
    good, bad = write(tmp_path, text.format("end"), "good"), write(tmp_path, text.format("fail"), "bad")
    options = ["--jobs", "0", "--reports", str(tmp_path)]
    assert batch.main(["study", "--reports", str(tmp_path)]) == 0
    assert "tiny" in capsys.readouterr().out
    assert batch.main(["study", str(good), *options]) == 0
    assert "2 of 2 trials finished" in capsys.readouterr().out
    assert batch.main(["study", str(bad), *options]) == 1
    said = capsys.readouterr().out
    assert "0 of 2 trials finished" in said and "failed: square n=2" in said and "2 cannot be squared" in said
    assert batch.main(["study", "nothing", *options]) == 2
    assert "there is no study 'nothing'" in capsys.readouterr().err


def test_the_tiny_study_finds_what_it_asks_for(tmp_path):
    """A quarter of it: one seed of AMARL and both rules."""
    tiny = read_study("tiny")
    wanted = [t for t in tiny.trials if t.label["policy"] != "sarl" and t.label["seed"] in (0, None)]
    assert run(Study("tiny", tiny.question, tuple(wanted)), tmp_path, jobs=0).ok
    frame = outcomes(tiny, root=tmp_path)
    assert len(frame) == 2 + 2 * 2 and (frame["violations"] == 0).all() and frame["gos"].between(0.5, 1).all()
    assert list(frame.columns[:7]) == ["scenario", "policy", "seed", "day", "order", "attempts", "digest"]
    assert matrix(frame, policy="amarl").shape == matrix(frame, policy="priced_admission").shape == (1, 2)
    by_service = [column for column in frame.columns if column.startswith("gos_by_service.")]
    assert len(by_service) == 3
