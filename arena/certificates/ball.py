"""All legal outputs for given inputs, as bounds need them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.actions.lp import L1, L2, Linf
from arena.certificates.operations import Span
from arena.core import ActionSpace

_DUAL: dict[type[ActionSpace], float] = {L2: 2.0, L1: float("inf")}


def check(space: ActionSpace) -> None:
    """Raises ValueError if there are no bounds over the space."""
    if not isinstance(space, Linf | L2 | L1):
        raise ValueError(
            f"no bounds over {type(space).__name__}; they cover the balls of Linf, L2 and L1"
        )


@dataclass(frozen=True)
class Ball:
    """{z : |z - x|_p <= radius} within the box, for each input x [B, ...].

    Attributes:
        x: The centers.
        radius: The space's eps with everything that `contains` tolerates.
        dual: The norm dual to p; None for L-inf, where `span` says everything.
        span: The interval of each input value, in that of the box.
    """

    x: Tensor
    radius: float
    dual: float | None
    span: Span

    @classmethod
    def of(cls, space: ActionSpace, x: Tensor) -> "Ball":
        """The ball of a declared space.

        Rounded outwards: `contains` compares a float32 size with eps (1 + tolerance) in float32,
        which adds an error of two roundings; the interval's ends are float32.
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
        """The smallest value [P] of each functional `a` [P, ...] over the ball of its `owner` [P].

        Exact for L-inf; else the better of two bounds, the ball without the box (dual norm) and the
        interval of each value.
        """
        found = lowest(a, self.span, owner)
        if self.dual is None:
            return found
        flat = a.flatten(1)
        middle = (flat * self.x.flatten(1)[owner]).sum(1)
        return found.maximum(middle - self.radius * torch.linalg.vector_norm(flat, self.dual, 1))


def lowest(a: Tensor, span: Span, owner: Tensor) -> Tensor:
    """The smallest value [P] of functionals `a` [P, ...] over intervals of each value."""
    ends = torch.where(a > 0, span.lower[owner], span.upper[owner])
    return (a * ends).flatten(1).sum(1)
