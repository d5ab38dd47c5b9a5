"""CROWN: linear bounds of the margins, propagated back from the logits to the input."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from arena.certificates.ball import Ball
from arena.certificates.bound import Bound
from arena.certificates.network import read
from arena.certificates.propagation import Propagation
from arena.core import ActionSpace


@dataclass(frozen=True)
class Crown(Bound):
    """Zhang et al. 2018 (1811.00866), Theorem 3.2, with the adaptive lower lines of CROWN-Ada.

    It works for networks however they were trained. Beyond the paper: residual sums, and
    max-pooling between the lines of `operations.MaxPool`. Intervals and margins are never looser
    than those of interval propagation.

    Attributes:
        intermediate: How the intervals that decide the lines are bounded: "crown", by backward
            bounds of every value whose sign is open, or "interval", at a fraction of the cost.
    """

    intermediate: Literal["interval", "crown"] = "crown"

    def margins(self, module: nn.Module, x: Tensor, y: Tensor, space: ActionSpace) -> Tensor:
        """As `Bound.margins`."""
        refine = self.intermediate == "crown"
        bounds = Propagation(read(module, x), Ball.of(space, x), adaptive=True, refine=refine)
        return bounds.margins(y, through=True).maximum(bounds.margins(y, through=False))
