"""The table of calibration figures: rows of rules tuned in several runs."""

from amarl_core.baselines import SETTINGS, baseline
from amarl_core.calibrate import GRID, merged

HEADING = "5 weekdays\n\n| rule | GoS |\n|---|---|\n"


def test_rows_of_rules_that_were_not_run_are_kept_in_the_order_of_the_rules():
    old = HEADING + "| fixed_shortest | 1 |\n| priced | 2 |"
    new = HEADING + "| min_hop | 3 |\n| priced | 4 |"
    assert merged(f"\n{old}\n", new) == HEADING + "| fixed_shortest | 1 |\n| min_hop | 3 |\n| priced | 4 |"


def test_figures_of_other_days_are_not_mixed_in():
    old = HEADING.replace("5", "3") + "| fixed_shortest | 1 |"
    new = HEADING + "| min_hop | 3 |"
    assert merged(old, new) == new


def test_every_setting_of_the_grid_is_one_of_its_rule():
    for name, grid in GRID.items():
        assert name in SETTINGS and len({str(baseline(name, **setting)) for setting in grid}) == len(grid)
