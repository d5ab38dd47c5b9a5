"""General-sum games: published ones, played as costs."""

import numpy as np
import pytest
from test_empirical_values import PENNIES, SPLIT

from arena.empirical.game import EmpiricalGame
from arena.empirical.general_sum import against_types, general_sum
from arena.solvers.published import BAGWELL, CONITZER_SANDHOLM, INSPECTION


def played(payoffs, examples=4):
    """A game whose every example pays these [D, A]."""
    defender, attacker = (np.repeat(-each[:, :, None], examples, 2) for each in payoffs)
    models, attacks = (tuple(f"{w}{i}" for i in range(n)) for w, n in (("m", 2), ("a", 2)))
    costs = {"defender": defender, "attacker": attacker}
    return EmpiricalGame(models, attacks, (None,) * 2, costs)


def outcomes(game):
    return {outcome.name: outcome for outcome in general_sum([game]).outcomes}


def test_commitment_pays_as_published():
    found = outcomes(played(CONITZER_SANDHOLM))
    assert found["equilibrium 1 of 1"].defender.mean == pytest.approx(2)
    assert found["defender commits, pure, ties for it"].defender.mean == pytest.approx(3)
    mixed = found["defender commits, mixed, ties for it"]
    assert mixed.defender.mean == pytest.approx(3.5)
    assert mixed.profiles == pytest.approx(np.array([[0, 0.5], [0, 0.5]]))
    weak = found["defender commits, mixed, ties against it"]
    assert weak.defender.mean == pytest.approx(3.5) and not weak.attained


def test_commitment_deters():
    found = outcomes(played(INSPECTION))
    assert found["equilibrium 1 of 1"].defender.mean == pytest.approx(-3 / 2)
    assert found["defender commits, mixed, ties for it"].defender.mean == pytest.approx(-1 / 3)


def test_the_attacker_may_lead_too():
    """Bagwell's duopoly with the players' seats changed."""
    row, column = BAGWELL
    found = outcomes(played((column.T, row.T)))
    assert found["attacker commits, pure, ties for it"].attacker.mean == pytest.approx(5)


def test_mediators_are_between_equilibria_and_commitments():
    found = outcomes(played(INSPECTION))
    nash = found["equilibrium 1 of 1"].defender.mean
    obeyed = found["correlated, best for the defender"].defender.mean
    coarse = found["coarse correlated, best for the defender"].defender.mean
    committed = found["defender commits, mixed, ties for it"].defender.mean
    assert nash - 1e-9 <= obeyed <= committed + 1e-9
    assert obeyed - 1e-9 <= coarse


def test_a_zero_sum_game_has_one_value():
    found = general_sum([PENNIES])
    for outcome in found.outcomes:
        if "pure" not in outcome.name:
            assert outcome.defender.mean == pytest.approx(-0.5), outcome.name
            assert outcome.attacker.mean == pytest.approx(0.5)
    assert not found.degenerate and found.refusal is None


def test_a_large_game_says_why_it_has_no_list_of_equilibria():
    cost = np.random.default_rng(0).random((12, 12, 2))
    names = tuple(map(str, range(12)))
    costs = {"defender": cost, "attacker": -cost}
    found = general_sum([EmpiricalGame(names, names, (None,) * 12, costs)])
    assert "candidate vertices" in found.refusal
    assert not any("equilibrium" in outcome.name for outcome in found.outcomes[:1])
    assert len(found.outcomes) == 14


def test_payoffs_have_intervals_over_examples():
    (first, *_) = general_sum([SPLIT]).outcomes
    # Half of the defender's loss falls on each example.
    assert first.defender.mean == pytest.approx(-0.25)
    assert first.defender.half == pytest.approx(0, abs=1e-9)


def test_a_user_who_is_an_attacker_at_times():
    """By hand: model 0 never errs on clean inputs, always under attack; model 1 errs on .2 always.

    With a share w of attackers model 0 loses w, model 1 .2: switch at w = .2.
    """
    cost = np.zeros((2, 2, 5), dtype=np.int8)
    cost[0, 1] = 1
    cost[1, :, 0] = 1
    costs = {"defender": cost, "attacker": -cost}
    game = EmpiricalGame(("plain", "trained"), ("clean", "pgd"), (None, None), costs)
    can = {"honest": ["clean"], "attacker": ["clean", "pgd"]}
    for share, best, loss in ((0.1, [1, 0], 0.1), (0.3, [0, 1], 0.2)):
        found = against_types([game], {"honest": 1 - share, "attacker": share}, can)
        assert found.models == pytest.approx(best)
        assert found.defender.mean == pytest.approx(-loss)
        assert found.replies["honest"] == "clean"
    assert against_types([game], {"honest": 0.9, "attacker": 0.1}, can).replies["attacker"] == "pgd"


def test_types_must_match():
    with pytest.raises(ValueError, match=r"weights of \['honest'\], but attacks of \['other'\]"):
        against_types([PENNIES], {"honest": 1.0}, {"other": ["a0"]})
    with pytest.raises(ValueError, match="not among"):
        against_types([PENNIES], {"honest": 1.0}, {"honest": ["clean"]})
    with pytest.raises(ValueError, match="sum to 1"):
        against_types([PENNIES], {"honest": 0.5}, {"honest": ["a0"]})
