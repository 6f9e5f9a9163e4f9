"""A day in parts, with something failed in the middle one, and the independent check of it."""

import numpy as np
import pandas as pd
import pytest

from amarl_core.audit import audit
from amarl_core.baselines import tuned
from amarl_core.errors import AmarlError
from amarl_core.evaluation import play_trace
from amarl_core.failures import Failure, locate, read_failures
from amarl_core.outage_audit import check_outage
from amarl_core.outages import Outage, first_part, held_until, play_outage, server

RULE = "priced_admission"
END_S = 86_400.0


@pytest.fixture(scope="module", params=["amarl", "sarl", RULE])
def serve(request, toy, toy_team, toy_agent):
    return server({"amarl": toy_team, "sarl": toy_agent, RULE: tuned(RULE)}[request.param], toy)


@pytest.fixture(scope="module", params=["three_links", "edge_site"])
def outage(request, toy, toy_day):
    reference = play_trace(tuned("shortest_feasible"), toy_day, scenario=toy).decisions
    return locate(read_failures()[request.param], toy, reference)


@pytest.fixture(scope="module")
def disrupted(serve, outage, toy_day):
    return play_outage(serve, first_part(serve, toy_day, outage.starts_s), toy_day, outage, END_S)


@pytest.fixture(scope="module")
def by_rule(toy, toy_day):
    """One day under the rule, for faults made on purpose."""
    reference = play_trace(tuned("shortest_feasible"), toy_day, scenario=toy).decisions
    outage = locate(Failure("links", "links", most_used_links=2), toy, reference)
    serve = server(tuned(RULE), toy)
    return play_outage(serve, first_part(serve, toy_day, outage.starts_s), toy_day, outage, END_S)


def found(toy, day, disrupted, decisions) -> dict[str, int]:
    outage = disrupted.outage
    return check_outage(toy, decisions, outage.resources, outage.starts_s, outage.ends_s, day)


def failed_names(toy, outage) -> set[str]:
    return {(*toy.network.link_ids, *toy.network.node_ids)[r] for r in outage.resources}


def test_both_audits_find_nothing(toy, toy_day, disrupted):
    assert found(toy, toy_day, disrupted, disrupted.decisions) == dict(capacity=0, dropped=0, again=0)
    report = audit(toy, disrupted.decisions, disrupted.ledger, disrupted.trace)
    assert report.ok, report.summary()
    assert report.requests == len(toy_day) + disrupted.decisions["dropped"].sum()


def test_nobody_is_routed_over_what_has_failed_until_it_is_repaired(toy, disrupted):
    outage, names = disrupted.outage, failed_names(toy, disrupted.outage)
    uses = {"during": 0, "after": 0}
    for row in disrupted.decisions[disrupted.decisions["accepted"]].itertuples():
        if outage.starts_s <= row.t_s:
            touched = names & {*row.links, *row.hosts}
            uses["during" if row.t_s < outage.ends_s else "after"] += bool(touched)
    assert uses["during"] == 0 and uses["after"] > 0


def test_flows_on_what_fails_are_dropped_and_offered_again(toy, disrupted):
    decisions, outage = disrupted.decisions, disrupted.outage
    names = failed_names(toy, outage)
    dropped, again = decisions[decisions["dropped"]], decisions[decisions["offered_again"] >= 0]
    assert len(dropped) == len(again) > 0
    assert all(names & {*row.links, *row.hosts} for row in dropped.itertuples())
    assert (again["t_s"] == outage.starts_s).all() and (dropped["t_s"] + dropped["hold_s"] <= outage.starts_s).all()
    releases = disrupted.ledger[disrupted.ledger["request_id"].isin(dropped["request_id"])]
    assert (releases[releases["kind"] == "release"]["t_s"] == outage.starts_s).all()
    assert not set(again["request_id"]) & set(dropped["request_id"])


def test_a_day_cut_in_parts_without_a_failure_is_the_day(toy, toy_day, toy_agent):
    nothing = Outage("nothing", np.zeros(0, np.int64), 40_000.0, 50_000.0)
    for policy, whole in (
        (toy_agent, play_trace(toy_agent, toy_day, "pipeline", window=0)),
        (tuned(RULE), play_trace(tuned(RULE), toy_day, scenario=toy)),
    ):
        serve = server(policy, toy)
        cut = play_outage(serve, first_part(serve, toy_day, nothing.starts_s), toy_day, nothing, END_S)
        assert not cut.decisions["dropped"].any()
        for name in ("request_id", "accepted", "latency_ms", "snapshot_version", "commit_version", "hold_s"):
            pd.testing.assert_series_equal(cut.decisions[name], whole.decisions[name])
        kept = ["kind", "request_id", "t_s", "store_version"]
        pd.testing.assert_frame_equal(cut.ledger[kept], whole.ledger[kept])


