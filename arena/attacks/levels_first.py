"""Past a detector that rounds: choose what rounding leaves, and match everything else to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from arena import chance
from arena.actions.lp import Linf
from arena.attacks.engines import losses
from arena.attacks.engines.descent import Best, require_surrogate
from arena.attacks.engines.looks import Compares, Looks, compares, side_by_side
from arena.attacks.engines.spaces import serving
from arena.classification import decide
from arena.core import Player, Strategy, Turn
from arena.fields import Count, Positive
from arena.knowledge import View, WhiteBox
from arena.training.classifiers import committed
from arena.transformations.bit_depth import BitDepth
from arena.transformations.transformation import Transformation

_INSIDE = 1e-3
"""Distance kept from the ends of a level, where rounding is unsure, as a share of its width."""

_WRONG = 0.05  # the margin of log-probabilities by which the answer has to be a mistake


class Squeezes(Compares, Protocol):
    """A module that compares the answers of `model` to an input and to its squeezed copies."""

    model: nn.Module
    squeezers: tuple[Transformation, ...]
    threshold: Tensor


def squeezes(part: nn.Module) -> TypeGuard[Squeezes]:
    """Whether a module is a `Squeezes`: see `compares` for why this is no `isinstance`."""
    return compares(part) and all(hasattr(part, name) for name in Squeezes.__annotations__)


@dataclass(frozen=True)
class LevelsFirst(Strategy):
    """An attack on feature squeezing (1704.01155) whose coarsest squeezer is a `BitDepth`.

    A gradient says little about what rounding leaves. Few values can be moved to another level at
    all, and a descent on all looks at once spends these on the looks that are easier to fool. Here
    they serve the rounded look alone, which is fooled first, by exact search. Of the `candidates`
    values that promise most to first order, the search moves the one that lowers the margin most,
    until no move lowers it. A value moves back and forth between the levels at the two ends of its
    interval (with 1 bit these are all the levels there are). Then the levels stay. A descent within
    them, by signs, in steps that shrink, brings the answers p_j to all other looks close to the
    answer q to the rounded look:

        sum_j |p_j - q|_1 + KL(q || p_j)  +  max(0, margin of p(x) + 0.05)

    A wrong p(x) differs from a q that is not wrong by at least q_y - max_k q_k, with k over the
    classes that win. An example for which that is more than the detector's threshold is not tried
    further: the share of the others is the most that these levels allow, whatever the descent.

    Attributes:
        steps: Steps of the descent, each with three looks and a gradient.
        step: Its first step, as a share of eps.
        flips: The most values that are moved to another level.
        candidates: Moves tried for each.
        restarts: Descents, each from its own random place within the levels.
    """

    steps: Count = 200
    step: Positive = 0.25
    flips: Count = 40
    candidates: Count = 64
    restarts: Count = 1

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": WhiteBox}
    spaces: ClassVar[tuple[type[Linf], ...]] = (Linf,)

    def check(self, player: Player) -> None:
        """Raises ValueError if the space is no L-inf ball, or the cost has no surrogate."""
        serving(player, "LevelsFirst", self.spaces)
        require_surrogate(player, "LevelsFirst")

    def respond(self, turn: Turn) -> Tensor:
        """The best inputs found, [B, ...].

        Raises:
            ValueError: If the defender compares nothing with rounded inputs.
        """
        search = _LevelSearch(self, turn)
        for rows in turn.batches():
            # As many examples at once as have all their candidates in one pass.
            parts = torch.split(rows, max(turn.batch_size // self.candidates, 1))
            levels = torch.cat([search.levels(part) for part in parts])
            left = search.within_reach(levels, rows)
            for number in range(self.restarts):
                search.descend(levels[left], rows[left], number)
                left &= search.stands(rows)
        return search.best.x


class _LevelSearch:
    """One turn's search."""

    def __init__(self, how: LevelsFirst, turn: Turn) -> None:
        view = turn.see("defender", WhiteBox)
        parts = [part for part in view.module.modules() if squeezes(part)]
        rounds = [
            (squeezer.bits, part, number)
            for part in parts
            for number, squeezer in enumerate(part.squeezers, 1)
            if isinstance(squeezer, BitDepth)
        ]
        if not rounds:
            raise ValueError(
                "LevelsFirst attacks a detector that compares answers to those after BitDepth, and "
                f"the defender's {type(view.module).__name__} has none; use attacker/strategy=bpda"
            )
        _, detector, self.look = min(rounds, key=lambda each: each[0])
        squeezer = detector.squeezers[self.look - 1]
        assert isinstance(squeezer, BitDepth)
        self.how, self.turn, self.view, self.squeezer = how, turn, view, squeezer
        self.threshold = detector.threshold
        classes = turn.data.classes
        self.model = view.over(committed(detector.model, classes))
        self.looks = view.over(committed(Looks(detector, side_by_side), classes))
        self.keys, self.best = turn.keys, Best(turn.data.x)
        cost, y = turn.player.cost, turn.data.y
        self.floor = losses.prices(cost, y, classes, classes).amin(1)
        self.wins = losses.winning(losses.prices(cost, y, classes, classes))
        space = serving(turn.player, "LevelsFirst", how.spaces)
        self.eps, project = space.eps, space.projection(turn.data.x)
        self.low, self.high = project(turn.data.x - self.eps), project(turn.data.x + self.eps)

    def stands(self, rows: Tensor) -> Tensor:
        """Which examples are still to be won, bool [b]; all, if another model scores."""
        won = self.best.first[rows] <= self.floor[rows]
        return ~won if self.turn.closing else torch.ones_like(won)

    def rounded(self, x: Tensor) -> Tensor:
        """What the coarsest squeezer leaves of `x`."""
        return self.squeezer(x, chance.of(x))

    def levels(self, rows: Tensor) -> Tensor:
        """The levels [b, ...] that rounding is to leave of each example."""
        level = self.rounded(self.turn.data.x[rows])
        low, high = self.rounded(self.low[rows]), self.rounded(self.high[rows])
        live = torch.arange(len(rows), device=level.device)
        for _ in range(self.how.flips):
            here = level[live]
            other = torch.where(here == high[live], low[live], high[live])
            level[live], better = self._flipped(here, rows[live], other)
            live = live[better]
            if not len(live):
                break
        return level

    def _flipped(self, level: Tensor, rows: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """The levels [b, ...] after the best move of one value to its `other`; if it helps, [b]."""
        here, there = level.flatten(1), other.flatten(1)
        margin, slope = self._margin(level, rows, differentiate=True)
        free = here != there
        promise = (slope * (there - here)).masked_fill(~free, torch.inf)
        width = max(min(self.how.candidates, int(free.sum(1).max())), 1)
        place = promise.topk(width, largest=False).indices
        tried = here[:, None].repeat(1, width, 1)
        tried.scatter_(2, place[:, :, None], there.gather(1, place)[:, :, None])
        real = free.gather(1, place)
        found = torch.full(place.shape, torch.inf, device=level.device)
        whose = rows[:, None].expand(-1, width)[real]
        found[real] = self._margin(tried[real].reshape(-1, *level.shape[1:]), whose)[0]
        least, best = found.min(1)
        better = least < margin
        moved = tried.gather(1, best[:, None, None].expand(-1, 1, here.shape[1])).squeeze(1)
        return torch.where(better[:, None], moved, here).reshape(level.shape), better

    def _margin(
        self, x: Tensor, rows: Tensor, differentiate: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The margin [b] of the model's answers to `x`, and its gradient [b, n] if asked for."""
        values, slopes = [], []
        size = self.turn.batch_size
        for part, at in zip(torch.split(x, size), torch.split(rows, size), strict=True):
            part = part.detach().requires_grad_(differentiate)
            margin = losses.margin(self.model.logits(part, at), self.wins[at])
            values.append(margin.detach())
            if differentiate:
                slopes.append(torch.autograd.grad(margin.sum(), part)[0].flatten(1))
        return torch.cat(values), torch.cat(slopes) if slopes else x

    def within_reach(self, levels: Tensor, rows: Tensor) -> Tensor:
        """Where a mistake can be close enough to the answer to these levels, bool [b]."""
        with torch.no_grad():
            q = self.model.logits(levels, rows).softmax(1)
        return losses.margin(q, self.wins[rows]) <= self.threshold

    def descend(self, levels: Tensor, rows: Tensor, number: int) -> None:
        """Offers what a descent within the levels [b, ...] finds."""
        low, high = self._cells(levels, rows)
        key = chance.fold(self.keys[rows], number)
        x = low + (high - low) * chance.uniform(key, low.shape[1:])
        with torch.no_grad():
            q = self.model.logits(levels, rows).softmax(1)
        for step in range(self.how.steps + 1):
            if not len(rows):
                break
            x = x.detach().requires_grad_()
            loss = self._loss(x, q, rows)
            self._offer(x.detach(), loss.detach(), rows)
            if step == self.how.steps:
                break
            (gradient,) = torch.autograd.grad(loss.sum(), x)
            length = self.how.step * (1 - step / self.how.steps) * self.eps
            x = (x.detach() - length * gradient.nan_to_num(0.0).sign()).clamp(low, high)
            left = self.stands(rows)
            x, q, rows, low, high = x[left], q[left], rows[left], low[left], high[left]

    def _cells(self, levels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The ends [b, ...] of the intervals in which values keep their levels."""
        low, high = self.low[rows], self.high[rows]
        bottom, top = self.squeezer.box
        width = (top - bottom) / (2**self.squeezer.bits - 1)
        half = width * (0.5 - _INSIDE)
        # Where the ball has no room within the level, its end nearest to it.
        return (levels - half).clamp(low, high), (levels + half).clamp(low, high)

    def _loss(self, x: Tensor, q: Tensor, rows: Tensor) -> Tensor:
        looks = self.looks.logits(x, rows).reshape(len(x), -1, q.shape[1]).transpose(0, 1)
        others = torch.cat([looks[: self.look], looks[self.look + 1 :]])
        apart = (others.exp() - q).abs().sum((0, 2)) - (q * others).sum((0, 2))
        return apart + (losses.margin(looks[0], self.wins[rows]) + _WRONG).clamp(min=0)

    def _offer(self, x: Tensor, loss: Tensor, rows: Tensor) -> None:
        """Offers `x` [b, ...], judged by the detector itself."""
        data = self.turn.data
        with torch.no_grad():
            labels = decide(self.view.logits(x, rows), data.classes)
        goal, y = self.turn.player.cost, data.y[rows]
        cost = torch.where(losses.barren(goal, labels, y), torch.inf, goal.answered(labels, y))
        self.best.offer(x, cost, loss.nan_to_num(torch.inf, torch.inf), rows)
