"""What a defender may answer [F8]: a class, a class with confidences, or also a refusal."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena import chance
from arena.classification import Answers
from arena.core import ActionSpace
from arena.fields import Count
from arena.knowledge import REFUSED


@dataclass(frozen=True)
class Decisions(ActionSpace):
    """Answers to inputs.

    `publishes` says whether scores are part of an answer, `refuses` whether a refusal is allowed.

    Attributes:
        classes: Number of classes K.
    """

    classes: Count = 10
    publishes = False
    refuses = False

    def contains(self, given: Tensor, output: Answers) -> Tensor:
        """Whether each answer is legal, bool [B]: a class, or a refusal where that is allowed.

        If scores are published, they are log-probabilities [B, K] (K + 1 columns with refusals),
        and the probabilities of each row must sum to 1 within 1e-4.
        """
        lowest = REFUSED if self.refuses else 0
        legal = (output.labels >= lowest) & (output.labels < self.classes)
        if output.scores is not None and self.publishes:
            legal &= (output.scores.exp().sum(1) - 1.0).abs() <= 1e-4
        return legal

    def sample(self, given: Tensor, key: Tensor) -> Answers:
        """A class drawn uniformly for each key [B], with random scores if they are published."""
        labels = chance.integers(key, self.classes + self.refuses)
        scores = None
        if self.publishes:
            scores = chance.uniform(chance.fold(key, 1), (self.classes + self.refuses,))
            top = scores.amax(1, keepdim=True)
            scores = scores.scatter(1, labels[:, None], top + 1.0).log_softmax(1)
        return Answers(torch.where(labels == self.classes, REFUSED, labels), scores)

    def explain(self, given: Tensor, output: Answers) -> str:
        """What is wrong with a single answer (B = 1)."""
        label = int(output.labels[0])
        if label == REFUSED and not self.refuses:
            return "it refuses, but its actions are classes only: use actions=refusal"
        return f"answer {label} is no class in 0..{self.classes - 1}, or its scores do not sum to 1"


@dataclass(frozen=True)
class Class(Decisions):
    """A class and nothing else: an attacker cannot probe scores."""


@dataclass(frozen=True)
class Confidence(Decisions):
    """A class with a confidence for each class."""

    publishes = True


@dataclass(frozen=True)
class ClassOrRefusal(Decisions):
    """A class with confidences, or a refusal to classify."""

    publishes = True
    refuses = True
