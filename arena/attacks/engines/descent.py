"""The engine of the gradient attacks: many walks at once, each ending when it cannot win more.

A method says where a walk begins, which loss it follows, and how a gradient moves it (`Descent`).
The engine (`Search`) does everything else, in the same way for all methods. In each step it makes
one pass over all walks under way and keeps the best place of each example. It drops the walks of
examples that are done, and gives their room to examples that wait.

An example has one walk or several (restarts, targets). They run in waves of 1, 2, 4, ... walks. The
walks of a wave advance side by side and in step, so an example is done at the first step at which
any of them succeeds. Results depend neither on the batch size nor on the other examples of the
batch.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal

import torch
from torch import Tensor

from arena import chance
from arena.attacks.engines import losses
from arena.attacks.engines.spaces import serving
from arena.attacks.engines.walks import S, Walks, wide
from arena.classification import Perturbations, decide
from arena.core import Player, Strategy, Turn
from arena.fields import Count
from arena.knowledge import INVALID, View, WhiteBox

_CPU_SYNC, _SYNC = 1, 8
"""Steps between two looks for walks that are done; an accelerator has to be waited for."""


@dataclass(frozen=True)
class Descent(Strategy, Generic[S]):
    """A strategy that walks down a loss by its gradient; each subclass is a method.

    Attributes:
        steps: Steps per walk. Each takes a pass and a gradient; the last place takes one pass more.
        precision: bfloat16 searches on a rounded copy of the model. What seems to succeed there is
            asked of the model itself, so that a rounding error is never taken for a mistake.
    """

    steps: Count
    precision: Literal["float32", "bfloat16"] = field(default="float32", kw_only=True)

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": WhiteBox}
    spaces: ClassVar[tuple[type[Perturbations], ...]] = (Perturbations,)
    """The spaces that the method has a geometry for."""
    instead: ClassVar[str] = ""
    """What to use in other spaces, as `strategy=...`; empty if there is nothing to advise."""

    def check(self, player: Player) -> None:
        """Checks the player's space and cost.

        Raises:
            ValueError: If the space is none of `spaces`, or the cost has no surrogate.
        """
        serving(player, type(self).__name__, self.spaces, self.instead)
        require_surrogate(player, type(self).__name__)

    def respond(self, turn: Turn) -> Tensor:
        """The best inputs found, [B, ...]."""
        return Search(self, turn).run()

    def variants(self, search: "Search") -> int:
        """How many walks an example may have, one after the other or side by side."""
        return 1

    @abstractmethod
    def begin(self, search: "Search", walks: Walks[None]) -> S:
        """Sets `x` of new walks, which is the given input so far; returns their `own` state."""

    def loss(self, search: "Search", walks: Walks[S], logits: Tensor) -> Tensor:
        """What to descend, [L]: by default the surrogate of the player's cost."""
        return search.cost.surrogate(logits, walks.y, search.classes)

    def gradient(
        self, search: "Search", walks: Walks[S], loss: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss [L] and its gradient [L, ...] at `x`, from what `loss` returned.

        Override it in a method that looks at several losses at one place and then follows one of
        them.
        """
        (gradient,) = torch.autograd.grad(loss.sum(), x)
        return loss, gradient

    @abstractmethod
    def advance(self, search: "Search", walks: Walks[S], loss: Tensor, gradient: Tensor) -> Tensor:
        """Where walks go from `x`, given the loss [L] there and its gradient [L, ...].

        Entries of the gradient that are not finite have become 0.
        """

    def rank(
        self, search: "Search", walks: Walks[S], x: Tensor, cost: Tensor, loss: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Two values [L] that order places: by the first, then by the second; lower is better.

        By default the cost of the answer, then the loss.
        """
        return cost, loss

    def done(self, search: "Search", rows: Tensor) -> Tensor:
        """Which examples cannot win more, bool [L]: by default those with the cheapest answer.

        That ends the search only if the model searched is the one that scores. If another model
        scores (the defender has yet to move, or the model is a surrogate), a lower loss is still
        worth having.
        """
        won = search.best.first[rows] <= search.floor[rows]
        return won if search.turn.closing else torch.zeros_like(won)


class Search:
    """One turn's search by one method.

    Attributes:
        view: The model as a white box.
        rounded: Its rounded copy, if the method searches on one.
        space: The player's space.
        cost: The player's cost.
        classes: The number of classes.
        width: The number of answers: the classes, and a refusal if the model can refuse.
        best: The best place of each example so far.
        floor: The least that any answer would cost each example, [B].
    """

    def __init__(self, method: Descent[Any], turn: Turn) -> None:
        self.method, self.turn = method, turn
        self.view = turn.see("defender", WhiteBox)
        self.rounded = None
        if method.precision == "bfloat16":
            self.rounded = self.view.rounded(torch.bfloat16)
        self.space = serving(turn.player, type(method).__name__, method.spaces)
        self.cost, self.classes = turn.player.cost, turn.data.classes
        self.keys = turn.keys
        self.best = Best(turn.data.x)
        self.width = self.classes
        self.floor = self._floor()

    def _floor(self) -> Tensor:
        return losses.prices(self.cost, self.turn.data.y, self.width, self.classes).amin(1)

    def wins(self, y: Tensor) -> Tensor:
        """Which answers cost least where the truth is `y` [L], bool [L, width]."""
        return losses.winning(losses.prices(self.cost, y, self.width, self.classes))

    def options(self) -> int:
        """The most answers that win for any example; 0 if none does."""
        return int(self.wins(self.turn.data.y).sum(1).max())

    def aim(self, walks: Walks[Any], most: int) -> None:
        """Gives each walk a winning answer to aim at (`Walks.target`), `most` per example.

        The answers that are likeliest at the given input come first. Walks beyond the number of an
        example's winning answers begin with the first one again. This takes one query per walk.
        Nothing happens if no answer wins or `most` is 0.
        """
        if min(most, self.options()) > 0:
            logits = self.ask(walks.given, walks.rows)
            wins = self.wins(walks.y)
            place = walks.variant % wins.sum(1).clamp(1, most)
            order = losses.targets(logits, wins)
            walks.target = order.gather(1, place[:, None]).squeeze(1)

    def ask(self, x: Tensor, rows: Tensor) -> Tensor:
        """Logits [n, width] without a graph; a query for each of `rows` [n]."""
        with torch.no_grad():
            return self._logits(self.view, x, rows)

    def _logits(self, view: WhiteBox, x: Tensor, rows: Tensor) -> Tensor:
        """Logits, in passes of at most `batch_size` rows, of which walks may be more."""
        size = self.turn.batch_size
        if len(x) <= size:
            logits = view.logits(x, rows)
        else:
            parts = zip(torch.split(x, size), torch.split(rows, size), strict=True)
            logits = torch.cat([view.logits(*part) for part in parts])
        self._widen(logits)
        return logits.float()

    def _widen(self, logits: Tensor) -> None:
        """Takes note of a column for refusals, which may be the cheapest answer."""
        if logits.shape[1] != self.width:
            self.width = logits.shape[1]
            self.floor = self._floor()

    def run(self) -> Tensor:
        """Runs all waves of walks; returns the best inputs found, [B, ...]."""
        rows = torch.arange(len(self.turn.data), device=self.turn.data.x.device)
        first, size = 0, 1
        while first < (total := self.method.variants(self)) and len(rows):
            self._wave(rows, torch.arange(first, min(first + size, total), device=rows.device))
            rows = rows[~self.method.done(self, rows)]
            first, size = first + size, size * 2
        return self.best.x

    def _wave(self, waiting: Tensor, variants: Tensor) -> None:
        """Runs the walks `variants` of the examples `waiting`, as many at once as fit a batch."""
        together = max(self.turn.batch_size // len(variants), 1)
        every = _CPU_SYNC if waiting.device.type == "cpu" else _SYNC
        walks, age = self._begin(waiting[:together], variants), 0
        waiting = waiting[together:]
        while len(walks):
            moving = age < self.method.steps  # the newest walks have most steps left
            loss, gradient = self._pass(walks, len(variants), moving)
            stay = ~self.method.done(self, walks.rows) & (walks.t < self.method.steps)
            if not moving or (age % every == 0 and not bool(stay.all())):
                walks, loss, gradient = walks[stay], loss[stay], gradient[stay]
            if len(walks):
                walks.x = self.method.advance(self, walks, loss, gradient)
                walks.t = walks.t + 1
            age += 1
            room = together - len(walks) // len(variants)
            if len(waiting) and room > together // 4:
                new = self._begin(waiting[:room], variants)
                walks = walks.joined(new) if len(walks) else new
                waiting, age = waiting[room:], 0

    def _begin(self, rows: Tensor, variants: Tensor) -> Walks[Any]:
        data, n = self.turn.data, len(variants)
        rows, variant = rows.repeat_interleave(n), variants.repeat(len(rows))
        given = data.x[rows]
        walks: Walks[Any] = Walks(
            rows=rows,
            variant=variant,
            key=chance.fold(self.keys[rows], variant),
            t=torch.zeros_like(rows),
            given=given,
            y=data.y[rows],
            x=given,
            own=None,
        )
        walks.own = self.method.begin(self, walks)
        return walks

    def _pass(self, walks: Walks[Any], together: int, moving: bool) -> tuple[Tensor, Tensor]:
        """The loss [L] and, if any walk moves on, its gradient [L, ...]; keeps the best."""
        x = walks.x.detach().requires_grad_(moving)
        logits = self._logits(self.rounded or self.view, x, walks.rows)
        loss = self.method.loss(self, walks, logits)
        cost, fit = self._judged(walks, x.detach(), logits.detach())
        self._keep(walks, together, x.detach(), cost, loss.detach(), fit)
        if not moving:
            return loss.detach(), walks.x
        loss, gradient = self.method.gradient(self, walks, loss, x)
        return loss.detach(), gradient.nan_to_num(0.0, 0.0, 0.0)

    def _judged(self, walks: Walks[Any], x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """What the answers cost [L], and which places count: those of walks still under way.

        An answer that is not there costs what the player's cost says. Such a place does not count
        if that wins nothing, or if another model scores than is searched: what breaks a surrogate
        need not break its target.
        """
        labels = decide(logits, self.classes)
        cost = self.cost.answered(labels, walks.y)
        if self.rounded is not None:
            sure = self.cost.answered(walks.y, walks.y)
            seems = (cost < sure).nonzero().squeeze(1)
            if len(seems):
                checked = decide(self.ask(x[seems], walks.rows[seems]), self.classes)
                labels = labels.index_copy(0, seems, checked)
                cost = self.cost.answered(labels, walks.y)
        idle = labels == INVALID
        if self.turn.closing:
            idle = losses.barren(self.cost, labels, walks.y)
        return cost, ~idle & (walks.t <= self.method.steps)

    def _keep(
        self, walks: Walks[Any], together: int, x: Tensor, cost: Tensor, loss: Tensor, fit: Tensor
    ) -> None:
        first, second = self.method.rank(self, walks, x, cost, loss)
        # Walks of examples that are done may still be here: not every step drops them.
        fit = fit & ~self.method.done(self, walks.rows)
        first, second = (torch.where(fit, part, torch.inf) for part in (first, second))
        second = second.nan_to_num(torch.inf, torch.inf)  # no answer, no loss: the last of equals
        rows = walks.rows
        if together > 1:  # the best of each example's walks; the first of equal ones
            first, second = first.view(-1, together), second.view(-1, together)
            least = first == first.amin(1, keepdim=True)
            place = torch.where(least, second, torch.inf).argmin(1)
            place = place + torch.arange(len(first), device=x.device) * together
            first, second = first.flatten()[place], second.flatten()[place]
            x, rows = x[place], rows[place]
        self.best.offer(x, first, second, rows)


class Best:
    """The best place found for each example of `x` [B, ...], by a first and a second value [B]."""

    def __init__(self, x: Tensor) -> None:
        self.x = x.clone()
        self.first = torch.full((len(x),), float("inf"), device=x.device)
        self.second = self.first.clone()

    def offer(self, x: Tensor, first: Tensor, second: Tensor, rows: Tensor) -> None:
        """Keeps `x` [b, ...] for examples `rows` [b], all different, where it is better.

        A place with an infinite first value is never kept. No host sync.
        """
        held = self.first[rows]
        better = (first < held) | ((first == held) & (second < self.second[rows]))
        better &= first.isfinite()
        self.first.index_copy_(0, rows, torch.where(better, first, held))
        self.second.index_copy_(0, rows, torch.where(better, second, self.second[rows]))
        self.x.index_copy_(0, rows, torch.where(wide(better, x), x, self.x[rows]))


def require_surrogate(player: Player, attack: str) -> None:
    """Checks that the player's cost can be searched by a gradient.

    Raises:
        ValueError: If the cost has no surrogate, or does not follow from answers.
    """
    try:
        y = torch.zeros(1, dtype=torch.int64)
        player.cost.surrogate(torch.zeros(1, 2), y)
        player.cost.answered(y, y)
    except NotImplementedError:
        raise ValueError(
            f"{attack} follows a gradient, but cost={type(player.cost).__name__} has no surrogate, "
            "or no `answered`; use an attack without gradients or give the cost both"
        ) from None
