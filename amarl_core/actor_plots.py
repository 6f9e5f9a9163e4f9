"""What several actors of one service gain, as a figure, a table and a sentence; see `actor_gain.measure`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from amarl_core.actor_gain import RECORD
from amarl_core.intervals import t_interval
from amarl_core.look import METHOD_COLORS, Answer, Note, Picture, Table, drawing, finish, new_figure, with_interval
from amarl_core.runs import read_frame
from amarl_core.stats import bootstrap_ci

SPLIT_COLOR = "#009e73"
FORM_NAMES = {"sarl": "SARL", "one": "AMARL, one actor a service", "by_load": "AMARL, actors by load"}
COLORS = {"sarl": METHOD_COLORS["sarl"], "one": METHOD_COLORS["amarl"], "by_load": SPLIT_COLOR}
COMMAND = "python -m amarl_core.steps actors"


def load_actors(folder: Path) -> pd.DataFrame | Note:
    """Read what was measured in a study's folder, or say how to measure it."""
    if (folder / RECORD).exists():
        return read_frame(folder / RECORD)
    return Note(f"Not measured in this study yet: {COMMAND} {folder.name} takes about a minute.")


def ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the training wall-clock over SARL's of the same repeat: one row a repeat, one column a form."""
    seconds = rows.pivot(index="repeat", columns="form", values="train_s")[list(FORM_NAMES)]
    return seconds.div(seconds["sarl"], axis=0)


def least_ratios(rows: pd.DataFrame) -> dict[str, float]:
    """Return what no schedule of the work can beat: the busiest actor's share of it, or a core's.

    By decisions, which is what rollout and update both take their time by. Splitting an agent evenly makes each of its
    actors carry so much less.
    """
    parts = rows.groupby("form")[["share", "actors", "cores"]].median()
    busiest, core = parts["share"] / 100 / parts["actors"], 1 / parts["cores"]
    return busiest.clip(lower=core).drop("sarl").to_dict()


def actors_figure(rows: pd.DataFrame | Note) -> Picture | Note:
    """Draw training time against SARL's, and grade of service, for every form.

    Args:
        rows: from `load_actors`.
    """
    return rows if isinstance(rows, Note) else _draw(rows)


@drawing
def _draw(rows: pd.DataFrame) -> Picture:
    figure, (left, right) = new_figure(columns=2, height_in=2.5, share_y=True)
    ratio, gos = ratios(rows), rows.pivot(index="repeat", columns="form", values="gos")
    least, names = least_ratios(rows), list(FORM_NAMES)[::-1]
    for place, form in enumerate(names):
        for axes, values in ((left, ratio[form]), (right, gos[form] - gos["sarl"])):
            jitter = place + np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [place]
            axes.plot(values, jitter, "o", color=COLORS[form], markersize=4, alpha=0.55, markeredgewidth=0)
            axes.plot([np.median(values)] * 2, [place - 0.3, place + 0.3], color=COLORS[form], linewidth=2.2)
        if form in least:
            left.plot(least[form], place, "|", color="#333333", markersize=13)
    left.set(yticks=range(len(names)), yticklabels=[FORM_NAMES[form] for form in names], xlim=(0, None),
             xlabel="training wall-clock / SARL's")  # fmt: skip
    right.axvline(0, color="#8a8a8a", linewidth=1)
    right.set(xlabel="GoS minus SARL's (points)")
    right.xaxis.set_major_locator(MaxNLocator(4))
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
    median = ratio.median()
    finding = (
        f"Where one service makes {_share(rows):.0f} % of the decisions, one actor for it trains in "
        f"{median['one']:.2f} of SARL's time, {_actors(rows)} actors in {median['by_load']:.2f}"
    )
    caption = (
        f"n = {len(ratio)} repeats, each with another seed, all forms in turn; {rows['days'].iloc[0]} training days, "
        "one held-out day of the same mix. Dots: repeats; line: median; thin tick: the busiest actor's share of the "
        f"decisions, or a core's of {rows['cores'].iloc[0]}, which no schedule beats at SARL's speed a core."
    )
    return finish(figure, finding, caption)


def actors_table(rows: pd.DataFrame | Note) -> Table | Note:
    """Time, processor time, grade of service and conflicts of every form."""
    if isinstance(rows, Note):
        return rows
    ratio, table = ratios(rows), []
    for form, name in FORM_NAMES.items():
        part = rows[rows["form"] == form]
        interval = "1" if form == "sarl" else with_interval(*bootstrap_ci(ratio[form].to_numpy(), np.median))
        table.append(
            {
                "": name,
                "actors": f"{part['actors'].median():.0f}",
                "share, %": f"{part['share'].median():.0f}",
                "training, s": f"{part['train_s'].median():.2f}",
                "× SARL": interval,
                "processor, s": f"{part['cpu_s'].median():.2f}",
                "GoS, %": with_interval(*t_interval(part["gos"].to_numpy()[:, None])),
                "aborts, %": f"{part['conflicts'].median():.2f}",
                "violations": f"{part['violations'].sum():.0f}",
            }
        )
    caption = (
        f"n = {len(ratio)} repeats and seeds in turn; medians, GoS the mean. Actors and share of the decisions: of the "
        "busiest agent; aborts: lost races in training. Brackets: 95 % interval over repeats (bootstrap of the median "
        "of paired ratios; Student's t of the mean GoS). Step `actors` of the study."
    )
    return Table(pd.DataFrame(table), caption)


def actors_answer(rows: pd.DataFrame | Note) -> Answer | Note:
    """Answer: does a service that carries most requests bound the speed-up?"""
    if isinstance(rows, Note):
        return rows
    ratio, gos = ratios(rows).median(), rows.groupby("form")["gos"].mean()
    return Answer(
        f"With one actor a service, yes: where one makes {_share(rows):.0f} % of the decisions, AMARL trains in "
        f"{ratio['one']:.2f} of SARL's time. {_actors(rows)} actors that share its policy bring that to "
        f"{ratio['by_load']:.2f}, at a grade of service of {gos['by_load']:.2f} % (one actor {gos['one']:.2f} %, SARL "
        f"{gos['sarl']:.2f} %)."
    )


def _share(rows: pd.DataFrame) -> float:
    return float(rows.loc[rows["form"] == "one", "share"].median())


def _actors(rows: pd.DataFrame) -> int:
    return int(rows.loc[rows["form"] == "by_load", "actors"].median())
