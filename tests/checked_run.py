"""Trains and serves in every way with the bounds of arrays checked; run by `test_native` in a process of its own."""

import numpy as np

import amarl_core  # noqa: F401  before numba, whose cache folder it sets
from amarl_core.agents import train
from amarl_core.audit import audit
from amarl_core.baselines import RULES, baseline
from amarl_core.config import SELFISH
from amarl_core.evaluation import play_trace
from amarl_core.inference import most_likely
from amarl_core.scenario import load_scenario
from amarl_core.windows import held


def judge(scenario, played, day, order) -> None:
    report = audit(scenario, played.decisions, played.ledger, day, order)
    assert report.ok, report.summary()


def main() -> None:
    try:
        most_likely(np.zeros(2, np.float32), np.ones(5, np.bool_))
    except IndexError:
        print("bounds are checked")
    toy = load_scenario("toy")
    day = toy.test_trace("test-weekday")[700:1100]
    for choices in ({}, SELFISH | dict(mask="immediate", max_slots=2, max_hops=5)):
        run = train(toy, "amarl", 0, trace=toy.training_trace(seed=0)[600:1200], days=1, **choices)
        for order in ("arrival", "free"):
            judge(toy, play_trace(run, day, order, 3), day, order)
    for name in RULES:
        served = held(day, baseline(name).waits_s)
        judge(toy, play_trace(baseline(name), day, scenario=toy), served, "arrival")
    print("no index out of bounds")


if __name__ == "__main__":
    main()
