"""What asynchrony costs, as figures: staleness, lag, attempts, and the forms between SARL and AMARL."""

from __future__ import annotations

import numpy as np
import pandas as pd

from amarl_core.intervals import BAND
from amarl_core.look import Answer, Picture, Table, drawing, finish, legend_below, new_figure, with_interval
from amarl_core.plots import interval
from amarl_core.records import METHODS, gos_by_day

ONE, THREE = "#d55e00", "#0b5c8a"  # one attempt, three attempts
FORM_NAMES = {
    "sarl": "SARL",
    "amarl": "AMARL",
    "sarl-async": "one policy, an actor a service",
    "amarl-serial": "a policy a service, one thread",
    "amarl-sync": "a policy a service, in step",
    "sarl-wide": "SARL, as many parameters as AMARL",
    "amarl-lag-60": "AMARL, lag of 1 min",
    "amarl-lag-600": "AMARL, lag of 10 min",
    "amarl-lag-inf": "AMARL, no lag bound",
    "amarl-obliging": "AMARL that never refuses",
    "amarl-selfish": "AMARL, paid for itself alone",
}


def _seeds(sweep: pd.DataFrame) -> str:
    seeds, days = sweep["seed"].nunique(), sweep["day"].nunique()
    return f"AMARL, {seeds} seed{'s' if seeds > 1 else ''}, {days} held-out day{'s' if days > 1 else ''}"


def _means(sweep: pd.DataFrame, name: str, by: str, column: str, attempts: int) -> pd.Series:
    part = sweep[(sweep["sweep"] == name) & (sweep["attempts"] == attempts)]
    return part.groupby(by)[column].mean()


@drawing
def staleness_figure(sweep: pd.DataFrame) -> Picture:
    """Draw GoS and aborts against the age of snapshots, in requests."""
    figure, (left, right) = new_figure(columns=2, height_in=3.1)
    for axes, column, factor in ((left, "gos", 1), (right, "conflict_rate", 100)):
        for attempts, color in ((1, ONE), (3, THREE)):
            for name, style, label in (("pipeline", "-", "exactly so old"), ("window", "--", "threads, at most")):
                line = factor * _means(sweep, name, "window", column, attempts)
                axes.plot(line.index, line, style, color=color, marker="o", markersize=3.5,
                          label=f"{label}, {attempts} attempt{'s' if attempts > 1 else ''}")  # fmt: skip
        axes.set(xlabel="age of snapshots (requests)")
    left.set(ylabel="grade of service (%)")
    right.set(ylabel="aborts (% of requests)")
    legend_below(figure, left, 2)
    line = _means(sweep, "pipeline", "window", "gos", 1)
    again = _means(sweep, "pipeline", "window", "gos", 3)
    finding = (
        f"With one attempt, snapshots {line.index[-1]:.0f} requests old cost {line.iloc[0] - line.iloc[-1]:.1f} "
        f"points; with three attempts {again.iloc[0] - again.iloc[-1]:.1f}"
    )
    caption = (
        f"{_seeds(sweep)}, arrival order. Solid: one thread that plans exactly so many requests ahead (the same on "
        "every machine). Dashed: threads that may plan so far ahead; on few cores they are seldom that far."
    )
    return finish(figure, finding, caption)


