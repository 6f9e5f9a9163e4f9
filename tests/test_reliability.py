"""The soak notices what it is there for; kills leave files whole, and the harness notices when they do not."""

import io
import json
import time
import zipfile

import numpy as np
import pandas as pd
import pytest

from amarl_core import kills, soak, victims
from amarl_core.audit import AuditReport
from amarl_core.errors import RunError
from amarl_core.files import beside, write_text
from amarl_core.integrity import damaged, files_below, half_written
from amarl_core.kills import Tally, kill_often
from amarl_core.policy import save_model
from amarl_core.reliability import (
    FEWEST_ROUNDS,
    KILLS_RECORD,
    SOAK_RECORD,
    WARM_UP,
    growth,
    kills_summary,
    kills_table,
    soak_summary,
    soak_table,
)
from amarl_core.runs import read_frame, write_frame, write_json
from amarl_core.victims import RESULTS, VICTIMS, differences


# --------------------------------------------------------------------------------------------------- the soak
def rounds(n: int, memory=lambda i: 900.0, **last) -> pd.DataFrame:
    """Invent the record of n rounds of a minute each, the last with some values of its own."""
    rows = [
        {"round": i, "seed": 100_000 + i, "scenario": "toy", "days": 2, "elapsed_s": 60.0 * (i + 1),
         "rss_mb": memory(i), "python_threads": 1, "native_threads": 4, "files": 6, "violations": 0, "broken": "",
         "audits": 3,
         "requests": 1000, "steps": 2000, "gos_arrival": 0.98, "gos_free": 0.98, "train_s": 1.0, "test_s": 1.0}
        for i in range(n)
    ]  # fmt: skip
    rows[-1] |= last
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (dict(violations=2, broken="capacity: 2"), r"round 9 \(seed 100009\) breaks rules of the audit:\ncapacity: 2"),
        (dict(python_threads=2), "left something behind: python threads 2, at most 1"),
        (dict(native_threads=5), "left something behind: native threads 5, at most 4"),
        (dict(files=7), "left something behind: files 7, at most 6"),
        (dict(rss_mb=1400.0), "memory grows: 1400 MB after round 9, at most 900 MB"),
    ],
)
def test_a_round_that_breaks_a_rule_or_leaves_something_behind_ends_the_soak(last, words):
    soak.check_round(rounds(10))
    with pytest.raises(RunError, match=words):
        soak.check_round(rounds(10, **last))


def test_a_violation_counts_in_the_warm_up_too_and_threads_do_not():
    with pytest.raises(RunError, match="breaks rules"):
        soak.check_round(rounds(2, violations=1))
    soak.check_round(rounds(2, native_threads=9))


def test_a_slope_is_found_whatever_single_rounds_say():
    """A leak of 2 MB a round under noise, with three wild rounds: the fit sees 120 MB an hour."""
    noise = np.random.default_rng(0).normal(0, 3, 80)
    noise[[20, 40, 60]] += 300
    leaking = growth(rounds(80, lambda i: 900 + 2.0 * i + noise[i]))
    assert leaking.mb_per_hour[0] == pytest.approx(120, abs=6) and not leaking.is_flat
    assert leaking.mb_per_hour[1] < 120 < leaking.mb_per_hour[2] and "+1" in leaking.sentence()
    flat = growth(rounds(80, lambda i: 900 + noise[i]))
    assert flat.is_flat and flat.mb_per_hour[1] < 0 < flat.mb_per_hour[2]


def test_next_to_nothing_counts_as_flat_and_few_rounds_prove_nothing(tmp_path):
    assert growth(rounds(60, lambda i: 900 + 0.1 * i)).is_flat, "5 MB in all, of 900"
    assert not growth(rounds(60, lambda i: 900 + 1.0 * i)).is_flat
    few = rounds(WARM_UP + FEWEST_ROUNDS - 1)
    assert growth(few).is_flat
    write_frame(tmp_path / SOAK_RECORD, few)
    assert soak_summary(tmp_path)["memory_flat"] is False, "not shown"


