"""Grade of service under shifts: by load, by overlay, and against whom. Every title states what the records show.

Each function takes the frame of `records.load_robustness`; without records a note says how to make them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from amarl_core.intervals import ENOUGH
from amarl_core.look import (
    METHOD_COLORS,
    METHOD_MARKERS,
    Answer,
    Picture,
    Table,
    drawing,
    finish,
    legend_below,
    listing,
    method_name,
    new_figure,
    or_note,
    service_name,
)
from amarl_core.overlays import FAMILIES, ORDINARY
from amarl_core.records import METHODS
from amarl_core.robust_verdict import (
    CLAIM,
    RULE,
    Difference,
    cells,
    demand_families,
    difference,
    judge_claim,
    losses,
    mean_of,
    overlays_of,
    rules_of,
    spared,
    worst_loss,
)

RULE_COLORS = {"priced_admission": "#444444", "priced_reservation": "#858585", "shortest_feasible": "#b9b9b9"}
LOSS_SHOWN = 3.0
"""Points behind the best method at which a cell of the heat table has its full colour."""


def methods_of(shifts: pd.DataFrame) -> list[str]:
    """Return the methods in the order of figures: SARL, AMARL, the rules from the best on."""
    return [*METHODS, *rules_of(shifts)]


def color_of(method: str) -> str:
    """Return a method's colour; rules are grey."""
    return METHOD_COLORS.get(method) or RULE_COLORS.get(method, "#858585")


def evidence_of(shifts: pd.DataFrame) -> str:
    """Say how much stands behind a figure."""
    seeds = shifts.loc[shifts["method"].isin(METHODS), "seed"].nunique()
    n = len(overlays_of(shifts))
    days = shifts.groupby("overlay")["day"].nunique()
    least, most = int(days.min()), int(days.max())
    span = f"{most} held-out day{'s' * (most != 1)}"
    span = span if least == most else f"{least} or {span}"
    return f"n = {seeds} seed{'s' * (seeds != 1)}, {n} shifts, {span} each; rules have no seed"


@dataclass(frozen=True)
class Row:
    """A row of a figure: an ordinary day, or a shift, with the records that it draws."""

    name: str
    overlay: str
    family: str
    part: pd.DataFrame


def _rows_of(shifts: pd.DataFrame) -> list[Row]:
    """Return the ordinary weekday and day of the weekend, then all shifts, by family."""
    rows = [Row(name, ORDINARY, ORDINARY, part) for name, part in _ordinary_days(shifts)]
    about = shifts.drop_duplicates("overlay").set_index("overlay")
    for overlay in overlays_of(shifts):
        rows.append(Row(shift_name(about.loc[overlay]), overlay, about.loc[overlay, "family"], shifts))
    return rows


def shift_name(about: pd.Series) -> str:
    """Return the short name of an overlay: a service and its factor, or the overlay's own name in words."""
    if about["family"] == "service mix" and about["service"]:
        return f"{service_name(about['service'])} × {about['factor']:g}"
    if about["family"] == "load":
        return f"load × {about['factor']:g}"
    return str(about.name).removeprefix("toy-").replace("-", " ")


@or_note
@drawing
def load_figure(shifts: pd.DataFrame) -> Picture:
    """Draw the grade of service against the load, and AMARL against SARL and the best rule."""
    days = shifts.loc[shifts["family"] == "load", "day"].unique()
    shifts = shifts[shifts["day"].isin(days)] if len(days) else shifts  # the ordinary day has perhaps more days
    factors = shifts[shifts["family"].isin([ORDINARY, "load"])].groupby("overlay")["factor"].first().sort_values()
    figure, (left, right) = new_figure(columns=2, height_in=3.3, widths=(1.25, 1))
    for method in methods_of(shifts):
        line = [mean_of(shifts, [overlay], method) for overlay in factors.index]
        color, is_ours = color_of(method), method in METHODS
        if is_ours:
            left.fill_between(
                factors, [d.low for d in line], [d.high for d in line], color=color, alpha=0.2, linewidth=0
            )
        style = dict(linestyle="-", linewidth=1.7) if is_ours else dict(linestyle="--", linewidth=1.1)
        left.plot(factors, [d.mean for d in line], color=color, marker=METHOD_MARKERS.get(method), markersize=4,
                  label=method_name(method), **style)  # fmt: skip
    best = rules_of(shifts)[0]
    for other in ("sarl", best):
        line = [difference(shifts, [overlay], "amarl", other) for overlay in factors.index]
        look = dict(color=color_of(other), capsize=0, marker=METHOD_MARKERS.get(other, "D"), markersize=4.5)
        means, label = [d.mean for d in line], f"minus {method_name(other)}"
        right.errorbar(factors, means, yerr=_arms(line), label=label, **look)
    right.axhline(0, color="#8a8a8a", linewidth=0.9)
    left.set(xlabel="load (times the ordinary day's)", ylabel="grade of service (%)")
    right.set(xlabel="load (times the ordinary day's)", ylabel="AMARL minus other (points)")
    right.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none")
    legend_below(figure, left, 5)
    highest = factors.index[-1]
    sarl, amarl = (mean_of(shifts, [highest], method).mean for method in METHODS)
    rule = mean_of(shifts, [highest], best).mean
    finding = (
        f"At {factors.iloc[-1]:g} times the load AMARL accepts {amarl:.2f} %, SARL {sarl:.2f} % and "
        f"{method_name(best)} {rule:.2f} %"
    )
    caption = (
        "Policies trained on ordinary days, not retrained. Left: accepted over offered requests, mean over days; "
        f"right: the difference on the same requests. Band and bars: 95 % Student intervals over seeds. "
        f"{evidence_of(shifts)}."
    )
    return finish(figure, finding, caption)


