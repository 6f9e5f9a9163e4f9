"""What looking ahead is worth: dead ends, speed of learning and cost of a decision by action mask."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from amarl_core.look import (
    CAUSE_COLORS,
    CAUSE_NAMES,
    Picture,
    Table,
    drawing,
    finish,
    legend_below,
    method_name,
    new_figure,
    or_note,
)
from amarl_core.records import METHODS
from amarl_core.routing import MASKS

MASK_COLORS = {"immediate": "#a3a3a3", "delay": "#d55e00", "reachable": "#0b5c8a"}
HEADLINE_ATTEMPTS = 3


def _first_plans(masks: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with one attempt: there a conflict is not followed by a second walk."""
    return masks[masks["attempts"] == 1]


@or_note
@drawing
def mask_figure(masks: pd.DataFrame) -> Picture:
    """Draw failures by cause, and GoS by training day, for every mask and both methods.

    Args:
        masks: from `ablate_masks.mask_ablation`.
    """
    figure, (left, right) = new_figure(columns=2, height_in=3.3)
    _draw_failures(left, _first_plans(masks))
    _draw_learning(right, masks)
    legend_below(figure, left)
    gos = 100 * masks[masks["attempts"] == HEADLINE_ATTEMPTS].groupby("mask")["gos"].mean()
    finding = (
        f"Looking ahead on the snapshot accepts {gos['reachable'] - gos['delay']:+.2f} points against the mask by "
        f"delay, and {gos['reachable'] - gos['immediate']:+.2f} against the paper's"
    )
    n_seeds, n_days = masks["seed"].nunique(), masks["day"].nunique()
    caption = (
        f"Teams trained with each mask, {n_seeds} seed{'s' * (n_seeds > 1)}, {n_days} "
        f"validation day{'s' * (n_days > 1)} (none of them held out). Left: one attempt, S is SARL and A is AMARL; "
        "right: while sampling, AMARL solid and SARL dashed."
    )
    return finish(figure, finding, caption)


def _draw_failures(axes: Axes, part: pd.DataFrame) -> None:
    means = 100 * part.groupby(["mask", "method"])[[c for c in part.columns if c.startswith("share_")]].mean()
    means.columns = [column.removeprefix("share_") for column in means.columns]
    rows = [(mask, method) for mask in MASKS for method in METHODS]
    places = np.array([MASKS.index(mask) + (-0.19 if method == "sarl" else 0.19) for mask, method in rows])
    left = np.zeros(len(rows))
    for cause in (cause for cause in CAUSE_COLORS if means.get(cause, pd.Series(0.0)).sum() > 0):
        width = means.loc[rows, cause].to_numpy()
        axes.barh(places, width, left=left, height=0.33, color=CAUSE_COLORS[cause], label=CAUSE_NAMES[cause])
        left += width
    for place, end, (_, method) in zip(places, left, rows, strict=True):
        axes.annotate(method[0].upper(), (end, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set(yticks=range(len(MASKS)), yticklabels=MASKS, ylim=(len(MASKS) - 0.5, -0.5), xlabel="failed requests (%)")
    axes.set_xlim(0, 1.08 * left.max())
    axes.grid(axis="y", visible=False)


def _draw_learning(axes: Axes, masks: pd.DataFrame) -> None:
    days = [column for column in masks.columns if column.startswith("train_gos_")]
    for mask in MASKS:
        for method, style in (("amarl", "-"), ("sarl", "--")):
            part = masks[(masks["mask"] == mask) & (masks["method"] == method)]
            line = 100 * part[days].mean().to_numpy()
            axes.plot(np.arange(1, len(days) + 1), line, style, color=MASK_COLORS[mask], marker="o", markersize=3.5,
                      label=mask if method == "amarl" else "_")  # fmt: skip
    axes.legend(loc="lower right")
    axes.set(xlabel="training day", ylabel="grade of service (%)", xticks=range(1, len(days) + 1))


@or_note
def mask_table(masks: pd.DataFrame) -> Table:
    """GoS with three attempts and with one, before training, decisions, and time on one thread, by mask and method."""
    rows = []
    for mask in MASKS:
        for method in METHODS:
            part = masks[(masks["mask"] == mask) & (masks["method"] == method)]
            by_attempts = 100 * part.groupby("attempts")["gos"].mean()
            rows.append(
                [
                    mask,
                    method_name(method),
                    *[f"{by_attempts[attempts]:.2f}" for attempts in (HEADLINE_ATTEMPTS, 1)],
                    f"{100 * part['untrained_gos'].mean():.1f}",
                    f"{part['decisions_per_request'].mean():.2f}",
                    f"{part['us_per_decision'].mean():.2f}",
                    f"{part['us_per_request'].mean():.2f}",
                ]
            )
    names = ["mask", "method", "GoS, %", "one attempt", "untrained", "decisions a request", "µs a decision",
             "µs a request"]  # fmt: skip
    caption = (
        "A decision is a hop with more than one allowed slot, or a request's first. Times are wall-clock on one "
        "thread, all of a request's work over its decisions."
    )
    return Table(pd.DataFrame(rows, columns=names), caption, text_columns=("method",))
