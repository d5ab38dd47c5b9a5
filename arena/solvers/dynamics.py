"""Learning dynamics of two players, as generators that never end.

A [m, n] are the row player's payoffs, B [m, n] the column player's. Each `LearningStep` holds the
mixtures played and their averages so far. `itertools.islice(fictitious_play(a, b), 100)` takes 100
steps.

    best replies to the last move           best_responses
    fictitious play                         Brown 1951, "Iterative solution of games by ..."
    multiplicative weights                  Freund & Schapire 1999, "Adaptive game playing ..."
    regret matching+                        Tammelin 2014, 1407.5042
    replicator, projected replicator        Taylor & Jonker 1978; Lanctot et al. 2017, 1711.00832
"""

import itertools
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from arena.solvers.payoffs import Array, bimatrix, mixture, span

H = TypeVar("H", bound=Hashable)


@dataclass(frozen=True)
class LearningStep:
    """One step of both players.

    Attributes:
        row: The row player's mixture [m].
        column: The column player's mixture [n].
        row_average: The average of the row player's mixtures up to this step, [m].
        column_average: The average of the column player's mixtures up to this step, [n].
    """

    row: Array
    column: Array
    row_average: Array
    column_average: Array


def best_responses(
    row: ArrayLike, column: ArrayLike, start: tuple[int, int] = (0, 0), alternating: bool = True
) -> Iterator[tuple[int, int]]:
    """Each player's best pure reply to the other's last action, the first among ties.

    Args:
        row: A [m, n].
        column: B [m, n].
        start: The first actions (i, j).
        alternating: Whether the column player replies to the row player's reply. Otherwise both
            reply at once to the last actions.

    Yields:
        The current actions (i, j), `start` first.

    Raises:
        ValueError: If the shapes differ, a payoff is not finite, or `start` is outside the game.
    """
    a, b = bimatrix(row, column)
    i, j = _inside(start, a)
    while True:
        yield i, j
        reply = int(a[:, j].argmax())
        i, j = reply, int(b[reply if alternating else i].argmax())


def _inside(start: tuple[int, int], a: Array) -> tuple[int, int]:
    if not (0 <= start[0] < a.shape[0] and 0 <= start[1] < a.shape[1]):
        raise ValueError(f"start {start} is outside a game of {a.shape[0]} x {a.shape[1]} actions")
    return start


def orbit(states: Iterable[H]) -> tuple[list[H], list[H]]:
    """The states of a walk before its cycle, and the cycle that it then repeats for ever.

    A cycle of one state is a fixed point: for best responses, a pure Nash equilibrium.

    Args:
        states: A walk in which each state determines the next one, over finitely many states.

    Raises:
        ValueError: If the states end before one repeats.
    """
    seen: dict[H, int] = {}
    for time, state in enumerate(states):
        if state in seen:
            walked = list(seen)
            return walked[: seen[state]], walked[seen[state] :]
        seen[state] = time
    raise ValueError(f"no state repeats among {len(seen)}: take more steps")


def fictitious_play(
    row: ArrayLike, column: ArrayLike, start: tuple[int, int] = (0, 0)
) -> Iterator[LearningStep]:
    """Both play at once a best reply to the other's average so far, the first among ties.

    Averages converge in zero-sum games (Robinson 1951), but not in all games (Shapley 1964).

    Args:
        row: A [m, n].
        column: B [m, n].
        start: The actions (i, j) of the first step.

    Raises:
        ValueError: If the shapes differ, a payoff is not finite, or `start` is outside the game.
    """
    a, b = bimatrix(row, column)
    rows, columns = np.eye(a.shape[0]), np.eye(a.shape[1])
    i, j = _inside(start, a)
    x, y = rows[i], columns[j]
    counts_x, counts_y = x.copy(), y.copy()
    row_payoffs, column_payoffs = a @ y, x @ b
    for time in itertools.count(1):
        yield LearningStep(x, y, counts_x / time, counts_y / time)
        i, j = int(row_payoffs.argmax()), int(column_payoffs.argmax())
        x, y = rows[i], columns[j]
        counts_x[i] += 1
        counts_y[j] += 1
        row_payoffs = row_payoffs + a[:, j]
        column_payoffs = column_payoffs + b[i]


def multiplicative_weights(
    row: ArrayLike, column: ArrayLike, rate: float | None = None
) -> Iterator[LearningStep]:
    """Weights proportional to exp(rate x sum of payoffs / span), from uniform mixtures.

    Args:
        row: A [m, n].
        column: B [m, n].
        rate: A fixed rate above 0. None is sqrt(8 ln(actions) / t) at step t, for which the average
            regret after T steps is at most sqrt(2 ln(actions) / T) + sqrt(ln(actions) / 8) / T of
            the span (Cesa-Bianchi & Lugosi 2006, theorem 2.3).

    Raises:
        ValueError: If the shapes differ, a payoff is not finite, or the rate is not above 0.
    """
    a, b = bimatrix(row, column)
    if rate is not None and not rate > 0:
        raise ValueError(f"rate must be above 0, not {rate}")
    a, b = a / span(a), b / span(b)
    row_payoffs, column_payoffs = np.zeros(a.shape[0]), np.zeros(a.shape[1])
    sum_x, sum_y = np.zeros(a.shape[0]), np.zeros(a.shape[1])
    for time in itertools.count(1):
        x, y = _hedged(row_payoffs, time, rate), _hedged(column_payoffs, time, rate)
        sum_x, sum_y = sum_x + x, sum_y + y
        yield LearningStep(x, y, sum_x / time, sum_y / time)
        row_payoffs, column_payoffs = row_payoffs + a @ y, column_payoffs + x @ b


