"""What the attacks share that look for the nearest mistake, whether or not it lies in the ball."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from arena.attacks.engines import losses
from arena.attacks.engines.descent import Descent, Search
from arena.attacks.engines.walks import S, Walks
from arena.core import Turn


@dataclass(frozen=True)
class MinimumNorm(Descent[S]):
    """A descent towards the mistake of least size, in the geometry of the player's space.

    A mistake is an answer that costs less than the right one. An example is done when a mistake
    lies in the ball, and that mistake is played. Otherwise the nearest mistake is projected onto
    the ball and played on the off chance. Without any mistake the given input is played. With eps =
    0 no example is done early, and `nearest` is the whole of the published algorithm.
    """

    def respond(self, turn: Turn) -> Tensor:
        """The nearest mistakes, [B, ...], projected onto the ball."""
        search = Search(self, turn)
        return search.space.project(turn.data.x, search.run())

    def nearest(self, turn: Turn) -> tuple[Tensor, Tensor]:
        """The nearest mistakes [B, ...], in the box but of any size, and their sizes [B].

        Where there is no mistake the size is infinite, and the input is the given one.
        """
        search = Search(self, turn)
        return search.run(), search.best.second

    def loss(self, search: Search, walks: Walks[S], logits: Tensor) -> Tensor:
        """The margin [L] between right answers and mistakes: negative at a mistake."""
        return self.margin(search, walks, logits)

    def margin(self, search: Search, walks: Walks[S], logits: Tensor) -> Tensor:
        """The largest logit that is no mistake less the largest that is, [L]; 0 if none is."""
        return losses.margin(logits, self.mistakes(search, walks.y))

    def mistakes(self, search: Search, y: Tensor) -> Tensor:
        """Which answers, a refusal included, are mistakes for the truth `y` [L]: [L, width]."""
        prices = losses.prices(search.cost, y, search.width, search.classes)
        return prices < search.cost.answered(y, y)[:, None]

    def free(self, search: Search, walks: Walks[S], gradient: Tensor) -> Tensor:
        """The gradient [L, ...], with 0 where a descent would leave the box at once.

        Such entries would make a step shorter than it should be, and the boundary seem nearer. Many
        inputs lie on the sides of the box, where whole walks would stand still.
        """
        low, high = search.space.box
        blocked = ((walks.x <= low) & (gradient > 0)) | ((walks.x >= high) & (gradient < 0))
        return gradient.masked_fill(blocked, 0.0)

    def steepness(self, search: Search, gradient: Tensor) -> Tensor:
        """How fast a descent can be: the dual norm [L] of the gradient [L, ...]."""
        return (gradient * search.space.steepest(gradient)).flatten(1).sum(1)

    def annealed(self, walks: Walks[S], first: float, last: float) -> Tensor:
        """Half a cosine over the steps, [L]: `first` at the first, `last` after the last."""
        return last + (first - last) * (1 + (walks.t * (math.pi / self.steps)).cos()) / 2

    def rank(
        self, search: Search, walks: Walks[S], x: Tensor, cost: Tensor, loss: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Ranks mistakes alone, the nearest first."""
        mistake = cost < search.cost.answered(walks.y, walks.y)
        size = search.space.size(walks.given, x)
        return torch.where(mistake, 0.0, torch.inf), torch.where(mistake, size, torch.inf)

    def done(self, search: Search, rows: Tensor) -> Tensor:
        """Which examples have a mistake in the ball, or can have none, bool [L]."""
        return self.hopeless(search, rows) | (search.best.second[rows] <= search.space.eps)

    def hopeless(self, search: Search, rows: Tensor) -> Tensor:
        """For which examples `rows` [L] nothing costs less than the right answer, bool [L]."""
        y = search.turn.data.y[rows]
        return search.floor[rows] >= search.cost.answered(y, y)
