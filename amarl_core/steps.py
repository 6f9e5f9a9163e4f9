"""The steps of a study, each in a fresh process: train, serve and audit, time, compare, bound.

    python -m amarl_core.steps <step> <folder of the study> [--method ...] [--seed ...] [--day ...]

`study.run_study` calls them; each reads `study.json` and writes its records below the study's folder.
"""

import argparse
import logging
import resource
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from amarl_core import actor_gain, forms
from amarl_core.ablate_masks import mask_ablation
from amarl_core.agents import train, training_trace
from amarl_core.asynchrony import SHORT, settings, sweep
from amarl_core.audit import audit
from amarl_core.baselines import RULES, tuned
from amarl_core.bounds import day_bound
from amarl_core.config import METHODS
from amarl_core.disruptions import disrupt, time_reaction
from amarl_core.errors import AmarlError, RunError
from amarl_core.evaluation import Played, play_trace, time_trace
from amarl_core.robustness import measure as measure_shifts
from amarl_core.robustness import shifts_of
from amarl_core.runs import RunFolder, read_frame, read_json, record_name, usable_cores, write_frame, write_json
from amarl_core.scale import radio_units
from amarl_core.scenario import load_scenario
from amarl_core.stock import stock_rate
from amarl_core.teams import load_run
from amarl_core.tune import VALIDATION_DAYS
from amarl_core.verdicts import judge, tally
from amarl_core.windows import held

log = logging.getLogger(__name__)

VARIANTS = {"arrival3": ("arrival", 3), "arrival1": ("arrival", 1), "free3": ("free", 3)}
"""Commit order and attempts of each test; the headline is the first."""

ABLATION_DAYS, ABLATION_SEEDS = 4, 2
"""Training days and seeds of the teams that the action masks are compared by, in a full study."""

ACTOR_DAYS = 2
"""Training days of each team on a skewed mix, in a full study."""

LIVE_DAYS = 4
"""Training days of each of the trainings that the cost of the live view is measured by."""

FORM_PARTS = ("odd", "even")
"""The forms are served in two processes."""


def two_days(info: dict) -> list[str]:
    """Return the first weekday and the first weekend day of a study."""
    return list({("weekend" in day): day for day in reversed(info["test_days"])}.values())


def bound_file(folder: Path, day: str) -> Path:
    """Return where the bounds of a day are kept."""
    return folder / "bounds" / f"{day}.parquet"


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
        raise RunError(f"{place}: the run was stopped; run the same command again to go on with it")


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
        play_trace(tuned(name), scenario.test_trace(info["test_days"][0]).head(500), scenario=scenario)  # warm
        for day in info["test_days"]:
            offered = scenario.test_trace(day)
            played = play_trace(tuned(name), offered, scenario=scenario)
            trace = held(offered, tuned(name).waits_s)
            write_played(place, day, "arrival3", played)
            report = audit(scenario, played.decisions, played.ledger, trace, moves=played.moves)
            took = dict(test_s=played.clocked.wall_s, waited_s=float((trace.t_s - offered.t_s).mean()))
            rows.append(dict(method=name, seed=0, day=day, variant="arrival3") | took | report.as_row())
            if played.moves is None:  # a moved flow has no one snapshot to be judged on
                judged = judge(scenario, played.decisions, played.ledger, trace)
                verdicts.append(tally(judged, method=name, seed=0, day=day, variant="arrival3"))
        log.info("served %d days by %s", len(info["test_days"]), name)
    write_frame(folder / "baselines" / "verdicts.parquet", pd.concat(verdicts, ignore_index=True))
    write_frame(folder / "baselines" / "audits.parquet", pd.DataFrame(rows))


def bound_step(folder: Path, info: dict, day: str) -> None:
    """Bound what any policy could accept of one held-out day, by requests and by traffic."""
    scenario = load_scenario(info["scenario"])
    rows = []
    for weight in ("requests", "traffic"):
        found = day_bound(scenario, scenario.test_trace(day), seconds=info["bound_s"], weight=weight)
        log.info("no policy accepts more than %.2f %% of the %s on %s", 100 * found.upper, weight, day)
        rows.append({"day": day} | found.as_row())
    write_frame(bound_file(folder, day), pd.DataFrame(rows))


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


def form_folder(folder: Path, form: str, seed: int) -> Path:
    """Return where the run of a form lies."""
    return folder / "forms" / form / f"seed={seed}"


def forms_step(folder: Path, info: dict) -> None:
    """Train the forms between SARL and AMARL, and the settings that training was not given."""
    scenario = load_scenario(info["scenario"])
    for seed in info["seeds"][: info["n_compared_seeds"]]:
        for form in forms.FORMS:
            place = form_folder(folder, form, seed)
            if not RunFolder(place).is_finished:
                run = forms.train_form(scenario, form, seed, place, **info["choices"])
                if run.status != "finished":
                    raise RunError(f"{place}: the run was stopped; run the same command again to go on with it")
    write_json(folder / "forms" / "trained.json", list(forms.FORMS))


def serve_forms_step(folder: Path, info: dict, part: str) -> None:
    """Audit the training of every other form, and serve all held-out days by it."""
    scenario, seeds = load_scenario(info["scenario"]), info["seeds"][: info["n_compared_seeds"]]
    days = [scenario.test_trace(day) for day in info["test_days"]]
    served = [
        forms.serve_form(load_run(form_folder(folder, form, seed), scenario), form, days)
        for form in list(forms.FORMS)[FORM_PARTS.index(part) :: len(FORM_PARTS)]
        for seed in seeds
    ]
    write_frame(folder / "forms" / f"{part}.parquet", pd.concat(served, ignore_index=True))


