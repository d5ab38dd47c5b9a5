"""Interval bounds: each value of each layer has an interval of its own."""

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

    The last affine layers are merged with the margin, as in the paper. The cost is about two
    forward passes. The bounds are too loose to prove anything of a network that was not trained for
    them. For L2 and L1, which the paper does not treat, the values before the first nonlinear layer
    are bounded by the dual norm.
    """

    def margins(self, module: nn.Module, x: Tensor, y: Tensor, space: ActionSpace) -> Tensor:
        """As `Bound.margins`; a smaller space never has smaller margins."""
        bounds = Propagation(read(module, x), Ball.of(space, x), adaptive=False, refine=False)
        return bounds.margins(y, through=False)