def _arms(line: list[Difference]) -> np.ndarray:
    """Return how far intervals reach down and up, float64 [2, n]; a mean may lie at an end but for rounding."""
    return np.maximum(0, [[d.mean - d.low for d in line], [d.high - d.mean for d in line]])


@or_note
@drawing
def forest_figure(shifts: pd.DataFrame) -> Picture:
    """Draw AMARL minus SARL and AMARL minus the best rule under every shift, grouped by family."""
    best, rows = rules_of(shifts)[0], _rows_of(shifts)
    figure, panels = new_figure(columns=2, height_in=1.3 + 0.185 * len(rows), share_y=True)
    by_other = {}
    for axes, other in zip(panels, ("sarl", best), strict=True):
        line = [difference(row.part, [row.overlay], "amarl", other) for row in rows]
        by_other[other] = [found for found, row in zip(line, rows, strict=True) if row.overlay != ORDINARY]
        axes.axvline(0, color="#8a8a8a", linewidth=0.9)
        for place, found in enumerate(line):
            color = {1: METHOD_COLORS["amarl"], -1: color_of(other), 0: "#9a9a9a"}[found.sign]
            axes.plot([found.low, found.high], [place, place], color=color, linewidth=1.8, alpha=0.6)
            axes.plot(found.mean, place, "o", color=color, markersize=4)
        axes.set(xlabel=f"AMARL minus {method_name(other)} (points)")
        axes.grid(axis="y", visible=False)
    panels[0].set(yticks=range(len(rows)), yticklabels=[row.name for row in rows], ylim=(len(rows) - 0.4, -0.6))
    _mark_families(panels, rows)
    ahead, behind = (sum(d.sign == sign for d in by_other["sarl"]) for sign in (1, -1))
    rule_behind = sum(d.sign == -1 for d in by_other[best])
    finding = (
        f"Of {len(by_other[best])} shifts AMARL is ahead of SARL under {ahead} and behind under {behind}; behind "
        f"{method_name(best)} under {rule_behind}"
    )
    caption = (
        "Difference in accepted over offered requests, mean over days; bars: 95 % Student interval over seeds, "
        f"coloured where it leaves out 0, as {0.05 * len(by_other[best]):.0f} of {len(by_other[best])} do by chance. "
        f"Shaded in turn: families. {evidence_of(shifts)}."
    )
    return finish(figure, finding, caption)


def _mark_families(panels: list, rows: list[Row]) -> None:
    """Shade every other family of rows."""
    family = [row.family for row in rows]
    starts = [i for i in range(len(family)) if i == 0 or family[i] != family[i - 1]] + [len(family)]
    for first, end in zip(starts[1:-1:2], starts[2::2], strict=False):
        for axes in panels:
            axes.axhspan(first - 0.5, end - 0.5, color="#f4f1ea", zorder=0)


@or_note
@drawing
def heat_figure(shifts: pd.DataFrame) -> Picture:
    """Draw the grade of service of every method under every shift, coloured by what it lacks to the row's best."""
    rows, methods = _rows_of(shifts), methods_of(shifts)
    gos = np.array([[cells(row.part, [row.overlay], method).mean() for method in methods] for row in rows])
    is_shift = np.array([row.overlay != ORDINARY for row in rows])
    behind = gos.max(axis=1, keepdims=True) - gos
    figure, (axes,) = new_figure(height_in=1.3 + 0.2 * len(rows))
    axes.imshow(behind, cmap="YlOrBr", vmin=0, vmax=LOSS_SHOWN, aspect="auto")
    for row, column in np.ndindex(gos.shape):
        is_dark = behind[row, column] > 0.65 * LOSS_SHOWN
        weight = "bold" if behind[row, column] == 0 else "normal"
        axes.text(column, row, f"{gos[row, column]:.2f}", ha="center", va="center", fontsize=8, fontweight=weight,
                  color="white" if is_dark else "#222222")  # fmt: skip
    axes.set(xticks=range(len(methods)), xticklabels=[method_name(m).replace(" ", "\n") for m in methods],
             yticks=range(len(rows)), yticklabels=[row.name for row in rows])  # fmt: skip
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.grid(visible=False)
    wins = {method: int((behind[is_shift, i] == 0).sum()) for i, method in enumerate(methods)}
    first, second = sorted(wins, key=lambda method: -wins[method])[:2]
    finding = (
        f"Of {is_shift.sum()} shifts {method_name(first)} accepts most under {wins[first]}, {method_name(second)} "
        f"under {wins[second]}"
    )
    caption = (
        "Grade of service in %, mean over seeds and days; bold: the row's best; the darker, the further behind it "
        f"(full colour from {LOSS_SHOWN:g} points on). {evidence_of(shifts)}."
    )
    alt = "; ".join(f"{method_name(method)} best under {count}" for method, count in wins.items())
    return finish(figure, finding, caption, alt)


