"""Empirical risk minimisation: train on the data as if nobody were attacking."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena.core import Labelled, Task
from arena.learners.training import Trainer


@dataclass(frozen=True)
class ERM(Trainer):
    """The undefended baseline: mean cross-entropy on clean data."""

    def loss(self, module: nn.Module, batch: Labelled, seed: int, task: Task | None) -> Tensor:
        """Cross-entropy of the batch."""
        return cross_entropy(module(batch.x), batch.y)
