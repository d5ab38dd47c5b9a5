"""Double oracle: exact games end in their equilibria, and noise is told from what is gained."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest

from arena.empirical.double_oracle import (
    Halves,
    double_oracle,
    judge,
    noise_floor,
    secured,
)
from arena.empirical.game import EmpiricalGame
from arena.empirical.meta_solvers import mixtures
from arena.empirical.oracles import GivenGame, checked, crossed
from arena.solvers.zero_sum import certified, solve


def blotto(soldiers=5, fields=3):
    """Colonel Blotto: battlefields won less battlefields lost."""
    forces = [
        each
        for each in itertools.product(range(soldiers + 1), repeat=fields)
        if sum(each) == soldiers
    ]
    return np.array([[np.sign(np.subtract(a, b)).sum() for b in forces] for a in forces], float)


GAMES = {
    "matching pennies": np.array([[1.0, -1.0], [-1.0, 1.0]]),
    # Rock beats scissors for two: mixture (1/4, 1/2, 1/4) of rock, paper, scissors, value 0.
    "biased rock-paper-scissors": np.array([[0.0, -1.0, 2.0], [1.0, 0.0, -1.0], [-2.0, 1.0, 0.0]]),
    "Blotto": blotto(),
    "random": np.random.default_rng(0).random((50, 50)),
    "a saddle": np.array([[3.0, 2.0, 4.0], [1.0, 0.0, 5.0]]),
    "one of each": np.array([[0.25]]),
}


@pytest.mark.parametrize("name", GAMES)
def test_it_ends_in_the_value_with_no_gap(name):
    payoffs = GAMES[name]
    *_, last = double_oracle(GivenGame(payoffs), iterations=200, tolerance=1e-9)
    assert last.settled
    assert last.value.mean == pytest.approx(solve(payoffs).value, abs=1e-9)
    assert last.exploitability.mean == pytest.approx(0.0, abs=1e-9)
    assert last.exploitability.half == last.floor == 0.0


def test_known_solutions():
    *_, last = double_oracle(GivenGame(GAMES["biased rock-paper-scissors"]), tolerance=1e-9)
    shares = dict(zip(last.moves[0], last.row, strict=True))
    assert shares == pytest.approx({"row 0": 0.25, "row 1": 0.5, "row 2": 0.25})
    *_, last = double_oracle(GivenGame(GAMES["Blotto"]), iterations=99, tolerance=1e-9)
    assert last.value.mean == pytest.approx(0.0, abs=1e-9)
    assert len(last.row) < len(GAMES["Blotto"]), "it needs not all of the game"


@pytest.mark.parametrize("name", GAMES)
def test_what_is_found_brackets_the_value_at_every_iteration(name):
    value = solve(GAMES[name]).value
    for each in double_oracle(GivenGame(GAMES[name]), iterations=200, tolerance=1e-9):
        assert each.value.mean - each.attacker_gain.mean <= value + 1e-9
        assert value <= each.value.mean + each.defender_gain.mean + 1e-9


@pytest.mark.parametrize("meta", ["nash", "replicator", "regret_matching", "uniform"])
def test_with_exact_oracles_exploitability_is_that_in_the_whole_game(meta):
    payoffs = GAMES["random"]
    for each in double_oracle(GivenGame(payoffs), meta, 12, 1e-9):
        row, column = np.zeros(50), np.zeros(50)
        for names, mixture, whole in zip(
            each.moves, (each.row, each.column), (row, column), strict=True
        ):
            for name, weight in zip(names, mixture, strict=True):
                whole[int(name.split()[1])] = weight
        gap = certified(payoffs, row, column).gap
        assert each.exploitability.mean == pytest.approx(gap, abs=1e-9)


@pytest.mark.parametrize("meta", ["nash", "replicator", "regret_matching"])
def test_meta_solvers_come_near_the_equilibrium(meta):
    payoffs = GAMES["biased rock-paper-scissors"]
    row, column = mixtures(meta, payoffs)
    assert row.sum() == pytest.approx(1) and column.sum() == pytest.approx(1)
    assert certified(payoffs, row, column).gap < {"replicator": 0.05}.get(meta, 0.01)


def test_uniform_is_uniform():
    row, column = mixtures("uniform", np.zeros((4, 2)))
    assert row.tolist() == [0.25] * 4 and column.tolist() == [0.5] * 2


def test_it_says_why_it_ends():
    *_, last = double_oracle(GivenGame(GAMES["random"]), "uniform", 100, 1e-9)
    assert last.settled == "the responses are known moves"
    *_, last = double_oracle(GivenGame(GAMES["random"]), "nash", 3, 1e-9)
    assert last.settled is None and last.number == 2
    *_, last = double_oracle(GivenGame(GAMES["random"]), "nash", 100, 0.5)
    assert last.settled == "exploitability below 0.5" and last.exploitability.mean > 0.01


def test_it_ends_where_payoffs_cannot_be_told_apart():
    """Every cell a fair coin on 40 examples: nothing that is found can be told from luck."""
    coins = np.random.default_rng(1).integers(0, 2, (6, 6, 40))
    *_, last = double_oracle(GivenGame(coins), iterations=20, tolerance=1e-9)
    assert last.settled.startswith("exploitability")
    assert last.exploitability.low <= 0 or last.exploitability.mean < 1e-9


@dataclass(frozen=True)
class Lucky(GivenGame):
    """An attacker whose search finds a column by luck."""

    def attack(self, models, seed, fresh=False):
        return f"column {seed % 50}"


def test_the_best_of_several_seeds_judges_and_their_spread_is_told():
    """The defender's reply is exact, so that seeds differ in what the attacker gains, or stays."""
    payoffs = GAMES["random"]
    spreads = []
    for each in double_oracle(Lucky(payoffs), "uniform", 6, 1e-9, seeds=4):
        found = [alone.mean for alone in each.by_seed]
        assert len(found) == 4
        assert each.exploitability.mean == pytest.approx(max(found), abs=1e-12)
        mean = sum(found) / 4
        spread = math.sqrt(sum((one - mean) ** 2 for one in found) / 3)
        assert each.between_seeds == pytest.approx(spread, abs=1e-12)
        spreads.append(spread)
    assert max(spreads) > 0.01


