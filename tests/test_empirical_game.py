"""The payoff tensor: what it is made of, and what it refuses."""

import numpy as np
import pytest

from arena.empirical.game import EmpiricalGame


def game(cost=None, **changes):
    if cost is None:
        # Two models, three attacks (two of them crafted), four examples.
        cost = np.zeros((2, 3, 4), dtype=np.int8)
        cost[0, 1], cost[1, 2] = (1, 1, 1, 0), (0, 1, 1, 1)
    given = {
        "models": ("plain", "trained"),
        "attacks": ("clean", "pgd on plain", "pgd on trained"),
        "against": (None, "plain", "trained"),
        "costs": {"attacker": -cost, "defender": cost},
    }
    return EmpiricalGame(**given | changes)


def test_payoffs_are_minus_costs_and_keep_the_examples():
    assert game().payoffs("defender")[0, 1].tolist() == [-1, -1, -1, 0]
    assert game().payoffs("attacker")[0, 1].tolist() == [1, 1, 1, 0]
    assert not np.signbit(game().payoffs("defender")[0, 1, 3])


def test_zero_sum_is_found_out():
    cost = game().costs["defender"]
    assert game().zero_sum
    priced = {"attacker": 0.1 - cost, "defender": cost}
    assert not game(costs=priced).zero_sum


def test_a_part_keeps_names_with_their_cells():
    part = game().part(models=["trained"], attacks=["pgd on trained", "pgd on plain"])
    assert part.against == ("trained", None)
    assert part.payoffs("defender")[0].tolist() == [[0, -1, -1, -1], [0, 0, 0, 0]]


def test_examples_can_be_chosen():
    half = game(most=np.ones((2, 4))).on(slice(0, 2))
    assert half.examples == 2
    assert half.most.shape == (2, 2)
    assert half.payoffs("defender")[0, 1].tolist() == [-1, -1]


def test_a_missing_cell_is_named_where_payoffs_are_asked_for_and_the_rest_is_kept():
    cost = game().costs["defender"].astype(float)
    cost[0, 2] = np.nan
    holed = game(cost, missing={("plain", "pgd on trained"): "out of memory"})
    assert holed.zero_sum
    with pytest.raises(ValueError, match=r"1 of 6 cells.*pgd on trained on plain.*out of memory"):
        holed.payoffs("defender")
    assert holed.part(attacks=["clean", "pgd on plain"]).payoffs("defender").shape == (2, 2, 4)


def test_what_does_not_fit_is_refused():
    cost = game().costs["defender"]
    with pytest.raises(ValueError, match="each used once"):
        game(models=("plain", "plain"))
    with pytest.raises(ValueError, match="against needs"):
        game(against=(None, "plain", "other"))
    with pytest.raises(ValueError, match="against needs"):
        game(against=(None, "plain"))
    with pytest.raises(ValueError, match="give the costs of"):
        game(costs={"defender": cost})
    with pytest.raises(ValueError, match="the same examples for both"):
        game(costs={"attacker": -cost[:, :, :2], "defender": cost})
    with pytest.raises(ValueError, match=r"\[models, attacks, examples\]"):
        game(cost[:, :2])
    with pytest.raises(ValueError, match="is not in the game"):
        game(missing={("plain", "square"): "why"})
    with pytest.raises(ValueError, match=r"pgd on plain on trained is not finite"):
        broken = cost.astype(float)
        broken[1, 1, 2] = np.nan
        game(broken)
    with pytest.raises(ValueError, match="not among"):
        game().part(models=["other"])


def test_a_refuted_certificate_is_refused():
    most = np.ones((2, 4), dtype=np.int8)
    most[0, 3] = 0
    assert game(most=most).most is not None
    most[1, 3] = 0
    with pytest.raises(ValueError, match=r"pgd on trained costs trained 1 on example 3.*at most 0"):
        game(most=most)
    with pytest.raises(ValueError, match="most has shape"):
        game(most=most[:, :2])
