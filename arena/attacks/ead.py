"""EAD: Carlini & Wagner's objective under an elastic net, which changes few features."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from arena.actions.lp import L1
from arena.attacks.engines.descent import Search
from arena.attacks.engines.minimum_norm import MinimumNorm
from arena.attacks.engines.tradeoff import Weights
from arena.attacks.engines.walks import PerWalk, Walks
from arena.classification import Perturbations
from arena.fields import Count, NonNegative, Positive


@dataclass
class _Fista(PerWalk):
    """The weights of the search, and the last x [L, ...] of FISTA, whose y is where walks are."""

    weights: Weights
    x: Tensor


@dataclass(frozen=True)
class EAD(MinimumNorm[_Fista]):
    """Chen et al. 2018 (1709.04114), Algorithm 1; for L1 spaces.

    Minimises c * max(margin, 0) + beta * |x - x0|_1 + |x - x0|_2^2 over the box by FISTA. From y, a
    gradient step on all but the L1 term, then shrinkage by beta towards x0, then a cut to the box
    give the next x; and y = x + k / (k + 3) * (x - the last x). The weight c is found by binary
    search, see `Weights`. As in the paper the shrinkage is beta, not beta times the step size: the
    effective weight of the L1 norm is beta over the step size, and rises as the step size falls.

    Differs from the paper in that y is cut to the box, and in that mistakes are looked for at y,
    where the gradient is taken, not at x. This saves one pass per step, and x and y end at the same
    point.

    Takes `steps` gradients and `steps + 1` passes in all.

    Attributes:
        searches: Values of c to try, in `steps / searches` steps each.
        weight: The first c.
        beta: The weight of the L1 norm, and how much each change shrinks per step.
        lr: First step size; it falls to 0 with the square root of the steps left.
        rule: Which mistake is the nearest: the one of least L1 norm ("l1"), or the one of least
            beta * L1 norm + squared L2 norm ("en"). With "en", that sum is the size that `nearest`
            returns.
    """

    steps: Count = 500
    searches: Count = 5
    weight: Positive = 1.0
    beta: NonNegative = 0.01
    lr: Positive = 0.01
    rule: Literal["l1", "en"] = "l1"

    spaces: ClassVar[tuple[type[Perturbations], ...]] = (L1,)

    def begin(self, search: Search, walks: Walks[None]) -> _Fista:
        """Starts at the input."""
        return _Fista(Weights.first(walks, self.weight), walks.x)

    def advance(
        self, search: Search, walks: Walks[_Fista], loss: Tensor, gradient: Tensor
    ) -> Tensor:
        """A step of FISTA, or the start of the next search."""
        own, weights, given = walks.own, walks.own.weights, walks.given
        inner = -(-self.steps // self.searches)
        k = walks.t % inner
        weights.won |= loss < 0
        slope = walks.wide(weights.c * (loss > 0)) * gradient + 2 * (walks.x - given)
        length = walks.wide(self.lr * (1 - k / inner).sqrt())
        change = walks.x - length * slope - given
        # Soft thresholding: zero below beta, and that much less above it.
        change = change - change.clamp(-self.beta, self.beta)
        x = (given + change).clamp(*search.space.box)
        y = torch.lerp(own.x, x, walks.wide(1 + k / (k + 3))).clamp(*search.space.box)
        over = weights.next(walks.t, inner)
        own.x = torch.where(walks.wide(over), given, x)
        return torch.where(walks.wide(over), given, y)

    def rank(
        self, search: Search, walks: Walks[_Fista], x: Tensor, cost: Tensor, loss: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Ranks mistakes alone, the nearest by the rule first."""
        mistake, size = super().rank(search, walks, x, cost, loss)
        if self.rule == "en":
            size = self.beta * size + (x - walks.given).square().flatten(1).sum(1)
        return mistake, size

    def done(self, search: Search, rows: Tensor) -> Tensor:
        """Which examples have a mistake in the ball, bool [L]."""
        if self.rule == "l1":
            return super().done(search, rows)
        size = search.space.size(search.turn.data.x[rows], search.best.x[rows])
        return search.best.first[rows].isfinite() & (size <= search.space.eps)
