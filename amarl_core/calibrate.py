"""Calibration figures of a scenario: routing rules on training days, before any learner trains.

python -m amarl_core.calibrate [--scenario montreal] [--days 5] [--write data/README.md]
"""

import argparse
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core.baselines import RULES, Baseline, baseline
from amarl_core.evaluation import play_trace
from amarl_core.scenario import Scenario, load_scenario

log = logging.getLogger(__name__)

TUNING_SEED = 101
"""Seed of the training days used for calibration; learners train on other seeds."""

GRID = {
    "priced": [dict(mu=mu) for mu in (10.0, 100.0, 1000.0)],
    "reservation": [dict(reserve_above=share) for share in (0.1, 0.2, 0.4)],
    "priced_reservation": [dict(mu=mu, reserve_above=share) for mu in (100.0, 1000.0) for share in (0.2, 0.4)],
}
"""Settings tried for each rule; the one with the best mean GoS is reported."""

MARKS = (
    "<!-- calibration figures: filled by python -m amarl_core.calibrate -->",
    "<!-- end of calibration figures -->",
)


def access_peak(scenario: Scenario, decisions: pd.DataFrame) -> float:
    """Return the highest utilisation that any link at a stub reaches in simulated time."""
    network = scenario.network
    is_access = scenario.stub[network.source] | scenario.stub[network.target]
    capacity = dict(zip(network.link_ids, np.where(is_access, network.capacity_kbps, 0), strict=True))
    taken = decisions.loc[decisions["accepted"], ["t_s", "hold_s", "demand_kbps", "links"]].explode("links")
    taken["links"] = taken["links"].astype(str)
    taken = taken[taken["links"].map(capacity) > 0]
    events = pd.concat(
        [
            pd.DataFrame({"link": taken["links"], "t_s": taken["t_s"], "change": taken["demand_kbps"]}),
            pd.DataFrame(
                {
                    "link": taken["links"],
                    "t_s": taken["t_s"] + taken["hold_s"],
                    "change": -taken["demand_kbps"],
                }
            ),
        ]
    ).sort_values(["link", "t_s", "change"])
    used = events.groupby("link")["change"].cumsum()
    return float((used / events["link"].map(capacity)).max())


def tune(scenario: Scenario, name: str, days: list) -> tuple[Baseline, list[pd.DataFrame]]:
    """Return the rule with the best setting of its grid, and its decisions on every day."""
    best: tuple[Baseline, list[pd.DataFrame]] | None = None
    for setting in GRID.get(name, [{}]):
        rule = baseline(name, **setting)
        played = [play_trace(rule, day, scenario=scenario).decisions for day in days]
        log.info("%s %s: %.2f %%", name, setting, 100 * np.mean([d["accepted"].mean() for d in played]))
        if best is None or _mean_gos(played) > _mean_gos(best[1]):
            best = rule, played
    assert best is not None
    return best


def _mean_gos(played: list[pd.DataFrame]) -> float:
    return float(np.mean([d["accepted"].mean() for d in played]))


def calibration_table(scenario: Scenario, n_days: int) -> str:
    """Return the calibration figures as markdown."""
    days = [scenario.training_trace(seed=TUNING_SEED, days=1, first_day=d) for d in range(n_days)]
    tuned = {name: tune(scenario, name, days) for name in RULES}
    gos = {name: 100 * np.array([d["accepted"].mean() for d in played]) for name, (_, played) in tuned.items()}
    rows = []
    for name, (rule, played) in tuned.items():
        gap = gos[name] - gos["shortest_feasible"]
        tight = 100 * np.mean([d.loc[d["service"] == "augmented_reality", "accepted"].mean() for d in played])
        setting = ", ".join(
            f"{k} {v:g}"
            for k, v in (("mu", rule.mu), ("above", rule.rule.reserve_above))
            if (k == "mu" and "priced" in name) or (k == "above" and "reservation" in name)
        )
        rows.append(
            f"| {name} | {setting or '-'} | {gos[name].mean():.2f} ({gos[name].std(ddof=1):.2f}) "
            f"| {gap.mean():+.2f} ({gap.std(ddof=1):.2f}) | {tight:.1f} | {access_peak(scenario, played[0]):.0%} |"
        )
    return "\n".join(
        [
            f"{n_days} weekdays of training seed {TUNING_SEED}, GoS in % (standard deviation over days):",
            "",
            "| rule | setting | GoS | minus shortest_feasible, paired | AR | access links' peak |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def main() -> None:
    """Print the table and, with --write, put it between the marks of a markdown file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", default="montreal")
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    table = calibration_table(load_scenario(arguments.scenario), arguments.days)
    log.info("%s", table)
    if arguments.write:
        text = arguments.write.read_text(encoding="utf-8")
        before, rest = text.split(MARKS[0])
        after = rest.split(MARKS[1])[1] if MARKS[1] in rest else rest
        arguments.write.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
