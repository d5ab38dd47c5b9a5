"""Momentum and Nesterov: a descent that remembers its past gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.attacks.engines.descent import Search
from arena.attacks.engines.fixed_steps import FixedSteps
from arena.attacks.engines.walks import PerWalk, Walks
from arena.fields import NonNegative


@dataclass
class _Memory(PerWalk):
    """The decaying sum of gradients, and where walks are without the look ahead; both [L, ...].

    `base` is None where nothing looks ahead.
    """

    memory: Tensor
    base: Tensor | None


@dataclass(frozen=True)
class Momentum(FixedSteps[_Memory]):
    """MI-FGSM, Dong et al. 2018 (1710.06081), Algorithm 1; NI-FGSM, Lin et al. 2020 (1908.06281).

    g_{t+1} = decay * g_t + gradient / mean |gradient|; the step follows g where PGD follows the
    gradient. With `nesterov` the gradient is taken at x_t - step * eps * decay * steepest(g_t),
    where the memory alone would lead (1908.06281, equation 6, with the step's own geometry). Those
    places are answers like any other, and the best of them is returned.

    Differs from the papers as PGD does, and in the norm that scales the gradients: the mean
    absolute value is their L1 norm up to a constant, which does not affect `steepest`.

    Attributes:
        decay: The share of the memory that each step keeps.
        nesterov: Whether to look ahead.
    """

    random_start: bool = False
    decay: NonNegative = 1.0
    nesterov: bool = False

    def begin(self, search: Search, walks: Walks[None]) -> _Memory:
        """Starts at random in the space or at the input, with nothing remembered."""
        self.start(search, walks)
        return _Memory(torch.zeros_like(walks.x), walks.x if self.nesterov else None)

    def advance(
        self, search: Search, walks: Walks[_Memory], loss: Tensor, gradient: Tensor
    ) -> Tensor:
        """A step of fixed size down the memory, projected."""
        own = walks.own
        scale = gradient.abs().flatten(1).mean(1).clamp(min=torch.finfo(gradient.dtype).tiny)
        own.memory = self.decay * own.memory + gradient / walks.wide(scale)
        if own.base is None:
            return self.stepped(search, walks, own.memory)
        space, length = search.space, self.step * search.space.eps
        direction = space.steepest(own.memory)
        own.base = space.project(walks.given, own.base - length * direction)
        return space.project(walks.given, own.base - length * self.decay * direction)
