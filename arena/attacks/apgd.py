"""Auto-PGD: a descent with momentum that sets its own step sizes."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from arena.actions.lp import L2, Linf
from arena.attacks.engines.descent import Descent, Search, Walks
from arena.attacks.engines.losses import dlr, margin
from arena.core import Player
from arena.fields import Count

_MOMENTUM = 0.75  # alpha of the paper's update (section 3.1)
_RISING = 0.75  # rho of condition 1: the share of steps that must improve


def checkpoints(steps: int) -> list[int]:
    """The steps after which a walk is judged (section 3.2), in ever shorter intervals."""
    found, share, width = [], 0.0, 0.22
    while share + width < 1:
        share += width
        found.append(round(share * steps))
        width = max(width - 0.03, 0.06)
    return sorted({step for step in found if step > 0})


@dataclass(frozen=True)
class APGD(Descent):
    """Croce & Hein 2020 (2003.01690), Algorithm 1, on the loss that it is given.

    The step begins at twice eps. At each checkpoint it is halved, and the walk taken back to its
    best place, if too few of the steps since the last one improved (condition 1), or if neither the
    step nor the best loss has changed since (condition 2).

    Attributes:
        objective: What to descend: the cost's own surrogate (cross-entropy for the error rate), the
            difference of logits ratio (DLR), or the margin.
        restarts: Random starting points, each with its target if there are `targets`.
        targets: Walks per start that each aim at one winning answer, the likeliest first; 0: the
            loss is over all of them. No more than the most that any example has are run.
    """

    steps: Count = 100
    objective: Literal["surrogate", "dlr", "margin"] = "surrogate"
    restarts: Count = 1
    targets: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets < 0 or (self.targets and self.objective == "surrogate"):
            raise ValueError(
                f"APGD.targets = {self.targets} with objective={self.objective}: give 0, or at "
                "least 1 with objective=dlr or margin, whose losses can aim at an answer"
            )

    def check(self, player: Player) -> None:
        """Raises ValueError if the space is no L-inf or L2 ball, or the cost has no surrogate."""
        super().check(player)
        if not isinstance(player.actions, Linf | L2):
            raise ValueError(
                f"APGD steps in L-inf and L2 balls, not {player.actions}; use actions=linf or l2, "
                "or strategy=apgd_l1"
            )

    def variants(self, search: Search) -> int:
        """A walk a restart and target."""
        return self.restarts * max(min(self.targets, search.options()), 1)

    def begin(self, search: Search, walks: Walks) -> None:
        """At random in the space, aimed at the target of its number."""
        walks.x = search.space.sample(walks.given, walks.key)
        search.aim(walks, self.targets)
        self.track(walks)
        own, none = walks.own, torch.zeros_like(walks.own["least"])
        own |= {
            "length": none + 2.0,  # of the next step, in units of eps
            "before": walks.x,
            "last": own["least"],  # the loss a step ago
            "rises": none,  # steps that improved since the checkpoint
            "least_then": own["least"],  # as of the last checkpoint
            "cut_then": torch.ones_like(none, dtype=torch.bool),
        }

    @staticmethod
    def track(walks: Walks) -> None:
        """The best place of a walk, the gradient and the loss there: unknown yet."""
        least = torch.full_like(walks.rows, torch.inf, dtype=walks.x.dtype)
        walks.own |= {"best": walks.x, "slope": torch.zeros_like(walks.x), "least": least}

    def loss(self, search: Search, walks: Walks, logits: Tensor) -> Tensor:
        """The objective, over all winning answers or towards the walk's target."""
        if self.objective == "surrogate":
            return super().loss(search, walks, logits)
        ratio = dlr if self.objective == "dlr" else margin
        return ratio(logits, search.wins(walks.y), walks.own.get("target"))

    def advance(self, search: Search, walks: Walks, loss: Tensor, gradient: Tensor) -> Tensor:
        """A step with momentum from where the walk is, or from its best place."""
        own, space = walks.own, search.space
        self.remember(walks, loss, gradient)
        own["rises"] = own["rises"] + (loss < own["last"]) * (walks.t > 0)
        own["last"] = loss
        x, gradient = self.judged(walks, gradient)
        ahead = torch.addcmul(
            x, space.steepest(gradient), walks.wide(own["length"]), value=-space.eps
        )
        ahead = space.project(walks.given, ahead)
        # x + momentum (ahead - x) + (1 - momentum) (x - before); the first step has no before.
        share = walks.wide(torch.where(walks.t == 0, 1.0, _MOMENTUM))
        moved = x + share * (ahead - x) + (1 - share) * (x - own["before"])
        own["before"] = x
        return space.project(walks.given, moved)

    @staticmethod
    def remember(walks: Walks, loss: Tensor, gradient: Tensor) -> None:
        """Keeps the best place, with the gradient and the loss there."""
        own = walks.own
        better = loss < own["least"]
        wide = walks.wide(better)
        own["least"] = torch.where(better, loss, own["least"])
        own["best"] = torch.where(wide, walks.x, own["best"])
        own["slope"] = torch.where(wide, gradient, own["slope"])

    def judged(self, walks: Walks, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Where to go on from, with the gradient there; steps that did not pay are halved."""
        own, width = walks.own, self._interval(walks.t)
        at = width > 0
        if at.device.type == "cpu" and not bool(at.any()):  # elsewhere asking costs more
            return walks.x, gradient
        stuck = own["rises"] <= _RISING * width
        idle = ~own["cut_then"] & (own["least_then"] <= own["least"])
        cut = at & (stuck | idle)
        own["length"] = torch.where(cut, own["length"] / 2, own["length"])
        own["cut_then"] = torch.where(at, cut, own["cut_then"])
        own["least_then"] = torch.where(at, own["least"], own["least_then"])
        own["rises"] = torch.where(at, 0.0, own["rises"])
        return self.back(walks, cut, gradient)

    @staticmethod
    def back(walks: Walks, which: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The best place with its gradient for `which` [L], where they are for the others."""
        wide, own = walks.wide(which), walks.own
        return torch.where(wide, own["best"], walks.x), torch.where(wide, own["slope"], gradient)

    def _interval(self, t: Tensor) -> Tensor:
        """For each step of `t` [L]: how long the interval is that ends there, 0 if none does."""
        width, before = torch.zeros(self.steps + 1), 0
        for mark in checkpoints(self.steps):
            width[mark], before = mark - before, mark
        return width.to(t.device)[t.clamp(max=self.steps)]
