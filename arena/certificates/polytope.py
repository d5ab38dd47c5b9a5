"""The convex outer polytope: a dual bound that can be trained on."""

from dataclasses import dataclass

from torch import Tensor, nn

from arena.certificates.ball import Ball
from arena.certificates.bound import Bound
from arena.certificates.network import read
from arena.certificates.propagation import Propagation
from arena.core import ActionSpace


@dataclass(frozen=True)
class ConvexPolytope(Bound):
    """Wong & Kolter 2018 (1711.00851), Theorem 1 and Algorithm 1.

    The bound is at the dual point of the paper: a ReLU whose sign is open lies between its chord
    and the parallel through 0, as in Fast-Lin (1804.09699). The bound is smooth in the parameters
    except where a sign becomes settled. Beyond the paper: L2 and L1 balls (as in 1805.12514), the
    data's box, and the layers of `Crown`. Where plain interval propagation bounds an interval
    better, its bound is taken.
    """

    def margins(self, module: nn.Module, x: Tensor, y: Tensor, space: ActionSpace) -> Tensor:
        """As `Bound.margins`."""
        bounds = Propagation(read(module, x), Ball.of(space, x), adaptive=False, refine=True)
        return bounds.margins(y, through=True)
