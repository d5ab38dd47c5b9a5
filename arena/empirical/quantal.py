"""Quantal responses of an empirical game: players who make costly mistakes less often.

Logit equilibria (McKelvey & Palfrey 1995) of the mean payoffs: each player plays its moves with
probabilities proportional to exp(rationality x payoff), against an opponent who does the same.
Rationality 0 is uniform play; as it grows the branch ends in a Nash equilibrium. The game does not
say how rational a real attacker is, so a path over several rationalities is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arena.empirical.game import EmpiricalGame, mean_payoffs
from arena.empirical.general_sum import paid
from arena.estimate import Estimate
from arena.solvers.payoffs import Array
from arena.solvers.quantal import quantal_responses


@dataclass(frozen=True)
class Quantal:
    """Both players at one rationality.

    Attributes:
        rationality: In units of 1 / payoff.
        models: The defender's mixture [D].
        attacks: The attacker's mixture [A].
        defender: The defender's payoff.
        attacker: The attacker's payoff.
        residual: The largest distance of any probability from the exact quantal response.
    """

    rationality: float
    models: Array
    attacks: Array
    defender: Estimate
    attacker: Estimate
    residual: float


@dataclass(frozen=True)
class QuantalPath:
    """Quantal responses by rationality.

    Attributes:
        points: By ascending rationality.
        refusal: Why the highest rationalities are missing; None if all are there.
    """

    points: tuple[Quantal, ...]
    refusal: str | None


def quantal_path(games: Sequence[EmpiricalGame], rationalities: Sequence[float]) -> QuantalPath:
    """Quantal responses at several rationalities, equal for both players.

    Args:
        games: One per seed, of the same models and attacks.
        rationalities: In any order, at least 0.

    Raises:
        ValueError: If cells are missing, or a rationality is negative or not finite.
    """
    asked = sorted(set(rationalities))
    points: list[Quantal] = []
    try:
        u, w = mean_payoffs(games, "defender"), mean_payoffs(games, "attacker")
        responses = quantal_responses(u, w, asked)
        for rationality, each in zip(asked, responses, strict=True):
            payoffs = paid(games, np.outer(each.row, each.column))
            points.append(Quantal(rationality, each.row, each.column, *payoffs, each.residual))
    except ArithmeticError as error:
        return QuantalPath(tuple(points), str(error))
    return QuantalPath(tuple(points), None)
