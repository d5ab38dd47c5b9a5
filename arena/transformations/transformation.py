"""The interface of every transformation of inputs."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from arena.fields import Declared


def check_images(x: Tensor, transformation: str) -> None:
    """Raises ValueError, naming the transformation, unless `x` are images [B, ..., H, W]."""
    if x.ndim < 3:
        raise ValueError(
            f"{transformation} takes images [H, W], not inputs of shape {list(x.shape[1:])}; "
            "drop it for features"
        )


@dataclass(frozen=True)
class Transformation(Declared, ABC):
    """A map of inputs [B, ...]: a defender's preprocessing, or an attacker's guess at one.

    It has no trainable parameters.
    """

    @property
    def random(self) -> bool:
        """Whether the output depends on `key`."""
        return False

    @abstractmethod
    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        """The transformed inputs [B, ...], which may have another shape than `x` [B, ...].

        Each output depends only on its own input and on its own key, one of `key` [B] (see
        `chance`). The map need not be differentiable.
        """
