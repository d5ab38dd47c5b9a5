"""Trainings that penalise the logits of clean examples."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena import chance
from arena.fields import NonNegative
from arena.training.trainer import Step, Trainer


@dataclass(frozen=True)
class LogitPenalty(Trainer):
    """Cross-entropy plus a penalty on the logits, both on inputs with Gaussian noise.

    Kannan, Kurakin & Goodfellow 2018 (1803.06373), sections 3 and 4. The noisy inputs are not
    clipped to the data's box.

    Attributes:
        weight: Weight of the penalty (lambda in the paper); 0 without noise is `ERM`.
        noise: Standard deviation of the noise on every input value, in the units of the input.
    """

    weight: NonNegative = 0.5
    noise: NonNegative = 0.5

    @abstractmethod
    def penalty(self, logits: Tensor) -> Tensor:
        """The penalty, a scalar, of the logits [B, K] of a shuffled batch."""

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """Cross-entropy and penalty of the batch."""
        x, y = step.batch.x, step.batch.y
        if self.noise > 0.0:
            key = chance.keys(step.seed, len(x), x.device)
            x = torch.add(x, chance.normal(key, x.shape[1:]), alpha=self.noise)
        logits = module(x)
        return cross_entropy(logits, y) + self.weight * self.penalty(logits)
