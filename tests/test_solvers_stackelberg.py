"""Commitments: published and hand-solved games, ties either way, and the laws that rank them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena.solvers.published import CONITZER_SANDHOLM, INSPECTION
from arena.solvers.stackelberg import bayesian_commitment, mixed_commitment, pure_commitment
from arena.solvers.zero_sum import solve

LEADER, FOLLOWER = CONITZER_SANDHOLM

GAMES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6)).map(
    # Few distinct payoffs, so that ties are common.
    lambda drawn: np.random.default_rng(drawn[2]).integers(-2, 3, (2, *drawn[:2])).astype(float)
)


def pessimistic(mixture, a, b):
    """What the leader gets if ties are broken against it."""
    return (mixture @ a)[mixture @ b >= (mixture @ b).max() - 1e-9].min()


def test_conitzer_and_sandholm_figure_1():
    assert pure_commitment(LEADER, FOLLOWER).value == 3  # Down, answered by Right
    assert pure_commitment(LEADER, FOLLOWER).replies == (1,)
    strong = mixed_commitment(LEADER, FOLLOWER)
    assert strong.value == pytest.approx(3.5)
    assert strong.mixture == pytest.approx([0.5, 0.5])
    assert strong.replies == (1,)
    # A little more Down makes Right strictly better: 3.5 is approached, not attained.
    weak = mixed_commitment(LEADER, FOLLOWER, "weak")
    assert weak.value == pytest.approx(3.5)
    assert not weak.attained
    assert pessimistic(weak.mixture, LEADER, FOLLOWER) == pytest.approx(1.5)


def test_a_security_game_solved_by_hand():
    # One guard. Unguarded, target 0 costs the defender 1 and pays 1, target 1 costs 3 and pays 1;
    # guarded, nothing. The attacker is indifferent at half each, and in the defender's favour
    # attacks target 0, at -1/2; guarding it a little less makes it prefer that.
    a, b = np.array([[0.0, -3.0], [-1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    strong = mixed_commitment(a, b)
    assert strong.mixture == pytest.approx([0.5, 0.5])
    assert strong.value == pytest.approx(-0.5)
    weak = mixed_commitment(a, b, "weak")
    assert (weak.value, weak.attained) == (pytest.approx(-0.5), False)
    assert pure_commitment(a, b).value == -1
    assert pure_commitment(a, b).replies == (0,)


def test_inspection_under_leadership():
    # Inspecting costs 1; a violation seen pays the violator -2, unseen 1, and costs the inspector
    # 3 unseen, 1 seen (and the inspection). Inspecting a third of the time deters, at a cost of
    # 1/3. Without a commitment the same third is inspected, half violate, and 3/2 are lost.
    found = mixed_commitment(*INSPECTION)
    assert found.mixture == pytest.approx([1 / 3, 2 / 3])
    assert found.value == pytest.approx(-1 / 3)
    assert found.replies == (1,)


def test_pure_ties_are_broken_for_or_against_the_leader():
    a, b = [[0, 5], [2, 2]], [[1, 1], [0, 0]]
    assert pure_commitment(a, b, "strong").value == 5
    assert pure_commitment(a, b, "strong").replies == (1,)
    assert pure_commitment(a, b, "weak").value == 2
    assert pure_commitment(a, b, "weak").mixture.tolist() == [0, 1]


def test_weak_ties_where_the_follower_never_minds():
    # All replies are copies of each other: the pessimist plays the zero-sum game.
    pennies = np.array([[1.0, -1.0], [-1.0, 1.0]])
    weak = mixed_commitment(pennies, np.zeros((2, 2)), "weak")
    assert weak.value == pytest.approx(0)
    assert weak.attained
    assert mixed_commitment(pennies, np.zeros((2, 2))).value == pytest.approx(1)


def test_a_reply_that_is_best_only_at_ties_counts_for_the_optimist_alone():
    # The middle reply pays 1/2 whatever is done: best at half and half only, never alone.
    a, b = [[0, 9, 0], [0, 9, 0]], [[1, 0.5, 0], [0, 0.5, 1]]
    assert mixed_commitment(a, b, "strong").value == pytest.approx(9)
    assert mixed_commitment(a, b, "weak").value == pytest.approx(0)


@settings(max_examples=30)
@given(GAMES)
def test_mixed_beats_pure_strong_beats_weak_and_all_keep_their_word(game):
    a, b = game
    strong, weak = mixed_commitment(a, b), mixed_commitment(a, b, "weak")
    assert strong.value >= weak.value - 1e-9
    assert strong.value >= pure_commitment(a, b).value - 1e-9
    assert weak.value >= pure_commitment(a, b, "weak").value - 1e-9
    regret = (strong.mixture @ b).max() - (strong.mixture @ b)[strong.replies[0]]
    assert regret <= 1e-8
    assert (strong.mixture @ a)[strong.replies[0]] == pytest.approx(strong.value, abs=1e-8)
    if weak.attained:
        assert pessimistic(weak.mixture, a, b) == pytest.approx(weak.value, abs=1e-8)
    # No mixture on a grid secures more.
    for mixture in np.random.default_rng(0).dirichlet(np.ones(len(a)), 50):
        assert pessimistic(mixture, a, b) <= weak.value + 1e-8


@settings(max_examples=20)
@given(GAMES)
def test_in_zero_sum_games_commitment_is_worth_the_value(game):
    a = game[0]
    value = solve(a).value
    for ties in ("strong", "weak"):
        assert mixed_commitment(a, -a, ties).value == pytest.approx(value, abs=1e-8)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_units_do_not_matter(scale):
    found = mixed_commitment(scale * LEADER + 5 * scale, FOLLOWER / scale)
    assert found.value / scale == pytest.approx(8.5)
    assert found.mixture == pytest.approx([0.5, 0.5])
    weak = mixed_commitment(scale * LEADER, FOLLOWER / scale, "weak")
    assert weak.value / scale == pytest.approx(3.5)


def test_an_offset_far_above_the_span_changes_nothing_but_the_value():
    """The sums are exact: 2^45 and small whole numbers, a span of 6e-12 of the offset."""
    for seed in range(5):
        a, b = np.random.default_rng(seed).integers(-100, 101, (2, 4, 5)).astype(float)
        for ties in ("strong", "weak"):
            plain, moved = mixed_commitment(a, b, ties), mixed_commitment(a + 2.0**45, b, ties)
            assert moved.mixture == pytest.approx(plain.mixture, abs=1e-12)
            assert (moved.replies, moved.attained) == (plain.replies, plain.attained)
            assert moved.value - 2.0**45 == pytest.approx(plain.value, abs=2.0**-7)  # last digit


def test_a_legitimate_user_who_is_an_attacker_a_fraction_of_the_time():
    # The defender admits or refuses. The honest always ask (worth 1 if admitted); an attacker asks
    # at a cost of 1/2 or stays away, gains 1 if admitted, and then costs 4. Admitting half of those
    # who ask leaves the attacker indifferent: it stays away in the defender's favour.
    honest = np.array([[1.0], [0.0]]), np.zeros((2, 1))
    attacker = np.array([[-4.0, 0.0], [0.0, 0.0]]), np.array([[0.5, 0.0], [-0.5, 0.0]])
    leaders, followers = zip(honest, attacker, strict=True)
    often = bayesian_commitment([0.5, 0.5], leaders, followers)
    assert often.mixture == pytest.approx([0.5, 0.5])
    assert often.value == pytest.approx(0.25)
    assert often.replies == (0, 1)
    # Rare attackers are let in: 0.95 - 0.05 * 4 = 0.75 > 0.95 / 2.
    rare = bayesian_commitment([0.95, 0.05], leaders, followers)
    assert rare.mixture == pytest.approx([1, 0])
    assert rare.value == pytest.approx(0.75)


@settings(max_examples=20)
@given(GAMES, GAMES, st.sampled_from([0.0, 0.3, 1.0]))
def test_knowing_the_type_never_hurts(first, second, share):
    rows = min(first.shape[1], second.shape[1])
    (a, b), (c, d) = first[:, :rows], second[:, :rows]
    found = bayesian_commitment([share, 1 - share], [a, c], [b, d])
    apart = share * mixed_commitment(a, b).value + (1 - share) * mixed_commitment(c, d).value
    assert found.value <= apart + 1e-8
    # Two types alike are one.
    same = bayesian_commitment([share, 1 - share], [a, a], [b, b])
    assert same.value == pytest.approx(mixed_commitment(a, b).value, abs=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mixed_commitment([[np.nan]], [[1.0]]), r"row player's payoffs\[0, 0\] is nan"),
        (lambda: mixed_commitment([[1.0]], [[1.0, 2.0]]), "one shape"),
        (lambda: mixed_commitment([[1.0]], [[1.0]], "loose"), "not loose"),
        (lambda: bayesian_commitment([0.5, 0.6], [[[1]]] * 2, [[[1]]] * 2), "sum to 1"),
        (lambda: bayesian_commitment([1.0], [[[1]]] * 2, [[[1]]]), "2 leader's matrices for 1"),
        (
            lambda: bayesian_commitment([0.5, 0.5], [[[1]], [[1], [2]]], [[[1]], [[1], [2]]]),
            r"\[1, 2\] actions",
        ),
        (
            lambda: bayesian_commitment([0.2] * 5, [np.eye(7)] * 5, [np.eye(7)] * 5),
            "16807 tuples of replies, more than 10000",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
