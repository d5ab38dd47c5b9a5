"""The schedule against truth: games whose outcome under every order is known."""

import numpy as np
import pytest
import torch

from arena import Arena, IllegalMove, Knowledge, MoveOrder, Player, Unplayable
from arena.games.matrix import (
    AttackerBestReplies,
    DefenderBestReplies,
    DefenderCommits,
    MatrixCost,
    MatrixGame,
    Mix,
    Mixtures,
)

PENNIES = np.array([[1.0, -1.0], [-1.0, 1.0]])  # the defender matches
ROCK_PAPER_SCISSORS = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
# Conitzer & Sandholm 2006, figure 1: rows lead.
LEADER = np.array([[2.0, 4.0], [1.0, 3.0]])
FOLLOWER = np.array([[1.0, 0.0], [0.0, 1.0]])

SEES = Knowledge(parameters=True)
ORDERS = {
    "attacker_first": MoveOrder.attacker_first(),
    "defender_first": MoveOrder.defender_first(),
    "simultaneous": MoveOrder.simultaneous(),
}


def payoffs(defender, attacker, rows, columns, order, rounds=1, pure=True):
    """Payoffs (defender's, attacker's) of the last of some rounds."""
    m, n = np.shape(rows)
    players = {
        "defender": Player(Mixtures(m, pure), MatrixCost.of_payoffs(rows), SEES, defender),
        "attacker": Player(Mixtures(n, pure), MatrixCost.of_payoffs(columns), SEES, attacker),
    }
    *_, last = Arena(MatrixGame(), players, ORDERS[order]).play(rounds)
    return last.payoffs["defender"], last.payoffs["attacker"]


@pytest.mark.parametrize("game", [PENNIES, ROCK_PAPER_SCISSORS])
def test_the_second_mover_wins_a_zero_sum_game_without_a_saddle(game):
    players = DefenderBestReplies(), AttackerBestReplies()
    assert payoffs(*players, game, -game, "attacker_first") == (1.0, -1.0)
    assert payoffs(*players, game, -game, "defender_first") == (-1.0, 1.0)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("game", [PENNIES, ROCK_PAPER_SCISSORS])
