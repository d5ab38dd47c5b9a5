"""Correlated equilibria and quantal responses: what is stable with a mediator, or with mistakes.

A [m, n] are the row player's payoffs, B [m, n] the column player's. Correlated (Aumann 1974):
nobody gains by disobeying the action that a mediator drew for it. Coarse (Moulin & Vial 1978):
nobody gains by refusing, beforehand, to listen at all; averages of no-regret play end up there.
Both are polytopes, so the caller says what is to be maximized over them. Quantal response
(McKelvey & Palfrey 1995): actions in proportion to exp(rationality x payoff).
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import block_diag, coo_array, csr_array, vstack
from scipy.special import log_softmax

from arena.solvers.payoffs import Array, bimatrix, matrix, span, unit
from arena.solvers.programs import best_mixture


@dataclass(frozen=True)
class Mediation:
    """The mediator's `distribution` [m, n] over profiles and its `value` under the objective.

    `gain`: the most that a player gains, on average, by any one way of not obeying; in units of
    the payoffs, 0 up to rounding.
    """

    distribution: Array
    value: float
    gain: float


def correlated(row: ArrayLike, column: ArrayLike, objective: ArrayLike) -> Mediation:
    """The correlated equilibrium that is best by `objective` [m, n]; A + B is welfare.

    Raises:
        ValueError: If payoffs or objective do not fit or are not finite.
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
    """The coarse correlated equilibrium that is best by `objective` [m, n].

    Raises:
        ValueError: If payoffs or objective do not fit or are not finite.
        ArithmeticError: If HiGHS fails.
    """
    a, b = bimatrix(row, column)
    m, n = a.shape
    of_row = (a[:, None, :] - a).reshape(m, m * n)  # refusing to listen and playing k instead
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


@dataclass(frozen=True)
class Response:
    """Mixtures `row` [m] and `column` [n] with the largest error of any probability."""

    row: Array
    column: Array
    residual: float


_STEPS = 10_000
_CONVERGED = 1e-11
_STRAIGHT = 0.9  # cosine of the most that a step may turn: more may jump to another branch


def quantal_response(row: ArrayLike, column: ArrayLike, rationality: float) -> Response:
    """The logit equilibrium at one rationality; see `quantal_responses`."""
    return next(quantal_responses(row, column, [rationality]))


def quantal_responses(
    row: ArrayLike, column: ArrayLike, rationalities: Sequence[float]
) -> Iterator[Response]:
    """Logit equilibria on the branch that starts, at rationality 0, from uniform mixtures.

    The branch is followed once, by its arc length in logarithms of probabilities (Turocy 2005, "A
    dynamic homotopy interpretation of the logistic quantal response equilibrium"), since it may
    turn back; what is returned is where it first reaches each rationality.

    Args:
        row: A [m, n].
        column: B [m, n].
        rationalities: Ascending, at least 0, in units of 1 / payoff.

    Raises:
        ValueError: If payoffs do not fit or are not finite, or rationalities are negative, infinite
            or not ascending.
        ArithmeticError: If the branch does not get to the next one within 10,000 steps.
    """
    a, b = bimatrix(row, column)
    if not all(0 <= each < np.inf for each in rationalities):
        raise ValueError(f"rationality must be at least 0 and finite, not {list(rationalities)}")
    if any(later < each for each, later in itertools.pairwise(rationalities)):
        raise ValueError(f"rationalities must be ascending, not {list(rationalities)}")
    scale = max(span(a), span(b))
    branch = _Branch((a - a.min()) / scale, (b - b.min()) / scale)
    z = np.append(-np.log(np.repeat(a.shape, a.shape)), 0.0)
    tangent, length = branch.tangent(z, np.append(np.zeros(len(z) - 1), 1.0)), 0.1
    for rationality in rationalities:
        z, tangent, length = branch.followed(z, tangent, length, rationality * scale)
        x, y = branch.mixtures(z)
        off = np.exp(log_softmax(rationality * (a @ y))) - x
        off_y = np.exp(log_softmax(rationality * (x @ b))) - y
        yield Response(x, y, float(max(np.abs(off).max(), np.abs(off_y).max())))


@dataclass(frozen=True)
class _Branch:
    """Logit equilibria as the zeros of H(z), z = (log x [m], log y [n], rationality)."""

    a: Array
    b: Array

    def mixtures(self, z: Array) -> tuple[Array, Array]:
        m = self.a.shape[0]
        return np.exp(log_softmax(z[:m])), np.exp(log_softmax(z[m:-1]))

    def equations(self, z: Array) -> tuple[Array, Array]:
        """H [m + n]: log odds less rationality x payoff differences; sums less 1. Its Jacobian."""
        m, n = self.a.shape
        x, y, rationality = np.exp(z[:m]), np.exp(z[m:-1]), z[-1]
        h, jacobian = np.empty(m + n), np.zeros((m + n, m + n + 1))
        players = ((0, m, self.a, m, y, x), (m, n, self.b.T, 0, x, y))
        for at, size, payoffs, other_at, other, own in players:
            rest = slice(at + 1, at + size)
            ahead = payoffs[1:] - payoffs[0]
            h[rest] = z[rest] - z[at] - rationality * (ahead @ other)
            jacobian[rest, rest] = np.eye(size - 1)
            jacobian[rest, at] = -1.0
            jacobian[rest, other_at : other_at + len(other)] = -rationality * ahead * other
            jacobian[rest, -1] = -(ahead @ other)
            h[at] = own.sum() - 1
            jacobian[at, at : at + size] = own
        return h, jacobian

    def followed(
        self, z: Array, tangent: Array, length: float, target: float
    ) -> tuple[Array, Array, float]:
        """Where the branch first reaches a rationality; its tangent there, and the next step."""
        for _ in range(_STEPS):
            if z[-1] >= target:
                return z, tangent, length
            ahead = z + length * tangent
            ends = ahead[-1] >= target  # land on it exactly
            if ends:
                ahead = z + (target - z[-1]) / tangent[-1] * tangent
                ahead[-1] = target
            landed = self.corrected(ahead, fixed=ends)
            turned = None if landed is None else self.tangent(landed, tangent)
            if landed is None or turned is None or turned @ tangent < _STRAIGHT:
                length /= 2
                continue
            z, tangent, length = landed, turned, 1.5 * length
        raise ArithmeticError(
            f"after {_STEPS} steps the branch of quantal responses is {z[-1] / target:.1%} of the "
            "way to the rationality asked"
        )

    def tangent(self, z: Array, before: Array) -> Array:
        """The unit vector along the branch, in the direction of `before`."""
        along: Array = np.linalg.svd(self.equations(z)[1])[2][-1]
        return along if along @ before > 0 else -along

    def corrected(self, z: Array, fixed: bool) -> Array | None:
        """A zero near z by Newton's method, `fixed` at its rationality; None if there is none."""
        for _ in range(8):
            with np.errstate(over="ignore", invalid="ignore"):
                h, jacobian = self.equations(z)
            if not np.isfinite(h).all():
                return None
            if np.abs(h).max() < _CONVERGED * max(1.0, z[-1]):
                return z
            free = len(z) - fixed
            step = np.linalg.lstsq(jacobian[:, :free], -h, rcond=None)[0]
            z = z + np.append(step, np.zeros(len(z) - free))
        return None
