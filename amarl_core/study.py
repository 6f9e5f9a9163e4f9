"""The study of the paper, from training to `headline.json`: settings -> run folders -> records that notebooks read.

What the paper compares comes first, so that its pages can be read while the rest is measured. Every heavy step runs in
a fresh process (`python -m amarl_core.steps <step> ...`), so that timings do not inherit another step's memory, and a
step whose records are complete is loaded instead of repeated.
"""

import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from amarl_core.config import METHODS
from amarl_core.disruptions import FOLDER as DISRUPTIONS
from amarl_core.disruptions import parts_of
from amarl_core.errors import RunError
from amarl_core.files import sweep
from amarl_core.runs import ROOT, RunFolder, read_frame, read_json, write_frame, write_json
from amarl_core.scenario import load_scenario
from amarl_core.steps import FORM_PARTS, bound_file, two_days

log = logging.getLogger(__name__)

PROJECT = Path(__file__).resolve().parent.parent
SECONDS_TO_SAVE = 10.0
"""How long a step may take to end by itself after Ctrl-C."""

PAPER = {"duel": "duel.parquet", "stock": "stock.json"}
TIMED = PAPER | {
    "forms": "forms/trained.json",
    "asynchrony": "asynchrony.parquet",
    "masks": "masks.parquet",
    "live_cost": "live_cost.parquet",
    "actors": "actors.parquet",
    "reaction": f"{DISRUPTIONS}/locks_all.parquet",
    "performance": "performance/performance.json",
    "scale": "scale.parquet",
}
"""Steps that nothing runs beside, since they are timed, and the record that each of them writes last; those of the
paper's pages first."""


@dataclass(frozen=True)
class Profile:
    """How large a study is."""

    scenario: str = "montreal"
    seeds: tuple[int, ...] = (0, 1, 2)
    n_test_days: int = 10  # half of them weekdays
    repeats: int = 7  # paired timings, in turn over the seeds
    n_timed_days: int = 10  # held-out days back to back in each timing
    n_compared_seeds: int = 1  # of the forms between SARL and AMARL and of the sweep over commit orders
    stock_steps: int = 20_000
    bound_s: float = 180.0  # of solving for each bound: a weekday and a weekend day, by requests and by traffic
    choices: dict = field(default_factory=dict)  # of TrainConfig
    apart: bool = True  # whether each timed step has a process of its own, which takes seconds to start


PROFILES = {
    "full": Profile(),
    "quick": Profile(seeds=(0,), n_test_days=2, repeats=3, n_timed_days=2, bound_s=8.0, choices=dict(days=4)),
    "smoke": Profile(
        scenario="toy",
        seeds=(0,),
        n_test_days=2,
        repeats=2,
        n_timed_days=2,
        stock_steps=512,
        bound_s=5.0,
        choices=dict(days=2),
        apart=False,
    ),
}


def run_study(
    profile: str, name: str | None = None, root: Path = PROJECT / ROOT, at_paper: Callable[[Path], None] | None = None
) -> Path:
    """Do everything that is not done yet; return the study's folder.

    Args:
        profile: `full`, `quick` or `smoke`.
        name: of the study's folder below `root`; the profile's by default.
        root: where studies live.
        at_paper: called with the folder as soon as the records of the paper's pages are there, unless they were there
            at the start; its time does not count as the study's.

    Raises:
        RunError: an unknown profile, another profile's study under this name, or a step that failed.
    """
    if profile not in PROFILES:
        raise RunError(f"unknown profile {profile!r}; the valid ones are {', '.join(PROFILES)}")
    plan, began = PROFILES[profile], time.time()
    folder = (Path(root) / (name or profile)).resolve()
    sweep(folder)
    info = _begin(folder, profile, plan)
    is_new = not _has_paper(folder, info)
    try:
        _train(folder, plan)
        _timed(folder, plan, PAPER if plan.apart else TIMED)
        _together(_left(_of_the_paper(folder, info)))
        _join_audits(folder)
        if is_new:
            info["seconds_to_paper"] = info["seconds"] + time.time() - began
            write_json(folder / "study.json", info)
        if is_new and at_paper is not None:
            aside = time.time()
            at_paper(folder)
            began += time.time() - aside
        _timed(folder, plan, TIMED)
        _together(_left(_beyond_the_paper(folder, info)))
        if not (folder / "robustness.parquet").exists():
            _step("robustness", folder)  # two processes of its own
        _join_forms(folder)
    finally:  # what an interrupted call took counts, too
        write_json(folder / "study.json", info | {"seconds": info["seconds"] + time.time() - began})
    return folder


