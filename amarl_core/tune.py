"""The search behind the defaults of `config.TrainConfig`: GoS on validation days against training wall-clock.

    python -m amarl_core.tune [--scenario montreal] [--seeds 1 2]

Validation days come from a training seed that neither calibration nor the study uses; no held-out day is touched.
"""

import argparse
import logging

import numpy as np

from amarl_core.agents import train
from amarl_core.config import SELFISH, TrainConfig
from amarl_core.evaluation import play_trace
from amarl_core.scenario import load_scenario

log = logging.getLogger(__name__)

VALIDATION_SEED = 900
VALIDATION_DAYS = (1, 3)

CANDIDATES: list[dict] = [
    {},
    dict(activation="tanh"),
    dict(epochs=3),
    dict(rollouts_per_day=8),
    dict(minibatch=1024),
    dict(width=64),
    dict(learning_rate=1e-3),
    dict(learning_rate=6e-3),
    dict(entropy_weight=0.01),
    dict(mu=100.0, beta=0.4),
    dict(beta=0.03),
    dict(beta=0.08),
    dict(most_charged=2.5),
    dict(most_charged=1e6),
    dict(may_refuse=False),
    dict(mask="delay"),
    SELFISH,
]
"""Each changes the defaults in one respect; the first is the defaults themselves."""


def main() -> None:
    """Train every candidate by both methods and log one row each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", default="montreal")
    parser.add_argument("--days", type=int, default=TrainConfig().days)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--methods", nargs="+", default=["sarl", "amarl"])
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    scenario = load_scenario(options.scenario)
    days = [scenario.training_trace(seed=VALIDATION_SEED, days=1, first_day=day) for day in VALIDATION_DAYS]
    log.info("| change | method | GoS, % | training, s |\n|---|---|---|---|")
    for change in CANDIDATES:
        for method in options.methods:
            gos, seconds = [], []
            for seed in options.seeds:
                run = train(scenario, method, seed, days=options.days, **change)
                seconds.append(run.timing["train_s"])
                gos += [100 * play_trace(run, day).decisions["accepted"].mean() for day in days]
            text = ", ".join(f"{name} {value}" for name, value in change.items()) or "none"
            log.info("| %s | %s | %.2f | %.0f |", text, method, np.mean(gos), np.mean(seconds))


if __name__ == "__main__":
    main()
