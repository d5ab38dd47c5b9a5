"""What a defender may answer [F8]: a class; a class with a confidence; a class or a refusal."""

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
    """Answers to inputs. `publishes` says whether scores are part of the answer."""

    classes: Count = 10
    publishes = False
    refuses = False

    def contains(self, given: Tensor, output: Answers) -> Tensor:
        """Whether each answer [B] is legal: a class (or a refusal, where allowed), finite scores.

        Scores are log-probabilities: legal if each row's probabilities sum to 1 within 1e-4.
        """
        lowest = REFUSED if self.refuses else 0
        legal = (output.labels >= lowest) & (output.labels < self.classes)
        if output.scores is not None and self.publishes:
            legal &= (output.scores.exp().sum(1) - 1.0).abs() <= 1e-4
        return legal

    def sample(self, given: Tensor, key: Tensor) -> Answers:
        """A class drawn uniformly; with a uniform confidence if it publishes scores."""
        labels = chance.integers(key, self.classes + self.refuses)
        scores = None
        if self.publishes:
            scores = chance.uniform(chance.fold(key, 1), (self.classes + self.refuses,))
            top = scores.amax(1, keepdim=True)
            scores = scores.scatter(1, labels[:, None], top + 1.0).log_softmax(1)
        return Answers(torch.where(labels == self.classes, REFUSED, labels), scores)

    def explain(self, given: Tensor, output: Answers) -> str:
        """What is wrong with one answer."""
        label = int(output.labels[0])
        if label == REFUSED and not self.refuses:
            return "it refuses, but its actions are classes only: use actions=refusal"
        return f"answer {label} is no class in 0..{self.classes - 1}, or its scores do not sum to 1"


@dataclass(frozen=True)
class Class(Decisions):
    """A class ID and nothing else: no scores can be probed."""


@dataclass(frozen=True)
class Confidence(Decisions):
    """A class with a confidence for each class."""

    publishes = True


@dataclass(frozen=True)
class ClassOrRefusal(Decisions):
    """A class with confidences, or a refusal to classify."""

    publishes = True
    refuses = True
