"""The study of the paper, from training to `headline.json`: settings -> run folders -> records that notebooks read.

Every heavy step runs in a fresh process (`python -m amarl_core.study <step> ...`), so that timings do not inherit
another step's memory, and a step whose records are complete is loaded instead of repeated.
"""

import argparse
import logging
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from amarl_core import forms
from amarl_core.agents import train, training_trace
from amarl_core.asynchrony import sweep
from amarl_core.audit import audit
from amarl_core.baselines import RULES, tuned
from amarl_core.config import METHODS
from amarl_core.errors import RunError
from amarl_core.evaluation import Played, play_trace, time_trace
from amarl_core.runs import ROOT, RunFolder, read_frame, read_json, record_name, write_frame, write_json
from amarl_core.scenario import load_scenario
from amarl_core.stock import stock_rate
from amarl_core.teams import load_run
from amarl_core.verdicts import judge, tally

log = logging.getLogger(__name__)

PROJECT = Path(__file__).resolve().parent.parent
VARIANTS = {"arrival3": ("arrival", 3), "arrival1": ("arrival", 1), "free3": ("free", 3)}
"""Commit order and attempts of each test; the headline is the first."""


@dataclass(frozen=True)
class Profile:
    """How large a study is."""

    scenario: str = "montreal"
    seeds: tuple[int, ...] = (0, 1, 2)
    n_test_days: int = 10  # half of them weekdays
    repeats: int = 7  # paired timings, in turn over the seeds
    n_timed_days: int = 10  # held-out days back to back in each timing
    stock_steps: int = 20_000
    choices: dict = field(default_factory=dict)  # of TrainConfig


PROFILES = {
    "full": Profile(),
    "quick": Profile(seeds=(0,), n_test_days=2, n_timed_days=2, choices=dict(days=4)),
    "smoke": Profile(
        scenario="toy", seeds=(0,), n_test_days=2, repeats=2, n_timed_days=2, stock_steps=512, choices=dict(days=2)
    ),
}


def run_study(profile: str, name: str | None = None, root: Path = PROJECT / ROOT) -> Path:
    """Do everything that is not done yet; return the study's folder.

    Args:
        profile: `full`, `quick` or `smoke`.
        name: of the study's folder below `root`; the profile's by default.
        root: where studies live.

    Raises:
        RunError: an unknown profile, another profile's study under this name, or a step that failed.
    """
    if profile not in PROFILES:
        raise RunError(f"unknown profile {profile!r}; the valid ones are {', '.join(PROFILES)}")
    plan, began = PROFILES[profile], time.time()
    folder = (Path(root) / (name or profile)).resolve()
    info = _begin(folder, profile, plan)
    for seed in plan.seeds:
        for method in METHODS:
            if not RunFolder(folder / method / f"seed={seed}").is_finished:
                for stale in (f"audits_seed={seed}", "duel", "asynchrony"):  # they describe another run
                    (folder / f"{stale}.parquet").unlink(missing_ok=True)
                _step("train", folder, f"--method={method}", f"--seed={seed}")
    if not (folder / "duel.parquet").exists():
        _step("duel", folder)
    if not (folder / "stock.json").exists():
        _step("stock", folder)
    for step in ("forms", "asynchrony"):  # timed as well: nothing runs beside them
        if not (folder / f"{step}.parquet").exists():
            _step(step, folder)
    _together(
        [
            ("test", folder, f"--seed={seed}")
            for seed in plan.seeds
            if not (folder / f"audits_seed={seed}.parquet").exists()
        ]
        + [("rules", folder)] * (not (folder / "baselines" / "audits.parquet").exists())
    )
    for name in ("audits", "verdicts"):
        parts = [read_frame(path) for path in sorted(folder.glob(f"{name}_seed=*.parquet"))]
        rules = read_frame(folder / "baselines" / f"{name}.parquet")
        write_frame(folder / f"{name}.parquet", pd.concat([*parts, rules], ignore_index=True))
    write_json(folder / "study.json", info | {"seconds": info.get("seconds", 0.0) + time.time() - began})
    return folder


