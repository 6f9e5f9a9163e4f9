"""Freeze a scenario: record its digest and the checksums of its held-out days.

``python -m amarl_core.freeze data/montreal`` generates the held-out days from their reserved seed, writes the
committed ones as files, and rewrites the last section, [frozen], of scenario.toml. It is run once, after the
calibration and before any learner trains; from then on a changed world or a changed day is noticed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

from amarl_core.errors import AmarlError, ScenarioError, problem
from amarl_core.files import sweep, write_text
from amarl_core.scenario import Scenario, load_scenario
from amarl_core.settings import SETTINGS_FILE, read_settings

logger = logging.getLogger(__name__)

_HEADING = "[frozen]"


def freeze(folder: str | Path) -> Scenario:
    """Write the committed held-out days and the [frozen] section of a scenario folder.

    Args:
        folder: Name or path of the scenario.

    Returns:
        The scenario as it now stands, every held-out day checked.
    """
    scenario = load_scenario(folder)
    if scenario.overlays:
        remedy = "Freeze its base; an overlay's days are drawn from the base's seed."
        raise ScenarioError(problem(None, None, "scenario", str(folder), "a scenario without overlays", remedy))
    checksums = {}
    sweep(scenario.folder)
    for day in scenario.test_days:
        trace = scenario.generate_test_day(day)
        checksums[day] = trace.sha256
        committed = scenario.settings.committed.get(day)
        if committed is not None:
            trace.write(committed)
    path = scenario.folder / SETTINGS_FILE
    kept = path.read_text(encoding="utf-8").split(f"\n{_HEADING}")[0].rstrip("\n")
    recorded = "\n".join(f'{day} = "{checksum}"' for day, checksum in checksums.items())
    write_text(
        path,
        f"{kept}\n\n{_HEADING} # written by python -m amarl_core.freeze; keep it the last section\n"
        f'digest = "{scenario.digest}"\n\n[frozen.test_day_sha256]\n{recorded}\n',
    )
    frozen = replace(scenario, settings=read_settings(scenario.folder))
    for day in frozen.test_days:
        trace = frozen.test_trace(day)
        logger.info("%s: %d requests, sha256 %s", day, len(trace), trace.sha256[:12])
    return frozen


def main(arguments: list[str] | None = None) -> int:
    """Freeze the scenario named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m amarl_core.freeze", description=__doc__.split("\n")[0])
    parser.add_argument("scenario", help="name or folder of the scenario, such as data/montreal")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        scenario = freeze(chosen.scenario)
    except AmarlError as reason:
        logger.error("%s", reason)
        return 2
    logger.info("%s is frozen with digest %s", scenario.name, scenario.digest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
