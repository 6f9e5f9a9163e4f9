"""Figures and tables on days that went wrong: failures of links and sites, and late telemetry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core.disruption_records import load_disruptions, lock_ratio, lost_points, not_measured, typical_minutes
from amarl_core.failures import REFERENCE
from amarl_core.intervals import BAND
from amarl_core.look import (
    METHOD_COLORS,
    METHOD_MARKERS,
    Answer,
    Note,
    Picture,
    Table,
    drawing,
    finish,
    legend_below,
    listing,
    method_name,
    new_figure,
    with_interval,
)
from amarl_core.plots import interval
from amarl_core.reaction import LOCKS
from amarl_core.recovery import WINDOW_MIN, WITHIN_POINTS, moving

RULE_STYLES = {
    "priced_admission": ("#3d7a46", "-"),
    "priced_reservation": ("#6f6f6f", "--"),
    REFERENCE: ("#a3a3a3", ":"),
}
FAILURE_NAMES = {
    "one_link": "1 link",
    "two_links": "2 links",
    "three_links": "3 links",
    "edge_site": "a CU site",
}
ORDER = ("sarl", "amarl", *RULE_STYLES)
SHADE = "#f3e3df"
DRAWN_MIN = 5
"""Minutes of arrivals behind each point of the figure."""


def failure_name(failure: str) -> str:
    """Short name of a failure; one of another file keeps its own, in words."""
    return FAILURE_NAMES.get(failure, failure.replace("_", " "))


def _methods(frame: pd.DataFrame) -> list[str]:
    found = set(frame["method"])
    return [m for m in ORDER if m in found] + sorted(found - set(ORDER))


def _style(method: str) -> dict:
    if method in METHOD_COLORS:
        return {"color": METHOD_COLORS[method], "linestyle": "-"}
    color, line = RULE_STYLES.get(method, ("#a3a3a3", ":"))
    return {"color": color, "linestyle": line, "linewidth": 1.3}


def _evidence(frame: pd.DataFrame) -> str:
    """Say how many seeds and days stand behind a figure."""
    seeds, days = int(frame.groupby("method")["seed"].nunique().max()), frame["day"].nunique()
    return f"n = {seeds} seed{'s' * (seeds > 1)} of the learners, {days} held-out weekday{'s' * (days > 1)}"


def disruption_answer(folder: Path) -> Answer | Note:
    """Answer: what do failures and late telemetry cost, and are decisions fast enough?"""
    frames = [load_disruptions(folder, kind) for kind in ("failures", "telemetry", "times", "locks")]
    if any(frame is None for frame in frames):
        return not_measured(folder)
    rows, late, times, locks = frames
    worst = rows.groupby("failure")["gos_during"].mean().idxmin()
    part = rows[rows["failure"] == worst].groupby("method")
    during, usual = part["gos_during"].mean(), part["ordinary_during"].mean()
    restored = part["restored"].sum() / part["dropped"].sum().clip(lower=1)
    rule = during.drop(["sarl", "amarl"]).idxmax()
    names = {"amarl": "AMARL", "sarl": "SARL", rule: f"the best rule, {method_name(rule)}"}
    falls = listing(
        f"from {usual[method]:.1f} to {during[method]:.1f} % under {name}" for method, name in names.items()
    )
    mine = rows[(rows["method"] == "amarl") & (rows["failure"] == worst)]
    back = typical_minutes(mine["repair_min"])[0]
    back_again = "is not back an hour" if np.isinf(back) else f"is back {back:g} minutes" if back else "is back as soon"
    age = late[late["method"] == "amarl"].groupby("age_s")["gos"].mean()
    timed = times[(times["method"] == "amarl") & (times["lock"] == LOCKS[0]) & (times["order"] == "free")]
    p99 = timed[timed["kind"] == "request"].groupby("threads")["p99"].median()
    ratio = locks[(locks["method"] == "amarl") & (locks["order"] == "free")].groupby("threads")
    threads = 2 if 2 in ratio.groups else max(ratio.groups)
    return Answer(
        f"The worst failure, {failure_name(worst)}, brings GoS {falls}, for as long as it lasts; AMARL {back_again} "
        f"{'as' if back == 0 else 'after'} that is repaired (median). Of the flows that AMARL has dropped, "
        f"{100 * restored['amarl']:.0f} % are accepted again at once. Telemetry {age.index[-1]:g} s old costs "
        f"AMARL {age.iloc[0] - age.iloc[-1]:.1f} points, 1 s old {age.iloc[0] - age[1.0]:.2f}. On {threads} threads 99 "
        f"of 100 requests are routed and committed within {p99[threads] / 1000:.2g} ms, where a near-real-time RIC has "
        f"10 ms; one lock around the whole routing takes {np.median(lock_ratio(ratio.get_group(threads))):.2f} times "
        "as long."
    )


def failure_figure(folder: Path, failures: tuple[str, ...] = ("three_links", "edge_site")) -> Picture | Note:
    """Draw GoS around failures, minute by minute, all methods side by side.

    Args:
        folder: the study's folder.
        failures: a panel each.
    """
    minutes, rows = load_disruptions(folder, "minutes"), load_disruptions(folder, "failures")
    if minutes is None or rows is None:
        return not_measured(folder)
    return _failure_figure(minutes, rows, tuple(name for name in failures if name in set(rows["failure"])))


@drawing
def _failure_figure(minutes: pd.DataFrame, rows: pd.DataFrame, failures: tuple[str, ...]) -> Picture:
    figure, panels = new_figure(columns=len(failures), height_in=3.2, share_y=True)
    for axes, failure in zip(panels, failures, strict=True):
        part = minutes[minutes["failure"] == failure]
        repair = part["minute"].max() + 1 + part["minute"].min()  # as long on record after it as before
        axes.axvspan(0, repair, color=SHADE, zorder=0)
        for method in _methods(part):
            line = windows_of(part[part["method"] == method])
            axes.plot(line.index, line, label=method_name(method), **_style(method))
        axes.set(title=failure_name(failure), xlabel="minutes from the failure")
        axes.set_xticks(np.arange(part["minute"].min(), part["minute"].max() + 2, 30))
    panels[0].set(ylabel=f"GoS in {DRAWN_MIN} minutes (%)")
    legend_below(figure, panels[0], 5)
    means = rows.groupby(["failure", "method"])[["gos_during", "gos_before"]].mean()
    said = []
    for failure in failures:
        during = means.loc[failure]["gos_during"]
        learners = [method for method in ("sarl", "amarl") if method in during.index]
        found = [f"{during[method]:.1f} % ({method_name(method)})" for method in learners]
        found.append(f"{during.drop(learners).max():.1f} % (best rule)")
        said.append(f"{failure_name(failure)}: GoS falls to {listing(found)}")
    finding = "; ".join(said)
    caption = (
        f"{_evidence(rows)}; policies trained on ordinary days. Shaded: the failure. Mean over seeds and days of "
        f"arrivals in {DRAWN_MIN} minutes, drawn at their end; flows offered again are not among them."
    )
    return finish(figure, finding[0].upper() + finding[1:], caption)


def windows_of(minutes: pd.DataFrame) -> pd.Series:
    """Return GoS (%) by the minute at which a window of `DRAWN_MIN` minutes ends, mean over seeds and days."""
    lines = []
    for _, day in minutes.groupby(["seed", "day"]):
        day = day.sort_values("minute")
        accepted, offered = (moving(day[name].to_numpy(), DRAWN_MIN) for name in ("accepted", "offered"))
        lines.append(pd.Series(100 * accepted / np.maximum(offered, 1), index=day["minute"].iloc[DRAWN_MIN - 1 :] + 1))
    return pd.concat(lines, axis=1).mean(axis=1)


def recovery_table(folder: Path) -> Table | Note:
    """Dropped flows, what became of them, GoS before, during and after, and recovery times."""
    rows = load_disruptions(folder, "failures")
    if rows is None:
        return not_measured(folder)
    lines = []
    for failure in dict.fromkeys(rows["failure"]):
        for method in _methods(rows):
            part = rows[(rows["failure"] == failure) & (rows["method"] == method)]
            lost = part.assign(lost=lost_points(part)).pivot(index="seed", columns="day", values="lost").to_numpy()
            lines.append(
                [
                    failure_name(failure),
                    method_name(method),
                    f"{part['dropped'].mean():.0f}",
                    f"{100 * part['restored'].sum() / max(part['dropped'].sum(), 1):.1f}",
                    f"{part['gos_during'].mean():.1f}",
                    with_interval(*interval(lost), digits=1),
                    " / ".join(_time(part[f"{name}_min"]) for name in ("recovery", "settled", "repair")),
                ]
            )
    names = ["fails", "method", "dropped", "accepted again, %", "GoS, %", "lost, points",
             "recovered / settled / after repair, min"]  # fmt: skip
    caption = (
        f"{_evidence(rows)}; brackets: {BAND}. GoS: of arrivals during the "
        "failure; lost: against the same day without it. Recovered: median minutes until GoS in windows of "
        f"{WINDOW_MIN} minutes stays within {WITHIN_POINTS:g} points of that day's until the repair (after repair: for "
        "the rest of the hour). Settled: the same, without what the second half of the failure loses on average. No: "
        "not in time, on all days, on most, or on so many of them."
    )
    return Table(pd.DataFrame(lines, columns=names), caption, ("method",))


def _time(minutes: pd.Series) -> str:
    median, censored = typical_minutes(minutes)
    if np.isinf(median):
        return "no" if censored == len(minutes) else f"no ({censored}/{len(minutes)})"
    return f"{median:g}" + (f" (no {censored}/{len(minutes)})" if censored else "")


def failed_table(folder: Path) -> Table | Note:
    """Say which links and sites failed on which day."""
    rows = load_disruptions(folder, "failures")
    if rows is None:
        return not_measured(folder)
    table = rows.groupby(["day", "failure"], sort=False)["resources"].first().reset_index()
    table["failure"] = table["failure"].map(failure_name)
    return Table(table.set_axis(["day", "fails", "links and sites"], axis=1), "", ("fails", "links and sites"))


def telemetry_figure(folder: Path) -> Picture | Note:
    """Draw GoS and aborts against the age of telemetry."""
    rows = load_disruptions(folder, "telemetry")
    return not_measured(folder) if rows is None else _telemetry_figure(rows)


@drawing
def _telemetry_figure(rows: pd.DataFrame) -> Picture:
    figure, (left, right) = new_figure(columns=2, height_in=3.2)
    ages = np.sort(rows["age_s"].unique())
    first = ages[ages > 0].min() / 4  # where age 0 stands on an axis of logarithms
    for axes, column in ((left, "gos"), (right, "aborts")):
        for method in _methods(rows):
            line = rows[rows["method"] == method].groupby("age_s")[column].mean()
            axes.plot(np.maximum(line.index, first), line, marker=METHOD_MARKERS.get(method, "."), markersize=4,
                      label=method_name(method), **_style(method))  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks([max(age, first) for age in ages], [f"{age:g}" for age in ages])
        axes.minorticks_off()
        axes.set(xlabel="age of telemetry (s)")
    left.set(ylabel="grade of service (%)")
    right.set(ylabel="aborts (% of requests)")
    legend_below(figure, left, 5)
    means = rows.groupby(["method", "age_s"])["gos"].mean()
    loss = {age: means["amarl", 0.0] - means["amarl", age] for age in ages[ages > 0]}
    middle = min(loss, key=lambda age: abs(age - 1))
    oldest = ages[-1]
    finding = (
        f"Telemetry {middle:g} s old costs AMARL {loss[middle]:.2f} points of GoS, {oldest:g} s old {loss[oldest]:.1f}"
    )
    caption = (
        f"{_evidence(rows)}, served in order of arrival on one thread: plans on the state as it was so many seconds "
        "before in simulated time, commits checked on the state as it is, three attempts, what has refused taken as "
        "full."
    )
    return finish(figure, finding, caption)
