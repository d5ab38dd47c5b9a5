"""Rounding to a few bits: the bit-depth half of feature squeezing [F21-F23 of the keynote]."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.fields import Count
from arena.transformations.transformation import Transformation


@dataclass(frozen=True)
class BitDepth(Transformation):
    """Rounds every value to `bits` bits: feature squeezing (1704.01155), section 3.1.

    round(x (2^bits - 1)) / (2^bits - 1), over the box. The derivative is 0 wherever it exists.

    Attributes:
        bits: Bits per value; there are 2^bits levels, including both ends of the box.
        box: Lowest and highest input value.
    """

    bits: Count = 3
    box: tuple[float, float] = (0.0, 1.0)

    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        """The level nearest to each value, [B, ...]."""
        low, high = self.box
        steps: float = (2**self.bits - 1) / (high - low)
        return torch.round((x - low) * steps) / steps + low
