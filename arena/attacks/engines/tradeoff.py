"""The weight of a loss against a distance, found for each walk by binary search."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.attacks.engines.walks import PerWalk, Walks

_RAISE, _LOWER = 10.0, 4.0  # factors between weights while all searches failed, or all succeeded


@dataclass
class Weights(PerWalk):
    """The weight that each walk gives to its loss, and what is known of the best one; all [L].

    The least weight that leads to a mistake leads to the nearest (Carlini & Wagner 2017,
    1608.04644, section V.A). The papers begin with a tiny one, raise it by factors of 10 and halve
    the bracket. Here the first weight may be lowered by factors too, and the bracket is halved on a
    scale of logarithms, so that few searches serve logits of any scale.

    Attributes:
        c: The weight of the present search.
        failed: The largest weight with which a search failed; 0 if none has.
        succeeded: The least weight with which a search succeeded; infinite if none has.
        won: Whether the present search has found a mistake, which is the method's to say.
    """

    c: Tensor
    failed: Tensor
    succeeded: Tensor
    won: Tensor

    @classmethod
    def first(cls, walks: Walks[None], weight: float) -> "Weights":
        """The state of new walks, which begin with `weight`."""
        none = walks.zeros()
        return cls(none + weight, none, none + torch.inf, walks.flags())

    def next(self, t: Tensor, inner: int) -> Tensor:
        """Gives walks whose search of `inner` steps ends with step `t` [L] the next weight.

        Returns which walks these are, bool [L].
        """
        over = (t + 1) % inner == 0
        lost, won = over & ~self.won, over & self.won
        self.failed = torch.where(lost, self.c, self.failed)
        self.succeeded = torch.where(won, self.c, self.succeeded)
        lower = torch.where(self.failed > 0, (self.failed * self.succeeded).sqrt(), self.c / _LOWER)
        weight = torch.where(self.succeeded.isinf(), self.c * _RAISE, lower)
        self.c = torch.where(over, weight, self.c)
        self.won = self.won & ~over
        return over
