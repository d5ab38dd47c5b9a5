"""Solutions of games in which one player's loss is not the other's gain.

That a game is zero-sum is a finding, not an assumption: there are always two cost functions. Moves
are chosen on the mean payoffs over seeds and examples, and scored on every example, so that each
player's payoff has an interval. There may be many equilibria, and noise in what is observed adds to
them (Bagwell 1995): all are reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from arena.empirical.game import EmpiricalGame, mean_payoffs
from arena.estimate import Estimate, over_seeds
from arena.solvers.bimatrix import all_equilibria
from arena.solvers.correlated import coarse_correlated, correlated
from arena.solvers.payoffs import Array
from arena.solvers.stackelberg import (
    LeaderCommitment,
    Ties,
    bayesian_commitment,
    mixed_commitment,
    pure_commitment,
)


@dataclass(frozen=True)
class JointPlay:
    """How both play by a solution concept: a distribution over profiles, and its payoffs.

    Attributes:
        name: The solution concept.
        profiles: The probability [D, A] of each model with each attack.
        defender: The defender's payoff.
        attacker: The attacker's payoff.
        attained: Whether the payoffs are those of these moves. False where ties broken against the
            leader leave only a supremum, which mixtures near this one come arbitrarily close to.
    """

    name: str
    profiles: Array
    defender: Estimate
    attacker: Estimate
    attained: bool = True


@dataclass(frozen=True)
class GeneralSum:
    """Solutions of a game by several concepts.

    Attributes:
        outcomes: One per concept, player and equilibrium.
        degenerate: Whether payoffs tie, so that there may be a continuum of equilibria, of which
            the extreme ones are listed.
        refusal: Why no equilibria are listed, if the game is too large; else None.
    """

    outcomes: tuple[JointPlay, ...]
    degenerate: bool
    refusal: str | None


def general_sum(games: Sequence[EmpiricalGame]) -> GeneralSum:
    """Equilibria, commitments of either player, correlated and coarse correlated equilibria.

    Args:
        games: One per seed, of the same models and attacks.

    Raises:
        ValueError: If cells are missing.
        ArithmeticError: If a solver fails.
    """
    u, w = mean_payoffs(games, "defender"), mean_payoffs(games, "attacker")
    found: list[JointPlay] = []
    degenerate, refusal = False, None
    try:
        nash = all_equilibria(u, w)
    except ValueError as error:
        refusal = str(error)
    else:
        degenerate = nash.degenerate
        for number, each in enumerate(nash.extreme, 1):
            name = f"equilibrium {number} of {len(nash.extreme)}"
            found.append(_outcome(games, name, np.outer(each.row, each.column)))
    for ties in ("strong", "weak"):
        found += _commitments(games, u, w, ties)
    for concept, solver in (("correlated", correlated), ("coarse correlated", coarse_correlated)):
        for whose, objective in (("the defender", u), ("the attacker", w), ("both", u + w)):
            mediated = solver(u, w, objective)
            found.append(_outcome(games, f"{concept}, best for {whose}", mediated.distribution))
    return GeneralSum(tuple(found), degenerate, refusal)


def _commitments(games: Sequence[EmpiricalGame], u: Array, w: Array, ties: Ties) -> list[JointPlay]:
    favor = "for" if ties == "strong" else "against"
    found = []
    for commitment, commit in (("pure", pure_commitment), ("mixed", mixed_commitment)):
        for leader, own, other in (("defender", u, w), ("attacker", w.T, u.T)):
            moves = commit(own, other, ties)
            profiles = _profiles(moves, own.shape[1])
            name = f"{leader} commits, {commitment}, ties {favor} it"
            transposed = profiles if leader == "defender" else profiles.T
            found.append(_outcome(games, name, transposed, moves.attained))
    return found


def _profiles(moves: LeaderCommitment, replies: int) -> Array:
    (reply,) = moves.replies
    return np.outer(moves.mixture, np.eye(replies)[reply])


def _outcome(
    games: Sequence[EmpiricalGame], name: str, profiles: Array, attained: bool = True
) -> JointPlay:
    return JointPlay(name, profiles, *paid(games, profiles), attained)


def paid(games: Sequence[EmpiricalGame], profiles: Array) -> tuple[Estimate, Estimate]:
    """The defender's payoff and the attacker's when profiles are drawn at random.

    Args:
        games: One per seed, of the same models and attacks.
        profiles: The probability [D, A] of each model with each attack.
    """
    defender, attacker = (
        over_seeds([np.tensordot(profiles, game.payoffs(player), 2) for game in games])
        for player in ("defender", "attacker")
    )
    return defender, attacker


@dataclass(frozen=True)
class AgainstTypes:
    """The defender's best mixture against an attacker of unknown type.

    Attributes:
        models: The defender's mixture [D].
        replies: For each type, its attack.
        defender: The defender's payoff.
    """

    models: Array
    replies: Mapping[str, str]
    defender: Estimate


def against_types(
    games: Sequence[EmpiricalGame],
    weights: Mapping[str, float],
    attacks: Mapping[str, Sequence[str]],
) -> AgainstTypes:
    """The best commitment against attackers of unknown type, when the types' frequencies are known.

    A legitimate user is a type whose only attack is to leave inputs unchanged. If a tenth of the
    users are attackers:

        against_types(
            games,
            weights={"honest": 0.9, "attacker": 0.1},
            attacks={"honest": ["clean"], "attacker": ["clean", "pgd"]},
        )

    Each type replies by its own payoff; its ties are broken for the defender.

    Args:
        games: One per seed, of the same models and attacks.
        weights: The probability of each type.
        attacks: The attacks that each type can choose from.

    Raises:
        ValueError: If cells are missing, the types do not match, weights are not a distribution, an
            attack is not in the game, or there are too many combinations of replies.
    """
    if set(weights) != set(attacks) or not weights:
        raise ValueError(
            f"weights of {sorted(weights)}, but attacks of {sorted(attacks)}: give both per type"
        )
    parts = {
        name: [game.part(attacks=list(can)) for game in games] for name, can in attacks.items()
    }
    moves = bayesian_commitment(
        [weights[name] for name in parts],
        [mean_payoffs(part, "defender") for part in parts.values()],
        [mean_payoffs(part, "attacker") for part in parts.values()],
    )
    chosen = dict(zip(parts, moves.replies, strict=True))
    paid = [
        sum(
            weights[name] * np.tensordot(moves.mixture, part[k].payoffs("defender")[:, reply], 1)
            for (name, part), reply in zip(parts.items(), moves.replies, strict=True)
        )
        for k in range(len(games))
    ]
    replies = {name: parts[name][0].attacks[reply] for name, reply in chosen.items()}
    return AgainstTypes(moves.mixture, replies, over_seeds([np.asarray(each) for each in paid]))
