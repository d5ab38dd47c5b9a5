"""Every stored attack on every stored model: what a cell is, and when it is played."""

import os
import signal
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from small import LINEAR, Constant, attacker, defender, evasion
from test_executors import with_ray
from torch import nn

from arena.actions.lp import Linf
from arena.attacks.fgsm import FGSM
from arena.attacks.noise import Noise
from arena.certificates.interval import Interval
from arena.classification import Classifier, Refuted
from arena.core import Idle, Strategy
from arena.costs import CostMatrix, ErrorRate, Negation, QueryPrice, Refusal
from arena.defenses.certifying import Certifying
from arena.defenses.erm import ERM
from arena.defenses.fixed import Fixed
from arena.defenses.interval_training import IntervalTraining
from arena.defenses.mixture import Mixture
from arena.empirical.cells import Cells
from arena.empirical.crossplay import CrossPlay, cross_play
from arena.empirical.moves import Failed, KeptMove
from arena.executors.executor import Serial
from arena.executors.processes import Processes
from arena.games.game import Entry
from arena.learners.networks import MLP
from arena.training.classifiers import ModuleClassifier

PLAIN = ERM(LINEAR, epochs=3)
LONGER = ERM(LINEAR, epochs=6)
CERTIFIED = Certifying(IntervalTraining(MLP((16,)), epochs=6), Interval())


def moves(strategy, attack=None, cost=None, defenders=None, eps=0.15):
    """The board, what the match cost, and its moves."""
    rival = attacker(attack or FGSM(), cost=cost, actions=Linf(eps))
    arena = evasion(rival, defender(strategy, cost=defenders))
    (record,) = arena.play(1)
    state = arena.state_dict()
    packed, book = state["standing"]["attacker"], state["ledgers"]["attacker"]
    crafted = KeptMove("attacker", rival.strategy, packed, book["queries"], book["gradients"])
    return arena.board, record, model(strategy, state["standing"]["defender"]), crafted


def model(strategy, state):
    """A model as a move."""
    return KeptMove.of("defender", strategy, state)


def made(play, name):
    """The classifier of a model."""
    return play.models[name].entry(play.board).move


def roster(*strategies, **options):
    """A cross-play of each strategy with FGSM on each of them and noise."""
    models, attacks, against = {}, {}, {}
    for number, strategy in enumerate(strategies):
        board, _, committed, crafted = moves(strategy, **options)
        name = "ABCDEFG"[number]
        models[name], attacks[f"FGSM {name}"], against[f"FGSM {name}"] = committed, crafted, name
    attacks["noise"] = moves(strategies[0], Noise(), **options)[3]
    return CrossPlay(board, models, attacks, against)


class Told(Counter):
    """How many cells of each model were played."""

    def __call__(self, model, cells):
        self[model] += cells


def played(play, cells, executor=None):
    told = Told()
    (game,) = cross_play([play], cells, executor or Serial(), told)
    return game, told


@pytest.mark.parametrize("cost", [Negation(ErrorRate()), QueryPrice(Negation(ErrorRate()), 0.01)])
def test_the_diagonal_is_what_the_matches_cost(tmp_path, cost):
    cells = Cells(tmp_path / "cells")
    play = roster(PLAIN, LONGER, cost=cost)
    for _ in range(2):  # as played, and as kept
        game, _ = played(play, cells)
        for d, strategy in enumerate((PLAIN, LONGER)):
            record = moves(strategy, cost=cost)[1]
            for player in ("attacker", "defender"):
                np.testing.assert_array_equal(game.costs[player][d, d], record.costs[player])
    assert game.models == ("A", "B") and game.attacks == ("FGSM A", "FGSM B", "noise")
    assert game.against == ("A", "B", None) and not game.missing and game.most is None
    assert game.costs["defender"].dtype == (np.int8 if cost == Negation(ErrorRate()) else float)
    white, transferred = game.costs["defender"][0, :2].mean(1)
    assert white >= transferred > 0


def test_what_each_model_answers_to_clean_inputs_is_known(tmp_path):
    cells = Cells(tmp_path / "cells")
    play = roster(PLAIN, LONGER)
    x = play.board.dealt.x[play.board.scored]
    expected = {name: made(play, name).answer(x).labels.numpy() for name in play.models}
    for _ in range(2):  # as asked, and as kept
        game, _ = played(play, cells)
        assert list(game.answers) == ["A", "B"]
        for name, labels in expected.items():
            np.testing.assert_array_equal(game.answers[name], labels)
    assert (expected["A"] != expected["B"]).any()


def test_models_of_cells_kept_without_answers_are_asked_alone(tmp_path):
    cells, other = Cells(tmp_path / "cells"), Cells(tmp_path / "other")
    play = roster(PLAIN, LONGER)
    expected, _ = played(play, cells)
    keys = [play.key(model, attack) for model in play.models for attack in play.attacks]
    other.keep(dict(zip(keys, cells.find(keys).costs.swapaxes(0, 1), strict=True)))
    game, told = played(play, other)
    assert told == {"A": 0, "B": 0}
    assert game.answers.keys() == expected.answers.keys()


