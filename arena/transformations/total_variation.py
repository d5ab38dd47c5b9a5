"""Total variation minimisation: rebuilds an image from a random part of its pixels."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from arena import chance
from arena.fields import Count, NonNegative, Share
from arena.transformations.transformation import Transformation, check_images

_L2 = 8.0  # bounds the squared norm of the difference operator in two dimensions
_RATIO = 30.0  # primal step over dual step: z is of order 1, its dual of order `weight`


@dataclass(frozen=True)
class TotalVariation(Transformation):
    """The simplest image that explains a random part of the pixels: Guo et al. 2018 (1711.00117).

    The paper's "total variance minimization". Each value x_i is kept (m_i = 1) or dropped (m_i = 0)
    at random, independently of the others, and z minimises

        sum_i m_i (z_i - x_i)^2 / 2 + weight * TV(z),

    where TV is the sum of the absolute differences of neighbors in a row or a column, within each
    channel. The search takes `steps` steps of the primal-dual algorithm of Chambolle & Pock (2011),
    algorithm 1. Dropped values start at the mean of the kept ones. Each step is differentiable, so
    gradients flow.

    Deviations from the paper, in the norms: its fidelity is not squared, and its TV sums the L2
    norms of whole rows of differences. Every iterate is clipped to the box, which does not move the
    minimum.

    Attributes:
        weight: Weight of the variation, in units of the inputs.
        keep: Probability that a value is kept.
        steps: Steps of the minimisation; each passes over the image about fifteen times.
        box: Lowest and highest input value.

    Raises:
        ValueError: When called on inputs that are not images.
    """

    random: ClassVar[bool] = True

    weight: NonNegative = 0.03
    keep: Share = 0.5
    steps: Count = 30
    box: tuple[float, float] = (0.0, 1.0)

    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        """The reconstructed images [B, ..., H, W]."""
        check_images(x, "TotalVariation")
        kept = (chance.uniform(key, x.shape[1:]) < self.keep).float()
        mean = (kept * x).sum((-2, -1), keepdim=True) / kept.sum((-2, -1), keepdim=True).clamp(1)
        primal, dual = (_RATIO / _L2) ** 0.5, 1 / (_RATIO * _L2) ** 0.5
        pull = primal * kept / (1 + primal * kept)
        z = leading = torch.where(kept > 0, x, mean)
        down, along = torch.zeros_like(x[..., 1:, :]), torch.zeros_like(x[..., 1:])
        for _ in range(self.steps):
            down = (down + dual * leading.diff(dim=-2)).clamp(-self.weight, self.weight)
            along = (along + dual * leading.diff(dim=-1)).clamp(-self.weight, self.weight)
            moved = z + primal * (_divergence(down, -2) + _divergence(along, -1))
            before, z = z, (moved + pull * (x - moved)).clamp(*self.box)
            leading = 2 * z - before
        return z


def _divergence(flow: Tensor, axis: int) -> Tensor:
    """Minus the transpose of `diff` along an axis; nothing flows across the ends."""
    ends = (0, 0, 1, 1) if axis == -2 else (1, 1)
    return pad(flow, ends).diff(dim=axis)
