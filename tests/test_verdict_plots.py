"""Figures of verdicts state what the counts say, for any methods, and survive days without rejections."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from amarl_core import verdict_plots as plots

COLUMNS = ["method", "seed", "day", "service", "verdict", "binding", "requests"]


@pytest.fixture
def counts() -> pd.DataFrame:
    """Two seeds of two methods on one day: AMARL rejects 100 requests, 60 unroutable (45 by compute)."""
    rows = []
    for seed in (0, 1):
        rows += [
            ("amarl", seed, "test-weekday", "augmented_reality", "unroutable", "compute", 45),
            ("amarl", seed, "test-weekday", "video_streaming", "unroutable", "bandwidth", 15),
            ("amarl", seed, "test-weekday", "augmented_reality", "missed", "", 30),
            ("amarl", seed, "test-weekday", "voip", "lost_race", "", 10),
            ("sarl", seed, "test-weekday", "augmented_reality", "unroutable", "several", 7),
            ("sarl", seed, "test-weekday", "augmented_reality", "missed", "", 1),
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_every_figure_has_a_finding_a_caption_with_n_and_an_alternative_text(counts):
    for picture in (plots.rejection_verdicts(counts), plots.verdicts_by_method(counts)):
        assert re.search(r"\d", picture.figure.get_suptitle())
        assert "n = 2 seeds × 1 held-out day" in picture.caption
        assert "AMARL, 200 rejected: missed 30.0 %, lost race 10.0 %, refused 0.0 %, unroutable 60.0 %" in picture.alt
        assert picture.narrow is not None
        assert all(axes.get_xlabel() for axes in picture.figure.axes)


def test_the_finding_divides_the_rejections_as_the_counts_do(counts):
    finding = plots.verdict_finding(counts)
    assert (
        "AMARL's rejections 60 % had no route, 0 % were refused as too dear, 30 % had a route that was missed and 10 % "
        "lost a race"
    ) in finding
    assert finding.endswith("compute binds 75 % of the first")
    swapped = counts.assign(method=counts["method"].map({"sarl": "amarl", "amarl": "sarl"}))
    assert "88 % had no route" in plots.verdict_finding(swapped)


def test_shares_of_a_group_add_up_to_all_its_rejections(counts):
    shares = plots.verdict_shares(counts, "verdict", ["service", "method"])
    assert shares.drop(columns="requests").sum(axis=1).tolist() == pytest.approx([100.0] * len(shares))
    assert shares["requests"].sum() == counts["requests"].sum()


def test_bars_are_as_long_as_the_shares(counts):
    axes = plots.rejection_verdicts(counts).figure.axes[0]
    widths = {bars.get_label(): [bar.get_width() for bar in bars] for bars in axes.containers}
    # services by number of rejections: AR, video, VoIP; in each SARL above AMARL
    assert widths[plots.VERDICT_NAMES["missed"]] == pytest.approx([12.5, 40.0, 0, 0, 0, 0])
    assert widths[plots.VERDICT_NAMES["lost_race"]] == pytest.approx([0, 0, 0, 0, 0, 100.0])


def test_the_table_and_the_answer_count_a_day(counts):
    frame = plots.verdict_table(counts).frame.set_index("method")
    assert frame.loc["AMARL", "rejected a day"] == "100.0"
    assert frame.loc["SARL"].tolist() == ["8.0", "87.5", "0.0", "12.5", "0.0", "0.0", "0.0", "0.0", "100.0"]
    assert "AMARL: 40.0 rejections a day had a route" in plots.verdict_answer(counts).text


def test_rules_stand_below_the_learners_and_alone(counts):
    rule = counts[counts["method"] == "sarl"].assign(method="reservation")
    assert plots.methods_of(pd.concat([rule, counts])) == ["sarl", "amarl", "reservation"]
    assert plots.rejection_verdicts(rule).figure.get_suptitle().startswith("Of reservation's rejections 88 %")


def test_figures_survive_a_study_without_rejections_or_without_unroutable_ones(counts):
    for few in (counts.iloc[:0], counts[counts["verdict"] == "missed"], counts[counts["verdict"] == "unroutable"]):
        for draw in (plots.rejection_verdicts, plots.verdicts_by_method):
            draw(few)._repr_html_()
        plots.verdict_table(few)._repr_html_()
        assert plots.verdict_answer(few).text