def test_the_summary_of_a_soak_is_that_of_its_rounds(tmp_path):
    write_frame(tmp_path / SOAK_RECORD, rounds(30))
    about = soak_summary(tmp_path)
    assert (about["hours"], about["rounds"], about["audits"], about["violations"]) == (0.5, 30, 90, 0)
    assert about["memory_flat"] and about["threads"] == [4, 4] and about["requests"] == 30_000
    shown = soak_table(tmp_path).markdown()
    assert "0.50" in shown and "0 in 90 runs" in shown
    json.dumps(about, allow_nan=False)


def test_what_was_not_run_says_how_to_run_it(tmp_path):
    assert soak_summary(tmp_path) is None and kills_summary(tmp_path) is None
    assert "amarl_core.soak" in soak_table(tmp_path).text and "amarl_core.kills" in kills_table(tmp_path).text


def test_a_soak_trains_serves_audits_and_writes_as_it_goes(toy, tmp_path, monkeypatch):
    """Two rounds of one day, then Ctrl-C: what it has is kept, and its own folder of work is gone."""
    works, seen = soak.one_round, []

    def stopped(scenario, seed, days, place):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(works(scenario, seed, days, place))
        return seen[-1]

    monkeypatch.setattr(soak, "one_round", stopped)
    rows = soak.soak("toy", 1.0, tmp_path, days=1)
    assert rows.equals(read_frame(tmp_path / SOAK_RECORD)) and len(rows) == 2
    assert rows["audits"].tolist() == [3, 3] and not rows["violations"].any()
    assert rows["seed"].is_unique and rows["requests"].min() > 3000 and rows["steps"].min() > 1000
    assert [path.name for path in tmp_path.iterdir()] == [SOAK_RECORD]


def test_a_violation_in_any_audit_of_a_round_ends_the_soak(toy, tmp_path, monkeypatch):
    works, calls = soak.audit, []

    def broken(*arguments, **named) -> AuditReport:
        report = works(*arguments, **named)
        calls.append(named["order"])
        if len(calls) == 3:
            report.count["capacity"] = 1
            object.__setattr__(report, "violations", pd.DataFrame(
                [{"rule": "capacity", "row": 0, "request_id": 1, "detail": "made up"}]))  # fmt: skip
        return report

    monkeypatch.setattr(soak, "audit", broken)
    with pytest.raises(RunError, match="round 0 .*breaks rules(.|\n)*made up"):
        soak.soak("toy", 1.0, tmp_path, days=1)
    assert calls == ["free", "arrival", "free"]
    assert read_frame(tmp_path / SOAK_RECORD)["violations"].tolist() == [1], "it is written before it is judged"


