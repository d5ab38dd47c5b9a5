"""What a detector compares: a model's answers to several looks at an input."""

from collections.abc import Callable
from typing import Protocol, TypeGuard

from torch import Tensor, nn

from arena import chance


class Compares(Protocol):
    """A module that refuses inputs whose several looks are not answered alike."""

    def compared(self, x: Tensor, key: Tensor) -> Tensor:
        """Log-probabilities [V, B, K] of V looks at `x` [B, ...], by the coins `key` [B]."""


def compares(part: nn.Module) -> TypeGuard[Compares]:
    """Whether a module compares looks at its input.

    Attributes are read as any caller reads them. `isinstance` with a runtime protocol reads them
    statically from Python 3.12 on, and so finds neither the children nor the buffers of a module.
    """
    return callable(getattr(part, "compared", None))


class Looks(nn.Module):
    """The looks of a detector, as a module that stands in its place.

    Attributes:
        detector: The detector whose looks these are.
        joined: Makes one output [B, ...] of the log-probabilities [V, B, K] of all looks.
    """

    random = True

    def __init__(self, detector: Compares, joined: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.detector = detector
        self.joined = joined

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """The output, for the coins `key` [B]; by default for those drawn from the input itself."""
        return self.joined(self.detector.compared(x, chance.of(x.detach()) if key is None else key))


def mean(looks: Tensor) -> Tensor:
    """The mean log-probabilities [B, K]."""
    return looks.mean(0)


def side_by_side(looks: Tensor) -> Tensor:
    """The log-probabilities of all looks, one after the other, [B, V K]."""
    return looks.transpose(0, 1).flatten(1)