def test_a_row_or_column_more_plays_its_own_cells_only(tmp_path):
    cells = Cells(tmp_path / "cells")
    whole = roster(PLAIN, LONGER, ERM(LINEAR, epochs=4))
    first = {name: whole.models[name] for name in "AB"}
    some = {name: whole.attacks[name] for name in ("FGSM A", "noise")}
    small = CrossPlay(whole.board, first, some, {"FGSM A": "A"})
    assert played(small, cells)[1] == {"A": 2, "B": 2}
    assert played(small, cells)[1] == {}
    assert played(replace(small, models=whole.models), cells)[1] == {"C": 2}
    game, told = played(whole, cells)
    assert told == {"A": 2, "B": 2, "C": 2}
    at_once, _ = played(whole, Cells(tmp_path / "other"))
    for player in ("attacker", "defender"):
        np.testing.assert_array_equal(game.costs[player], at_once.costs[player])


def test_names_do_not_matter_but_moves_costs_and_deals_do(tmp_path):
    cells = Cells(tmp_path / "cells")
    play = roster(PLAIN)
    assert played(play, cells)[1] == {"A": 2}
    plain, noise = play.models["A"], play.attacks["noise"]
    renamed = replace(play, models={"other": plain}, attacks={"n": noise}, against={})
    assert played(renamed, cells)[1] == {}

    def again(**changed):
        return played(replace(renamed, **changed), cells)[1]

    bias = {**plain.packed, list(plain.packed)[-1]: torch.zeros(10)}
    assert again(models={"other": model(plain.strategy, bias)}) == {"other": 1}
    assert again(models={"other": model(LONGER, plain.packed)}) == {"other": 1}
    assert again(attacks={"n": replace(noise, queries=noise.queries + 1)}) == {"other": 1}
    board = renamed.board
    priced = board.players | {"attacker": attacker(cost=QueryPrice(ErrorRate()))}
    assert again(board=replace(board, players=priced)) == {"other": 1}
    assert again(board=replace(board, scored=board.scored[1:])) == {"other": 1}
    assert again(board=replace(board, presentations=2)) == {"other": 1}


def test_a_cell_is_one_pass_of_the_scored_inputs(tmp_path, monkeypatch):
    play = roster(PLAIN, LONGER)
    rows = []
    answer = Classifier.answer

    def counted(self, x):
        rows.append(len(x))
        return answer(self, x)

    monkeypatch.setattr(Classifier, "answer", counted)
    played(play, Cells(tmp_path / "cells"))
    assert rows == [play.board.units] * (2 * (1 + 3))  # clean, and three attacks, a model


MIXED = Mixture((PLAIN, LONGER), (0.5, 0.5))


@pytest.mark.parametrize("strategy", [PLAIN, MIXED], ids=["plain", "random"])
def test_all_executors_play_the_same(tmp_path, strategy):
    play = roster(strategy, LONGER)
    expected, _ = played(play, Cells(tmp_path / "serial"))
    executors = {"processes": Processes(2)}
    for name, executor in executors.items():
        game, told = played(play, Cells(tmp_path / name), executor)
        assert told == {"A": 3, "B": 3}
        for player, cost in expected.costs.items():
            np.testing.assert_array_equal(game.costs[player], cost)


