"""What rational players do where one's loss is not the other's gain.

Zero-sum is a finding, not an assumption: two cost functions are always there. Moves are chosen on
the payoffs' means over seeds and examples, and paid on every example, so that each player's payoff
has its interval. Equilibria are many, and noise in what is observed multiplies them (Bagwell 1995):
all are reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from arena.empirical.game import EmpiricalGame
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
class Outcome:
    """Who plays what, as a distribution over profiles, and what it pays.

    Attributes:
        name: The concept.
        profiles: The probability [D, A] of each model with each attack.
        defender: The defender's payoff.
        attacker: The attacker's.
        attained: Whether the payoffs are those of these moves; false where ties broken against the
            leader leave a supremum only, and a mixture near this one is worth nearly as much.
    """

    name: str
    profiles: Array
    defender: Estimate
    attacker: Estimate
    attained: bool = True


@dataclass(frozen=True)
class GeneralSum:
    """All outcomes; why there are no equilibria among them, if the game is too large for all.

    `degenerate`: payoffs tie, and components of equilibria may be more than points; the extreme
    ones are listed.
    """

    outcomes: tuple[Outcome, ...]
    degenerate: bool
    refusal: str | None


def general_sum(games: Sequence[EmpiricalGame]) -> GeneralSum:
    """Equilibria, commitments of either player, correlated and coarse correlated equilibria.

    Args:
        games: One a seed, of the same models and attacks.

    Raises:
        ValueError: If cells are missing.
        ArithmeticError: If a solver fails.
    """
    u, w = means(games, "defender"), means(games, "attacker")
    found: list[Outcome] = []
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


def _commitments(games: Sequence[EmpiricalGame], u: Array, w: Array, ties: Ties) -> list[Outcome]:
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
) -> Outcome:
    return Outcome(name, profiles, *paid(games, profiles), attained)


def means(games: Sequence[EmpiricalGame], player: str) -> Array:
    """The player's mean payoffs over seeds and examples, [D, A].

    Raises:
        ValueError: If cells are missing.
    """
    found: Array = np.mean([game.payoffs(player).mean(2) for game in games], axis=0)
    return found


def paid(games: Sequence[EmpiricalGame], profiles: Array) -> tuple[Estimate, Estimate]:
    """What profiles drawn with these probabilities [D, A] pay the defender, and the attacker."""
    defender, attacker = (
        over_seeds([np.tensordot(profiles, game.payoffs(player), 2) for game in games])
        for player in ("defender", "attacker")
    )
    return defender, attacker


@dataclass(frozen=True)
class AgainstTypes:
    """The defender's best mixture against an attacker of unknown type.

    Attributes:
        models: The mixture [D].
        replies: The attack of each type.
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
    """What to commit to against types of attackers, of which only the frequencies are known.

    A legitimate user is a type whose only attack is to leave inputs as they are. One that turns
    attacker a tenth of the time:

        against_types(
            games,
            weights={"honest": 0.9, "attacker": 0.1},
            attacks={"honest": ["clean"], "attacker": ["clean", "pgd"]},
        )

    Each type replies as its own payoff says, with ties broken for the defender.

    Args:
        games: One a seed, of the same models and attacks.
        weights: The types' probabilities.
        attacks: What each type can do.

    Raises:
        ValueError: If types do not match, weights are no distribution, an attack is not in the
            game, or there are too many combinations of replies.
    """
    if set(weights) != set(attacks) or not weights:
        raise ValueError(f"weights of {sorted(weights)}, but attacks of {sorted(attacks)}")
    parts = {
        name: [game.part(attacks=list(can)) for game in games] for name, can in attacks.items()
    }
    moves = bayesian_commitment(
        [weights[name] for name in parts],
        [means(part, "defender") for part in parts.values()],
        [means(part, "attacker") for part in parts.values()],
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
