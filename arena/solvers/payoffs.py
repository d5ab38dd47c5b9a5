"""Payoffs and mixtures as arrays, checked once, where they enter a solver.

Rows are the actions of the row player, columns those of the column player. Missing (NaN) and
infinite entries are refused by their place, since every solver would carry them silently into its
answer.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ROUNDING = 1e-9
"""Payoffs that differ by less than this share of their span are tied."""

FAILED = 1e-6
"""A linear program whose gap exceeds this share of the payoffs' span was not solved."""


def tensor(payoffs: ArrayLike, ndim: int, name: str = "payoffs") -> Array:
    """The payoffs as float64 with `ndim` axes, none of them empty.

    Raises:
        ValueError: If they are ragged, empty or have another number of axes; if an entry is not
            finite, with its place; if their span overflows.
    """
    try:
        found = np.asarray(payoffs, dtype=float)
    except ValueError as error:
        raise ValueError(f"{name} are ragged or not numbers: {error}") from None
    if found.ndim != ndim or found.size == 0:
        raise ValueError(f"{name} need {ndim} axes, none empty, not shape {found.shape}")
    if not np.isfinite(found).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(found))[0])
        raise ValueError(f"{name}{list(place)} is {found[place]}: fill it or drop its move")
    with np.errstate(over="ignore"):
        if not np.isfinite(found.max() - found.min()):
            raise ValueError(f"{name} reach from {found.min():g} to {found.max():g}: rescale them")
    return found


def matrix(payoffs: ArrayLike, name: str = "payoffs") -> Array:
    """The payoff matrix [m, n], checked as by `tensor`."""
    return tensor(payoffs, 2, name)


def bimatrix(row: ArrayLike, column: ArrayLike) -> tuple[Array, Array]:
    """Both players' payoff matrices, [m, n] each, checked.

    Raises:
        ValueError: As `tensor`, and if the shapes differ.
    """
    a, b = matrix(row, "the row player's payoffs"), matrix(column, "the column player's payoffs")
    if a.shape != b.shape:
        raise ValueError(f"both payoff matrices need one shape, not {a.shape} and {b.shape}")
    return a, b


def span(payoffs: Array) -> float:
    """Largest less smallest payoff; 1 if all are equal, so that it can be a divisor."""
    return float(payoffs.max() - payoffs.min()) or 1.0


def lifted(payoffs: Array) -> Array:
    """The same game with a lowest payoff of 0.

    Sums of its payoffs are rounded in proportion to their span, not to an offset, which may be many
    times as large.
    """
    moved: Array = payoffs - payoffs.min()
    return moved


def unit(payoffs: Array) -> Array:
    """The same game in [0, 1]: solvers' tolerances are absolute, payoffs may be 1e-9 or 1e9."""
    scaled: Array = lifted(payoffs) / span(payoffs)
    return scaled


def mixture(weights: ArrayLike, size: int, name: str = "mixture") -> Array:
    """The probability vector [size], checked.

    Raises:
        ValueError: If it has another size, if an entry is negative or not finite, or if the sum is
            further than 1e-9 from 1.
    """
    found = np.asarray(weights, dtype=float)
    if found.shape != (size,):
        raise ValueError(f"the {name} needs {size} weights, not shape {found.shape}")
    if not (found >= 0).all() or not abs(found.sum() - 1) <= ROUNDING:
        raise ValueError(f"the {name} {found} needs weights >= 0 that sum to 1")
    return found


def normalized(weights: Array) -> Array:
    """A solver's weights as a mixture: rounding errors below 0 are cut off, the sum is 1."""
    cut = np.maximum(weights, 0.0)
    shares: Array = cut / cut.sum()
    return shares
