"""Weight decay: a penalty on the size of the weights."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena.fields import NonNegative
from arena.training.trainer import Step, Trainer


@dataclass(frozen=True)
class WeightDecay(Trainer):
    """L1 or squared L2 decay, among the keynote's defenses that fail [F21].

    Szegedy et al. 2014 (1312.6199, Table 1) tried squared L2 decay on the weights of every layer,
    and Goodfellow et al. 2015 (1412.6572, section 5) compared L1 decay with adversarial training.
    As there, the penalty is a term of the loss. Adam rescales its gradient together with that of
    the error.

    Attributes:
        amount: Weight of the penalty; 0 is `ERM`.
        norm: Sum of the absolute weights, or of their squares (without a factor 1/2).
    """

    amount: NonNegative = 1e-3
    norm: Literal["l1", "squared_l2"] = "squared_l2"

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """Cross-entropy of the batch plus the penalty on all weights.

        Biases and the scales of normalisations, which are vectors, are not penalised.
        """
        weights = [parameter for parameter in module.parameters() if parameter.ndim > 1]
        sizes = [w.abs().sum() if self.norm == "l1" else w.square().sum() for w in weights]
        error = cross_entropy(module(step.batch.x), step.batch.y)
        return error + self.amount * torch.stack(sizes).sum()
