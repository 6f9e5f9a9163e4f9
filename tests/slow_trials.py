"""A kind of trial that costs nothing, for the tests of what does trials: it squares a number, slowly if asked to.

Every start and every end of a trial is a line in `log.txt` of the study's folder, whichever process does it.
"""

import os
import time
from pathlib import Path

from amarl_core.errors import AmarlError
from amarl_core.trials import Kind, Study, Trial, take


class Square(Kind):
    name = "square"

    def resolve(self, given):
        return take(given, {"n": ..., "seconds": 0.0, "does": "end", "after": None}, "a square trial")

    def needs(self, values):
        return () if values["after"] is None else (SQUARE.trial(n=values["after"], seconds=values["seconds"]),)

    def label(self, values):
        return {"n": values["n"]}

    def measure(self, trial, study, place):
        values = trial.values
        write_line(study, f"start {values['n']} {os.getpid()}")
        time.sleep(values["seconds"])
        if values["does"] == "fail":
            raise AmarlError(f"{values['n']} cannot be squared")
        if values["does"] == "die":
            os._exit(9)
        if values["does"] == "stumble" and lines_of(study).count(f"start {values['n']}") == 1:
            os._exit(9)
        write_line(study, f"end {values['n']} {os.getpid()}")
        return {"square": values["n"] ** 2}


SQUARE = Square()


def write_line(study: Path, line: str) -> None:
    with open(study / "log.txt", "a") as file:
        file.write(line + "\n")


def lines_of(study: Path) -> list[str]:
    """What was started and ended, without the processes."""
    return [line.rpartition(" ")[0] for line in (study / "log.txt").read_text().splitlines()]


def squares(numbers, **values) -> tuple[Trial, ...]:
    return tuple(SQUARE.trial(n=n, **values) for n in numbers)


def make_study(numbers=range(6), name="squares", **values) -> Study:
    return Study(name, "What are the squares?", squares(numbers, **values))
