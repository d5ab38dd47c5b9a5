"""Interval bounds: every value of every layer in an interval of its own."""

from dataclasses import dataclass

from torch import Tensor, nn

from arena.certificates.ball import Ball
from arena.certificates.bound import Bound
from arena.certificates.network import read
from arena.certificates.propagation import Propagation
from arena.core import ActionSpace


@dataclass(frozen=True)
class Interval(Bound):
    """Interval bound propagation: Gowal et al. 2018 (1810.12715), equations 4-6.

    The last affine layers are merged with the margin, as in the paper. The price is about two
    passes; on a network that was not trained for it, the bounds say nothing. For L2 and L1, which
    the paper leaves out, the values before the first nonlinear layer are bounded by the dual norm.
    """

    def margins(self, module: nn.Module, x: Tensor, y: Tensor, space: ActionSpace) -> Tensor:
        """As `Bound.margins`; the smaller the space, the larger each."""
        bounds = Propagation(read(module, x), Ball.of(space, x), adaptive=False, refine=False)
        return bounds.margins(y, through=False)
