"""What is said about shifts follows from the records, and says so where they are missing or small."""

import numpy as np
import pandas as pd
import pytest
from fake_study import shared_study

from amarl_core import fairness_plots, robust_plots
from amarl_core.intervals import t_interval
from amarl_core.look import Note, Picture, Table
from amarl_core.records import load_drift, load_robustness, load_sizes, load_study
from amarl_core.robust_verdict import (
    cells,
    difference,
    jain_index,
    judge_claim,
    losses,
    overlays_of,
    rules_of,
    shares_by_service,
    spared,
    summary,
    worst_loss,
)
from amarl_core.runs import plain

DAYS = ("test-weekday", "test-weekend")


def records(gains: dict[str, float], seeds=(0, 1, 2), days=DAYS, noise=0.01, families="load") -> pd.DataFrame:
    """Return records in which SARL has 90 % under every shift and AMARL so many points more; 95 % on ordinary days."""
    draw, rows = np.random.default_rng(4), []
    for overlay, gain in {"ordinary": 0.0, **gains}.items():
        base = 95.0 if overlay == "ordinary" else 90.0
        for method, more in (("sarl", 0.0), ("amarl", gain), ("priced_admission", 0.5), ("shortest_feasible", -3.0)):
            for seed in seeds if method in ("sarl", "amarl") else (0,):
                for day in days:
                    gos = base + more + draw.normal(0, noise)
                    counts = {"offered_a": 100, "accepted_a": 90, "aborted_a": 1, "offered_b": 50, "accepted_b": 50,
                              "aborted_b": 0}  # fmt: skip
                    about = dict(overlay=overlay, family=families, factor=2.0, title="t", service="")
                    if overlay == "ordinary":
                        about |= dict(family=overlay, factor=1.0)
                    about |= dict(
                        method=method, seed=seed, day=day, gos=gos, requests=150, accepted=140, violations=0.0
                    )
                    rows.append(about | counts)
    return pd.DataFrame(rows)


def test_a_claim_is_confirmed_refuted_or_left_open_by_the_interval_of_the_losses():
    many = [f"load-{i}" for i in range(6)]
    for gain, verdict in ((0.4, "confirmed"), (-0.4, "refuted"), (0.0, "no difference shown")):
        found, size = judge_claim(records(dict.fromkeys(many, gain), noise=0.05))
        assert found == verdict and size.mean == pytest.approx(gain, abs=0.06)
    spread = {name: gain for name, gain in zip(many, (2.0, -2.0, 1.5, -1.0, 0.2, -0.4), strict=True)}
    assert judge_claim(records(spread))[0] == "no difference shown"


def test_who_is_always_ahead_is_not_more_robust_for_that():
    shifts = records({"load-200": 0.4})
    shifts.loc[(shifts["overlay"] == "ordinary") & (shifts["method"] == "amarl"), "gos"] += 0.4
    assert difference(shifts, ["load-200"]).mean == pytest.approx(0.4, abs=0.02)
    assert spared(shifts, ["load-200"]).mean == pytest.approx(0.0, abs=0.02)


def test_the_claim_is_about_demand_alone():
    demand, network = records({"load-200": 0.0}), records({"uplink-down": 3.0}, families="failed link")
    both = pd.concat([demand, network[network["overlay"] != "ordinary"]], ignore_index=True)
    assert judge_claim(both)[1].mean == pytest.approx(0.0, abs=0.02)
    assert set(summary(both)["families"]) == {"load", "failed link"}


def test_losses_are_against_the_same_run_on_the_same_day():
    shifts = records({"load-200": 1.0, "load-150": 0.0}, noise=1.0)
    at = shifts.set_index(["overlay", "method", "seed", "day"])["gos"]
    matrix = losses(shifts, ["load-200", "load-150"], "amarl")
    assert matrix.shape == (3, 4)
    for column, (overlay, day) in enumerate([(o, d) for o in ("load-200", "load-150") for d in DAYS]):
        for seed in range(3):
            expected = at["ordinary", "amarl", seed, day] - at[overlay, "amarl", seed, day]
            assert matrix[seed, column] == pytest.approx(expected)
            assert cells(shifts, ["load-200", "load-150"], "amarl")[seed, column] == at[overlay, "amarl", seed, day]


def test_the_interval_of_one_shift_is_students_over_seeds():
    shifts = records({"load-200": 0.3}, noise=0.2)
    found = difference(shifts, ["load-200"])
    a, b = (cells(shifts, ["load-200"], m).mean(axis=1)[:, None] for m in ("amarl", "sarl"))
    assert (found.mean, found.low, found.high) == pytest.approx(t_interval(a, b))


