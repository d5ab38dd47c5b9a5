"""DDN: a walk on a sphere that shrinks at a mistake and grows elsewhere."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena.actions.lp import L2
from arena.attacks.engines.descent import Search
from arena.attacks.engines.minimum_norm import MinimumNorm
from arena.attacks.engines.walks import PerWalk, Walks
from arena.classification import Perturbations
from arena.fields import Count, Positive, Share


@dataclass
class _Sphere(PerWalk):
    """The norm of each walk's displacement, and the margin where it stands; both [L]."""

    radius: Tensor
    margin: Tensor


@dataclass(frozen=True)
class DDN(MinimumNorm[_Sphere]):
    """Rony et al. 2019 (1811.09600), Algorithm 1: decoupled direction and norm, in L2.

    The direction takes a step of length `step` down the gradient of the cost's surrogate
    (cross-entropy for the error rate), annealed by a cosine. The norm shrinks by a share `gamma`
    where the walk is at a mistake, and grows by that share elsewhere. Takes `steps` gradients and
    `steps + 1` passes.

    Differs from the paper: `gamma` is annealed too, as in FMN (2102.12827), so that the norm ends
    as near to the boundary as the direction; since `step` and `gamma` end small, they begin twice
    as large (the paper: step 1, gamma = last_gamma = 0.05); what would leave the box at once is
    dropped from the gradient; outputs are not rounded to 256 levels; where the gradient is zero the
    walk keeps its direction.

    Attributes:
        step: The first step's length; the last's is a hundredth of it.
        gamma: The share by which the norm changes at the first step.
        last_gamma: The share by which it changes at the last step.
        radius: The first norm.
    """

    steps: Count = 99
    step: Positive = 2.0
    gamma: Share = 0.1
    last_gamma: Share = 0.001
    radius: Positive = 1.0

    spaces: ClassVar[tuple[type[Perturbations], ...]] = (L2,)
    instead: ClassVar[str] = "strategy=fmn"

    def begin(self, search: Search, walks: Walks[None]) -> _Sphere:
        """Starts at the input; all walks have the same norm."""
        return _Sphere(walks.zeros() + self.radius, walks.zeros())

    def loss(self, search: Search, walks: Walks[_Sphere], logits: Tensor) -> Tensor:
        """The surrogate of the cost [L]; keeps the margin, which is negative at a mistake."""
        walks.own.margin = self.margin(search, walks, logits.detach())
        return search.cost.surrogate(logits, walks.y, search.classes)

    def advance(
        self, search: Search, walks: Walks[_Sphere], loss: Tensor, gradient: Tensor
    ) -> Tensor:
        """A step of the direction, then onto the sphere, then into the box."""
        low, high = search.space.box
        gradient = self.free(search, walks, gradient)
        step = walks.wide(self.annealed(walks, self.step, self.step / 100))
        moved = walks.x - walks.given - step * search.space.steepest(gradient)
        wrong = walks.own.margin < 0
        gamma = self.annealed(walks, self.gamma, self.last_gamma)
        walks.own.radius = walks.own.radius * (1 + torch.where(wrong, -gamma, gamma))
        length = torch.linalg.vector_norm(moved.flatten(1), dim=1)
        scale = walks.own.radius / torch.where(length == 0, 1.0, length)
        return (walks.given + walks.wide(scale) * moved).clamp(low, high)
