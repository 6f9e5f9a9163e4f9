"""The paper's Table 1 and ours beside it, computed from the records of a study.

Source: Racedo, Jaumard, Delgado, Masoudi, AAMAS 2026, doi 10.65109/NMHJ4078 (arXiv 2602.00035).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from amarl_core.intervals import BAND
from amarl_core.look import Answer, Table, clock, method_name, service_name, signed, with_interval
from amarl_core.plots import interval
from amarl_core.records import (
    METHODS,
    Study,
    gos,
    gos_by_day,
    load_audits,
    load_baselines,
    load_duel,
    load_latency,
    load_outcomes,
    load_timing,
)
from amarl_core.runs import read_json

REFERENCE = "Racedo, Jaumard, Delgado, Masoudi, AAMAS 2026, doi 10.65109/NMHJ4078"
# Table 1 of the paper: average GoS in percent, training and test wall-clock in seconds.
PAPER_GOS = {"sarl": 97.81, "amarl": 98.48}
PAPER_TRAIN_S = {"sarl": 7 * 3600 + 25 * 60 + 5, "amarl": 5 * 3600 + 12 * 60}
PAPER_TEST_S = {"sarl": 45 * 60 + 22, "amarl": 38 * 60 + 33}


@dataclass(frozen=True)
class Evidence:
    """Everything a verdict rests on, read once from a study folder (frames as described in `records`)."""

    study: Study
    arrival3: pd.DataFrame
    arrival1: pd.DataFrame
    free3: pd.DataFrame
    baselines: pd.DataFrame
    latency: pd.DataFrame
    timing: pd.DataFrame
    duel: pd.DataFrame
    audits: pd.DataFrame
    stock: dict

    def gos_difference(self) -> np.ndarray:
        """AMARL's grade of service minus SARL's in points, (n_seeds, n_days)."""
        return gos_by_day(self.arrival3, "amarl") - gos_by_day(self.arrival3, "sarl")

    def gain_over_rule(self, rule: str) -> np.ndarray:
        """AMARL's grade of service minus a classical rule's in points on the same days, (n_seeds, n_days)."""
        return gos_by_day(self.arrival3, "amarl") - gos_by_day(self.baselines, rule)

    def train_ratio(self) -> np.ndarray:
        """AMARL's training wall-clock over SARL's of the same seed, (n_seeds, 1)."""
        train_s = self.timing.pivot(index="seed", columns="method", values="train_s")
        return (train_s["amarl"] / train_s["sarl"]).to_numpy()[:, None]

    def test_ratio(self, order: str = "arrival") -> np.ndarray:
        """AMARL's test wall-clock over SARL's, one for each timed pair, (1, n_pairs)."""
        part = self.duel[self.duel["order"] == order]
        test_s = part.pivot_table(index=["seed", "repeat"], columns="method", values="test_s")
        return (test_s["amarl"] / test_s["sarl"]).dropna().to_numpy()[None, :]

    def test_s(self, method: str, order: str = "arrival") -> np.ndarray:
        """Test wall-clock in seconds, (n_seeds, n_repeats); NaN where the repeat was another seed's turn."""
        part = self.duel[(self.duel["order"] == order) & (self.duel["method"] == method)]
        return part.pivot_table(index="seed", columns="repeat", values="test_s").to_numpy()

    def rules(self) -> list[str]:
        """The classical rules of the study, worst first."""
        return list(gos(self.baselines, ["method"]).sort_values().index)

    def speedup_over_stock(self) -> float:
        """Training steps a second of AMARL (median over seeds) over stock sb3-contrib's."""
        rate = self.timing.loc[self.timing["method"] == "amarl", "steps_per_s"].median()
        return float(rate / self.stock["steps_per_s"])


def gather(study: Study) -> Evidence:
    """Read all that the comparison with the paper needs."""
    outcomes = [load_outcomes(study, variant) for variant in ("arrival3", "arrival1", "free3")]
    return Evidence(
        study,
        *outcomes,
        load_baselines(study),
        load_latency(study),
        load_timing(study),
        load_duel(study),
        load_audits(study),
        read_json(study.folder / "stock.json"),
    )


def interval_text(matrix: np.ndarray, digits: int = 2, sign: bool = False) -> str:
    mean, low, high = interval(matrix)
    return (signed if sign else with_interval)(mean, low, high, digits)


