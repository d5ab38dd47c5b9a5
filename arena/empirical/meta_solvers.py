"""Meta-solvers: the mixtures of a population that the next best responses answer (1711.00832).

nash             the equilibrium of the game so far: double oracle (McMahan et al. 2003)
replicator       averages of projected replicator dynamics (1711.00832), with a floor per move
regret_matching  averages of regret matching+ (1407.5042)
uniform          equal weights: fictitious play, where each round adds one move
"""

import itertools
from typing import Literal

import numpy as np

from arena.solvers import zero_sum
from arena.solvers.dynamics import replicator
from arena.solvers.payoffs import Array, unit

Meta = Literal["nash", "replicator", "regret_matching", "uniform"]

_STEPS = 2_000  # of the replicator, each a tenth of a unit of time
_FLOOR = 0.01  # of the replicator: the least share of a move, times the number of moves
_GAP = 1e-3  # at which regret matching stops, in units of the payoffs' span


def mixtures(meta: Meta, payoffs: Array) -> tuple[Array, Array]:
    """The mixtures of the rows [m] and of the columns [n].

    Args:
        meta: The meta-solver.
        payoffs: The row player's payoffs [m, n]; the column player's are their negation.

    Raises:
        ValueError: If payoffs are missing or not finite.
        ArithmeticError: If a linear program fails.
    """
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
    steps = replicator(scaled, -scaled, even, step=0.1, floor=_FLOOR / max(m, n))
    *_, last = itertools.islice(steps, _STEPS)
    return last.row_average, last.column_average
