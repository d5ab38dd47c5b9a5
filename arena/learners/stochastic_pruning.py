"""Stochastic activation pruning: a trained network drops activations at random when used."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arena import chance
from arena.classification import Learner
from arena.fields import Positive
from arena.learners.activations import changed, hidden_activations
from arena.learners.preprocessing import answered

_GRID = 2.0**-24  # spacing of the uniform random numbers


def pruned(activations: Tensor, share: float, key: Tensor) -> Tensor:
    """Activations [B, ...] of one layer after pruning, by the random `key` [B].

    Unit j of n is kept with probability q_j = 1 - (1 - p_j)^r and then divided by q_j; else it is
    set to 0. Here p_j is its share of the sum of the magnitudes, and r = share * n, rounded. The
    expected activation is the one before pruning.
    """
    flat = activations.flatten(1)
    draws = max(1, round(share * flat.shape[1]))
    magnitude = flat.abs()
    total = magnitude.sum(1, keepdim=True)
    p = magnitude / total.clamp(min=torch.finfo(total.dtype).tiny)
    # At p = 1 the logarithm has no derivative, and no random number is finer than the grid.
    q = -torch.expm1(draws * torch.log1p(-p.clamp(max=1 - _GRID)))
    q = q.clamp(min=_GRID)
    kept = chance.uniform(key, flat.shape[1:]) < q
    return (flat * kept / q).reshape(activations.shape)


class Pruned(nn.Module):
    """A module whose hidden activations are pruned in evaluation mode, and not in training mode.

    Raises:
        ValueError: If it has no hidden activation.
    """

    random = True

    def __init__(self, module: nn.Module, share: float) -> None:
        super().__init__()
        self.module, self._share = module, share
        self._names = tuple(hidden_activations(module, "StochasticActivationPruning"))

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """Logits [B, K], by the coins `key` [B]; without them, by those of the input itself."""
        if self.training:
            trained: Tensor = self.module(x)
            return trained
        coins = chance.of(x.detach()) if key is None else key

        def less(activation: Tensor, number: int) -> Tensor:
            if len(activation) != len(coins):
                raise ValueError(
                    f"StochasticActivationPruning found an activation of {len(activation)} rows "
                    f"for {len(coins)} inputs; apply it inside the part that changes their number"
                )
            return pruned(activation, self._share, chance.fold(coins, number))

        with changed(map(self.module.get_submodule, self._names), less):
            return answered(self.module, x, chance.fold(coins, -1))


@dataclass(frozen=True)
class StochasticActivationPruning(Learner):
    """Dhillon et al. 2018 (1803.01442), algorithm 1, for an architecture trained as usual.

    Deviation from the paper: each unit is kept or dropped independently. The paper draws r units
    with replacement, in proportion to their magnitudes, and keeps the drawn ones. Each unit is kept
    with the same probability, but not independently of the others. Drawing takes 4 to 5 times as
    long, and a rounding error in one activation would shift the draws of all units after it.

    Attributes:
        learner: The architecture; its activations must be modules.
        share: Number of draws from a layer, as a multiple of the layer's size; may exceed 1.
    """

    learner: Learner
    share: Positive = 1.0

    def layers(self, shape: tuple[int, ...], classes: int) -> Pruned:
        """The module, which is random when it is used.

        Raises:
            ValueError: If the architecture has no hidden activation among its modules.
        """
        return Pruned(self.learner.layers(shape, classes), self.share)
