"""Stackelberg: what to commit to, when the other sees the commitment and replies at its best.

The row player leads: A [m, n] are its payoffs, B [m, n] the follower's. Conitzer & Sandholm 2006,
"Computing the optimal strategy to commit to": pure, mixed by one linear program a reply ("multiple
LPs"), Bayesian by one a tuple of replies, one for each type of follower. Ties
*strong* are broken for the leader, *weak* against it (von Stengel & Zamir 2010, "Leadership games
with convex strategy sets", for weak mixed commitments).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arena.solvers.payoffs import ROUNDING, Array, bimatrix, mixture, span, unit
from arena.solvers.programs import best_mixture

Ties = Literal["strong", "weak"]
BoolArray = NDArray[np.bool_]

LIMIT = 10_000
"""Tuples of replies up to which a Bayesian commitment is computed: a linear program (ms) each."""


@dataclass(frozen=True)
class Commitment:
    """A mixture [m] of the leader, the reply of each type of follower, and the leader's payoff.

    `attained` is false where weak ties leave a supremum only: at the mixture itself the follower
    would be indifferent and reply worse, but mixtures as near to it as you like are worth as nearly
    `value` as you like.
    """

    mixture: Array
    replies: tuple[int, ...]
    value: float
    attained: bool = True


def pure_commitment(leader: ArrayLike, follower: ArrayLike, ties: Ties = "strong") -> Commitment:
    """The best single action to commit to; the first of equals.

    Raises:
        ValueError: If the shapes differ, a payoff is not finite or `ties` is another word.
    """
    a, b = bimatrix(leader, follower)
    favour = _favour(ties)
    best = b >= b.max(1, keepdims=True) - ROUNDING * span(b)
    worth = np.where(best, favour * a, -np.inf)
    replies = worth.argmax(1)
    values = a[np.arange(len(a)), replies]
    action = int(values.argmax())
    return Commitment(np.eye(len(a))[action], (int(replies[action]),), float(values[action]))


def mixed_commitment(leader: ArrayLike, follower: ArrayLike, ties: Ties = "strong") -> Commitment:
    """The best mixture to commit to.

    For each reply of the follower: the mixture that makes it a best reply and is worth the most;
    then the best of those. With weak ties only the replies that are best on an open set of mixtures
    count (the follower can be made to prefer any of those), each at the worst of its copies: the
    replies that pay the follower the same whatever the leader does.

    Raises:
        ValueError: If the shapes differ, a payoff is not finite or `ties` is another word.
    """
    a, b = bimatrix(leader, follower)
    if _favour(ties) > 0:
        return bayesian_commitment([1.0], [a], [b])
    b = unit(b)
    best: tuple[float, Array, int] | None = None
    for reply in range(a.shape[1]):
        copies = np.abs(b - b[:, [reply]]).max(0) <= ROUNDING
        if _preferred(b, reply, copies):
            worth, weights = _maximin(a[:, copies], b, reply)
            if best is None or worth > best[0]:
                best = worth, weights, reply
    assert best is not None, "best-reply regions cover the mixtures, so one has an interior"
    value, weights, reply = best
    ties_at = weights @ b >= (weights @ b).max() - ROUNDING
    worst = float((weights @ a)[ties_at].min())
    return Commitment(weights, (reply,), value, worst >= value - ROUNDING * span(a))


def bayesian_commitment(
    weights: ArrayLike, leaders: Sequence[ArrayLike], followers: Sequence[ArrayLike]
) -> Commitment:
    """The best mixture against a follower whose type the leader does not know; strong ties.

    Args:
        weights: Probabilities of the types [T].
        leaders: The leader's payoffs against each type, [m, n_t] each.
        followers: Each type's payoffs, [m, n_t] each.

    Raises:
        ValueError: If shapes or counts do not fit, a payoff is not finite, the weights are no
            distribution, or there are more than `LIMIT` tuples of replies: the problem is NP-hard
            in the number of types.
    """
    if not len(leaders) == len(followers) >= 1:
        raise ValueError(f"{len(leaders)} leader's matrices for {len(followers)} followers'")
    shares = mixture(weights, len(leaders), "types' distribution")
    games = [bimatrix(a, b) for a, b in zip(leaders, followers, strict=True)]
    m = games[0][0].shape[0]
    if any(len(a) != m for a, _ in games):
        raise ValueError(f"the leader has {[len(a) for a, _ in games]} actions: give it one set")
    counts = [a.shape[1] for a, _ in games]
    if math.prod(counts) > LIMIT:
        raise ValueError(
            f"{math.prod(counts)} tuples of replies, more than {LIMIT}: merge types or replies"
        )
    paid = [share * a for share, (a, _) in zip(shares, games, strict=True)]
    scale = max(span(a) for a in paid)
    scaled = [unit(b) for _, b in games]
    # The most a tuple can be worth; the most promising first, so that most are never solved.
    tuples = itertools.product(*(range(count) for count in counts))
    promise = [
        (-float(sum(a[:, j] for a, j in zip(paid, replies, strict=True)).max()), replies)
        for replies in tuples
    ]
    value, best, chosen = -np.inf, None, None
    for bound, replies in sorted(promise):
        if -bound <= value:
            break
        objective = sum(a[:, j] for a, j in zip(paid, replies, strict=True))
        regrets = np.vstack([_regrets(b, j) for b, j in zip(scaled, replies, strict=True)])
        found = best_mixture((objective.max() - objective) / scale, regrets)
        if found is not None and float(found.mixture @ objective) > value:
            value, best, chosen = float(found.mixture @ objective), found.mixture, replies
    assert best is not None and chosen is not None, "some tuple is best against some mixture"
    return Commitment(best, chosen, value)


def _favour(ties: str) -> int:
    if ties not in ("strong", "weak"):
        raise ValueError(f"ties are strong (for the leader) or weak (against it), not {ties}")
    return 1 if ties == "strong" else -1


def _regrets(follower: Array, reply: int) -> Array:
    """What each other reply would pay more [n, m]: none does, against what `reply` is best to."""
    regrets: Array = (follower - follower[:, [reply]]).T
    return regrets


def _maximin(a: Array, b: Array, reply: int) -> tuple[float, Array]:
    """The most that the least of the columns of `a` can be worth where `reply` is a best one."""
    (m, copies), n = a.shape, b.shape[1]
    least = np.hstack([-unit(a).T, np.ones((copies, 1))])
    best = np.hstack([_regrets(b, reply), np.zeros((n, 1))])
    found = best_mixture(np.append(np.zeros(m), -1.0), np.vstack([least, best]), free=1)
    assert found is not None, "this reply is known to be a best one somewhere"
    return float((found.mixture @ a).min()), found.mixture


def _preferred(b: Array, reply: int, copies: BoolArray) -> bool:
    """Whether some mixture makes `reply` better than all others but its copies."""
    others = b[:, ~copies]
    if not others.shape[1]:
        return True
    margin = np.hstack([(others - b[:, [reply]]).T, np.ones((others.shape[1], 1))])
    found = best_mixture(np.append(np.zeros(len(b)), -1.0), margin, free=1)
    assert found is not None, "a margin may be negative"
    return float(found.free[0]) > ROUNDING
