"""Defensive distillation: a network trained on the soft answers of another like it."""

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

    A teacher is trained at temperature T (softmax of logits / T) on the labels, then a student of
    the same architecture, also at T, on the teacher's probabilities at T. The student plays at
    temperature 1, as a network whose logits grew about T times: its probabilities are all but 0
    and 1, and what follows their gradient stands still (see `ClippedProbabilities`). What looks at
    the logits does not (Carlini & Wagner 2016, 1607.04311).

    Attributes:
        temperature: T, of both trainings; 1 leaves plain distillation.

    Raises:
        ValueError: If the learner is no architecture that arena can build and train.
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
        """Cross-entropy, at T, to the teacher's probabilities at T."""
        with torch.no_grad():
            target = (step.prepared.logits(step.batch.x) / self.temperature).softmax(1)
        return cross_entropy(module(step.batch.x) / self.temperature, target)


@dataclass(frozen=True)
class Teacher(Trainer):
    """Training at a temperature on the labels: the first half of the distillation.

    Attributes:
        temperature: What logits are divided by in the loss; 1 is `ERM`.
    """

    temperature: Positive = 20.0

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """Cross-entropy of the batch at the temperature."""
        return cross_entropy(module(step.batch.x) / self.temperature, step.batch.y)
