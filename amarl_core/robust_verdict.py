"""What the records of a robustness study say: losses against the ordinary day, differences, and the abstract's claim.

A *loss* is the grade of service of a method on an ordinary day minus that of the same run on the same day under a
shift. A *cell* is a day of an overlay; methods are compared on the same cells. Intervals are those of `intervals`: over
seeds, and over cells too where there are enough of them to stand for shifts like them; fewer are taken as they are (a
weekday and a weekend day are no sample of anything). Each function takes the frame of `records.load_robustness`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from amarl_core.intervals import ENOUGH, interval
from amarl_core.overlays import FAMILIES, ORDINARY
from amarl_core.records import METHODS

CLAIM = "improved robustness to demand shifts"
"""The abstract's words, about AMARL (arXiv 2602.00035)."""

RULE = (
    "confirmed if AMARL loses less than SARL on average over all demand shifts and the 95 % interval of the difference "
    "of their losses lies above 0, refuted if it lies below, no difference shown otherwise"
)
"""How the claim is judged."""


@dataclass(frozen=True)
class Difference:
    """A mean or a difference, in percent or points, with its 95 % interval; nan where there is one value only."""

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves out zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.mean:+.2f}"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"

    def as_dict(self) -> dict:
        """The same for JSON."""
        return {"mean": self.mean, "ci95": [self.low, self.high]}


def rules_of(shifts: pd.DataFrame) -> list[str]:
    """Return the rules that were served, best first on the ordinary day."""
    ordinary = shifts[(shifts["overlay"] == ORDINARY) & ~shifts["method"].isin(METHODS)]
    return list(ordinary.groupby("method")["gos"].mean().sort_values(ascending=False).index)


def overlays_of(shifts: pd.DataFrame, *families: str) -> list[str]:
    """Return the overlays of some families, or all of them, in the order of `FAMILIES`; the ordinary day is none."""
    listed = shifts.loc[shifts["overlay"] != ORDINARY, ["overlay", "family"]].drop_duplicates()
    chosen = families or tuple(dict.fromkeys([*FAMILIES, *listed["family"]]))
    return [name for family in chosen for name in sorted(listed.loc[listed["family"] == family, "overlay"])]


def demand_families(shifts: pd.DataFrame) -> list[str]:
    """Return the families of the records in which demand changes."""
    return [family for family, kind in FAMILIES.items() if kind == "demand" and family in set(shifts["family"])]


def cells(shifts: pd.DataFrame, overlays: list[str], method: str, column: str = "gos") -> np.ndarray:
    """Return a method's figures, float64 (n_seeds, n_cells): the days of the overlays, one overlay after the other."""
    part = shifts[(shifts["method"] == method) & shifts["overlay"].isin(overlays)]
    table = part.pivot_table(index="seed", columns=["overlay", "day"], values=column)
    return np.concatenate([table[overlay].to_numpy() for overlay in overlays], axis=1)


def losses(shifts: pd.DataFrame, overlays: list[str], method: str) -> np.ndarray:
    """Return a method's losses in points, (n_seeds, n_cells) as in `cells`."""
    part = shifts[(shifts["method"] == method) & shifts["overlay"].isin([ORDINARY, *overlays])]
    table = part.pivot_table(index="seed", columns=["overlay", "day"], values="gos")
    days = [table[overlay].columns for overlay in overlays]
    return np.concatenate(
        [(table[ORDINARY][day] - table[overlay]).to_numpy() for overlay, day in zip(overlays, days, strict=True)],
        axis=1,
    )


def over_seeds_and_cells(first: np.ndarray, second: np.ndarray | None = None, one: bool = False) -> Difference:
    """Return a mean, or that of first minus second, with its interval.

    Args:
        first: (n_seeds, n_cells).
        second: (n_other_seeds, n_cells), or None.
        one: Whether the cells are days of one overlay.
    """
    n_seeds = max(len(first), len(second) if second is not None else 1)
    if one or (n_seeds > 1 and first.shape[1] < ENOUGH):  # the cells are what they are, not a sample of others
        first = first.mean(axis=1, keepdims=True)
        second = None if second is None else second.mean(axis=1, keepdims=True)
    found = interval(first, second)
    return Difference(found.value, found.low, found.high)


