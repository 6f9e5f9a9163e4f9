"""The independent audit of a run: was every outcome right, and was no capacity ever exceeded?

``audit`` replays decisions and ledger from an empty network in plain numpy and pandas, in none of the code
that made them, and checks the rules of ``amarl_core.rules``. For a run in free order, whose capacity holds in
lock order only, it also reports what that hides: admissions overbooked in simulated time, and the peak.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from amarl_core.epochs import check_moves, read_moves, unfold, whole
from amarl_core.errors import AuditError
from amarl_core.ledger_rows import check_arrival_order, check_rows, last_aborts
from amarl_core.lock_order import check_replay
from amarl_core.replay import limits, simulated_time, uses_of
from amarl_core.rules import CONFLICTS, RULES, Findings, check_decisions, check_trace
from amarl_core.transcript import COMMIT, RELEASE, read_decisions, read_ledger
from amarl_core.walks import check_routes

logger = logging.getLogger(__name__)
ORDERS = ("arrival", "free")


@dataclass(frozen=True, eq=False)
class AuditReport:
    """What an audit found.

    Attributes:
        order: Commit order the run was judged by, "arrival" or "free".
        requests: Requests decided.
        admissions: Requests that were committed.
        ledger_rows: Rows of the ledger.
        count: Violations by rule, of the rules that were broken.
        violations: The first 100 violations of each rule: rule, row (0-based, in the frame that ``rules``
            names; row j of the moves counts on from the decisions), request_id, detail.
        overbooked: Admissions after which, in simulated time, a resource they use is over capacity.
        peak: Highest use of any resource in simulated time, as a share of its capacity or budget.
        seconds: Time the audit took.
    """

    order: str
    requests: int
    admissions: int
    ledger_rows: int
    count: dict[str, int]
    violations: pd.DataFrame
    overbooked: int
    peak: float
    seconds: float

    @property
    def n_violations(self) -> int:
        """Number of violations, listed or not."""
        return sum(self.count.values())

    @property
    def ok(self) -> bool:
        """Whether no rule was broken."""
        return self.n_violations == 0

    @property
    def overbooked_share(self) -> float:
        """Overbooked admissions as a share of all admissions."""
        return self.overbooked / max(self.admissions, 1)

    def summary(self) -> str:
        """Say in a few lines what was checked and what was found."""
        lines = [
            f"{self.requests:,} requests and {self.ledger_rows:,} ledger rows in {self.order} order, "
            f"{len(RULES)} rules, {self.seconds:.2f} s: {self.n_violations or 'no'} violation"
            + ("" if self.n_violations == 1 else "s"),
            f"overbooked in simulated time: {self.overbooked:,} of {self.admissions:,} admissions "
            f"({self.overbooked_share:.2%}); peak {self.peak:.3f} of capacity",
        ]
        for rule, count in self.count.items():
            first = self.violations[self.violations["rule"] == rule].iloc[0]
            lines.append(
                f"  {rule}: {count:,}, first at row {first['row']}, request {first['request_id']}: {first['detail']}"
            )
        return "\n".join(lines)

    def as_row(self) -> dict[str, float]:
        """Return the columns of a study's table of audits."""
        return {
            "requests": self.requests,
            "admissions": self.admissions,
            "violations": self.n_violations,
            "overbooked": self.overbooked,
            "peak": self.peak,
            "seconds": self.seconds,
        }

    def raise_if_violated(self) -> AuditReport:
        """Return the report itself when no rule was broken.

        Raises:
            AuditError: One was; the message names the first rows.
        """
        if not self.ok:
            raise AuditError(f"the run breaks {len(self.count)} of the audit's rules\n{self.summary()}")
        return self


def audit(
    scenario: Any,
    decisions: pd.DataFrame,
    ledger: pd.DataFrame,
    trace: Any = None,
    order: str = "arrival",
    moves: pd.DataFrame | None = None,
) -> AuditReport:
    """Replay a run from an empty network and check every rule.

    Args:
        scenario: The scenario it ran on.
        decisions: One row a request.
        ledger: One row a commit, abort or release.
        trace: The requests that were offered; when None, the decisions are not compared with any.
        order: "arrival" also demands that commits follow arrivals and that nothing is overbooked in simulated
            time; "free" reports what is.
        moves: One row for each time a flow was moved to another route; None when none was.

    Returns:
        The report; it never raises for a violation, see ``AuditReport.raise_if_violated``.

    Raises:
        AuditError: The order is unknown, or a column is missing or cannot be read.
    """
    if order not in ORDERS:
        raise AuditError(f"order is {order!r}; expected one of {ORDERS}")
    started, found = time.perf_counter(), Findings()
    d = read_decisions(decisions, scenario)
    g = read_ledger(ledger, d, scenario)
    check_decisions(found, d, scenario)
    if trace is not None:
        check_trace(found, d, trace)
    n_requests, epochs = len(d), whole(d)
    if moves is not None and len(moves):
        table = read_moves(moves, d, scenario)
        good = check_moves(found, d, table)
        if good.all():
            d, g, epochs = unfold(d, g, table)
    known = (d.service >= 0) & (d.source >= 0) & (d.destination >= 0)
    known &= ~d.links.any(d.links.code < 0) & ~d.hosts.any(d.hosts.code < 0)
    sound = known & (d.accepted | d.has_cause(*CONFLICTS))
    check_routes(found, d, scenario, sound)
    check_rows(found, d, g)

    committed, released = np.zeros((2, len(d)), bool)
    committed[g.row[(g.kind == COMMIT) & (g.row >= 0)]] = True
    released[g.row[(g.kind == RELEASE) & (g.row >= 0)]] = True
    uses = uses_of(d, scenario, committed | released | (last_aborts(d, g) >= 0))
    check_replay(found, d, g, scenario, uses, sound)
    overbooked, peak = simulated_time(d, uses, np.flatnonzero(committed), limits(scenario))
    if order == "arrival":
        check_arrival_order(found, d, g, epochs)
        found.check(
            "overbooked",
            np.arange(len(d)),
            d.request_id,
            [(overbooked, lambda i: "exceeds a capacity in time")],
        )
    report = AuditReport(
        order=order,
        requests=n_requests,
        admissions=int(committed[:n_requests].sum()),
        ledger_rows=len(g),
        count={rule: found.count[rule] for rule in RULES if rule in found.count},
        violations=found.frame(),
        overbooked=int(overbooked.sum()),
        peak=peak,
        seconds=time.perf_counter() - started,
    )
    logger.info("audit: %s", report.summary())
    return report