def _begin(folder: Path, profile: str, plan: Profile) -> dict:
    """Write or check study.json; return it."""
    scenario = load_scenario(plan.scenario)
    week, end = plan.n_test_days - plan.n_test_days // 2, plan.n_test_days // 2
    days = [d for d in scenario.test_days if "weekend" not in d][:week] + [
        d for d in scenario.test_days if "weekend" in d
    ][:end]
    info = {
        "profile": profile,
        "study": folder.name,
        "seeds": list(plan.seeds),
        "test_days": days,
        "scenario": plan.scenario,
        "digest": scenario.digest,
        "repeats": plan.repeats,
        "n_timed_days": plan.n_timed_days,
        "stock_steps": plan.stock_steps,
        "choices": plan.choices,
        "command": "make reproduce" + ("" if profile == "full" else f" PROFILE={profile}"),
    }
    if (folder / "study.json").exists():
        known = read_json(folder / "study.json")
        changed = [key for key in info if known.get(key) != info[key]]
        if changed:
            raise RunError(
                f"{folder} holds a study with other settings ({', '.join(changed)}); delete the folder "
                "or give another name with --study"
            )
        return known
    info |= {"started": time.strftime("%Y-%m-%dT%H:%M:%S"), "seconds": 0.0}
    write_json(folder / "study.json", info)
    return info


def _command(step: str, folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "amarl_core.study", step, str(folder), *options]


def _step(step: str, folder: Path, *options: str) -> None:
    """Run one step in a fresh process; its log lines go to ours."""
    _together([(step, folder, *options)])


def _together(steps: list[tuple], at_most: int = 2) -> None:
    """Run steps in fresh processes, two at a time; the first failure ends the others and is raised."""
    waiting, running = list(steps), []
    try:
        while waiting or running:
            while waiting and len(running) < at_most:
                step = waiting.pop(0)
                running.append((step, subprocess.Popen(_command(*step), cwd=PROJECT)))
            time.sleep(0.1)
            for step, process in list(running):
                if process.poll() is not None:
                    running.remove((step, process))
                    if process.returncode != 0:
                        raise RunError(
                            f"step '{' '.join(map(str, step))}' failed with code {process.returncode}; "
                            "its message stands above; run the same command again to go on from here"
                        )
    finally:
        for _, process in running:
            process.terminate()
            process.wait()


# ------------------------------------------------------------------------------------------------- the steps
def train_step(folder: Path, info: dict, method: str, seed: int) -> None:
    """Train one method with one seed."""
    scenario = load_scenario(info["scenario"])
    place = folder / method / f"seed={seed}"
    log.info("training %s, seed %d", method, seed)
    run = train(scenario, method, seed, folder=place, **info["choices"])
    log.info(
        "%s seed %d: %s in %.1f s, %.0fk steps/s",
        method,
        seed,
        run.status,
        run.timing["train_s"],
        run.timing["steps_per_s"] / 1000,
    )
    if run.status != "finished":
        raise RunError(f"{place}: the run was stopped; run the same command again to repeat it")


def write_played(folder: Path, day: str, variant: str, played: Played) -> None:
    """Write the records of a served day."""
    write_frame(folder / record_name("decisions", day, variant), played.decisions)
    write_frame(folder / record_name("ledger", day, variant), played.ledger)
    if played.moves is not None:
        write_frame(folder / record_name("moves", day, variant), played.moves)


def test_step(folder: Path, info: dict, seed: int) -> None:
    """Serve all held-out days with one seed's runs, audit them and the training, and judge every rejection."""
    scenario, rows, verdicts = load_scenario(info["scenario"]), [], []
    for method in METHODS:
        run = load_run(folder / method / f"seed={seed}", scenario)
        place = run.folder
        report = audit(
            scenario,
            read_frame(place / "decisions_train.parquet"),
            read_frame(place / "ledger_train.parquet"),
            training_trace(scenario, run.config),
            order="free",
        )
        rows.append(dict(method=method, seed=seed, day="train", variant="train") | report.as_row())
        for day in info["test_days"]:
            trace = scenario.test_trace(day)
            for variant, (order, attempts) in VARIANTS.items():
                played = play_trace(run, trace, order, attempts)
                write_played(place, day, variant, played)
                report = audit(scenario, played.decisions, played.ledger, trace, order=order)
                rows.append(dict(method=method, seed=seed, day=day, variant=variant) | report.as_row())
                judged = judge(scenario, played.decisions, played.ledger, trace)
                verdicts.append(tally(judged, method=method, seed=seed, day=day, variant=variant))
            log.info(
                "tested %s seed %d on %s: GoS %.2f %%, %d violations",
                method,
                seed,
                day,
                100 * read_frame(place / record_name("decisions", day), ["accepted"])["accepted"].mean(),
                sum(row["violations"] for row in rows[-len(VARIANTS) :]),
            )
    write_frame(folder / f"verdicts_seed={seed}.parquet", pd.concat(verdicts, ignore_index=True))
    write_frame(folder / f"audits_seed={seed}.parquet", pd.DataFrame(rows))


