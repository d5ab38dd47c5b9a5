"""Defensive distillation: train on the soft answers of another network of the same kind."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena import chance
from arena.classification import Classifier, Learner
from arena.core import Labelled, Task
from arena.fields import Positive
from arena.store import Store
from arena.training.trainer import Step, Trainer


@dataclass(frozen=True)
class DefensiveDistillation(Trainer):
    """Papernot et al. 2016 (1511.04508), section IV.

    A teacher is trained on the labels at temperature T (softmax of logits / T). Then a student of
    the same architecture is trained, also at T, on the teacher's probabilities at T. The student
    plays at temperature 1, where its logits are about T times too large: its probabilities are
    almost 0 or 1, and an attack that follows their gradient does not move (see
    `ClippedProbabilities`). An attack on the logits does (Carlini & Wagner 2016, 1607.04311).

    Attributes:
        temperature: T of both trainings; 1 is plain distillation.

    Raises:
        ValueError: If the learner is not an architecture that arena can build and train.
    """

    temperature: Positive = 20.0

    def __post_init__(self) -> None:
        if not isinstance(self.learner, Learner | None):
            raise ValueError(
                f"DefensiveDistillation trains networks by gradients at a temperature, and "
                f"learner={type(self.learner).__name__} is none; give an architecture such as "
                "learner=mlp or cnn"
            )
        super().__post_init__()

    def prepared(
        self, data: Labelled, seed: int, task: Task | None, learner: Learner, store: Store | None
    ) -> Classifier:
        """The teacher."""
        teacher = Teacher(learner, self.epochs, self.batch_size, self.lr, self.temperature)
        return teacher.train(data, chance.seed_of(seed, "teacher"), task, store=store)

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """Cross-entropy, at T, with the teacher's probabilities at T as targets."""
        with torch.no_grad():
            target = (step.prepared.logits(step.batch.x) / self.temperature).softmax(1)
        return cross_entropy(module(step.batch.x) / self.temperature, target)


@dataclass(frozen=True)
class Teacher(Trainer):
    """Training on the labels at a temperature: the first half of distillation.

    Attributes:
        temperature: Divisor of the logits in the loss; 1 is `ERM`.
    """

    temperature: Positive = 20.0

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """Cross-entropy of the batch at the temperature."""
        return cross_entropy(module(step.batch.x) / self.temperature, step.batch.y)