def table_1(evidence: Evidence) -> Table:
    """The paper's Table 1 with our row under each of its rows."""
    rows = []
    for method in METHODS:
        rows.append(
            [
                f"{method_name(method)}, paper",
                f"{PAPER_GOS[method]:.2f}",
                clock(PAPER_TRAIN_S[method]),
                clock(PAPER_TEST_S[method]),
            ]
        )
        train_s = evidence.timing.loc[evidence.timing["method"] == method, "train_s"]
        rows.append(
            [
                f"{method_name(method)}, ours",
                interval_text(gos_by_day(evidence.arrival3, method)),
                clock(train_s.median()),
                clock(float(np.nanmedian(evidence.test_s(method)))),
            ]
        )
    rows.append(
        [
            "AMARL against SARL, paper",
            f"{PAPER_GOS['amarl'] - PAPER_GOS['sarl']:+.2f} points",
            f"× {PAPER_TRAIN_S['amarl'] / PAPER_TRAIN_S['sarl']:.2f}",
            f"× {PAPER_TEST_S['amarl'] / PAPER_TEST_S['sarl']:.2f}",
        ]
    )
    rows.append(
        [
            "AMARL against SARL, ours",
            f"{interval_text(evidence.gos_difference(), sign=True)} points",
            f"× {interval_text(evidence.train_ratio())}",
            f"× {interval_text(evidence.test_ratio())}",
        ]
    )
    n_pairs = evidence.test_ratio().size
    caption = (
        f"Grade of service in %, training and test wall-clock. Ours: {evidence.study.describe()}; "
        f"brackets: {BAND} (GoS), seeds (training), {n_pairs} "
        "timed pairs (test); seconds are medians. Arrival order, 3 attempts. The paper tests on its own day "
        "and hardware."
    )
    return Table(pd.DataFrame(rows, columns=["", "average GoS, %", "training", "test"]), caption, ours=(1, 3, 5))


def headline_table(evidence: Evidence) -> Table:
    """The result in one table: both learners, the paper, and the classical rules on the same days."""
    rows = []
    for method in METHODS:
        train_s = evidence.timing.loc[evidence.timing["method"] == method, "train_s"].median()
        rows.append(
            [
                method_name(method),
                interval_text(gos_by_day(evidence.arrival3, method)),
                f"{PAPER_GOS[method]:.2f}",
                f"{train_s:.0f} s",
                clock(PAPER_TRAIN_S[method]),
                f"{np.nanmedian(evidence.test_s(method)):.2f} s",
                clock(PAPER_TEST_S[method]),
            ]
        )
    rows.append(
        [
            "AMARL against SARL",
            f"{interval_text(evidence.gos_difference(), sign=True)}",
            f"{PAPER_GOS['amarl'] - PAPER_GOS['sarl']:+.2f}",
            f"× {np.median(evidence.train_ratio()):.2f}",
            f"× {PAPER_TRAIN_S['amarl'] / PAPER_TRAIN_S['sarl']:.2f}",
            f"× {np.median(evidence.test_ratio()):.2f}",
            f"× {PAPER_TEST_S['amarl'] / PAPER_TEST_S['sarl']:.2f}",
        ]
    )
    for rule in reversed(evidence.rules()):
        rows.append([method_name(rule), f"{interval(gos_by_day(evidence.baselines, rule))[0]:.2f}", *[""] * 5])
    columns = ["", "GoS, %", "GoS, paper", "training", "training, paper", "test", "test, paper"]
    caption = (
        f"{evidence.study.describe()}; brackets: {BAND}; times and "
        "their ratios are medians over seeds (and repeats). Classical rules need no training."
    )
    return Table(pd.DataFrame(rows, columns=columns), caption, ours=(2,))


def gos_answer(evidence: Evidence) -> Answer:
    """Answer the question of the notebook on grade of service and latency."""
    level = {method: interval_text(gos_by_day(evidence.arrival3, method)) for method in METHODS}
    by_service = gos(evidence.arrival3, ["method", "service"]).unstack("method")
    gain = (by_service["amarl"] - by_service["sarl"]).sort_values()
    latency = evidence.latency.groupby(["service", "method"])[["budget_ms", "p95_ms"]].mean()
    late = int((latency["p95_ms"] > latency["budget_ms"]).groupby("service").any().sum())
    return Answer(
        f"AMARL accepts {level['amarl']} % of requests and SARL {level['sarl']} %: "
        f"{interval_text(evidence.gos_difference(), sign=True)} points (paper "
        f"{PAPER_GOS['amarl'] - PAPER_GOS['sarl']:+.2f}). By service the difference runs from "
        f"{gain.iloc[0]:+.2f} ({service_name(gain.index[0])}) to {gain.iloc[-1]:+.2f} "
        f"({service_name(gain.index[-1])}). AMARL learns it in {np.median(evidence.train_ratio()):.2f} of "
        "SARL's wall-clock. The 95th percentile of latency is within the budget for "
        f"{len(by_service) - late} of {len(by_service)} services."
    )