def rules_step(folder: Path, info: dict) -> None:
    """Serve all held-out days by every routing rule, audit them, and judge every rejection."""
    scenario, rows, verdicts = load_scenario(info["scenario"]), [], []
    for name in RULES:
        place = folder / "baselines" / name
        for day in info["test_days"]:
            trace = scenario.test_trace(day)
            played = play_trace(tuned(name), trace, scenario=scenario)
            write_played(place, day, "arrival3", played)
            report = audit(scenario, played.decisions, played.ledger, trace, moves=played.moves)
            rows.append(
                dict(method=name, seed=0, day=day, variant="arrival3", test_s=played.clocked.wall_s) | report.as_row()
            )
            if played.moves is None:  # a moved flow has no one snapshot to be judged on
                judged = judge(scenario, played.decisions, played.ledger, trace)
                verdicts.append(tally(judged, method=name, seed=0, day=day, variant="arrival3"))
        log.info("served %d days by %s", len(info["test_days"]), name)
    write_frame(folder / "baselines" / "verdicts.parquet", pd.concat(verdicts, ignore_index=True))
    write_frame(folder / "baselines" / "audits.parquet", pd.DataFrame(rows))


def duel_step(folder: Path, info: dict) -> None:
    """Time SARL and AMARL in turn over all held-out days, back to back; the seeds take turns."""
    scenario = load_scenario(info["scenario"])
    runs = {
        (method, seed): load_run(folder / method / f"seed={seed}", scenario)
        for method in METHODS
        for seed in info["seeds"]
    }
    traces = [scenario.test_trace(day) for day in info["test_days"][: info["n_timed_days"]]]
    for run in runs.values():
        for order in ("arrival", "free"):
            time_trace(run, traces[0].head(2000), order, 3)  # compiles and warms up
    rows = []
    for order in ("arrival", "free"):
        for repeat in range(info["repeats"]):
            seed = info["seeds"][repeat % len(info["seeds"])]
            for method in METHODS if repeat % 2 == 0 else METHODS[::-1]:
                clocked = [time_trace(runs[method, seed], trace, order, 3) for trace in traces]
                rows.append(
                    {
                        "repeat": repeat,
                        "method": method,
                        "seed": seed,
                        "order": order,
                        "test_s": sum(c.wall_s for c in clocked),
                        "cpu_s": sum(c.cpu_s for c in clocked),
                    }
                )
            log.info(
                "timed %s order, seed %d, repeat %d: %s",
                order,
                seed,
                repeat + 1,
                ", ".join(f"{row['method']} {row['test_s']:.2f} s" for row in rows[-2:]),
            )
    write_frame(folder / "duel.parquet", pd.DataFrame(rows))


def forms_step(folder: Path, info: dict) -> None:
    """Train and test the forms between SARL and AMARL, and the settings that training was not given."""
    scenario = load_scenario(info["scenario"])
    days = [scenario.test_trace(day) for day in info["test_days"]]
    tables = [forms.train_and_test(scenario, form, seed, days, **info["choices"])
              for seed in info["seeds"] for form in forms.FORMS]  # fmt: skip
    write_frame(folder / "forms_progress.parquet", pd.concat([table for _, table in tables], ignore_index=True))
    write_frame(folder / "forms.parquet", pd.concat([table for table, _ in tables], ignore_index=True))


def asynchrony_step(folder: Path, info: dict) -> None:
    """Serve a held-out day by AMARL under many commit orders, bounds and numbers of attempts."""
    scenario = load_scenario(info["scenario"])
    runs = [load_run(folder / "amarl" / f"seed={seed}", scenario) for seed in info["seeds"]]
    write_frame(folder / "asynchrony.parquet", sweep(runs, [scenario.test_trace(info["test_days"][0])]))


def stock_step(folder: Path, info: dict) -> None:
    """Measure stock sb3-contrib's rate on the same requests."""
    log.info("stock sb3-contrib MaskablePPO on RoutingEnv, %d steps", info["stock_steps"])
    write_json(folder / "stock.json", stock_rate(load_scenario(info["scenario"]), info["stock_steps"]))


WHOLE = {
    "rules": rules_step,
    "duel": duel_step,
    "stock": stock_step,
    "forms": forms_step,
    "asynchrony": asynchrony_step,
}
"""Steps that are done once for all methods and seeds."""


def main(arguments: Iterable[str] | None = None) -> int:
    """Run one step of a study that `run_study` has begun."""
    parser = argparse.ArgumentParser(description="One step of a study; `make reproduce` runs them all.")
    parser.add_argument("step", choices=("train", "test", *WHOLE))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("amarl_core.audit").setLevel(logging.WARNING)
    info = read_json(options.folder / "study.json")
    try:
        if options.step == "train":
            train_step(options.folder, info, options.method, options.seed)
        elif options.step == "test":
            test_step(options.folder, info, options.seed)
        else:
            WHOLE[options.step](options.folder, info)
    except RunError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
