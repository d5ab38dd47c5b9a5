"""Carlini & Wagner: distance and loss in one objective, over a variable that stays in the box."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from arena.actions.lp import L2
from arena.attacks.engines.boxed import Boxed
from arena.attacks.engines.descent import Search
from arena.attacks.engines.minimum_norm import MinimumNorm
from arena.attacks.engines.tradeoff import Weights
from arena.attacks.engines.walks import PerWalk, Walks
from arena.classification import Perturbations
from arena.fields import Count, Positive


@dataclass
class _Searching(PerWalk):
    """The weights of the search, and its present descent."""

    weights: Weights
    descent: Boxed


@dataclass(frozen=True)
class CarliniWagner(MinimumNorm[_Searching]):
    """Carlini & Wagner 2017 (1608.04644), section VI.A: their L2 attack; for L2 spaces.

    Minimises |x - x0|_2^2 + c * max(margin, 0) (their f_6, kappa = 0) with Adam over a variable w
    that keeps x in the box (see `Boxed`). The weight c is found by binary search (see `Weights`);
    each search starts at the input. The gradient over w is the engine's gradient over x, times the
    slope.

    Differs from the paper in how w is stretched to the box. And Adam's step falls linearly within
    each search, because a constant one would jump back and forth across the margin's zero.

    Takes `steps` gradients and `steps + 1` passes in all.

    Attributes:
        searches: Values of c to try, in `steps / searches` steps each.
        weight: The first c.
        lr: Adam's first step size of a search, in units of w.
    """

    steps: Count = 500
    searches: Count = 5
    weight: Positive = 1.0
    lr: Positive = 0.1

    spaces: ClassVar[tuple[type[Perturbations], ...]] = (L2,)
    instead: ClassVar[str] = "strategy=carlini_wagner_linf or carlini_wagner_l0"

    def begin(self, search: Search, walks: Walks[None]) -> _Searching:
        """Starts at the input."""
        return _Searching(Weights.first(walks, self.weight), Boxed.at(walks.x, search.space.box))

    def advance(
        self, search: Search, walks: Walks[_Searching], loss: Tensor, gradient: Tensor
    ) -> Tensor:
        """A step of Adam, or the start of the next search."""
        weights, descent, box = walks.own.weights, walks.own.descent, search.space.box
        inner = -(-self.steps // self.searches)
        weights.won |= loss < 0
        slope = (walks.x - walks.given).mul_(2)
        slope.addcmul_(gradient, walks.wide(weights.c * (loss > 0)))
        moved = descent.step(walks.x, slope, self.lr * (1 - walks.t % inner / inner), box)
        over = weights.next(walks.t, inner)
        if over.device.type == "cpu" and not bool(over.any()):  # elsewhere asking costs more
            return moved
        return descent.restart(over, walks.given, moved, box)
