"""What the gradient attacks share: the gradient of a cost, and the best iterate so far."""

import torch
from torch import Tensor

from arena.core import Perturbations, Player
from arena.knowledge import INVALID


def require_perturbations(player: Player, attack: str) -> Perturbations:
    """The player's space, if it is one that a descent can walk in.

    Raises:
        ValueError: If the space is no `Perturbations`, or the cost has no surrogate.
    """
    space = player.actions
    if not isinstance(space, Perturbations):
        raise ValueError(
            f"{attack} perturbs inputs and cannot serve actions={type(space).__name__}; "
            "use actions=linf, l2, l1 or l0"
        )
    try:
        player.cost.surrogate(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    except NotImplementedError:
        raise ValueError(
            f"{attack} follows a gradient, but cost={type(player.cost).__name__} has no surrogate; "
            "use an attack without gradients or give the cost one"
        ) from None
    return space


class Best:
    """The best iterate of each example: by what its answer costs, then by the surrogate.

    An iterate whose logits are not finite is never better than a finite one.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x.clone()
        self.cost = torch.full((len(x),), float("inf"), device=x.device)
        self.surrogate = self.cost.clone()

    def offer(self, x: Tensor, cost: Tensor, surrogate: Tensor, labels: Tensor) -> None:
        """Keeps `x` [B, ...] where it improves on what is kept; no host sync."""
        fit = (labels != INVALID) & ~surrogate.isnan()
        better = fit & ((cost < self.cost) | ((cost == self.cost) & (surrogate < self.surrogate)))
        self.cost = torch.where(better, cost, self.cost)
        self.surrogate = torch.where(better, surrogate, self.surrogate)
        self.x = torch.where(better.reshape(-1, *(1,) * (x.ndim - 1)), x, self.x)
