"""Quantal responses: closed forms, residuals, and the branch followed through turns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena.solvers.published import CHICKEN, PENNIES
from arena.solvers.quantal import quantal_response, quantal_responses
from arena.solvers.zero_sum import solve


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


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_units_do_not_matter(scale):
    row, column = CHICKEN
    response = quantal_response(scale * row, scale * column, 2 / scale)
    assert response.row == pytest.approx(quantal_response(row, column, 2).row)


@pytest.mark.parametrize(("seed", "size"), [(26, (5, 6)), (36, (5, 6)), (69, (4, 4))])
def test_a_branch_that_grows_steeper_within_a_step_is_not_overshot(seed, size):
    """The tangent stops short of rationality 5, the branch passes it."""
    a, b = np.random.default_rng(seed).integers(0, 4, (2, *size)).astype(float)
    *_, found = quantal_responses(a, b, [0, 0.05, 0.5, 5])
    assert found.residual <= 1e-9
    assert found.row == pytest.approx(softmax(5 * (a @ found.column)), abs=1e-9)


@pytest.mark.parametrize(("seed", "size"), [(168, (5, 5)), (377, (4, 4))])
def test_a_tight_turn_does_not_send_the_branch_back(seed, size):
    """A step across both arms of the turn sees the same tangent on each, but for its sign."""
    a, b = np.random.default_rng(seed).random((2, *size))
    assert quantal_response(a, b, 50).residual <= 1e-9


@pytest.mark.parametrize("seed", [1, 5, 9, 28, 34, 66])
def test_short_steps_follow_the_same_branch(seed):
    """In games of coordination, which have many equilibria and turns, that long steps may miss."""
    a = np.random.default_rng(seed).integers(0, 4, (4, 5)).astype(float)
    *_, step_by_step = quantal_responses(a, a, np.linspace(0, 10, 400))
    assert quantal_response(a, a, 10).row == pytest.approx(step_by_step.row, abs=1e-9)


@pytest.mark.parametrize("rationality", [1.0, 2.0, 50.0])
def test_a_symmetric_branch_goes_straight_through_its_bifurcation(rationality):
    """At rationality 2 two more branches leave it: those of the pure equilibria."""
    found = quantal_response(np.eye(2), np.eye(2), rationality)
    assert found.row == pytest.approx([0.5, 0.5])
    assert found.column == pytest.approx([0.5, 0.5])


def test_what_is_not_reached_is_said_in_the_units_asked(monkeypatch):
    monkeypatch.setattr("arena.solvers.quantal._STEPS", 3)
    with pytest.raises(ArithmeticError, match=r"3 steps .* did not reach rationality 7e"):
        quantal_response(PENNIES / 1e9, -PENNIES / 1e9, 7e9)


@pytest.mark.parametrize(
    ("rationalities", "message"),
    [
        ([-1.0], r"at least 0 and finite, not \[-1"),
        ([np.inf], "at least 0 and finite"),
        ([2, 1], "must be ascending"),
    ],
)
def test_bad_input_is_refused(rationalities, message):
    with pytest.raises(ValueError, match=message):
        next(quantal_responses(PENNIES, -PENNIES, rationalities))
