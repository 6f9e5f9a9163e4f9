"""Calibration figures of a scenario: routing rules on training days, before any learner trains.

python -m amarl_core.calibrate [--scenario montreal] [--days 5] [--slow] [--rules ...] [--write data/README.md]
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from amarl_core.baselines import RULES, SLOW_RULES, Baseline, baseline
from amarl_core.evaluation import Played, play_trace
from amarl_core.files import write_text
from amarl_core.scenario import Scenario, load_scenario
from amarl_core.traces import Trace

log = logging.getLogger(__name__)

TUNING_SEED = 101
"""Seed of the training days used for calibration; learners train on other seeds."""

_K = [dict(k=k) for k in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)]
_BASES: list[dict[str, Any]] = [
    dict(base="shortest_feasible"),
    dict(base="reservation", reserve_above=0.1),
    dict(base="priced_reservation", mu=1000.0, reserve_above=0.6),
]

GRID: dict[str, list[dict[str, Any]]] = {
    "k_shortest_first_fit": _K,
    "k_shortest_least_loaded": _K,
    "priced": [dict(mu=mu) for mu in (10.0, 100.0, 1e3, 1e4, 1e5, 1e6)],
    "reservation": [dict(reserve_above=share) for share in (0.05, 0.1, 0.2, 0.4, 0.6)],
    "priced_reservation": [
        dict(mu=mu, reserve_above=share) for mu in (100.0, 1e3, 1e4, 1e5) for share in (0.2, 0.4, 0.6, 0.8)
    ],
    "priced_admission": [
        dict(mu=mu, worth=worth)
        for mu, worths in ((100.0, (3.0, 5.0, 8.0)), (1e3, (20.0, 40.0, 60.0)), (1e4, (200.0, 400.0, 800.0)))
        for worth in worths
    ],
    "reoptimise": [dict(moves=moves, **base) for base in _BASES for moves in (1, 2, 4, 8)],
    "milp_batch": [dict(window_s=seconds, **_BASES[1]) for seconds in (1.0, 5.0, 10.0)],
    "milp_lookahead": [dict(window_s=seconds, **_BASES[1]) for seconds in (10.0, 30.0)],
}
"""Settings tried for each rule; the one with the best mean GoS is reported. Windows longer than 30 s are left out: the
programs of a busy hour then take minutes."""

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


def tune(scenario: Scenario, name: str, days: list[Trace]) -> tuple[Baseline, list[Played]]:
    """Return the rule with the best setting of its grid, and what it made of every day."""
    best: tuple[Baseline, list[Played]] | None = None
    play_trace(baseline(name), days[0].head(10), scenario=scenario)  # compiles the kernels
    for setting in GRID.get(name, [{}]):
        rule = baseline(name, **setting)
        played = [play_trace(rule, day, scenario=scenario) for day in days]
        log.info("%s %s: %.2f %%, %.0f requests/s", name, setting, 100 * _mean_gos(played), _speed(played))
        if best is None or _mean_gos(played) > _mean_gos(best[1]):
            best = rule, played
    assert best is not None
    return best


def _mean_gos(played: list[Played]) -> float:
    return float(np.mean([day.decisions["accepted"].mean() for day in played]))


def _speed(played: list[Played]) -> float:
    """Return requests served per second of wall-clock, the median over days."""
    return float(np.median([len(day.decisions) / day.clocked.wall_s for day in played]))


def calibration_table(scenario: Scenario, n_days: int, names: Sequence[str] = RULES) -> str:
    """Return the calibration figures of some rules as markdown."""
    days = [scenario.training_trace(seed=TUNING_SEED, days=1, first_day=d) for d in range(n_days)]
    reference = [play_trace(baseline("shortest_feasible"), day, scenario=scenario) for day in days]
    rows = [_table_row(scenario, *tune(scenario, name, days), reference) for name in names]
    return "\n".join(
        [
            f"{n_days} weekdays of training seed {TUNING_SEED}, GoS in % (standard deviation over days):",
            "",
            "| rule | setting | GoS | minus shortest_feasible, paired | AR | access links' peak | requests/s |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _table_row(scenario: Scenario, rule: Baseline, played: list[Played], reference: list[Played]) -> str:
    """Return one rule's row: GoS, gap to the reference by day, GoS of AR, peak of the access links, speed."""
    decisions = [day.decisions for day in played]
    gos = 100 * np.array([d["accepted"].mean() for d in decisions])
    gap = gos - 100 * np.array([day.decisions["accepted"].mean() for day in reference])
    tight = 100 * np.mean([d.loc[d["service"] == "augmented_reality", "accepted"].mean() for d in decisions])
    names = {key for setting in GRID.get(rule.name, []) for key in setting}
    base = rule.settings.get("base", rule.name)
    names -= {"mu"} if "priced" not in base else set()
    names -= {"reserve_above"} if "reservation" not in base else set()
    setting = ", ".join(f"{key} {value}".removesuffix(".0") for key, value in rule.settings.items() if key in names)
    return (
        f"| {rule.name} | {setting or '-'} | {gos.mean():.2f} ({gos.std(ddof=1):.2f}) "
        f"| {gap.mean():+.2f} ({gap.std(ddof=1):.2f}) | {tight:.1f} | {access_peak(scenario, decisions[0]):.0%} "
        f"| {_speed(played):,.0f} |"
    )


def merged(old: str, new: str) -> str:
    """Return a new table with the rows of an old one of the same days whose rules it lacks, in order of the rules."""
    heading, rows = new.split("\n")[:4], {row.split("|")[1].strip(): row for row in new.split("\n")[4:]}
    if old.strip().split("\n")[:4] == heading:
        rows = {row.split("|")[1].strip(): row for row in old.strip().split("\n")[4:]} | rows
    return "\n".join([*heading, *(rows[name] for name in RULES + SLOW_RULES if name in rows)])


def main() -> None:
    """Print the table and, with --write, put it between the marks of a markdown file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", default="montreal")
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--slow", action="store_true", help="the slow rules too, minutes a day each")
    parser.add_argument("--rules", nargs="+", choices=RULES + SLOW_RULES, metavar="RULE", help="only these")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = arguments.rules or (RULES + SLOW_RULES if arguments.slow else RULES)
    table = calibration_table(load_scenario(arguments.scenario), arguments.days, names)
    log.info("%s", table)
    if arguments.write:
        text = arguments.write.read_text(encoding="utf-8")
        before, rest = text.split(MARKS[0])
        old, after = rest.split(MARKS[1]) if MARKS[1] in rest else ("", rest)
        table = merged(old, table)
        write_text(arguments.write, f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
