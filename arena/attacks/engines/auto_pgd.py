"""What the forms of Auto-PGD share: the loss they follow, and the best place of each walk."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from arena.attacks.engines.descent import Descent, Search
from arena.attacks.engines.losses import dlr, margin
from arena.attacks.engines.walks import PerWalk, S, Walks, wide
from arena.fields import Count


@dataclass
class BestPlace(PerWalk):
    """The best place of each walk so far, with the gradient there (both [L, ...]) and the loss [L].

    The loss is infinite before the first.
    """

    place: Tensor
    slope: Tensor
    loss: Tensor

    @classmethod
    def unknown(cls, walks: Walks[None]) -> "BestPlace":
        """The state of walks that have looked at no place yet."""
        return cls(walks.x, torch.zeros_like(walks.x), walks.zeros() + torch.inf)

    def remember(self, x: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Keeps `x` [L, ...] with its loss [L] and its gradient where the loss is the lowest."""
        better = loss < self.loss
        where = wide(better, x)
        self.loss = torch.where(better, loss, self.loss)
        self.place = torch.where(where, x, self.place)
        self.slope = torch.where(where, gradient, self.slope)

    def back(self, which: Tensor, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The best place and its gradient for `which` [L]; `x` and `gradient` for the others."""
        where = wide(which, x)
        return torch.where(where, self.place, x), torch.where(where, self.slope, gradient)


@dataclass(frozen=True)
class AutoPGD(Descent[S]):
    """A descent that sets its own step sizes (Croce & Hein 2020, 2003.01690).

    Attributes:
        objective: What to descend: the cost's own surrogate (cross-entropy for the error rate), the
            difference of logits ratio (DLR), or the margin.
        restarts: Random starting points, each with its target if there are `targets`.
        targets: Walks per start that each aim at one winning answer, the likeliest first; 0: the
            loss is over all of them. No more than the most that any example has are run.
    """

    steps: Count = 100
    objective: Literal["surrogate", "dlr", "margin"] = "surrogate"
    restarts: Count = 1
    targets: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets < 0 or (self.targets and self.objective == "surrogate"):
            raise ValueError(
                f"{type(self).__name__}.targets = {self.targets} with objective={self.objective}: "
                "give 0, or at least 1 with objective=dlr or margin, whose losses can aim at an "
                "answer"
            )

    def variants(self, search: Search) -> int:
        """One walk per restart and target."""
        return self.restarts * max(min(self.targets, search.options()), 1)

    def loss(self, search: Search, walks: Walks[S], logits: Tensor) -> Tensor:
        """The objective [L], over all winning answers or towards the walk's target."""
        if self.objective == "surrogate":
            return super().loss(search, walks, logits)
        ratio = dlr if self.objective == "dlr" else margin
        return ratio(logits, search.wins(walks.y), walks.target)