def test_one_seed_is_the_first_of_several_and_has_no_spread():
    alone = double_oracle(Lucky(GAMES["random"]), "uniform", 4, 1e-9)
    several = double_oracle(Lucky(GAMES["random"]), "uniform", 4, 1e-9, seeds=3)
    for one, many in zip(alone, several, strict=True):
        assert one.by_seed == (one.exploitability,) == many.by_seed[:1]
        assert one.between_seeds is None


# What noise does --------------------------------------------------------------------------------


def part(payoffs):
    payoffs = np.asarray(payoffs, dtype=float)
    names = [
        [f"{what} {i}" for i in range(n)] for what, n in zip("da", payoffs.shape, strict=False)
    ]
    costs = {"attacker": payoffs, "defender": -payoffs}
    return EmpiricalGame(tuple(names[0]), tuple(names[1]), (None,) * len(names[1]), costs)


@pytest.mark.parametrize("examples", [100, 400])
def test_the_floor_is_what_sampling_alone_shows(examples, monkeypatch):
    """One model, two attacks of equal payoff, coins: by hand.

    On one half the attack that seems better is chosen; on the other it is worse than its rival by
    |difference| half of the time. The difference of two means of n/2 fair coins is normal with
    variance 2 (1/4) / (n/2) = 1/n, its mean absolute value sqrt(2 / (pi n)).
    """
    checked = itertools.count()

    def least(meta, payoffs):
        """The equilibrium of a game of one row, without the linear program of each of 6,000."""
        found = np.ones(1), np.eye(2)[payoffs[0].argmin()]
        if payoffs[0, 0] != payoffs[0, 1] and next(checked) < 100:
            np.testing.assert_allclose(found[1], mixtures(meta, payoffs)[1], atol=1e-9)
        return found

    monkeypatch.setattr("arena.empirical.double_oracle.mixtures", least)
    generator = np.random.default_rng(0)
    found = [
        noise_floor(generator.integers(0, 2, (1, 2, examples)).astype(float), "nash", seed)
        for seed in range(300)
    ]
    assert next(checked) >= 100
    expected = math.sqrt(2 / (math.pi * examples)) / 2
    assert np.mean(found) == pytest.approx(expected, rel=0.12)


def test_the_interval_of_a_gain_covers_it():
    """A model of payoff .5, an attack of .5 and one of .3: the second gains .2."""
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(400):
        wide = part(generator.random((1, 2, 200)) < np.array([0.5, 0.3])[None, :, None])
        found = judge(
            wide, wide.part(attacks=["a 0"]), np.ones(1), np.ones(1), Halves.of(200, seed)
        )
        covered += found.attacker_gain.low <= 0.2 <= found.attacker_gain.high
    assert covered / 400 == pytest.approx(0.95, abs=0.03)


