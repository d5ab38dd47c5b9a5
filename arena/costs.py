"""What players want small [F8]: costs of the game, each player's its own.

Most costs follow from the truth and the answer alone. Those state one rule, `answered`, and their
differentiable surrogate is derived from it (`AnswerCost.surrogate`).

An answer that is not there (`INVALID`: the logits were NaN or infinite) has a price, too. By
default it costs the defender as much as an error. It gains a targeted attacker nothing.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from arena.classification import Outcome
from arena.core import Cost
from arena.fields import NonNegative, Whole
from arena.knowledge import INVALID, REFUSED


class AnswerCost(Cost):
    """A cost of the true class and the answer to it; subclasses state `answered`, elementwise."""

    def __call__(self, outcome: Outcome) -> Tensor:
        """The cost of each answer to what was played, [B]."""
        return self.answered(outcome.attacked.labels, outcome.y)

    @abstractmethod
    def answered(self, labels: Tensor, y: Tensor) -> Tensor:
        """The cost of `labels` where the truth is `y`; any shapes that broadcast."""

    def surrogate(self, logits: Tensor, y: Tensor, classes: int | None = None) -> Tensor:
        """Minus the log of the expected gain, [B]; with a refusal column, minus a margin.

        The gain g_k of answer k is the most that the truth's row can cost, less what k costs, as a
        share of the largest gain. The surrogate is -log sum_k g_k p_k, for softmax probabilities p:
        cross-entropy for the error rate, cross-entropy to the target for a targeted cost, and for
        any matrix a loss whose gradient does not vanish when the model is sure. Constant where
        every answer costs the same.

        A refusal is decided by a comparison (a threshold on the confidence, say), and its share of
        the softmax may not depend on the input at all. There the surrogate is what the argmax
        decides by: the largest logit among the answers that gain no more than the present one,
        less the largest among those that gain more (among the best, once it is one of them).
        """
        answers = torch.arange(logits.shape[1], device=logits.device)
        refuses = classes is not None and logits.shape[1] > classes
        if refuses:
            answers[-1] = REFUSED
        cost = self.answered(answers[None, :], y[:, None])
        gain = cost.amax(1, keepdim=True) - cost
        most = gain.amax(1, keepdim=True)
        gain = torch.where(most > 0, gain / most, 0.5)
        if refuses:
            answer = logits == logits.amax(1, keepdim=True)
            present = gain.masked_fill(~answer, 0.0).amax(1, keepdim=True)
            better = (gain > present) | (gain == 1.0)
            rest, won = (logits.masked_fill(out, -torch.inf).amax(1) for out in (better, ~better))
            return torch.where(most[:, 0] > 0, rest - won, 0.0)
        # -log sum g p = softplus(log sum (1 - g) e^logit - log sum g e^logit): its gradient has no
        # 1 - p in it, which in float32 is 0 from a margin of 17 on, and noise before.
        lost, won = (logits + torch.stack((1.0 - gain, gain)).log()).logsumexp(2)
        return torch.where(most[:, 0] > 0, softplus(lost - won), 0.0)


@dataclass(frozen=True)
class ErrorRate(AnswerCost):
    """1 for every answer that is not the true class; a refusal is such an answer.

    Attributes:
        no_answer: The cost of an answer that is not there.
    """

    no_answer: NonNegative = 1.0

    def answered(self, labels: Tensor, y: Tensor) -> Tensor:
        """0 where right, 1 where wrong, `no_answer` where there is none."""
        return torch.where(labels == INVALID, self.no_answer, (labels != y).float())


@dataclass(frozen=True)
class Targeted(AnswerCost):
    """For an attacker who wants inputs of other classes recognised as one class [F8].

    0 where an input of another class is answered `target`, 1 elsewhere.
    """

    target: Whole

    def check(self, classes: int) -> None:
        """Raises ValueError if there is no such class."""
        _check_class("target", self.target, classes)

    def answered(self, labels: Tensor, y: Tensor) -> Tensor:
        """0 where a mistake for the target, 1 elsewhere."""
        return 1.0 - ((labels == self.target) & (y != self.target)).float()


@dataclass(frozen=True)
class SourceTarget(AnswerCost):
    """For an attacker who wants one class taken for another, and cares for nothing else."""

    source: Whole
    target: Whole

    def check(self, classes: int) -> None:
        """Raises ValueError if there is no such class, or both are one."""
        _check_class("source", self.source, classes)
        _check_class("target", self.target, classes)
        if self.source == self.target:
            raise ValueError(f"SourceTarget: source and target are both {self.source}")

    def answered(self, labels: Tensor, y: Tensor) -> Tensor:
        """0 where the source is taken for the target, 1 elsewhere."""
        return 1.0 - ((labels == self.target) & (y == self.source)).float()


def _check_class(name: str, label: int, classes: int) -> None:
    if label >= classes:
        raise ValueError(f"{name}={label} is no class: the data have classes 0..{classes - 1}")


@dataclass(frozen=True)
class CostMatrix(AnswerCost):
    """Any cost of truth and answer: `matrix[y][answer]`, K rows of K or K + 1 numbers.

    Column K, if there, prices a refusal; without it a refusal costs as much as the worst answer.

    Attributes:
        matrix: The costs.
        no_answer: The cost of an answer that is not there; None: as much as the worst answer.
    """

    matrix: tuple[tuple[float, ...], ...]
    no_answer: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        k = len(self.matrix)
        if k < 2 or any(len(row) != len(self.matrix[0]) for row in self.matrix):
            raise ValueError("CostMatrix.matrix must have at least 2 rows, all of one length")
        if not all(math.isfinite(entry) for row in self.matrix for entry in row):
            raise ValueError("CostMatrix.matrix has an entry that is NaN or infinite")
        if len(self.matrix[0]) not in (k, k + 1):
            raise ValueError(
                f"CostMatrix.matrix has {k} rows of {len(self.matrix[0])}; give rows of {k} "
                f"(answers) or {k + 1} (answers, refusal)"
            )

    def check(self, classes: int) -> None:
        """Raises ValueError unless there is a row for each class."""
        if len(self.matrix) != classes:
            raise ValueError(
                f"CostMatrix has {len(self.matrix)} rows, but the data have {classes} classes"
            )

    def answered(self, labels: Tensor, y: Tensor) -> Tensor:
        """The matrix entry; index -1 (`REFUSED`) is its last column."""
        matrix = torch.tensor(self.matrix, dtype=torch.float32, device=y.device)
        worst = matrix[:, : len(matrix)].amax(1)
        if matrix.shape[0] == matrix.shape[1]:
            matrix = torch.cat([matrix, worst[:, None]], 1)
        silent = worst[y] if self.no_answer is None else torch.full_like(worst[y], self.no_answer)
        return torch.where(labels == INVALID, silent, matrix[y, labels.clamp(min=REFUSED)])


@dataclass(frozen=True)
class Refusal(AnswerCost):
    """Errors cost 1; a refusal has a price of its own, on clean and on attacked inputs [F8].

    An input is clean if the attacker sent it unchanged. Refusing what was manipulated is often
    worth nothing less than a right answer (`on_attacked=0`), refusing an honest user never is.

    Attributes:
        on_clean: The cost of refusing an unchanged input.
        on_attacked: The cost of refusing a changed one.
        no_answer: The cost of an answer that is not there.
    """

    on_clean: NonNegative = 0.5
    on_attacked: NonNegative = 0.0
    no_answer: NonNegative = 1.0

    def __call__(self, outcome: Outcome) -> Tensor:
        """The price of each answer, [B]."""
        refused = outcome.attacked.labels == REFUSED
        cost = self.answered(outcome.attacked.labels, outcome.y)
        return torch.where(refused & ~outcome.changed, self.on_clean, cost)

    def answered(self, labels: Tensor, y: Tensor) -> Tensor:
        """The price of answers to attacked inputs."""
        wrong = torch.where(labels == INVALID, self.no_answer, (labels != y).float())
        return torch.where(labels == REFUSED, self.on_attacked, wrong)


@dataclass(frozen=True)
class Priced(Cost):
    """Another cost, plus a price for what does not depend on the answer.

    Attributes:
        of: The cost without it.
        price: Of a unit, in units of the cost.
    """

    of: Cost
    price: NonNegative

    @abstractmethod
    def units(self, outcome: Outcome) -> Tensor:
        """What is paid for, [B]."""

    def __call__(self, outcome: Outcome) -> Tensor:
        """Cost and price together, [B]."""
        return self.of(outcome) + self.price * self.units(outcome)

    def check(self, classes: int) -> None:
        """Checks the inner cost."""
        self.of.check(classes)

    def answered(self, labels: Tensor, y: Tensor) -> Tensor:
        """The inner cost: what an answer to a move already made changes."""
        return self.of.answered(labels, y)

    def surrogate(self, logits: Tensor, y: Tensor, classes: int | None = None) -> Tensor:
        """The inner cost's: a search that minds the price has to know what it is of."""
        return self.of.surrogate(logits, y, classes)


