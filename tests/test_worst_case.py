"""Ensembles: each attack on what still stands, the worst of all for each example."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from linear import BOX, NO_PRIZE, linear_model, play, points, turn_of
from small import attacker, evasion, last
from torch import nn

from arena import Knowledge, Strategy, Unplayable, View
from arena.actions.lp import L1, Linf
from arena.attacks.apgd import APGD
from arena.attacks.boundary import Boundary
from arena.attacks.engines.descent import Best
from arena.attacks.honest import Honest
from arena.attacks.noise import Noise
from arena.attacks.pgd import PGD
from arena.attacks.square import Square
from arena.attacks.worst_case import WorstCase
from arena.costs import CostMatrix, Negation
from arena.knowledge import LabelView, ScoreView, WhiteBox

MODULE = linear_model()
SPACE = Linf(0.2, BOX)


@dataclass(frozen=True)
class Shifts(Strategy):
    """Moves some examples, by their place in the whole batch, along the steepest way."""

    among: tuple[int, ...]
    share: float = 1.0
    needs: ClassVar[Mapping[str, type[View]]] = {"defender": ScoreView}
    served: ClassVar[list[list[int]]] = []

    def respond(self, turn):
        Shifts.served.append(turn.which.tolist())
        w = MODULE.weight[0] - MODULE.weight[1]
        way = torch.where(turn.data.y[:, None] == 0, -w, w).sign()
        chosen = torch.tensor([int(i) in self.among for i in turn.which])[:, None]
        moved = turn.data.x + self.share * turn.player.actions.eps * way
        return turn.player.actions.project(turn.data.x, torch.where(chosen, moved, turn.data.x))


def right(x, data):
    return MODULE(x).argmax(1) == data.y


def test_each_attack_is_tried_on_what_still_stands():
    data = points()
    honest = right(data.x, data)
    everybody = tuple(range(50))
    whole, _ = play(WorstCase((Shifts(everybody),)), SPACE, MODULE, data, closing=True)
    fall = honest & ~right(whole, data)
    first, second = fall.nonzero()[:2, 0].tolist()
    Shifts.served.clear()
    attacks = WorstCase((Shifts((first,)), Shifts((second,)), Shifts(everybody)))
    moved, ledger = play(attacks, SPACE, MODULE, data, closing=True)
    standing = honest.nonzero()[:, 0].tolist()
    assert Shifts.served == [
        standing,
        [i for i in standing if i != first],
        [i for i in standing if i not in (first, second)],
    ]
    assert torch.equal(right(moved, data), right(whole, data))
    assert torch.equal(moved[~honest], data.x[~honest]), "nothing to be won there"
    assert ledger.queries[~honest].eq(1).all()
    assert int(ledger.queries[first]) == 2 and int(ledger.queries[second]) == 3


def test_the_worst_of_all_is_played_whatever_the_order():
    data = points()
    near, far = Shifts(tuple(range(50)), 0.5), Shifts(tuple(range(50)), 1.0)
    found = []
    for attacks in ((near, far), (far, near)):
        Shifts.served.clear()
        moved, _ = play(WorstCase(attacks), SPACE, MODULE, data)  # not closing: all run
        assert [len(served) for served in Shifts.served] == [50, 50]
        found.append(moved)
    assert torch.equal(found[0], found[1])
    alone, _ = play(WorstCase((far,)), SPACE, MODULE, data)
    assert torch.equal(found[0], alone), "at equal cost, the lower surrogate"


def test_an_ensemble_is_as_strong_as_its_parts():
    data = points()
    parts = (Noise(), PGD(5, 0.3), APGD(10))
    together, _ = play(WorstCase(parts), SPACE, MODULE, data, closing=True)
    alone = torch.stack([right(play(part, SPACE, MODULE, data)[0], data) for part in parts])
    assert not (right(together, data) & ~alone.all(0)).any()


def test_its_needs_are_those_of_the_parts_together():
    assert WorstCase((Honest(), Boundary())).needs == {"defender": LabelView}
    assert WorstCase((Boundary(), Square())).needs == {"defender": ScoreView}
    assert WorstCase((Square(), PGD(), Boundary())).needs == {"defender": WhiteBox}
    with pytest.raises(Unplayable, match="WorstCase needs a WhiteBox"):
        evasion(attacker(WorstCase((Square(), PGD())), Knowledge.black_box("scores")))


def test_parts_that_do_not_fit_are_refused_by_name():
    with pytest.raises(ValueError, match="APGD cannot serve actions=L1; use actions=linf or l2"):
        play(WorstCase((PGD(), APGD())), L1(1.0, BOX), MODULE, points())
    with pytest.raises(ValueError, match="list at least one attack"):
        WorstCase(())


def test_labels_and_scores_are_enough_to_judge_by():
    attacks = WorstCase((Square(steps=20), Boundary()))
    with pytest.raises(Unplayable):
        evasion(attacker(attacks, Knowledge.black_box("scores")))  # Boundary walks in L2 only
    record = last(
        evasion(attacker(WorstCase((Noise(), Square(30))), Knowledge.black_box("scores")))
    )
    assert record.metrics["attacked_error"] >= record.metrics["clean_error"]


def test_who_has_no_query_left_takes_the_attacks_word():
    knowledge = Knowledge.black_box("scores", 60)
    alone, twice = (
        last(evasion(attacker(strategy, knowledge), examples=400)).metrics
        for strategy in (Square(100), WorstCase((Square(100), Square(100))))
    )
    # Other coins, two queries less: two deviations of a difference of shares near .87 of 200.
    assert twice["attacked_error"] >= alone["attacked_error"] - 0.07 > twice["clean_error"]
    white = last(evasion(attacker(WorstCase((PGD(20, 0.1),)), Knowledge(parameters=True))))
    assert white.metrics["queries"] > 0, "a white box's passes are counted and not rationed"


def test_the_same_attack_twice_is_a_restart():
    data = points()
    once, twice = (play(WorstCase((Noise(),) * n), SPACE, MODULE, data)[0] for n in (1, 2))
    moved = (once != twice).any(1)
    assert moved.any()
    loss = torch.nn.functional.cross_entropy
    worse = [loss(MODULE(x), data.y, reduction="none")[moved] for x in (once, twice)]
    assert (worse[1] > worse[0]).all()


def test_a_refusal_may_be_what_is_wanted_where_only_labels_are_seen():
    """Nobody leaves while a refusal, which no score has shown, would pay more than a mistake."""
    cost = Negation(CostMatrix(((0, 1, 2), (1, 0, 2))))
    turn, _ = turn_of(WorstCase((Honest(),)), SPACE, MODULE, points(), cost, closing=True)
    ensemble = WorstCase((Boundary(),))
    least, rows = ensemble._offer(turn, Best(turn.data.x), torch.arange(50), turn.data.x)
    assert (least == -2).all() and len(rows) == 50


def test_answers_that_are_not_there_are_the_worst_case_where_they_win():
    class Cracked(nn.Module):
        def forward(self, x):
            moved = (x != points().x[: len(x)]).any(1) if len(x) == 50 else torch.ones(len(x)) > 0
            return MODULE(x) + torch.where(moved[:, None], torch.nan, 0.0)

    data = points()
    moved, _ = play(WorstCase((Noise(),)), SPACE, Cracked(), data, NO_PRIZE)
    assert torch.equal(moved, data.x)
    moved, _ = play(WorstCase((Noise(),)), SPACE, Cracked(), data)
    wrong = MODULE(data.x).argmax(1) != data.y  # which were mistakes as they were dealt
    assert wrong.any() and (moved[~wrong] != data.x[~wrong]).any(1).all()
    assert torch.equal(moved[wrong], data.x[wrong])
