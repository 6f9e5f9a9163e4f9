"""Routing rules: what each promises, on the toy scenario."""

import pytest
from worlds import PlainState

from amarl_core.audit import audit
from amarl_core.baselines import RULES, SETTINGS, SLOW_RULES, TUNED, baseline, tuned
from amarl_core.errors import AmarlError
from amarl_core.evaluation import play_trace
from amarl_core.windows import held


@pytest.fixture(scope="module")
def busy_day(toy):
    """A training day whose flows stay five times as long: pools and links fill up."""
    from dataclasses import replace

    trace = toy.training_trace(seed=3, days=1)
    return replace(trace, hold_s=5 * trace.hold_s)


@pytest.fixture(scope="module")
def played(toy, busy_day):
    """Every rule on the busy day."""
    return {name: play_trace(baseline(name), busy_day, scenario=toy) for name in RULES}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_passes_the_audit(toy, busy_day, played, name):
    served = held(busy_day, baseline(name).waits_s)
    report = audit(toy, played[name].decisions, played[name].ledger, served, moves=played[name].moves)
    assert report.ok, report.summary()
    assert report.requests == len(busy_day)
    assert 0 < report.admissions < report.requests, "a day without rejections proves little"


def test_only_the_rule_that_does_not_look_has_conflicts(played):
    for name in RULES:
        conflicts = played[name].decisions["cause"].isin(["conflict_link", "conflict_node"]).sum()
        assert conflicts == played[name].conflicts
        assert (conflicts > 0) == (name == "fixed_shortest")


def test_fixed_shortest_always_takes_the_route_that_is_shortest_on_an_idle_network(toy, played):
    """Same service, source and destination: the same idle latency, whatever the load."""
    decisions = played["fixed_shortest"].decisions
    planned = decisions[decisions["accepted"] | decisions["cause"].isin(["conflict_link", "conflict_node"])]
    assert len(planned) > 1000
    delay = dict(zip(toy.network.link_ids, toy.network.delay_ms, strict=True))
    node, service = toy.network.node_index, {name: s for s, name in enumerate(toy.service_ids)}
    for row in planned.itertuples():
        s = service[row.service]
        stages = toy.chains[s, : toy.chain_length[s]]
        idle = sum(delay[link] for link in row.links) + toy.processing_ms[stages].sum()
        least = toy.delay_to_go[s, 0, node[row.destination], node[row.source]]
        assert idle == pytest.approx(least, abs=1e-9)


def test_a_rule_that_looks_at_load_accepts_more_than_one_that_does_not(played):
    gos = {name: played[name].decisions["accepted"].mean() for name in RULES}
    assert gos["shortest_feasible"] > gos["fixed_shortest"] + 0.02


def loose_work_in_pools(toy, played, loose_ms):
    """Yield the share of its budget that a pool had in use when a loose service put a stage there."""
    pools = {v for v, tier in zip(toy.network.node_ids, toy.network.tier, strict=True) if tier == "cu"}
    budget = dict(zip(toy.network.node_ids, toy.budget_mcpu.tolist(), strict=True))
    state = PlainState(toy)
    for row in played.decisions.itertuples():
        state.depart_until(row.t_s)
        if not row.accepted:
            continue
        if row.budget_ms >= loose_ms:
            yield from (state.mcpu[host] / budget[host] for host in row.hosts if host in pools)
        state.admit(row)


@pytest.mark.parametrize("name", ["reservation", "priced_reservation"])
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_reservation_keeps_loose_services_out_of_pools_above_the_share(toy, busy_day, name, share):
    rule = baseline(name, reserve_above=share, loose_ms=50.0)
    used = list(loose_work_in_pools(toy, play_trace(rule, busy_day, scenario=toy), 50.0))
    assert used, "below the share loose services may use the pools"
    assert max(used) < share


def test_without_a_reservation_loose_services_do_fill_the_pools(toy, played):
    """The contrast without which the test above would prove nothing."""
    assert max(loose_work_in_pools(toy, played["shortest_feasible"], 50.0)) > 0.5


def test_a_reservation_does_not_bind_tight_services(toy, busy_day):
    rule = baseline("reservation", reserve_above=0.0, loose_ms=50.0)
    decisions = play_trace(rule, busy_day, scenario=toy).decisions
    ar = decisions[(decisions["service"] == "ar") & decisions["accepted"]]
    assert len(ar) > 100
    assert all("CU-W" in hosts or "CU-E" in hosts for hosts in ar["hosts"]), "ar has nowhere else to go"


@pytest.mark.parametrize("name", RULES)
def test_rules_are_deterministic(toy, busy_day, played, name):
    again = play_trace(baseline(name), busy_day, scenario=toy)
    assert again.decisions.equals(played[name].decisions)
    assert again.ledger.equals(played[name].ledger)


