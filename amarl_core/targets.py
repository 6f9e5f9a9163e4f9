"""What this reproduction set out to reach, what it measured, and a verdict that says both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from amarl_core.intervals import BAND
from amarl_core.look import Table, listing, method_name, signed
from amarl_core.paper import PAPER_GOS, PAPER_TEST_S, PAPER_TRAIN_S, Evidence
from amarl_core.plots import interval
from amarl_core.records import seconds_to_paper

MINUTES = {"full": (30, 12), "quick": (6, 2)}  # must and aim until the paper's pages, after installation


@dataclass(frozen=True)
class Target:
    """One figure with its two bars and what was measured.

    Attributes:
        figure: what is measured.
        must: the bar to reach, in words.
        aim: the bar to hope for, in words.
        measured: the measurement, in words.
        meets_must: whether the bar is reached.
        meets_aim: whether the aim is reached.
    """

    figure: str
    must: str
    aim: str
    measured: str
    meets_must: bool
    meets_aim: bool


def _at_most(figure: str, must: float, aim: float, value: float, write: Callable[[float], str]) -> Target:
    return Target(figure, write(must), write(aim), write(value), value <= must, value <= aim)


def _at_least(figure: str, must: float, aim: float, value: float, write: Callable[[float], str]) -> Target:
    return Target(figure, write(must), write(aim), write(value), value >= must, value >= aim)


def targets(evidence: Evidence) -> list[Target]:
    """Hold the study against its targets, in the order of importance."""
    gain, low, high = interval(evidence.gos_difference())
    best = evidence.rules()[-1]
    over_best, best_low, best_high = interval(evidence.gain_over_rule(best))
    over_spf = interval(evidence.gain_over_rule("shortest_feasible"))[0]
    violations = int(evidence.audits["violations"].sum())
    runs = len(evidence.audits)
    is_clean = violations == 0 and runs > 0
    must_min, aim_min = MINUTES.get(evidence.study.info["profile"], MINUTES["full"])
    peak_gb = evidence.timing["peak_rss_mb"].max() / 1024
    return [
        _at_most("training wall-clock of AMARL / SARL", 0.70, 0.55, _median(evidence.train_ratio()), "{:.2f}".format),
        _at_most(
            "test wall-clock of AMARL / SARL in arrival order",
            0.85,
            0.60,
            _median(evidence.test_ratio()),
            "{:.2f}".format,
        ),
        _at_most(
            "test wall-clock of AMARL / SARL in free order (lag 60 s)",
            0.75,
            0.52,
            _median(evidence.test_ratio("free")),
            "{:.2f}".format,
        ),
        Target(
            "GoS of AMARL minus SARL (points)",
            "-0.30",
            "+0.67",
            signed(gain, low, high),
            gain >= -0.3,
            gain >= 0.67,
        ),
        Target(
            "GoS of AMARL minus shortest feasible path (points)",
            "+1.00",
            "above the best rule",
            f"{over_spf:+.2f}; minus {method_name(best)} {signed(over_best, best_low, best_high)}",
            over_spf >= 1.0,
            best_low > 0,
        ),
        _at_least(
            "training steps/s of AMARL over stock sb3-contrib",
            50,
            150,
            evidence.speedup_over_stock(),
            "{:.0f} x".format,
        ),
        Target("violations found by the audit", "0", "0", f"{violations:,} in {runs:,} runs", is_clean, is_clean),
        _at_most(
            "minutes of make reproduce before the paper's pages",
            must_min,
            aim_min,
            seconds_to_paper(evidence.study) / 60,
            "{:.1f}".format,
        ),
        _at_most("GB of memory of a training process at its peak", 2, 1, peak_gb, "{:.1f}".format),
    ]


def _median(ratios: np.ndarray) -> float:
    return float(np.nanmedian(ratios))


def targets_table(evidence: Evidence) -> Table:
    """Targets, measurements and whether they were met."""
    word = {True: "met", False: "not met"}
    rows = [[t.figure, t.must, t.aim, t.measured, word[t.meets_must], word[t.meets_aim]] for t in targets(evidence)]
    caption = (
        f"{evidence.study.describe()}; ratios are medians over paired runs and timings, points are means "
        f"with their {BAND}."
    )
    return Table(
        pd.DataFrame(rows, columns=["figure", "must", "aim", "measured", "must?", "aim?"]),
        caption,
        ("measured",),
    )


def verdict(evidence: Evidence) -> str:
    """Say in a few sentences what was reproduced and what was not."""
    gain, low, high = interval(evidence.gos_difference())
    if low > 0:
        quality = "AMARL accepts more than SARL"
    elif high < 0:
        quality = "AMARL accepts less than SARL"
    else:
        quality = "AMARL and SARL cannot be told apart in grade of service"
    train, test = _median(evidence.train_ratio()), _median(evidence.test_ratio())
    missed = [t.figure for t in targets(evidence) if not t.meets_must]
    violations = int(evidence.audits["violations"].sum())
    sentences = [
        f"{quality}: {signed(gain, low, high, unit=' points')} (paper {PAPER_GOS['amarl'] - PAPER_GOS['sarl']:+.2f}).",
        f"It trains in {train:.2f} of SARL's wall-clock (paper "
        f"{PAPER_TRAIN_S['amarl'] / PAPER_TRAIN_S['sarl']:.2f}) and "
        f"tests in {test:.2f} (paper {PAPER_TEST_S['amarl'] / PAPER_TEST_S['sarl']:.2f}).",
        f"The audit replayed {len(evidence.audits)} runs and found {violations or 'no'} "
        f"violation{'' if violations == 1 else 's'}.",
        f"{len(targets(evidence)) - len(missed)} of {len(targets(evidence))} required figures are met"
        + (f"; not met: {listing(missed)}." if missed else "."),
    ]
    return " ".join(sentences)
