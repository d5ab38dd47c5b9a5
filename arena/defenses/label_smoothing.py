"""Label smoothing: train towards targets that are not fully certain."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena.fields import Share
from arena.training.trainer import Step, Trainer


@dataclass(frozen=True)
class LabelSmoothing(Trainer):
    """Szegedy et al. 2016 (1512.00567), section 7, an indirect method of the keynote [F30].

    The target is 1 - alpha + alpha / K for the true class and alpha / K for every other class. A
    paper that writes 1 - a and a / (K - 1) for them has a = alpha (K - 1) / K.
    The loss is least when the true class's logit exceeds the others by
    log(1 + K (1 - alpha) / alpha). This is finite, so logits and their gradients stay small.

    Attributes:
        alpha: Weight of the uniform distribution in the target; 0 is `ERM`.
    """

    alpha: Share = 0.1

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """Cross-entropy of the batch to the smoothed targets."""
        return cross_entropy(module(step.batch.x), step.batch.y, label_smoothing=self.alpha)
