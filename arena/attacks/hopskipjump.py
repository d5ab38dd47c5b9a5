"""HopSkipJump: a walk along the decision boundary, guided by labels alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from arena import chance
from arena.actions.lp import L2
from arena.attacks.engines.boundary_walk import BoundaryWalk, LabelWalks
from arena.attacks.engines.walks import wide
from arena.core import Turn
from arena.fields import Count
from arena.knowledge import LabelView


@dataclass(frozen=True)
class HopSkipJump(BoundaryWalk["_Jumps"]):
    """Chen, Jordan & Wainwright 2020 (1904.02144), Algorithm 2, played inside a ball.

    At the boundary, estimate from labels the direction in which mistakes lie, step along it, and
    bisect back to the boundary. `BoundaryWalk` says what a mistake is, when an example is done and
    what is played.

    Differs from the paper, which knows no ball: every bisection first asks about the projection
    onto the ball, and continues beyond it; no estimate takes more than half of the queries left, so
    that the step it leads to can be tried; bisection tolerances are kept between 2^-20 (float32)
    and 2^-10 (low dimensions); the radius of the probes is gap / d from the first step on; a step
    that never is a mistake is given up at that tolerance.

    Attributes:
        steps: Estimates and steps per example (T in the paper).
        initial_evals: Queries of the first estimate (B_0, 100 in the paper); the t-th takes sqrt(t)
            times as many.
        max_evals: The most queries of one estimate.
    """

    steps: Count = 64
    initial_evals: Count = 40
    max_evals: Count = 10_000

    def walks(self, turn: Turn, view: LabelView, rows: Tensor) -> "_Jumps":
        """Walks that jump along an estimated normal."""
        return _Jumps(turn, view, rows)

    def step(self, walks: "_Jumps", on: Tensor, t: int) -> Tensor:
        """An estimate, a step along it, and a bisection from there."""
        evals = min(int(self.initial_evals * math.sqrt(t)), self.max_evals)
        moved, stuck = walks.step(on, walks.direction(on, evals, t), t)
        return torch.cat([stuck, walks.bisect(moved)])


class _Jumps(LabelWalks):
    """Walks with HopSkipJump's estimate and step."""

    def direction(self, on: Tensor, evals: int, t: int) -> Tensor:
        """The unit step [b, ...] into the mistakes at each point, equation 16; zero if not `on`.

        Each walk asks about `evals` probes, or half as many as it has queries left.
        """
        shape, low, high = self.given.shape[1:], *self.space.box
        point = self.point[on]
        radius = (self.space.size(self.given[on], point) / self.d).clamp(min=self.finest)

        def probes(owner: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
            noise = self._noise(key, shape)
            x = (point[owner] + wide(radius[owner], noise) * noise).clamp(low, high)
            return x, (x - point[owner]) / wide(radius[owner], noise)

        voted, drift, mean = self.poll(on, evals, chance.fold(self.keys[on], t), probes)
        # The mean vote is the paper's baseline; where all agree, it would leave nothing.
        mean = torch.where(mean.abs() == 1, 0.0, mean)
        step = torch.zeros_like(self.given)
        step[on] = self.space.steepest(voted - wide(mean, point) * drift)
        return step

    def _noise(self, key: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Random directions [B, *shape] of Euclidean length 1."""
        normal = isinstance(self.space, L2)
        noise = chance.normal(key, shape) if normal else 2 * chance.uniform(key, shape) - 1
        length = noise.flatten(1).norm(dim=1)
        return noise / wide(length.clamp(min=torch.finfo(length.dtype).tiny), noise)

    def step(self, on: Tensor, direction: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Steps along `direction`, halved until it is a mistake: walks that moved, and others."""
        low, high = self.space.box
        length = self.space.size(self.given, self.point) / math.sqrt(t)
        least = self.theta * length
        moved, todo = torch.zeros_like(self.gap, dtype=torch.bool), on
        while True:
            todo = self.paying(todo[(length > least)[todo]])
            if len(todo) == 0:
                return on[moved[on]], on[~moved[on]]
            x = self.point[todo] + wide(length[todo], direction) * direction[todo]
            x = x.clamp(low, high)
            won = self.mistaken(x, todo)
            self.arrive(todo[won], x[won])
            moved[todo[won]] = True
            todo = todo[~won]
            length[todo] /= 2
