"""Payoffs and mixtures as arrays: checked once, where they enter a solver.

Rows are the actions of the row player, columns those of the column player. What is missing (NaN)
or infinite is refused by name, since every solver would carry it silently into its answer.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ROUNDING = 1e-9
"""What is smaller than this share of the payoffs' span is a tie."""


def tensor(payoffs: ArrayLike, ndim: int, name: str = "payoffs") -> Array:
    """The payoffs as float64 with `ndim` axes, none of them empty.

    Raises:
        ValueError: If they are ragged, of another shape, empty, or not finite, naming the first
            such entry; if their span overflows.
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
    """A checked payoff matrix [m, n]; see `tensor`."""
    return tensor(payoffs, 2, name)


def bimatrix(row: ArrayLike, column: ArrayLike) -> tuple[Array, Array]:
    """Both players' checked payoffs, [m, n] each.

    Raises:
        ValueError: As `tensor`, and if the shapes differ.
    """
    a, b = matrix(row, "the row player's payoffs"), matrix(column, "the column player's payoffs")
    if a.shape != b.shape:
        raise ValueError(f"both payoff matrices need one shape, not {a.shape} and {b.shape}")
    return a, b


def span(payoffs: Array) -> float:
    """Largest less smallest payoff; 1 where all are equal, so that one may divide by it."""
    return float(payoffs.max() - payoffs.min()) or 1.0


def unit(payoffs: Array) -> Array:
    """The same game in [0, 1]: solvers' tolerances are absolute, payoffs may be 1e-9 or 1e9."""
    scaled: Array = (payoffs - payoffs.min()) / span(payoffs)
    return scaled


def mixture(weights: ArrayLike, size: int, name: str = "mixture") -> Array:
    """A checked probability vector [size].

    Raises:
        ValueError: If it has another size, an entry that is negative or not finite, or a sum
            further than 1e-9 from 1.
    """
    found = np.asarray(weights, dtype=float)
    if found.shape != (size,):
        raise ValueError(f"the {name} needs {size} weights, not shape {found.shape}")
    if not (found >= 0).all() or not abs(found.sum() - 1) <= ROUNDING:
        raise ValueError(f"the {name} {found} needs weights >= 0 that sum to 1")
    return found


def normalized(weights: Array) -> Array:
    """A solver's weights as a mixture: rounding below zero cut off, sum 1."""
    cut = np.maximum(weights, 0.0)
    shares: Array = cut / cut.sum()
    return shares
