"""What was noticed while somebody's traffic was read: counted, with an example, and what was done about it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """One thing noticed.

    Attributes:
        what: What it is, such as "gap".
        count: How many there are, such as rows or intervals.
        example: Where one of them is, or its value, in words.
        done: What was done about it.
        is_warning: True if the user should look at it; False for a plain fact.
    """

    what: str
    count: int
    example: str
    done: str
    is_warning: bool = True

    def __str__(self) -> str:
        example = f" ({self.example})" if self.example else ""
        return f"{self.what}: {self.count:,}{example}; {self.done}"


@dataclass
class Report:
    """All that was noticed in one file, in the order in which it was noticed."""

    path: Path
    findings: list[Finding] = field(default_factory=list)

    def warn(self, what: str, count: int, example: str, done: str) -> None:
        """Add something that the user should look at, unless there are none of it."""
        if count:
            self.findings.append(Finding(what, int(count), example, done))

    def note(self, what: str, count: int, example: str, done: str) -> None:
        """Add a plain fact."""
        self.findings.append(Finding(what, int(count), example, done, is_warning=False))

    @property
    def warnings(self) -> list[Finding]:
        """What the user should look at."""
        return [finding for finding in self.findings if finding.is_warning]

    def count(self, what: str) -> int:
        """Return how many of a thing were noticed, over all findings of that name."""
        return sum(finding.count for finding in self.findings if finding.what == what)

    def frame(self) -> pd.DataFrame:
        """Return the findings as a table: kind, what, count, example, done."""
        rows = [("warning" if f.is_warning else "note", f.what, f.count, f.example, f.done) for f in self.findings]
        return pd.DataFrame(rows, columns=["kind", "what", "count", "example", "done"])

    def log(self) -> None:
        """Log the warnings as such and the facts as information."""
        for finding in self.findings:
            logger.log(logging.WARNING if finding.is_warning else logging.INFO, "%s: %s", self.path.name, finding)
