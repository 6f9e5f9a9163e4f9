"""What the tests share: the toy scenario, one of its days, and a small team trained on it."""

import os

import pytest
from hypothesis import settings

import amarl_core  # noqa: F401  before numba, whose cache folder it sets

settings.register_profile("project", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("project")


@pytest.fixture(scope="session")
def toy():
    """The toy scenario: nine nodes, three services, some 2,000 requests a day, contention."""
    from amarl_core.scenario import load_scenario

    return load_scenario("toy")


@pytest.fixture(scope="session")
def toy_day(toy):
    """A held-out weekday of the toy scenario."""
    return toy.test_trace("test-weekday")


@pytest.fixture(scope="session")
def toy_team(toy):
    """An AMARL team with two days of training."""
    from amarl_core.agents import train

    return train(toy, "amarl", 0, days=2)


@pytest.fixture(scope="session")
def toy_agent(toy):
    """A SARL agent with two days of training."""
    from amarl_core.agents import train

    return train(toy, "sarl", 0, days=2)
