"""Label smoothing: train towards targets that are less than sure."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena.fields import Share
from arena.training.trainer import Step, Trainer


@dataclass(frozen=True)
class LabelSmoothing(Trainer):
    """Szegedy et al. 2016 (1512.00567), section 7, an indirect method of the keynote [F30].

    The target gives the true class 1 - alpha + alpha / K and every other alpha / K. Where a paper
    says 1 - a for the truth and a / (K - 1) for the others, a = alpha (K - 1) / K. The loss is
    least at a margin of log(1 + K (1 - alpha) / alpha) between the logits of the truth and of the
    others: finite, so that logits and their gradients stay small.

    Attributes:
        alpha: Weight of the uniform distribution in the target; 0 is `ERM`.
    """

    alpha: Share = 0.1

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """Cross-entropy of the batch to the smoothed targets."""
        return cross_entropy(module(step.batch.x), step.batch.y, label_smoothing=self.alpha)
