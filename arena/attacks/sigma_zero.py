"""sigma-zero: descent on a smooth count of the changed features, which undoes small changes."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from arena.actions.lp import L0
from arena.attacks.engines.adam import Adam
from arena.attacks.engines.descent import Search
from arena.attacks.engines.minimum_norm import MinimumNorm
from arena.attacks.engines.walks import PerWalk, Walks
from arena.classification import Perturbations
from arena.fields import Count, Positive, Share


@dataclass
class _Cut(PerWalk):
    """Adam's means, and the threshold [L] below which changes are undone."""

    adam: Adam
    cut: Tensor


@dataclass(frozen=True)
class SigmaZero(MinimumNorm[_Cut]):
    """Cina et al. 2024 (2402.01879), Algorithm 1, for L0.

    Descends max(margin, 0) + sum_i d_i^2 / (d_i^2 + sigma) / n over the displacement d of n
    features (equations 3 to 5): the gradient is divided by its largest entry, the step is annealed
    by a cosine, and the result is cut to the box. Then changes below a threshold become 0. The
    threshold rises by `adapt` times the step's length where the walk is at a mistake, and falls by
    as much elsewhere. Takes `steps` gradients and `steps + 1` passes.

    The step is Adam's, as in the authors' code; Algorithm 1 has a plain one.

    Attributes:
        steps: Steps of the walk; the paper takes 1000 or 100.
        step: Length of the first step (eta_0); the last's is a tenth of it.
        sigma: The square of the size at which a change counts as half a feature.
        threshold: The first threshold (tau_0), as a share of the box's width.
        adapt: Change of the threshold, as a share of the step (t).
    """

    steps: Count = 99
    step: Positive = 1.0
    sigma: Positive = 0.001
    threshold: Share = 0.3
    adapt: Share = 0.01

    spaces: ClassVar[tuple[type[Perturbations], ...]] = (L0,)
    instead: ClassVar[str] = "strategy=fmn"

    def begin(self, search: Search, walks: Walks[None]) -> _Cut:
        """Starts at the input."""
        return _Cut(Adam.at(walks.x), walks.zeros() + self.threshold)

    def advance(self, search: Search, walks: Walks[_Cut], loss: Tensor, gradient: Tensor) -> Tensor:
        """A step, cut to the box; changes that are too small are undone."""
        low, high = search.space.box
        change = (walks.x - walks.given) / (high - low)
        smooth = 2 * self.sigma * change / (change.square() + self.sigma).square()
        wrong = loss < 0
        slope = torch.where(walks.wide(wrong), 0.0, gradient * (high - low))
        slope = slope + smooth / prod(change.shape[1:])
        slope = slope / walks.wide(slope.flatten(1).abs().amax(1).clamp(min=1e-12))
        step = self.annealed(walks, self.step, self.step / 10)
        change = change - walks.wide(step) * walks.own.adam.direction(slope, walks.t + 1)
        moved = (walks.given + (high - low) * change).clamp(low, high)
        cut = walks.own.cut + self.adapt * torch.where(wrong, step, -step)
        walks.own.cut = cut.clamp(0.0, 1.0)
        small = (moved - walks.given).abs() < walks.wide(walks.own.cut) * (high - low)
        return torch.where(small, walks.given, moved)
