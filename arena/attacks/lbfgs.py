"""L-BFGS: the first attack on neural networks, a quasi-Newton descent inside the box."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena.actions.lp import L2
from arena.attacks.engines.descent import Search
from arena.attacks.engines.minimum_norm import MinimumNorm
from arena.attacks.engines.tradeoff import Weights
from arena.attacks.engines.walks import PerWalk, Walks
from arena.classification import Perturbations
from arena.fields import Count, Positive

_DECREASE = 1e-4  # Armijo's condition: the share of the promised decrease that must be had


@dataclass
class _Newton(PerWalk):
    """Where each quasi-Newton descent stands; inputs have n values.

    Attributes:
        weights: Of the surrogate against the distance.
        base: The last place that was good enough, [L, n].
        value: The objective there, [L]; infinite before the first place of a search.
        slope: Its gradient there, [L, n].
        direction: The step from there, [L, n].
        stride: The share of it that is tried, [L].
        places: Changes of place, the oldest first, [L, memory, n].
        slopes: Changes of gradient with them, [L, memory, n].
    """

    weights: Weights
    base: Tensor
    value: Tensor
    slope: Tensor
    direction: Tensor
    stride: Tensor
    places: Tensor
    slopes: Tensor


@dataclass(frozen=True)
class LBFGS(MinimumNorm[_Newton]):
    """Szegedy et al. 2014 (1312.6199), section 4.1; for L2 spaces.

    Minimises |x - x0|^2 + c * surrogate over the box; c is found by binary search, see `Weights`.
    For a targeted cost the surrogate is cross-entropy to the target, as in the paper; for an error
    rate it is -log(1 - p_y). Differs from the paper in that the distance is squared, as in Carlini
    & Wagner's account of it (1608.04644, section III.A), and in that c weighs the loss and not the
    distance.

    The minimiser is a projected L-BFGS (Bertsekas 1982, on the recursion of Nocedal 1980). Values
    at an end of the box that the gradient would push out stay there. The others step along minus
    the inverse Hessian's estimate times the gradient, cut to the box. A step that does not lower
    the objective enough (Armijo) is shortened, to the minimum of a parabola. Each walk is on its
    own: one may shorten its step while its neighbors go on.

    Takes `steps` gradients and `steps + 1` passes in all, shortened steps included.

    Attributes:
        searches: Values of c to try, in `steps / searches` steps each.
        weight: The first c.
        memory: Pairs of changes of place and gradient that estimate the Hessian.
    """

    steps: Count = 200
    searches: Count = 10
    weight: Positive = 1.0
    memory: Count = 5

    spaces: ClassVar[tuple[type[Perturbations], ...]] = (L2,)

    def begin(self, search: Search, walks: Walks[None]) -> _Newton:
        """Starts at the input."""
        flat = walks.x.flatten(1)
        pairs = flat.new_zeros(len(flat), self.memory, flat.shape[1])
        return _Newton(
            Weights.first(walks, self.weight),
            base=flat,
            value=walks.zeros() + torch.inf,
            slope=torch.zeros_like(flat),
            direction=torch.zeros_like(flat),
            stride=walks.zeros() + 1.0,
            places=pairs,
            slopes=pairs.clone(),
        )

    def loss(self, search: Search, walks: Walks[_Newton], logits: Tensor) -> Tensor:
        """The surrogate [L]; keeps whether the model is mistaken."""
        won = self.margin(search, walks, logits.detach()) < 0
        walks.own.weights.won |= won
        return search.cost.surrogate(logits, walks.y, search.classes)

    def advance(
        self, search: Search, walks: Walks[_Newton], loss: Tensor, gradient: Tensor
    ) -> Tensor:
        """A new step from a place that is good enough, else a shorter step; or the next search."""
        own, weights, box = walks.own, walks.own.weights, search.space.box
        x, given = walks.x.flatten(1), walks.given.flatten(1)
        slope = 2 * (x - given) + weights.c[:, None] * gradient.flatten(1)
        value = (x - given).square().sum(1) + weights.c * loss
        promised = (own.slope * (x - own.base)).sum(1)
        enough = value <= own.value + _DECREASE * promised
        self._accept(walks, enough, x, value, slope, box)
        own.stride = torch.where(enough, 1.0, own.stride * shortened(own.value, value, promised))
        x = (own.base + own.stride[:, None] * own.direction).clamp(*box)
        over = weights.next(walks.t, -(-self.steps // self.searches))
        own.value = torch.where(over, torch.inf, own.value)
        return torch.where(over[:, None], given, x).reshape(walks.x.shape)

    def _accept(
        self,
        walks: Walks[_Newton],
        enough: Tensor,
        x: Tensor,
        value: Tensor,
        slope: Tensor,
        box: tuple[float, float],
    ) -> None:
        """Where a step was good `enough` [L], makes `x` the base, with a new direction."""
        own, wide = walks.own, enough[:, None]
        fresh = own.value.isinf()

        def shifted(past: Tensor, change: Tensor) -> Tensor:
            change = change.masked_fill(fresh[:, None], 0.0)
            past = past.masked_fill(fresh[:, None, None], 0.0)
            return torch.where(wide[:, :, None], torch.cat([past[:, 1:], change[:, None]], 1), past)

        own.places = shifted(own.places, x - own.base)
        own.slopes = shifted(own.slopes, slope - own.slope)
        stuck = ((x <= box[0]) & (slope > 0)) | ((x >= box[1]) & (slope < 0))
        direction = -inverse_times(own.places, own.slopes, slope.masked_fill(stuck, 0.0))
        direction = direction.masked_fill(stuck, 0.0)
        own.base = torch.where(wide, x, own.base)
        own.value = torch.where(enough, value, own.value)
        own.slope = torch.where(wide, slope, own.slope)
        own.direction = torch.where(wide, direction, own.direction)


def inverse_times(places: Tensor, slopes: Tensor, gradient: Tensor) -> Tensor:
    """The inverse Hessian's estimate times `gradient` [L, n], by the two loops of Nocedal (1980).

    `places` and `slopes` [L, m, n] are the changes of place and of gradient, the oldest first.
    Pairs without curvature, such as zeros, count for nothing. Without any pair, the Hessian is that
    of the squared distance, 2.
    """
    curvature = (places * slopes).sum(2)
    useful = curvature > 1e-8 * slopes.square().sum(2)
    rho = torch.where(useful, 1 / curvature, 0.0)
    scale = torch.full_like(curvature[:, 0], 0.5)
    shares = []
    for i in reversed(range(places.shape[1])):
        share = rho[:, i] * (places[:, i] * gradient).sum(1)
        gradient = gradient - share[:, None] * slopes[:, i]
        shares.append(share)
    for i in range(places.shape[1]):  # the newest useful pair's own curvature is the scale
        newest = curvature[:, i] / slopes[:, i].square().sum(1)
        scale = torch.where(useful[:, i], newest, scale)
    gradient = scale[:, None] * gradient
    for i, share in enumerate(reversed(shares)):
        back = share - rho[:, i] * (slopes[:, i] * gradient).sum(1)
        gradient = gradient + back[:, None] * places[:, i]
    return gradient


def shortened(base: Tensor, value: Tensor, promised: Tensor) -> Tensor:
    """The factor [L] by which to shorten a step that led from `base` to `value`, both [L].

    It leads to the minimum of the parabola through both with the slope `promised` [L] at the first,
    and is kept between 0.1 and 0.5.
    """
    least = -promised / (2 * (value - base - promised))
    return least.nan_to_num(0.5, 0.5, 0.5).clamp(0.1, 0.5)
