"""Repeated play: responders with different memories, and what each forgets.

The attacker moves first in a round: its move a_t answers the models up to round t - 1, and the
model d_t answers the attacks up to round t. Round 0 is the opening. Responders differ in the part
of the past that they answer:

    memoryless      the last move
    fictitious      all moves, each with the same weight (fictitious play; Brown 1951)
    double_oracle   the Nash mixture of the game of all moves (McMahan et al. 2003)

The result is the whole cross-play u[t, s], the defender's payoff of the model of round t on the
attack of round s. A memoryless responder may cycle for ever where a fictitious one does not
(Balcan et al. 2022, 2210.12606).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from arena import chance
from arena.empirical.double_oracle import Halves, paired
from arena.empirical.meta_solvers import mixtures
from arena.empirical.oracles import Mixture, Oracles, crossed
from arena.estimate import Estimate
from arena.solvers.payoffs import Array

Memory = Literal["memoryless", "fictitious", "double_oracle"]


@dataclass(frozen=True)
class Round:
    """The moves of a round, and the mixtures after it.

    Attributes:
        number: From 0, the opening.
        model: The defender's move.
        attack: The attacker's move, which the model answers.
        models: The mixture of models that the next attack answers.
        attacks: The mixture of attacks after the round.
    """

    number: int
    model: str
    attack: str
    models: Mixture
    attacks: Mixture


def repeated_play(
    oracles: Oracles, memory: Memory, halves: Halves, seed: int = 0
) -> Iterator[Round]:
    """Plays without end. Responders that answer the same mixture in a round give the same answer.

    Args:
        oracles: The game, zero-sum.
        memory: The part of the past that both players answer.
        halves: Nash mixtures are solved on its examples for choosing.
        seed: Of all responses.
    """
    model, attack = oracles.opening()
    models, attacks = [model], [attack]
    x, y = _standing(oracles, memory, models, attacks, halves)
    number = 0
    while True:
        yield Round(number, models[-1], attacks[-1], x, y)
        number += 1
        attacks.append(oracles.attack(x, chance.seed_of(seed, number, "attack")))
        _, answered = _standing(oracles, memory, models, attacks, halves)
        models.append(oracles.defend(answered, chance.seed_of(seed, number, "model")))
        x, y = _standing(oracles, memory, models, attacks, halves)


def _standing(
    oracles: Oracles, memory: Memory, models: list[str], attacks: list[str], halves: Halves
) -> tuple[Mixture, Mixture]:
    if memory == "memoryless":
        return {models[-1]: 1.0}, {attacks[-1]: 1.0}
    if memory == "fictitious":
        return _frequencies(models), _frequencies(attacks)
    rows, columns = dict(zip(models, models, strict=True)), dict(zip(attacks, attacks, strict=True))
    payoffs = crossed(oracles, rows, columns).payoffs("defender")
    row, column = mixtures("nash", payoffs[:, :, halves.chosen_on].mean(2))
    return dict(zip(rows, row.tolist(), strict=True)), dict(
        zip(columns, column.tolist(), strict=True)
    )


def _frequencies(moves: list[str]) -> Mixture:
    return {move: moves.count(move) / len(moves) for move in moves}


def forgetting(u: Array) -> list[Estimate]:
    """The change of payoff on an attack by the model of k rounds later, for k = 0 to T - 2.

    The mean over rounds s of u[s + k, s] - u[s, s], paired by example, with a 95 % interval over
    examples. It is exactly 0 for k = 0, and negative where the defender has forgotten. The
    opening's attack, honest inputs, is left out.

    Args:
        u: The defender's payoff of the model of round t on the attack of round s, [T, T, E].
    """
    played = range(1, len(u))
    return [
        paired(np.mean([u[s + k, s] - u[s, s] for s in played if s + k < len(u)], axis=0))
        for k in range(len(u) - 1)
    ]


def period(u: Array, level: float = 0.95) -> int | None:
    """The lag at which models are good again at attacks that they had become bad at.

    It is the least k >= 2 for which the mean payoff u[s + k, s] over rounds s is above the one at
    lag 1 and the one at lag k + 1, provided that lag 1 is below lag 0. Each comparison is of
    differences paired by round and example, and its one-sided interval must exclude 0, at a level
    that holds for all lags together. None means that no lag seen at least once in full passes,
    which with noisy payoffs does not prove that there is none.

    Args:
        u: As for `forgetting`, [T, T, E].
        level: Of all lags together, in (0, 1).
    """
    lags = range(2, len(u) - 2)
    if not lags:
        return None
    # One side of three comparisons per lag at most: two sides for `paired`.
    each = 1 - 2 * (1 - level) / (3 * len(lags))

    def above(one: int, other: int) -> bool:
        rounds = range(1, len(u) - max(one, other))
        found = paired(np.mean([u[s + one, s] - u[s + other, s] for s in rounds], axis=0), each)
        return found.low > 0

    if not above(0, 1):
        return None
    return next((k for k in lags if above(k, 1) and above(k, k + 1)), None)
