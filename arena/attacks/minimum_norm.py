"""What the attacks share that look for the nearest mistake, wherever the ball ends."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.attacks.descent import Descent, Search, Walks
from arena.core import Turn


@dataclass(frozen=True)
class MinimumNorm(Descent):
    """A descent towards the mistake of least size, in the geometry of the player's space.

    A mistake is an answer that costs less than the right one. An example is done when a mistake
    lies in the ball; that one is played. Otherwise the nearest mistake is projected onto the ball
    and played on the off chance; if there was none, the given input is. With eps = 0 nobody is
    done early, and `nearest` is the whole of the published algorithm.
    """

    def respond(self, turn: Turn) -> Tensor:
        """The nearest mistakes, [B, ...], projected onto the ball."""
        search = Search(self, turn)
        return search.space.project(turn.data.x, search.run())

    def nearest(self, turn: Turn) -> tuple[Tensor, Tensor]:
        """The nearest mistakes [B, ...], in the box but of any size, and their sizes [B].

        Infinite where there was none; the input is then the given one.
        """
        search = Search(self, turn)
        return search.run(), search.best.second

    def rank(
        self, search: Search, walks: Walks, x: Tensor, cost: Tensor, loss: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mistakes alone, the nearest first."""
        mistake = cost < search.cost.answered(walks.y, walks.y)
        size = search.space.size(walks.given, x)
        return torch.where(mistake, 0.0, torch.inf), torch.where(mistake, size, torch.inf)

    def done(self, search: Search, rows: Tensor) -> Tensor:
        """Those with a mistake in the ball."""
        return search.best.second[rows] <= search.space.eps
