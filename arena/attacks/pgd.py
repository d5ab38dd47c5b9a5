"""Projected gradient descent on the attacker's own cost, in its space's own geometry."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from arena import chance
from arena.attacks.engines.descent import Search
from arena.attacks.engines.fixed_steps import FixedSteps
from arena.attacks.engines.walks import Walks
from arena.core import Turn


@dataclass(frozen=True)
class PGD(FixedSteps[None]):
    """Madry et al. 2018 (1706.06083), section 2.1, generalised to any space and cost.

    x_{t+1} = project(x_t - step * eps * steepest(gradient of the cost's surrogate)); for the
    negated error rate in an L-inf ball this is the paper's signed ascent on cross-entropy.
    Differs from the paper in that the best iterate is returned (by the cost of its answer, then by
    the surrogate), unless the last is asked for: to train on, it is as good, and costs no look at
    where it leads. `steps` gradients per restart, and `steps + 1` passes, for the last `steps`.

    Attributes:
        returns: Which iterate.
    """

    returns: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.returns == "last" and self.restarts > 1:
            raise ValueError(
                f"PGD.returns = 'last', of {self.restarts} restarts: which of them is a matter of "
                "how good they are; use returns='best', or one restart"
            )

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
            x = project(self.stepped(search.space, x.detach(), gradient))
        return x.detach()

    def begin(self, search: Search, walks: Walks[None]) -> None:
        """At random in the space, or at the input."""
        self.start(search, walks)

    def advance(self, search: Search, walks: Walks[None], loss: Tensor, gradient: Tensor) -> Tensor:
        """A step of fixed size down the gradient, projected."""
        return self.projected(search, walks, gradient)
