"""Adversarial training: minimise the loss on what an inner attack plays against the model."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena.core import Labelled
from arena.defenses.inner import Attacked
from arena.fields import Share


@dataclass(frozen=True)
class AdversarialTraining(Attacked):
    """Madry et al. 2018 (1706.06083), equation 2.1: min over models of max over perturbations.

    The inner attacker has the attacker's declared actions and cost, and a white box of the model in
    training. Any white-box attack can play it. With one step of `FGSM` this is the training of
    Goodfellow et al. 2015 (1412.6572), which overfits to that step. With one step of 1.25 eps from
    a random start it is fast adversarial training (Wong, Rice & Kolter 2020, 2001.03994,
    Algorithm 3).

    Attributes:
        clean: Weight of the clean loss; the adversarial loss has the rest (0: Madry; 0.5: the
            mixture of 1412.6572, and M-PGD of 1803.06373).
    """

    clean: Share = 0.0

    def against(self, module: nn.Module, batch: Labelled, moved: Tensor) -> Tensor:
        """Cross-entropy of the attacked batch, mixed with that of the clean batch."""
        if self.clean == 0.0:
            return cross_entropy(module(moved), batch.y)
        clean, attacked = module(torch.cat([batch.x, moved])).chunk(2)
        return mixed_error(clean, attacked, batch.y, self.clean)


def mixed_error(clean: Tensor, attacked: Tensor, y: Tensor, weight: float) -> Tensor:
    """`weight` times the cross-entropy of clean logits [B, K], plus the rest for attacked ones."""
    return weight * cross_entropy(clean, y) + (1.0 - weight) * cross_entropy(attacked, y)
