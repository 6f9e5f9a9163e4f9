"""The restricted linear program of the bound: the columns found so far, and the prices that they imply.

maximise    sum worth_r x_p           over columns p, r the request of p
subject to  sum x_p <= 1              for every request
            sum share x overlap <= 1  for every (resource, block): what is held, averaged over the block, of its limit
            x >= 0
Rows that the columns cannot fill, and requests with a column that meets no other row, are left out: their price is 0.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.sparse import csc_array

from amarl_core.bound_columns import Columns
from amarl_core.bound_interior import solve_packing
from amarl_core.native import INNER, KERNEL

ALMOST_FULL = 1.0 - 1e-9
ROUNDS = 4
"""Times that the program is solved with more rows before what is still exceeded is cut back."""


@dataclass(frozen=True)
class Solved:
    """An optimum of the restricted program.

    Attributes:
        value: its value, a lower bound on the optimum over all columns.
        chosen: share of each column that is accepted, float64 [C].
        prices: of each (block, resource), float64 [B, R], at least 0.
    """

    value: float
    chosen: np.ndarray
    prices: np.ndarray


@njit(**INNER)
def _overlap(request, start_s, block_s, b):
    """Return the share of a block during which a request holds what it uses."""
    left = max(request.t_s, start_s + b * block_s)
    right = min(request.t_s + request.hold_s, start_s + (b + 1) * block_s)
    return max(0.0, right - left) / block_s


@njit(**INNER)
def _blocks_of(request, start_s, block_s, n_blocks):
    """Return the first block that a request meets, and the first that it does not meet any more."""
    first = int(max(0.0, (request.t_s - start_s) // block_s))
    last = int(max(0.0, (request.t_s + request.hold_s - start_s) // block_s)) + 1
    return min(first, n_blocks), min(last, n_blocks)


@njit(**KERNEL)
def most_use(columns, requests, start_s, block_s, left_out, most, use):
    """Add up, in `use` [B, R], what each request not left out could take at most; `most` [R] is scratch of zeros."""
    n_columns = columns.request.shape[0]
    first = 0
    while first < n_columns:
        r = columns.request[first]
        after = first
        while after < n_columns and columns.request[after] == r:
            after += 1
        if not left_out[r]:
            b_first, b_last = _blocks_of(requests[r], start_s, block_s, use.shape[0])
            for u in range(columns.start[first], columns.start[after]):
                resource, more = columns.resource[u], columns.share[u] - most[columns.resource[u]]
                if more > 0.0:
                    most[resource] += more
                    for b in range(b_first, b_last):
                        use[b, resource] += more * _overlap(requests[r], start_s, block_s, b)
            for u in range(columns.start[first], columns.start[after]):
                most[columns.resource[u]] = 0.0
        first = after


@njit(**KERNEL)
def count_entries(columns, requests, start_s, block_s, row_of, count):
    """Count each column's entries in the rows that `row_of` [B, R] numbers (-1: left out)."""
    for c in range(columns.request.shape[0]):
        b_first, b_last = _blocks_of(requests[columns.request[c]], start_s, block_s, row_of.shape[0])
        count[c] = 0
        for u in range(columns.start[c], columns.start[c + 1]):
            for b in range(b_first, b_last):
                count[c] += row_of[b, columns.resource[u]] >= 0


@njit(**KERNEL)
def write_entries(columns, requests, start_s, block_s, row_of, rows, values):
    """Write the entries that `count_entries` counts, column by column."""
    n = 0
    for c in range(columns.request.shape[0]):
        request = requests[columns.request[c]]
        b_first, b_last = _blocks_of(request, start_s, block_s, row_of.shape[0])
        for u in range(columns.start[c], columns.start[c + 1]):
            for b in range(b_first, b_last):
                row = row_of[b, columns.resource[u]]
                if row >= 0:
                    rows[n] = row
                    values[n] = columns.share[u] * _overlap(request, start_s, block_s, b)
                    n += 1


@njit(**KERNEL)
def add_use(columns, requests, start_s, block_s, chosen, use):
    """Add up, in `use` [B, R], what the chosen shares of the columns take."""
    for c in range(columns.request.shape[0]):
        if chosen[c] <= 0.0:
            continue
        request = requests[columns.request[c]]
        b_first, b_last = _blocks_of(request, start_s, block_s, use.shape[0])
        for u in range(columns.start[c], columns.start[c + 1]):
            for b in range(b_first, b_last):
                use[b, columns.resource[u]] += chosen[c] * columns.share[u] * _overlap(request, start_s, block_s, b)


