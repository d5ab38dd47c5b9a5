"""Best responses that are trained and searched for: what they see, and how good they are."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from small import LINEAR, attacker, defender
from torch.nn.functional import cross_entropy

from arena import Arena, Knowledge, MoveOrder
from arena.actions.lp import Linf
from arena.actions.pool import Pool
from arena.attacks.apgd import APGD
from arena.attacks.pgd import PGD
from arena.attacks.replay import Replay
from arena.costs import Negation, QueryPrice, Targeted
from arena.data.digits import Digits
from arena.defenses.adversarial_training import AdversarialTraining
from arena.defenses.erm import ERM
from arena.defenses.fixed import Fixed
from arena.defenses.retrain import Retrain
from arena.empirical.cells import Cells
from arena.empirical.double_oracle import double_oracle
from arena.empirical.trained import Trained, recipe_of
from arena.games.evasion import Evasion
from arena.games.scoring import Scoring
from arena.store import Store
from arena.training.trainer import Trainer

HOW = Trained(
    inner=PGD(steps=2, step=0.5, returns="last"), stronger=PGD(steps=30, step=0.1, restarts=2)
)


def dealt(recipe=None, how=HOW, store=None, seed=0, eps=0.15):
    players = {
        "attacker": attacker(actions=Linf(eps)),
        "defender": defender(recipe or ERM(LINEAR, epochs=5)),
    }
    order = MoveOrder.defender_first()
    arena = Arena(Evasion(Digits(), examples=120), players, order, seed, store=store)
    cells = Cells.beside(store.folder) if store else None
    return how.oracles(arena, cells), arena.board


@dataclass(frozen=True)
class Looking(Trainer):
    """Records every input that it trains on."""

    seen: ClassVar[list] = []

    def loss(self, module, step):
        Looking.seen.append(step.batch.x.flatten(1))
        return cross_entropy(module(step.batch.x), step.batch.y)


@pytest.mark.parametrize("own", [0.0, 0.5])
def test_no_scored_input_nor_anything_near_one_is_trained_on(own):
    """A model trains inside the attacker's balls around its own data, and nowhere else."""
    Looking.seen.clear()
    oracles, board = dealt(Looking(LINEAR, epochs=2), replace(HOW, own=own))
    list(double_oracle(oracles, iterations=2))
    seen = torch.cat(Looking.seen)
    for data, inside in ((board.training, True), (board.dealt, False)):
        near = torch.cdist(seen, data.x.flatten(1), p=float("inf")).amin(1) <= 0.15 + 1e-6
        assert near.all() if inside else near.float().mean() < 0.01


def test_names_are_of_what_moves_are_made_of():
    one, two = dealt()[0], dealt()[0]
    opening = one.opening()
    assert opening == two.opening()
    attacks = [oracles.attack({opening[0]: 1.0}, 7) for oracles in (one, two)]
    assert attacks[0] == attacks[1]
    assert one.attack({opening[0]: 1.0}, 8) != attacks[0]
    assert one.attack({opening[0]: 1.0}, 7, fresh=True) != attacks[0]
    models = [oracles.defend({attacks[0]: 0.5, opening[1]: 0.5}, 7) for oracles in (one, two)]
    assert models[0] == models[1]
    assert one.against(attacks[0]) == opening[0] and one.against(opening[1]) is None


def test_kept_moves_are_the_same_moves(tmp_path):
    store = Store(tmp_path)
    fresh = [each for each in double_oracle(dealt()[0], iterations=3)]
    first, again = ([*double_oracle(dealt(store=store)[0], iterations=3)] for _ in range(2))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert len(files) > 6
    for one, two, three in zip(fresh, first, again, strict=True):
        assert one.moves == two.moves == three.moves
        assert one.exploitability == two.exploitability == three.exploitability
        assert np.array_equal(one.game.costs["defender"], two.game.costs["defender"])
    list(double_oracle(dealt(store=store)[0], iterations=3))
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}


def test_no_cell_is_played_twice(tmp_path, monkeypatch):
    """A run again plays none, a longer one those of its new iterations; none changes."""
    store, plays = Store(tmp_path), []
    outcome, committed = Scoring.score, Scoring.committed

    def counted(of):
        def played(*given):
            plays.append(of)
            return of(*given)

        return played

    monkeypatch.setattr(Scoring, "score", counted(outcome))
    monkeypatch.setattr(Scoring, "committed", counted(committed))

    def run(iterations, store):
        plays.clear()
        found = list(double_oracle(dealt(store=store)[0], iterations=iterations, tolerance=1e-9))
        return found, plays.count(outcome)

    _, anew = run(3, None)
    _, first = run(2, store)
    longer, more = run(3, store)
    again, none = run(3, store)
    assert 0 < more < anew == first + more and none == 0 and not plays
    for one, other in zip(longer, again, strict=True):
        assert one.exploitability == other.exploitability
        for player, costs in one.game.costs.items():
            np.testing.assert_array_equal(costs, other.game.costs[player])


