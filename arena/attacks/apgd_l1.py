"""Auto-PGD for L1 balls: sparse steps, in balls that shrink to the player's own."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from arena import chance
from arena.actions.lp import L1
from arena.attacks.engines.auto_pgd import AutoPGD, BestPlace
from arena.attacks.engines.descent import Search
from arena.attacks.engines.walks import PerWalk, Walks
from arena.classification import Perturbations

_BALLS = ((0.3, 3.0), (0.3, 2.0), (0.4, 1.0))  # shares of the steps, in balls of so many eps
_SHRINK = 1.5  # by which steps and sparsity go down (Algorithm 1)
_SHORTEST = 10  # the shortest step is the radius over this
_EVERY = 0.012  # share of the steps between two looks at the sparsity: 4 % of the first ball's


@dataclass
class _Sparse(PerWalk):
    """How long and how sparse each walk's next step is; all but `best` are [L].

    Attributes:
        best: The best place so far in the present ball.
        length: The next step's, in units of the ball's radius.
        moving: How many coordinates it moves (k), before rounding.
        differed: Coordinates in which the best place differed from the input at the last look.
        looked: Steps since that look.
    """

    best: BestPlace
    length: Tensor
    moving: Tensor
    differed: Tensor
    looked: Tensor


@dataclass(frozen=True)
class APGDL1(AutoPGD[_Sparse]):
    """Croce & Hein 2021 (2103.01208), Algorithm 1 with adaptive sparsity, in the multi-eps scheme.

    A step moves the k coordinates of largest gradient by equal amounts, eta in all, and projects
    onto ball and box together (the space's own exact projection). At each look k becomes the number
    of coordinates in which the best place differs from the input, divided by 1.5. Where that number
    fell by more than 5 % the walk goes back to its best place, with steps of the whole radius
    again. Elsewhere eta falls by a factor of 1.5, down to a tenth of the radius. The first steps
    are in balls of 3 eps and 2 eps, which hold nothing that can be played. Each later ball begins
    at the projection of the best place so far (section 4.3).
    """

    spaces: ClassVar[tuple[type[Perturbations], ...]] = (L1,)
    instead: ClassVar[str] = "strategy=apgd"

    def begin(self, search: Search, walks: Walks[None]) -> _Sparse:
        """Starts at normal noise, projected onto the largest ball, which keeps few coordinates."""
        noise = chance.normal(walks.key, walks.given.shape[1:])
        walks.x = self._ball(search, _BALLS[0][1]).project(walks.given, walks.given + noise)
        search.aim(walks, self.targets)
        differs = self._differs(walks.x, walks.given)
        return _Sparse(
            BestPlace.unknown(walks),
            length=torch.ones_like(differs),
            moving=differs / _SHRINK,
            differed=differs,
            looked=torch.zeros_like(walks.t),
        )

    def rank(
        self, search: Search, walks: Walks[_Sparse], x: Tensor, cost: Tensor, loss: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Ranks places as every descent does, but those in larger balls count for nothing."""
        inside = self._radii(walks.t) == 1.0
        return torch.where(inside, cost, torch.inf), torch.where(inside, loss, torch.inf)

    def advance(
        self, search: Search, walks: Walks[_Sparse], loss: Tensor, gradient: Tensor
    ) -> Tensor:
        """A sparse step from where the walk is, or from its best place; or into the next ball."""
        own = walks.own
        own.best.remember(walks.x, loss, gradient)
        x, gradient = self._looked(walks, gradient)
        radius, now = self._radii(walks.t + 1), self._radii(walks.t)
        rows = gradient.flatten(1)
        place = rows.abs().argsort(dim=1, descending=True).argsort(dim=1)
        signs = rows.sign() * (place < own.moving.floor().clamp(min=1)[:, None])
        count = signs.abs().sum(1).clamp(min=1)
        step = signs * (search.space.eps * radius * own.length / count)[:, None]
        enters = radius != now
        x = torch.where(walks.wide(enters), own.best.place, x - step.reshape(x.shape))
        x = self._projected(search, walks, x, radius)
        self._enter(walks, enters, x)
        return x

    def _looked(self, walks: Walks[_Sparse], gradient: Tensor) -> tuple[Tensor, Tensor]:
        """At a look: sets another sparsity, and longer or shorter steps."""
        own = walks.own
        own.looked = own.looked + 1
        at = own.looked > max(round(_EVERY * self.steps), 1)
        if at.device.type == "cpu" and not bool(at.any()):
            return walks.x, gradient
        differs = self._differs(own.best.place, walks.given)
        sparser = differs < 0.95 * own.differed
        length = torch.where(sparser, 1.0, (own.length / _SHRINK).clamp(min=1 / _SHORTEST))
        own.length = torch.where(at, length, own.length)
        own.moving = torch.where(at, differs / _SHRINK, own.moving)
        own.differed = torch.where(at, differs, own.differed)
        own.looked = own.looked.masked_fill(at, 1)
        return own.best.back(at & sparser, walks.x, gradient)

    def _enter(self, walks: Walks[_Sparse], enters: Tensor, x: Tensor) -> None:
        """Starts anew at `x` where a walk enters a ball: as sparse as `x`, in the longest steps."""
        own, differs = walks.own, self._differs(x, walks.given)
        own.length = own.length.masked_fill(enters, 1.0)
        own.moving = torch.where(enters, differs / _SHRINK, own.moving)
        own.differed = torch.where(enters, differs, own.differed)
        own.looked = own.looked.masked_fill(enters, 0)
        own.best.loss = own.best.loss.masked_fill(enters, torch.inf)

    @staticmethod
    def _differs(x: Tensor, given: Tensor) -> Tensor:
        """In how many coordinates each of `x` [L, ...] differs from the given input, [L]."""
        return (x != given).flatten(1).sum(1).to(x.dtype)

    def _radii(self, t: Tensor) -> Tensor:
        """The radius [L] of the ball that a walk is in at step `t` [L], in units of eps."""
        radii, first = torch.ones(self.steps + 1), 0
        for share, radius in _BALLS[:-1]:
            last = first + round(share * self.steps)
            radii[first:last], first = radius, last
        return radii.to(t.device)[t.clamp(max=self.steps)]

    def _ball(self, search: Search, radius: float) -> L1:
        space = search.space
        assert isinstance(space, L1)
        return replace(space, eps=radius * space.eps)

    def _projected(
        self, search: Search, walks: Walks[_Sparse], x: Tensor, radius: Tensor
    ) -> Tensor:
        """`x` [L, ...], each projected onto the ball of its `radius` [L]."""
        projected = x
        for _, size in _BALLS:
            those = (radius == size).nonzero().squeeze(1)
            if len(those):
                ball = self._ball(search, size)
                projected = projected.index_copy(
                    0, those, ball.project(walks.given[those], x[those])
                )
        return projected