@dataclass(frozen=True)
class Fragile(Strategy):
    """Commits to a model that is said to break down, and kills whoever makes it until then."""

    until: str

    def respond(self, turn):
        return self.restore({}, turn.data)

    def restore(self, state, data):
        if not os.path.exists(self.until):
            open(self.until, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return ModuleClassifier(Constant([1.0, *[0.0] * 9]), 10)


@with_ray
def test_ray_plays_on_when_a_worker_is_killed_midway(tmp_path):
    from arena.executors.ray import Ray

    play = roster(PLAIN, LONGER)
    play = replace(play, models={**play.models, "C": model(Fragile(str(tmp_path / "died")), {})})
    game, told = played(play, Cells(tmp_path / "cells"), Ray(workers=2))
    assert (tmp_path / "died").exists()
    assert told == {"A": 3, "B": 3, "C": 3} and not game.missing
    expected, _ = played(play, Cells(tmp_path / "serial"))
    np.testing.assert_array_equal(game.costs["defender"], expected.costs["defender"])


def test_a_killed_process_loses_what_it_was_playing(tmp_path):
    cells = Cells(tmp_path / "cells")
    play = roster(PLAIN, LONGER)
    play = replace(play, models={**play.models, "C": model(Fragile(str(tmp_path / "died")), {})})
    with pytest.raises(ChildProcessError, match="start the same command again"):
        played(play, cells, Processes(1))
    game, told = played(play, cells, Processes(1))
    assert told == {"C": 3} and not game.missing


class Broken(nn.Module):
    """Answers 0, and NaN to inputs that differ from those it was shown."""

    def __init__(self, known):
        super().__init__()
        self.register_buffer("known", known)

    def forward(self, x):
        strange = ~(x[:, None] == self.known[None]).flatten(2).all(2).any(1)
        logits = torch.eye(10)[torch.zeros(len(x), dtype=torch.int64)]
        return torch.where(strange[:, None], torch.nan, logits)


@dataclass(frozen=True)
class Breaking(Strategy):
    """Commits to the above."""

    def respond(self, turn):
        raise NotImplementedError

    def restore(self, state, data):
        return ModuleClassifier(Broken(state["known"]), 10)


def test_what_fails_is_named_and_the_rest_is_kept(tmp_path):
    play = roster(PLAIN)
    dealt = play.board.dealt.x
    zero = torch.zeros(len(dealt), dtype=torch.int64)
    honest = KeptMove("attacker", Idle(), {"x": dealt}, zero, zero)
    play = CrossPlay(
        play.board,
        {
            "A": play.models["A"],
            "breaks": model(Breaking(), {"known": dealt}),
            "never works": model(Breaking(), {"known": dealt[:1]}),
            "none": Failed("its training diverged"),
        },
        {"honest": honest, **play.attacks, "FGSM none": Failed("no model")},
        {"FGSM A": "A", "FGSM none": "none"},
    )
    cells = Cells(tmp_path / "cells")
    for _ in range(2):
        game, told = played(play, cells)
        assert game.against == (None, "A", None, "none")
        scored = {(m, a) for m in game.models for a in game.attacks} - set(game.missing)
        known = ("honest", "FGSM A", "noise")
        assert scored == {(m, a) for m in ("A", "breaks") for a in known}
        reasons = game.missing
        # No answer to what was changed: as costly as errors.
        assert (game.costs["defender"][1, 2] == 1).all()
        assert game.costs["defender"][1, 0].mean() < 1
        assert "NaN or infinite on clean input" in reasons["never works", "honest"]
        assert reasons["none", "honest"] == "its training diverged"
        assert reasons["A", "FGSM none"] == "no model"
        assert list(game.answers) == ["A", "breaks"]
        with pytest.raises(ValueError, match="cells are missing"):
            game.payoffs("defender")
        assert np.isfinite(game.costs["attacker"][0, 0]).all()
        assert np.isnan(game.costs["attacker"][3]).all()
    assert told == {"never works": 3}  # what cannot be played is tried again


def test_a_model_without_a_description_plays_and_is_not_kept(tmp_path):
    play = roster(PLAIN)
    given = Fixed(Constant([1.0, *[0.0] * 9]))
    play = replace(play, models={**play.models, "mine": model(given, {})})
    cells = Cells(tmp_path / "cells")
    assert played(play, cells)[1] == {"A": 2, "mine": 2}
    game, told = played(play, cells)
    assert told == {"mine": 2}
    y = play.board.dealt.y[play.board.scored]
    np.testing.assert_array_equal(game.costs["defender"][1, 0], y.numpy() != 0)


def test_certificates_bound_what_is_lost(tmp_path):
    cells = Cells(tmp_path / "cells")
    play = roster(CERTIFIED, PLAIN, eps=0.02)
    record = moves(CERTIFIED, eps=0.02)[1]
    for _ in range(2):
        game, _ = played(play, cells)
        np.testing.assert_array_equal(game.most[0], ~record.certified.numpy())
        np.testing.assert_array_equal(game.most[1], 1.0)
    assert record.certified.any() and not record.certified.all()


@pytest.mark.parametrize(
    ("cost", "right", "worst"),
    [
        (ErrorRate(), 0, 1),
        (Refusal(on_clean=3.0, on_attacked=0.5), 0, 3),
        (CostMatrix([[0.25 if i == j else 2.0 for j in range(10)] for i in range(10)]), 0.25, 2),
        (Negation(Negation(ErrorRate())), 0, 1),
        (QueryPrice(ErrorRate()), None, None),
    ],
)
def test_the_most_that_can_be_lost_is_the_worst_answer_that_is_possible(cost, right, worst):
    scoring = moves(PLAIN, defenders=cost)[0].scoring
    constant = ModuleClassifier(Constant([1.0, *[0.0] * 9]), 10)
    nothing = torch.zeros(0, dtype=torch.int64)
    certified = torch.arange(40) < 7
    committed = replace(scoring.committed(Entry(constant, nothing, nothing)), certified=certified)
    most = scoring.most(committed)
    if right is None:
        assert most is None
    else:
        assert most.tolist() == [right] * 7 + [worst] * 33


def test_a_mistake_where_there_is_none_stops_everything(tmp_path, monkeypatch):
    play = roster(CERTIFIED)

    def certain(self, given, actions):
        return torch.ones(len(given), dtype=torch.bool)

    monkeypatch.setattr(type(made(play, "A")), "certified", certain)
    with pytest.raises(Refuted, match="is certified to be answered"):
        played(play, Cells(tmp_path / "cells"))
