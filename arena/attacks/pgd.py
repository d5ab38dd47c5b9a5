"""Projected gradient descent on the attacker's own cost, in its space's own geometry."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from arena import chance
from arena.attacks.engines.descent import Descent, Search, Walks
from arena.classification import Perturbations
from arena.core import Player, Turn
from arena.fields import Count, Positive


@dataclass(frozen=True)
class PGD(Descent):
    """Madry et al. 2018 (1706.06083), section 2.1, generalised to any space and cost.

    x_{t+1} = project(x_t - step * eps * steepest(gradient of the cost's surrogate)); for the
    negated error rate in an L-inf ball this is the paper's signed ascent on cross-entropy.
    Differs from the paper in that the best iterate is returned (by the cost of its answer, then by
    the surrogate), unless the last is asked for: to train on, it is as good, and costs no look at
    where it leads. `steps` gradients per restart, and `steps + 1` passes, for the last `steps`.

    Attributes:
        step: Step size, as a share of the space's eps.
        restarts: Starting points.
        random_start: Start at random in the space; else at the input (then give one restart).
        returns: Which iterate.
    """

    step: Positive = 0.1
    restarts: Count = 1
    random_start: bool = True
    returns: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.returns == "last" and self.restarts > 1:
            raise ValueError(
                f"PGD.returns = 'last', of {self.restarts} restarts: which of them is a matter of "
                "how good they are; use returns='best', or one restart"
            )

    def check(self, player: Player) -> None:
        """Raises ValueError if the space or the cost does not fit a descent."""
        super().check(player)
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"{self.restarts} restarts without random_start would all be the same")

    def respond(self, turn: Turn) -> Tensor:
        """The inputs found, [B, ...]."""
        if self.returns == "best":
            return super().respond(turn)
        return turn.each_batch(partial(self._last, Search(self, turn)))

    def _last(self, search: Search, rows: Tensor) -> Tensor:
        """Where as many steps lead, whatever lies on the way."""
        given = search.turn.data[rows]
        x = given.x
        if self.random_start:
            x = search.space.sample(x, chance.fold(search.keys[rows], 0))
        view, project = search.rounded or search.view, search.space.projection(given.x)
        for _ in range(self.steps):
            x = x.detach().requires_grad_()
            loss = search.cost.surrogate(view.logits(x, rows), given.y, given.classes)
            (gradient,) = torch.autograd.grad(loss.sum(), x)
            gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
            x = project(self._stepped(search.space, x.detach(), gradient))
        return x.detach()

    def variants(self, search: Search) -> int:
        """A walk a restart."""
        return self.restarts

    def begin(self, search: Search, walks: Walks) -> None:
        """At random in the space, or at the input."""
        if self.random_start:
            walks.x = search.space.sample(walks.given, walks.key)

    def advance(self, search: Search, walks: Walks, loss: Tensor, gradient: Tensor) -> Tensor:
        """A step of fixed size down the gradient, projected."""
        return search.space.project(walks.given, self._stepped(search.space, walks.x, gradient))

    def _stepped(self, space: Perturbations, x: Tensor, gradient: Tensor) -> Tensor:
        return torch.add(x, space.steepest(gradient), alpha=-self.step * space.eps)
