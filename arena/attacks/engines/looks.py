"""What a detector compares: a model's answers to several looks at an input."""

from collections.abc import Callable
from typing import Protocol, TypeGuard

from torch import Tensor, nn

from arena import chance


class Compares(Protocol):
    """A module that refuses where several looks at an input are not answered alike."""

    def compared(self, x: Tensor, key: Tensor) -> Tensor:
        """Log-probabilities [V, B, K] of V looks at `x` [B, ...], by the coins `key` [B]."""


def compares(part: nn.Module) -> TypeGuard[Compares]:
    """Whether a module compares looks at its input.

    Attributes are read as any caller reads them. `isinstance` with a runtime protocol reads them
    statically from Python 3.12 on, and so finds neither the children nor the buffers of a module.
    """
    return callable(getattr(part, "compared", None))


class Looks(nn.Module):
    """The looks of a detector, in its place.

    Attributes:
        detector: Whose looks.
        joined: Makes one output [B, ...] of the log-probabilities [V, B, K] of all looks.
    """

    random = True

    def __init__(self, detector: Compares, joined: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.detector = detector
        self.joined = joined

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """The output, by the coins `key` [B]; without them, by those of the input itself."""
        return self.joined(self.detector.compared(x, chance.of(x.detach()) if key is None else key))


def mean(looks: Tensor) -> Tensor:
    """The mean log-probabilities [B, K]."""
    return looks.mean(0)


def side_by_side(looks: Tensor) -> Tensor:
    """All of them, [B, V K], of one look after the other."""
    return looks.transpose(0, 1).flatten(1)
