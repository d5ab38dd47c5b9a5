"""Projected gradient descent on the attacker's own cost, in its space's own geometry."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from arena import chance
from arena.attacks.engines.descent import Search
from arena.attacks.engines.fixed_steps import FixedSteps
from arena.attacks.engines.spaces import serving
from arena.attacks.engines.unjudged import last_of
from arena.attacks.engines.walks import Walks
from arena.core import Turn
from arena.knowledge import WhiteBox


@dataclass(frozen=True)
class PGD(FixedSteps[None]):
    """Madry et al. 2018 (1706.06083), section 2.1, generalised to any space and cost.

    x_{t+1} = project(x_t - step * eps * steepest(gradient of the cost's surrogate)); for the
    negated error rate in an L-inf ball this is the paper's signed ascent on cross-entropy.

    Differs from the paper in that it returns the best iterate (by the cost of its answer, then by
    the surrogate), unless the last is asked for. To train on, the last is as good, and costs no
    look at where it leads. Takes `steps` gradients per restart and `steps + 1` passes; for the last
    iterate, `steps` passes.

    Attributes:
        returns: Which iterate it plays.
    """

    returns: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.returns == "last" and self.restarts > 1:
            raise ValueError(
                f"PGD.returns = 'last', of {self.restarts} restarts: to choose among them takes a "
                "judgement of each; use returns='best', or one restart"
            )

    def respond(self, turn: Turn) -> Tensor:
        """The inputs found, [B, ...]."""
        if self.returns == "best":
            return super().respond(turn)
        space, keys = serving(turn.player, "PGD", self.spaces), chance.fold(turn.keys, 0)
        view = turn.see("defender", WhiteBox)
        if self.precision == "bfloat16":
            view = view.rounded(torch.bfloat16)

        def last(rows: Tensor) -> Tensor:
            x = turn.data.x[rows]
            if self.random_start:
                x = space.sample(x, keys[rows])
            return last_of(self.steps, self.step, x, rows, turn, view, space)

        return turn.each_batch(last)

    def begin(self, search: Search, walks: Walks[None]) -> None:
        """Starts at random in the space, or at the input."""
        self.start(search, walks)

    def advance(self, search: Search, walks: Walks[None], loss: Tensor, gradient: Tensor) -> Tensor:
        """A step of fixed size down the gradient, projected."""
        return self.stepped(search, walks, gradient)
