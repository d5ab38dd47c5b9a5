"""A poisoning game as a user would write it: it owns its data and its score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from arena import (
    ActionSpace,
    Board,
    Game,
    IllegalMove,
    Labelled,
    Player,
    Strategy,
    View,
    chance,
)
from arena.classification import Answers, Outcome
from arena.core import Task
from arena.data.source import Source
from arena.defenses.constant import Constant
from arena.fields import Count, Share
from arena.games.algorithm import Algorithm
from arena.games.game import Description, Entry, Measure, Past, Scores


@dataclass(frozen=True)
class Flips(ActionSpace):
    """Other labels for at most a share of the training rows."""

    eps: Share = 0.1

    def contains(self, given: Labelled, output: Tensor) -> Tensor:
        few = int((output != given.y).sum()) <= self.eps * len(given)
        return torch.tensor([few and bool((output >= 0).all() & (output < given.classes).all())])

    def sample(self, given: Labelled, key: Tensor) -> Tensor:
        return given.y


@dataclass(frozen=True)
class FlipFirst(Strategy):
    """Calls the first rows by the next class."""

    def respond(self, turn):
        y = turn.data.y.clone()
        few = int(turn.player.actions.eps * len(y))
        y[:few] = (y[:few] + 1) % turn.data.classes
        return y


@dataclass(frozen=True)
class Poisoning(Game):
    """The attacker changes training labels; the defender commits to how it trains.

    Attributes:
        source: The data.
        rows: How many training rows there are.
        tested: How many rows are scored.
    """

    source: Source
    rows: Count = 200
    tested: Count = 60

    players: ClassVar[tuple[str, ...]] = ("attacker", "defender")
    unit: ClassVar[str] = "test row"
    measures: ClassVar[tuple[Measure, ...]] = (Measure("test_error", "error on test rows"),)

    def grants(self, viewer: Player, opponent: Player, kind: type[View]) -> str | None:
        return None if kind is View else "poisoning shows facts only"

    def idle(self, player: str) -> Strategy:
        return Constant() if player == "defender" else super().idle(player)

    def deal(self, players: Mapping[str, Player], seed: int) -> "PoisoningBoard":
        data, _ = self.source.load()
        generator = torch.Generator().manual_seed(chance.seed_of(chance.secret(seed), "deal"))
        data = data[torch.randperm(len(data), generator=generator)]
        return PoisoningBoard(players, data[: self.rows], data[self.rows :][: self.tested])


@dataclass(frozen=True)
class PoisoningBoard(Board):
    """Training rows that may be poisoned, and test rows."""

    players: Mapping[str, Player]
    training: Labelled
    test: Labelled

    @property
    def units(self) -> int:
        return len(self.test)

    def data(self, player: str, past: Past) -> Labelled:
        poisoned = player == "defender" and "attacker" in past.standing
        return replace(self.training, y=past.standing["attacker"]) if poisoned else self.training

    def asked(self, player, turn):
        if player == "attacker":
            return turn.player.strategy.respond(turn)
        return Algorithm(turn.player.strategy, turn.seed)

    def opening(self, player):
        return self.training.y if player == "attacker" else None

    def check(self, player, move):
        space = self.players["attacker"].actions
        if player == "attacker" and not bool(space.contains(self.training, move)):
            raise IllegalMove(f"attacker's labels are outside {space}")
        return move

    def view(self, viewer, opponent, kind, past, ledger, meter):
        rival = self.players[opponent]
        data = self.training
        task = Task(data.shape, data.classes, data.box, rival.actions, rival.cost)
        return View(opponent, self.players[viewer].knowledge, {"task": task})

    def score(self, moves: Mapping[str, Entry]) -> Scores:
        poisoned = replace(self.training, y=moves["attacker"].move)
        model = moves["defender"].move.on(poisoned, self.players["defender"])
        answers = Answers(model.labels(self.test.x))
        nothing = torch.zeros_like(self.test.y)
        outcome = Outcome(self.test.y, answers, answers, nothing.bool(), nothing, nothing)
        costs = {name: player.cost(outcome).double() for name, player in self.players.items()}
        return Scores(costs)

    def describe(self, moves, scores) -> Description:
        return Description({"test_error": float(scores.costs["defender"].mean())})

    def content(self) -> Sequence[Any]:
        return [self.training.x, self.training.y, self.test.x, self.test.y]

    def pack(self, player, move):
        return {"y": move} if player == "attacker" else {"seed": torch.tensor(move.seed)}

    def unpack(self, player, packed, strategy):
        return packed["y"] if player == "attacker" else Algorithm(strategy, int(packed["seed"]))
