"""HopSkipJump: a walk along the decision boundary, guided by labels alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena import chance
from arena.actions.lp import L2, Linf
from arena.core import Player, Strategy, Turn
from arena.fields import Count
from arena.knowledge import INVALID, REFUSED, LabelView, View


@dataclass(frozen=True)
class HopSkipJump(Strategy):
    """Chen, Jordan & Wainwright 2020 (1904.02144), Algorithm 2, played inside a ball.

    From a mistake anywhere in the box, bisect towards the given input; there, estimate from labels
    the direction in which mistakes lie, step along it, and bisect again. A mistake is an answer
    that costs less than the right one. The search is for the nearest mistake and ends, example by
    example, when one lies in the ball; that one is played. Otherwise the nearest mistake is
    projected onto the ball and played on the off chance; if there was none, the given input is.
    An input that is a mistake as given, or has no cheaper answer than the right one, stays.

    Differs from the paper, which knows no ball: every bisection first asks about the projection
    onto the ball, and goes on beyond it; no estimate takes more than half of the queries left, so
    that the step which it buys can be tried; bisection tolerances are kept between 2^-20 (float32)
    and 2^-10 (low dimensions); the radius of the probes is gap / d from the first step on; a step
    that is never a mistake is given up at that tolerance.

    Attributes:
        steps: Estimates and steps per example (T in the paper).
        initial_evals: Queries of the first estimate (B_0); the t-th takes sqrt(t) times as many.
        max_evals: The most queries of one estimate.
        init_trials: Uniformly random inputs asked about for a first mistake.
    """

    steps: Count = 64
    initial_evals: Count = 100
    max_evals: Count = 10_000
    init_trials: Count = 100

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": LabelView}

    def check(self, player: Player) -> None:
        """Raises ValueError if the space is no L-inf or L2 ball, or answers have no cost."""
        _space(player)
        try:
            player.cost.answered(*torch.zeros(2, 1, dtype=torch.int64))
        except NotImplementedError:
            raise ValueError(
                f"HopSkipJump sees answers only, and cost={type(player.cost).__name__} does not "
                "follow from them; state its `answered`"
            ) from None

    def respond(self, turn: Turn) -> Tensor:
        """The inputs to play, [B, ...]."""
        space = _space(turn.player)
        view = turn.see("defender", LabelView)
        return turn.each_batch(
            lambda rows: space.project(turn.data.x[rows], self._nearest(turn, view, rows))
        )

    def _nearest(self, turn: Turn, view: LabelView, rows: Tensor) -> Tensor:
        """The nearest mistakes found, not necessarily legal; the given inputs where none was."""
        walk = _Walk(turn, view, rows)
        on = walk.bisect(walk.start(self.init_trials))
        for t in range(1, self.steps + 1):
            on = walk.paying(on)
            if len(on) == 0:
                break
            evals = min(int(self.initial_evals * math.sqrt(t)), self.max_evals)
            moved, stuck = walk.step(on, walk.direction(on, evals, t), t)
            on = torch.cat([stuck, walk.bisect(moved)])
        return walk.best


class _Walk:
    """The walks of a batch of b examples; `on` and `at` are places in it (0 .. b - 1).

    `point` [b, ...] is where each walk is, a mistake from `start` on; `best` the nearest mistake
    so far, `gap` [b] from the given input, in the units of the space's eps.
    """

    def __init__(self, turn: Turn, view: LabelView, rows: Tensor) -> None:
        self.view, self.rows, self.batch_size = view, rows, turn.batch_size
        self.space, self.cost = _space(turn.player), turn.player.cost
        self.classes = turn.data.classes
        self.given, self.y, self.keys = turn.data.x[rows], turn.data.y[rows], turn.keys[rows]
        self.point, self.best = self.given.clone(), self.given.clone()
        self.gap = torch.full((len(rows),), float("inf"), device=rows.device)
        self.d = max(math.prod(turn.data.shape), 1)
        paper = self.d**-1.5 if isinstance(self.space, L2) else self.d**-2.0
        self.theta = min(max(paper, 2.0**-20), 2.0**-10)

    def paying(self, at: Tensor) -> Tensor:
        """Those of `at` that have a query left."""
        return at[self.view.remaining(self.rows[at]) > 0]

    def mistaken(self, x: Tensor, at: Tensor) -> Tensor:
        """Asks whether inputs are mistakes, bool [len(at)]; an answer that is none is not."""
        label, y = self.view.labels(x, self.rows[at]), self.y[at]
        label = torch.where(label == INVALID, y, label)
        return self.cost.answered(label, y) < self.cost.answered(y, y)

    def arrive(self, at: Tensor, x: Tensor) -> None:
        """Moves walks to mistakes `x` [len(at), ...]."""
        self.point[at] = x
        gap = self.space.size(self.given[at], x)
        nearer = gap < self.gap[at]
        self.best[at[nearer]], self.gap[at[nearer]] = x[nearer], gap[nearer]

    def start(self, trials: int) -> Tensor:
        """Looks for first mistakes; returns the walks that have one to walk from."""
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
        """Algorithm 1: along the way to the given input, up to the boundary.

        The way is the straight line in L2, and in L-inf the projections onto smaller and smaller
        balls. Returns the walks that did not find a mistake in the ball.
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
            x = self._shrunk(todo, far[todo], middle[todo])
            won = self.mistaken(x, todo)
            self.arrive(todo[won], x[won])
            high[todo[won]] = middle[todo[won]]
            low[todo[~won]] = middle[todo[~won]]

    def _shrunk(self, at: Tensor, far: Tensor, radius: Tensor) -> Tensor:
        """The point of the way from the given inputs to `far` at a distance `radius`."""
        given, radius = self.given[at], _wide(radius, far)
        if isinstance(self.space, Linf):
            delta = (far - given).maximum(-radius).minimum(radius)
        else:
            delta = (far - given) * (radius / _wide(self.space.size(given, far), far))
        return (given + delta).clamp(*self.space.box)  # rounding may have left the box

    def direction(self, on: Tensor, evals: int, t: int) -> Tensor:
        """The unit step [b, ...] into the mistakes at each point, equation 16 (zero if not `on`).

        Each walk asks `evals` times, or half of what it has left. Probes are asked for together
        as the batch size allows, and added up one after the other, which keeps their order.
        """
        shape, low, high = self.given.shape[1:], *self.space.box
        evaluated = ((self.view.remaining(self.rows[on]) + 1) // 2).clamp(max=evals)
        key, point = chance.fold(self.keys[on], t), self.point[on]
        radius = self.space.size(self.given[on], point) / self.d
        # Float32 inputs cannot tell probes apart that are closer than this.
        radius = radius.clamp(min=math.sqrt(self.d) * 2.0**-20 * (high - low))
        voted, drift = torch.zeros_like(point), torch.zeros_like(point)
        votes = torch.zeros(len(on), device=on.device)
        together = max(self.batch_size // len(on), 1)
        most = int(evaluated.max())
        for first in range(0, most, together):
            probe = torch.arange(first, min(first + together, most), device=on.device)
            owner = torch.arange(len(on), device=on.device).repeat_interleave(len(probe))
            probe = probe.repeat(len(on))
            noise = self._noise(chance.fold(key[owner], probe), shape)
            x = (point[owner] + _wide(radius[owner], noise) * noise).clamp(low, high)
            used = (x - point[owner]) / _wide(radius[owner], noise)
            asked = probe < evaluated[owner]
            vote = torch.zeros(len(owner), device=on.device)
            vote[asked] = self.mistaken(x[asked], on[owner[asked]]).float() * 2 - 1
            vote, used = vote.reshape(len(on), -1), used.reshape(len(on), -1, *shape)
            for i in range(vote.shape[1]):
                voted += _wide(vote[:, i], point) * used[:, i]
                drift += _wide(vote[:, i].abs(), point) * used[:, i]
            votes += vote.sum(1)
        # The mean vote is the paper's baseline; where all agree, it would leave nothing.
        mean = votes / evaluated
        mean = torch.where(mean.abs() == 1, 0.0, mean)
        step = torch.zeros_like(self.given)
        step[on] = self.space.steepest(voted - _wide(mean, point) * drift)
        return step

    def _noise(self, key: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Random directions [B, *shape] of Euclidean length 1."""
        normal = isinstance(self.space, L2)
        noise = chance.normal(key, shape) if normal else 2 * chance.uniform(key, shape) - 1
        length = noise.flatten(1).norm(dim=1)
        return noise / _wide(length.clamp(min=torch.finfo(length.dtype).tiny), noise)

    def step(self, on: Tensor, direction: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Steps along `direction`, halved until it is a mistake: who moved, and who did not."""
        low, high = self.space.box
        length = self.space.size(self.given, self.point) / math.sqrt(t)
        least = self.theta * length
        moved, todo = torch.zeros_like(self.gap, dtype=torch.bool), on
        while True:
            todo = self.paying(todo[(length > least)[todo]])
            if len(todo) == 0:
                return on[moved[on]], on[~moved[on]]
            x = self.point[todo] + _wide(length[todo], direction) * direction[todo]
            x = x.clamp(low, high)
            won = self.mistaken(x, todo)
            self.arrive(todo[won], x[won])
            moved[todo[won]] = True
            todo = todo[~won]
            length[todo] /= 2


def _space(player: Player) -> Linf | L2:
    """The player's space; ValueError if HopSkipJump has no walk for it."""
    space = player.actions
    if not isinstance(space, Linf | L2):
        raise ValueError(
            f"HopSkipJump walks in L-inf and L2 balls, not in {space}; use actions=linf or l2"
        )
    return space


def _wide(v: Tensor, like: Tensor) -> Tensor:
    """`v` [B] with the axes to broadcast over examples shaped as those of `like` [., ...]."""
    return v.reshape(-1, *(1,) * (like.dim() - 1))
