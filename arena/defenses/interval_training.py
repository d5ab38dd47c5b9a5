"""Interval bound propagation training: minimise the worst loss that intervals allow."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena.certificates.bound import Bound
from arena.certificates.interval import Interval
from arena.core import Task
from arena.defenses.inner import InformedTraining, raised
from arena.fields import Share
from arena.training.trainer import Step


@dataclass(frozen=True)
class IntervalTraining(InformedTraining):
    """Gowal et al. 2018 (1810.12715), equations 11-13, against the attacker's declared space.

    The loss is kappa times the cross-entropy of the clean logits, plus 1 - kappa times that of the
    worst logits that `Interval` allows. During the ramp, kappa falls from 1 and the radius rises
    from 0 to the space's eps, both linearly.

    Deviations from the paper: the ramp starts at once, without a warm-up of clean steps, and
    Adam's step size is constant.

    Attributes:
        kappa: Weight of the clean loss after the ramp.
        ramp: Share of the training over which kappa falls and the radius rises.
    """

    kappa: Share = 0.5
    ramp: Share = 0.5

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """The mixture of the clean and the worst loss.

        Raises:
            ValueError: If there are no bounds for the attacker's space or for a layer.
        """
        kappa = 1.0 + raised(step, self.ramp) * (self.kappa - 1.0)
        clean = cross_entropy(module(step.batch.x), step.batch.y)
        worst = bounded_loss(Interval(), module, step, self.faced(step))
        return kappa * clean + (1.0 - kappa) * worst


def bounded_loss(bound: Bound, module: nn.Module, step: Step, task: Task) -> Tensor:
    """Cross-entropy of the worst logits that a bound allows within the task's actions.

    Relative to the true class's logit, the worst logits are minus the margins (1711.00851, Theorem
    2). So the loss is at least that of any legal output.
    """
    batch = step.batch
    margins = bound.margins(module, batch.x, batch.y, task.actions)
    return cross_entropy(torch.where(margins.isinf(), 0.0, -margins), batch.y)
