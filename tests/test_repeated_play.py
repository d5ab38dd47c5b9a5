"""Repeated play in exact games: who goes round, who converges, who forgets."""

import itertools

import numpy as np
import pytest

from arena.empirical.double_oracle import Halves
from arena.empirical.oracles import GivenGame
from arena.empirical.repeated_play import forgetting, period, repeated_play
from arena.solvers.dynamics import orbit
from arena.solvers.zero_sum import certified, solve
from arena.studies.repeated_play import MEMORIES, side_by_side

PENNIES = np.array([[1.0, -1.0], [-1.0, 1.0]])
ROCK = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
RANDOM = np.random.default_rng(3).random((20, 20))
EXACT = Halves.of(1, 0)


def played(payoffs, memory, rounds):
    return list(itertools.islice(repeated_play(GivenGame(payoffs), memory, EXACT), rounds))


def number(name):
    return int(name.split()[1])


def gaps(payoffs, rounds):
    """The exploitability, in the whole game, of each round's standing mixtures."""
    found = []
    for each in rounds:
        row, column = np.zeros(payoffs.shape[0]), np.zeros(payoffs.shape[1])
        for whole, mixture in ((row, each.models), (column, each.attacks)):
            for name, weight in mixture.items():
                whole[number(name)] += weight
        found.append(certified(payoffs, row, column).gap)
    return np.array(found)


def cross_play(payoffs, rounds):
    rows, columns = ([number(getattr(e, k)) for e in rounds] for k in ("model", "attack"))
    return payoffs[np.ix_(rows, columns)][:, :, None]


def cycle(rounds):
    """The moves that come back exactly."""
    return orbit((each.model, each.attack) for each in rounds)[1]


def test_the_attacker_answers_the_past_and_the_defender_the_attacker():
    """Rock, and scissors... the row player beats what the column player has just played."""
    rounds = played(ROCK, "memoryless", 4)
    moves = [(number(each.attack), number(each.model)) for each in rounds]
    # 0 rock, 1 paper, 2 scissors. Each attack beats the model before, each model the attack.
    assert moves == [(0, 0), (1, 2), (0, 1), (2, 0)]


@pytest.mark.parametrize(("payoffs", "expected"), [(PENNIES, 2), (ROCK, 3)])
def test_the_memoryless_go_round_for_ever(payoffs, expected):
    rounds = played(payoffs, "memoryless", 14)
    assert len(cycle(rounds)) == expected
    assert period(cross_play(payoffs, rounds)) == expected
    assert gaps(payoffs, rounds).min() > 1.0


@pytest.mark.parametrize("payoffs", [PENNIES, ROCK, RANDOM], ids=["pennies", "rock", "random"])
def test_who_remembers_all_converges(payoffs):
    """In its averages: what it plays goes round too, for ever longer."""
    rounds = played(payoffs, "fictitious", 400)
    found = gaps(payoffs, rounds)
    assert found[-1] < 0.1 * found[0]


@pytest.mark.parametrize("payoffs", [PENNIES, ROCK, RANDOM], ids=["pennies", "rock", "random"])
def test_who_answers_nash_mixtures_ends_in_the_equilibrium(payoffs):
    rounds = played(payoffs, "double_oracle", 25)
    assert gaps(payoffs, rounds)[-1] < 1e-9
    row = np.zeros(len(payoffs))
    for name, weight in rounds[-1].models.items():
        row[number(name)] += weight
    assert (row @ payoffs).min() == pytest.approx(solve(payoffs).value)


def test_a_rest_is_a_cycle_of_one():
    saddle = np.array([[3.0, 2.0], [1.0, 0.0]])
    assert len(cycle(played(saddle, "memoryless", 5))) == 1


def test_forgetting_of_the_memoryless_is_what_the_rules_say():
    """Rock-paper-scissors: the answer wins; a round later a draw, two a loss, three it is back."""
    found = forgetting(cross_play(ROCK, played(ROCK, "memoryless", 8)))
    assert [each.mean for each in found] == [0.0, -1.0, -2.0, 0.0, -1.0, -2.0, 0.0]


def test_forgetting_is_paired_by_example_and_leaves_the_opening_out():
    generator = np.random.default_rng(0)
    u = np.repeat(generator.random((1, 4, 30)), 4, 0)  # every model alike on an attack
    u[2, 1] -= 0.3
    u[3, 2] -= 0.1
    u[:, 0] += generator.random((4, 30))
    found = forgetting(u)
    assert [each.mean for each in found] == pytest.approx([0.0, -0.2, 0.0])
    assert max(each.half for each in found) < 1e-12


def test_noise_alone_has_no_period():
    generator = np.random.default_rng(0)
    told = [period(generator.integers(0, 2, (11, 11, 100)).astype(float)) for _ in range(200)]
    assert sum(each is not None for each in told) <= 10  # 5 %


def test_a_period_is_told_through_noise():
    truth = 0.5 + 0.3 * cross_play(ROCK, played(ROCK, "memoryless", 11))
    noisy = np.random.default_rng(0).random((11, 11, 200)) < truth
    assert period(noisy.astype(float)) == 3


def test_too_few_rounds_have_no_period():
    assert period(cross_play(PENNIES, played(PENNIES, "memoryless", 3))) is None


def test_side_by_side_all_moves_judge_each():
    oracles = GivenGame(ROCK)
    rounds = {memory: played(ROCK, memory, 10) for memory in MEMORIES}
    found = side_by_side(oracles, rounds, EXACT)
    for memory in MEMORIES:
        # All three moves of both players turn up, so exploitability is that in the whole game.
        gap = gaps(ROCK, rounds[memory])[:-1]
        assert [each.exploitability.mean for each in found[memory].judged] == pytest.approx(gap)
        assert np.array_equal(found[memory].payoffs, cross_play(ROCK, rounds[memory][:-1]))