@dataclass(frozen=True)
class QueryPrice(Priced):
    """Another cost, plus a price for every query asked about the example."""

    price: NonNegative = 0.001

    def units(self, outcome: Outcome) -> Tensor:
        """The queries, [B]."""
        return outcome.queries


@dataclass(frozen=True)
class MovePrice(Priced):
    """Another cost, plus what the move costs to make, as the action space prices it [F8]."""

    price: NonNegative = 0.1

    def units(self, outcome: Outcome) -> Tensor:
        """The outputs' prices in the space's units, [B]."""
        return outcome.price


@dataclass(frozen=True)
class Negation(AnswerCost):
    """Minus another cost, usually the opponent's: the game is then zero-sum."""

    of: Cost

    def __call__(self, outcome: Outcome) -> Tensor:
        """Minus the inner cost, [B]."""
        return -self.of(outcome)

    def check(self, classes: int) -> None:
        """Checks the inner cost."""
        self.of.check(classes)

    def answered(self, labels: Tensor, y: Tensor) -> Tensor:
        """Minus the inner cost."""
        return -self.of.answered(labels, y)

    def surrogate(self, logits: Tensor, y: Tensor, classes: int | None = None) -> Tensor:
        """That of its own gain; for the error rate -log(1 - p_y).

        Its gradient is parallel to that of minus the inner surrogate (the classical ascent on
        cross-entropy), which a model masks by being sure: it vanishes as p_y goes to 1. Only where
        the inner cost does not follow from answers, minus its surrogate is all there is.
        """
        try:
            return super().surrogate(logits, y, classes)
        except NotImplementedError:
            return -self.of.surrogate(logits, y, classes)
