"""The figure and the table of the action masks: their numbers are those of the records."""

from dataclasses import replace

import pytest
from fake_study import shared_study

from amarl_core import mask_plots
from amarl_core.records import load_masks, load_study


@pytest.fixture(scope="module")
def masks():
    return load_masks(load_study(shared_study()))


def test_the_finding_is_the_gain_of_the_records(masks):
    gos = 100 * masks[masks["attempts"] == 3].groupby("mask")["gos"].mean()
    picture = mask_plots.mask_figure(masks)
    assert f"accepts {gos['reachable'] - gos['delay']:+.2f} points" in picture.alt
    assert f"{gos['reachable'] - gos['immediate']:+.2f} against the paper's" in picture.alt
    assert "2 seeds, 2 validation days" in picture.caption


def test_only_causes_that_occurred_are_in_the_legend(masks):
    (legend,) = mask_plots.mask_figure(masks).figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"dead end: compute", "conflict: node"}


def test_the_table_has_a_row_for_every_mask_and_method(masks):
    table = mask_plots.mask_table(masks).frame.set_index(["mask", "method"])
    assert len(table) == 6
    part = masks.query("mask == 'delay' and method == 'amarl'")
    row = table.loc[("delay", "AMARL")]
    assert row["GoS, %"] == f"{100 * part[part['attempts'] == 3]['gos'].mean():.2f}"
    assert row["one attempt"] == f"{100 * part[part['attempts'] == 1]['gos'].mean():.2f}"
    assert row["µs a request"] == f"{part['us_per_request'].mean():.2f}"


def test_a_study_that_has_not_come_to_the_masks_yet_says_so(tmp_path):
    study = replace(load_study(shared_study()), folder=tmp_path)
    for show in (mask_plots.mask_figure, mask_plots.mask_table):
        assert f"python -m amarl_core.steps masks {tmp_path}" in show(load_masks(study)).text
