"""A second game plays in every study and is scored by its own rules."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from poisoning import FlipFirst, Flips, Poisoning, PoisoningBoard
from small import LINEAR, attacker, defender, evasion, retrain

from arena import Arena, Knowledge, MoveOrder, Player
from arena.actions.decisions import Confidence
from arena.costs import ErrorRate, Negation
from arena.data.digits import Digits
from arena.defenses.decision_tree import DecisionTree
from arena.defenses.erm import ERM
from arena.defenses.linear_svm import LinearSVM
from arena.empirical.replies import Replies
from arena.empirical.trained import Trained
from arena.executors.executor import Serial
from arena.games.evasion import Evasion, EvasionBoard
from arena.games.game import Entry, Scores
from arena.games.matrix import MatrixBoard, MatrixCost, MatrixGame, Mix, Mixtures
from arena.store import Store
from arena.studies.double_oracle import DoubleOracle
from arena.studies.match import Match
from arena.studies.payoffs import Payoffs
from arena.studies.repeated_play import RepeatedPlay
from arena.studies.roster import Attack, Defense
from arena.studies.study import Setup
from arena.studies.who_moves_first import WhoMovesFirst

ERROR = ErrorRate()
GAME = Poisoning(Digits())
TRAINER = ERM(LINEAR, epochs=30)
ORDERS = {
    "attacker first": MoveOrder.attacker_first(),
    "at once": MoveOrder.simultaneous(),
    "defender first": MoveOrder.defender_first(),
}


def players(strategy=TRAINER, eps=0.9):
    return {
        "attacker": Player(Flips(eps), Negation(ERROR), Knowledge(), FlipFirst()),
        "defender": Player(Confidence(), ERROR, Knowledge(), strategy),
    }


def own_error(strategy, eps, seed, derived):
    """The error on test rows of a model that is trained on poisoned labels, worked out here."""
    board = GAME.deal(players(), seed)
    y = board.training.y.clone()
    few = int(eps * len(y))
    y[:few] = (y[:few] + 1) % 10
    model = strategy.train(replace(board.training, y=y), derived)
    return (model.labels(board.test.x) != board.test.y).double()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("strategy", [TRAINER, LinearSVM(), DecisionTree()], ids=type)
def test_what_a_poisoner_plays_is_what_the_defender_trains_on(strategy, order):
    payoffs = {}
    for eps in (0.0, 0.9):
        arena = Arena(GAME, players(strategy, eps), ORDERS[order])
        (record,) = arena.play(1)
        payoffs[eps] = record.payoffs["defender"]
        seed = arena._past.standing["defender"].seed
        expected = own_error(strategy, eps, 0, seed)
        assert torch.equal(record.costs["defender"], expected)
        assert record.zero_sum and record.metrics == {"test_error": float(expected.mean())}
    assert payoffs[0.9] < payoffs[0.0] - 0.3


def test_it_resumes_to_the_same_bits():
    def begun():
        return Arena(GAME, players(), MoveOrder.defender_first())

    whole = [record.line() | {"seconds": 0} for record in begun().play(3)]
    first = begun()
    list(first.play(1))
    again = begun()
    again.load_state_dict(first.state_dict())
    assert [record.line() | {"seconds": 0} for record in again.play(3)] == whole[1:]


def setup(folder, **changed):
    folder.mkdir(exist_ok=True)
    made = Setup(
        GAME, players(), MoveOrder.defender_first(), 0, 1024, folder, Store(folder / "kept"), {}
    )
    return replace(made, **changed)


def test_it_plays_in_a_match_and_in_who_moves_first(tmp_path, capsys):
    Match(rounds=2).run(setup(tmp_path / "match"))
    assert "test error" in capsys.readouterr().out
    WhoMovesFirst(rounds=2, seeds=2).run(setup(tmp_path / "orders"))
    out = capsys.readouterr().out
    assert "error on test rows" in out and "Values by protocol" in out
    lines = (tmp_path / "orders" / "defender_first" / "seed-1" / "rounds.jsonl").read_text()
    for line in map(json.loads, lines.splitlines()):
        assert line["payoffs"]["defender"] == -line["metrics"]["test_error"]


def test_payoffs_are_its_own_score(tmp_path, capsys):
    study = Payoffs(
        title="Poisoning",
        defenses={"longer": Defense(ERM(LINEAR, epochs=40)), "tree": Defense(DecisionTree())},
        attacks={"flips": Attack(FlipFirst(), Knowledge())},
        executor=Serial(),
    )
    study.run(setup(tmp_path / "run"))
    out = capsys.readouterr().out
    assert "60 test rows per seed" in out and "Missing" not in out
    from arena.empirical.saved import load

    game = load(tmp_path / "run" / "game-seed-0.safetensors")
    derived = Arena(GAME, players(), MoveOrder.defender_first()).derived_seed(0, 0, "defender")
    for name, strategy in (("longer", ERM(LINEAR, epochs=40)), ("tree", DecisionTree())):
        cost = game.costs["defender"][game.models.index(name), game.attacks.index("flips")]
        np.testing.assert_array_equal(cost, own_error(strategy, 0.9, 0, derived).numpy())


@pytest.mark.parametrize("study", [DoubleOracle, RepeatedPlay])
def test_adaptive_play_needs_nothing_but_replies(study, tmp_path, capsys):
    length = {"iterations": 2} if study is DoubleOracle else {"rounds": 2}
    study(Replies(fresh_tries=1), **length).run(setup(tmp_path / "run"))
    assert "lower bound" in capsys.readouterr().out.replace("\n", " ")
    name = "payoffs.csv" if study is DoubleOracle else "cross_play.csv"
    assert (tmp_path / "run" / name).is_file()


@pytest.mark.parametrize("order", ORDERS)
def test_replies_to_evasion_are_attacks_on_its_models(order):
    """Whatever the order of the match, a reply is made to the moves that stand."""
    arena = Arena(
        Evasion(Digits(), examples=40),
        {"attacker": attacker(), "defender": defender(TRAINER)},
        ORDERS[order],
    )
    oracles = Replies().oracles(arena)
    model, honest = oracles.opening()
    reply = oracles.attack({model: 1.0}, 0)
    clean, attacked = (oracles.costs(model, each)["defender"].mean() for each in (honest, reply))
    assert attacked > clean + 0.3
    assert oracles.attack({model: 1.0}, 0) == reply
    assert oracles.costs(model, reply).keys() == {"attacker", "defender"}


def test_a_reply_sees_what_the_moves_that_stand_reveal():
    arena = evasion(attacker(), defender(retrain()), "attacker_first")
    dealt = arena.board.dealt.x
    nothing = torch.zeros(len(dealt), dtype=torch.int64)
    models = [
        arena.reply("defender", {"attacker": Entry(x, nothing, nothing)}).move.state()
        for x in (dealt, (dealt + 0.15).clamp(max=1.0))
    ]
    assert not torch.equal(*(next(iter(state.values())) for state in models))


@dataclass(frozen=True)
class Growing(PoisoningBoard):
    """A poisoning game in which the defender gets ten rows more in every round."""

    def data(self, player, past):
        rows = (
            50 + 10 * past.made.get("attacker", 0) if player == "defender" else len(self.training)
        )
        return super().data(player, past)[:rows]


def test_what_a_player_works_on_may_grow():
    @dataclass(frozen=True)
    class GrowingGame(Poisoning):
        def deal(self, players, seed):
            return Growing(**vars(super().deal(players, seed)))

    arena = Arena(GrowingGame(Digits()), players(eps=0.0), MoveOrder.attacker_first())
    assert len(list(arena.play(4))) == 4


def test_a_player_without_an_opening_replies_to_nobody():
    """Of a game without openings, the defender's first move sees nobody's."""
    pennies = ((1.0, -1.0), (-1.0, 1.0))
    rivals = {
        name: Player(Mixtures(2), MatrixCost(pennies), Knowledge(), Mix((0.5, 0.5)))
        for name in ("attacker", "defender")
    }
    for order in ORDERS.values():
        arena = Arena(NoOpening(), rivals, order)
        model, attack = Replies().oracles(arena).opening()
        assert model.startswith("model") and attack.startswith("attack")


class NoOpening(MatrixGame):
    """A matrix game in which nothing stands before the first round."""

    def deal(self, players, seed):
        return NothingStands(players)


class NothingStands(MatrixBoard):
    """As dealt above."""

    def opening(self, player):
        return None


HOW = Trained(inner=attacker().strategy, stronger=attacker().strategy)


def test_searching_and_training_as_in_evasion_is_refused_by_name(tmp_path):
    with pytest.raises(
        ValueError, match=r"Poisoning has data or a score of its own.*study/responding=replies"
    ):
        DoubleOracle(HOW).run(setup(tmp_path / "run"))
    assert not list((tmp_path / "run").rglob("*.safetensors"))


@dataclass(frozen=True)
class Forgiving(EvasionBoard):
    """Evasion in which every second input is free."""

    def score(self, moves):
        costs = super().score(moves).costs
        free = torch.arange(self.units) % 2 == 0
        return Scores({name: torch.where(free, 0.0, cost) for name, cost in costs.items()})

    def describe(self, moves, scores):
        return super().describe(moves, super().score(moves))


@dataclass(frozen=True)
class ForgivingEvasion(Evasion):
    """Deals the above."""

    def deal(self, players, seed):
        return Forgiving(**vars(super().deal(players, seed)))


def test_a_subclass_of_evasion_is_scored_by_its_own_rules(tmp_path):
    own = {"attacker": attacker(), "defender": defender(TRAINER, knowledge=Knowledge())}
    game = ForgivingEvasion(Digits(), examples=40)
    at = setup(tmp_path / "run", game=game, players=own)
    study = Payoffs(
        title="Forgiving",
        defenses={"plain": Defense(TRAINER)},
        attacks={"PGD": Attack(own["attacker"].strategy)},
        executor=Serial(),
    )
    study.run(at)
    from arena.empirical.saved import load

    cost = load(tmp_path / "run" / "game-seed-0.safetensors").costs["defender"]
    assert (cost[..., ::2] == 0).all() and cost[..., 1::2].mean() > 0.2
    with pytest.raises(ValueError, match="ForgivingEvasion has data or a score of its own"):
        DoubleOracle(HOW).run(at)
