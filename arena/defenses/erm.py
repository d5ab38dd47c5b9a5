"""Empirical risk minimisation: train as if nobody attacked."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena.training.trainer import Step, Trainer


@dataclass(frozen=True)
class ERM(Trainer):
    """The undefended baseline: mean cross-entropy on clean data."""

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """Cross-entropy of the batch."""
        return cross_entropy(module(step.batch.x), step.batch.y)