def test_one_seed_and_one_day_have_no_interval_and_no_verdict():
    shifts = records({"load-200": 0.3}, seeds=(0,), days=DAYS[:1])
    found = difference(shifts, ["load-200"])
    assert np.isnan(found.low) and found.sign == 0 and str(found) == f"{found.mean:+.2f}"
    assert judge_claim(shifts)[0] == "no difference shown"


def test_rules_are_in_order_of_the_ordinary_day_and_worst_losses_name_the_shift():
    shifts = records({"load-200": 0.0, "load-150": 2.0})
    assert rules_of(shifts) == ["priced_admission", "shortest_feasible"]
    name, points = worst_loss(shifts, "amarl")
    assert name == "load-200" and points == pytest.approx(5.0, abs=0.05)
    assert overlays_of(shifts) == ["load-150", "load-200"]


def test_jains_index_by_hand():
    assert jain_index(np.array([1, 1, 1, 1])) == 1
    assert jain_index(np.array([1, 0, 0, 0])) == 0.25
    assert jain_index(np.array([0.9, 0.6])) == pytest.approx(1.5**2 / (2 * (0.81 + 0.36)))


def test_shares_are_of_the_services_own_requests():
    shares = shares_by_service(records({"load-200": 0.0}))
    assert shares.loc["amarl"].to_dict() == {"a": 90.0, "b": 100.0}
    assert shares_by_service(records({"load-200": 0.0}), "aborted").loc["sarl", "a"] == 1.0


# ------------------------------------------------------------------------------------ figures
@pytest.fixture(scope="module")
def study():
    return load_study(shared_study())


ROBUST = ["load_figure", "forest_figure", "heat_figure", "family_table", "robust_answer", "shift_table"]


@pytest.mark.parametrize("smoke", [False, True])
def test_every_figure_says_what_it_found(smoke):
    study = load_study(shared_study(), smoke=smoke)
    shifts = load_robustness(study)
    pictures = [getattr(robust_plots, name)(shifts) for name in ROBUST[:3]]
    pictures += [fairness_plots.fairness_figure(shifts), fairness_plots.size_figure(load_sizes(study)),
                 fairness_plots.drift_figure(load_drift(study))]  # fmt: skip
    for picture in pictures:
        assert isinstance(picture, Picture) and picture.narrow is not None
        title = picture.figure.get_suptitle().replace("\n", " ")
        assert any(character.isdigit() for character in title) and "nan" not in title.lower()
        assert picture.alt.startswith(title) and "seed" in picture.caption
    for table in (robust_plots.family_table(shifts), robust_plots.shift_table(shifts)):
        assert isinstance(table, Table) and "nan" not in table.markdown()


def test_the_answer_gives_the_verdict_and_the_rule_of_its_records(study):
    shifts = load_robustness(study)
    text = robust_plots.robust_answer(shifts).text
    verdict, found = judge_claim(shifts)
    assert f"demand shifts: {verdict}" in text and str(found) in text and "confirmed if" in text


def test_the_headline_has_the_verdict_and_every_family(study):
    shifts = load_robustness(study)
    found = plain(summary(shifts))
    assert found["verdict"] == judge_claim(shifts)[0] and found["violations"] == 0
    assert set(found["families"]) == set(shifts["family"]) - {"ordinary"}
    assert found["families"]["load"]["amarl_minus_sarl"]["mean"] == difference(shifts, overlays_of(shifts, "load")).mean
    assert set(found["worst_loss"]) == set(found["jain_index"]) == set(shifts["method"])


def test_flows_that_stay_within_their_bounds_are_said_to(study):
    picture = fairness_plots.drift_figure(load_drift(study).assign(over_s=0.0))
    assert picture.alt.startswith("No accepted flow")


def test_the_toy_scenario_is_drawn_as_well():
    """No load but the ordinary one, two services, one seed and day: what a smoke study may hold."""
    shifts = records({"toy-centre": 0.1}, seeds=(0,), days=DAYS[:1], families="hot spot")
    for name in ROBUST[:3]:
        assert isinstance(getattr(robust_plots, name)(shifts), Picture)
    assert isinstance(fairness_plots.fairness_figure(shifts), Picture)


def test_a_study_without_the_step_says_how_to_do_it(study, tmp_path):
    bare = type(study)(tmp_path, study.info, study.seeds, study.days)
    for name in ROBUST:
        note = getattr(robust_plots, name)(load_robustness(bare))
        assert isinstance(note, Note) and "python -m amarl_core.steps robustness" in note.text
    assert isinstance(fairness_plots.drift_figure(load_drift(bare)), Note)
    assert summary(load_robustness(bare)) == {}