def difference(shifts: pd.DataFrame, overlays: list[str], first: str = "amarl", second: str = "sarl") -> Difference:
    """Return how much more the first method accepts than the second under some shifts, in points."""
    both = (cells(shifts, overlays, method) for method in (first, second))
    return over_seeds_and_cells(*both, one=len(overlays) == 1)


def spared(shifts: pd.DataFrame, overlays: list[str], first: str = "amarl", second: str = "sarl") -> Difference:
    """Return how much less the first method loses than the second, in points: above 0 the first is more robust."""
    both = (-losses(shifts, overlays, method) for method in (first, second))
    return over_seeds_and_cells(*both, one=len(overlays) == 1)


def mean_of(shifts: pd.DataFrame, overlays: list[str], method: str) -> Difference:
    """Return a method's mean grade of service under some shifts, in percent."""
    return over_seeds_and_cells(cells(shifts, overlays, method), one=len(overlays) == 1)


def judge_claim(shifts: pd.DataFrame) -> tuple[str, Difference]:
    """Judge the abstract's claim by `RULE`; return the verdict and how much less AMARL loses than SARL, in points."""
    found = spared(shifts, overlays_of(shifts, *demand_families(shifts)))
    return {1: "confirmed", -1: "refuted", 0: "no difference shown"}[found.sign], found


def worst_loss(shifts: pd.DataFrame, method: str) -> tuple[str, float]:
    """Return the overlay under which a method loses most, and the loss in points, mean over seeds and days."""
    by_overlay = {name: float(losses(shifts, [name], method).mean()) for name in overlays_of(shifts)}
    worst = max(by_overlay, key=by_overlay.__getitem__)
    return worst, by_overlay[worst]


def jain_index(shares: np.ndarray) -> float:
    """Return Jain's fairness index of shares, (sum x)^2 / (n sum x^2): 1 if all are equal, 1/n if one has all.

    Jain, Chiu, Hawe, DEC Research Report TR-301, 1984.
    """
    shares = np.asarray(shares, dtype=float)
    return float(shares.sum() ** 2 / (len(shares) * (shares**2).sum()))


def shares_by_service(shifts: pd.DataFrame, count: str = "accepted", overlay: str = ORDINARY) -> pd.DataFrame:
    """Return requests accepted, or commits aborted, over requests offered, in percent; seeds and days are pooled.

    Returns:
        A row a method, a column a service.
    """
    part = shifts[shifts["overlay"] == overlay].groupby("method").sum(numeric_only=True)
    services = [column.removeprefix("offered_") for column in part.columns if column.startswith("offered_")]
    return pd.DataFrame({s: 100 * part[f"{count}_{s}"] / part[f"offered_{s}"] for s in services})


def summary(shifts: pd.DataFrame) -> dict:
    """Return the whole for `headline.json`: differences by family, worst losses, and the verdict on the claim."""
    if shifts.empty:
        return {}
    verdict, found = judge_claim(shifts)
    families, best = {}, rules_of(shifts)[0]
    for family in dict.fromkeys(shifts["family"]):
        if family != ORDINARY:
            names = overlays_of(shifts, family)
            families[family] = {
                "overlays": len(names),
                "amarl_minus_sarl": difference(shifts, names).as_dict(),
                "amarl_loses_less_by": spared(shifts, names).as_dict(),
                f"amarl_minus_{best}": difference(shifts, names, "amarl", best).as_dict(),
            }
    worst = {method: worst_loss(shifts, method) for method in (*METHODS, *rules_of(shifts))}
    return {
        "claim": CLAIM,
        "rule": RULE,
        "verdict": verdict,
        "amarl_loses_less_by": found.as_dict(),
        "families": families,
        "worst_loss": {method: {"overlay": name, "points": points} for method, (name, points) in worst.items()},
        "jain_index": {m: jain_index(row.to_numpy()) for m, row in shares_by_service(shifts).iterrows()},
        "seeds": int(shifts.loc[shifts["method"].isin(METHODS), "seed"].nunique()),
        "served": len(shifts),
        "audited": int(shifts["violations"].notna().sum()),
        "violations": int(shifts["violations"].sum()),
    }
