"""The Boundary Attack: a random walk along the decision boundary, guided by labels alone."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena import chance
from arena.actions.lp import L2, Linf
from arena.attacks.engines.boundary_walk import BoundaryWalk, LabelWalks
from arena.attacks.engines.walks import wide
from arena.core import Turn
from arena.fields import Count
from arena.knowledge import LabelView

FIRST = 0.1
"""First length of either step, as a share of the gap; both adapt within tens of steps."""
RATE = 1.1
"""Factor by which a step's length adapts after a query."""


@dataclass(frozen=True)
class Boundary(BoundaryWalk["_Steps"]):
    """Brendel, Rauber & Bethge 2018 (1712.04248), Algorithm 1, played inside an L2 ball.

    Each step goes sideways at random, and from there towards the given input; either half is kept
    where it is still a mistake. The lengths of both halves adapt per example: the sideways one so
    that half of the tries are mistakes, the other so that a quarter are. `BoundaryWalk` says what a
    mistake is, when an example is done and what is played. A walk has converged, and ends, when its
    step towards the input is too short for float32.

    Differs from the paper: the first mistake is bisected; a step sideways that is a mistake is
    kept, whatever comes of the step towards the input after it; lengths adapt by a factor after
    each query, not by success rates over windows of steps; a step beyond the box is cut at its
    side, which brings it nearer to the input.

    Attributes:
        steps: Steps sideways per example. Each is a query, and about half of them are followed by
            one more.
    """

    steps: Count = 10_000

    spaces: ClassVar[tuple[type[Linf] | type[L2], ...]] = (L2,)

    def walks(self, turn: Turn, view: LabelView, rows: Tensor) -> "_Steps":
        """Walks with steps of the first length."""
        return _Steps(turn, view, rows)

    def step(self, walks: "_Steps", on: Tensor, t: int) -> Tensor:
        """A step sideways, and one towards the input from where that is a mistake."""
        walks.approach(walks.paying(walks.sidestep(on, t)))
        far = (walks.gap > walks.space.eps)[on]
        return on[far & (walks.towards * walks.gap > walks.finest)[on]]


class _Steps(LabelWalks):
    """Walks with the paper's two steps, of lengths `sideways` and `towards` [b], in gaps."""

    def __init__(self, turn: Turn, view: LabelView, rows: Tensor) -> None:
        super().__init__(turn, view, rows)
        self.sideways = torch.full_like(self.gap, FIRST)
        self.towards = torch.full_like(self.gap, FIRST)

    def sidestep(self, on: Tensor, t: int) -> Tensor:
        """Steps at random on the spheres around the given inputs; returns the walks that moved."""
        given, share = self.given[on], self.sideways[on]
        inward = given - self.point[on]
        noise = chance.normal(chance.fold(self.keys[on], t), given.shape[1:])
        along = (noise * inward).flatten(1).sum(1) / _length(inward).square()
        noise = noise - wide(along, noise) * inward
        # In one dimension nothing is orthogonal, and the step has no length to be scaled to.
        scale = share * _length(inward) / _length(noise).clamp(min=torch.finfo(noise.dtype).tiny)
        offset = (wide(scale, noise) * noise - inward) / wide((1 + share**2).sqrt(), noise)
        x = (given + offset).clamp(*self.space.box)
        won = self.mistaken(x, on)
        self.arrive(on[won], x[won])
        self.sideways[on] = (share * torch.where(won, RATE, 1 / RATE)).clamp(max=1)
        return on[won]

    def approach(self, at: Tensor) -> None:
        """Steps towards the given inputs."""
        if len(at) == 0:
            return
        point, share = self.point[at], self.towards[at]
        x = (point + wide(share, point) * (self.given[at] - point)).clamp(*self.space.box)
        won = self.mistaken(x, at)
        self.arrive(at[won], x[won])
        # Up by three factors for one down: even at a success in four.
        self.towards[at] = (share * torch.where(won, RATE**3, 1 / RATE)).clamp(max=0.5)


def _length(v: Tensor) -> Tensor:
    """The Euclidean length [B] of each of `v` [B, ...]."""
    length: Tensor = torch.linalg.vector_norm(v.flatten(1), dim=1)
    return length
