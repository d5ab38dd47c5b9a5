"""Stackelberg games: the best commitment of a leader whose follower sees it and replies best.

The row player leads: A [m, n] are its payoffs, B [m, n] the follower's. Conitzer & Sandholm 2006,
"Computing the optimal strategy to commit to": pure commitments; mixed ones by one linear program
per reply ("multiple LPs"); Bayesian ones by one linear program per tuple of replies, one reply for
each type of follower. *Strong* ties are broken for the leader, *weak* ties against it (von Stengel
& Zamir 2010, "Leadership games with convex strategy sets", for weak mixed commitments).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arena.solvers.payoffs import ROUNDING, Array, bimatrix, lifted, mixture, span, unit
from arena.solvers.programs import best_mixture

Ties = Literal["strong", "weak"]
BoolArray = NDArray[np.bool_]

TUPLES = 10_000
"""The most tuples of replies that are searched: a linear program (milliseconds) per tuple."""


@dataclass(frozen=True)
class LeaderCommitment:
    """What a leader commits to.

    Attributes:
        mixture: The leader's mixture [m].
        replies: The reply of each type of follower.
        value: The leader's payoff.
        attained: False if `value` is only a supremum, which happens with weak ties: at the mixture
            itself the follower is indifferent and replies worse for the leader, but the value of
            mixtures near it comes arbitrarily close.
    """

    mixture: Array
    replies: tuple[int, ...]
    value: float
    attained: bool = True


def pure_commitment(
    leader: ArrayLike, follower: ArrayLike, ties: Ties = "strong"
) -> LeaderCommitment:
    """The best single action to commit to; the first among equals.

    Args:
        leader: The leader's payoffs A [m, n].
        follower: The follower's payoffs B [m, n].
        ties: Whether the follower's ties are broken for the leader (strong) or against it (weak).

    Raises:
        ValueError: If the shapes differ, a payoff is not finite, or `ties` is another word.
    """
    a, b = bimatrix(leader, follower)
    favor = _favor(ties)
    best = b >= b.max(1, keepdims=True) - ROUNDING * span(b)
    worth = np.where(best, favor * a, -np.inf)
    replies = worth.argmax(1)
    values = a[np.arange(len(a)), replies]
    action = int(values.argmax())
    reply = int(replies[action])
    return LeaderCommitment(np.eye(len(a))[action], (reply,), float(values[action]))


def mixed_commitment(
    leader: ArrayLike, follower: ArrayLike, ties: Ties = "strong"
) -> LeaderCommitment:
    """The best mixture to commit to; arguments as `pure_commitment`.

    For each reply of the follower a linear program finds the best mixture that makes it a best
    reply; the best of these mixtures is returned. With weak ties a reply counts only if it is best
    on an open set of mixtures, since the leader can make the follower prefer those alone. It counts
    as the worst of its copies: the replies that always pay the follower the same.

    Raises:
        ValueError: If the shapes differ, a payoff is not finite, or `ties` is another word.
        ArithmeticError: If HiGHS fails.
    """
    a, b = bimatrix(leader, follower)
    if _favor(ties) > 0:
        return bayesian_commitment([1.0], [a], [b])
    lowest = float(a.min())
    a, b = lifted(a), unit(b)
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
    attained = worst >= value - ROUNDING * span(a)
    return LeaderCommitment(weights, (reply,), lowest + value, attained)


def bayesian_commitment(
    weights: ArrayLike, leaders: Sequence[ArrayLike], followers: Sequence[ArrayLike]
) -> LeaderCommitment:
    """The best mixture against a follower whose type the leader does not know, with strong ties.

    Args:
        weights: The probabilities of the types [T].
        leaders: The leader's payoffs against each type t, [m, n_t].
        followers: The payoffs of each type t, [m, n_t].

    Raises:
        ValueError: If shapes or counts do not fit, a payoff is not finite, the weights are not a
            distribution, or there are more than `TUPLES` tuples of replies: the problem is NP-hard
            in the number of types.
        ArithmeticError: If HiGHS fails.
    """
    if not len(leaders) == len(followers) >= 1:
        raise ValueError(
            f"{len(leaders)} leader's matrices for {len(followers)} followers': give one of each "
            "per type"
        )
    shares = mixture(weights, len(leaders), "types' distribution")
    games = [bimatrix(a, b) for a, b in zip(leaders, followers, strict=True)]
    m = games[0][0].shape[0]
    if any(len(a) != m for a, _ in games):
        raise ValueError(
            f"the leader has {[len(a) for a, _ in games]} actions against the types: give it the "
            "same actions against each"
        )
    counts = [a.shape[1] for a, _ in games]
    if math.prod(counts) > TUPLES:
        raise ValueError(
            f"{math.prod(counts)} tuples of replies, more than {TUPLES}: merge types or replies"
        )
    paid = [share * lifted(a) for share, (a, _) in zip(shares, games, strict=True)]
    scale = max(span(a) for a in paid)
    scaled = [unit(b) for _, b in games]
    # An upper bound on each tuple's value: with the highest bounds first, most are never solved.
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
    lowest = sum(share * float(a.min()) for share, (a, _) in zip(shares, games, strict=True))
    return LeaderCommitment(best, chosen, float(lowest + value))


def _favor(ties: str) -> int:
    if ties not in ("strong", "weak"):
        raise ValueError(f"ties are strong (for the leader) or weak (against it), not {ties}")
    return 1 if ties == "strong" else -1


def _regrets(follower: Array, reply: int) -> Array:
    """What each reply pays the follower more than `reply`, by action of the leader [n, m]."""
    regrets: Array = (follower - follower[:, [reply]]).T
    return regrets


def _maximin(a: Array, b: Array, reply: int) -> tuple[float, Array]:
    """The best worst case over the columns of `a` [m, c] where `reply` is a best one; its mixture.

    The value is the leader's payoff, the mixture [m] the leader's.
    """
    (m, copies), n = a.shape, b.shape[1]
    least = np.hstack([-unit(a).T, np.ones((copies, 1))])
    best = np.hstack([_regrets(b, reply), np.zeros((n, 1))])
    found = best_mixture(np.append(np.zeros(m), -1.0), np.vstack([least, best]), free=1)
    assert found is not None, "this reply is a best one to some mixture"
    return float((found.mixture @ a).min()), found.mixture


def _preferred(b: Array, reply: int, copies: BoolArray) -> bool:
    """Whether some mixture makes `reply` better than all others except its copies [n]."""
    others = b[:, ~copies]
    if not others.shape[1]:
        return True
    margin = np.hstack([(others - b[:, [reply]]).T, np.ones((others.shape[1], 1))])
    found = best_mixture(np.append(np.zeros(len(b)), -1.0), margin, free=1)
    assert found is not None, "every mixture is feasible, since the margin may be negative"
    return float(found.free[0]) > ROUNDING
