"""What walks along the decision boundary share: they see labels alone, and start from a mistake."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from arena import chance
from arena.actions.lp import L2, Linf
from arena.attacks.engines.spaces import serving
from arena.attacks.engines.walks import wide
from arena.core import Player, Strategy, Turn
from arena.fields import Count
from arena.knowledge import REFUSED, LabelView, View


class LabelWalks:
    """The walks of a batch of b examples; `on` and `at` are places in it (0 .. b - 1).

    Attributes:
        point: Where each walk is, [b, ...]; a mistake from `start` on.
        best: The nearest mistake so far, [b, ...].
        gap: Its distance from the given input, [b], in the units of the space's eps.
        d: The number of values of an input.
        theta: The share of the gap at which bisections end. It is the tolerance of HopSkipJump
            (1904.02144), kept between 2^-20 (float32) and 2^-10 (low dimensions).
        finest: The least Euclidean distance at which float32 inputs can be told apart.
    """

    def __init__(self, turn: Turn, view: LabelView, rows: Tensor) -> None:
        self.view, self.rows, self.batch_size = view, rows, turn.batch_size
        self.space = serving(turn.player, "BoundaryWalk", (Linf, L2))
        self.cost = turn.player.cost
        self.classes = turn.data.classes
        self.given, self.y, self.keys = turn.data.x[rows], turn.data.y[rows], turn.keys[rows]
        self.point, self.best = self.given.clone(), self.given.clone()
        self.gap = torch.full((len(rows),), float("inf"), device=rows.device)
        self.d = max(math.prod(turn.data.shape), 1)
        paper = self.d**-1.5 if isinstance(self.space, L2) else self.d**-2.0
        self.theta = min(max(paper, 2.0**-20), 2.0**-10)
        low, high = self.space.box
        self.finest = math.sqrt(self.d) * 2.0**-20 * (high - low)

    def paying(self, at: Tensor) -> Tensor:
        """The walks among `at` that have a query left."""
        return at[self.view.remaining(self.rows[at]) > 0]

    def mistaken(self, x: Tensor, at: Tensor) -> Tensor:
        """Asks whether inputs are answered at a lower cost than the truth is, bool [len(at)]."""
        label, y = self.view.labels(x, self.rows[at]), self.y[at]
        return self.cost.answered(label, y) < self.cost.answered(y, y)

    def arrive(self, at: Tensor, x: Tensor) -> None:
        """Moves walks to mistakes `x` [len(at), ...]."""
        self.point[at] = x
        gap = self.space.size(self.given[at], x)
        nearer = gap < self.gap[at]
        self.best[at[nearer]], self.gap[at[nearer]] = x[nearer], gap[nearer]

    def start(self, trials: int) -> Tensor:
        """Looks for first mistakes; returns the walks that have one to start from."""
        labels = [*range(self.classes), REFUSED]
        prices = [self.cost.answered(torch.full_like(self.y, label), self.y) for label in labels]
        hope = torch.stack(prices).amin(0) < self.cost.answered(self.y, self.y)
        on = self.paying(hope.nonzero().flatten())
        if len(on) > 0:
            on = on[~self.mistaken(self.given[on], on)]
        low, high = self.space.box
        key = chance.fold(self.keys, 0)
        for trial in range(trials):
            on = self.paying(on)
            if len(on) == 0:
                break
            share = chance.uniform(chance.fold(key[on], trial), self.given.shape[1:])
            x = (low + (high - low) * share).clamp(low, high)
            won = self.mistaken(x, on)
            self.arrive(on[won], x[won])
            on = on[~won]
        return self.gap.isfinite().nonzero().flatten()

    def bisect(self, on: Tensor) -> Tensor:
        """HopSkipJump's Algorithm 1: bisects the way to the given input, up to the boundary.

        The way is the straight line in L2; in L-inf it consists of the projections onto smaller and
        smaller balls. The first query is about the projection onto the player's ball. Returns the
        walks that found no mistake in that ball.
        """
        on = self.paying(on)
        if len(on) == 0:
            return on
        x = self.space.project(self.given[on], self.point[on])
        won = self.mistaken(x, on)
        self.arrive(on[won], x[won])
        on = on[~won]
        far = self.point.clone()
        high = self.space.size(self.given, far)
        low, width = torch.full_like(high, self.space.eps), self.theta * high
        todo = on
        while True:
            todo = self.paying(todo[(high - low > width)[todo]])
            if len(todo) == 0:
                return on
            middle = (low + high) / 2
            x = self.shrunk(todo, far[todo], middle[todo])
            won = self.mistaken(x, todo)
            self.arrive(todo[won], x[won])
            high[todo[won]] = middle[todo[won]]
            low[todo[~won]] = middle[todo[~won]]

    def shrunk(self, at: Tensor, far: Tensor, radius: Tensor) -> Tensor:
        """The points at distances `radius` on the ways from the given inputs to `far`."""
        given, radius = self.given[at], wide(radius, far)
        if isinstance(self.space, Linf):
            delta = (far - given).maximum(-radius).minimum(radius)
        else:
            delta = (far - given) * (radius / wide(self.space.size(given, far), far))
        return (given + delta).clamp(*self.space.box)  # rounding may have left the box

    def poll(
        self,
        on: Tensor,
        evals: int,
        key: Tensor,
        probes: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Asks whether each walk's probes are mistakes, and adds up where they lie.

        Each walk asks `evals` times, or half as often as it has queries left. As many probes are
        asked about together as the batch size allows. They are added up one after the other, so
        that the order, and with it the rounding, does not depend on the batch size.

        Args:
            on: The walks [m] that ask.
            evals: The most probes per walk.
            key: A key [m] for each walk.
            probes: From places in `on` and keys, both [n], to the inputs to ask about and the
                displacements that stand for them in the sums, both [n, ...].

        Returns:
            The sum [m, ...] of the displacements times +1 (a mistake) or -1, their plain sum, and
                the mean [m] of those votes.
        """
        evaluated = ((self.view.remaining(self.rows[on]) + 1) // 2).clamp(max=evals)
        voted = torch.zeros_like(self.given[on])
        drift, votes = torch.zeros_like(voted), torch.zeros(len(on), device=on.device)
        together = max(self.batch_size // len(on), 1)
        most = int(evaluated.max())
        for first in range(0, most, together):
            probe = torch.arange(first, min(first + together, most), device=on.device)
            owner = torch.arange(len(on), device=on.device).repeat_interleave(len(probe))
            probe = probe.repeat(len(on))
            x, used = probes(owner, chance.fold(key[owner], probe))
            asked = probe < evaluated[owner]
            vote = torch.zeros(len(owner), device=on.device)
            vote[asked] = self.mistaken(x[asked], on[owner[asked]]).float() * 2 - 1
            vote, used = vote.reshape(len(on), -1), used.reshape(len(on), -1, *used.shape[1:])
            for i in range(vote.shape[1]):
                voted += wide(vote[:, i], voted) * used[:, i]
                drift += wide(vote[:, i].abs(), voted) * used[:, i]
            votes += vote.sum(1)
        return voted, drift, votes / evaluated


W = TypeVar("W", bound=LabelWalks)
"""The walks of a method."""


@dataclass(frozen=True)
class BoundaryWalk(Strategy, Generic[W]):
    """A search for the nearest mistake, played inside a ball.

    A mistake is an answer that costs less than the right one. From a mistake anywhere in the box,
    bisected, walk towards the given input, seeing labels alone. An example's search ends when a
    mistake lies in the ball, and that mistake is played. Otherwise the nearest mistake is projected
    onto the ball and played on the off chance. Without any mistake the given input is played. An
    input that is a mistake as given, or has no cheaper answer than the right one, stays.

    Attributes:
        steps: Steps of a walk.
        init_trials: Uniformly random inputs asked about for a first mistake.
    """

    steps: Count
    init_trials: Count = field(default=100, kw_only=True)

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": LabelView}
    spaces: ClassVar[tuple[type[Linf] | type[L2], ...]] = (Linf, L2)
    """The spaces that the algorithm has a geometry for."""

    def check(self, player: Player) -> None:
        """Checks the player's space and cost.

        Raises:
            ValueError: If the space is none of `spaces`, or answers have no cost.
        """
        name = type(self).__name__
        serving(player, name, self.spaces)
        try:
            player.cost.answered(*torch.zeros(2, 1, dtype=torch.int64))
        except NotImplementedError:
            raise ValueError(
                f"{name} sees answers only, and cost={type(player.cost).__name__} does not "
                "follow from them; state its `answered`"
            ) from None

    def respond(self, turn: Turn) -> Tensor:
        """The inputs to play, [B, ...]."""
        space = serving(turn.player, type(self).__name__, self.spaces)
        view = turn.see("defender", LabelView)
        return turn.each_batch(
            lambda rows: space.project(turn.data.x[rows], self.search(turn, view, rows))
        )

    def search(self, turn: Turn, view: LabelView, rows: Tensor) -> Tensor:
        """The nearest mistakes found for `rows` [b], [b, ...]; the given inputs where none was.

        They lie in the box, but not necessarily in the ball.
        """
        walks = self.walks(turn, view, rows)
        on = walks.bisect(walks.start(self.init_trials))
        for t in range(1, self.steps + 1):
            on = walks.paying(on)
            if len(on) == 0:
                break
            on = self.step(walks, on, t)
        return walks.best

    @abstractmethod
    def walks(self, turn: Turn, view: LabelView, rows: Tensor) -> W:
        """The walks of the method for `rows` [b], none of them begun."""

    @abstractmethod
    def step(self, walks: W, on: Tensor, t: int) -> Tensor:
        """Takes step `t`, from 1, with the walks `on`; returns those that go on."""
