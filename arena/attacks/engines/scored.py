"""What score-guided searches share: the worth of an answer, and the state of each example."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena.attacks.engines.descent import require_surrogate
from arena.attacks.engines.spaces import serving
from arena.classification import Perturbations, decide
from arena.core import Cost, Player, Strategy, Turn
from arena.knowledge import INVALID, REFUSED, ScoreView, View


@dataclass(frozen=True)
class ScoreSearch(Strategy):
    """A search guided by scores, each example for itself; the subclass says how to search.

    An example leaves when no answer would cost less, or when its budget is spent. Law: no output is
    answered at a higher cost than its given input.
    """

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": ScoreView}
    spaces: ClassVar[tuple[type[Perturbations], ...]] = (Perturbations,)
    """The spaces that the search has moves for."""

    def check(self, player: Player) -> None:
        """Checks the player's space and cost.

        Raises:
            ValueError: If the space is none of `spaces`, or the cost has no surrogate.
        """
        serving(player, type(self).__name__, self.spaces)
        require_surrogate(player, type(self).__name__)

    def respond(self, turn: Turn) -> Tensor:
        """The best inputs found, [B, ...]."""

        def best(rows: Tensor) -> Tensor:
            search = Scored(turn, rows, self.guide)
            self.run(search, turn.player)
            return search.played

        return turn.each_batch(best)

    def guide(self, cost: Cost, scores: Tensor, y: Tensor, classes: int) -> Tensor:
        """The value [n], low being good, that ranks `scores` [n, K] of equal cost.

        By default the surrogate of the cost.
        """
        return cost.surrogate(scores, y, classes)

    @abstractmethod
    def run(self, search: "Scored", player: Player) -> None:
        """Offers inputs to the search."""


class Scored:
    """A search for b examples, `rows` of the turn's data; `at` are places in it (0 .. b - 1).

    Inputs are ranked by the cost of their answer and, at equal cost, by the method's `guide`, low
    being good. An answer that is not there, because scores are not finite, costs what the player's
    cost says, and guides nothing. The given inputs are asked about first.

    Attributes:
        given: The inputs as dealt, [b, C, H, W]: the last two axes are the plane, those before them
            are channels; features [b, D] are a plane of height 1.
        x: What each search holds, [b, C, H, W]: the given input until an `offer` is taken.
        keys: A random key for each example, [b].
    """

    def __init__(
        self, turn: Turn, rows: Tensor, guide: Callable[[Cost, Tensor, Tensor, int], Tensor]
    ) -> None:
        self.view, self.rows, self.batch_size = (
            turn.see("defender", ScoreView),
            rows,
            turn.batch_size,
        )
        self.guided = guide
        self.goal, self.classes, self.shape = turn.player.cost, turn.data.classes, turn.data.shape
        self.y, self.keys = turn.data.y[rows], turn.keys[rows]
        height, width = (1, 1, *self.shape)[-2:]
        self.given = turn.data.x[rows].reshape(len(rows), -1, height, width)
        self.x = self.given.clone()
        self.cost, self.guide = torch.full((2, len(rows)), float("inf"), device=rows.device)
        self.refuses = False
        paying = (self.view.remaining(rows) > 0).nonzero().flatten()
        if len(paying) > 0:
            self.cost[paying], self.guide[paying] = self.ask(paying, self.given[paying])
        self.honest = self.cost.clone(), self.guide.clone()
        options = [*range(self.classes), *[REFUSED] * self.refuses]
        prices = [self.goal.answered(torch.full_like(self.y, k), self.y) for k in options]
        self.floor = torch.stack(prices).amin(0)

    def ask(self, at: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The cost and the guide [n] of `x` [n, C, H, W]; each of `at` [n] pays one query."""
        x = x.reshape(-1, *self.shape)
        parts = [torch.split(whole, self.batch_size) for whole in (x, self.rows[at])]
        scores = torch.cat([self.view.scores(*part) for part in zip(*parts, strict=True)])
        self.refuses = scores.shape[1] > self.classes
        label, y = decide(scores, self.classes), self.y[at]
        cost = self.goal.answered(label, y)
        guide = self.guided(self.goal, scores, y, self.classes)
        return cost, torch.where((label == INVALID) | guide.isnan(), float("inf"), guide)

    def steps(self, most: int, queries: int = 1) -> Iterator[tuple[int, Tensor]]:
        """Steps from 0, each with the examples `at` that still search, until there are none.

        An example still searches if a cheaper answer than the one it holds exists, and it has so
        many queries left.
        """
        at = torch.arange(len(self.x), device=self.x.device)
        for step in range(most):
            paying = self.view.remaining(self.rows[at]) >= queries
            stands = (self.cost[at] > self.floor[at]) & paying
            if not bool(stands.all()):  # in most steps none leaves, and nothing is copied
                at = at[stands]
            if len(at) == 0:
                break
            yield step, at

    def offer(self, at: Tensor, x: Tensor, always: bool = False) -> Tensor:
        """Asks about `x` [n, C, H, W] and holds it where it is better, bool [n], or `always`."""
        cost, guide = self.ask(at, x)
        old = self.cost[at]
        better: Tensor = (cost < old) | ((cost == old) & (guide < self.guide[at])) | always
        taken = better.nonzero().flatten()
        won = at[taken]
        self.x[won], self.cost[won], self.guide[won] = x[taken], cost[taken], guide[taken]
        return better

    @property
    def played(self) -> Tensor:
        """What each search holds, or the given input if that is better, in the data's own shape."""
        cost, guide = self.honest
        worse = (cost < self.cost) | ((cost == self.cost) & (guide < self.guide))
        x: Tensor = torch.where(worse[:, None, None, None], self.given, self.x)
        return x.reshape(-1, *self.shape)
