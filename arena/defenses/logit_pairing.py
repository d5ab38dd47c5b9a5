"""Adversarial logit pairing: an input and its attacked twin should get the same logits."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from arena.core import Labelled
from arena.defenses.adversarial_training import mixed_error
from arena.defenses.inner import Attacked
from arena.fields import NonNegative, Share


@dataclass(frozen=True)
class AdversarialLogitPairing(Attacked):
    """Kannan, Kurakin & Goodfellow 2018 (1803.06373), section 3: the mixture M-PGD, and a pairing.

    The pairing is the squared distance between the logits of an input and those of its attacked
    twin, averaged over examples and classes. It was broken as published on ImageNet, by attacks of
    more steps than its authors' (1807.10272).

    Attributes:
        clean: Weight of the clean loss beside the adversarial one; M-PGD has as many of each.
        weight: Weight of the pairing (lambda in the paper).
    """

    clean: Share = 0.5
    weight: NonNegative = 0.5

    def against(self, module: nn.Module, batch: Labelled, moved: Tensor) -> Tensor:
        """The cross-entropies of both halves, and the distance between their logits."""
        clean, attacked = module(torch.cat([batch.x, moved])).chunk(2)
        error = mixed_error(clean, attacked, batch.y, self.clean)
        return error + self.weight * mse_loss(clean, attacked)
