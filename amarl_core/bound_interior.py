"""An interior-point method for packing programs with at most one column a group.

maximise    sum worth_c x_c
subject to  A x <= 1        (m rows, few)
            sum x_c <= 1    over the columns of each group (n rows, many)
            x >= 0
A general solver factorises m + n rows. The rows of the groups share no column, so their block is diagonal, and
eliminating it leaves m equations: tens of thousands of requests cost no more than the few resources they fight for.
Iterates stay feasible on both sides: the value is a true lower bound and the prices are valid wherever it stops.
Mehrotra, "On the implementation of a primal-dual interior point method", SIAM J. Optim. 2 (1992).
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.sparse import csr_array, sparray

MAX_STEPS = 100
KEEP_INSIDE = 0.995
"""Share of the way to the border that a step goes at most."""
RIDGES = 8
"""Times that the diagonal of Newton's equations is raised, each time a hundredfold, before the method stops."""


@dataclass
class _Point:
    """A point of the method: six positive vectors. Pairs x z, s prices, t rents go to zero together."""

    x: np.ndarray  # float64 [C]
    s: np.ndarray  # float64 [m], room left in the rows of A
    t: np.ndarray  # float64 [n], room left in the groups
    z: np.ndarray  # float64 [C], what a column costs beyond its worth
    prices: np.ndarray  # float64 [m]
    rents: np.ndarray  # float64 [n], price of a group's single place

    def pairs(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        return (self.x, self.z), (self.s, self.prices), (self.t, self.rents)

    def gap(self) -> float:
        """Return the difference of dual and primal value."""
        return float(sum(a @ b for a, b in self.pairs()))

    def size(self) -> int:
        return len(self.x) + len(self.s) + len(self.t)


@dataclass
class _System:
    """The program, with the forms of its matrix that Newton's equations need."""

    rows: sparray  # csr [m, C], A
    columns: sparray  # csr [C, m], its transpose
    member: sparray  # csr [C, n], 1 where a column belongs to a group
    group: np.ndarray  # int64 [C]
    n_groups: int

    def per_group(self, values: np.ndarray) -> np.ndarray:
        """Add up values of columns by group."""
        return np.bincount(self.group, values, self.n_groups)


class _Newton:
    """Newton's equations at one point, factorised once for predictor and corrector."""

    def __init__(self, system: _System, at: _Point):
        self.system, self.at = system, at
        self.theta = at.x / at.z
        weighted = system.rows.copy()
        weighted.data = system.rows.data * self.theta[system.rows.indices]
        self.by_group = csr_array(weighted @ system.member)  # [m, n]
        self.diagonal = system.per_group(self.theta) + at.t / at.rents
        scaled = self.by_group.copy()
        scaled.data = self.by_group.data / self.diagonal[self.by_group.indices]
        normal = (weighted @ system.columns - scaled @ self.by_group.T).toarray()
        normal[np.diag_indices_from(normal)] += at.s / at.prices
        ridge = 1e-14 * normal.diagonal().max()
        for _ in range(RIDGES):
            try:
                self.factor = cho_factor(normal, lower=True, check_finite=False)
                return
            except LinAlgError:  # rounding near the optimum: lean on the diagonal
                normal[np.diag_indices_from(normal)] += ridge
                ridge *= 100
        raise LinAlgError("Newton's equations are singular, or not finite")

    def step(self, target_x: np.ndarray, target_s: np.ndarray, target_t: np.ndarray) -> _Point:
        """Return the direction that moves the three products x z, s prices, t rents by the targets."""
        system, at = self.system, self.at
        wanted = target_x / at.z
        right = system.rows @ wanted + target_s / at.prices
        right_t = system.per_group(wanted) + target_t / at.rents
        prices = cho_solve(self.factor, right - self.by_group @ (right_t / self.diagonal), check_finite=False)
        rents = (right_t - self.by_group.T @ prices) / self.diagonal
        z = system.columns @ prices + rents[system.group]
        x = wanted - self.theta * z
        return _Point(x, -(system.rows @ x), -system.per_group(x), z, prices, rents)


def solve_packing(
    rows: sparray, group: np.ndarray, worth: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Solve a packing program.

    Args:
        rows: A, entries at least 0, m rows and C columns.
        group: of each column, int64 [C], numbered 0 to n - 1 without gaps.
        worth: of each column, float64 [C], above 0.
        tolerance: stop when primal and dual value differ by this at most.

    Returns:
        x, float64 [C], feasible; prices of the rows of A, float64 [m], above 0.
    """
    rows = csr_array(rows)
    n_groups = int(group.max()) + 1
    member = csr_array((np.ones(len(group)), (np.arange(len(group)), group)), shape=(len(group), n_groups))
    system = _System(rows, csr_array(rows.T), member, group, n_groups)
    at = _start(system, worth)
    for _ in range(MAX_STEPS):
        if at.gap() <= tolerance:
            break
        try:
            further = _advance(system, at)
        except LinAlgError:
            break
        if not np.isfinite(further.gap()):
            break
        at = further
    return at.x, at.prices


def _start(system: _System, worth: np.ndarray) -> _Point:
    """Return a point well inside both sides."""
    x = 0.5 / system.per_group(np.ones(len(worth)))[system.group]
    x /= max(1.0, 2 * (system.rows @ x).max(initial=0.0))
    prices = np.full(system.rows.shape[0], worth.mean())
    cost = system.columns @ prices
    rents = np.full(system.n_groups, worth.mean())
    np.maximum.at(rents, system.group, worth - cost + worth.mean())
    return _Point(x, 1 - system.rows @ x, 1 - system.per_group(x), cost + rents[system.group] - worth, prices, rents)


def _advance(system: _System, at: _Point) -> _Point:
    """Take one predictor-corrector step."""
    newton = _Newton(system, at)
    guess = newton.step(*(-a * b for a, b in at.pairs()))
    tried = _moved(at, guess, *_lengths(at, guess, 1.0))
    mean = at.gap() / at.size()
    centre = mean * (tried.gap() / at.gap()) ** 3
    targets = [centre - a * b - da * db for (a, b), (da, db) in zip(at.pairs(), guess.pairs(), strict=True)]
    step = newton.step(*targets)
    return _moved(at, step, *_lengths(at, step, KEEP_INSIDE))


def _lengths(at: _Point, step: _Point, most: float) -> tuple[float, float]:
    """Return how far to go on the primal and on the dual side, at most 1."""

    def reach(values: tuple[np.ndarray, ...], moves: tuple[np.ndarray, ...]) -> float:
        return min(
            [1.0, *(most * (v[d < 0] / -d[d < 0]).min(initial=np.inf) for v, d in zip(values, moves, strict=True))]
        )

    primal = reach((at.x, at.s, at.t), (step.x, step.s, step.t))
    return primal, reach((at.z, at.prices, at.rents), (step.z, step.prices, step.rents))


def _moved(at: _Point, step: _Point, primal: float, dual: float) -> _Point:
    """Return the point a step further."""
    return _Point(
        at.x + primal * step.x,
        at.s + primal * step.s,
        at.t + primal * step.t,
        at.z + dual * step.z,
        at.prices + dual * step.prices,
        at.rents + dual * step.rents,
    )
