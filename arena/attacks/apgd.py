"""Auto-PGD: a descent with momentum that sets its own step sizes."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena.actions.lp import L2, Linf
from arena.attacks.engines.auto_pgd import AutoPGD, BestPlace
from arena.attacks.engines.descent import Search
from arena.attacks.engines.walks import PerWalk, Walks
from arena.classification import Perturbations

_MOMENTUM = 0.75  # alpha of the paper's update (section 3.1)
_RISING = 0.75  # rho of condition 1: the share of steps that must improve


def checkpoints(steps: int) -> list[int]:
    """The steps after which a walk is judged (section 3.2), at ever shorter intervals."""
    found, share, width = [], 0.0, 0.22
    while share + width < 1:
        share += width
        found.append(round(share * steps))
        width = max(width - 0.03, 0.06)
    return sorted({step for step in found if step > 0})


@dataclass
class _Pace(PerWalk):
    """What decides on the length of each walk's next step; all but `best` and `before` are [L].

    Attributes:
        best: The best place so far.
        before: Where the walk was a step ago, [L, ...].
        length: The next step's, in units of eps.
        last: The loss a step ago.
        rises: Steps since the last checkpoint that lowered the loss.
        best_then: The lowest loss at the last checkpoint.
        cut_then: Whether the step was halved there.
    """

    best: BestPlace
    before: Tensor
    length: Tensor
    last: Tensor
    rises: Tensor
    best_then: Tensor
    cut_then: Tensor


@dataclass(frozen=True)
class APGD(AutoPGD[_Pace]):
    """Croce & Hein 2020 (2003.01690), Algorithm 1, on the loss that it is given.

    The step begins at twice eps. At each checkpoint it may be halved, and the walk taken back to
    its best place. That happens if too few of the steps since the last checkpoint lowered the loss
    (condition 1), or if neither the step nor the best loss has changed since (condition 2).
    """

    spaces: ClassVar[tuple[type[Perturbations], ...]] = (Linf, L2)
    instead: ClassVar[str] = "strategy=apgd_l1"

    def begin(self, search: Search, walks: Walks[None]) -> _Pace:
        """Starts at random in the space, aimed at the target of the walk's number."""
        walks.x = search.space.sample(walks.given, walks.key)
        search.aim(walks, self.targets)
        best = BestPlace.unknown(walks)
        return _Pace(
            best,
            before=walks.x,
            length=walks.zeros() + 2.0,
            last=best.loss,
            rises=walks.zeros(),
            best_then=best.loss,
            cut_then=~walks.flags(),
        )

    def advance(
        self, search: Search, walks: Walks[_Pace], loss: Tensor, gradient: Tensor
    ) -> Tensor:
        """A step with momentum from where the walk is, or from its best place."""
        own, space = walks.own, search.space
        own.best.remember(walks.x, loss, gradient)
        own.rises = own.rises + (loss < own.last) * (walks.t > 0)
        own.last = loss
        x, gradient = self._judged(walks, gradient)
        ahead = torch.addcmul(x, space.steepest(gradient), walks.wide(own.length), value=-space.eps)
        ahead = space.project(walks.given, ahead)
        # x + momentum (ahead - x) + (1 - momentum) (x - before); the first step has no before.
        share = walks.wide(torch.where(walks.t == 0, 1.0, _MOMENTUM))
        moved = x + share * (ahead - x) + (1 - share) * (x - own.before)
        own.before = x
        return space.project(walks.given, moved)

    def _judged(self, walks: Walks[_Pace], gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The place to go on from and its gradient [L, ...]; halves steps that did not pay."""
        own, width = walks.own, self._interval(walks.t)
        at = width > 0
        if at.device.type == "cpu" and not bool(at.any()):  # elsewhere asking costs more
            return walks.x, gradient
        stuck = own.rises <= _RISING * width
        idle = ~own.cut_then & (own.best_then <= own.best.loss)
        cut = at & (stuck | idle)
        own.length = torch.where(cut, own.length / 2, own.length)
        own.cut_then = torch.where(at, cut, own.cut_then)
        own.best_then = torch.where(at, own.best.loss, own.best_then)
        own.rises = torch.where(at, 0.0, own.rises)
        return own.best.back(cut, walks.x, gradient)

    def _interval(self, t: Tensor) -> Tensor:
        """The length of the interval that ends at each step of `t` [L]; 0 if none ends there."""
        width, before = torch.zeros(self.steps + 1), 0
        for mark in checkpoints(self.steps):
            width[mark], before = mark - before, mark
        return width.to(t.device)[t.clamp(max=self.steps)]
