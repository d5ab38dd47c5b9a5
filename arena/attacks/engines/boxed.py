"""Descent by Adam over a variable that stands for inputs in a box."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.attacks.engines.adam import Adam
from arena.attacks.engines.walks import PerWalk, wide

_END = 0.5  # the tanh at the ends of the box


@dataclass
class Boxed(PerWalk):
    """A descent over w, where the inputs x are tanh(w), stretched from [-0.5, 0.5] to the box.

    Carlini & Wagner 2017 (1608.04644), section V.B, stretch from [-1, 1]: a value at an end of the
    box then has an infinite w and no slope. It never moves, and black is most of a digit. Here the
    ends are finite, with three quarters of the middle's slope. Beyond the ends x is cut to the box
    and keeps that slope, so that a value may come back.

    Attributes:
        w: The variables, [L, ...].
        adam: The means of the gradients over w.
        count: Steps since the descent began, [L].
    """

    w: Tensor
    adam: Adam
    count: Tensor

    @classmethod
    def at(cls, x: Tensor, box: tuple[float, float]) -> "Boxed":
        """New descents from inputs `x` [L, ...]."""
        w = variable(x, box)
        count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return cls(w, Adam.at(w), count)

    def step(
        self, x: Tensor, slope: Tensor, lr: float | Tensor, box: tuple[float, float]
    ) -> Tensor:
        """The inputs [L, ...] after a step of Adam over w.

        Args:
            x: Where walks are, [L, ...].
            slope: The gradient over x, [L, ...]. Of dx/dw the constant factor is left out, which
                Adam does not see.
            lr: The step size, a number or [L].
            box: The lowest and the highest value of an input.
        """
        self.count = self.count + 1
        slope = slope * (1 - tanh_of(x, box).square_())
        direction = self.adam.direction(slope, self.count)
        self.w.sub_(direction.mul_(wide(lr, x) if isinstance(lr, Tensor) else lr))
        return place(self.w, box)

    def restart(self, over: Tensor, x: Tensor, moved: Tensor, box: tuple[float, float]) -> Tensor:
        """`moved` [L, ...], except that where `over` [L] is true a new descent begins at `x`."""
        where = wide(over, x)
        self.w = torch.where(where, variable(x, box), self.w)
        self.count = self.count.masked_fill(over, 0)
        self.adam.mean.masked_fill_(where, 0.0)
        self.adam.square.masked_fill_(where, 0.0)
        return torch.where(where, x, moved)


def place(w: Tensor, box: tuple[float, float]) -> Tensor:
    """The inputs x [L, ...] of variables w."""
    low, high = box
    middle, half = (low + high) / 2, (high - low) / 2
    return w.tanh().mul_(half / _END).add_(middle).clamp_(low, high)


def variable(x: Tensor, box: tuple[float, float]) -> Tensor:
    """The variables w [L, ...] of inputs x."""
    # In float32 the last bit of atanh depends on where in a batch a value stands.
    return tanh_of(x.double(), box).atanh().to(x.dtype)


def tanh_of(x: Tensor, box: tuple[float, float]) -> Tensor:
    """The tanh [L, ...], in [-0.5, 0.5], whose stretch inputs x are."""
    low, high = box
    middle, half = (low + high) / 2, (high - low) / 2
    return (x - middle).mul_(_END / half)
