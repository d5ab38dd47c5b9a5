"""Logit squeezing: a penalty on the size of the logits."""

from dataclasses import dataclass

from torch import Tensor

from arena.defenses.logit_penalty import LogitPenalty


@dataclass(frozen=True)
class LogitSqueezing(LogitPenalty):
    """Kannan et al. 2018 (1803.06373): the cross-entropy plus weight * mean |f(x)|^2.

    It makes the loss flat around the data, so gradients mislead: attacks with few steps and few
    starts fail where stronger ones succeed (Engstrom et al. 2018, 1807.10272; Mosbach et al. 2018,
    1810.12042). Here the norm is squared and summed over the classes.
    """

    def penalty(self, logits: Tensor) -> Tensor:
        """The mean squared length of the logits [B, K]."""
        return logits.square().sum(1).mean()
