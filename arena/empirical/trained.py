"""Best responses that are searched for and trained, in an evasion game as dealt.

An attacker's move is a **policy**: an attack, and the mixture of models that it is crafted against.
A policy can be played on any inputs. On the scored inputs it makes the attacker's payoffs. On the
defender's training data it makes what a defender who answers it trains on. No scored input is ever
trained on. A defender's move is a model; its best response to a mixture of policies is a model
trained on what they make of its training data (`StaticTraining`).

Models and crafted inputs are kept by what they are made of (`Store`), and costs by what decides
them (`Cells`). A run that was interrupted, or is extended, goes through the same moves again and
finds them.
"""

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from arena import chance
from arena.arena import Arena
from arena.attacks.engines.averaged import Combined
from arena.attacks.engines.expectation import Expectation
from arena.classification import Classifier
from arena.core import Idle, Labelled, Player, Strategy, Task, Turn
from arena.defenses.inner import check_attack
from arena.defenses.retrain import Retrain
from arena.defenses.static_training import Faced, answering, check_recipe
from arena.empirical.cells import Cells, Costs
from arena.empirical.moves import KeptMove
from arena.empirical.oracles import Mixture, Oracles, Responding, checked
from arena.empirical.played import PlayedCells
from arena.fields import Count, Positive, Share
from arena.games.evasion import EvasionBoard
from arena.games.game import Board
from arena.knowledge import REFUSED, View
from arena.store import Place, fingerprint
from arena.training.trainer import Trainer

_LEAST = 5e-3  # of a mixture's weights: what is less likely costs as much to answer


@dataclass(frozen=True)
class Trained(Responding):
    """The attacker searches and the defender trains; for games that score as evasion does.

    Attributes:
        own: Share of the defender's minibatches that are attacked as a white box of the model in
            training, rather than by the policies that it answers.
        inner: The attack that then plays.
        averages: The averages over the defender's mixture on which the attacker's attack is played.
        alone: Whether it is also played on each of the mixture's models alone.
        training: The most of the defender's training examples that it uses; null uses all.
        stronger: The attack of fresh best responses.
        longer: How many times its epochs the defender trains for a fresh best response.
    """

    inner: Strategy
    stronger: Strategy
    own: Share = 0.0
    averages: tuple[Literal["logits", "probabilities", "losses"], ...] = ("probabilities", "losses")
    alone: bool = True
    training: Count | None = None
    longer: Positive = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        Expectation(self.stronger, self.averages, self.alone)

    def oracles(self, arena: Arena, cells: Cells | None = None) -> "TrainedOracles":
        """The oracles of a match of evasion.

        Raises:
            ValueError: If the game is not scored as evasion is; if the costs of an answer do not
                sum to 0; if the attacker does not see models, or plays something other than an
                attack on one; if the defender's strategy is no training that can answer policies.
        """
        board = arena.board
        if not _as_evasion(board):
            raise ValueError(
                f"{type(arena.game).__name__} has data or a score of its own, and these best "
                "responses attack and train as in evasion; use study/responding=replies"
            )
        assert isinstance(board, EvasionBoard)
        self.check(arena.players, board.dealt.classes)
        return TrainedOracles(arena, self, cells)

    def check(self, players: Mapping[str, Player], classes: int) -> None:
        """Checks that both players can respond to mixtures.

        Raises:
            ValueError: If they cannot, see `oracles`.
        """
        attacker, defender = players["attacker"], players["defender"]
        y = torch.arange(classes)
        answers = torch.cat([y, torch.tensor([REFUSED])])
        try:
            ours, theirs = (
                p.cost.answered(answers[None], y[:, None]) for p in (attacker, defender)
            )
            opposed = bool((ours + theirs == 0).all())
        except NotImplementedError:
            opposed = False
        if not opposed:
            raise ValueError(
                f"the attacker's {type(attacker.cost).__name__} and the defender's "
                f"{type(defender.cost).__name__} do not sum to 0 for every answer; mixtures are "
                "solved for zero-sum games: use attacker/cost=negation"
            )
        if not attacker.knowledge.parameters:
            raise ValueError(
                "the attacker best-responds to models that it sees; use "
                "attacker/knowledge=white_box"
            )
        for attack in (attacker.strategy, self.stronger):
            Expectation(attack).check(attacker)
        check_attack(self.inner)
        self.inner.check(attacker)
        check_recipe(recipe_of(defender.strategy))


def _as_evasion(board: Board) -> bool:
    """Whether data and score are those of evasion: a subclass may have changed them."""
    return isinstance(board, EvasionBoard) and all(
        getattr(type(board), name) is getattr(EvasionBoard, name) for name in ("data", "score")
    )


def recipe_of(strategy: Strategy) -> Trainer:
    """How a defender trains.

    Raises:
        ValueError: If it does not.
    """
    recipe = strategy.recipe if isinstance(strategy, Retrain) else strategy
    if not isinstance(recipe, Trainer):
        raise ValueError(
            f"the defender best-responds by training, and {type(strategy).__name__} is no way of "
            "training; use defender/strategy=erm"
        )
    return recipe


@dataclass(frozen=True)
class Policy:
    """An attack on a mixture of models, by their names; on none, honest inputs."""

    attack: Strategy | None
    models: tuple[tuple[str, float], ...]
    averages: tuple[Combined, ...]
    alone: bool
    seed: int

    @property
    def name(self) -> str:
        """Its own, a hash of what it is made of."""
        return "attack " + _hash(self)


