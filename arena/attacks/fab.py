"""FAB: walks along the decision boundary towards the given input."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from arena.actions.lp import L1, L2, Linf
from arena.attacks.engines.descent import Search
from arena.attacks.engines.losses import margin
from arena.attacks.engines.minimum_norm import MinimumNorm
from arena.attacks.engines.walks import PerWalk, Walks
from arena.classification import Perturbations
from arena.fields import Count, Positive, Share


@dataclass
class _Mistaken(PerWalk):
    """Whether each walk stands at a mistake, bool [L]."""

    at: Tensor


@dataclass(frozen=True)
class FAB(MinimumNorm[_Mistaken]):
    """Croce & Hein 2020 (1907.02044), Algorithm 1, one walk per target; L-inf, L2 and L1.

    The boundary to a target is taken to be the hyperplane given by the margin's gradient. A step
    goes a little beyond (`overshoot`) the nearest point of hyperplane and box, equation 6. That
    point is a mean of those nearest to the walk and to the given input (equation 9). From a mistake
    the walk first goes back towards the given input (equation 10).

    Differs from the paper: the targets are the winning answers that are likeliest at the input, one
    walk each (the targeted form of 2003.01690), where the paper's single walk picks the nearest of
    all hyperplanes with a gradient for every class. The gradient after a step back is that at the
    mistake where it starts, which saves a pass. There is no final search along the line to the
    input. Takes `steps` gradients and `steps + 1` passes per walk, and one pass to choose targets.

    Attributes:
        targets: Winning answers to try, the likeliest first.
        restarts: Walks per target. The first starts at the input, the others at a random place
            within half the ball's radius.
        towards: The largest weight of the point nearest to the given input (alpha_max).
        overshoot: How far a step goes, with the hyperplane at 1 (eta).
        back: The share of a mistake's displacement that is kept (beta).
    """

    steps: Count = 100
    targets: Count = 9
    restarts: Count = 1
    towards: Share = 0.1
    overshoot: Positive = 1.05
    back: Share = 0.9

    spaces: ClassVar[tuple[type[Perturbations], ...]] = (Linf, L2, L1)

    def variants(self, search: Search) -> int:
        """One walk per target and restart."""
        return max(min(self.targets, search.options()), 1) * self.restarts

    def begin(self, search: Search, walks: Walks[None]) -> _Mistaken:
        """Starts at the input, aimed at a target; restarts begin at a random place nearby."""
        search.aim(walks, self.targets)
        again = walks.variant >= min(self.targets, search.options())
        if self.restarts > 1:
            near = (walks.given + search.space.sample(walks.given, walks.key)) / 2
            walks.x = torch.where(walks.wide(again), near, walks.x)
        return _Mistaken(walks.flags())

    def loss(self, search: Search, walks: Walks[_Mistaken], logits: Tensor) -> Tensor:
        """The margin to the target, [L]."""
        return margin(logits, search.wins(walks.y), walks.target)

    def rank(
        self, search: Search, walks: Walks[_Mistaken], x: Tensor, cost: Tensor, loss: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Ranks as every search for the nearest does; keeps which walks are at a mistake."""
        first, second = super().rank(search, walks, x, cost, loss)
        walks.own.at = first == 0
        return first, second

    def advance(
        self, search: Search, walks: Walks[_Mistaken], loss: Tensor, gradient: Tensor
    ) -> Tensor:
        """Beyond the hyperplane, seen from the walk's place and from the input."""
        given, slope = walks.given.flatten(1), gradient.flatten(1)
        x, loss = walks.x.flatten(1), loss.nan_to_num(0.0, 0.0, 0.0)
        kept = torch.where(walks.own.at, self.back, 1.0)[:, None]
        base = given + kept * (x - given)
        own = onto(search.space, base, slope, loss + (slope * (base - x)).sum(1))
        far = onto(search.space, given, slope, loss + (slope * (given - x)).sum(1))
        size, whole = _size(search.space, own), _size(search.space, far)
        share = (size / (size + whole).clamp(min=1e-12)).clamp(max=self.towards)[:, None]
        moved = (1 - share) * (base + self.overshoot * own)
        moved = moved + share * (given + self.overshoot * far)
        return moved.clamp(*search.space.box).reshape(walks.x.shape)


def onto(space: Perturbations, x: Tensor, slope: Tensor, height: Tensor) -> Tensor:
    """The least displacement [L, n] from `x`, within the box, to height + slope * displacement = 0.

    It is the least in the geometry of `space` (section 2.2): all coordinates go at most a distance
    r (L-inf); each goes as far as r times its slope (L2); or the steepest go first, as far as the
    box lets them (L1). Where the box does not reach the hyperplane, it leads to the corner of the
    box nearest to it.

    Args:
        space: An L-inf, L2 or L1 space; its box holds `x`.
        x: Points [L, n].
        slope: Normals of the hyperplanes, [L, n].
        height: Values at `x`, [L].
    """
    low, high = space.box
    sign = -height.sign()[:, None] * slope.sign()
    room = torch.where(sign > 0, high - x, x - low).clamp(min=0)
    weight, need = slope.abs(), height.abs()[:, None]
    if isinstance(space, L1):
        order = weight.argsort(dim=1, descending=True)
        weight, room = weight.gather(1, order), room.gather(1, order)
        before = pad((weight * room).cumsum(1), (1, 0))[:, :-1]
        moved = ((need - before) / weight.clamp(min=1e-12)).clamp(min=0).minimum(room)
        return sign * torch.zeros_like(moved).scatter(1, order, moved)
    pace = weight if isinstance(space, L2) else torch.ones_like(weight)
    # Coordinate i moves min(r * pace, room), and stops at r = room / pace. In the order of the
    # stops, what is gained is linear in r between neighbors.
    stop, order = (room / pace.clamp(min=1e-12)).sort(dim=1)
    gain = (weight * pace).gather(1, order)
    ended = pad((weight * room).gather(1, order).cumsum(1), (1, 0))[:, :-1]
    going = gain.flip(1).cumsum(1).flip(1)
    reach = ended + stop * going  # gained once coordinate k has come to its stop
    k = (reach < need).sum(1, keepdim=True).clamp(max=x.shape[1] - 1)
    r = (need - ended.gather(1, k)) / going.gather(1, k).clamp(min=1e-12)
    return sign * (r.clamp(min=0) * pace).minimum(room)


def _size(space: Perturbations, displacement: Tensor) -> Tensor:
    order = 1.0 if isinstance(space, L1) else 2.0 if isinstance(space, L2) else float("inf")
    size: Tensor = torch.linalg.vector_norm(displacement, ord=order, dim=1)
    return size
