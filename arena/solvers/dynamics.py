"""Learning dynamics of two players, as generators that never end.

A [m, n] are the row player's payoffs, B [m, n] the column player's. Each `Step` holds what was
played in it and the averages up to it. Take as many steps as you like:
`itertools.islice(fictitious_play(a, b), 100)`.

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
class Step:
    """The mixtures played, and their averages so far: `row` [m], `column` [n]."""

    row: Array
    column: Array
    row_average: Array
    column_average: Array


def best_responses(
    row: ArrayLike, column: ArrayLike, start: tuple[int, int] = (0, 0), alternating: bool = True
) -> Iterator[tuple[int, int]]:
    """Each player's best pure reply to the other's last action, the first among ties.

    Alternating: the row player replies to the column standing, the column player to that reply.
    Otherwise both reply to what stood before. Yields the standing actions (i, j), `start` first.
    """
    a, b = bimatrix(row, column)
    i, j = _inside(start, a)
    while True:
        yield i, j
        reply = int(a[:, j].argmax())
        i, j = reply, int(b[reply if alternating else i].argmax())


def _inside(start: tuple[int, int], a: Array) -> tuple[int, int]:
    if not (0 <= start[0] < a.shape[0] and 0 <= start[1] < a.shape[1]):
        raise ValueError(f"start {start} is outside a game of {a.shape[0]} x {a.shape[1]}")
    return start


def orbit(states: Iterable[H]) -> tuple[list[H], list[H]]:
    """The states of a memoryless walk before it closes, and the cycle that it goes round for ever.

    A cycle of one state is a rest: for best responses, a pure Nash equilibrium. The walk must be
    determined by its state; endless and over infinitely many states, it would never come back.

    Raises:
        ValueError: If the states end before one comes back.
    """
    seen: dict[H, int] = {}
    for time, state in enumerate(states):
        if state in seen:
            walked = list(seen)
            return walked[: seen[state]], walked[seen[state] :]
        seen[state] = time
    raise ValueError(f"{len(seen)} states and none came back: take more steps")


def fictitious_play(
    row: ArrayLike, column: ArrayLike, start: tuple[int, int] = (0, 0)
) -> Iterator[Step]:
    """Both play, at once, a best reply to the average of what the other has played.

    The first among ties. Averages converge in zero-sum games (Robinson 1951), not in all (Shapley
    1964). The first step plays `start`.
    """
    a, b = bimatrix(row, column)
    rows, columns = np.eye(a.shape[0]), np.eye(a.shape[1])
    i, j = _inside(start, a)
    x, y = rows[i], columns[j]
    counts_x, counts_y = x.copy(), y.copy()
    row_payoffs, column_payoffs = a @ y, x @ b
    for time in itertools.count(1):
        yield Step(x, y, counts_x / time, counts_y / time)
        i, j = int(row_payoffs.argmax()), int(column_payoffs.argmax())
        x, y = rows[i], columns[j]
        counts_x[i] += 1
        counts_y[j] += 1
        row_payoffs = row_payoffs + a[:, j]
        column_payoffs = column_payoffs + b[i]


def multiplicative_weights(
    row: ArrayLike, column: ArrayLike, rate: float | None = None
) -> Iterator[Step]:
    """Weights proportional to exp(rate x the payoffs so far over their span), from uniform.

    Args:
        row: A [m, n].
        column: B [m, n].
        rate: Fixed; by default sqrt(8 ln(actions) / t) at step t, for which the average regret
            after T steps is at most sqrt(2 ln(actions) / T) + sqrt(ln(actions) / 8) / T of the
            span (Cesa-Bianchi & Lugosi 2006, theorem 2.3).
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
        yield Step(x, y, sum_x / time, sum_y / time)
        row_payoffs, column_payoffs = row_payoffs + a @ y, column_payoffs + x @ b


def _hedged(payoffs: Array, time: int, rate: float | None) -> Array:
    rate = np.sqrt(8 * np.log(len(payoffs)) / time) if rate is None else rate
    weights = np.exp(rate * (payoffs - payoffs.max()))
    shares: Array = weights / weights.sum()
    return shares


def regret_matching_plus(row: ArrayLike, column: ArrayLike) -> Iterator[Step]:
    """Actions in proportion to their regrets, which never fall below zero; from uniform.

    1407.5042, with its two accelerations: the players update in turn, and step t counts t-fold in
    the averages. In zero-sum games the averages' gap falls as 1/sqrt(t) at worst.
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
        yield Step(x, y, sum_x / weight, sum_y / weight)


def _matched(mixture: Array, regret: Array, payoffs: Array) -> tuple[Array, Array]:
    regret = np.maximum(regret + payoffs - payoffs @ mixture, 0.0)
    total = regret.sum()
    # Without a regret every action is as good as the mixture: it stays.
    return (regret / total if total > 0 else mixture), regret


def replicator(
    row: ArrayLike,
    column: ArrayLike,
    start: tuple[ArrayLike, ArrayLike],
    step: float = 0.01,
    floor: float = 0.0,
) -> Iterator[Step]:
    """Growth of each action's share by its payoff less the mean: dx_i/dt = x_i ((Ay)_i - x'Ay).

    Integrated by the classical Runge-Kutta rule, then projected (L2) onto the mixtures whose
    entries are at least `floor`: with a floor above 0 the projected replicator of 1711.00832,
    which explores. (There with Euler steps, which spiral outwards where the equation goes round.)

    Args:
        row: A [m, n].
        column: B [m, n].
        start: The first mixtures, [m] and [n]. A share of 0 stays 0 where `floor` is 0.
        step: Time between two steps, in units of 1 / payoff.
        floor: The least share of any action, at most 1 / actions.
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
        yield Step(z[:m], z[m:], average[:m], average[m:])
        k1 = flow(z)
        k2 = flow(z + step / 2 * k1)
        k3 = flow(z + step / 2 * k2)
        k4 = flow(z + step * k3)
        z = z + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        z = np.concatenate([_projected(z[:m], floor), _projected(z[m:], floor)])


def _projected(x: Array, floor: float) -> Array:
    """The nearest mixture with entries >= floor (Duchi et al., ICML 2008, figure 1)."""
    if abs(x.sum() - 1) < 1e-15 and (x >= floor).all():
        return x
    free = x - floor
    left = 1 - floor * len(x)
    ordered = np.sort(free)[::-1]
    levels = (ordered.cumsum() - left) / np.arange(1, len(x) + 1)
    level = levels[np.flatnonzero(ordered >= levels)[-1]]
    projected: Array = np.maximum(free - level, 0.0) + floor
    return projected
