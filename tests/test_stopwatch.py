"""Watches add up, stay silent when they are off, and never change what they watch."""

import numpy as np
import pytest

from amarl_core.agents import train
from amarl_core.config import make_config
from amarl_core.phases import ALL_PHASES, profile, shares, split_wall
from amarl_core.stopwatch import (
    COMMIT,
    FIRST,
    LAG,
    LAST,
    LOCK,
    MOST_WAITS,
    ON,
    PHASES,
    WAITS,
    begin_laps,
    lap,
    lap_of_lag,
    make_watch,
    note_lock,
    seconds_by_phase,
    waits_of,
)


def running() -> np.ndarray:
    watch = make_watch()
    watch[ON] = 1
    begin_laps(watch)
    return watch


def test_laps_add_up_to_the_time_between_first_and_last():
    watch = running()
    begun = watch[LAST]
    for phase in range(len(PHASES)):
        lap(watch, phase)
    assert sum(seconds_by_phase(watch).values()) == pytest.approx((watch[LAST] - begun) / 1e9)
    assert watch[LAST] > begun


def test_a_wait_for_the_lock_is_taken_out_of_the_lap_under_way():
    watch = running()
    begun = watch[LAST]
    note_lock(watch, 5)
    lap(watch, COMMIT)
    assert watch[FIRST + LOCK] == 5
    assert watch[FIRST + LOCK] + watch[FIRST + COMMIT] == watch[LAST] - begun


def test_a_watch_that_is_off_reads_no_clock_and_writes_nothing():
    watch = make_watch()
    begin_laps(watch)
    lap(watch, COMMIT)
    lap_of_lag(watch)
    note_lock(watch, 7)
    assert not watch.any()


def test_waits_are_noted_until_there_is_no_room_and_no_further():
    watch = running()
    for _ in range(MOST_WAITS + 3):
        lap_of_lag(watch)
    found = waits_of(watch)
    assert found.shape == (MOST_WAITS, 2)
    assert (found[:, 1] >= found[:, 0]).all() and (found[1:, 0] == found[:-1, 1]).all()
    assert not watch[WAITS + 2 * MOST_WAITS :].any()
    assert watch[FIRST + LAG] >= 1e9 * (found[-1, 1] - found[0, 0]) - 1e3


@pytest.fixture(scope="module")
def profiled(toy):
    """A profiled AMARL training of two days."""
    return profile(toy, make_config(days=2))


def test_a_watched_training_is_the_same_to_the_bit(toy):
    config = make_config(days=1, deterministic=True)
    plain = train(toy, config=config)
    watched = train(toy, config=config, on_start=lambda training: training.simulation.time_phases())
    assert sum(seconds_by_phase(watched.simulation.agents[0].work.watch).values()) > 0
    assert sum(seconds_by_phase(plain.simulation.agents[0].work.watch).values()) == 0
    for column in ("cause", "latency_ms", "commit_version", "links"):
        assert plain.simulation.decisions()[column].equals(watched.simulation.decisions()[column])
    for mine, theirs in zip(plain.models, watched.models, strict=True):
        for a, b in zip(mine.policy.parameters(), theirs.policy.parameters(), strict=True):
            assert (a == b).all()


def test_phases_of_a_rollout_are_no_more_than_the_rollout(profiled):
    """Less, by what a rollout does outside the kernel: entering it, and returning to Python every 8,192 events."""
    spent = profiled.timeline.assign(took=profiled.timeline["end_s"] - profiled.timeline["start_s"])
    for agent, own in spent[spent["interval"] == "rollout"].groupby("agent"):
        phases = profiled.phases[profiled.phases["agent"] == agent].set_index("phase")["seconds"]
        kernel = phases[[p for p in PHASES if p != "lag"]].sum() + phases["lag"]
        assert 0 < kernel <= own["took"].sum() * 1.001


def test_an_agents_phases_add_up_to_the_training(profiled):
    totals = profiled.phases.groupby("agent")["seconds"].sum()
    assert totals.to_numpy() == pytest.approx(profiled.train_s, rel=1e-6)
    assert shares(profiled.phases).sum(axis=1).to_numpy() == pytest.approx(100)
    assert (profiled.phases["seconds"] >= 0).all() and set(profiled.phases["phase"]) == set(ALL_PHASES)
    for phase in ("reach", "forward", "commit", "update"):
        assert (profiled.phases.loc[profiled.phases["phase"] == phase, "seconds"] > 0).any(), phase


def test_the_timeline_has_a_rollout_before_every_update_and_waits_within_rollouts(profiled):
    for _, own in profiled.timeline.groupby("agent"):
        by = {name: part for name, part in own.groupby("interval")}
        assert len(by["update"]) == len(by["queue"]) <= len(by["rollout"])
        for update in by["update"].itertuples():
            assert (by["rollout"]["end_s"] <= update.start_s).any()
        for wait in by.get("lag", own.head(0)).itertuples():
            inside = (by["rollout"]["start_s"] - 1e-2 <= wait.start_s) & (wait.end_s <= by["rollout"]["end_s"] + 1e-2)
            assert inside.any()


def test_time_without_a_core_is_taken_from_phases_in_proportion(profiled):
    own = profiled.timeline.head(0)
    own.loc[0] = ["a", "rollout", 0.0, 10.0, 4.0]  # 2 s of it waiting, 8 awake, 4 on a core
    own.loc[1] = ["a", "update", 10.0, 12.0, 1.0]
    watched = dict.fromkeys(PHASES, 0.0) | {"reach": 6.0, "forward": 2.0, "lag": 2.0}
    seconds = split_wall(watched, own, 13.0)
    assert (seconds["reach"], seconds["forward"], seconds["lag"]) == pytest.approx((3.0, 1.0, 2.0))
    assert (seconds["update"], seconds["no_core"], seconds["done"]) == pytest.approx((1.0, 5.0, 1.0))
    assert sum(seconds.values()) == pytest.approx(13.0)
