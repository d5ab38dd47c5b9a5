"""How often the intervals of values and prices cover the truth; run it to see the table.

A known game is a payoff tensor of a whole population of examples. Samples of it, drawn with
replacement, are what a study would have seen; the tensor itself says what is true. An example has a
difficulty that all its cells share, since models fail on the same examples.
"""

import argparse
from dataclasses import dataclass

import numpy as np

from arena.empirical.game import EmpiricalGame
from arena.empirical.protocol import STANDARD
from arena.empirical.values import margin, values

POPULATION = 4_000


@dataclass(frozen=True)
class Coverage:
    """Of one quantity of one game: the share of intervals that cover it, and their half-width."""

    game: str
    quantity: str
    truth: float
    covered: float
    held_out: float
    half: float
    bias: float


def game(cost):
    """A zero-sum game of the defender's costs [D, A, E]."""
    models = tuple(f"m{i}" for i in range(cost.shape[0]))
    attacks = tuple(f"a{i}" for i in range(cost.shape[1]))
    costs = {"defender": cost, "attacker": -cost}
    return EmpiricalGame(models, attacks, (None,) * len(attacks), costs)


def population(errors, seed):
    """Costs [D, A, POPULATION] of 0 and 1 with these means, alike within an example."""
    generator = np.random.default_rng(seed)
    shared = generator.standard_normal(POPULATION)
    own = generator.standard_normal((*errors.shape, POPULATION))
    harder = 0.8 * shared + 0.6 * own
    ranks = harder.argsort(-1).argsort(-1) / POPULATION
    return (ranks < errors[..., None]).astype(np.int8)


def known_games():
    """Names, with costs [D, A, POPULATION] each."""
    generator = np.random.default_rng(0)
    diagonal = np.full((3, 3), 0.2) + 0.6 * np.eye(3)
    diagonal[0, 0] = 0.6
    saddle = np.array([[0.3, 0.1, 0.2], [0.6, 0.5, 0.1], [0.7, 0.2, 0.4]])
    large = generator.uniform(0.05, 0.4, (6, 6)) + 0.5 * np.eye(6)
    return {
        "each attack its model, 3 x 3": population(diagonal, 1),
        "a saddle, 3 x 3": population(saddle, 2),
        "each attack its model, 6 x 6": population(large, 3),
        "all cells alike, 4 x 4": population(np.full((4, 4), 0.3), 4),
    }


def coverage(replications, examples=1000, protocols=STANDARD, margins=None):
    """The coverage of every value and price of every known game; `margins` collects Hoeffding's."""
    generator = np.random.default_rng(9)
    found = []
    for name, costs in known_games().items():
        truth = values([game(costs)], protocols, hold_out=False)
        quantities = [value.protocol.symbol for value in truth.values]
        quantities += [price.name for price in truth.prices]
        true = np.array([each.estimate.mean for each in (*truth.values, *truth.prices)])
        means, halves, held = [], [], []
        for _ in range(replications):
            sample = costs[:, :, generator.integers(POPULATION, size=examples)]
            seen = values([game(sample)], protocols)
            each = [*seen.values, *seen.prices]
            means.append([one.estimate.mean for one in each])
            halves.append([one.estimate.half for one in each])
            held.append([(one.unselected.low, one.unselected.high) for one in each])
            if margins is not None:
                off = np.abs(sample.mean(2) - costs.mean(2)).max()
                margins.append(off <= margin(*costs.shape[:2], examples))
        means, halves, held = np.array(means), np.array(halves), np.array(held)
        covered = (np.abs(means - true) <= halves + 1e-9).mean(0)
        unselected = ((held[:, :, 0] <= true + 1e-9) & (true - 1e-9 <= held[:, :, 1])).mean(0)
        columns = (true, covered, unselected, halves.mean(0), (means - true).mean(0))
        found += [
            Coverage(name, quantity, *map(float, row))
            for quantity, *row in zip(quantities, *columns, strict=True)
        ]
    return found


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, default=400)
    parser.add_argument("--examples", type=int, default=1000)
    given = parser.parse_args()
    margins = []
    print("game | quantity | truth | covered | held out | half-width | bias")
    for one in coverage(given.replications, given.examples, margins=margins):
        print(
            f"{one.game} | {one.quantity} | {one.truth:.3f} | {one.covered:.3f} | "
            f"{one.held_out:.3f} | {one.half:.4f} | {one.bias:+.4f}"
        )
    print(f"Hoeffding's margin held in {np.mean(margins):.4f} of {len(margins)} samples")


if __name__ == "__main__":
    main()
