"""Repeated play: responders with different memories, and what each forgets.

The attacker moves first in a round: a_t answers the models up to t - 1, d_t the attacks up to t.
Round 0 is the opening. Responders differ in what of the past they answer:

    memoryless      the last move
    fictitious      all moves, each as likely (fictitious play; Brown 1951)
    double_oracle   the Nash mixture of the game of all moves (McMahan et al. 2003)

What came of it is the whole cross-play u[t, s], the defender's payoff of the model of round t on
the attack of round s. A memoryless responder can go round for ever where a fictitious one does not
(Balcan et al. 2022, 2210.12606).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import norm

from arena import chance
from arena.empirical.double_oracle import Halves, paired
from arena.empirical.meta_solvers import mixtures
from arena.empirical.oracles import Mixture, Oracles, crossed
from arena.estimate import Estimate
from arena.solvers.payoffs import Array

Memory = Literal["memoryless", "fictitious", "double_oracle"]


@dataclass(frozen=True)
class Round:
    """What was played in a round, and what then stands.

    Attributes:
        number: From 0, the opening.
        model: The defender's move.
        attack: The attacker's, which the model answers.
        models: The mixture of models that the next attack answers.
        attacks: The mixture of attacks beside it.
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
        memory: What both players answer.
        halves: The examples on which Nash mixtures are solved are those for choosing.
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
    """What the model of k rounds later loses on an attack, for k = 0, 1, ... (first: exactly 0).

    The mean over rounds s of u[s + k, s] - u[s, s], paired by example, with a 95 % interval over
    examples. Negative: forgotten. The opening's attack, honest inputs, is left out.

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

    The least k >= 2 at which the mean payoff u[s + k, s] over rounds s is above that at lag 1 and
    that at lag k + 1, lag 1 being below lag 0: each a difference paired by round and example, whose
    one-sided interval excludes 0 at the level shared out among all lags. None: there is no such lag
    among those seen at least once in full, which with noisy payoffs is no proof that there is none.

    Args:
        u: As for `forgetting`.
        level: Of all lags together.
    """
    lags = range(2, len(u) - 2)
    if not lags:
        return None
    z = float(norm.ppf(1 - (1 - level) / (3 * len(lags))))

    def above(one: int, other: int) -> bool:
        rounds = range(1, len(u) - max(one, other))
        found = paired(np.mean([u[s + one, s] - u[s + other, s] for s in rounds], axis=0), z)
        return found.low > 0

    if not above(0, 1):
        return None
    return next((k for k in lags if above(k, 1) and above(k, k + 1)), None)
