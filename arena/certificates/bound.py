"""What proves that no legal move changes a network's answer."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from arena.certificates import ball, network
from arena.core import ActionSpace
from arena.fields import Declared

_ROUNDING = 2.0**-16
"""Of the largest logit: what float32 may have taken off a margin, see `Bound.certified`."""


class Bound(Declared, ABC):
    """Proves lower bounds on how far a network's answer is from changing, over all legal moves.

    Of the spaces it covers Linf, L2 and L1, with everything that their `contains` tolerates; of the
    networks those that `network.read` can read, as they are in evaluation mode.
    """

    @abstractmethod
    def margins(self, module: nn.Module, x: Tensor, y: Tensor, space: ActionSpace) -> Tensor:
        """Lower bounds [B, K] on logit_y - logit_k over every legal output for `x` [B, ...].

        Plus infinity at k = y [B]. Differentiable in the module's parameters.

        Raises:
            ValueError: If the space or a layer cannot be bounded.
        """

    def check(self, space: ActionSpace, module: nn.Module | None = None) -> None:
        """Checks what is known at set-up; `margins` looks at the functions between the layers too.

        Raises:
            ValueError: Saying what does not fit and what would.
        """
        ball.check(space)
        if module is not None:
            network.check(module)

    @torch.no_grad()
    def certified(
        self, module: nn.Module, x: Tensor, y: Tensor, space: ActionSpace, batch_size: int
    ) -> Tensor:
        """Whether it is proven, bool [B], that no legal move has another answer than `y`.

        The bounds hold in exact arithmetic; both they and the network's own answers are computed in
        float32. So a margin counts if it exceeds 2^-16 of the example's largest logit (at least 1):
        no theorem, but ten times the largest error that was measured against float64. TF32, which
        a GPU may use instead if told to, is not covered.
        """
        proven = []
        for part, truth in zip(*(torch.split(t, batch_size) for t in (x, y)), strict=True):
            scale = module(part).abs().amax(1, keepdim=True).clamp(min=1.0)
            proven.append((self.margins(module, part, truth, space) > _ROUNDING * scale).all(1))
        return torch.cat(proven)
