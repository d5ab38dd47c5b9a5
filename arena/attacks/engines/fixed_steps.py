"""What descents in steps of one length share: where walks start, and the step."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from arena.attacks.engines.descent import Descent, Search
from arena.attacks.engines.walks import S, Walks
from arena.core import Player
from arena.fields import Count, Positive


@dataclass(frozen=True)
class FixedSteps(Descent[S]):
    """A descent in steps of `step * eps` in the space's own geometry, each projected.

    Attributes:
        step: Step size, as a share of the space's eps.
        restarts: Starting points.
        random_start: Start at random in the space; else at the input (then give one restart).
    """

    steps: Count = 20
    step: Positive = 0.15
    restarts: Count = 1
    random_start: bool = True

    def check(self, player: Player) -> None:
        """Raises ValueError if the space or the cost does not fit a descent."""
        super().check(player)
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"{self.restarts} restarts without random_start would all be the same")

    def variants(self, search: Search) -> int:
        """One walk per restart."""
        return self.restarts

    def start(self, search: Search, walks: Walks[None]) -> None:
        """Places new walks at random in the space, or leaves them at the input."""
        if self.random_start:
            walks.x = search.space.sample(walks.given, walks.key)

    def stepped(self, search: Search, walks: Walks[Any], direction: Tensor) -> Tensor:
        """Where a step down `direction` [L, ...] leads, [L, ...], back in the space."""
        space = search.space
        steepest = space.steepest(direction)
        moved = torch.add(walks.x, steepest, alpha=-self.step * space.eps)
        return space.project(walks.given, moved)