def test_gains_are_paired_by_example():
    """The second attack takes exactly .25 more of every example, whose payoffs vary."""
    base = np.random.default_rng(0).random((1, 1, 50))
    wide = part(np.concatenate([base, base - 0.25], axis=1))
    found = judge(wide, wide.part(attacks=["a 0"]), np.ones(1), np.ones(1), Halves.of(50, 0))
    assert found.attacker_gain.mean == pytest.approx(0.25)
    assert found.attacker_gain.half == pytest.approx(0.0, abs=1e-12)
    assert found.replies == ("stay", "a 1")
    assert found.defender_gain.mean == found.defender_gain.half == 0.0


def test_replies_are_chosen_on_one_half_and_judged_on_the_other():
    halves = Halves.of(100, 7)
    assert sorted([*halves.chosen_on, *halves.judged_on]) == list(range(100))
    payoffs = np.zeros((1, 2, 100))
    payoffs[0, 1, halves.chosen_on] = -1.0  # an attack that is good where it is chosen alone
    wide = part(payoffs)
    found = judge(wide, wide.part(attacks=["a 0"]), np.ones(1), np.ones(1), halves)
    assert found.replies[1] == "a 1" and found.attacker_gain.mean == 0.0


# What is secured --------------------------------------------------------------------------------


def test_a_mixture_secures_the_value_of_matching_pennies_and_no_model_does():
    oracles = GivenGame(GAMES["matching pennies"])
    commitments = {
        "row 0": {"row 0": 1.0},
        "row 1": {"row 1": 1.0},
        "both": {"row 0": 0.5, "row 1": 0.5},
    }
    found = secured(oracles, commitments)
    assert {name: payoff.tolist() for name, payoff in found.items()} == {
        "row 0": [-1.0],
        "row 1": [-1.0],
        "both": [0.0],
    }


def test_an_attacker_who_chooses_for_every_example_takes_more():
    """Alone, column 0 is best against row 0 and column 1 against row 1: both are dealt."""
    u = np.array([[[0.0, 1.0], [1.0, 0.2]], [[1.0, 1.0], [1.0, 0.0]]])
    commitments = {"0": {"row 0": 1.0}, "1": {"row 1": 1.0}, "mixed": {"row 0": 0.5, "row 1": 0.5}}
    found = secured(GivenGame(u), commitments)
    assert found["0"].tolist() == [0.0, 0.2]
    assert found["1"].tolist() == [1.0, 0.0]
    # Column 0 leaves (.5, 1) and column 1 (1, .1): .55 at least to who plays one for all.
    assert found["mixed"].tolist() == pytest.approx([0.5, 0.1])


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [{"tolerance": 0.0}, {"tolerance": -1.0}, {"iterations": 0}])
def test_tolerance_and_iterations_are_above_zero(bad):
    with pytest.raises(ValueError, match="must be above 0"):
        next(double_oracle(GivenGame(GAMES["random"]), **bad))


@dataclass(frozen=True)
class Priced(GivenGame):
    """The attacker pays for moving: not zero-sum."""

    def costs(self, model, attack):
        found = super().costs(model, attack)
        return found | {"attacker": found["attacker"] + 0.1}


def test_a_game_that_is_not_zero_sum_is_refused():
    with pytest.raises(ValueError, match="costs do not sum to 0"):
        next(double_oracle(Priced(GAMES["random"])))


@pytest.mark.parametrize("bad", [{"a": 0.5}, {}, {"a": 1.5, "b": -0.5}, {"a": float("nan")}])
def test_what_is_no_mixture_is_refused(bad):
    with pytest.raises(ValueError, match="sum to 1"):
        checked(bad)
    with pytest.raises(ValueError, match="sum to 1"):
        GivenGame(GAMES["random"]).attack(bad, 0)


def test_cells_know_their_names():
    u = np.arange(6.0).reshape(2, 3)
    game = crossed(GivenGame(u), {"row 1": "model"}, {"column 2": "one", "column 0": "two"})
    assert game.models == ("model",) and game.attacks == ("one", "two")
    assert game.payoffs("defender")[0, :, 0].tolist() == [5.0, 3.0]
