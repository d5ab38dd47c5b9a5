"""Free adversarial training: each backward pass serves the parameters and the attack."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena import chance
from arena.defenses.inner import InformedTraining
from arena.fields import Count, Positive
from arena.training.trainer import Step


@dataclass(frozen=True)
class FreeAdversarialTraining(InformedTraining):
    """Shafahi et al. 2019 (1904.12843), Algorithm 1.

    Every minibatch is replayed several times. The backward pass of a replay gives two gradients:
    one for the optimizer's step, and one for a step of the perturbation that the next replay trains
    on. No pass is spent on the attack alone.

    Deviations from the paper: the perturbation of a minibatch starts at a random point of the
    space, not where that of the previous minibatch (other examples) ended. So a step depends only
    on its own examples. The perturbation climbs the training's loss; the attacker's cost plays no
    part.

    `epochs` are passes over the data, N_ep / m in the paper: the cost is that of epochs * replays
    epochs of plain training.

    Attributes:
        replays: Number of steps on each minibatch (m in the paper).
        step: Step size of the perturbation, as a share of the space's eps.
    """

    epochs: Count = 3
    replays: Count = 8
    step: Positive = 1.0

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """Cross-entropy of a replay."""
        return cross_entropy(module(step.batch.x), step.batch.y)

    def update(self, module: nn.Module, optimizer: torch.optim.Optimizer, step: Step) -> Tensor:
        """Trains on all replays of a minibatch and returns the loss of the last one."""
        given, space = step.batch.x, self.perturbations(step)
        x = space.sample(given, chance.keys(step.seed, len(given), given.device))
        project = space.projection(given)
        for _ in range(self.replays):
            x = x.detach().requires_grad_()
            replay = replace(step, batch=replace(step.batch, x=x))
            loss = super().update(module, optimizer, replay)
            assert x.grad is not None
            alpha = self.step * space.eps
            x = project(torch.add(x.detach(), space.steepest(x.grad), alpha=alpha))
        return loss
