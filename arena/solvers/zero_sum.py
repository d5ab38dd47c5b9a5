"""Two-player zero-sum games: the value, both players' optimal mixtures, and a certified gap.

Payoffs [m, n] go to the row player, who maximizes. The exact method is one linear program (von
Neumann's minimax theorem as LP duality; Dantzig 1951), solved by HiGHS; regret matching+
(1407.5042) solves large games to a tolerance. Both compute the gap from the mixtures themselves:

    min_j (x'A)_j  <=  value of the game  <=  max_i (Ay)_i
"""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from arena.solvers.dynamics import regret_matching_plus
from arena.solvers.payoffs import FAILED, Array, lifted, matrix, normalized, span, unit
from arena.solvers.programs import TIGHT

SMALL = 20_000
"""Entries up to which the linear program is as fast as an iteration (0.02 s)."""

_SIMPLEX = 200_000  # entries up to which HiGHS's simplex beats its interior point method
_STEPS = 20_000  # steps of an iteration


@dataclass(frozen=True)
class Equilibrium:
    """Both players' mixtures, and bounds on the game's value.

    Attributes:
        value: The game's value to within `gap` / 2, in units of the payoffs.
        row: The row player's mixture [m].
        column: The column player's mixture [n].
        gap: The most that both players together gain by deviating, in units of the payoffs.
    """

    value: float
    row: Array
    column: Array
    gap: float

    @property
    def low(self) -> float:
        """The row player's payoff against the worst column for its mixture."""
        return self.value - self.gap / 2

    @property
    def high(self) -> float:
        """The row player's payoff by the best row against the column player's mixture."""
        return self.value + self.gap / 2


def solve(payoffs: ArrayLike, tolerance: float | None = None) -> Equilibrium:
    """The equilibrium of a zero-sum game.

    Args:
        payoffs: The row player's payoffs [m, n].
        tolerance: The largest gap allowed, above 0, in units of the payoffs. None asks for the
            exact solution (up to rounding: a gap of about 1e-10 of the payoffs' span), in time that
            grows with the cube of the size: 14 s at 1000 x 1000. With a tolerance, games of more
            than 20,000 entries are iterated, and solved exactly if 20,000 steps do not reach it.

    Raises:
        ValueError: If payoffs are missing, ragged or not finite, or the tolerance is not above 0.
        ArithmeticError: If the linear program fails.
    """
    a = matrix(payoffs)
    if tolerance is not None and not tolerance > 0:
        raise ValueError(
            f"tolerance must be above 0, not {tolerance}; None asks for the exact solution"
        )
    if tolerance is not None and a.size > SMALL:
        found = iterated(a, tolerance, _STEPS)
        if found.gap <= tolerance:
            return found
    return exact(a)


def exact(payoffs: ArrayLike) -> Equilibrium:
    """The equilibrium by one linear program, whose dual gives the row player's mixture.

    With payoffs moved to [1, 2]: max sum(w) subject to A w <= 1, w >= 0. Then 1 / sum(w) is the
    value, and w times the value the column player's mixture. w = 0 is feasible, and there is no
    equation.

    Args:
        payoffs: The row player's payoffs [m, n].

    Raises:
        ValueError: If payoffs are missing, ragged or not finite.
        ArithmeticError: If HiGHS fails, or leaves a gap above a millionth of the span.
    """
    a = matrix(payoffs)
    m, n = a.shape
    best = None
    methods = ("highs-ds", "highs-ipm") if a.size <= _SIMPLEX else ("highs-ipm", "highs-ds")
    for method in methods:
        solved = linprog(
            -np.ones(n),
            A_ub=unit(a) + 1,
            b_ub=np.ones(m),
            method=method,
            options=TIGHT,
        )
        if solved.status == 0:
            found = certified(a, normalized(-solved.ineqlin.marginals), normalized(solved.x))
            if best is None or found.gap < best.gap:
                best = found
            if best.gap <= 1e-9 * span(a):
                return best
    if best is None:
        raise ArithmeticError(f"HiGHS did not solve this {m} x {n} game: {solved.message}")
    if best.gap > FAILED * span(a):
        share = best.gap / span(a)
        raise ArithmeticError(f"HiGHS left a gap of {share:.1g} of the span of a {m} x {n} game")
    return best


def iterated(payoffs: ArrayLike, tolerance: float, steps: int = _STEPS) -> Equilibrium:
    """The averages of regret matching+ once their gap is at most `tolerance`, or after `steps`.

    Fast on large games, slow to high accuracy. The gap of the result may exceed the tolerance.

    Args:
        payoffs: The row player's payoffs [m, n].
        tolerance: The gap at which to stop, in units of the payoffs.
        steps: The most steps, at least 1.

    Raises:
        ValueError: If payoffs are missing, ragged or not finite, or there are no steps.
    """
    a = matrix(payoffs)
    scaled = unit(a)
    best, look = None, 1
    for time, step in enumerate(itertools.islice(regret_matching_plus(scaled, -scaled), steps), 1):
        if time < look and time < steps:
            continue
        look = time + 4 + time // 8  # computing the gap costs as much as a step
        found = certified(a, step.row_average, step.column_average)
        if best is None or found.gap < best.gap:
            best = found
        if best.gap <= tolerance:
            break
    if best is None:
        raise ValueError(f"steps must be at least 1, not {steps}")
    return best


def certified(payoffs: Array, row: Array, column: Array) -> Equilibrium:
    """The mixtures `row` [m] and `column` [n] with the bounds that they prove."""
    above = lifted(payoffs)
    low, high = float((row @ above).min()), float((above @ column).max())
    value = float(payoffs.min()) + (low + high) / 2
    return Equilibrium(value, row, column, max(0.0, high - low))
