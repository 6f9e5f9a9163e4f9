"""Is 98 % good? Learners and classical rules on the same days, in one figure and one table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from amarl_core.look import (
    METHOD_COLORS,
    METHOD_NAMES,
    REFERENCE_COLORS,
    Answer,
    Picture,
    Table,
    drawing,
    finish,
    method_name,
    new_figure,
)
from amarl_core.paper import Evidence, interval_text
from amarl_core.plots import interval
from amarl_core.records import METHODS, gos, gos_by_day

REFERENCE = "shortest_feasible"
HARDEST = "augmented_reality"


def field(evidence: Evidence) -> dict[str, np.ndarray]:
    """Return each method's GoS in percent, (n_seeds, n_days), worst first."""
    matrices = {method: gos_by_day(evidence.arrival3, method) for method in METHODS}
    matrices |= {rule: gos_by_day(evidence.baselines, rule) for rule in evidence.rules()}
    return dict(sorted(matrices.items(), key=lambda item: item[1].mean()))


def requests_per_s(evidence: Evidence) -> dict[str, float]:
    """Return how many requests a second each method serves: the learners in arrival order, the rules on one thread."""
    offered = evidence.arrival3.groupby(["method", "seed", "day"])["requests"].sum()
    timed = list(evidence.study.days[: evidence.study.info.get("n_timed_days", len(evidence.study.days))])
    per_test = offered.groupby("day").first().reindex(timed).sum()
    rates = {method: per_test / np.nanmedian(evidence.test_s(method)) for method in METHODS}
    audits = evidence.audits
    if "test_s" in audits:
        sums = audits.dropna(subset=["test_s"]).groupby("method")[["requests", "test_s"]].sum()
        rates |= (sums["requests"] / sums["test_s"]).to_dict()
    return rates


@drawing
def field_figure(evidence: Evidence) -> Picture:
    """Draw every method's GoS with its interval; the two that look at no load would squeeze the rest and are named."""
    matrices = field(evidence)
    means = {name: matrix.mean() for name, matrix in matrices.items()}
    shown = [name for name in matrices if means[name] > means[REFERENCE] - 3.0]
    left_out = [f"{method_name(name)} {means[name]:.1f} %" for name in matrices if name not in shown]
    figure, (axes,) = new_figure(height_in=1.2 + 0.27 * len(shown))
    for place, name in enumerate(shown):
        mean, low, high = interval(matrices[name])
        color = METHOD_COLORS.get(name, REFERENCE_COLORS[0])
        axes.plot([low, high], [place, place], color=color, linewidth=2.4, alpha=0.55, solid_capstyle="butt")
        axes.plot(mean, place, marker="o" if name in METHODS else "D", color=color, markersize=6)
    axes.set(yticks=range(len(shown)), yticklabels=[method_name(name) for name in shown], xlabel="grade of service (%)")
    axes.grid(axis="y", visible=False)
    best = evidence.rules()[-1]
    gain = evidence.gain_over_rule(best)
    finding = (
        f"The best rule, {method_name(best)}, accepts {means[best]:.2f} %; AMARL {means['amarl']:.2f} %: "
        f"{interval_text(gain, sign=True)} points on the same days"
    )
    caption = (
        f"{evidence.study.describe()}; bars: 95 % bootstrap interval over seeds and days, mostly the spread between "
        f"days, "
        "which all methods share. " + (f"Off the scale: {', '.join(left_out)}." if left_out else "")
    )
    return finish(figure, finding, caption)


def field_table(evidence: Evidence) -> Table:
    """Every method: GoS, its distance to the shortest feasible path on the same days, AR, and requests a second."""
    matrices, rates = field(evidence), requests_per_s(evidence)
    outcomes = pd.concat([evidence.arrival3, evidence.baselines], ignore_index=True)
    by_service = gos(outcomes, ["method", "service"]).unstack("service")
    hardest = HARDEST if HARDEST in by_service else by_service.mean().idxmin()
    reference = matrices[REFERENCE]
    rows = []
    for name, matrix in reversed(matrices.items()):
        rows.append(
            [
                method_name(name),
                "learns" if name in METHODS else "rule",
                interval_text(matrix),
                interval_text(matrix - reference, sign=True) if name != REFERENCE else "",
                f"{by_service.loc[name, hardest]:.1f}",
                f"{rates[name]:,.0f}" if name in rates else "",
            ]
        )
    columns = ["method", "kind", "GoS, %", f"minus {method_name(REFERENCE)}", "AR, %", "requests/s"]
    if hardest != HARDEST:
        columns[4] = f"{hardest}, %"
    caption = (
        f"{evidence.study.describe()}; 95 % bootstrap intervals; the distance is paired by day. Rules tuned on "
        f"training days "
        "(data/README.md has the settings); k shortest and reoptimise plan on the same state as the others."
    )
    ours = tuple(i for i, row in enumerate(rows) if row[0] in METHOD_NAMES.values())
    return Table(pd.DataFrame(rows, columns=columns), caption, text_columns=("kind",), ours=ours)


def field_answer(evidence: Evidence) -> Answer:
    """Answer: is the learners' GoS good?"""
    matrices = field(evidence)
    best = evidence.rules()[-1]
    gain, low, high = interval(evidence.gain_over_rule(best))
    word = "more than" if low > 0 else "less than" if high < 0 else "no more and no less than"
    over = interval_text(matrices["amarl"] - matrices[REFERENCE], sign=True)
    return Answer(
        f"Plain shortest feasible path accepts {matrices[REFERENCE].mean():.2f} % on the same days; AMARL {over} "
        f"points "
        f"more. The best of {len(evidence.rules())} rules, {method_name(best)}, accepts {matrices[best].mean():.2f} "
        f"%, and "
        f"AMARL accepts {word} that ({gain:+.2f} points [{low:+.2f}, {high:+.2f}]). It needs no training."
    )