def test_a_kept_cell_without_finite_costs_is_refused(tmp_path):
    oracles, _ = dealt(store=Store(tmp_path))
    model, attack = oracles.opening()
    oracles.costs(model, attack)
    played = oracles._played
    key = played._keys.cell(played._moves[model], played._moves[attack])
    (tmp_path / "cells.sqlite").unlink()
    Cells.beside(tmp_path).keep({key: np.full((2, oracles.examples), np.nan)})
    again, _ = dealt(store=Store(tmp_path))
    with pytest.raises(ValueError, match="costs that are not finite"):
        again.costs(*again.opening())


def worst_error(model, x, y, eps):
    """Of softmax regression, exactly: each wrong class k wants every pixel moved by the sign of
    w_k - w_y, as far as eps and the box allow; the least margin of them all decides."""
    layer = next(part for part in model.modules() if isinstance(part, torch.nn.Linear))
    x, wrong = x.flatten(1), torch.zeros(len(x), dtype=torch.bool)
    for k in range(10):
        slope = layer.weight[k] - layer.weight[y]
        moved = (x + eps * slope.sign()).clamp(0, 1)
        margin = (slope * moved).sum(1) + layer.bias[k] - layer.bias[y]
        wrong |= (margin > 0) & (y != k)
    return wrong


def test_on_a_linear_model_the_fresh_reply_is_nearly_the_best_there_is():
    how = replace(HOW, stronger=APGD(steps=30, objective="margin", targets=9))
    oracles, board = dealt(how=how, eps=0.05)
    model, _ = oracles.opening()
    cost = oracles.costs(model, oracles.attack({model: 1.0}, 0, fresh=True))["defender"]
    scored = board.dealt[board.scored]
    exact = worst_error(oracles._classifiers[model].module, scored.x, scored.y, 0.05).numpy()
    assert (cost <= exact).all(), "no attack does better than the closed form"
    assert 0.2 < exact.mean() < 0.9
    assert exact.mean() - cost.mean() <= 0.02


def test_answering_an_attack_helps_against_it():
    oracles, _ = dealt(ERM(LINEAR, epochs=20))
    plain, honest = oracles.opening()
    attack = oracles.attack({plain: 1.0}, 0)
    answer = oracles.defend({attack: 1.0}, 0)
    before, after = (oracles.costs(m, attack)["defender"].mean() for m in (plain, answer))
    assert after < before - 0.1
    assert oracles.costs(plain, honest)["attacker"].mean() <= 0


def test_what_is_too_unlikely_is_not_answered():
    oracles, _ = dealt()
    model, honest = oracles.opening()
    attack = oracles.attack({model: 1.0}, 0)
    assert oracles.defend({honest: 0.999, attack: 0.001}, 0) == oracles.defend({honest: 1.0}, 0)
    with pytest.raises(ValueError, match="sum to 1"):
        oracles.defend({honest: 0.5}, 0)
    with pytest.raises(ValueError, match="sum to 1"):
        oracles.attack({model: 1.2}, 0)


def test_training_data_may_be_fewer():
    oracles, board = dealt(how=replace(HOW, training=50))
    assert len(oracles._training) == 50 < len(board.training)


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("players", "why"),
    [
        ({"attacker": attacker(knowledge=Knowledge.no_box())}, "white_box"),
        ({"attacker": attacker(PGD(), actions=Pool())}, "actions=Pool"),
        ({"attacker": attacker(Replay(), actions=Pool())}, "actions=Pool"),
        ({"attacker": attacker(cost=Targeted(3))}, "do not sum to 0"),
        ({"attacker": attacker(cost=Negation(QueryPrice(Targeted(1))))}, "do not sum to 0"),
        ({"defender": defender(Fixed(torch.nn.Flatten()))}, "Fixed is no way of training"),
        ({"defender": defender(AdversarialTraining(LINEAR))}, "no loss of a batch"),
    ],
)
def test_players_who_cannot_respond_are_refused(players, why):
    with pytest.raises(ValueError, match=why):
        HOW.check({"attacker": attacker(), "defender": defender(), **players}, 10)


def test_a_retraining_defender_trains_by_its_recipe():
    assert recipe_of(Retrain(ERM(LINEAR, epochs=3))) == ERM(LINEAR, epochs=3)


def test_options_are_checked():
    for bad in ({"own": 1.5}, {"longer": 0.0}, {"training": 0}, {"averages": ("means",)}):
        with pytest.raises(ValueError):
            replace(HOW, **bad)
    with pytest.raises(ValueError, match="on no average and on no model"):
        replace(HOW, averages=(), alone=False)
