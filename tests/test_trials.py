"""Trials: one digest for one setting, and how each may end."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amarl_core.errors import AmarlError
from amarl_core.runs import RunFolder
from amarl_core.trials import Kind, Trial, carry_out, take, without_places
from tests.slow_trials import SQUARE, Square

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcde"), inner, max_size=3),
    max_leaves=8,
)
VALUES = st.dictionaries(st.sampled_from("abcde"), PLAIN, max_size=4)


def reordered(value):
    if isinstance(value, dict):
        return {key: reordered(item) for key, item in reversed(value.items())}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(VALUES, VALUES)
def test_equal_values_and_only_they_have_one_digest(a, b):
    assert Trial(SQUARE, a).digest == Trial(SQUARE, reordered(a)).digest
    is_same = repr(sorted_items(a)) == repr(sorted_items(b))
    assert (Trial(SQUARE, a) == Trial(SQUARE, b)) == is_same
    assert len({Trial(SQUARE, a), Trial(SQUARE, b)}) == (1 if is_same else 2)


def sorted_items(value):
    if isinstance(value, dict):
        return {key: sorted_items(value[key]) for key in sorted(value)}
    return [sorted_items(item) for item in value] if isinstance(value, list) else value


def test_what_lies_elsewhere_but_is_the_same_is_the_same_trial():
    here, there = ({"scenario": {"place": p, "digest": "ab"}, "by": [{"place": p}]} for p in ("here", "there"))
    assert without_places(here) == {"scenario": {"digest": "ab"}, "by": [{"place": "here"}]}
    assert Trial(SQUARE, here) != Trial(SQUARE, there)  # a place without a digest counts
    del here["by"], there["by"]
    assert Trial(SQUARE, here) == Trial(SQUARE, there)


def test_the_same_values_of_another_kind_are_another_trial():
    class Cube(Square):
        name = "cube"

    assert Cube().trial(n=2) != SQUARE.trial(n=2)


def test_a_trial_can_be_sent_to_another_process():
    trial = SQUARE.trial(n=3, after=2)
    received = pickle.loads(pickle.dumps(trial))
    assert received == trial and received.needs == (SQUARE.trial(n=2),) and str(received) == "square n=3"


def test_an_unknown_or_missing_key_lists_the_valid_ones():
    with pytest.raises(AmarlError, match="a square trial: unknown key 'm'; the valid ones are n, seconds, does, after"):
        SQUARE.trial(n=1, m=2)
    with pytest.raises(AmarlError, match="'n' is missing"):
        SQUARE.trial()
    assert take({"b": 2}, {"a": 1, "b": ...}, "x") == {"a": 1, "b": 2}


def test_a_trial_ends_finished_and_stays_so(tmp_path):
    trial = SQUARE.trial(n=7)
    ended, again = carry_out(trial, tmp_path), carry_out(trial, tmp_path)
    assert (ended.status, ended.error) == ("finished", None) and ended.seconds > 0
    assert (again.status, again.seconds) == ("finished", 0.0)
    place = RunFolder(tmp_path / trial.place)
    assert trial.kind.outcome(place) == {"square": 49}
    assert place.json("trial.json") == {"kind": "square", "values": dict(trial.values)}
    assert place.json("provenance.json")["python"]


def test_a_trial_that_failed_says_why_and_is_tried_again(tmp_path, monkeypatch):
    trial = SQUARE.trial(n=7, does="fail")
    ended = carry_out(trial, tmp_path)
    assert (ended.status, ended.error) == ("failed", "AmarlError: 7 cannot be squared")
    place = RunFolder(tmp_path / trial.place)
    assert place.error == ended.error and "slow_trials.py" in (place.path / "error.txt").read_text()
    monkeypatch.setattr(Square, "measure", lambda *_: {"square": 49})
    assert carry_out(trial, tmp_path).status == "finished"
    assert not (place.path / "error.txt").exists()


def test_a_trial_that_another_process_is_doing_is_held(tmp_path):
    trial = SQUARE.trial(n=7)
    holder = RunFolder(tmp_path / trial.place).start({})
    assert carry_out(trial, tmp_path).status == "held" and holder.status == "running"


def test_a_trial_that_another_process_finished_meanwhile_is_finished(tmp_path, monkeypatch):
    """It is finished between our look and our start, which refuses to overwrite it."""
    trial = SQUARE.trial(n=7)
    real = Square.run

    def run(self, trial, study):
        RunFolder(study / trial.place).start({}).finish()
        real(self, trial, study)

    monkeypatch.setattr(Square, "run", run)
    assert carry_out(trial, tmp_path).status == "finished"


def test_a_trial_that_is_interrupted_is_stopped(tmp_path, monkeypatch):
    def measure(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Square, "measure", measure)
    trial = SQUARE.trial(n=7)
    assert carry_out(trial, tmp_path).status == "stopped"
    assert RunFolder(tmp_path / trial.place).status == "stopped"


def test_a_kind_that_does_nothing_is_told_so(tmp_path):
    class Idle(Kind):
        name = "idle"

        def resolve(self, given):
            return dict(given)

        def label(self, values):
            return {}

    assert "neither measure nor run" in carry_out(Idle().trial(), tmp_path).error
