"""Adam, for many walks at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.attacks.engines.walks import PerWalk, wide

_DECAY, _DECAY_SQUARES = 0.9, 0.999
_LEAST = 1e-8  # added to the root of the mean square


@dataclass
class Adam(PerWalk):
    """The two running means of Kingma & Ba 2015 (1412.6980), Algorithm 1.

    `torch.optim.Adam` counts steps once for all rows. Here each walk has its own count, because
    walks begin at different times, and walks leave.

    Attributes:
        mean: The running mean of the gradients, [L, ...].
        square: The running mean of their squares, [L, ...].
    """

    mean: Tensor
    square: Tensor

    @classmethod
    def at(cls, x: Tensor) -> "Adam":
        """The means before the first step, for variables `x` [L, ...]."""
        return cls(torch.zeros_like(x), torch.zeros_like(x))

    def direction(self, gradient: Tensor, count: Tensor) -> Tensor:
        """The direction [L, ...] to step against, of about unit size in each entry.

        Updates the means in place.

        Args:
            gradient: The gradients, [L, ...].
            count: The number of the step, from 1: [L], or [1] for all walks alike.
        """
        self.mean.lerp_(gradient, 1 - _DECAY)
        self.square.lerp_(gradient.square(), 1 - _DECAY_SQUARES)
        mean = self.mean / wide(1 - _DECAY**count, gradient)
        square = self.square / wide(1 - _DECAY_SQUARES**count, gradient)
        return mean.div_(square.sqrt_().add_(_LEAST))
