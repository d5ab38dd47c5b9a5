"""Adversarial logit pairing: an input and its attacked version should get the same logits."""

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
    """Kannan, Kurakin & Goodfellow 2018 (1803.06373), section 3: M-PGD plus a pairing term.

    The pairing term is the squared distance between the logits of an input and those of its
    attacked version, averaged over examples and classes. The defense as published on ImageNet was
    broken by attacks with more steps than its authors used (1807.10272).

    Attributes:
        clean: Weight of the clean loss; the adversarial loss has the rest. M-PGD weighs both
            equally.
        weight: Weight of the pairing term (lambda in the paper).
    """

    clean: Share = 0.5
    weight: NonNegative = 0.5

    def against(self, module: nn.Module, batch: Labelled, moved: Tensor) -> Tensor:
        """The mixture of both cross-entropies, plus the distance between the logits."""
        clean, attacked = module(torch.cat([batch.x, moved])).chunk(2)
        error = mixed_error(clean, attacked, batch.y, self.clean)
        return error + self.weight * mse_loss(clean, attacked)
