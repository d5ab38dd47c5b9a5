"""Momentum and Nesterov: a descent that remembers which way it went."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.attacks.engines.descent import Search, Walks
from arena.attacks.pgd import PGD
from arena.fields import NonNegative


@dataclass(frozen=True)
class Momentum(PGD):
    """MI-FGSM, Dong et al. 2018 (1710.06081), Algorithm 1; NI-FGSM, Lin et al. 2020 (1908.06281).

    g_{t+1} = decay * g_t + gradient / mean |gradient|; the step follows g where PGD follows the
    gradient. With `nesterov` the gradient is taken at x_t - step * eps * decay * steepest(g_t),
    where the memory alone would lead (1908.06281, equation 6, with the step's own geometry). Those
    places are answers like any other, and are what is kept if they are the best.
    Differs from the papers in what PGD differs in, and in the norm that scales the gradients: the
    mean absolute value is their L1 norm up to a constant, which `steepest` does not see.

    Attributes:
        decay: What is kept of the memory each step.
        nesterov: Look ahead.
    """

    decay: NonNegative = 1.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.returns == "last":
            raise ValueError(
                "Momentum.returns = 'last' is not implemented: the last iterate is for training, "
                "which PGD serves; use returns='best'"
            )

    def begin(self, search: Search, walks: Walks) -> None:
        """As PGD, with nothing remembered."""
        super().begin(search, walks)
        walks.own["memory"] = torch.zeros_like(walks.x)
        if self.nesterov:
            walks.own["base"] = walks.x

    def advance(self, search: Search, walks: Walks, loss: Tensor, gradient: Tensor) -> Tensor:
        """A step of fixed size down the memory, projected."""
        scale = gradient.abs().flatten(1).mean(1).clamp(min=torch.finfo(gradient.dtype).tiny)
        memory = self.decay * walks.own["memory"] + gradient / walks.wide(scale)
        walks.own["memory"] = memory
        if not self.nesterov:
            return super().advance(search, walks, loss, memory)
        space, length = search.space, self.step * search.space.eps
        direction = space.steepest(memory)
        base = space.project(walks.given, walks.own["base"] - length * direction)
        walks.own["base"] = base
        return space.project(walks.given, base - length * self.decay * direction)
