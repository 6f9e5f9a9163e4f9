"""Plans on late news: exactly as late as asked, and never more than what there is."""

import numpy as np
import pandas as pd
import pytest

from amarl_core.audit import audit
from amarl_core.baselines import tuned
from amarl_core.errors import AmarlError
from amarl_core.evaluation import play_trace
from amarl_core.late_news import outcome, play_late

RULE = "shortest_feasible"
COLUMNS = ["request_id", "accepted", "cause", "latency_ms", "attempts", "snapshot_version", "commit_version"]


@pytest.fixture(scope="module", params=["amarl", "sarl", RULE])
def policy(request, toy_team, toy_agent):
    return {"amarl": toy_team, "sarl": toy_agent, RULE: tuned(RULE)}[request.param]


@pytest.fixture(scope="module")
def late(policy, toy, toy_day):
    return play_late(policy, toy_day, 60.0, 3, toy)


def test_news_without_delay_is_the_serial_run(policy, toy, toy_day):
    now = play_late(policy, toy_day, 0.0, 3, toy)
    order = {} if policy == tuned(RULE) else dict(order="pipeline", window=0)
    serial = play_trace(policy, toy_day, attempts=3, scenario=toy, **order)
    pd.testing.assert_frame_equal(now.decisions()[COLUMNS], serial.decisions[COLUMNS])
    pd.testing.assert_frame_equal(now.ledger(), serial.ledger)
    assert outcome(now)["aborts"] == 0


def test_every_plan_knows_just_what_was_old_enough(late):
    """The version a plan was made on is that of the last change at least 60 s before its arrival."""
    decisions, ledger = late.decisions(), late.ledger()
    changes = ledger[ledger["kind"] != "abort"]
    known = np.searchsorted(changes["t_s"].to_numpy(), decisions["t_s"].to_numpy() - 60.0, side="right")
    version = np.concatenate([[0], changes["store_version"].to_numpy()])[known]
    assert (decisions["snapshot_version"] == version).all()


def test_late_news_costs_aborts_and_breaks_no_rule(late, toy, toy_day):
    report = audit(toy, late.decisions(), late.ledger(), toy_day)
    assert report.ok, report.summary()
    assert outcome(late)["aborts"] > 1


def test_a_plan_made_anew_avoids_what_has_refused(late):
    ledger, decisions = late.ledger(), late.decisions()
    refused = (
        ledger[ledger["kind"] == "abort"].groupby("request_id")["resource"].agg(lambda names: set(map(str, names)))
    )
    again = decisions[decisions["accepted"] & (decisions["attempts"] > 1)]
    assert len(again) > 0
    for row in again.itertuples():
        assert not refused[row.request_id] & {*row.links, *row.hosts}
        assert len(refused[row.request_id]) == row.attempts - 1


def test_one_attempt_loses_every_aborted_request(toy_team, toy_day):
    once = outcome(play_late(toy_team, toy_day, 60.0, 1))
    assert once["lost"] == pytest.approx(once["aborts"]) and once["replans"] == 0


def test_a_negative_age_and_rules_that_wait_are_refused(toy, toy_day, toy_team):
    with pytest.raises(AmarlError, match="age_s"):
        play_late(toy_team, toy_day, -1.0)
    with pytest.raises(AmarlError, match="milp_batch"):
        play_late(tuned("milp_batch"), toy_day, 1.0, scenario=toy)
    with pytest.raises(AmarlError, match="scenario"):
        play_late(tuned(RULE), toy_day, 1.0)
