"""Logit squeezing: train with a penalty on the size of the logits."""

from dataclasses import dataclass

from torch import Tensor

from arena.defenses.logit_penalty import LogitPenalty


@dataclass(frozen=True)
class LogitSqueezing(LogitPenalty):
    """Kannan et al. 2018 (1803.06373): weight * mean |f(x)|^2 beside the cross-entropy.

    It makes the loss flat around the data, where gradients mislead: attacks with few steps and
    starts fail where others do not (Engstrom et al. 2018, 1807.10272; Mosbach et al. 2018,
    1810.12042). The norm is squared here, and summed over the classes.
    """

    def penalty(self, logits: Tensor) -> Tensor:
        """The mean squared length of the logits."""
        return logits.square().sum(1).mean()
