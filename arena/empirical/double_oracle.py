"""Double oracle and policy-space response oracles: populations that grow by best responses.

McMahan, Gordon & Blum, ICML 2003; Lanctot et al. 2017 (1711.00832), Algorithm 1. Each iteration
plays all cells of the population's game, solves it for a mixture of each player, and asks both
oracles for a response. With exact oracles and the Nash meta-solver it ends in an equilibrium of the
whole game. With trained oracles there is no such guarantee, so each iteration measures its distance
from an equilibrium, the **exploitability** (NashConv)

    e = u(d*, y) - u(x, a*)

of mixtures x, y by replies d*, a*, where u is the defender's payoff. It is a lower bound, since a
stronger reply may exist. One half of the examples, drawn once, is for choosing the mixtures and the
best reply; the other half is for judging them. Both replies are judged on the same examples, so the
interval is of paired differences.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arena import chance
from arena.empirical.game import EmpiricalGame
from arena.empirical.meta_solvers import Meta, mixtures
from arena.empirical.oracles import Mixture, Oracles, crossed
from arena.estimate import Estimate, over_examples
from arena.solvers.payoffs import Array

Numbers = NDArray[np.int64]

_SPLITS = 20  # random halves over which the noise floor is averaged


@dataclass(frozen=True)
class Iteration:
    """The result of an iteration, before its responses join the population.

    Payoffs are the defender's. Estimates are on the examples held out, with 95 % intervals (of no
    width where payoffs are exact).

    Attributes:
        number: From 0.
        game: The population's game, with all its cells.
        moves: The oracles' names of the game's models, and of its attacks.
        row: The defender's mixture x of the models, [D].
        column: The attacker's mixture y of the attacks, [A].
        value: u(x, y).
        attacker_gain: The loss of value to the attacker's best reply found.
        defender_gain: The gain of value by the defender's best reply found.
        exploitability: The sum of both gains: a lower bound.
        by_seed: Exploitability by the fresh replies of each seed alone, beside the known moves.
            Their spread is not due to sampling of examples, and no interval contains it.
        floor: The apparent gain of the population's own moves by sampling alone; see
            `noise_floor`.
        replies: The names of the replies judged, the defender's and the attacker's; "stay" if no
            reply found does better than the mixture.
        settled: Why this iteration is the last one; None if it is not, or if only the number of
            iterations ended it.
    """

    number: int
    game: EmpiricalGame
    moves: tuple[tuple[str, ...], tuple[str, ...]]
    row: Array
    column: Array
    value: Estimate
    attacker_gain: Estimate
    defender_gain: Estimate
    exploitability: Estimate
    by_seed: tuple[Estimate, ...]
    floor: float
    replies: tuple[str, str]
    settled: str | None

    @property
    def between_seeds(self) -> float | None:
        """The standard deviation of exploitability between seeds; None with a single seed."""
        found = [each.mean for each in self.by_seed]
        return float(np.std(found, ddof=1)) if len(found) > 1 else None


@dataclass(frozen=True)
class Halves:
    """The examples for choosing, and those for judging.

    Attributes:
        chosen_on: Ascending numbers [E // 2] of examples; [0] if there is only one.
        judged_on: The numbers [E - E // 2] of the others; [0] if there is only one.
    """

    chosen_on: Numbers
    judged_on: Numbers

    @classmethod
    def of(cls, examples: int, seed: int) -> "Halves":
        """Random halves of the examples."""
        if examples == 1:
            return cls(np.arange(1), np.arange(1))
        order = np.random.default_rng(seed).permutation(examples)
        return cls(np.sort(order[: examples // 2]), np.sort(order[examples // 2 :]))


def double_oracle(
    oracles: Oracles,
    meta: Meta = "nash",
    iterations: int = 10,
    tolerance: float = 0.01,
    seed: int = 0,
    seeds: int = 1,
) -> Iterator[Iteration]:
    """Grows populations from the opening, one iteration at a time.

    It settles once the exploitability found is below the tolerance or not distinguishable from 0,
    or once the responses are moves that the populations already hold.

    Args:
        oracles: The game.
        meta: How mixtures are chosen.
        iterations: The most iterations, at least 1.
        tolerance: Of exploitability, above 0, in units of payoff.
        seed: Of all responses, and of the halves.
        seeds: The number of fresh replies of each player that judge a population, at least 1. The
            best one counts.

    Raises:
        ValueError: If the tolerance is not above 0, there are no iterations or no seeds, or the
            game is not zero-sum.
    """
    if not tolerance > 0 or iterations < 1 or seeds < 1:
        raise ValueError(
            f"tolerance={tolerance}, iterations={iterations}, seeds={seeds}: all must be above 0"
        )
    halves = Halves.of(oracles.examples, chance.seed_of(seed, "halves"))
    model, attack = oracles.opening()
    models, attacks = {model: "model 0"}, {attack: "attack 0"}
    for number in range(iterations):
        game = crossed(oracles, models, attacks)
        if not game.zero_sum:
            raise ValueError(
                "double oracle solves zero-sum games, but these players' costs do not sum to 0; "
                "use attacker/cost=negation"
            )
        payoffs = game.payoffs("defender")
        row, column = mixtures(meta, payoffs[:, :, halves.chosen_on].mean(2))
        x, y = _named(models, row), _named(attacks, column)
        model = oracles.defend(y, chance.seed_of(seed, number, "model"))
        attack = oracles.attack(x, chance.seed_of(seed, number, "attack"))
        joined = {**models, model: models.get(model, f"model {number + 1}")}
        joined_attacks = {**attacks, attack: attacks.get(attack, f"attack {number + 1}")}
        fresh_models, fresh_attacks = [], []
        for k in range(seeds):
            path = (seed, number) if k == 0 else (seed, number, k)
            fresh_models.append(oracles.defend(y, chance.seed_of(*path, "fresh model"), True))
            fresh_attacks.append(oracles.attack(x, chance.seed_of(*path, "fresh attack"), True))
        called = _fresh(fresh_models, "model") | joined
        called_attacks = _fresh(fresh_attacks, "attack") | joined_attacks
        wide = crossed(oracles, called, called_attacks)
        judged = judge(wide, game, row, column, halves)
        alone = [
            wide.part(
                [called[each] for each in {one: None} | joined],
                [called_attacks[each] for each in {other: None} | joined_attacks],
            )
            for one, other in zip(fresh_models, fresh_attacks, strict=True)
        ]
        by_seed = [judge(part, game, row, column, halves).exploitability for part in alone]
        settled = _settled(
            judged.exploitability, tolerance, joined == models and joined_attacks == attacks
        )
        yield Iteration(
            number=number,
            game=game,
            moves=(tuple(models), tuple(attacks)),
            row=row,
            column=column,
            by_seed=tuple(by_seed),
            floor=noise_floor(payoffs, meta, chance.seed_of(seed, "floor")),
            settled=settled,
            **vars(judged),
        )
        if settled:
            return
        models, attacks = joined, joined_attacks


@dataclass(frozen=True)
class Judged:
    """The gains of replies against mixtures; attributes as of `Iteration`."""

    value: Estimate
    attacker_gain: Estimate
    defender_gain: Estimate
    exploitability: Estimate
    replies: tuple[str, str]


def judge(
    wide: EmpiricalGame, game: EmpiricalGame, row: Array, column: Array, halves: Halves
) -> Judged:
    """The gains of the best replies in a wider game against mixtures of a part of it.

    The best reply is chosen on one half of the examples, and its gain is estimated on the other.
    A player may stay with its mixture, and then gains exactly 0.

    Args:
        wide: The game that holds all replies.
        game: A part of it, which holds the mixtures' moves.
        row: The defender's mixture [D] of the part's models.
        column: The attacker's mixture [A] of the part's attacks.
        halves: Of the examples.
    """
    payoffs = wide.payoffs("defender")
    d = [wide.models.index(name) for name in game.models]
    a = [wide.attacks.index(name) for name in game.attacks]
    by_model = np.tensordot(column, payoffs[:, a], (0, 1))  # u(d, y) of every model, [D, E]
    by_attack = np.tensordot(row, payoffs[d], (0, 0))  # u(x, a) of every attack, [A, E]
    value = row @ by_model[d]
    chosen, judged = halves.chosen_on, halves.judged_on
    gains, names = [], []
    for gain, known in ((by_model - value, wide.models), (value - by_attack, wide.attacks)):
        means = gain[:, chosen].mean(1)
        best = int(means.argmax())
        better = means[best] > 0
        gains.append(gain[best][judged] if better else np.zeros(len(judged)))
        names.append(known[best] if better else "stay")
    return Judged(
        value=paired(value[judged]),
        defender_gain=paired(gains[0]),
        attacker_gain=paired(gains[1]),
        exploitability=paired(gains[0] + gains[1]),
        replies=(names[0], names[1]),
    )


def secured(
    oracles: Oracles, commitments: Mapping[str, Mixture], seed: int = 0
) -> dict[str, Array]:
    """The defender's payoff by each mixed commitment on each example, [E].

    The attacker knows the commitment and has a fresh best response to each of the commitments. On
    every example it plays the one that costs this commitment most. All commitments meet the same
    attacks, so none looks strong only because the search against it went badly.

    Args:
        oracles: The game.
        commitments: The defender's mixtures, by any name.
        seed: Of the attacks.
    """
    attacks = [
        oracles.attack(mixture, chance.seed_of(seed, "secured", number), fresh=True)
        for number, mixture in enumerate(commitments.values())
    ]
    found = {}
    for called, mixture in commitments.items():
        support = [name for name, weight in mixture.items() if weight > 0]
        payoffs = crossed(
            oracles, {name: name for name in support}, {name: name for name in attacks}
        ).payoffs("defender")
        weights = np.array([mixture[name] for name in support])
        found[called] = np.tensordot(weights, payoffs, 1).min(0)
    return found


def noise_floor(payoffs: Array, meta: Meta, seed: int) -> float:
    """The exploitability that sampling alone would show in a game.

    Mixtures are solved on a random half of the examples; the best replies among the same moves are
    picked and judged on the other half. If payoffs were exact, no move of the game would gain
    against a Nash mixture. The result is the mean of 20 splits, and 0 where E is 1.

    Args:
        payoffs: The defender's payoffs [D, A, E].
        meta: How mixtures are chosen.
        seed: Of the splits.
    """
    examples = payoffs.shape[2]
    if examples == 1:
        return 0.0
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(_SPLITS):
        order = generator.permutation(examples)
        one, other = (payoffs[:, :, half].mean(2) for half in np.array_split(order, 2))
        row, column = mixtures(meta, one)
        found.append(float((other @ column).max() - (row @ other).min()))
    return float(np.mean(found))


def _settled(exploitability: Estimate, tolerance: float, known: bool) -> str | None:
    if exploitability.mean < tolerance:
        return f"exploitability below {tolerance:g}"
    if exploitability.low <= 0:
        return "exploitability not distinguishable from 0"
    return "the responses are known moves" if known else None


def paired(differences: Array, level: float = 0.95) -> Estimate:
    """The mean of paired differences [n] with its normal interval; exact where n is 1."""
    if len(differences) == 1:
        return Estimate(float(differences[0]), 0.0)
    return over_examples(differences, level)


def _fresh(moves: list[str], kind: str) -> dict[str, str]:
    return {move: f"fresh {kind}" + f" {k + 1}" * (k > 0) for k, move in enumerate(moves)}


def _named(names: dict[str, str], weights: Array) -> Mixture:
    return {name: float(weight) for name, weight in zip(names, weights, strict=True)}