class TrainedOracles(Oracles):
    """Search and training as oracles.

    Args:
        arena: The match, of an evasion game.
        how: How both respond.
        cells: Where costs are kept; None: nowhere.
    """

    def __init__(self, arena: Arena, how: Trained, cells: Cells | None) -> None:
        board = arena.board
        assert isinstance(board, EvasionBoard)
        self._board, self._how, self._cells = board, how, cells
        self._batch_size, self._store = arena.batch_size, arena.store
        self._first = arena.derived_seed("opening")
        self._attacker = board.players["attacker"]
        self._recipe = recipe_of(board.players["defender"].strategy)
        self._scored = board.dealt[board.scored]
        self._training = board.training[: how.training] if how.training else board.training
        self._data = {
            "scored": fingerprint(self._scored.x, self._scored.y),
            "training": fingerprint(self._training.x, self._training.y),
        }
        self._classifiers: dict[str, Classifier] = {}
        self._policies: dict[str, Policy] = {}
        self._played = PlayedCells(board, cells)

    @property
    def examples(self) -> int:
        """The scored inputs."""
        return self._board.units

    def opening(self) -> tuple[str, str]:
        """A model trained as if nobody attacked, and honest inputs."""
        honest = self._known(Policy(None, (), (), False, 0))
        return self.defend({honest: 1.0}, self._first), honest

    def attack(self, models: Mixture, seed: int, fresh: bool = False) -> str:
        """The policy that plays the attacker's strategy, or the stronger one, on the mixture."""
        how = self._how
        attack = how.stronger if fresh else self._attacker.strategy
        support = tuple(sorted(_kept(models).items()))
        return self._known(Policy(attack, support, how.averages, how.alone, seed))

    def defend(self, attacks: Mixture, seed: int, fresh: bool = False) -> str:
        """A model trained on what the mixture's policies make of the training data."""
        how, data = self._how, self._training
        faced = tuple(
            Faced(self._crafted(self._policies[name], "training"), f"{name} of this set", weight)
            for name, weight in sorted(_kept(attacks).items())
        )
        longer = how.longer if fresh else 1.0
        training = answering(self._recipe, faced, how.own, how.inner, longer)
        player = self._attacker
        task = Task(data.shape, data.classes, data.box, player.actions, player.cost)
        model = training.train(data, seed, task, store=self._store)
        state = model.state()
        name = "model " + fingerprint(*state.values())[:16]
        self._classifiers.setdefault(name, model)
        self._played.add(name, KeptMove.of("defender", self._recipe, state))
        return name

    def costs(self, model: str, attack: str) -> Mapping[str, Costs]:
        """The costs of the scored inputs, by the rules of the game."""
        return self._played.costs(model, attack)

    def against(self, attack: str) -> str | None:
        """The model, where the policy is crafted against one alone."""
        models = self._policies[attack].models
        return models[0][0] if len(models) == 1 else None

    def _known(self, policy: Policy) -> str:
        """The policy's name, once its moves on the scored inputs are made and found legal."""
        name = policy.name
        if name not in self._policies:
            self._policies[name] = policy
            board, dealt = self._board, self._board.dealt
            x = dealt.x.index_copy(0, board.scored, self._crafted(policy, "scored"))
            nothing = torch.zeros(len(dealt), dtype=torch.int64, device=dealt.x.device)
            packed = board.pack("attacker", board.check("attacker", x))
            attack = policy.attack or Idle()
            self._played.add(name, KeptMove("attacker", attack, packed, nothing, nothing))
        return name

    def _crafted(self, policy: Policy, part: str) -> Tensor:
        """What a policy makes of some data, [N, ...]."""
        data = self._scored if part == "scored" else self._training
        if policy.attack is None:
            return data.x
        player = self._attacker
        recipe = {"policy": policy, "player": (player.actions, player.cost)}
        recipe |= {"data": self._data[part], "batch_size": self._batch_size}
        with self._place(recipe) as place:
            if place.finished is not None:
                return place.finished["x"]
            x = self._craft(policy, data, chance.seed_of(policy.seed, part))
            place.finish({"x": x})
            return x

    def _place(self, recipe: Mapping[str, Any]) -> AbstractContextManager[Place]:
        if self._store is None:
            return nullcontext(Place())
        return self._store.place(recipe, self._scored.x.device)

    def _craft(self, policy: Policy, data: Labelled, seed: int) -> Tensor:
        assert policy.attack is not None

        def look(opponent: str, kind: type[View]) -> View:
            raise PermissionError(f"{kind.__name__} of {opponent}: the attack shows what is seen")

        turn = Turn(
            player=replace(self._attacker, strategy=policy.attack),
            round=0,
            data=data,
            aside=None,
            last=None,
            seed=seed,
            batch_size=self._batch_size,
            look=look,
        )
        models = [self._classifiers[name] for name, _ in policy.models]
        weights = [weight for _, weight in policy.models]
        reply = Expectation(policy.attack, policy.averages, policy.alone)
        return reply.respond(models, weights, turn).detach()


def _kept(mixture: Mixture) -> dict[str, float]:
    """The mixture without what is too unlikely to be worth an answer."""
    kept = {name: weight for name, weight in checked(mixture).items() if weight >= _LEAST}
    total = sum(kept.values())
    return {name: weight / total for name, weight in kept.items()}


def _hash(policy: Policy) -> str:
    return hashlib.sha256(repr(policy).encode()).hexdigest()[:16]