def test_a_failed_resource_costs_requests(toy, toy_day, by_rule):
    ordinary = play_trace(tuned(RULE), toy_day, scenario=toy).decisions
    outage, decisions = by_rule.outage, by_rule.decisions
    arrivals = decisions[decisions["offered_again"] < 0].reset_index(drop=True)
    before = (ordinary["t_s"] < outage.starts_s).to_numpy()
    during = (~before) & (ordinary["t_s"] < outage.ends_s).to_numpy()
    assert (arrivals["accepted"] == ordinary["accepted"])[before].all()
    assert arrivals["accepted"][during].sum() < ordinary["accepted"][during].sum()


def test_a_flow_that_keeps_what_has_failed_is_found(toy, toy_day, by_rule):
    decisions = by_rule.decisions.copy()
    at = decisions.index[decisions["dropped"]][0]
    whole_s = toy_day.hold_s[toy_day.request_id == decisions.loc[at, "request_id"]][0]
    decisions.loc[at, ["dropped", "hold_s"]] = [False, whole_s]
    result = found(toy, toy_day, by_rule, decisions)
    assert result["capacity"] > 0 and result["dropped"] == 1 and result["again"] == 1


def test_a_route_over_what_has_failed_is_found(toy, toy_day, by_rule):
    decisions, outage = by_rule.decisions, by_rule.outage
    during = decisions["accepted"] & (decisions["t_s"] >= outage.starts_s) & (decisions["t_s"] < outage.ends_s)
    links = [list(links) for links in decisions["links"]]
    links[np.flatnonzero(during)[0]].append(toy.network.link_ids[outage.resources[0]])
    assert found(toy, toy_day, by_rule, decisions.assign(links=links))["capacity"] > 0


@pytest.mark.parametrize("fault", ["lost", "twice", "longer", "elsewhere", "later"])
def test_a_dropped_flow_that_is_not_offered_as_it_was_is_found(toy, toy_day, by_rule, fault):
    decisions = by_rule.decisions.copy()
    first, second = decisions.index[decisions["offered_again"] >= 0][:2]
    if fault == "lost":
        decisions = decisions.drop(index=first).reset_index(drop=True)
    elif fault == "twice":
        decisions.loc[second, "offered_again"] = decisions.loc[first, "offered_again"]
    elif fault == "longer":
        decisions.loc[first, "hold_s"] += 1.0
    elif fault == "elsewhere":
        places = [place for place in toy.network.node_ids if place != decisions.loc[first, "destination"]]
        decisions.loc[first, "destination"] = places[0]
    else:
        decisions.loc[first, "t_s"] += 1.0
    assert found(toy, toy_day, by_rule, decisions)["again"] > 0


def test_a_flow_dropped_without_a_reason_is_found(toy, toy_day, by_rule):
    decisions = by_rule.decisions.copy()
    decisions.loc[decisions.index[~decisions["dropped"]][0], "dropped"] = True
    assert found(toy, toy_day, by_rule, decisions)["dropped"] > 0


def test_holding_times_never_reach_beyond_their_end():
    t_s = np.random.default_rng(0).uniform(0, 72_000, 10_000)
    hold_s = held_until(t_s, 72_000.0)
    assert (t_s + hold_s <= 72_000.0).all() and np.abs(t_s + hold_s - 72_000.0).max() < 1e-6


def test_rules_that_move_flows_or_let_them_wait_are_refused(toy):
    for name in ("reoptimise", "milp_batch"):
        with pytest.raises(AmarlError, match=name):
            server(tuned(name), toy)
    with pytest.raises(AmarlError, match="scenario"):
        server(tuned(RULE))


def test_a_part_that_does_not_end_where_the_failure_begins_is_refused(toy, toy_day, by_rule):
    serve = server(tuned(RULE), toy)
    part = first_part(serve, toy_day[:50], 30_000.0)
    with pytest.raises(AmarlError, match="begins at"):
        play_outage(serve, part, toy_day, by_rule.outage, END_S)
