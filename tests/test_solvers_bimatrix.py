"""All Nash equilibria: of games in the literature, with ties, and by laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena.solvers.bimatrix import all_equilibria
from arena.solvers.published import (
    BAGWELL,
    BATTLE_OF_THE_SEXES,
    INSPECTION,
    SHAPLEY,
    VON_STENGEL,
    bagwell,
)
from arena.solvers.stackelberg import mixed_commitment
from arena.solvers.zero_sum import solve

GAMES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6)).map(
    # Few distinct payoffs, so that most games are degenerate.
    lambda drawn: np.random.default_rng(drawn[2]).integers(0, 3, (2, *drawn[:2])).astype(float)
)


def listed(found):
    """Equilibria as a set of rounded mixtures."""
    return {tuple(np.round([*one.row, *one.column], 6) + 0.0) for one in found.extreme}


def points(found):
    """Components that are single equilibria."""
    return [c for c in found.components if len(c) == 1 and len(c[0].rows) == len(c[0].columns) == 1]


def test_battle_of_the_sexes_has_three():
    found = all_equilibria(*BATTLE_OF_THE_SEXES)
    expected = {(1, 0, 1, 0), (0, 1, 0, 1), (0.666667, 0.333333, 0.333333, 0.666667)}
    assert listed(found) == expected
    assert not found.degenerate
    assert len(points(found)) == 3
    mixed = next(one for one in found.extreme if one.row[0] not in (0, 1))
    assert mixed.payoffs == pytest.approx((2 / 3, 2 / 3))


def test_the_prisoners_dilemma_and_shapleys_game_have_one():
    dilemma = np.array([[2.0, 0.0], [3.0, 1.0]])
    assert listed(all_equilibria(dilemma, dilemma.T)) == {(0, 1, 0, 1)}
    assert listed(all_equilibria(*SHAPLEY)) == {(0.333333,) * 6}


def test_von_stengels_example_with_three_equilibria():
    # von Stengel 2002, section 2, where the equilibria are listed.
    expected = {
        (0, 0, 1, 1, 0),
        (0, 0.333333, 0.666667, 0.666667, 0.333333),
        (0.666667, 0.333333, 0, 0.333333, 0.666667),
    }
    assert listed(all_equilibria(*VON_STENGEL)) == expected


def test_a_game_of_pure_coordination_has_two_to_the_n_less_one():
    found = all_equilibria(np.eye(4), np.eye(4))
    assert len(found.extreme) == 15
    assert not found.degenerate


def test_inspection_is_mixed():
    # As under leadership, but at once: 1/3 inspected, 1/2 violate, the inspector loses 3/2.
    (only,) = all_equilibria(*INSPECTION).extreme
    assert only.row == pytest.approx([1 / 3, 2 / 3])
    assert only.column == pytest.approx([1 / 2, 1 / 2])
    assert only.payoffs == pytest.approx((-1.5, 0))


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.2])
def test_bagwells_leader_loses_its_lead_to_the_slightest_noise(noise):
    # Bagwell 1995: Stackelberg or Cournot output; the follower sees the leader's, wrong at times.
    assert mixed_commitment(*BAGWELL).value >= 5  # seen exactly, Stackelberg is worth 5
    found = all_equilibria(*bagwell(noise))
    pure = [one for one in found.extreme if one.row.max() == one.column.max() == 1]
    # The signal tells nothing of a leader who is known: only Cournot, answered by Cournot.
    assert [(one.row.tolist(), one.column.tolist()) for one in pure] == [([0, 1], [0, 0, 0, 1])]
    assert pure[0].payoffs == (4, 4)
    # Two mixed ones besides (van Damme & Hurkens 1997); noise multiplies equilibria. In one the
    # leader mostly plays S: the follower, having seen C, is indifferent at Pr(S | C) = 1/2.
    assert len(found.extreme) == 3
    noble = max(found.extreme, key=lambda one: one.row[0])
    assert noble.row[0] == pytest.approx(1 - noise)
    assert noble.payoffs[0] == pytest.approx(5, abs=10 * noise)


def test_a_tie_makes_a_segment():
    found = all_equilibria([[1, 1], [0, 0]], [[1, 1], [0, 0]])
    assert found.degenerate
    assert listed(found) == {(1, 0, 1, 0), (1, 0, 0, 1)}
    ((segment,),) = found.components
    assert segment.rows.tolist() == [[1, 0]]
    assert sorted(segment.columns.tolist()) == [[0, 1], [1, 0]]


def test_a_constant_game_is_one_component_of_everything():
    found = all_equilibria(np.zeros((2, 3)), np.zeros((2, 3)))
    ((everything,),) = found.components
    assert (len(everything.rows), len(everything.columns)) == (2, 3)
    assert len(found.extreme) == 6


def test_subsets_that_touch_are_one_component():
    # The row player never minds; the column player prefers column 0 to the extent of row 0. At row
    # 1 it is indifferent: (any row, column 0) and (row 1, any column) meet in (row 1, column 0).
    found = all_equilibria(np.zeros((2, 2)), [[1, 0], [0, 0]])
    (component,) = found.components
    assert sorted((len(s.rows), len(s.columns)) for s in component) == [(1, 2), (2, 1)]


def test_offsets_far_above_the_span_change_no_equilibrium():
    """The sums are exact: 2^45 and small whole numbers, spans of 6e-12 of the offset."""
    for seed in range(5):
        a, b = np.random.default_rng(seed).integers(-100, 101, (2, 4, 5)).astype(float)
        plain, moved = all_equilibria(a, b), all_equilibria(a + 2.0**45, b - 2.0**45)
        assert listed(moved) == listed(plain)
        assert max(one.regret for one in moved.extreme) <= 1e-9


@settings(max_examples=30)
@given(GAMES, st.randoms(use_true_random=False))
def test_no_profitable_deviation_anywhere_in_any_subset(game, random):
    a, b = game
    found = all_equilibria(a, b)
    generator = np.random.default_rng(random.getrandbits(32))
    for subset in (subset for component in found.components for subset in component):
        x = generator.dirichlet(np.ones(len(subset.rows))) @ subset.rows
        y = generator.dirichlet(np.ones(len(subset.columns))) @ subset.columns
        assert x @ a @ y >= (a @ y).max() - 1e-8
        assert x @ b @ y >= (x @ b).max() - 1e-8
    assert max(one.regret for one in found.extreme) <= 1e-8
    # Every pure equilibrium is extreme.
    pure = np.argwhere((a == a.max(0)) & (b == b.max(1, keepdims=True)))
    rows, columns = np.eye(a.shape[0]), np.eye(a.shape[1])
    assert {(*rows[i], *columns[j]) for i, j in pure} <= listed(found)


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6))
def test_without_ties_the_number_is_odd(m, n, seed):
    found = all_equilibria(*np.random.default_rng(seed).random((2, m, n)))
    assert not found.degenerate
    assert len(found.extreme) % 2 == 1
    assert len(points(found)) == len(found.extreme)


@settings(max_examples=20)
@given(GAMES, st.randoms(use_true_random=False))
def test_relabelling_and_affine_changes(game, random):
    a, b = game
    before = listed(all_equilibria(a, b))
    assert listed(all_equilibria(1e9 * a - 7, 1e-9 * b)) == before
    rows, columns = list(range(a.shape[0])), list(range(a.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    moved = all_equilibria(a[rows][:, columns], b[rows][:, columns])
    back = {
        tuple(np.round([*one.row[np.argsort(rows)], *one.column[np.argsort(columns)]], 6) + 0.0)
        for one in moved.extreme
    }
    assert back == before
    swapped = all_equilibria(b.T, a.T)
    assert {one[a.shape[1] :] + one[: a.shape[1]] for one in listed(swapped)} == before


@settings(max_examples=20)
@given(GAMES)
def test_zero_sum_games_have_one_value_and_one_component(game):
    a = game[0]
    found = all_equilibria(a, -a)
    value = solve(a).value
    assert all(one.payoffs[0] == pytest.approx(value, abs=1e-8) for one in found.extreme)
    ((subset,),) = found.components  # equilibria of zero-sum games are interchangeable
    assert len(subset.rows) * len(subset.columns) == len(found.extreme)


@settings(max_examples=20)
@given(GAMES)
def test_a_commitment_is_worth_at_least_any_equilibrium(game):
    found = all_equilibria(*game)
    leader = mixed_commitment(*game).value
    assert leader >= max(one.payoffs[0] for one in found.extreme) - 1e-8


def test_a_strictly_dominated_strategy_gets_no_mass():
    a, b = np.random.default_rng(0).random((2, 3, 3))
    a[2] = a[0] - 0.1
    assert all(one.row[2] == 0 for one in all_equilibria(a, b).extreme)


def test_large_and_broken_games_are_refused():
    with pytest.raises(ValueError, match=r"12 x 12 game has 2704156 candidate vertices"):
        all_equilibria(np.eye(12), np.eye(12))
    with pytest.raises(ValueError, match=r"column player's payoffs\[0, 1\] is nan"):
        all_equilibria([[1, 2]], [[1, np.nan]])
    with pytest.raises(ValueError, match="one shape"):
        all_equilibria([[1, 2]], [[1], [2]])


def test_nashpy_finds_what_is_found_here():
    nashpy = pytest.importorskip("nashpy")
    for seed in range(10):
        a, b = np.random.default_rng(seed).random((2, 3, 4))
        theirs = nashpy.Game(a, b).vertex_enumeration()
        found = {tuple(np.round([*x, *y], 6) + 0.0) for x, y in theirs}
        assert found == listed(all_equilibria(a, b))
