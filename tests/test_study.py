"""The study: every step once, in processes of its own; what is finished is loaded, the rest is done."""

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from test_rollout import stop_soon

from amarl_core import actor_gain, study
from amarl_core.agents import train
from amarl_core.audit import audit
from amarl_core.baselines import RULES
from amarl_core.config import METHODS
from amarl_core.disruption_records import load_disruptions
from amarl_core.disruptions import DISRUPTED_RULES
from amarl_core.errors import RunError
from amarl_core.failures import read_failures
from amarl_core.forms import FORMS
from amarl_core.late_news import AGES_S
from amarl_core.overlays import known_overlays
from amarl_core.perf_records import FRAMES, load_performance
from amarl_core.performance import PLANS
from amarl_core.records import load_study
from amarl_core.robustness import COMPARED_RULES
from amarl_core.runs import RunFolder, read_frame, read_json, record_name, write_frame
from amarl_core.scenario import OVERLAYS_FOLDER, load_scenario
from amarl_core.steps import VARIANTS
from amarl_core.study import PROFILES, run_study
from amarl_core.teams import load_run
from amarl_core.victims import batch_results, differences

DAYS = ["test-weekday", "test-weekend"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The smoke study, done once; one unfinished run without a checkpoint lies in its way, and one with it."""
    root = tmp_path_factory.mktemp("runs")
    broken = RunFolder(root / "smoke" / "amarl" / "seed=0").start({"left": "behind"})
    broken.save_json("timing.json", {"train_s": -1})
    broken._lock.release()  # as if its process had been killed
    stopped = train(load_scenario("toy"), "sarl", 0, folder=root / "smoke" / "sarl" / "seed=0", days=2,
                    on_start=lambda training: stop_soon(training.simulation))  # fmt: skip
    assert stopped.status == "stopped"
    return run_study("smoke", root=root)


def no_processes(*_, **__):
    raise AssertionError("a step was run again")


def test_a_study_has_all_its_records(done, toy):
    info = read_json(done / "study.json")
    assert (info["profile"], info["scenario"], info["digest"]) == ("smoke", "toy", toy.digest)
    assert info["test_days"] == DAYS and info["seeds"] == [0] and info["seconds"] > 0
    for method in METHODS:
        run = done / method / "seed=0"
        assert read_json(run / "status.json")["status"] == "finished"
        for day in DAYS:
            for variant in VARIANTS:
                n = len(toy.test_trace(day))
                assert len(read_frame(run / record_name("decisions", day, variant))) == n
                assert len(read_frame(run / record_name("ledger", day, variant))) > n
    for rule in RULES:
        for day in DAYS:
            assert (done / "baselines" / rule / record_name("decisions", day)).exists()
            assert (done / "baselines" / rule / record_name("moves", day)).exists() == (rule == "reoptimise")
    stock = read_json(done / "stock.json")
    assert stock["env_steps"] >= 512 and stock["steps_per_s"] > 0


def test_an_unfinished_run_is_done_again_from_the_start(done, toy):
    run = load_run(done / "amarl" / "seed=0", toy)
    assert run.timing["train_s"] > 0 and run.config.days == 2


def test_an_unfinished_run_with_a_checkpoint_goes_on(done, toy):
    timing = read_json(done / "sarl" / "seed=0" / "timing.json")
    assert (timing["resumed"], timing["checkpoints"]) == (1, 1)
    assert timing["requests"] == len(toy.training_trace(seed=0, days=2))
    assert load_run(done / "amarl" / "seed=0", toy).timing["resumed"] == 0


def test_the_cost_of_the_live_view_was_measured_in_pairs(done):
    rows = read_frame(done / "live_cost.parquet")
    assert rows["view"].value_counts().to_dict() == {view: PROFILES["smoke"].repeats for view in (True, False)}
    assert (rows["train_s"] > 0).all() and (rows["view_s"] > 0).eq(rows["view"]).all()


def test_actors_by_load_were_compared_on_a_skewed_mix(done):
    rows = read_frame(done / "actors.parquet")
    assert rows["form"].value_counts().to_dict() == dict.fromkeys(actor_gain.FORMS, 1)
    assert rows["violations"].sum() == 0 and (rows["train_s"] > 0).all()


def test_days_that_went_wrong_were_served_and_audited_without_a_finding(done):
    failures, telemetry, locks = (load_disruptions(done, kind) for kind in ("failures", "telemetry", "locks"))
    methods = {*METHODS, *DISRUPTED_RULES}
    assert set(failures["method"]) == set(telemetry["method"]) == methods
    assert len(failures) == len(methods) * len(read_failures()) and len(telemetry) == len(methods) * len(AGES_S)
    assert failures[["violations", "audit_violations"]].to_numpy().sum() == telemetry["violations"].sum() == 0
    assert (failures["dropped"] >= failures["restored"]).all() and failures["dropped"].sum() > 0
    assert set(locks["order"]) == {"free", "arrival"} and locks["repeat"].nunique() == PROFILES["smoke"].repeats


def test_where_the_time_goes_was_measured_in_full(done):
    measured = load_performance(load_study(done))
    plan = PLANS["smoke"]
    assert set(measured.frames) == set(FRAMES) and measured.limits["gflops"]["shapes_1"] > 0
    assert set(measured["services"]["n_services"]) == set(plan.services)
    assert set(measured["peers"]["peer"]) == set(plan.peers)
    totals = measured["phases"].groupby(["method", "agent"])["seconds"].sum()
    train_s = measured["phases"].groupby(["method", "agent"])["train_s"].first()
    assert totals.to_numpy() == pytest.approx(train_s.to_numpy(), rel=1e-6)


def test_every_run_of_the_study_was_audited_without_a_finding(done, toy):
    audits = read_frame(done / "audits.parquet")
    assert audits["violations"].sum() == 0
    tested = {(row.method, row.day, row.variant) for row in audits.itertuples()}
    assert tested == ({(method, day, variant) for method in METHODS for day in DAYS for variant in VARIANTS}
                      | {(method, "train", "train") for method in METHODS}
                      | {(rule, day, "arrival3") for rule in RULES for day in DAYS})  # fmt: skip
    assert (audits["requests"] > 1000).all()
    place = done / "amarl" / "seed=0"
    report = audit(toy, read_frame(place / record_name("decisions", DAYS[0], "free3")),
                   read_frame(place / record_name("ledger", DAYS[0], "free3")),
                   toy.test_trace(DAYS[0]), "free")  # fmt: skip
    row = audits.query("method == 'amarl' and day == @DAYS[0] and variant == 'free3'").iloc[0]
    assert (row["admissions"], row["overbooked"]) == (report.admissions, report.overbooked)


def test_both_methods_were_timed_in_pairs(done):
    duel = read_frame(done / "duel.parquet")
    assert {"repeat", "method", "seed", "order", "test_s", "cpu_s"} <= set(duel.columns)
    repeats = PROFILES["smoke"].repeats
    assert duel.groupby(["order", "method"]).size().to_dict() == {
        (order, method): repeats for order in ("arrival", "free") for method in METHODS
    }
    assert (duel["test_s"] > 0).all()


def test_every_rejection_of_the_study_has_a_verdict(done):
    verdicts = read_frame(done / "verdicts.parquet")
    judged = verdicts.groupby(["method", "day", "variant"])["requests"].sum()
    audits = read_frame(done / "audits.parquet").set_index(["method", "day", "variant"])
    rejected = (audits["requests"] - audits["admissions"]).drop("reoptimise", level="method")
    for key, number in rejected.drop("train", level="variant").items():
        assert judged.get(key, 0) == number, key


def test_forms_and_sweep_were_audited_without_a_finding(done):
    forms, sweep = read_frame(done / "forms.parquet"), read_frame(done / "asynchrony.parquet")
    assert set(forms["form"]) == set(FORMS)
    assert forms["violations"].sum() == sweep["violations"].sum() == 0
    assert (forms.loc[forms["form"] == "amarl-sync", "idle_s"] > 0).all()


def test_every_shift_was_served_by_everybody_without_a_finding(done):
    shifts = read_frame(done / "robustness.parquet")
    everybody = {*METHODS, *COMPARED_RULES}
    for overlay in ("ordinary", *known_overlays(OVERLAYS_FOLDER, "toy")):
        for day in DAYS:
            part = shifts[(shifts["overlay"] == overlay) & (shifts["day"] == day)]
            assert set(part["method"]) == everybody
    assert shifts["violations"].sum() == 0 and shifts["violations"].notna().any()
    assert len(read_frame(done / "robustness_drift.parquet")) and len(read_frame(done / "robustness_sizes.parquet"))


def test_every_mask_was_compared(done):
    masks = read_frame(done / "masks.parquet")
    assert set(masks["mask"]) == {"immediate", "delay", "reachable"}
    assert set(masks["method"]) == set(METHODS)


def test_no_method_is_above_the_bound(done):
    audits = read_frame(done / "audits.parquet").query("variant == 'arrival3'")
    for day in DAYS:
        bound = read_frame(done / "bounds" / f"{day}.parquet").set_index("weight").loc["requests", "upper"]
        reached = audits[audits["day"] == day]
        assert (reached["admissions"] / reached["requests"] <= bound).all()


def test_a_second_study_loads_and_repeats_nothing(done, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", no_processes)
    files = {path: path.stat().st_mtime_ns for path in done.rglob("*.parquet")}
    for name in ("audits", "verdicts", "forms"):  # put together again from the parts
        files.pop(done / f"{name}.parquet")
    before = read_json(done / "study.json")
    assert run_study("smoke", root=done.parent, at_paper=no_processes) == done
    assert read_json(done / "study.json")["seconds_to_paper"] == before["seconds_to_paper"] < before["seconds"]
    assert {path: path.stat().st_mtime_ns for path in files} == files


CHANGES = [dict(seeds=(0, 1)), dict(choices=dict(days=3)), dict(n_test_days=1)]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_study_with_other_settings_is_refused_and_left_alone(done, tmp_path, monkeypatch, change):
    monkeypatch.setattr(subprocess, "Popen", no_processes)
    monkeypatch.setitem(PROFILES, "smoke", replace(PROFILES["smoke"], **change))
    with pytest.raises(RunError, match=next(iter(change)).replace("n_test", "test")) as error:
        run_study("smoke", root=done.parent)
    assert "delete the folder" in str(error.value)
    monkeypatch.setattr(study, "_together", lambda steps: no_processes())
    with pytest.raises(AssertionError, match="run again"):
        run_study("smoke", name="another", root=tmp_path)  # under another name it may begin


def test_an_unknown_profile_is_refused_with_the_valid_ones(tmp_path):
    with pytest.raises(RunError, match="'fast'.*full, quick, smoke"):
        run_study("fast", root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_step_that_fails_ends_the_study_and_says_which(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "_command", lambda step, folder, *_: ["false"])
    with pytest.raises(RunError, match="step 'train .*--method=sarl --seed=0' failed with code 1"):
        run_study("smoke", root=tmp_path)


def test_a_step_that_fails_ends_those_beside_it(monkeypatch):
    started, popen = [], subprocess.Popen

    def remember(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", remember)
    monkeypatch.setattr(study, "_command", lambda step, *_: ["sleep", "60"] if step == "slow" else ["false"])
    with pytest.raises(RunError, match="'bad"):
        study._together([("slow", "x"), ("bad", "x"), ("never", "x")])
    assert len(started) == 2 and all(process.poll() is not None for process in started)


def test_a_relative_root_is_where_the_caller_stands(tmp_path, monkeypatch):
    """Steps run in the project's folder, so they must be told the whole path."""
    monkeypatch.chdir(tmp_path)
    seen = []

    def step(name, folder, *_):
        seen.append(study._command(name, folder)[4])
        raise StopIteration

    monkeypatch.setattr(study, "_step", step)
    with pytest.raises(StopIteration):
        run_study("smoke", root="here")
    assert seen == [str(tmp_path / "here" / "smoke")]


def test_the_paper_comes_first_and_its_pages_once(done, tmp_path, monkeypatch):
    """The rest of the study is not there yet when the pages of the paper are made, and a call that only does the rest
    does not make them again; the seconds of a call that failed count."""
    folder, steps, shown = shutil.copytree(done, tmp_path / "smoke"), [], []
    monkeypatch.setitem(PROFILES, "smoke", replace(PROFILES["smoke"], apart=True))
    for name in ("duel", "audits_seed=0", "masks", "robustness"):
        (folder / f"{name}.parquet").rename(folder / f"{name}.kept")

    def pretend(named):
        for step, *_ in named:
            steps.append(step)
            if step == "masks":
                raise RunError("the machine is switched off")
            name = "audits_seed=0" if step == "test" else step
            (folder / f"{name}.kept").rename(folder / f"{name}.parquet")

    monkeypatch.setattr(study, "_together", pretend)
    before = read_json(folder / "study.json")["seconds"]

    def show(place):
        shown.append((place, list(steps)))
        time.sleep(1.0)

    with pytest.raises(RunError, match="switched off"):
        run_study("smoke", root=tmp_path, at_paper=show)
    assert shown == [(folder.resolve(), ["duel", "test"])] and steps[-1] == "masks"
    stopped = read_json(folder / "study.json")
    assert before < stopped["seconds_to_paper"] <= stopped["seconds"] < stopped["seconds_to_paper"] + 1.0
    steps.clear()
    monkeypatch.setattr(study, "_together", lambda named: steps.extend(step for step, *_ in named))
    run_study("smoke", root=tmp_path, at_paper=no_processes)
    assert steps == ["masks", "robustness"]
    assert read_json(folder / "study.json")["seconds_to_paper"] == stopped["seconds_to_paper"]


def test_what_kills_must_not_change_of_a_study_is_known_whatever_its_trials_are_called(done, tmp_path):
    """The digest of a trial is that of AMARL's run among others, which no two studies share."""
    folder = shutil.copytree(done, tmp_path / "smoke")
    for number, trial in enumerate(sorted((folder / "shifts" / "shift").iterdir(), reverse=True)):
        trial.rename(trial.with_name(f"{number:012x}"))
    expected = batch_results(done.parent)
    assert differences(batch_results(tmp_path), expected) == []
    next(folder.glob("shifts/shift/*/outcome.json")).unlink()
    shifts = read_frame(folder / "robustness.parquet")
    shifts.loc[shifts["method"] == "sarl", "accepted"] += 1
    write_frame(folder / "robustness.parquet", shifts)
    assert differences(batch_results(tmp_path), expected) == ["files", "shifts"]


def test_a_run_that_is_deleted_is_trained_timed_and_tested_again(done, tmp_path, monkeypatch):
    """What is left of the old run's timings and audits is not taken for the new one's."""
    folder = shutil.copytree(done, tmp_path / "smoke")
    shutil.rmtree(folder / "sarl" / "seed=0")
    steps = []
    monkeypatch.setattr(study, "_together", steps.extend)
    run_study("smoke", root=tmp_path)
    # nothing is really done, so that steps that are timed are asked for in both parts of the study
    assert list(dict.fromkeys((step, *options) for step, _, *options in steps)) == [
        ("train", "--method=sarl", "--seed=0"),
        ("several", "--part=duel,asynchrony,reaction"),
        ("test", "--seed=0"),
        ("disrupt", "--part=all"),
        ("robustness",),
    ]
    assert read_frame(folder / "audits.parquet")["method"].isin(RULES).all()


def test_ctrl_c_leaves_a_step_the_time_to_save(tmp_path, monkeypatch):
    """The terminal sends SIGINT to the step as well, which here takes a while to write what it has."""
    code = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
place = pathlib.Path(sys.argv[1])
try:
    (place / "begun").touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    (place / "saved").touch()
"""
    started, popen, sleep = [], subprocess.Popen, time.sleep

    def start(*arguments, **named):
        started.append(popen(*arguments, **named))
        return started[-1]

    def interrupt(seconds):
        if (tmp_path / "begun").exists():
            return sleep(seconds)  # while it waits for the step
        while not (tmp_path / "begun").exists():
            sleep(0.01)
        started[-1].send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "_command", lambda step, folder: [sys.executable, "-c", code, str(folder)])
    monkeypatch.setattr(study.subprocess, "Popen", start)
    monkeypatch.setattr(study.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        study._together([("train", tmp_path)])
    assert (tmp_path / "saved").exists() and started[-1].returncode == 0
