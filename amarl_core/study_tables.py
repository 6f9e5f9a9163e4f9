"""Tables of a study beyond the paper's: other definitions, classical rules, latency, time and the audit."""

from __future__ import annotations

import pandas as pd

from amarl_core.intervals import BAND
from amarl_core.look import METHOD_NAMES, Table, method_name, service_name
from amarl_core.paper import Evidence, interval_text
from amarl_core.records import METHODS, gos_by_day, gos_by_day_as


def gos_table(evidence: Evidence) -> Table:
    """Grade of service by every definition, commit order and number of attempts."""
    cases = [
        ("all requests (the headline)", evidence.arrival3, "requests"),
        ("mean over the services", evidence.arrival3, "services"),
        ("share of the offered traffic", evidence.arrival3, "traffic"),
        ("busy hour", evidence.arrival3, "busy hour"),
        ("all requests, 1 attempt (as the paper)", evidence.arrival1, "requests"),
        ("all requests, free order, 3 attempts", evidence.free3, "requests"),
    ]
    rows = []
    for label, outcomes, measure in cases:
        by_method = {method: gos_by_day_as(outcomes, method, measure) for method in METHODS}
        rows.append(
            [
                label,
                *[interval_text(by_method[method]) for method in METHODS],
                interval_text(by_method["amarl"] - by_method["sarl"], sign=True),
            ]
        )
    caption = (
        f"Grade of service in %, difference in points. {evidence.study.describe()}; "
        f"brackets: {BAND}. Arrival order with 3 attempts unless it says otherwise; free "
        "order lets an agent re-use capacity of the past (see the audit), so its figures flatter."
    )
    return Table(pd.DataFrame(rows, columns=["definition", "SARL", "AMARL", "AMARL minus SARL"]), caption)


def baseline_table(evidence: Evidence) -> Table:
    """Classical rules on the same days, and AMARL's gain over each, paired by day."""
    rows = [
        [
            method_name(rule),
            interval_text(gos_by_day(evidence.baselines, rule)),
            interval_text(evidence.gain_over_rule(rule), sign=True),
        ]
        for rule in reversed(evidence.rules())
    ]
    caption = (
        f"Grade of service in % over {len(evidence.study.days)} held-out days; AMARL's gain in points, paired by day."
    )
    return Table(pd.DataFrame(rows, columns=["rule", "GoS", "AMARL minus the rule"]), caption)


def latency_table(evidence: Evidence) -> Table:
    """Mean and 95th percentile latency of accepted requests by service against its budget."""
    table = evidence.latency.groupby(["service", "method"])[["budget_ms", "mean_ms", "p95_ms"]].mean()
    rows = []
    for service in table.index.unique("service"):
        row = [service_name(service), f"{table.loc[service, 'budget_ms'].iloc[0]:g}"]
        for method in METHODS:
            row += [f"{table.loc[(service, method), column]:.2f}" for column in ("mean_ms", "p95_ms")]
        rows.append(row)
    columns = ["service", "budget, ms", "SARL mean", "SARL 95th", "AMARL mean", "AMARL 95th"]
    caption = f"Latency of accepted requests in ms; means over {evidence.study.describe()[4:]} of each day's figure."
    return Table(pd.DataFrame(rows, columns=columns), caption)


def timing_table(evidence: Evidence) -> Table:
    """Wall-clock with processor time beside it, steps and memory, of both methods."""
    by_method = evidence.timing.groupby("method").median(numeric_only=True)
    duel = evidence.duel.groupby(["order", "method"])[["test_s", "cpu_s"]].median()
    figures = [
        ("training, wall-clock s", by_method["train_s"], ",.1f"),
        ("training, processor s", by_method["cpu_s"], ",.1f"),
        ("training, decisions", by_method["env_steps"], ",.0f"),
        ("training, decisions/s", by_method["steps_per_s"], ",.0f"),
        ("training, updates", by_method["updates"], ",.0f"),
        ("training, peak memory MB", by_method["peak_rss_mb"], ",.0f"),
    ]
    for order in ("arrival", "free"):
        figures.append((f"test in {order} order, wall-clock s", duel.loc[order, "test_s"], ",.2f"))
        figures.append((f"test in {order} order, processor s", duel.loc[order, "cpu_s"], ",.2f"))
    rows = [
        [name, *[format(values[method], form) for method in METHODS], f"{values['amarl'] / values['sarl']:.2f}"]
        for name, values, form in figures
    ]
    caption = (
        f"Medians over {len(evidence.study.seeds)} seed(s) and {evidence.test_ratio().size} timed "
        "pairs; a test is all "
        f"{len(evidence.study.days)} held-out days, one after the other. Here the ratio is that of the medians."
    )
    return Table(pd.DataFrame(rows, columns=["", "SARL", "AMARL", "AMARL / SARL"]), caption)


def audit_table(evidence: Evidence) -> Table:
    """What the independent replay found, by method and kind of run."""
    names = {
        "train": "training (free order)",
        "arrival3": "test, arrival order, 3 attempts",
        "arrival1": "test, arrival order, 1 attempt",
        "free3": "test, free order, 3 attempts",
    }
    audits = evidence.audits.assign(method=evidence.audits["method"].map(METHOD_NAMES).fillna("classical rules"))
    sums = audits.groupby(["variant", "method"], sort=False).agg(
        runs=("day", "size"),
        requests=("requests", "sum"),
        violations=("violations", "sum"),
        admissions=("admissions", "sum"),
        overbooked=("overbooked", "sum"),
        peak=("peak", "max"),
    )
    rows = [
        [
            method,
            names.get(variant, variant),
            f"{int(r.runs):,}",
            f"{int(r.requests):,}",
            f"{int(r.violations):,}",
            f"{100 * r.overbooked / max(1, r.admissions):.2f}",
            f"{r.peak:.2f}",
        ]
        for (variant, method), r in sums.iterrows()
    ]
    columns = ["method", "runs of", "number", "requests", "violations", "overbooked, %", "peak use"]
    caption = (
        "Each run replayed from an empty network by code that shares nothing with the simulator. "
        "Overbooked: admissions beyond capacity in simulated time, which lock order hides; peak use: 1 "
        "is full."
    )
    return Table(pd.DataFrame(rows, columns=columns), caption, text_columns=("runs of",))
