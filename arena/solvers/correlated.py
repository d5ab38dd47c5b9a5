"""Correlated and coarse correlated equilibria: what is stable with a mediator.

A [m, n] are the row player's payoffs, B [m, n] the column player's. In a correlated equilibrium
(Aumann 1974) a mediator draws a profile and tells each player its own action, and no player gains
by disobeying. In a coarse one (Moulin & Vial 1978) no player gains by refusing in advance to listen
at all; averages of no-regret play converge to the set of these. Both sets are polytopes, so the
caller gives the objective that is maximized over them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import block_diag, coo_array, csr_array, vstack

from arena.solvers.payoffs import Array, bimatrix, matrix, span, unit
from arena.solvers.programs import best_mixture


@dataclass(frozen=True)
class Mediation:
    """What the mediator does.

    Attributes:
        distribution: The probability [m, n] of each profile.
        value: Its mean objective.
        gain: The most that a player gains on average by any one deviation, in units of the payoffs:
            0 up to rounding.
    """

    distribution: Array
    value: float
    gain: float


def correlated(row: ArrayLike, column: ArrayLike, objective: ArrayLike) -> Mediation:
    """The correlated equilibrium that is best by an objective.

    Args:
        row: A [m, n].
        column: B [m, n].
        objective: What is maximized, for each profile [m, n]; A + B is welfare.

    Raises:
        ValueError: If the shapes differ or an entry is not finite.
        ArithmeticError: If HiGHS fails.
    """
    a, b = bimatrix(row, column)
    m, n = a.shape
    # A profile (i, j) is variable n i + j. For each i and k: sum_j p_ij (A_kj - A_ij) <= 0.
    of_row = _blocks([np.delete(a - a[i], i, axis=0) for i in range(m)])
    of_column = _blocks([np.delete(b.T - b[:, j], j, axis=0) for j in range(n)])
    by_row = np.arange(m * n).reshape(n, m).T.ravel()
    return _mediated(a, b, of_row, of_column[:, by_row], objective)


def coarse_correlated(row: ArrayLike, column: ArrayLike, objective: ArrayLike) -> Mediation:
    """The coarse correlated equilibrium that is best by an objective; arguments as `correlated`.

    Raises:
        ValueError: If the shapes differ or an entry is not finite.
        ArithmeticError: If HiGHS fails.
    """
    a, b = bimatrix(row, column)
    m, n = a.shape
    of_row = (a[:, None, :] - a).reshape(m, m * n)  # refuse to listen and play k instead
    of_column = (b.T[:, :, None] - b).reshape(n, m * n)
    return _mediated(a, b, csr_array(of_row), csr_array(of_column), objective)


def _blocks(blocks: list[Array]) -> csr_array:
    # Sparse arrays in, a sparse array out: of dense blocks scipy makes the older sparse matrix.
    return csr_array(block_diag([coo_array(block) for block in blocks]))


def _mediated(
    a: Array, b: Array, of_row: csr_array, of_column: csr_array, objective: ArrayLike
) -> Mediation:
    wanted = matrix(objective, "the objective")
    if wanted.shape != a.shape:
        raise ValueError(f"the objective needs shape {a.shape}, not {wanted.shape}")
    gains = csr_array(vstack([of_row / span(a), of_column / span(b)]))
    found = best_mixture(1 - unit(wanted).ravel(), gains)
    assert found is not None, "a Nash equilibrium is a correlated one"
    p = found.mixture
    gain = max(0.0, *(float((rows @ p).max(initial=0.0)) for rows in (of_row, of_column)))
    return Mediation(p.reshape(a.shape), float(p @ wanted.ravel()), gain)
