"""What score-guided searches share: what an answer is worth, who still stands, what is held."""

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
    """A search that scores guide, each example for itself; which, is the subclass's.

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
        """What tells `scores` [n, K] of equal cost apart, [n], low being good.

        The surrogate of the cost, unless a method's paper says otherwise.
        """
        return cost.surrogate(scores, y, classes)

    @abstractmethod
    def run(self, search: "Scored", player: Player) -> None:
        """Offers inputs to the search."""


class Scored:
    """A search of b examples, `rows` of the turn's data; `at` are places in it (0 .. b - 1).

    An input is worth the cost of its answer and, at equal cost, the method's `guide`, low being
    good. An answer that is not there, of scores that are not finite, costs what the player's cost
    says, and is no guide. The given inputs are asked about first.

    Attributes:
        given: The inputs as dealt, [b, C, H, W]: the last two axes are the plane and those before
            them channels; features [b, D] are a plane of height 1.
        x: What each search holds, [b, C, H, W]: the given input until `offer` is taken.
        keys: A random key [b] for each.
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
        """The cost and the guide [n] of inputs `x` [n, C, H, W]; each of `at` [n] pays a query."""
        x = x.reshape(-1, *self.shape)
        parts = [torch.split(whole, self.batch_size) for whole in (x, self.rows[at])]
        scores = torch.cat([self.view.scores(*part) for part in zip(*parts, strict=True)])
        self.refuses = scores.shape[1] > self.classes
        label, y = decide(scores, self.classes), self.y[at]
        cost = self.goal.answered(label, y)
        guide = self.guided(self.goal, scores, y, self.classes)
        return cost, torch.where((label == INVALID) | guide.isnan(), float("inf"), guide)

    def steps(self, most: int, queries: int = 1) -> Iterator[tuple[int, Tensor]]:
        """Steps from 0, each with those `at` who still stand, until nobody does.

        Who stands could find a cheaper answer, and has so many queries left.
        """
        at = torch.arange(len(self.x), device=self.x.device)
        for step in range(most):
            paying = self.view.remaining(self.rows[at]) >= queries
            stands = (self.cost[at] > self.floor[at]) & paying
            if not bool(stands.all()):  # nobody leaves in most steps: then nothing is copied
                at = at[stands]
            if len(at) == 0:
                break
            yield step, at

    def offer(self, at: Tensor, x: Tensor, always: bool = False) -> Tensor:
        """Asks about `x` [n, C, H, W] and holds it where it is better: bool [n]; or always."""
        cost, guide = self.ask(at, x)
        old = self.cost[at]
        better: Tensor = (cost < old) | ((cost == old) & (guide < self.guide[at])) | always
        taken = better.nonzero().flatten()
        won = at[taken]
        self.x[won], self.cost[won], self.guide[won] = x[taken], cost[taken], guide[taken]
        return better

    @property
    def played(self) -> Tensor:
        """What is held, or the given inputs where that is worth less, in the data's own shape."""
        cost, guide = self.honest
        worse = (cost < self.cost) | ((cost == self.cost) & (guide < self.guide))
        x: Tensor = torch.where(worse[:, None, None, None], self.given, self.x)
        return x.reshape(-1, *self.shape)
