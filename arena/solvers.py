"""Solutions of games given as arrays. Pure numpy and scipy."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog

Array = NDArray[np.float64]


def mixed_commitment(leader: ArrayLike, follower: ArrayLike) -> tuple[Array, float]:
    """The optimal mixed strategy to commit to, and the leader's payoff: strong Stackelberg.

    Conitzer & Sandholm 2006, section 3 ("multiple LPs"): for each reply of the follower, the
    mixture that makes it a best reply and is worth the most; then the best of those. Ties are
    broken for the leader.

    Args:
        leader: The leader's payoffs [m, n], a row for each of its actions.
        follower: The follower's payoffs [m, n].

    Raises:
        ValueError: If the shapes differ or a payoff is not finite.
    """
    a, b = np.asarray(leader, dtype=float), np.asarray(follower, dtype=float)
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"payoffs must be two matrices of one shape, not {a.shape}, {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("payoffs must be finite")
    rows, replies = a.shape
    best, value = None, -np.inf
    for reply in range(replies):
        solved = linprog(
            -a[:, reply],
            A_ub=(b - b[:, [reply]]).T,  # no other reply is better for the follower
            b_ub=np.zeros(replies),
            A_eq=np.ones((1, rows)),
            b_eq=[1.0],
            method="highs",
        )
        if solved.status == 0 and -solved.fun > value:
            best, value = solved.x, -solved.fun
    assert best is not None, "some reply is a best reply to some mixture"
    return best, float(value)
