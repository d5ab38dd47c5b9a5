"""Thermometer encoding, and the smooth stand-in that breaks it."""

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
        levels: Features a value becomes.
        box: Lowest and highest input value, mapped onto [0, 1] first.
    """

    levels: Count = 16
    box: tuple[float, float] = (0.0, 1.0)

    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        """The features [B, C * levels, ...] of inputs [B, C, ...]; those of a channel adjoin."""
        low, high = self.box
        place = torch.arange(1, self.levels + 1, device=x.device) / self.levels
        share = ((x - low) / (high - low)).unsqueeze(2)
        return (share - place.reshape(-1, *(1,) * (x.ndim - 2))).clamp(0, 1).flatten(1, 2)


@dataclass(frozen=True)
class Thermometer(Transformation):
    """Every value becomes a bar of ones: Buckman et al., ICLR 2018 (openreview S18Su--CW).

    Feature k of a value x in [0, 1] is 1 if x > k / levels, else 0, k = 1 .. levels, as Athalye et
    al. write it: ten levels make 1111110000 of 0.66. (The authors' bars are the complement: ones
    where here are zeros.) The derivative is 0 wherever there is one.

    BPDA goes through it by the substitute of the same shape, `BPDA(backward=SoftThermometer())`; in
    a yaml, or on the command line after attacker/strategy=bpda::

        'attacker.strategy.backward={_target_: arena.transformations.thermometer.SoftThermometer}'

    with `levels` and `box` beside it if they are not the defaults.

    Attributes:
        levels: Features a value becomes.
        box: Lowest and highest input value.
    """

    levels: Count = 16
    box: tuple[float, float] = (0.0, 1.0)

    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        """The features [B, C * levels, ...], each 0 or 1, of inputs [B, C, ...]."""
        return SoftThermometer(self.levels, self.box)(x, key).ceil()
