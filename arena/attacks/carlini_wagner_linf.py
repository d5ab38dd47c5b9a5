"""Carlini & Wagner for L-inf: pulls back whatever moves beyond a bound, and lowers the bound."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena.actions.lp import Linf
from arena.attacks.engines.boxed import Boxed
from arena.attacks.engines.descent import Search
from arena.attacks.engines.minimum_norm import MinimumNorm
from arena.attacks.engines.walks import PerWalk, Walks
from arena.classification import Perturbations
from arena.fields import Count, Positive

_FACTOR = 0.9  # what a success lowers the bound to, as a share of the mistake's size


@dataclass
class _Bound(PerWalk):
    """The descent, and what bounds it; all but `descent` are [L].

    Attributes:
        descent: Over the inputs.
        c: What the margin weighs.
        least: The size of the nearest mistake; infinite before the first.
        factor: What a success lowers the bound to, as a share of that size.
        idle: Steps without a nearer mistake.
    """

    descent: Boxed
    c: Tensor
    least: Tensor
    factor: Tensor
    idle: Tensor


@dataclass(frozen=True)
class CarliniWagnerLinf(MinimumNorm[_Bound]):
    """Carlini & Wagner 2017 (1608.04644), section VI.C: their L-inf attack; for L-inf spaces.

    Minimises sum max(|x - x0| - tau, 0) + c * max(margin, 0) with Adam over w as `CarliniWagner`
    does. At a nearer mistake tau becomes 0.9 times its size, and the descent continues from there.

    Differs from the paper, which doubles c on a failure and in the end gives up. Here c is doubled
    until there is a first mistake. Later, after `patience` steps without a nearer mistake, the
    factor becomes its square root, so that less is asked for as it gets harder. The problem for one
    tau is not solved to the end: tau falls at the step that finds the mistake. Adam's step is a
    share of what the last lowering took off tau, so that any size can be resolved.

    Takes `steps` gradients and `steps + 1` passes in all.

    Attributes:
        patience: Steps without a nearer mistake after which c or the factor changes.
        weight: The first c.
        lr: Adam's step size over w, as a share of what the last lowering of tau took off, in box
            widths.
    """

    steps: Count = 500
    patience: Count = 50
    weight: Positive = 1.0
    lr: Positive = 1.0

    spaces: ClassVar[tuple[type[Perturbations], ...]] = (Linf,)
    instead: ClassVar[str] = "strategy=carlini_wagner or carlini_wagner_l0"

    def begin(self, search: Search, walks: Walks[None]) -> _Bound:
        """Starts at the input, with a bound that holds nothing back."""
        none = walks.zeros()
        return _Bound(
            Boxed.at(walks.x, search.space.box),
            c=none + self.weight,
            least=none + torch.inf,
            factor=none + _FACTOR,
            idle=torch.zeros_like(walks.t),
        )

    def advance(
        self, search: Search, walks: Walks[_Bound], loss: Tensor, gradient: Tensor
    ) -> Tensor:
        """A step of Adam, under the bound that the last place allows."""
        own = walks.own
        change = walks.x - walks.given
        size = change.abs()
        farthest = size.flatten(1).amax(1)
        nearer = (loss < 0) & (farthest < own.least)
        own.least = torch.where(nearer, farthest, own.least)
        own.idle = torch.where(nearer, 0, own.idle + 1)
        tired = own.idle >= self.patience
        own.idle = own.idle.masked_fill(tired, 0)
        lost = own.least.isinf()
        own.c = torch.where(tired & lost, 2 * own.c, own.c)
        own.factor = torch.where(tired & ~lost, own.factor.sqrt(), own.factor)
        low, high = search.space.box
        share = (own.least / (high - low)).clamp(max=1)
        tau = share * own.factor * (high - low)
        slope = change.sign() * (size > walks.wide(tau))
        slope += gradient * walks.wide(own.c * (loss > 0))
        lr = self.lr * share * (1 - own.factor)
        return own.descent.step(walks.x, slope, lr, search.space.box)
