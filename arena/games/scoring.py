"""How evasion is scored: what the model alone decides, what the attack alone, and what both do.

Where many attacks meet many models, each cell takes one pass of the scored inputs per draw of the
defender's coins: the rest is computed once per model (`Committed`) or once per attack (`Sent`).

**Coins.** A random defender answers with coins that come from the match's secret: no view, turn or
seed lets them out, so no attacker can choose among them. It is scored over several draws. An
attacker who may present an input k times wins if any presentation does. From D >= k draws, sorted
by the attacker's cost, the expected outcome of the best of k is estimated without bias: the j-th
best draw (from 0) counts with weight C(D - 1 - j, k - 1) / C(D, k), the probability that it is the
best of k draws taken without replacement. For success probability p its expectation is
1 - (1 - p)^k exactly.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from arena import chance
from arena.classification import Answers, Classifier, Outcome, Refuted
from arena.core import IllegalMove, Labelled, Player, first
from arena.costs import AnswerCost, Negation
from arena.games.game import Entry, Scores
from arena.knowledge import INVALID, REFUSED, Random


@dataclass(frozen=True)
class Committed(Entry):
    """A defender's entry, and what is known of its model before anybody attacks.

    Attributes:
        clean: Its answers to the n scored inputs as they were dealt, for each draw of its coins.
        certified: Whether [n] it is proved that no legal move makes it err; None: nothing is.
    """

    clean: tuple[Answers, ...]
    certified: Tensor | None


@dataclass(frozen=True)
class Sent(Entry):
    """An attacker's entry, and the scored part of it.

    Attributes:
        x: Inputs [n, ...].
        y: Their true labels [n].
        changed: Whether [n] they are not what was dealt.
        asked: Queries about each, [n].
        differentiated: Gradients of each, [n].
        price: Of each [n], in the units of the attacker's space.
    """

    x: Tensor
    y: Tensor
    changed: Tensor
    asked: Tensor
    differentiated: Tensor
    price: Tensor


@dataclass(frozen=True)
class EvasionScores(Scores):
    """Costs, and the outcomes that they were computed from.

    Attributes:
        outcomes: One for each draw of the defender's coins.
        weights: How much each draw counts on each example, float64 [draws, n], summing to 1.
    """

    outcomes: tuple[Outcome, ...] = ()
    weights: Tensor | None = None

    def mean(self, flags: list[Tensor]) -> float:
        """The weighted mean of one flag [n] for each draw."""
        assert self.weights is not None
        return float((self.weights * torch.stack(flags).double()).sum(0).mean())


@dataclass(frozen=True)
class Scoring:
    """The players' stakes, and the inputs that are scored.

    Attributes:
        players: Their actions and costs count.
        dealt: What the attacker was dealt.
        scored: The rows [n] of it that are scored.
        batch_size: Most examples in one pass.
        coins: Seed of a random defender's coins.
        draws: How many draws of them are made.
        presentations: How often the attacker may present each input.
    """

    players: Mapping[str, Player]
    dealt: Labelled
    scored: Tensor
    batch_size: int
    coins: int = 0
    draws: int = 1
    presentations: int = 1

    def committed(self, entry: Entry) -> Committed:
        """The defender's entry with its clean answers and its certificates.

        Raises:
            ValueError: If it has no finite answer to an input as it was dealt.
        """
        if isinstance(entry, Committed):
            return entry
        model: Classifier = entry.move
        given = self._given
        clean = tuple(self._answers(model, given.x, draw) for draw in self._draws(model))
        for answers in clean:
            if (i := first(answers.labels == INVALID)) is not None:
                raise ValueError(
                    "the defender's logits are NaN or infinite on clean input "
                    f"{int(self.scored[i])}: repair the model before it plays"
                )
        certified = model.certified(given, self.players["attacker"].actions)
        return Committed(**vars(entry), clean=clean, certified=certified)

    def sent(self, entry: Entry) -> Sent:
        """The attacker's entry with the scored part of its legal inputs."""
        if isinstance(entry, Sent):
            return entry
        rows, actions, x = self.scored, self.players["attacker"].actions, entry.move
        own = x[rows]
        return Sent(
            **vars(entry),
            x=own,
            y=actions.truth(self.dealt, x)[rows],
            changed=(own != self._given.x).flatten(1).any(1),
            asked=entry.queries.to(rows.device)[rows],
            differentiated=entry.gradients.to(rows.device)[rows],
            price=actions.price(self.dealt, x)[rows],
        )

    def score(self, committed: Committed, sent: Sent) -> EvasionScores:
        """What the model's answers to what was sent cost: one pass for each draw of its coins.

        Raises:
            IllegalMove: If an answer is outside the defender's space.
            Refuted: If a mistake was made on an example that is certified to allow none.
        """
        outcomes = tuple(
            self._outcome(committed, sent, draw, clean)
            for draw, clean in enumerate(committed.clean)
        )
        costs = {
            name: torch.stack([player.cost(each).double() for each in outcomes])
            for name, player in self.players.items()
        }
        weights = self._weights(costs["attacker"])
        certified = None if committed.certified is None else committed.certified.cpu()
        return EvasionScores(
            costs={name: (weights * cost).sum(0).cpu() for name, cost in costs.items()},
            certified=certified,
            outcomes=outcomes,
            weights=weights,
        )

    def most(self, committed: Committed) -> Tensor | None:
        """The most that the defender can lose on each example, float64 [n] on the CPU.

        Where the answer is certified, that of the true answer; elsewhere, that of the worst one.
        None where the cost is not one of truth and answer alone.
        """
        cost = self.players["defender"].cost
        inner = cost
        while isinstance(inner, Negation):
            inner = inner.of
        if not isinstance(inner, AnswerCost):
            return None
        y = self._given.y
        nothing = torch.zeros_like(y)
        certified = nothing.bool() if committed.certified is None else committed.certified
        found = []
        for label in (INVALID, REFUSED, *range(self.dealt.classes)):
            answers = Answers(torch.full_like(y, label))
            possible = ~certified | (answers.labels == y)
            for changed in (False, True):
                moved = torch.full_like(certified, changed)
                outcome = Outcome(y, committed.clean[0], answers, moved, nothing, nothing)
                found.append(torch.where(possible, cost(outcome).double(), -torch.inf))
        return torch.stack(found).amax(0).cpu()

    @cached_property
    def _given(self) -> Labelled:
        return self.dealt[self.scored]

    def _draws(self, model: Classifier) -> range:
        """One draw for a model without coins: all would be the same."""
        return range(self.draws if isinstance(model, Random) else 1)

    def _weights(self, costs: Tensor) -> Tensor:
        """How much each draw counts, [D, n], for an attacker of these costs [D, n]."""
        draws, k = len(costs), min(self.presentations, len(costs))
        best = [math.comb(draws - 1 - j, k - 1) / math.comb(draws, k) for j in range(draws)]
        ranked = torch.tensor(best, dtype=torch.float64, device=costs.device)
        place = costs.argsort(dim=0, stable=True)
        return torch.zeros_like(costs).scatter_(0, place, ranked[:, None].expand_as(costs))

    def _outcome(self, committed: Committed, sent: Sent, draw: int, clean: Answers) -> Outcome:
        attacked = self._answers(committed.move, sent.x, draw)
        self._check_legal(attacked, sent.x)
        self._check_certified(attacked, committed)
        return Outcome(
            y=sent.y,
            clean=clean,
            attacked=attacked,
            changed=sent.changed,
            queries=sent.asked,
            gradients=sent.differentiated,
            price=sent.price,
        )

    def _answers(self, model: Classifier, x: Tensor, draw: int) -> Answers:
        """Answers to the scored inputs, or to what was made of them, by a draw of the coins."""
        parts = []
        rows = torch.arange(len(x), device=x.device)
        for part in torch.split(rows, self.batch_size):
            asked: Any = model
            if isinstance(model, Random):
                keys = chance.fold(chance.keys_of(self.coins, self.scored[part]), draw)
                asked = model.drawn(keys)
            parts.append(asked.answer(x[part]))
        labels = torch.cat([part.labels for part in parts])
        scores = [part.scores for part in parts if part.scores is not None]
        return Answers(labels, torch.cat(scores) if scores else None)

    def _check_legal(self, answers: Answers, x: Tensor) -> None:
        legal = self.players["defender"].actions.contains(x, answers)
        if (i := first(~legal & (answers.labels != INVALID))) is not None:
            row = torch.tensor([i], device=x.device)
            why = self.players["defender"].actions.explain(x[row], answers[row])
            raise IllegalMove(f"defender's answer to input {int(self.scored[i])}: {why}")

    def _check_certified(self, attacked: Answers, committed: Committed) -> None:
        if committed.certified is None:
            return
        y = self._given.y
        if (i := first(committed.certified & (attacked.labels != y))) is not None:
            raise Refuted(
                f"input {int(self.scored[i])} is certified to be answered {int(y[i])} anywhere in "
                f"{self.players['attacker'].actions}, but the attacker got "
                f"{int(attacked.labels[i])}: the certificate or the check of legal moves is wrong; "
                "please report it"
            )
