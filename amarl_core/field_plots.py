"""Is 98 % good? Learners, classical rules and the upper bound on the same days."""

from __future__ import annotations

import numpy as np
import pandas as pd

from amarl_core.intervals import BAND
from amarl_core.look import (
    METHOD_COLORS,
    METHOD_NAMES,
    REFERENCE_COLORS,
    Answer,
    Picture,
    Table,
    drawing,
    finish,
    listing,
    method_name,
    new_figure,
    service_name,
    signed,
)
from amarl_core.paper import Evidence, interval_text
from amarl_core.plots import interval
from amarl_core.records import METHODS, gos, gos_by_day, gos_by_day_as, load_baseline_latency

REFERENCE = "shortest_feasible"


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


def latencies(evidence: Evidence) -> pd.DataFrame:
    """Return the mean over each method's accepted requests: latency_ms, and bound_used, its share of the bound."""
    by_service = pd.concat([evidence.latency, load_baseline_latency(evidence.study)], ignore_index=True)
    total_ms = by_service["mean_ms"] * by_service["requests"]
    sums = (
        by_service.assign(latency_ms=total_ms, bound_used=total_ms / by_service["budget_ms"])
        .groupby("method")[["requests", "latency_ms", "bound_used"]]
        .sum()
    )
    return sums[["latency_ms", "bound_used"]].div(sums["requests"], axis=0)


def _waiting(evidence: Evidence) -> str:
    """Say which rules let requests wait for their decision, and how long."""
    if "waited_s" not in evidence.audits:
        return ""
    waited = evidence.audits.groupby("method")["waited_s"].mean()
    return "".join(
        f" {method_name(str(rule))} decides at the end of a window, {seconds:.1f} s after arrival on average; "
        "strictly, the bound is not for such times."
        for rule, seconds in waited[waited > 0].items()
    )


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
        f"{evidence.study.describe()}; bars: {BAND}, mostly the spread between "
        f"days, "
        "which all methods share. " + (f"Off the scale: {', '.join(left_out)}." if left_out else "")
    )
    return finish(figure, finding, caption)


def field_table(evidence: Evidence, bounds: pd.DataFrame) -> Table:
    """Every method: GoS, its distance to the shortest feasible path and to the bound, latency, decisions a second."""
    matrices, rates, latency = field(evidence), requests_per_s(evidence), latencies(evidence)
    reference = matrices[REFERENCE]
    rows = []
    for name, matrix in reversed(matrices.items()):
        closed = closed_share(evidence, bounds, name)
        rows.append(
            [
                method_name(name),
                interval_text(matrix),
                interval_text(matrix - reference, sign=True) if name != REFERENCE else "",
                f"{to_bound(evidence, bounds, name):.2f}" + (f" ({closed:.0f} %)" if closed >= 0 else ""),
                f"{latency.loc[name, 'latency_ms']:.2f} ({100 * latency.loc[name, 'bound_used']:.0f} %)",
                f"{rates[name]:,.0f}" if name in rates else "",
            ]
        )
    columns = ["method", "GoS, %", f"minus {method_name(REFERENCE)}", "to bound (closed)", "latency, ms (of its bound)"]
    columns += ["decisions/s"]
    caption = (
        f"{evidence.study.describe()}; brackets: {BAND}; the distance is paired by day. Rules are "
        "tuned on training days (data/README.md has the settings) and serve on one thread, the learners on all "
        "theirs; decisions/s: requests accepted or rejected in a second. To bound: points that are missing on the days "
        f"that have a bound; closed: share of the distance from {method_name(REFERENCE)} to it, where it is not "
        "negative. Latency: end to end, mean over accepted requests, and as a share of what the service allows; who "
        f"accepts tight requests that others reject changes both.{_waiting(evidence)}"
    )
    ours = tuple(i for i, row in enumerate(rows) if row[0] in METHOD_NAMES.values())
    return Table(pd.DataFrame(rows, columns=columns), caption, ours=ours)