@or_note
def family_table(shifts: pd.DataFrame) -> Table:
    """Losses of AMARL and SARL, their difference and AMARL's distance to the others, by family of shifts."""
    best, rows = rules_of(shifts)[0], []
    for name, part in _ordinary_days(shifts):
        means = [f"{cells(part, [ORDINARY], method).mean():.2f}" for method in METHODS]
        versus = [difference(part, [ORDINARY]), "", difference(part, [ORDINARY], "amarl", best)]
        rows.append([name, *means, *map(str, versus)])
    families = [family for family in FAMILIES if family in set(shifts["family"])]
    groups = [(family, overlays_of(shifts, family)) for family in families]
    groups.append(("all demand shifts", overlays_of(shifts, *demand_families(shifts))))
    for family, overlays in groups:
        means = [f"{cells(shifts, overlays, method).mean():.2f}" for method in METHODS]
        versus = [difference(shifts, overlays), spared(shifts, overlays), difference(shifts, overlays, "amarl", best)]
        rows.append([f"{family} ({len(overlays)})", *means, *map(str, versus)])
    columns = ["shifts", "SARL, %", "AMARL, %", "AMARL − SARL", "AMARL loses less by", f"AMARL − {method_name(best)}"]
    caption = (
        "GoS under the shifts, mean over overlays, seeds and days; differences in points on the same requests. "
        f"Intervals: 95 %, over seeds; from {ENOUGH} days of shifts on over these too. In brackets: number of shifts. "
        f"Loses less: each against its own ordinary day. {evidence_of(shifts)}."
    )
    return Table(pd.DataFrame(rows, columns=columns), caption, ours=(len(rows) - 1,))


def _ordinary_days(shifts: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the records of the ordinary weekday and of the ordinary day of the weekend, where there are any."""
    ordinary = shifts[shifts["overlay"] == ORDINARY]
    is_weekend = ordinary["day"].str.contains("weekend")
    parts = (("ordinary weekday", ordinary[~is_weekend]), ("ordinary weekend day", ordinary[is_weekend]))
    return [(name, part) for name, part in parts if len(part)]


@or_note
def robust_answer(shifts: pd.DataFrame) -> Answer:
    """Answer: does AMARL hold up better when demand or network change?"""
    verdict, found = judge_claim(shifts)
    names = overlays_of(shifts, *demand_families(shifts))
    best = rules_of(shifts)[0]
    against, rule = difference(shifts, names), difference(shifts, names, "amarl", best)
    sarl, amarl = (losses(shifts, names, method).mean() for method in METHODS)
    worst = [(method_name(method), *worst_loss(shifts, method)) for method in (*METHODS, best)]
    is_alone = shifts.loc[shifts["method"].isin(METHODS), "seed"].nunique() == 1
    lost = listing(f"{points:.1f} points for {name} ({overlay})" for name, overlay, points in worst)
    return Answer(
        f"The abstract's claim of {CLAIM}: {verdict}. Over {len(names)} demand shifts SARL loses {sarl:.2f} points "
        f"against its own ordinary days and AMARL {amarl:.2f}; AMARL loses less by {found}. AMARL minus SARL is "
        f"{against} points there, AMARL minus {method_name(best)}, which needs no training, {rule}. The worst loss of "
        f"any shift is {lost}. {'One seed: no more than a hint. ' * is_alone}(Rule: {RULE}.)"
    )


@or_note
def shift_table(shifts: pd.DataFrame) -> Table:
    """What every overlay is, and how much it asks for."""
    ordinary = shifts[shifts["overlay"] == ORDINARY].drop_duplicates("day").set_index("day")["requests"]
    rows = []
    for overlay in overlays_of(shifts):
        part = shifts[shifts["overlay"] == overlay].drop_duplicates("day").set_index("day")
        share = part["requests"].sum() / ordinary[part.index].sum()
        rows.append([overlay, part["family"].iloc[0], part["title"].iloc[0], f"{share:.2f}"])
    columns = ["overlay", "family", "what changes", "requests (× ordinary)"]
    caption = (
        "Each is a file of data/overlays/, which load_scenario('montreal+NAME') loads; data/README.md lists the keys."
    )
    return Table(pd.DataFrame(rows, columns=columns), caption, text_columns=("family", "what changes"))
