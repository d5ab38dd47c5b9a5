"""What players do who make mistakes, and the more seldom the more these cost.

Logit equilibria (McKelvey & Palfrey 1995) of the payoffs' means: each player plays its moves in
proportion to exp(rationality x payoff) against the other, who does the same. Rationality 0 is
uniform play; as it grows the branch ends in a Nash equilibrium. How much of it a real attacker has
is not for the game to say, so that a path over several is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arena.empirical.game import EmpiricalGame
from arena.empirical.general_sum import means, paid
from arena.estimate import Estimate
from arena.solvers.correlated import quantal_responses
from arena.solvers.payoffs import Array


@dataclass(frozen=True)
class Quantal:
    """Both players at one rationality.

    Attributes:
        rationality: In units of 1 / payoff.
        models: The defender's mixture [D].
        attacks: The attacker's [A].
        defender: The defender's payoff.
        attacker: The attacker's.
    """

    rationality: float
    models: Array
    attacks: Array
    defender: Estimate
    attacker: Estimate


@dataclass(frozen=True)
class QuantalPath:
    """By rationality, ascending; why some are missing, if the branch was not followed so far."""

    points: tuple[Quantal, ...]
    refusal: str | None


def quantal_path(games: Sequence[EmpiricalGame], rationalities: Sequence[float]) -> QuantalPath:
    """Quantal responses at some rationalities, equal for both players.

    Args:
        games: One a seed, of the same models and attacks.
        rationalities: In any order, at least 0.

    Raises:
        ValueError: If cells are missing, or a rationality is negative or not finite.
    """
    asked = sorted(set(rationalities))
    points: list[Quantal] = []
    try:
        responses = quantal_responses(means(games, "defender"), means(games, "attacker"), asked)
        for rationality, each in zip(asked, responses, strict=True):
            payoffs = paid(games, np.outer(each.row, each.column))
            points.append(Quantal(rationality, each.row, each.column, *payoffs))
    except ArithmeticError as error:
        return QuantalPath(tuple(points), str(error))
    return QuantalPath(tuple(points), None)