# ------------------------------------------------------------------------------------------------ whole or absent
def test_each_kind_of_file_is_read_to_its_end(tmp_path, toy_team):
    """Every kind that is written, whole, and then cut at several places: the reader notices each cut."""
    write_json(tmp_path / "a.json", {"x": [1, 2, 3]})
    write_frame(tmp_path / "a.parquet", pd.DataFrame({"x": np.arange(1000)}))
    np.savez(tmp_path / "a.npz", x=np.arange(1000))
    write_text(tmp_path / "a.html", "<!DOCTYPE html>\n<html><body>" + "<p>text</p>" * 50 + "</body></html>\n")
    write_text(tmp_path / "a.csv", "t_s,hold_s\n" + "1,2\n" * 50)
    save_model(toy_team.models[0], tmp_path, "agent", toy_team.config, toy_team.scenario)
    assert damaged(tmp_path) == [] and len(files_below(tmp_path)) == 7
    for path in files_below(tmp_path):
        whole = path.read_bytes()
        for cut in (0, 1, len(whole) // 2, len(whole) - 2):
            path.write_bytes(whole[:cut])
            assert len(damaged(tmp_path)) == 1 and path.name in damaged(tmp_path)[0], (path.name, cut)
        path.write_bytes(whole)
    write_text(tmp_path / "a.xyz", "what is this?")
    assert "no check knows" in damaged(tmp_path)[0]


def test_weights_that_are_a_pickle_are_no_weights(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("policy.pth", b"not tensors")
    (tmp_path / "a.zip").write_bytes(content.getvalue())
    assert "not the weights" in damaged(tmp_path)[0]


def test_files_in_the_making_and_locks_are_passed_over(tmp_path):
    beside(tmp_path / "a.json").write_text("{")
    folder = beside(tmp_path / "scenario")
    folder.mkdir()
    (folder / "half.csv").write_text("t_s")
    (tmp_path / ".lock").write_text("")
    assert damaged(tmp_path) == [] and files_below(tmp_path) == [] and len(half_written(tmp_path)) == 2


# ------------------------------------------------------------------------------------------------------- kills
@pytest.mark.parametrize("kind", ["train"])
def test_kills_at_random_moments_leave_whole_files_and_change_no_result(tmp_path, monkeypatch, kind):
    """Two kills of each, seeded; `python -m amarl_core.kills` does fifty, and a whole study and pages too."""

    def end_here(kind, place):  # those that are not killed need no process of their own
        place.mkdir(exist_ok=True)
        monkeypatch.setattr(victims, "say_begun", lambda: begun.append(time.perf_counter()))
        VICTIMS[kind](place)
        return time.perf_counter() - begun[-1]

    begun = []
    monkeypatch.setattr(kills, "_let_end", end_here)
    tally = kill_often(kind, 2, tmp_path, np.random.default_rng(3))
    assert tally.kills == 2 and tally.ends >= 1
    assert tally.damaged == [] and tally.different == []


def test_the_harness_notices_half_files_and_other_results(tmp_path, monkeypatch):
    """A stand-in for a victim: each start leaves half a JSON, each end another result."""
    ends = iter(range(10))

    def end(kind, place):
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / "a.json", {"x": next(ends)})
        return 1.0

    def kill(kind, place, after_s, tally):
        tally.kills += 1
        place.mkdir(parents=True, exist_ok=True)
        (place / "a.json").write_text("{")
        tally.damaged += damaged(place)

    monkeypatch.setattr(kills, "_let_end", end)
    monkeypatch.setattr(kills, "_kill_one", kill)
    monkeypatch.setitem(RESULTS, "train", lambda folder: json.loads((folder / "a.json").read_text()))
    tally = kill_often("train", 3, tmp_path, np.random.default_rng(0))
    assert len(tally.damaged) == 3 and tally.different == ["train: x"] and not tally.is_clean


def test_results_differ_to_the_bit():
    frame = pd.DataFrame({"x": [1.0, np.nan]})
    expected = {"a": frame, "b": np.array([0.0, 1.0]), "c": "text", "d": ["x"]}
    assert differences(dict(expected, a=frame.copy()), expected) == []
    assert differences(dict(expected, b=np.array([-0.0, 1.0])), expected) == ["b"], "another sign of zero"
    assert differences(dict(expected, a=frame.assign(y=1)), expected) == ["a"]
    assert differences({"a": frame, "c": "text"}, expected) == ["b", "d"]
    assert VICTIMS.keys() == RESULTS.keys()


def test_a_victim_that_fails_is_an_error_and_not_a_result(tmp_path, capfd):
    (tmp_path / "train").write_text("a file where the folder should be")
    assert victims.main(["train", str(tmp_path / "train" / "below")]) == 2
    assert capfd.readouterr().err.count("\n") <= 2, "one line, no traceback"


def test_the_summary_of_kills_adds_up(tmp_path):
    tallies = {"train": Tally(3, 1, 2.5, [1.0] * 3, 40, 2), "batch": Tally(2, 1, 60.0, [9.0] * 2, 300, 1, ["a: half"])}
    record = {"times": 5, "seed": 0, "seconds": 99.0, "kinds": {k: t.__dict__ for k, t in tallies.items()}}
    write_json(tmp_path / KILLS_RECORD, record)
    expected = {"kills": 5, "files": 340, "left": 3, "damaged": 1, "different": 0, "by_kind": {"train": 3, "batch": 2}}
    assert kills_summary(tmp_path) == expected
    assert "smoke study" in kills_table(tmp_path).markdown()
