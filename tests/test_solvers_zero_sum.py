"""Zero-sum games: solved by hand, by laws, and where arithmetic is at its limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from arena.solvers import zero_sum
from arena.solvers.payoffs import mixture, span
from arena.solvers.published import blotto

GAMES = st.tuples(st.integers(1, 5), st.integers(1, 5)).flatmap(
    # Few distinct payoffs, so that ties, duplicates and singular games are common.
    lambda shape: arrays(float, shape, elements=st.integers(-3, 3).map(float))
)


@pytest.mark.parametrize(
    ("payoffs", "value", "row", "column"),
    [
        # Matching pennies.
        ([[1, -1], [-1, 1]], 0, [1 / 2, 1 / 2], [1 / 2, 1 / 2]),
        # An inspection (row 0) of a violation (column 0) brings 3/4, of none costs 1/2; a violation
        # unseen costs 1. The other is indifferent at 3/4 p - (1 - p) = -p / 2.
        ([[3 / 4, -1 / 2], [-1, 0]], -2 / 9, [4 / 9, 5 / 9], [2 / 9, 7 / 9]),
        # Rock beats scissors for 2: Ay = 0 where -y1 + 2 y2 = 0 and y0 = y2.
        ([[0, -1, 2], [1, 0, -1], [-2, 1, 0]], 0, [1 / 4, 1 / 2, 1 / 4], [1 / 4, 1 / 2, 1 / 4]),
        # One guard, targets worth 1 and 2: guarded with 1/3 and 2/3, each attack takes 2/3.
        ([[0, -2], [-1, 0]], -2 / 3, [1 / 3, 2 / 3], [2 / 3, 1 / 3]),
        # A saddle.
        ([[3, 1, 2], [0, 0, 5]], 1, [1, 0], [0, 1, 0]),
        ([[4]], 4, [1], [1]),
        ([[4, 2, 7]], 2, [1], [0, 1, 0]),
        ([[4], [2], [7]], 7, [0, 0, 1], [1]),
    ],
)
def test_games_solved_by_hand(payoffs, value, row, column):
    found = zero_sum.solve(payoffs)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.row == pytest.approx(row, abs=1e-12)
    assert found.column == pytest.approx(column, abs=1e-12)
    assert found.gap == pytest.approx(0, abs=1e-12)


def test_colonel_blotto_against_three_regiments():
    found = zero_sum.solve(blotto(4, 3))
    assert found.value == pytest.approx(14 / 9)
    # By hand: these secure 14/9 and concede no more.
    assert (np.array([4, 0, 1, 0, 4]) / 9 @ blotto(4, 3)).min() == pytest.approx(14 / 9)
    assert (blotto(4, 3) @ np.array([1, 8, 8, 1]) / 18).max() == pytest.approx(14 / 9)


@settings(max_examples=20)
@given(GAMES)
def test_nobody_gains_by_deviating_and_the_bracket_holds_the_value(payoffs):
    found = zero_sum.solve(payoffs)
    mixture(found.row, payoffs.shape[0])
    mixture(found.column, payoffs.shape[1])
    assert found.gap <= 1e-9 * span(payoffs)
    assert found.low <= (found.row @ payoffs).min() + 1e-12
    assert found.high >= (payoffs @ found.column).max() - 1e-12
    pure = payoffs.min(1).max(), payoffs.max(0).min()
    assert pure[0] - 1e-9 <= found.value <= pure[1] + 1e-9


@settings(max_examples=20)
@given(GAMES, st.randoms(use_true_random=False))
def test_relabelling_affine_changes_and_changing_sides(payoffs, random):
    value = zero_sum.solve(payoffs).value
    rows, columns = list(range(payoffs.shape[0])), list(range(payoffs.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    assert zero_sum.solve(payoffs[rows][:, columns]).value == pytest.approx(value, abs=1e-8)
    assert zero_sum.solve(3 * payoffs - 7).value == pytest.approx(3 * value - 7, abs=1e-8)
    assert zero_sum.solve(-payoffs.T).value == pytest.approx(-value, abs=1e-8)


@settings(max_examples=20)
@given(GAMES)
def test_a_strictly_dominated_strategy_gets_no_mass(payoffs):
    worse = np.vstack([payoffs, payoffs[:1] - 0.5])
    found = zero_sum.solve(worse)
    assert found.row[-1] == 0
    assert found.value == pytest.approx(zero_sum.solve(payoffs).value, abs=1e-8)


@settings(max_examples=20)
@given(GAMES)
def test_a_further_action_never_hurts_and_a_copy_changes_nothing(payoffs):
    value = zero_sum.solve(payoffs).value
    more = np.vstack([payoffs, payoffs[::-1].mean(0) ** 2])
    assert zero_sum.solve(more).value >= value - 1e-8
    copied = np.hstack([payoffs, payoffs])
    assert zero_sum.solve(copied).value == pytest.approx(value, abs=1e-8)


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e9, 1e300])
@pytest.mark.parametrize("shift", [0, 5])
def test_payoffs_of_any_scale(scale, shift):
    payoffs = np.array([[0.0, -1, 2], [1, 0, -1], [-2, 1, 0]]) + shift
    found = zero_sum.solve(scale * payoffs)
    assert found.value / scale == pytest.approx(shift, abs=1e-9)
    assert found.row == pytest.approx([1 / 4, 1 / 2, 1 / 4])
    assert found.gap / scale <= 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_an_offset_far_above_the_span_changes_nothing_but_the_value(seed):
    """The sums are exact: 2^45 and small whole numbers, a span of 6e-12 of the offset."""
    payoffs = np.random.default_rng(seed).integers(-100, 101, (4, 5)).astype(float)
    plain, moved = zero_sum.solve(payoffs), zero_sum.solve(2.0**45 + payoffs)
    assert moved.row == pytest.approx(plain.row, abs=1e-12)
    assert moved.column == pytest.approx(plain.column, abs=1e-12)
    assert moved.gap <= 1e-9 * span(payoffs)
    assert moved.value - 2.0**45 == pytest.approx(plain.value, abs=2.0**-7)  # its last digit


def test_payoffs_of_very_different_sizes_are_solved_to_the_gap_that_is_reported():
    # By hand: value 1 / (1 + 1e9), far below any tolerance that is absolute.
    found = zero_sum.solve([[1, 0], [0, 1e-9]])
    assert abs(found.value - 1 / (1 + 1e9)) <= found.gap / 2 + 1e-25


@pytest.mark.parametrize(
    ("payoffs", "message"),
    [
        ([[1.0, np.nan]], r"payoffs\[0, 1\] is nan: fill it or drop its move"),
        ([[1.0], [np.inf]], r"payoffs\[1, 0\] is inf"),
        ([[1.0, 2.0], [3.0]], "ragged"),
        ([1.0, 2.0], "2 axes"),
        ([[]], "none empty"),
        ([[1e308, -1e308]], "rescale"),
    ],
)
def test_what_is_not_a_game_is_refused(payoffs, message):
    with pytest.raises(ValueError, match=message):
        zero_sum.solve(payoffs)


def test_large_games_are_iterated_to_the_gap_asked_for():
    payoffs = np.random.default_rng(0).random((150, 200))
    found, exact = zero_sum.solve(payoffs, 1e-3), zero_sum.solve(payoffs)
    assert 1e-6 < found.gap <= 1e-3  # not the linear program's
    assert exact.gap < 1e-9
    assert found.low - 1e-9 <= exact.value <= found.high + 1e-9
    scaled = zero_sum.solve(1e9 * payoffs - 3, 1e6)
    assert scaled.gap <= 1e6
    assert np.array_equal(zero_sum.solve(payoffs, 1e-3).row, found.row)


def test_what_an_iteration_does_not_reach_is_said_or_solved_exactly():
    payoffs = np.random.default_rng(1).random((150, 150))
    assert zero_sum.iterated(payoffs, 1e-12, steps=20).gap > 1e-12
    with pytest.raises(ValueError, match="tolerance must be above 0"):
        zero_sum.solve(payoffs, 0.0)
    with pytest.raises(ValueError, match="at least 1"):
        zero_sum.iterated(payoffs, 1e-3, steps=0)


def test_a_tolerance_that_iterations_miss_falls_back_on_the_program(monkeypatch):
    monkeypatch.setattr(zero_sum, "_STEPS", 5)
    payoffs = np.random.default_rng(1).random((150, 150))
    assert zero_sum.solve(payoffs, 1e-6).gap <= 1e-6