def test_another_seed_is_another_random_walk(toy, busy_day, played):
    other = play_trace(baseline("random_feasible", seed=1), busy_day, scenario=toy).decisions
    assert not other["links"].equals(played["random_feasible"].decisions["links"])


def test_the_base_of_the_prices_changes_routes(toy, busy_day, played):
    dearer = play_trace(baseline("priced", mu=1e6), busy_day, scenario=toy)
    assert not dearer.decisions["links"].equals(played["priced"].decisions["links"])


@pytest.mark.parametrize("worth", [1.0, 3.0])
def test_admission_by_price_takes_nothing_dearer_than_it_is_worth(toy, busy_day, worth):
    """Prices of the taken routes by hand, from utilisation and mean holding time: the dearest are just below."""
    played = play_trace(baseline("priced_admission", mu=100.0, worth=worth), busy_day, scenario=toy)
    capacity = dict(zip(toy.network.link_ids, toy.network.capacity_kbps.tolist(), strict=True))
    budget = dict(zip(toy.network.node_ids, toy.budget_mcpu.tolist(), strict=True))
    hold = dict(zip(toy.service_ids, toy.hold_mean_s / 600.0, strict=True))
    state, prices, unscaled = PlainState(toy), [], []
    for row in played.decisions.itertuples():
        state.depart_until(row.t_s)
        if row.accepted:
            taken = [(state.kbps[link] / capacity[link], row.demand_kbps / capacity[link]) for link in row.links]
            taken += [(state.mcpu[host] / budget[host], mcpu / budget[host])
                      for host, mcpu in zip(row.hosts, state.stage_mcpu(row), strict=True)]  # fmt: skip
            unscaled.append(sum((100.0**used - 1) * share for used, share in taken))
            prices.append(hold[row.service] * unscaled[-1])
            state.admit(row)
    assert 0.8 * worth < max(prices) <= 1.01 * worth, "a table of 4096 steps holds the prices"
    assert max(unscaled) > 1.2 * worth, "who holds for half as long may pay twice"
    assert (played.decisions["cause"] == "refused").sum() > 20
    assert audit(toy, played.decisions, played.ledger, busy_day).ok


def test_whatever_is_worth_any_price_is_routed_as_without_admission(toy, busy_day, played):
    easy = play_trace(baseline("priced_admission", worth=1e9), busy_day, scenario=toy)
    assert easy.decisions["links"].equals(played["priced"].decisions["links"])


def test_an_unknown_rule_is_refused_with_the_valid_ones():
    with pytest.raises(AmarlError) as error:
        baseline("shortest")
    assert "'shortest'" in str(error.value)
    assert all(name in str(error.value) for name in RULES + SLOW_RULES)


def test_a_setting_of_another_rule_is_refused_with_the_valid_ones():
    with pytest.raises(AmarlError, match="no setting 'mu'.*reserve_above, loose_ms"):
        baseline("reservation", mu=10.0)
    with pytest.raises(AmarlError, match="none"):
        baseline("min_hop", k=3)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("priced", dict(mu=1.0)),
        ("reservation", dict(reserve_above=-0.1)),
        ("k_shortest_first_fit", dict(k=0)),
        ("k_shortest_least_loaded", dict(k=2.5)),
        ("random_feasible", dict(seed=-1)),
        ("reoptimise", dict(moves=True)),
        ("reoptimise", dict(base="milp_lookahead")),
        ("milp_batch", dict(window_s=0.0)),
        ("milp_lookahead", dict(window_s=0.0)),
        ("priced", dict(mu="much")),
    ],
)
def test_a_setting_out_of_range_is_refused_with_what_is_expected(name, setting):
    with pytest.raises(AmarlError, match=f"{next(iter(setting))} of {name} is .*; expected"):
        baseline(name, **setting)


def test_every_rule_has_settings_and_a_place():
    assert set(SETTINGS) == set(RULES + SLOW_RULES)
    assert not set(RULES) & set(SLOW_RULES)


def test_a_rule_needs_a_world(toy_day):
    with pytest.raises(AmarlError, match="scenario="):
        play_trace(baseline("priced"), toy_day)


def test_tuned_settings_are_of_rules_that_exist():
    assert set(TUNED) <= set(SETTINGS)
    for name in SETTINGS:
        assert tuned(name).name == name


def test_an_empty_trace_gives_empty_records(toy, toy_day):
    played = play_trace(baseline("priced"), toy_day.head(0), scenario=toy)
    assert len(played.decisions) == len(played.ledger) == 0