@drawing
def lag_figure(sweep: pd.DataFrame) -> Picture:
    """Draw GoS and what it hides against the lag between clocks, in free order."""
    figure, (left, right) = new_figure(columns=2, height_in=3.1)
    gos = {attempts: _means(sweep, "lag", "lag_s", "gos", attempts) for attempts in (1, 3)}
    places = np.arange(len(gos[1]))
    labels = ["no bound" if np.isinf(lag) else f"{lag:g}" for lag in gos[1].index]
    for attempts, color in ((1, ONE), (3, THREE)):
        plural = "s" if attempts > 1 else ""
        left.plot(places, gos[attempts], color=color, marker="o", markersize=4, label=f"{attempts} attempt{plural}")
        right.plot(places, _means(sweep, "lag", "lag_s", "overbooked", attempts), color=color, marker="o", markersize=4)
    exact = _means(sweep, "pipeline", "window", "gos", 1).iloc[0]
    left.axhline(exact, color="#6f6f6f", linestyle="--", linewidth=1.1, label="serial: exact in time")
    for axes in (left, right):
        axes.set(xlabel="lag allowed between clocks (s)", xticks=places, xticklabels=labels)
    left.set(ylabel="grade of service (%)")
    right.set(ylabel="overbooked admissions (%)")
    legend_below(figure, left, 3)
    unbounded = gos[3].iloc[-1]
    hidden = _means(sweep, "lag", "lag_s", "overbooked", 3).iloc[-1]
    finding = (
        f"Without a bound the clocks drift apart: GoS seems {unbounded - exact:+.1f} points against the serial run, "
        f"with {hidden:.0f} % of admissions overbooked in simulated time"
    )
    caption = (
        f"{_seeds(sweep)}, free order. Overbooked: admissions after which, in simulated time, a link or pool is beyond "
        "its capacity, because an agent whose clock is ahead has freed what a slower one takes in the past."
    )
    return finish(figure, finding, caption)


def attempts_table(sweep: pd.DataFrame) -> Table:
    """GoS, aborts, re-plans, staleness and time by commit order and number of attempts."""
    columns = ["gos", "conflict_rate", "replans", "stale_s", "overbooked", "lock_wait_s", "wall_s"]
    table = sweep[sweep["sweep"] == "attempts"].groupby(["order", "attempts"])[columns].mean()
    rows = [
        [
            order,
            attempts,
            f"{r.gos:.2f}",
            f"{100 * r.conflict_rate:.2f}",
            f"{100 * r.replans:.2f}",
            f"{r.stale_s:.2f}",
            f"{r.overbooked:.2f}",
            f"{1000 * r.lock_wait_s:.0f}",
            f"{r.wall_s:.2f}",
        ]
        for (order, attempts), r in table.iterrows()
    ]
    names = ["order", "attempts", "GoS, %", "aborts, %", "plans anew, %", "behind, s", "overbooked, %",
             "lock wait, ms", "wall, s"]  # fmt: skip
    caption = (
        f"{_seeds(sweep)}. Aborts and plans made anew per 100 requests; behind: seconds "
        "from the last event that a snapshot saw to the request's arrival; lock wait: all threads, the whole day."
    )
    return Table(pd.DataFrame(rows, columns=names), caption)


def forms_of(evidence, forms: pd.DataFrame) -> pd.DataFrame:
    """Return the study's SARL and AMARL and the other forms in one frame: form, seed, day, gos, train_s, env_steps."""
    kept = forms[forms["seed"].isin(evidence.study.seeds) & forms["day"].isin(evidence.study.days)]
    rows = []
    for method in METHODS:
        matrix = gos_by_day(evidence.arrival3, method)
        timing = evidence.timing[evidence.timing["method"] == method].set_index("seed")
        for seed in sorted(set(kept["seed"])):
            about = {"form": method, "seed": seed} | timing.loc[seed, ["train_s", "env_steps"]].to_dict()
            gos = dict(zip(evidence.study.days, matrix[evidence.study.seeds.index(seed)], strict=True))
            rows += [about | {"day": day, "gos": gos[day]} for day in sorted(set(kept["day"]))]
    return pd.concat([pd.DataFrame(rows), kept], ignore_index=True)


def _matrix(table: pd.DataFrame, form: str) -> np.ndarray:
    return table[table["form"] == form].pivot(index="seed", columns="day", values="gos").to_numpy()