@njit(**KERNEL)
def cut_back(columns, requests, start_s, block_s, use, chosen):
    """Divide each column's chosen share by the worst excess that it meets; no row is exceeded afterwards."""
    for c in range(columns.request.shape[0]):
        b_first, b_last = _blocks_of(requests[columns.request[c]], start_s, block_s, use.shape[0])
        worst = 1.0
        for u in range(columns.start[c], columns.start[c + 1]):
            for b in range(b_first, b_last):
                worst = max(worst, use[b, columns.resource[u]])
        chosen[c] /= worst


def resource_rows(columns: Columns, requests: np.ndarray, start_s: float, block_s: float, row_of: np.ndarray):
    """Return the rows that `row_of` numbers as a matrix, csc [rows, C]."""
    count = np.zeros(len(columns.request), np.int64)
    count_entries(columns, requests, start_s, block_s, row_of, count)
    rows, values = np.zeros(count.sum(), np.int64), np.zeros(count.sum())
    write_entries(columns, requests, start_s, block_s, row_of, rows, values)
    starts = np.concatenate([[0], np.cumsum(count)])
    return csc_array((values, rows, starts), shape=(int(row_of.max(initial=-1)) + 1, len(count)))


def _contested(columns: Columns, requests: np.ndarray, start_s: float, block_s: float, active: np.ndarray):
    """Find the rows that matter, and a column that meets none of them for every request that has one.

    An active row matters when the requests that are not accepted anyway could fill it, each with its hungriest column.

    Args:
        columns, requests, start_s, block_s: as in `solve_master`.
        active: rows to look at, bool [B, R].

    Returns:
        Numbers of the rows, int64 [B, R], -1 for those that do not matter; the column of each request that is
        accepted anyway, int64 [n], -1 for the others.
    """
    anyway = np.full(len(requests), -1)
    count = np.zeros(len(columns.request), np.int64)
    while True:
        use = np.zeros(active.shape)
        most_use(columns, requests, start_s, block_s, anyway >= 0, np.zeros(active.shape[1]), use)
        matters = active & (use > ALMOST_FULL)
        row_of = np.where(matters, np.cumsum(matters).reshape(matters.shape) - 1, -1)
        count_entries(columns, requests, start_s, block_s, row_of, count)
        unmet = np.flatnonzero((count == 0) & (anyway[columns.request] < 0))
        if not len(unmet):
            return row_of, anyway
        anyway[columns.request[unmet]] = unmet


def solve_master(
    columns: Columns,
    requests: np.ndarray,
    worth: np.ndarray,
    start_s: float,
    block_s: float,
    active: np.ndarray,
    tolerance: float,
) -> Solved:
    """Solve the restricted program.

    Only active rows are imposed. Those that the optimum then exceeds become active and it is solved again; what is
    exceeded after some rounds is cut back, so that the value is that of a feasible point in any case.

    Args:
        columns: the columns found so far.
        requests: REQUEST [n].
        worth: of each request, float64 [n].
        start_s: start of the first block.
        block_s: length of a block.
        active: rows that may have a price, bool [B, R]; more are set.
        tolerance: how far the value may stay below the optimum over active rows.
    """
    for _ in range(ROUNDS):
        chosen, prices = _solve_active(columns, requests, worth, start_s, block_s, active, tolerance)
        use = np.zeros(active.shape)
        add_use(columns, requests, start_s, block_s, chosen, use)
        exceeded = use > 1.0 + 1e-6
        if not (exceeded & ~active).any():
            break
        active |= exceeded
    cut_back(columns, requests, start_s, block_s, use, chosen)
    return Solved(float(worth[columns.request] @ chosen), chosen, prices)


def _solve_active(columns, requests, worth, start_s, block_s, active, tolerance) -> tuple[np.ndarray, np.ndarray]:
    """Solve with the active rows only; return the shares of the columns [C] and the prices [B, R]."""
    row_of, anyway = _contested(columns, requests, start_s, block_s, active)
    chosen, prices = np.zeros(len(columns.request)), np.zeros(active.shape)
    chosen[anyway[anyway >= 0]] = 1.0
    kept = np.flatnonzero(anyway[columns.request] < 0)
    if len(kept):
        resource = resource_rows(columns, requests, start_s, block_s, row_of)[:, kept]
        group = np.unique(columns.request[kept], return_inverse=True)[1]
        chosen[kept], priced = solve_packing(resource, group, worth[columns.request[kept]], tolerance)
        prices[row_of >= 0] = priced
    return chosen, prices
