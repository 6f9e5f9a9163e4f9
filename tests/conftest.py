"""What the tests share: the toy scenario, one of its days, and a small team trained on it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

import amarl_core  # noqa: F401  before numba, whose cache folder it sets

settings.register_profile("project", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("project")


def pytest_collection_finish(session) -> None:
    """Start the run with bounds checked, which compiles all kernels again, beside the other tests."""
    wanted = any("checked_run" in getattr(item, "fixturenames", ()) for item in session.items)
    if not wanted or session.config.option.collectonly:
        return
    if not os.environ.get("CI") and os.environ.get("AMARL_SLOW") != "1":
        return
    tests = Path(__file__).parent
    session.config.checked_run = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(tests / "checked_run.py")],
        env=os.environ | {"PYTHONPATH": str(tests.parent), "NUMBA_BOUNDSCHECK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pytest_unconfigure(config) -> None:
    """End that run when the tests end early."""
    if hasattr(config, "checked_run") and config.checked_run.poll() is None:
        config.checked_run.kill()


@pytest.fixture
def checked_run(request):
    """The process that `pytest_collection_finish` started."""
    return request.config.checked_run


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
