"""The set of legal outputs for given inputs, in the form that bounds need."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.actions.lp import L1, L2, Linf
from arena.certificates.operations import Span
from arena.core import ActionSpace

_DUAL: dict[type[ActionSpace], float] = {L2: 2.0, L1: float("inf")}


def check(space: ActionSpace) -> None:
    """Checks that there are bounds over the space.

    Raises:
        ValueError: If it is not the ball of L-inf, L2 or L1.
    """
    if not isinstance(space, Linf | L2 | L1):
        raise ValueError(
            f"no bounds over {type(space).__name__}; they cover the balls of Linf, L2 and L1"
        )


@dataclass(frozen=True)
class Ball:
    """{z : |z - x|_p <= radius} within the box, for each input x [B, ...].

    Attributes:
        x: The centers [B, ...].
        radius: The space's eps, enlarged by all that `contains` tolerates.
        dual: The norm dual to p; None for L-inf, where `span` is the whole ball.
        span: The interval of each input value, within the box.
    """

    x: Tensor
    radius: float
    dual: float | None
    span: Span

    @classmethod
    def of(cls, space: ActionSpace, x: Tensor) -> "Ball":
        """The ball of a declared space around the inputs `x` [B, ...], rounded outwards.

        `contains` compares a float32 size with eps (1 + tolerance) in float32, which adds the error
        of two roundings; the ends of the intervals are float32 too.

        Raises:
            ValueError: If there are no bounds over the space.
        """
        check(space)
        assert isinstance(space, Linf | L2 | L1)
        radius = space.eps * (1 + space.tolerance + 2.0**-22)
        low, high = (float(side) for side in torch.tensor(space.box, dtype=torch.float32))
        lower, upper = (x.double() + sign * radius for sign in (-1, 1))
        below, above = lower.to(x.dtype), upper.to(x.dtype)
        infinity = torch.tensor(float("inf"), device=x.device)
        below = torch.where(below > lower, below.nextafter(-infinity), below)
        above = torch.where(above < upper, above.nextafter(infinity), above)
        span = Span(below.clamp(min=low), above.clamp(max=high))
        return cls(x, radius, _DUAL.get(type(space)), span)

    def lowest(self, a: Tensor, owner: Tensor) -> Tensor:
        """A lower bound [P] of each functional `a` [P, ...] over the ball of example `owner` [P].

        It is exact for L-inf. For L2 and L1 it is the better of two bounds: by the ball without the
        box (dual norm), and by the interval of each value.
        """
        found = lowest(a, self.span, owner)
        if self.dual is None:
            return found
        flat = a.flatten(1)
        middle = (flat * self.x.flatten(1)[owner]).sum(1)
        return found.maximum(middle - self.radius * torch.linalg.vector_norm(flat, self.dual, 1))


def lowest(a: Tensor, span: Span, owner: Tensor) -> Tensor:
    """The smallest value [P] of functionals `a` [P, ...] over the intervals of `owner` [P]."""
    ends = torch.where(a > 0, span.lower[owner], span.upper[owner])
    return (a * ends).flatten(1).sum(1)
