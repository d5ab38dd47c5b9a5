"""Projected gradient descent on the attacker's own cost, in its space's own geometry."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.attacks.descent import Descent, Search, Walks
from arena.core import Player
from arena.fields import Count, Positive


@dataclass(frozen=True)
class PGD(Descent):
    """Madry et al. 2018 (1706.06083), section 2.1, generalised to any space and cost.

    x_{t+1} = project(x_t - step * eps * steepest(gradient of the cost's surrogate)); for the
    negated error rate in an L-inf ball this is the paper's signed ascent on cross-entropy.
    Differs from the paper in that the best iterate is returned (by the cost of its answer, then by
    the surrogate), not the last. `steps` gradients and `steps + 1` passes per restart.

    Attributes:
        step: Step size, as a share of the space's eps.
        restarts: Starting points.
        random_start: Start at random in the space; else at the input (then give one restart).
    """

    step: Positive = 0.1
    restarts: Count = 1
    random_start: bool = True

    def check(self, player: Player) -> None:
        """Raises ValueError if the space or the cost does not fit a descent."""
        super().check(player)
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"{self.restarts} restarts without random_start would all be the same")

    def variants(self, search: Search) -> int:
        """A walk a restart."""
        return self.restarts

    def begin(self, search: Search, walks: Walks) -> None:
        """At random in the space, or at the input."""
        if self.random_start:
            walks.x = search.space.sample(walks.given, walks.key)

    def advance(self, search: Search, walks: Walks, loss: Tensor, gradient: Tensor) -> Tensor:
        """A step of fixed size down the gradient, projected."""
        direction = search.space.steepest(gradient)
        moved = torch.add(walks.x, direction, alpha=-self.step * search.space.eps)
        return search.space.project(walks.given, moved)
