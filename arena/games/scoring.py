"""How evasion is scored: what the model alone decides, what the attack alone, and what both do.

Whoever lets many attacks meet many models pays for one pass of the scored inputs a cell: the rest
is computed once a model (`Committed`) or once an attack (`Sent`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from arena.classification import Answers, Classifier, Outcome, Refuted
from arena.core import IllegalMove, Labelled, Player, first
from arena.costs import AnswerCost, Negation
from arena.knowledge import INVALID, REFUSED


@dataclass(frozen=True)
class Committed:
    """A model, and what is known of it before anybody attacks.

    Attributes:
        model: The defender's move.
        clean: Its answers to the n scored inputs as they were dealt.
        certified: Whether [n] it is proved that no legal move makes it err; None: nothing is.
    """

    model: Classifier
    clean: Answers
    certified: Tensor | None


@dataclass(frozen=True)
class Sent:
    """The scored part of an attacker's move, and what it took to make it.

    Attributes:
        x: Inputs [n, ...].
        y: Their true labels [n].
        changed: Whether [n] they are not what was dealt.
        queries: Asked about each, [n].
        gradients: Taken of each, [n].
        price: Of each [n], in the units of the attacker's space.
    """

    x: Tensor
    y: Tensor
    changed: Tensor
    queries: Tensor
    gradients: Tensor
    price: Tensor


@dataclass(frozen=True)
class Scoring:
    """Who plays for what, and on which inputs.

    Attributes:
        players: Their actions and costs count.
        dealt: What the attacker was dealt.
        scored: The rows [n] of it that are scored.
        batch_size: Most examples in one pass.
    """

    players: Mapping[str, Player]
    dealt: Labelled
    scored: Tensor
    batch_size: int

    def committed(self, model: Classifier) -> Committed:
        """The model with its clean answers and its certificates.

        Raises:
            ValueError: If it has no finite answer to an input as it was dealt.
        """
        given = self.dealt[self.scored]
        clean = self._answers(model, given.x)
        if (i := first(clean.labels == INVALID)) is not None:
            raise ValueError(
                f"the defender's logits are NaN or infinite on clean input {int(self.scored[i])}: "
                "repair the model before it plays"
            )
        return Committed(model, clean, model.certified(given, self.players["attacker"].actions))

    def sent(self, x: Tensor, queries: Tensor, gradients: Tensor) -> Sent:
        """What is scored of legal inputs `x` [B, ...] that took so much, all as dealt."""
        rows, actions = self.scored, self.players["attacker"].actions
        own = x[rows]
        return Sent(
            x=own,
            y=actions.truth(self.dealt, x)[rows],
            changed=(own != self.dealt.x[rows]).flatten(1).any(1),
            queries=queries[rows],
            gradients=gradients[rows],
            price=actions.price(self.dealt, x)[rows],
        )

    def outcome(self, committed: Committed, sent: Sent) -> Outcome:
        """What came of it: one pass of the inputs that were sent.

        Raises:
            IllegalMove: If an answer is outside the defender's space.
            Refuted: If a mistake was made on an example that is certified to allow none.
        """
        attacked = self._answers(committed.model, sent.x)
        self._check_legal(attacked, sent.x)
        self._check_certified(attacked, committed)
        return Outcome(
            y=sent.y,
            clean=committed.clean,
            attacked=attacked,
            changed=sent.changed,
            queries=sent.queries,
            gradients=sent.gradients,
            price=sent.price,
        )

    def costs(self, outcome: Outcome) -> dict[str, Tensor]:
        """By player, its cost of every example: float64 [n] on the CPU, NaN without an answer."""
        return {
            name: torch.where(outcome.valid, player.cost(outcome).double(), torch.nan).cpu()
            for name, player in self.players.items()
        }

    def most(self, committed: Committed) -> Tensor | None:
        """What the defender can lose of each example at most, float64 [n] on the CPU.

        That of the true answer where it is certified, of the worst answer elsewhere. None where
        the cost is not one of truth and answer alone.
        """
        cost = self.players["defender"].cost
        inner = cost
        while isinstance(inner, Negation):
            inner = inner.of
        if not isinstance(inner, AnswerCost):
            return None
        y = self.dealt.y[self.scored]
        nothing = torch.zeros_like(y)
        certified = nothing.bool() if committed.certified is None else committed.certified
        found = []
        for label in (REFUSED, *range(self.dealt.classes)):
            answers = Answers(torch.full_like(y, label))
            possible = ~certified | (answers.labels == y)
            for changed in (False, True):
                moved = torch.full_like(certified, changed)
                outcome = Outcome(y, committed.clean, answers, moved, nothing, nothing)
                found.append(torch.where(possible, cost(outcome).double(), -torch.inf))
        return torch.stack(found).amax(0).cpu()

    def _answers(self, model: Classifier, x: Tensor) -> Answers:
        parts = [model.answer(part) for part in torch.split(x, self.batch_size)]
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
        y = self.dealt.y[self.scored]
        if (i := first(committed.certified & (attacked.labels != y))) is not None:
            raise Refuted(
                f"input {int(self.scored[i])} is certified to be answered {int(y[i])} anywhere in "
                f"{self.players['attacker'].actions}, but the attacker got "
                f"{int(attacked.labels[i])}: the certificate or the check of legal moves is wrong; "
                "please report it"
            )
