"""Adversarial weight perturbation: be robust also at slightly worse weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arena.defenses.adversarial_training import AdversarialTraining
from arena.fields import NonNegative
from arena.training.trainer import Step


@dataclass(frozen=True)
class AdversarialWeightPerturbation(AdversarialTraining):
    """Wu, Xia & Wang 2020 (2004.05884), Algorithm 1 with one perturbation step: AT-AWP.

    Every weight w_l moves by gamma * ||w_l|| along the gradient of the adversarial loss. The
    training gradient is taken at the moved weights, on the same attacked inputs, and its step
    starts from the original weights. This finds flat regions of the loss over the weights, which
    reduces robust overfitting. It costs one forward and backward pass more than adversarial
    training.

    As in the paper's code, only parameters of more than one dimension move: no biases, no scales of
    normalisations. Deviation from that code: the extra pass goes through the module itself, not a
    copy, so the running statistics of a normalisation see both passes.

    Attributes:
        gamma: Size of the perturbation, as a share of each weight's Euclidean length.
    """

    gamma: NonNegative = 0.005

    def update(self, module: nn.Module, optimizer: torch.optim.Optimizer, step: Step) -> Tensor:
        """One optimizer step by the gradient at the perturbed weights."""
        moved = self.moved(module, step)
        weights = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
        ascent = torch.autograd.grad(self.against(module, step.batch, moved), weights)
        with shifted(weights, ascent, self.gamma):
            loss = self.against(module, step.batch, moved)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        return loss.detach()


@contextmanager
def shifted(weights: list[nn.Parameter], along: tuple[Tensor, ...], gamma: float) -> Iterator[None]:
    """Moves each weight by gamma times its length along a direction; restores it at the end."""
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, direction in zip(weights, along, strict=True):
            length = direction.norm().clamp(min=torch.finfo(direction.dtype).tiny)
            weight.add_(direction * (gamma * weight.norm() / length))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, was in zip(weights, kept, strict=True):
                weight.copy_(was)