def service_table(evidence: Evidence) -> Table:
    """GoS of every method by service, in the order of the field."""
    outcomes = pd.concat([evidence.arrival3, evidence.baselines], ignore_index=True)
    by_service = gos(outcomes, ["method", "service"]).unstack("service").loc[list(reversed(field(evidence)))]
    rows = [[method_name(str(name)), *(f"{gos:.2f}" for gos in row)] for name, *row in by_service.itertuples()]
    columns = ["method", *(service_name(service) for service in by_service.columns)]
    ours = tuple(i for i, row in enumerate(rows) if row[0] in METHOD_NAMES.values())
    return Table(pd.DataFrame(rows, columns=columns), f"GoS in %. {evidence.study.describe()}, pooled.", ours=ours)


def gos_on(evidence: Evidence, method: str, day: str, measure: str = "requests") -> float:
    """Return a method's GoS in percent on one day, mean over seeds; `measure` as in `records.gos_by_day_as`."""
    outcomes = evidence.arrival3 if method in METHODS else evidence.baselines
    part = outcomes[(outcomes["day"] == day) & (outcomes["method"] == method)]
    return float(gos_by_day_as(part, method, measure).mean())


def closed_share(evidence: Evidence, bounds: pd.DataFrame, method: str) -> float:
    """Return the percent of the distance from shortest feasible path to the bound that a method closes, by requests."""
    upper = bounds[bounds["weight"] == "requests"].set_index("day")["upper"] * 100
    reference = np.array([gos_on(evidence, REFERENCE, day) for day in upper.index])
    gained = np.array([gos_on(evidence, method, day) for day in upper.index]) - reference
    return float(100 * gained.sum() / (upper.to_numpy() - reference).sum())


def to_bound(evidence: Evidence, bounds: pd.DataFrame, method: str) -> float:
    """Return the points between a method's GoS and the bound, mean over the days that have one, by requests."""
    upper = bounds[bounds["weight"] == "requests"].set_index("day")["upper"] * 100
    return float(np.mean([value - gos_on(evidence, method, day) for day, value in upper.items()]))


def bound_table(evidence: Evidence, bounds: pd.DataFrame) -> Table:
    """The bound of each day beside the best rule and the learners, by requests and by traffic."""
    best = evidence.rules()[-1]
    shown = [REFERENCE, best, *METHODS]
    rows = []
    for row in bounds.sort_values(["weight", "day"]).itertuples():
        reached = [gos_on(evidence, method, row.day, row.weight) for method in shown]
        rows.append(
            [
                row.day,
                row.weight,
                f"{100 * row.upper:.2f}",
                f"{100 * row.gap:.2f}",
                f"{100 * row.covered:.0f}",
                *(f"{value:.2f}" for value in reached),
                f"{100 * row.upper - reached[1]:.2f}",
            ]
        )
    names = [method_name(method) for method in shown]
    columns = ["day", "weight", "bound, %", "gap, points", "covered, %", *names, "best rule to bound"]
    block_s, seconds = bounds["block_s"].iloc[0], bounds["seconds"].max()
    closed = ", ".join(f"{method_name(m)} {closed_share(evidence, bounds, m):.0f} %" for m in shown[1:])
    caption = (
        f"GoS in % by requests, and by Mb/s x s (traffic). Blocks of {block_s:g} s; at most {seconds:.0f} s of "
        f"solving each; "
        "gap: to the best point of the program found, so the bound may come down by no more than that; covered: "
        "requests in "
        "windows that were solved or lost nothing, the rest count as accepted. Share of the distance from shortest "
        "feasible "
        f"path to the bound that is closed, by requests: {closed}."
    )
    return Table(pd.DataFrame(rows, columns=columns), caption, text_columns=("weight",))


def field_answer(evidence: Evidence, bounds: pd.DataFrame) -> Answer:
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
        f"AMARL accepts {word} that ({signed(gain, low, high, unit=' points')}). It needs no training. "
        f"No policy, not even one that knows the future, accepts more than {_upper(bounds)}; {method_name(best)} "
        f"closes "
        f"{closed_share(evidence, bounds, best):.0f} % of the distance from shortest feasible path to that bound, "
        f"AMARL "
        f"{closed_share(evidence, bounds, 'amarl'):.0f} %."
    )


def _upper(bounds: pd.DataFrame) -> str:
    rows = bounds[bounds["weight"] == "requests"].sort_values("day")
    return listing(f"{100 * row.upper:.2f} % on {row.day}" for row in rows.itertuples())