@drawing
def forms_figure(table: pd.DataFrame) -> Picture:
    """Draw GoS minus SARL's and training time for every form."""
    names = [form for form in FORM_NAMES if form in set(table["form"])]
    figure, (left, right) = new_figure(columns=2, height_in=1.2 + 0.27 * len(names), share_y=True)
    sarl = _matrix(table, "sarl")
    seconds = table.groupby(["form", "seed"])["train_s"].first().groupby("form")
    for place, form in enumerate(reversed(names)):
        mean, low, high = interval(_matrix(table, form) - sarl)
        left.plot([low, high], [place, place], color=THREE, linewidth=2.4, alpha=0.5, solid_capstyle="butt")
        left.plot(mean, place, "o", color=THREE)
        right.barh(place, seconds.median()[form], color=THREE, height=0.6, alpha=0.8)
    left.axvline(0, color="#8a8a8a", linewidth=1)
    left.set(yticks=range(len(names)), yticklabels=[FORM_NAMES[form] for form in reversed(names)],
             xlabel="GoS minus SARL's (points)")  # fmt: skip
    right.set(xlabel="training wall-clock (s)")
    ratio = {form: seconds.median()[form] / seconds.median()["sarl"] for form in names}
    finding = (
        f"One policy with an actor a service trains in {ratio['sarl-async']:.2f} of SARL's time, a policy a service in "
        f"{ratio['amarl']:.2f}, and in {ratio['amarl-sync']:.2f} when every update waits for all"
    )
    n_seeds, n_days = table["seed"].nunique(), table["day"].nunique()
    caption = (
        f"n = {n_seeds} seed(s), {n_days} held-out day(s), all forms trained on the same days, every request once; "
        f"bars left: {BAND}, paired; right: medians over seeds. Actors of one "
        "policy "
        "update one after the other; policies on one thread hand over at every event, in Python, which takes time."
    )
    return finish(figure, finding, caption)


def forms_table(table: pd.DataFrame) -> Table:
    """GoS, time and waiting of every form."""
    rows = []
    for form in (name for name in FORM_NAMES if name in set(table["form"])):
        part = table[table["form"] == form]
        runs = part.groupby("seed").first()
        mean, low, high = interval(_matrix(table, form))
        extra = runs.reindex(columns=["parameters", "wait_s", "idle_s", "overbooked"]).median()
        rows.append(
            [
                FORM_NAMES[form],
                with_interval(mean, low, high),
                f"{runs['train_s'].median():.1f}",
                *[
                    "" if np.isnan(extra[c]) else f"{extra[c]:,.{d}f}"
                    for c, d in (("parameters", 0), ("wait_s", 1), ("idle_s", 1), ("overbooked", 2))
                ],
            ]  # fmt: skip
        )
    names = ["form", "GoS, %", "training, s", "parameters", "wait for clocks, s", "idle at barrier, s", "overbooked, %"]
    caption = (
        "Medians over seeds. Waiting and idling are sums over the agents, of which there are more than cores, so "
        "not all "
        "of it is lost; overbooked: in training, in simulated time."
    )
    return Table(pd.DataFrame(rows, columns=names), caption)


def async_answer(sweep: pd.DataFrame, table: pd.DataFrame) -> Answer:
    """Answer: what does asynchrony do to GoS and speed?"""
    exact = _means(sweep, "pipeline", "window", "gos", 1).iloc[0]
    attempts = sweep[(sweep["sweep"] == "attempts") & (sweep["order"] == "arrival")].groupby("attempts")["gos"].mean()
    unbounded = _means(sweep, "lag", "lag_s", "gos", 3).iloc[-1]
    seconds = table.groupby(["form", "seed"])["train_s"].first().groupby("form").median()
    return Answer(
        f"Served one by one, AMARL accepts {exact:.2f} %. In arrival order on threads it accepts {attempts[1]:.2f} "
        f"% with "
        f"one attempt and {attempts[3]:.2f} % with three, which the headline uses. In free order without a bound on "
        f"the "
        f"lag GoS reads {unbounded:.2f} %: {unbounded - exact:+.2f} points are an artefact of clocks that drift "
        f"apart. A "
        f"barrier at every update makes training take {seconds['amarl-sync'] / seconds['amarl']:.2f} of AMARL's "
        f"time; one "
        f"policy with an actor a service takes {seconds['sarl-async'] / seconds['amarl']:.2f} of it."
    )