def test_order_changes_nothing_at_the_mixed_equilibrium(game, order):
    even = Mix((1 / len(game),) * len(game))
    found = payoffs(even, even, game, -game, order, pure=False)
    assert found == pytest.approx((0.0, 0.0), abs=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_a_mixed_commitment_secures_the_value_whatever_the_reply(order):
    half = Mix((0.5, 0.5))
    found = payoffs(half, AttackerBestReplies(), PENNIES, -PENNIES, order, pure=False)
    assert found == pytest.approx((0.0, 0.0), abs=1e-12)


def test_simultaneous_best_replies_go_round_matching_pennies_with_period_four():
    players = {
        "defender": Player(
            Mixtures(2, True), MatrixCost.of_payoffs(PENNIES), SEES, DefenderBestReplies()
        ),
        "attacker": Player(
            Mixtures(2, True), MatrixCost.of_payoffs(-PENNIES), SEES, AttackerBestReplies()
        ),
    }
    arena = Arena(MatrixGame(), players, MoveOrder.simultaneous())
    # Both start at heads. Each answers the other's last action: (H,T) (T,T) (T,H) (H,H) again.
    found = [record.payoffs["defender"] for record in arena.play(8)]
    assert found == [-1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0]


@pytest.mark.parametrize(
    ("order", "pure", "leader", "expected"),
    [
        # Up dominates: at once, or answered to, the row player gets 2.
        ("simultaneous", True, DefenderBestReplies(), (2.0, 1.0)),
        ("attacker_first", True, DefenderBestReplies(), None),
        # Committing to Down is answered by Right: 3.
        ("defender_first", True, DefenderCommits(), (3.0, 1.0)),
        # Committing to half and half is answered by Right, in the leader's favour: 3.5.
        ("defender_first", False, DefenderCommits(), (3.5, 0.5)),
    ],
)
def test_conitzer_and_sandholm_under_every_order(order, pure, leader, expected):
    found = payoffs(leader, AttackerBestReplies(), LEADER, FOLLOWER, order, rounds=4, pure=pure)
    if expected is None:
        # The column player moves first but only replies to what stands: still (Up, Left).
        expected = (2.0, 1.0)
    assert found == pytest.approx(expected)


def test_stages_of_any_shape_and_a_player_may_move_twice():
    order = MoveOrder((("defender",), ("attacker",), ("defender",)))
    players = {
        "defender": Player(
            Mixtures(2, True), MatrixCost.of_payoffs(PENNIES), SEES, DefenderBestReplies()
        ),
        "attacker": Player(
            Mixtures(2, True), MatrixCost.of_payoffs(-PENNIES), SEES, AttackerBestReplies()
        ),
    }
    (record,) = Arena(MatrixGame(), players, order).play(1)
    assert record.payoffs == {"defender": 1.0, "attacker": -1.0}  # the last word wins
    assert record.zero_sum


def test_what_was_seen_is_recorded():
    def saw(order):
        players = {
            "defender": Player(
                Mixtures(2, True), MatrixCost.of_payoffs(PENNIES), SEES, DefenderBestReplies()
            ),
            "attacker": Player(
                Mixtures(2, True), MatrixCost.of_payoffs(-PENNIES), SEES, AttackerBestReplies()
            ),
        }
        return [record.saw for record in Arena(MatrixGame(), players, ORDERS[order]).play(2)]

    assert saw("defender_first") == [
        {"defender": {"attacker": -1}, "attacker": {"defender": 0}},
        {"defender": {"attacker": 0}, "attacker": {"defender": 1}},
    ]
    assert saw("simultaneous")[1] == {"defender": {"attacker": 0}, "attacker": {"defender": 0}}


def test_a_reply_needs_sight_of_the_move():
    players = {
        "defender": Player(
            Mixtures(2), MatrixCost.of_payoffs(PENNIES), Knowledge(), DefenderBestReplies()
        ),
        "attacker": Player(Mixtures(2), MatrixCost.of_payoffs(-PENNIES), SEES, Mix((0.5, 0.5))),
    }
    with pytest.raises(Unplayable, match=r"needs a Commitment of the attacker.*parameters=true"):
        Arena(MatrixGame(), players, MoveOrder.simultaneous())


def test_an_illegal_mixture_is_refused():
    players = {
        "defender": Player(Mixtures(2), MatrixCost.of_payoffs(PENNIES), SEES, Mix((0.7, 0.7))),
        "attacker": Player(Mixtures(2), MatrixCost.of_payoffs(-PENNIES), SEES, Mix((0.5, 0.5))),
    }
    with pytest.raises(IllegalMove, match="defender's move"):
        next(Arena(MatrixGame(), players, MoveOrder.simultaneous()).play(1))


def test_orders_must_move_every_player_and_no_other():
    players = {
        "defender": Player(Mixtures(2), MatrixCost.of_payoffs(PENNIES), SEES, Mix((0.5, 0.5))),
        "attacker": Player(Mixtures(2), MatrixCost.of_payoffs(-PENNIES), SEES, Mix((0.5, 0.5))),
    }
    with pytest.raises(Unplayable, match="moves \\['attacker'\\]"):
        Arena(MatrixGame(), players, MoveOrder((("attacker",),)))
    with pytest.raises(ValueError, match="once"):
        MoveOrder((("attacker", "attacker"),))
    with pytest.raises(ValueError, match="at least one stage"):
        MoveOrder(())


def test_state_survives_a_restart():
    def arena():
        players = {
            "defender": Player(
                Mixtures(2, True), MatrixCost.of_payoffs(PENNIES), SEES, DefenderBestReplies()
            ),
            "attacker": Player(
                Mixtures(2, True), MatrixCost.of_payoffs(-PENNIES), SEES, AttackerBestReplies()
            ),
        }
        return Arena(MatrixGame(), players, MoveOrder.simultaneous())

    whole = [record.payoffs for record in arena().play(5)]
    first = arena()
    begun = [record.payoffs for record in first.play(2)]
    second = arena()
    second.load_state_dict(first.state_dict())
    assert begun + [record.payoffs for record in second.play(5)] == whole
    assert torch.is_tensor(first.state_dict()["standing"]["attacker"]["mixture"])
