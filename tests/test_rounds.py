"""Cross-play of rounds: the diagonal is what was scored, the rest what would have been."""

import numpy as np
import pytest
from damage import each_flipped
from small import ORDERS, attacker, defender, evasion, last, retrain

from arena.attacks.noise import Noise
from arena.empirical.cells import Cells
from arena.empirical.crossplay import cross_play
from arena.empirical.moves import keep_moves, kept_moves
from arena.empirical.rounds import CLEAN, rounds_played
from arena.executors.executor import Serial

ROUNDS = 2
STRATEGY = retrain()


def matches(folder, **attacking):
    """Every order's match, its moves kept: the last board, and what each round cost and saw."""
    found, costs, board = {}, {}, None
    for order in ORDERS:
        arena = evasion(attacker(**attacking), defender(STRATEGY), order)
        lines = []
        for record in arena.play(ROUNDS):
            keep_moves(folder / order, record.round, arena.state_dict())
            lines.append(record.line())
            costs[f"{order}, round {record.round}"] = record.costs["defender"].numpy()
        found[order], board = (folder / order, lines), arena.board
    return board, arena.players, found, costs


def test_every_rounds_attack_meets_every_rounds_model(tmp_path):
    board, players, found, costs = matches(tmp_path)
    play = rounds_played(board, players, found)
    (game,) = cross_play([play], Cells(tmp_path / "cells.sqlite"), Serial())
    assert game.attacks == (CLEAN, *costs)
    # The last models of orders in which the defender does not move first met no attack of theirs.
    assert set(costs) - set(game.models) == {"attacker_first, round 1", "simultaneous, round 1"}
    for name in game.models:
        d, a = game.models.index(name), game.attacks.index(name)
        assert np.array_equal(game.costs["defender"][d, a], costs[name])
    # The attacker who sees nothing has seen no round's model; who goes second, that of its round.
    against = dict(zip(game.attacks, game.against, strict=True))
    assert against[CLEAN] is None and against["attacker_first, round 0"] is None
    assert against["attacker_first, round 1"] == "attacker_first, round 0"
    assert against["simultaneous, round 1"] == "simultaneous, round 0"
    assert against["defender_first, round 1"] == "defender_first, round 1"
    # An attack fools the model it was crafted against more than clean inputs do.
    d = game.models.index("defender_first, round 0")
    a = game.attacks.index("defender_first, round 0")
    assert game.costs["defender"][d, a].mean() > game.costs["defender"][d, 0].mean() + 0.3


def test_all_models_stay_where_the_attacker_sees_none(tmp_path):
    board, players, found, costs = matches(tmp_path, strategy=Noise())
    assert tuple(rounds_played(board, players, found).models) == tuple(costs)


def test_moves_that_were_not_kept_are_missed(tmp_path):
    with pytest.raises(ValueError, match="round 3 whose moves were not kept; remove it"):
        kept_moves(tmp_path, 3, {})


def test_no_flipped_bit_of_kept_moves_goes_unnoticed(tmp_path):
    arena = evasion(attacker(Noise()), defender(STRATEGY))
    last(arena)
    keep_moves(tmp_path, 0, arena.state_dict())
    for _ in each_flipped(tmp_path / "moves" / "round-0.pt", samples=300):
        with pytest.raises(ValueError, match=r"round-0\.pt is damaged .*; remove .* to play anew"):
            kept_moves(tmp_path, 0, arena.players)
    attack = kept_moves(tmp_path, 0, arena.players)["attacker"]
    assert np.array_equal(attack.packed["x"], arena.state_dict()["standing"]["attacker"]["x"])
