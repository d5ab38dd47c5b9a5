"""Best responses that are searched for and trained, in an evasion game as dealt.

An attacker's move is a **policy**: an attack, and the mixture of models that it is crafted against.
So it can be played on any inputs: on the half that is scored, which makes its payoffs, and on the
defender's training data, which a defender who answers it trains on. No scored input is ever trained
on. A defender's move is a model; its best response to a mixture of policies is one trained on what
they make of its training data (`StaticTraining`).

What is trained or crafted is kept by what it is made of (`Store`), and so is what a move costs on
another (`Cells`). A run that was broken off, or is to be longer, goes through the same moves again
and finds them.
"""

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from arena import chance
from arena.attacks.engines.averaged import Combined
from arena.attacks.engines.expectation import Expectation
from arena.classification import Classifier
from arena.core import Labelled, Player, Strategy, Task, Turn
from arena.defenses.inner import check_attack
from arena.defenses.retrain import Retrain
from arena.defenses.static_training import Faced, answering, check_recipe
from arena.empirical.cells import Cells, Costs
from arena.empirical.game import PLAYERS
from arena.empirical.keys import Keys
from arena.empirical.moves import Crafted, Model
from arena.empirical.oracles import Mixture, Oracles, checked
from arena.fields import Count, Declared, Positive, Share
from arena.games.evasion import EvasionBoard
from arena.games.scoring import Committed
from arena.knowledge import REFUSED, Ledger, View
from arena.store import Place, Store, fingerprint
from arena.training.trainer import Trainer

_LEAST = 5e-3  # of a mixture's weights: what is less likely costs as much to answer


@dataclass(frozen=True)
class Responding(Declared):
    """How both players respond.

    Attributes:
        own: Share of the defender's minibatches that are attacked as a white box of the model in
            training, rather than by the policies that it answers.
        inner: The attack that then plays.
        averages: On which averages over the defender's mixture the attacker's attack is played.
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

    def check(self, players: Mapping[str, Player], classes: int) -> None:
        """Checks that both players can respond to mixtures.

        Raises:
            ValueError: If the costs of an answer do not sum to 0; if the attacker does not see
                models, or plays what is no attack on one; if the defender's strategy is no training
                that can answer policies.
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
        board: The game as dealt.
        how: How both respond.
        batch_size: The most examples that an attack puts through a model at once.
        store: Where models, crafted inputs and costs are kept; None: nowhere.
        seed: Of the opening model.
    """

    def __init__(
        self, board: EvasionBoard, how: Responding, batch_size: int, store: Store | None, seed: int
    ) -> None:
        self._board, self._how, self._batch_size, self._store = board, how, batch_size, store
        self._seed = seed
        self._attacker = board.players["attacker"]
        self._recipe = recipe_of(board.players["defender"].strategy)
        self._scored = board.dealt[board.scored]
        self._training = board.training[: how.training] if how.training else board.training
        self._data = {
            "scored": fingerprint(self._scored.x, self._scored.y),
            "training": fingerprint(self._training.x, self._training.y),
        }
        self._cells = None if store is None else Cells.beside(store.folder)
        self._keys = Keys(board.scoring)
        self._classifiers: dict[str, Classifier] = {}
        self._models: dict[str, Model] = {}
        self._committed: dict[str, Committed] = {}
        self._policies: dict[str, Policy] = {}
        self._attacks: dict[str, Crafted] = {}
        self._costs: dict[tuple[str, str], Costs] = {}

    @property
    def examples(self) -> int:
        """The scored half."""
        return len(self._scored)

    def opening(self) -> tuple[str, str]:
        """A model trained as if nobody attacked, and honest inputs."""
        honest = self._known(Policy(None, (), (), False, 0))
        return self.defend({honest: 1.0}, chance.seed_of(self._seed, "opening")), honest

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
        if name not in self._models:
            self._classifiers[name], self._models[name] = model, Model(self._recipe, state)
        return name

    def costs(self, model: str, attack: str) -> Mapping[str, Costs]:
        """What the scored half costs, by the rules of the game."""
        cell = model, attack
        if cell not in self._costs:
            key = self._keys.cell(self._models[model], self._attacks[attack])
            kept = self._cells.find([key]) if self._cells and key else None
            costs = self._played(*cell) if kept is None else kept.costs[:, 0]
            if broken := int(np.isnan(costs[0]).sum()):
                raise ValueError(f"{broken} inputs got NaN or infinite logits: {attack} on {model}")
            if kept is None and self._cells and key:
                self._cells.keep({key: costs})
            self._costs[cell] = costs
        return dict(zip(PLAYERS, self._costs[cell], strict=True))

    def _played(self, model: str, attack: str) -> Costs:
        """Each player's costs, [P, E], by a pass of the scored inputs."""
        scoring = self._board.scoring
        if model not in self._committed:
            self._committed[model] = scoring.committed(self._classifiers[model])
        crafted = self._attacks[attack]
        sent = scoring.sent(crafted.x, crafted.queries, crafted.gradients)
        found = scoring.costs(scoring.outcome(self._committed[model], sent))
        return np.stack([found[player].numpy() for player in PLAYERS])

    def against(self, attack: str) -> str | None:
        """The model, where the policy is crafted against one alone."""
        models = self._policies[attack].models
        return models[0][0] if len(models) == 1 else None

    def _known(self, policy: Policy) -> str:
        """The policy's name, once it is known how it plays the scored half, legally."""
        name = policy.name
        if name not in self._policies:
            self._policies[name] = policy
            dealt, rows = self._board.dealt, self._board.scored
            x = dealt.x.index_copy(0, rows, self._crafted(policy, "scored"))
            ledger = Ledger(len(dealt), None, dealt.x.device)
            legal = self._board.check("attacker", x)
            self._attacks[name] = Crafted(legal, ledger.queries, ledger.gradients)
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
