"""Carlini & Wagner: distance and loss in one objective, over a variable that keeps to the box."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.actions.lp import L2
from arena.attacks.engines import tradeoff
from arena.attacks.engines.descent import Search, Walks
from arena.attacks.engines.minimum_norm import MinimumNorm
from arena.core import Player
from arena.fields import Count, Positive

_END = 0.5  # the tanh at the ends of the box
_DECAY, _DECAY_SQUARES = 0.9, 0.999  # Adam's


@dataclass(frozen=True)
class CarliniWagner(MinimumNorm):
    """Carlini & Wagner 2017 (1608.04644), section VI.A: their L2 attack; for L2 spaces.

    Minimises |x - x0|_2^2 + c * max(margin, 0) (their f_6, kappa = 0) with Adam over w, where x is
    tanh(w), stretched from [-0.5, 0.5] to the box; c is found by binary search (see `tradeoff`),
    each search from the input. The gradient over w is the engine's, over x, times the slope.

    Differs from the paper in the stretch. Theirs is from [-1, 1], where a value at an end of the
    box has an infinite w and no slope: it never moves, and black is most of a digit. Here the ends
    are finite, with three quarters of the middle's slope; beyond them x is cut to the box and keeps
    that slope, so that a value may come back. And Adam's step falls linearly within each search,
    since a steady one leaps to and fro over the margin's zero.
    `steps` gradients and `steps + 1` passes in all.

    Attributes:
        searches: Values of c to try, `steps / searches` steps each.
        weight: The first c.
        lr: Adam's first step size of a search, in units of w.
    """

    steps: Count = 500
    searches: Count = 5
    weight: Positive = 1.0
    lr: Positive = 0.1

    def check(self, player: Player) -> None:
        """Raises ValueError if the space is not L2, or the cost has no surrogate."""
        super().check(player)
        if not isinstance(player.actions, L2):
            raise ValueError(
                f"CarliniWagner measures in L2, not in {player.actions}; use actions=l2, or "
                "strategy=carlini_wagner_linf or carlini_wagner_l0"
            )

    def begin(self, search: Search, walks: Walks) -> None:
        """At the input."""
        tradeoff.open_search(walks, self.weight)
        open_descent(search, walks)

    def advance(self, search: Search, walks: Walks, loss: Tensor, gradient: Tensor) -> Tensor:
        """A step of Adam, or the start of the next search."""
        inner = -(-self.steps // self.searches)
        walks.own["won"] |= loss < 0
        slope = (walks.x - walks.given).mul_(2)
        slope.addcmul_(gradient, walks.wide(walks.own["c"] * (loss > 0)))
        moved = descended(search, walks, slope, self.lr * (1 - walks.t % inner / inner))
        over = tradeoff.close_search(walks, inner)
        if over.device.type == "cpu" and not bool(over.any()):  # elsewhere asking costs more
            return moved
        return restarted(search, walks, over, walks.given, moved)


def open_descent(search: Search, walks: Walks) -> None:
    """The state of a descent over w from where walks are: w, Adam's two means and its count."""
    w = variable(walks.x, search.space.box)
    walks.own |= {
        "w": w,
        "mean": torch.zeros_like(w),
        "square": torch.zeros_like(w),
        "count": torch.zeros_like(walks.t),
    }


def restarted(search: Search, walks: Walks, over: Tensor, at: Tensor, moved: Tensor) -> Tensor:
    """`moved`, but where `over` [L] is true a new descent from `at`."""
    own, wide = walks.own, walks.wide(over)
    own["w"] = torch.where(wide, variable(at, search.space.box), own["w"])
    own["count"] = own["count"].masked_fill(over, 0)
    for name in ("mean", "square"):
        own[name] = own[name].masked_fill(wide, 0.0)
    return torch.where(wide, at, moved)


def descended(search: Search, walks: Walks, slope: Tensor, lr: float | Tensor) -> Tensor:
    """The inputs x after a step of Adam (Kingma & Ba 2015, 1412.6980) over w; `slope` is over x.

    The step size `lr` is a number, or [L]. Of dx/dw the constant factor is left out, which Adam
    does not see.
    """
    own = walks.own
    own["count"] = count = own["count"] + 1
    slope = slope * (1 - tanh_of(walks.x, search.space.box).square_())
    mean = own["mean"].lerp_(slope, 1 - _DECAY)
    square = own["square"].mul_(_DECAY_SQUARES).addcmul_(slope, slope, value=1 - _DECAY_SQUARES)
    step = lr * (1 - _DECAY_SQUARES**count).sqrt() / (1 - _DECAY**count)
    own["w"].addcdiv_(mean * walks.wide(-step), square.sqrt().add_(1e-8))
    return place(own["w"], search.space.box)


def place(w: Tensor, box: tuple[float, float]) -> Tensor:
    """The inputs x of variables w."""
    low, high = box
    middle, half = (low + high) / 2, (high - low) / 2
    return w.tanh().mul_(half / _END).add_(middle).clamp_(low, high)


def variable(x: Tensor, box: tuple[float, float]) -> Tensor:
    """The variables w of inputs x."""
    # In float32 the last bit of atanh depends on where in a batch a value stands.
    return tanh_of(x.double(), box).atanh().to(x.dtype)


def tanh_of(x: Tensor, box: tuple[float, float]) -> Tensor:
    """The tanh [-0.5, 0.5] whose stretch inputs x are."""
    low, high = box
    middle, half = (low + high) / 2, (high - low) / 2
    return (x - middle).mul_(_END / half)