def asynchrony_step(folder: Path, info: dict) -> None:
    """Serve a held-out day by AMARL under many commit orders, bounds and numbers of attempts."""
    scenario = load_scenario(info["scenario"])
    runs = [load_run(folder / "amarl" / f"seed={seed}", scenario) for seed in info["seeds"][: info["n_compared_seeds"]]]
    chosen = settings() if info["profile"] == "full" else settings(**SHORT)
    write_frame(folder / "asynchrony.parquet", sweep(runs, [scenario.test_trace(info["test_days"][0])], chosen))


def masks_step(folder: Path, info: dict) -> None:
    """Train and test with every action mask, on training and validation days alone."""
    is_full, seeds = info["profile"] == "full", info["seeds"][:ABLATION_SEEDS]
    days, eval_days = (ABLATION_DAYS, VALIDATION_DAYS) if is_full else (2, VALIDATION_DAYS[:1])
    masks = mask_ablation(load_scenario(info["scenario"]), days=days, seeds=seeds, eval_days=eval_days)
    write_frame(folder / "masks.parquet", masks)


def stock_step(folder: Path, info: dict) -> None:
    """Measure stock sb3-contrib's rate on the same requests."""
    log.info("stock sb3-contrib MaskablePPO on RoutingEnv, %d steps", info["stock_steps"])
    write_json(folder / "stock.json", stock_rate(load_scenario(info["scenario"]), info["stock_steps"]))


def live_cost_step(folder: Path, info: dict) -> None:
    """Time trainings with and without the live view, in turn."""
    from amarl_core import live_cost  # here: widgets and drawing would only weigh on the other steps

    days = min(LIVE_DAYS, info["choices"].get("days", LIVE_DAYS))
    write_frame(folder / live_cost.RECORD, live_cost.measure(info["scenario"], info["repeats"], days))


def actors_step(folder: Path, info: dict) -> None:
    """Train SARL, AMARL with an actor a service, and AMARL with actors by load, in turn, on a skewed mix."""
    scenario, is_full = load_scenario(info["scenario"]), info["profile"] == "full"
    mixed = actor_gain.skewed(scenario, actor_gain.busiest_service(scenario))
    rows = actor_gain.measure(mixed, repeats=(info["repeats"] + 1) // 2, days=ACTOR_DAYS if is_full else 1)
    write_frame(folder / actor_gain.RECORD, rows)


def reaction_step(folder: Path, info: dict) -> None:
    """Time decisions and commits on threads, with and without one lock around the whole routing."""
    time_reaction(folder, info)


def performance_step(folder: Path, info: dict) -> None:
    """Measure where the time goes, how it scales, and what limits it."""
    from amarl_core.performance import measure  # here: the peers would only weigh on the other steps

    measure(folder, info)


def robustness_step(folder: Path, info: dict) -> None:
    """Serve every shift of demand and network by the study's runs, which are not retrained."""
    shifts = shifts_of(info["scenario"], two_days(info), info["profile"])
    jobs = 0 if info["profile"] == "smoke" else min(2, usable_cores())
    tables = measure_shifts(folder, info["scenario"], info["seeds"], shifts, jobs)
    for name, table in zip(("_sizes", "_drift", ""), (*tables[1:], tables[0]), strict=True):  # the last says it is done
        write_frame(folder / f"robustness{name}.parquet", table)


SCALES = {
    "full": dict(days=4),
    "quick": dict(days=1, methods=("amarl", "priced_admission"), n_memory=(100_000, 200_000)),
    "smoke": dict(days=1, methods=("amarl", "priced_admission"), n_memory=(1000, 3000), scenario="toy", apart=False),
}
"""How much of the radio-unit scenario a study measures."""


def scale_step(folder: Path, info: dict) -> None:
    """Train and test at radio-unit scale, and measure memory against the number of requests."""
    radio_units(folder, **SCALES[info["profile"]])


WHOLE = {
    "scale": scale_step,
    "rules": rules_step,
    "duel": duel_step,
    "stock": stock_step,
    "forms": forms_step,
    "asynchrony": asynchrony_step,
    "masks": masks_step,
    "live_cost": live_cost_step,
    "actors": actors_step,
    "reaction": reaction_step,
    "performance": performance_step,
    "robustness": robustness_step,
}
"""Steps that are done once for all methods and seeds."""


def main(arguments: Iterable[str] | None = None) -> int:
    """Run one step of a study that `study.run_study` has begun."""
    parser = argparse.ArgumentParser(description="One step of a study; `make reproduce` runs them all.")
    parser.add_argument("step", choices=("train", "test", "bound", "disrupt", "serve_forms", "several", *WHOLE))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--day")
    parser.add_argument("--part")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for chatty in ("audit", "bound_program"):
        logging.getLogger(f"amarl_core.{chatty}").setLevel(logging.WARNING)
    info, began = read_json(options.folder / "study.json"), time.perf_counter()
    try:
        if options.step == "train":
            train_step(options.folder, info, options.method, options.seed)
        elif options.step == "test":
            test_step(options.folder, info, options.seed)
        elif options.step == "bound":
            bound_step(options.folder, info, options.day)
        elif options.step == "serve_forms":
            serve_forms_step(options.folder, info, options.part)
        elif options.step == "disrupt":
            disrupt(options.folder, info, options.part)
        else:
            for step in options.part.split(",") if options.step == "several" else [options.step]:
                WHOLE[step](options.folder, info)
    except AmarlError as error:
        log.error("%s", error)
        return 2
    named = (options.step, options.method, options.seed, options.day, options.part)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    log.info(
        "step %s took %.0f s, and %.0f s of processor",
        " ".join(str(name) for name in named if name is not None),
        time.perf_counter() - began,
        sum(each.ru_utime + each.ru_stime for each in used),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
