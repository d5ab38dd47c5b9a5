"""Quantal responses: both players make mistakes, and make costly mistakes less often.

A [m, n] are the row player's payoffs, B [m, n] the column player's. In a logit equilibrium
(McKelvey & Palfrey 1995) each player plays its actions with probabilities proportional to
exp(rationality x payoff), against an opponent who does the same. At rationality 0 play is uniform;
from there one branch of equilibria is followed by its arc length in logarithms of probabilities
(Turocy 2005, "A dynamic homotopy interpretation of the logistic quantal response equilibrium
correspondence"), since it may turn back on its way to a Nash equilibrium.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

from arena.solvers.payoffs import Array, bimatrix, span

_STEPS = 10_000
_FIRST = 0.1  # length of the first step
_CONVERGED = 1e-11  # error of log odds, per unit of rationality
_STRAIGHT = 0.9  # cosine of the largest angle that a step may turn: more may jump to another branch
_CROSSING = 1e-6  # length of a step over which the branch cannot have turned back


@dataclass(frozen=True)
class QuantalResponse:
    """The logit equilibrium at one rationality.

    Attributes:
        row: The row player's mixture [m].
        column: The column player's mixture [n].
        residual: The largest distance of any probability from the logit answer to the opponent's
            mixture: about 1e-11 x rationality x span of the payoffs.
    """

    row: Array
    column: Array
    residual: float


def quantal_response(row: ArrayLike, column: ArrayLike, rationality: float) -> QuantalResponse:
    """The logit equilibrium at one rationality; see `quantal_responses`."""
    return next(quantal_responses(row, column, [rationality]))


def quantal_responses(
    row: ArrayLike, column: ArrayLike, rationalities: Sequence[float]
) -> Iterator[QuantalResponse]:
    """Logit equilibria on the branch that starts at rationality 0 from uniform mixtures.

    The branch is followed once. For each rationality the first point of the branch that has it is
    returned.

    Args:
        row: A [m, n].
        column: B [m, n].
        rationalities: Ascending, at least 0, in units of 1 / payoff.

    Raises:
        ValueError: If the shapes differ, a payoff is not finite, or the rationalities are negative,
            infinite or not ascending.
        ArithmeticError: If 10,000 steps along the branch do not reach the next rationality.
    """
    a, b = bimatrix(row, column)
    if not all(0 <= each < np.inf for each in rationalities):
        raise ValueError(f"rationality must be at least 0 and finite, not {list(rationalities)}")
    if any(later < each for each, later in itertools.pairwise(rationalities)):
        raise ValueError(f"rationalities must be ascending, not {list(rationalities)}")
    scale = max(span(a), span(b))
    branch = _Branch((a - a.min()) / scale, (b - b.min()) / scale)
    z = np.append(-np.log(np.repeat(a.shape, a.shape)), 0.0)
    point = branch.point(z, towards=np.append(np.zeros(len(z) - 1), 1.0))
    length = _FIRST
    for rationality in rationalities:
        found = branch.followed(point, length, rationality * scale)
        if found is None:
            raise ArithmeticError(
                f"{_STEPS} steps along the branch of quantal responses did not reach rationality "
                f"{rationality:g}: ask for lower ones"
            )
        point, length = found
        yield branch.response(point)


@dataclass(frozen=True)
class _Point:
    """A point of the branch.

    Attributes:
        z: (log x [m], log y [n], rationality).
        tangent: The unit vector along the branch, away from its start.
        side: The sign of the determinant of the Jacobian and the tangent below it.
    """

    z: Array
    tangent: Array
    side: float


@dataclass(frozen=True)
class _Branch:
    """Logit equilibria of payoffs in [0, 1] as the zeros of H(z), z as for `_Point`."""

    a: Array
    b: Array

    def response(self, point: _Point) -> QuantalResponse:
        m, rationality = self.a.shape[0], point.z[-1]
        x, y = softmax(point.z[:m]), softmax(point.z[m:-1])
        off = softmax(rationality * (self.a @ y)) - x, softmax(rationality * (x @ self.b)) - y
        return QuantalResponse(x, y, float(max(np.abs(each).max() for each in off)))

    def equations(self, z: Array) -> tuple[Array, Array]:
        """H [m + n] and its Jacobian [m + n, m + n + 1].

        For each player: log odds less rationality x payoff differences, and the sum less 1.
        """
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

    def point(self, z: Array, towards: Array) -> _Point:
        """The point at a zero of H, with its tangent at an acute angle to `towards`."""
        jacobian = self.equations(z)[1]
        along: Array = np.linalg.svd(jacobian)[2][-1]
        tangent = along if along @ towards > 0 else -along
        return _Point(z, tangent, float(np.linalg.slogdet(np.vstack([jacobian, tangent]))[0]))

    def followed(self, at: _Point, length: float, target: float) -> tuple[_Point, float] | None:
        """Where the branch first reaches a rationality, and the next step's length; or None."""
        for _ in range(_STEPS):
            if at.z[-1] == target:
                return at, length
            landed = self.landed(at, length, target)
            if landed is None:
                length /= 2
            else:
                at, length = landed, 1.5 * length
        return None

    def landed(self, at: _Point, length: float, target: float) -> _Point | None:
        """The next point, at `target` exactly if the step reaches it; None if it is too long."""
        ahead = at.z + length * at.tangent
        if ahead[-1] >= target:
            ahead = self.between(at.z, ahead, target)
        z = self.corrected(ahead, fixed=ahead[-1] == target)
        if z is not None and z[-1] > target:  # the branch is steeper here than its tangent
            z = self.corrected(self.between(at.z, z, target), fixed=True)
        if z is None:
            return None
        landed = self.point(z, towards=at.tangent)
        if landed.tangent @ at.tangent < _STRAIGHT:
            return None
        # On a regular branch the side never changes. A change says that the step ended on a part
        # that runs the other way, behind a tight turn; or that it crossed a bifurcation, which
        # symmetric games have, and which alone is left over the shortest of steps.
        return None if landed.side != at.side and length > _CROSSING else landed

    def between(self, start: Array, end: Array, target: float) -> Array:
        """The point of a line that has a rationality."""
        z: Array = start + (target - start[-1]) / (end[-1] - start[-1]) * (end - start)
        z[-1] = target
        return z

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
