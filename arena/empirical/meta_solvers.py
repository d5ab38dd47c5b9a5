"""Meta-solvers: which mixtures of a population the next best responses answer (1711.00832).

nash             the equilibrium of the game so far: double oracle (McMahan et al. 2003)
replicator       projected replicator dynamics, 1711.00832: averages, every move keeps a share
regret_matching  regret matching+ (1407.5042): averages
uniform          every move alike: fictitious play, where each round adds one
"""

import itertools
from typing import Literal

import numpy as np

from arena.solvers import zero_sum
from arena.solvers.dynamics import replicator
from arena.solvers.payoffs import Array, unit

Meta = Literal["nash", "replicator", "regret_matching", "uniform"]

_STEPS = 2_000  # of the replicator, a tenth of a unit of time each
_LEAST = 0.01  # of the moves' shares there, over their number
_GAP = 1e-3  # of regret matching, in units of the payoffs' span


def mixtures(meta: Meta, payoffs: Array) -> tuple[Array, Array]:
    """The mixtures of rows [m] and columns [n], for the row player's payoffs [m, n]."""
    m, n = payoffs.shape
    even = np.full(m, 1 / m), np.full(n, 1 / n)
    if meta == "uniform":
        return even
    if meta == "nash":
        found = zero_sum.exact(payoffs)
        return found.row, found.column
    scaled = unit(payoffs)
    if meta == "regret_matching":
        found = zero_sum.iterated(scaled, _GAP)
        return found.row, found.column
    steps = replicator(scaled, -scaled, even, step=0.1, floor=_LEAST / max(m, n))
    *_, last = itertools.islice(steps, _STEPS)
    return last.row_average, last.column_average
