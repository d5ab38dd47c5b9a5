"""Clean logit pairing: train with a penalty on the distance between the logits of two examples."""

from dataclasses import dataclass

from torch import Tensor

from arena.defenses.logit_penalty import LogitPenalty


@dataclass(frozen=True)
class CleanLogitPairing(LogitPenalty):
    """Kannan et al. 2018 (1803.06373): weight * mean |f(x_i) - f(x_j)|^2 over random pairs.

    The pairs are of any classes: example i of the first half of the (shuffled) batch with example
    i of the second; of an odd number the last has no partner. It fails as `LogitSqueezing` does,
    and for the same reason. The distance is squared here, and summed over the classes.
    """

    def penalty(self, logits: Tensor) -> Tensor:
        """The mean squared distance between the logits of a pair; 0 if there is no pair."""
        pairs = len(logits) // 2
        first, second = logits[:pairs], logits[pairs : 2 * pairs]
        return (first - second).square().sum() / max(pairs, 1)
