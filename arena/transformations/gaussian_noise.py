"""Gaussian noise on inputs."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from arena import chance
from arena.fields import NonNegative
from arena.transformations.transformation import Transformation


@dataclass(frozen=True)
class GaussianNoise(Transformation):
    """Adds independent normal noise to every value; the result is not clipped to the box.

    Attributes:
        std: Standard deviation, in the units of the input.
    """

    random: ClassVar[bool] = True

    std: NonNegative

    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        """The noisy inputs, [B, ...]."""
        return x + self.std * chance.normal(key, x.shape[1:])
