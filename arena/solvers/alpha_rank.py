"""Alpha-rank (Omidshafiei et al. 2019, 1903.01373) of two populations' strategies.

A [m, n] are the row player's payoffs, B [m, n] the column player's. A profile (i, j) is replaced by
one that differs in a single player's strategy, at the rate at which a mutant of intensity alpha
takes over a finite population (the paper's fixation probability). The rank is the mass of a
profile in the stationary distribution. Rates are formed from their logarithms and no smaller than
e^-230, and the chain is solved without a single subtraction (Grassmann, Taksar & Heyman 1985), so
the answer is finite at any alpha; alpha = infinity is the limit, where moves for the worse have the
floor's rate.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from arena.solvers.payoffs import Array, bimatrix, span

_FLOOR = -230.0  # e^-230 is 1e-100: three of them multiplied are still a float64
_TIE = 1e-12  # of the payoffs' span
_BLOCK = 128


@dataclass(frozen=True)
class Ranking:
    """The `masses` [m, n] of all profiles, sum 1.

    `sinks` are what evolution cannot leave but by moves for the worse: the sink strongly connected
    components of the response graph, which share all mass as alpha grows; each an array [k, 2] of
    profiles. `floored`: some rates were below e^-230. Where there is one sink this changes
    nothing; between several it counts all such moves as equally rare, as does the paper's limit.
    """

    masses: Array
    sinks: tuple[np.ndarray, ...]
    floored: bool


def alpha_rank(
    row: ArrayLike, column: ArrayLike, alpha: float = np.inf, population: int = 50
) -> Ranking:
    """Ranks all profiles of a two-player game.

    Args:
        row: A [m, n].
        column: B [m, n].
        alpha: Intensity of selection, at least 0, in units of 1 / payoff.
        population: Individuals in each population, at least 2.

    Raises:
        ValueError: If payoffs do not fit or are not finite, or a parameter is out of its range.
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
    """What a change of one's own strategy brings: [others, own, own], 0 where it is a tie."""
    gains = payoffs[:, None, :] - payoffs[:, :, None]
    found: Array = np.where(np.abs(gains) <= _TIE * span(payoffs), 0.0, gains)
    return found


def _log_rates(gain: Array, alpha: float, population: int) -> Array:
    """Log of (1 - e^(-alpha gain)) / (1 - e^(-population alpha gain)); 1 / population at 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        push = np.where(gain == 0, 0.0, alpha * np.abs(gain))  # infinity times 0 is 0 here
    still = push < 1e-12
    push = np.where(still, 1.0, push)
    ratio = np.log(-np.expm1(-push)) - np.log(-np.expm1(-population * push))
    against = np.where(gain < 0, (population - 1) * push, 0.0)
    rates: Array = np.where(still, -np.log(population), ratio - against)
    return rates


def _joined(of_row: Array, of_column: Array) -> Array:
    """Rates [n, m, m] within the columns and [m, n, n] within the rows as one chain [mn, mn]."""
    n, m = of_row.shape[:2]
    chain = np.zeros((m, n, m, n))
    i, j = np.arange(m), np.arange(n)
    chain[:, j, :, j] = of_row
    chain[i, :, i, :] += of_column
    return chain.reshape(m * n, m * n)


def _sinks(graph: csr_array) -> list[np.ndarray]:
    count, component = connected_components(graph, connection="strong")
    start, end = graph.nonzero()
    open_ones = set(component[start[component[start] != component[end]]].tolist())
    return [np.flatnonzero(component == c) for c in range(count) if c not in open_ones]


def stationary(rates: Array) -> Array:
    """The stationary distribution [N] of a chain in continuous time; the diagonal is not read.

    Gaussian elimination from the last state, with each state's rate of leaving summed instead of
    subtracted from the diagonal (GTH): small masses are as accurate as large ones. In blocks, so
    that most of the N^3 / 3 multiplications are a matrix product's.

    Raises:
        ValueError: If some state cannot reach the states before it.
    """
    p = np.array(rates, dtype=float)
    size = len(p)
    leaving = np.ones(size)
    for stop in range(size, 1, -_BLOCK):
        start = max(1, stop - _BLOCK)
        for k in range(stop - 1, start - 1, -1):
            # Crout's order: row and column k catch up with the states of this block after k.
            p[:k, k] += p[:k, k + 1 : stop] @ p[k + 1 : stop, k]
            p[k, :k] += p[k, k + 1 : stop] @ p[k + 1 : stop, :k]
            leaving[k] = p[k, :k].sum()
            if not leaving[k] > 0:
                raise ValueError(f"state {k} cannot reach those before it: no one distribution")
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