def _has_paper(folder: Path, info: dict) -> bool:
    """Whether the records of the paper's pages are there."""
    runs = [RunFolder(folder / method / f"seed={seed}") for seed in info["seeds"] for method in METHODS]
    timed = all((folder / record).exists() for record in PAPER.values())
    return timed and all(run.is_finished for run in runs) and not _left(_of_the_paper(folder, info))


def _train(folder: Path, plan: Profile) -> None:
    """Train what is not trained yet, and remove what describes a run that is gone."""
    for seed in plan.seeds:
        for method in METHODS:
            if not RunFolder(folder / method / f"seed={seed}").is_finished:
                for stale in (f"audits_seed={seed}", "duel", "asynchrony", "robustness"):
                    (folder / f"{stale}.parquet").unlink(missing_ok=True)
                shutil.rmtree(folder / DISRUPTIONS, ignore_errors=True)
                _step("train", folder, f"--method={method}", f"--seed={seed}")


def _timed(folder: Path, plan: Profile, steps: Iterable[str]) -> None:
    """Do those of the timed steps that are not done yet, one after the other."""
    left = [step for step in steps if not (folder / TIMED[step]).exists()]
    if left and not plan.apart:
        _step("several", folder, f"--part={','.join(left)}")
    for step in left if plan.apart else ():
        _step(step, folder)


def _of_the_paper(folder: Path, info: dict) -> dict[tuple, Path]:
    """List the steps behind the paper's pages that may run side by side, each with the record that it writes last.

    The longest come first: no core waits for the last.
    """
    steps = {("rules", folder): folder / "baselines" / "audits.parquet"}
    steps |= {("bound", folder, f"--day={day}"): bound_file(folder, day) for day in two_days(info)}
    tests = {f"seed={seed}": folder / f"audits_seed={seed}.parquet" for seed in info["seeds"]}
    return steps | {("test", folder, f"--{seed}"): mark for seed, mark in tests.items()}


def _beyond_the_paper(folder: Path, info: dict) -> dict[tuple, Path]:
    """List the other steps that may run side by side."""
    steps = {("serve_forms", folder, f"--part={part}"): folder / "forms" / f"{part}.parquet" for part in FORM_PARTS}
    return steps | {
        ("disrupt", folder, f"--part={part}"): folder / DISRUPTIONS / f"failures_{part}.parquet"
        for part in parts_of(info)
    }


def _left(steps: dict[tuple, Path]) -> list[tuple]:
    """Return the steps that are not done yet."""
    return [step for step, mark in steps.items() if not mark.exists()]


def _join_audits(folder: Path) -> None:
    """Write audits and verdicts of all methods, which notebooks read, from those of the steps."""
    for name in ("audits", "verdicts"):
        parts = [read_frame(path) for path in sorted(folder.glob(f"{name}_seed=*.parquet"))]
        rules = read_frame(folder / "baselines" / f"{name}.parquet")
        write_frame(folder / f"{name}.parquet", pd.concat([*parts, rules], ignore_index=True))


def _join_forms(folder: Path) -> None:
    """Write what all forms accepted, which notebooks read, from the parts."""
    forms = [read_frame(folder / "forms" / f"{part}.parquet") for part in FORM_PARTS]
    write_frame(folder / "forms.parquet", pd.concat(forms, ignore_index=True))


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
        "n_compared_seeds": plan.n_compared_seeds,
        "stock_steps": plan.stock_steps,
        "bound_s": plan.bound_s,
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
    return [sys.executable, "-m", "amarl_core.steps", step, str(folder), *options]


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
    except KeyboardInterrupt:  # Ctrl-C reached the steps too: a training writes its checkpoint
        for _, process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_SAVE)
        raise
    finally:
        for _, process in running:
            process.terminate()
            process.wait()