def _hedged(payoffs: Array, time: int, rate: float | None) -> Array:
    rate = np.sqrt(8 * np.log(len(payoffs)) / time) if rate is None else rate
    weights = np.exp(rate * (payoffs - payoffs.max()))
    shares: Array = weights / weights.sum()
    return shares


def regret_matching_plus(row: ArrayLike, column: ArrayLike) -> Iterator[LearningStep]:
    """Actions in proportion to their regrets, which never fall below 0, from uniform mixtures.

    1407.5042, with its two accelerations: the players update in turn, and step t has weight t in
    the averages. In zero-sum games the gap of the averages falls at least as fast as 1 / sqrt(t).

    Args:
        row: A [m, n].
        column: B [m, n].

    Raises:
        ValueError: If the shapes differ or a payoff is not finite.
    """
    a, b = bimatrix(row, column)
    x, y = (np.full(size, 1 / size) for size in a.shape)
    regret_x, regret_y = np.zeros(a.shape[0]), np.zeros(a.shape[1])
    sum_x, sum_y = np.zeros(a.shape[0]), np.zeros(a.shape[1])
    for time in itertools.count(1):
        x, regret_x = _matched(x, regret_x, a @ y)
        y, regret_y = _matched(y, regret_y, x @ b)
        sum_x, sum_y = sum_x + time * x, sum_y + time * y
        weight = time * (time + 1) / 2
        yield LearningStep(x, y, sum_x / weight, sum_y / weight)


def _matched(mixture: Array, regret: Array, payoffs: Array) -> tuple[Array, Array]:
    regret = np.maximum(regret + payoffs - payoffs @ mixture, 0.0)
    total = regret.sum()
    # Without regrets no action is better than the mixture, which stays.
    return (regret / total if total > 0 else mixture), regret


def replicator(
    row: ArrayLike,
    column: ArrayLike,
    start: tuple[ArrayLike, ArrayLike],
    step: float = 0.01,
    floor: float = 0.0,
) -> Iterator[LearningStep]:
    """The share of an action grows with its payoff less the mean: dx_i/dt = x_i ((Ay)_i - x'Ay).

    Each step is one of the classical Runge-Kutta rule, projected (in L2) onto the mixtures whose
    entries are at least `floor`. With a floor above 0 this is the projected replicator of
    1711.00832, which explores. The paper takes Euler steps, which spiral outwards where the
    equation has cycles.

    Args:
        row: A [m, n].
        column: B [m, n].
        start: The first mixtures, [m] and [n]. If `floor` is 0, a share of 0 stays 0.
        step: The time of one step, above 0, in units of 1 / payoff.
        floor: The least share of any action, from 0 to 1 / actions.

    Raises:
        ValueError: If the shapes differ, a payoff is not finite, `start` does not hold mixtures, or
            a parameter is out of range.
    """
    a, b = bimatrix(row, column)
    m, n = a.shape
    x, y = mixture(start[0], m, "row player's start"), mixture(start[1], n, "column player's start")
    if not step > 0:
        raise ValueError(f"step must be above 0, not {step}")
    if not 0 <= floor <= 1 / max(m, n):
        raise ValueError(f"floor must be in [0, {1 / max(m, n):g}], not {floor}")
    z = np.concatenate([_projected(x, floor), _projected(y, floor)])

    def flow(z: Array) -> Array:
        x, y = z[:m], z[m:]
        row_payoffs, column_payoffs = a @ y, x @ b
        return np.concatenate(
            [x * (row_payoffs - x @ row_payoffs), y * (column_payoffs - y @ column_payoffs)]
        )

    total = np.zeros(m + n)
    for time in itertools.count(1):
        total = total + z
        average = total / time
        yield LearningStep(z[:m], z[m:], average[:m], average[m:])
        k1 = flow(z)
        k2 = flow(z + step / 2 * k1)
        k3 = flow(z + step / 2 * k2)
        k4 = flow(z + step * k3)
        z = z + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        z = np.concatenate([_projected(z[:m], floor), _projected(z[m:], floor)])


def _projected(x: Array, floor: float) -> Array:
    """The nearest mixture [n] with entries >= floor (Duchi et al., ICML 2008, figure 1)."""
    if abs(x.sum() - 1) < 1e-15 and (x >= floor).all():
        return x
    free = x - floor
    left = 1 - floor * len(x)
    ordered = np.sort(free)[::-1]
    levels = (ordered.cumsum() - left) / np.arange(1, len(x) + 1)
    level = levels[np.flatnonzero(ordered >= levels)[-1]]
    projected: Array = np.maximum(free - level, 0.0) + floor
    return projected
