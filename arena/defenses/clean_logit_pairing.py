"""Clean logit pairing: a penalty on the distance between the logits of two clean examples."""

from dataclasses import dataclass

from torch import Tensor

from arena.defenses.logit_penalty import LogitPenalty


@dataclass(frozen=True)
class CleanLogitPairing(LogitPenalty):
    """Kannan et al. 2018 (1803.06373): weight * mean |f(x_i) - f(x_j)|^2 over random pairs.

    Example i of the first half of the shuffled batch is paired with example i of the second half,
    whatever their classes; in a batch of odd size, the last example has no partner. It fails like
    `LogitSqueezing`, for the same reason. Here the distance is squared and summed over the classes.
    """

    def penalty(self, logits: Tensor) -> Tensor:
        """The mean squared distance between the logits of the pairs; 0 if there is no pair."""
        pairs = len(logits) // 2
        first, second = logits[:pairs], logits[pairs : 2 * pairs]
        return (first - second).square().sum() / max(pairs, 1)
