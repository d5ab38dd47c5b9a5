"""The interface of bounds, which prove that no legal move changes a network's answer."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from arena.certificates import ball, network
from arena.core import ActionSpace
from arena.fields import Declared

_FLOAT32 = 2.0**-16
"""Allowance for float32 errors in a margin, as a share of the largest logit; see `certified`."""


class Bound(Declared, ABC):
    """Lower bounds on a network's margins over all legal moves.

    Bounds cover the spaces Linf, L2 and L1, with all that their `contains` tolerates, and the
    networks that `network.read` can read, in evaluation mode.
    """

    @abstractmethod
    def margins(self, module: nn.Module, x: Tensor, y: Tensor, space: ActionSpace) -> Tensor:
        """Lower bounds [B, K] on logit_y - logit_k over all legal outputs.

        They are plus infinity at k = y, and differentiable in the module's parameters.

        Args:
            module: The network, with K logits.
            x: The inputs [B, ...].
            y: The labels [B].
            space: The legal outputs.

        Raises:
            ValueError: If the space or a layer cannot be bounded.
        """

    def check(self, space: ActionSpace, module: nn.Module | None = None) -> None:
        """Checks what is known at set-up; `margins` also checks the functions between the layers.

        Args:
            space: The legal outputs.
            module: The network, if it is known.

        Raises:
            ValueError: If the space or a layer cannot be bounded, with those that can.
        """
        ball.check(space)
        if module is not None:
            network.check(module)

    @torch.no_grad()
    def certified(
        self, module: nn.Module, x: Tensor, y: Tensor, space: ActionSpace, batch_size: int
    ) -> Tensor:
        """Whether it is proven, bool [B], that the answer to every legal move is `y`.

        The bounds hold in exact arithmetic, but the bounds and the network's answers are computed
        in float32. So a margin must exceed 2^-16 of the example's largest logit, or of 1 if that is
        larger. This is not a theorem, but ten times the largest error measured against float64. It
        does not cover TF32, which a GPU can be told to use.

        Args:
            module: The network, with K logits.
            x: The inputs [B, ...].
            y: The labels [B].
            space: The legal outputs.
            batch_size: The number of examples that are bounded at once.

        Raises:
            ValueError: If the space or a layer cannot be bounded.
        """
        proven = []
        for part, truth in zip(*(torch.split(t, batch_size) for t in (x, y)), strict=True):
            scale = module(part).abs().amax(1, keepdim=True).clamp(min=1.0)
            proven.append((self.margins(module, part, truth, space) > _FLOAT32 * scale).all(1))
        return torch.cat(proven)
