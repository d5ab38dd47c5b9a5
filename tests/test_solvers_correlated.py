"""Correlated equilibria: closed forms and inclusions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena.solvers import published
from arena.solvers.bimatrix import all_equilibria
from arena.solvers.correlated import coarse_correlated, correlated
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correlated(CHICKEN, CHICKEN, [[1.0]]), r"shape \(2, 2\), not \(1, 1\)"),
        (lambda: correlated(CHICKEN, CHICKEN, CHICKEN * np.nan), r"objective\[0, 0\] is nan"),
        (lambda: coarse_correlated(CHICKEN, [[1.0]], CHICKEN), "one shape"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
