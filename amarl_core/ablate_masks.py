"""What each action mask is worth: GoS, dead ends and speed of teams trained with it, on validation days.

    python -m amarl_core.ablate_masks [--scenario montreal] [--days 4] [--seeds 1 2] [--methods sarl amarl] [--out FILE]

Nothing of a held-out day is used: validation days come from the training seed of `tune`.
"""

import argparse
import logging
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd

from amarl_core.agents import DAY_S, Run, train, untrained
from amarl_core.config import make_config
from amarl_core.evaluation import play_trace
from amarl_core.routing import CAUSES, MASKS
from amarl_core.runs import write_frame
from amarl_core.scenario import Scenario, load_scenario
from amarl_core.simulation import Simulation, options_for
from amarl_core.traces import Trace
from amarl_core.tune import VALIDATION_DAYS, VALIDATION_SEED

log = logging.getLogger(__name__)

ATTEMPTS = (3, 1)
"""Plans of a request at most: the headline's, and the paper's."""

REPEATS = 3
"""Times that a day is served for its timing, of which the median counts."""


def mask_ablation(
    scenario: Scenario,
    *,
    days: int = 4,
    seeds: Sequence[int] = (1, 2),
    methods: Sequence[str] = ("sarl", "amarl"),
    eval_days: Sequence[int] = VALIDATION_DAYS,
) -> pd.DataFrame:
    """Train a team with each mask on the same days and serve validation days with it, in order of arrival.

    Args:
        scenario: the world.
        days: training days of each team.
        seeds: of traffic, weights and sampling; one team each.
        methods: `sarl`, `amarl` or both.
        eval_days: which days of the validation seed are served.

    Returns:
        A row per mask, method, seed, evaluation day and number of attempts: gos; share_<cause> of all requests, for
        each cause of failure; decisions_per_request, us_per_decision and us_per_request (wall-clock of one thread,
        requests one by one); untrained_gos, before training; train_gos_<day>, of each training day (while sampling).
    """
    traces = {day: scenario.training_trace(seed=VALIDATION_SEED, days=1, first_day=day) for day in eval_days}
    rows: list[dict] = []
    for seed in seeds:
        for method in methods:
            for mask in MASKS:
                fresh = untrained(scenario, make_config(method=method, seed=seed, days=days, mask=mask))
                run = train(scenario, config=fresh.config)
                learned = {f"train_gos_{day + 1}": gos for day, gos in enumerate(gos_by_day(run))}
                for day, trace in traces.items():
                    first = {"mask": mask, "method": method, "seed": seed, "day": day}
                    rows += [first | row | learned for row in _evaluate(run, fresh, trace)]
                log.info("%s %s seed %d: GoS %.2f %%", mask, method, seed, 100 * rows[-len(ATTEMPTS)]["gos"])
    return pd.DataFrame(rows)


def gos_by_day(run: Run) -> np.ndarray:
    """Return float64[days]: GoS of each training day, by the rollouts that ended in it."""
    progress = run.progress.sort_values("update")
    offered = progress.groupby("agent")["requests"].diff().fillna(progress["requests"])
    accepted = progress.groupby("agent")["accepted"].diff().fillna(progress["accepted"])
    n_days = run.config.days * run.config.passes
    day = np.minimum(progress["sim_t_s"] // DAY_S, n_days - 1)
    by_day = pd.DataFrame({"offered": offered, "accepted": accepted}).groupby(day).sum().reindex(range(n_days))
    return (by_day["accepted"] / by_day["offered"]).to_numpy()


def serving_time(run: Run, trace: Trace) -> dict[str, float]:
    """Return decisions_per_request, us_per_decision and us_per_request on one thread."""
    seconds = []
    for _ in range(REPEATS):
        simulation = Simulation(run.scenario, run.world, trace, run.team, run.nets, options_for(run.config))
        start = time.perf_counter()
        simulation.serve(0, "arrival")  # in order of arrival one thread serves the requests of all agents
        seconds.append(time.perf_counter() - start)
    decisions, us = int(simulation.agents[0].stream["steps"][0]), 1e6 * float(np.median(seconds))
    return {
        "decisions_per_request": decisions / max(len(trace), 1),
        "us_per_decision": us / max(decisions, 1),
        "us_per_request": us / max(len(trace), 1),
    }


def _evaluate(run: Run, fresh: Run, trace: Trace) -> list[dict]:
    """Return what one validation day shows of a trained team, a row for each number of attempts."""
    timing = serving_time(run, trace)
    rows = []
    for attempts in ATTEMPTS:
        causes = play_trace(run, trace, attempts=attempts).decisions["cause"].astype(str)
        shares = {f"share_{cause}": float((causes == cause).mean()) for cause in CAUSES[1:]}
        before = play_trace(fresh, trace, attempts=attempts).decisions["accepted"].mean()
        rows.append(
            {"attempts": attempts, "gos": float((causes == CAUSES[0]).mean())}
            | shares
            | timing
            | {"untrained_gos": float(before)}
        )
    return rows


def main() -> None:
    """Run the ablation, log its means and write its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", default="montreal")
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--methods", nargs="+", default=["sarl", "amarl"])
    parser.add_argument("--out", help="a Parquet file for the rows")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    frame = mask_ablation(
        load_scenario(options.scenario), days=options.days, seeds=options.seeds, methods=options.methods
    )
    if options.out:
        write_frame(options.out, frame)
    means = frame.groupby(["mask", "method", "attempts"]).mean(numeric_only=True).drop(columns=["seed", "day"])
    log.info("%s", means.round(4).T.to_string())


if __name__ == "__main__":
    main()
