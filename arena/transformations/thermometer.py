"""Thermometer encoding, and the smooth substitute that breaks it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.fields import Count
from arena.transformations.transformation import Transformation


@dataclass(frozen=True)
class SoftThermometer(Transformation):
    """The differentiable substitute of Athalye et al. 2018 (1802.00420), section 5.2.1.

    Feature k of a value x in [0, 1] is min(max(x - k / levels, 0), 1), k = 1 .. levels.

    Attributes:
        levels: Number of features per value.
        box: Lowest and highest input value, mapped onto [0, 1] first.
    """

    levels: Count = 16
    box: tuple[float, float] = (0.0, 1.0)

    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        """The features [B, C * levels, ...] of inputs [B, C, ...], grouped by channel."""
        low, high = self.box
        place = torch.arange(1, self.levels + 1, device=x.device) / self.levels
        share = ((x - low) / (high - low)).unsqueeze(2)
        return (share - place.reshape(-1, *(1,) * (x.ndim - 2))).clamp(0, 1).flatten(1, 2)


@dataclass(frozen=True)
class Thermometer(Transformation):
    """Each value becomes a bar of ones: Buckman et al., ICLR 2018 (openreview S18Su--CW).

    Feature k of a value x in [0, 1] is 1 if x > k / levels, else 0, k = 1 .. levels. This is how
    Athalye et al. write it: with ten levels, 0.66 becomes 1111110000. The authors' bars are the
    complement. The derivative is 0 wherever it exists.

    BPDA replaces it by the substitute of the same shape, `BPDA(backward=SoftThermometer())`. In a
    yaml, or on the command line after attacker/strategy=bpda, write::

        'attacker.strategy.backward={_target_: arena.transformations.thermometer.SoftThermometer}'

    and add `levels` and `box` if they are not the defaults.

    Attributes:
        levels: Number of features per value.
        box: Lowest and highest input value.
    """

    levels: Count = 16
    box: tuple[float, float] = (0.0, 1.0)

    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        """The features [B, C * levels, ...], each 0 or 1, of inputs [B, C, ...]."""
        return SoftThermometer(self.levels, self.box)(x, key).ceil()
