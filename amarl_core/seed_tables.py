"""What the study `seeds` found: do SARL, AMARL and the best rules differ once there are ten seeds?"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from amarl_core.errors import RunError
from amarl_core.findings import compare
from amarl_core.look import Note, Table, listing, method_name, signed, with_interval
from amarl_core.studies import outcomes, read_study

STUDY = "seeds"
COMMAND = f"python -m amarl_core.batch study {STUDY}"
AGAINST = ("sarl", "priced_admission")
"""What all others are held against: the central agent, and the best rule."""


def seeds_summary(root: Path) -> dict | None:
    """Return the study's result for `headline.json`, or None while it is not whole.

    Args:
        root: where studies are recorded, such as `reports/runs`.

    Returns:
        seeds and days; by policy gos (%, with its interval) and violations; and by policy of `AGAINST` each other
        policy's difference in points and its probability of improvement, with their intervals.
    """
    found = _whole(root)
    if found is None:
        return None
    tables = {against: compare(found, against=against).set_index("policy") for against in AGAINST}
    table, violations = tables[AGAINST[0]], found.groupby("policy")["violations"].sum()
    by_policy = {
        policy: {
            "gos_mean": 100 * row["mean"],
            "gos_ci95": [100 * row["low"], 100 * row["high"]],
            "violations": int(violations[policy]),
        }
        for policy, row in table.iterrows()
    }
    minus = {
        against: {
            policy: {
                "mean": 100 * row["difference"],
                "ci95": [100 * row["difference_low"], 100 * row["difference_high"]],
                "probability_of_improvement": row["better"],
                "probability_ci95": [row["better_low"], row["better_high"]],
            }
            for policy, row in rows.drop(index=against).iterrows()
        }
        for against, rows in tables.items()
    }
    counts = {"seeds": int(table["seeds"].max()), "days": int(table["days"].max()), "served_days": len(found)}
    return counts | {"how": table["how"].iloc[0], "by_policy": by_policy, "minus": minus}


def seeds_table(root: Path) -> Table | Note:
    """Show what each policy accepts and how it differs from the central agent and from the best rule.

    Args:
        root: where studies are recorded, such as `reports/runs`.
    """
    found = seeds_summary(root)
    if found is None:
        return Note(f"The study of ten seeds is not whole: `{COMMAND}` takes about three quarters of an hour.")
    rows = []
    for policy, about in found["by_policy"].items():
        row = {"": method_name(policy), "GoS, %": with_interval(about["gos_mean"], *about["gos_ci95"])}
        for against in AGAINST:
            less = found["minus"][against].get(policy)
            row[f"minus {method_name(against)}"] = "" if less is None else signed(less["mean"], *less["ci95"], digits=3)
        less = found["minus"][AGAINST[0]].get(policy)
        row["better than SARL"] = "" if less is None else f"{less['probability_of_improvement']:.2f}"
        rows.append(row)
    violations = sum(about["violations"] for about in found["by_policy"].values())
    caption = (
        f"{found['seeds']} seeds of each learner, {found['days']} held-out days; {violations} violations in "
        f"{found['served_days']} audited days; rules have no seed. Brackets: {found['how']}; differences are in points "
        f"and paired by day. Better than SARL: the probability that a seed's day is. {_finding(found)} `{COMMAND}`."
    )
    return Table(pd.DataFrame(rows), caption)


def _finding(found: dict) -> str:
    """Say in a sentence from whom AMARL can be told apart."""
    apart, alike = [], []
    for against in AGAINST:
        low, high = found["minus"][against]["amarl"]["ci95"]
        name = method_name(against)
        apart += [f"{'more' if low > 0 else 'less'} than {name}"] if low > 0 or high < 0 else []
        alike += [name] if low <= 0 <= high else []
    sentences = [f"AMARL accepts {listing(apart)}."] if apart else []
    return " ".join(sentences + ([f"AMARL cannot be told apart from {listing(alike)}."] if alike else []))


def _whole(root: Path) -> pd.DataFrame | None:
    study = read_study(STUDY)
    try:
        found = outcomes(study, root=root)
    except RunError:  # none of it is there
        return None
    return found if len(found) == sum(trial.kind.name == "serve" for trial in study.trials) else None
