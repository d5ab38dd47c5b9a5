"""Correlated equilibria and quantal responses: closed forms, inclusions and residuals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena.solvers import published
from arena.solvers.bimatrix import all_equilibria
from arena.solvers.correlated import (
    coarse_correlated,
    correlated,
    quantal_response,
    quantal_responses,
)
from arena.solvers.published import PENNIES
from arena.solvers.stackelberg import mixed_commitment
from arena.solvers.zero_sum import solve

CHICKEN = published.CHICKEN[0]
GAMES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6)).map(
    lambda drawn: np.random.default_rng(drawn[2]).integers(0, 4, (2, *drawn[:2])).astype(float)
)


def disobedience(p, a, b):
    """The most that a player gains by replacing one drawn action by another."""
    m, n = a.shape
    of_row = max(p[i] @ (a[k] - a[i]) for i in range(m) for k in range(m))
    of_column = max(p[:, j] @ (b[:, k] - b[:, j]) for j in range(n) for k in range(n))
    return max(of_row, of_column)


def refusal(p, a, b):
    """The most that a player gains by one action of its own instead of listening."""
    of_row = (a @ p.sum(0)).max() - (p * a).sum()
    of_column = (p.sum(1) @ b).max() - (p * b).sum()
    return max(of_row, of_column)


def test_chicken_with_a_mediator():
    found = correlated(CHICKEN, CHICKEN.T, CHICKEN + CHICKEN.T)
    assert found.distribution == pytest.approx(np.array([[0.5, 0.25], [0.25, 0]]))
    assert found.value == pytest.approx(10.5)  # the best equilibrium without one is worth 28 / 3
    best = max(sum(one.payoffs) for one in all_equilibria(CHICKEN, CHICKEN.T).extreme)
    assert best == pytest.approx(28 / 3)


@settings(max_examples=15)
@given(GAMES)
def test_nash_inside_correlated_inside_coarse_and_the_leader_above_correlated(game):
    a, b = game
    for objective in (a + b, a, -b):
        fine, coarse = correlated(a, b, objective), coarse_correlated(a, b, objective)
        nash = max(float(e.row @ objective @ e.column) for e in all_equilibria(a, b).extreme)
        assert nash - 1e-8 <= fine.value <= coarse.value + 1e-8
        assert disobedience(fine.distribution, a, b) <= 1e-8
        assert refusal(coarse.distribution, a, b) <= 1e-8
        assert fine.gain <= 1e-8
        assert coarse.gain <= 1e-8
        assert fine.value == pytest.approx(float((fine.distribution * objective).sum()))
    # von Stengel & Zamir 2010: a leader does at least as well as in any correlated equilibrium.
    assert mixed_commitment(a, b).value >= correlated(a, b, a).value - 1e-8


@settings(max_examples=15)
@given(GAMES)
def test_in_zero_sum_games_a_mediator_changes_nothing(game):
    a = game[0]
    value = solve(a).value
    for found in (correlated(a, -a, a), coarse_correlated(a, -a, a), correlated(a, -a, -a)):
        assert float((found.distribution * a).sum()) == pytest.approx(value, abs=1e-8)


def test_a_coarse_equilibrium_that_is_not_correlated():
    # Rock, paper, scissors with 1 for a win, 0 for a loss, 2/3 each for a draw. Drawing the same
    # action for both, uniformly, pays 2/3; refusing pays (2/3 + 1 + 0) / 3 = 5/9; disobeying 1.
    a = np.array([[2 / 3, 0, 1], [1, 2 / 3, 0], [0, 1, 2 / 3]])
    assert coarse_correlated(a, a.T, a + a.T).value == pytest.approx(4 / 3)
    assert correlated(a, a.T, a + a.T).value < 4 / 3 - 0.01


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_units_do_not_matter(scale):
    a = scale * CHICKEN
    found = correlated(a, CHICKEN.T - 3, a + a.T)
    assert found.value / scale == pytest.approx(10.5)
    response = quantal_response(a, CHICKEN.T * scale, 2 / scale)
    plain = quantal_response(CHICKEN, CHICKEN.T, 2)
    assert response.row == pytest.approx(plain.row)


def softmax(z):
    weights = np.exp(z - z.max())
    return weights / weights.sum()


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5), st.floats(0, 50))
def test_quantal_responses_answer_each_other(seed, m, n, rationality):
    a, b = np.random.default_rng(seed).random((2, m, n))
    found = quantal_response(a, b, rationality)
    assert found.row == pytest.approx(softmax(rationality * (a @ found.column)), abs=1e-9)
    assert found.column == pytest.approx(softmax(rationality * (found.row @ b)), abs=1e-9)
    assert found.residual <= 1e-9


def test_the_branch_is_the_same_wherever_one_stops_on_it():
    """Down to the rounding of Newton's method."""
    a, b = np.random.default_rng(3).random((2, 4, 5))
    stops = [0, 0, 0.5, 3, 40]
    for stop, found in zip(stops, quantal_responses(a, b, stops), strict=True):
        alone = quantal_response(a, b, stop)
        assert found.row == pytest.approx(alone.row, abs=1e-9)
        assert found.column == pytest.approx(alone.column, abs=1e-9)


def test_without_rationality_all_is_uniform_and_with_much_of_it_nash():
    a = np.array([[3.0, -1.0], [-1.0, 1.0]])
    none = quantal_response(a, -a, 0)
    assert none.row.tolist() == none.column.tolist() == [0.5, 0.5]
    much = quantal_response(a, -a, 1e6)
    nash = solve(a)
    assert much.row == pytest.approx(nash.row, abs=1e-5)
    assert much.column == pytest.approx(nash.column, abs=1e-5)
    assert much.residual <= 1e-8


def test_against_a_dominant_opponent_it_is_the_logit_formula():
    # The column player always gets the same, so it stays uniform, and the row player answers that.
    a = np.array([[1.0, 3.0], [0.0, 0.0]])
    found = quantal_response(a, np.zeros((2, 2)), 0.7)
    assert found.column == pytest.approx([0.5, 0.5])
    assert found.row[0] == pytest.approx(1 / (1 + np.exp(-0.7 * 2)))


def test_the_branch_of_a_coordination_game_goes_to_the_risk_dominant_equilibrium():
    # Both prefer to meet; 4 alone beats 3 met half of the time: the second action risk-dominates.
    a = np.array([[5.0, 0.0], [4.0, 3.0]])
    found = quantal_response(a, a.T, 50)
    assert found.row == pytest.approx([0, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correlated(CHICKEN, CHICKEN, [[1.0]]), r"shape \(2, 2\), not \(1, 1\)"),
        (lambda: correlated(CHICKEN, CHICKEN, CHICKEN * np.nan), r"objective\[0, 0\] is nan"),
        (lambda: coarse_correlated(CHICKEN, [[1.0]], CHICKEN), "one shape"),
        (lambda: quantal_response(PENNIES, -PENNIES, -1.0), r"at least 0 and finite, not \[-1"),
        (lambda: quantal_response(PENNIES, -PENNIES, np.inf), "at least 0 and finite"),
        (lambda: next(quantal_responses(PENNIES, -PENNIES, [2, 1])), "must be ascending"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
