"""Alpha-rank (Omidshafiei et al. 2019, 1903.01373) of two populations' strategies.

A [m, n] are the row player's payoffs, B [m, n] the column player's. A profile (i, j) is replaced by
a profile that differs in one player's strategy, at the rate at which a mutant takes over a finite
population under selection of intensity alpha (the paper's fixation probability). The rank of a
profile is its mass in the stationary distribution. Rates are computed from their logarithms and are
at least e^-230, and the chain is solved without any subtraction (Grassmann, Taksar & Heyman 1985),
so the answer is finite at any alpha. Alpha = infinity is the limit, in which changes for the worse
have the floor's rate.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from arena.solvers.payoffs import ROUNDING, Array, bimatrix, span

_FLOOR = -230.0  # e^-230 is 1e-100, and the product of three is still a float64
_BLOCK = 128


@dataclass(frozen=True)
class Ranking:
    """The rank of all profiles.

    Attributes:
        masses: The mass of each profile, [m, n], with sum 1.
        sinks: The components that evolution leaves only by changes for the worse, each an array
            [k, 2] of profiles. They are the sink strongly connected components of the response
            graph, and share all mass as alpha grows.
        floored: Whether some rates were below e^-230. With one sink this changes nothing; between
            several sinks all such changes count as equally rare, as in the paper's limit.
    """

    masses: Array
    sinks: tuple[np.ndarray, ...]
    floored: bool


def alpha_rank(
    row: ArrayLike, column: ArrayLike, alpha: float = np.inf, population: int = 50
) -> Ranking:
    """Ranks all profiles of a two-player game.

    Payoffs that differ by less than 1e-9 of their span are tied.

    Args:
        row: A [m, n].
        column: B [m, n].
        alpha: The intensity of selection, at least 0, in units of 1 / payoff.
        population: The number of individuals in each population, at least 2.

    Raises:
        ValueError: If the shapes differ, a payoff is not finite, or a parameter is out of range.
    """
    a, b = bimatrix(row, column)
    if not alpha >= 0 or population < 2:
        raise ValueError(f"alpha must be >= 0, population >= 2, not {alpha} and {population}")
    m, n = a.shape
    gains = [_gains(a.T), _gains(b)]
    rates = [_log_rates(gain, alpha, population) for gain in gains]
    floored = any(bool((rate < _FLOOR).any()) for rate in rates)
    chain = _joined(*(np.exp(np.maximum(rate, _FLOOR)) for rate in rates))
    up = csr_array(_joined(*((gain >= 0).astype(float) for gain in gains)))
    sinks = tuple(np.stack(np.divmod(sink, n), axis=1) for sink in _sinks(up))
    return Ranking(stationary(chain).reshape(m, n), sinks, floored)


def _gains(payoffs: Array) -> Array:
    """The gain of each change of strategy, [other's strategies, from, to]; ties have 0.

    Args:
        payoffs: [other's strategies, own strategies].
    """
    gains = payoffs[:, None, :] - payoffs[:, :, None]
    found: Array = np.where(np.abs(gains) <= ROUNDING * span(payoffs), 0.0, gains)
    return found


def _log_rates(gain: Array, alpha: float, population: int) -> Array:
    """log((1 - e^(-alpha gain)) / (1 - e^(-population alpha gain))); -log(population) at 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        push = np.where(gain == 0, 0.0, alpha * np.abs(gain))  # infinity times 0 is 0 here
    still = push < 1e-12
    push = np.where(still, 1.0, push)
    ratio = np.log(-np.expm1(-push)) - np.log(-np.expm1(-population * push))
    against = np.where(gain < 0, (population - 1) * push, 0.0)
    rates: Array = np.where(still, -np.log(population), ratio - against)
    return rates


def _joined(of_row: Array, of_column: Array) -> Array:
    """One chain [mn, mn] of rates [n, m, m] within columns and rates [m, n, n] within rows."""
    n, m = of_row.shape[:2]
    chain = np.zeros((m, n, m, n))
    i, j = np.arange(m), np.arange(n)
    chain[:, j, :, j] = of_row
    chain[i, :, i, :] += of_column
    return chain.reshape(m * n, m * n)


def _sinks(graph: csr_array) -> list[np.ndarray]:
    count, component = connected_components(graph, connection="strong")
    start, end = graph.nonzero()
    left = set(component[start[component[start] != component[end]]].tolist())
    return [np.flatnonzero(component == c) for c in range(count) if c not in left]


def stationary(rates: Array) -> Array:
    """The stationary distribution [N] of a chain in continuous time.

    Gaussian elimination from the last state. Each state's rate of leaving is a sum and not the
    result of a subtraction (GTH), so small masses are as accurate as large ones. The elimination
    goes in blocks, so that most of the N^3 / 3 multiplications are in matrix products.

    Args:
        rates: The rate from each state to each other, [N, N]; the diagonal is not read.

    Raises:
        ValueError: If some state cannot reach the states before it.
    """
    p = np.array(rates, dtype=float)
    size = len(p)
    leaving = np.ones(size)
    for stop in range(size, 1, -_BLOCK):
        start = max(1, stop - _BLOCK)
        for k in range(stop - 1, start - 1, -1):
            # Crout's order: row and column k now account for the later states of this block.
            p[:k, k] += p[:k, k + 1 : stop] @ p[k + 1 : stop, k]
            p[k, :k] += p[k, k + 1 : stop] @ p[k + 1 : stop, :k]
            leaving[k] = p[k, :k].sum()
            if not leaving[k] > 0:
                raise ValueError(
                    f"state {k} cannot reach those before it: the distribution is not unique"
                )
            p[k, :k] /= leaving[k]
        p[:start, :start] += p[:start, start:stop] @ p[start:stop, :start]
    mass = np.zeros(size)
    mass[0] = 1.0
    for k in range(1, size):
        mass[k] = mass[:k] @ p[:k, k] / leaving[k]
        if mass[k] > 1e100:
            mass /= mass[k]
    shares: Array = mass / mass.sum()
    return shares
