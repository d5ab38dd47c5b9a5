"""SimBA: one basis vector at a time, forwards or backwards, guided by scores."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from arena import chance
from arena.actions.lp import L2, Linf
from arena.attacks.engines.scored import Scored, ScoreSearch
from arena.attacks.engines.spaces import serving
from arena.attacks.engines.walks import wide
from arena.core import Player
from arena.fields import Count, Positive


@dataclass(frozen=True)
class SimBA(ScoreSearch):
    """Guo et al. 2019 (1905.07121), Algorithm 1, played inside a ball.

    Basis vectors are drawn without replacement. Each is added. If that lowers neither the cost of
    the answer nor, at equal cost, the surrogate of the scores, it is subtracted instead. If that
    does not help either, the input stays where it is.

    A vector of the pixel basis is one entry of the input. A vector of the DCT basis is a
    two-dimensional cosine on the plane of one channel (the plane as in `Scored`; features are a
    plane of height 1). Pixels come in random order. Cosines come in random order within eighths of
    the frequencies, low ones first, as in the published code for large images.

    Differs from the paper, which knows no ball: each proposal is projected onto it; a vector is
    `step` long in the space's own size, so that in L-inf its peak is; the objective is the player's
    cost, where the paper has the probability of the true class; when all vectors have been drawn,
    they come again in the same order. Takes at most `steps + 1` queries per example.

    Attributes:
        steps: Queries per example, one or two for each vector; one more asks about the given input.
        step: Length of a vector (epsilon in the paper), as a share of the space's eps.
        basis: Which basis the vectors are of.
    """

    steps: Count = 499
    step: Positive = 0.2
    basis: Literal["pixel", "dct"] = "pixel"

    spaces: ClassVar[tuple[type[Linf] | type[L2], ...]] = (Linf, L2)

    def run(self, search: Scored, player: Player) -> None:
        """Offers a vector at each step, forwards or backwards."""
        space, vectors = serving(player, "SimBA", self.spaces), _Basis(self.basis, search.given)
        order = vectors.order(search.keys)
        drawn, sign = torch.zeros_like(search.rows), torch.ones_like(search.cost)
        for _, on in search.steps(self.steps):
            q = vectors.at(order[on, drawn[on] % order.shape[1]])
            unit = q / wide(space.size(torch.zeros_like(q), q), q)
            length = wide(self.step * space.eps * sign[on], q)
            x = space.project(search.given[on], search.x[on] + length * unit)
            done = search.offer(on, x) | (sign[on] < 0)
            drawn[on] += done.long()
            sign[on] = torch.where(done, 1.0, -1.0)


class _Basis:
    """An orthonormal basis of each channel's plane: outer products of the rows of two matrices."""

    def __init__(self, kind: str, like: Tensor) -> None:
        _, self.channels, self.height, self.width = like.shape
        make = torch.eye if kind == "pixel" else cosines
        self.down, self.along = make(self.height).to(like), make(self.width).to(like)
        # Pixels are all in one block.
        self.blocks = 1 if kind == "pixel" else 8

    def order(self, keys: Tensor) -> Tensor:
        """The numbers of all vectors in the order in which each example [B] draws them, [B, n]."""
        row = torch.arange(self.height, device=keys.device) / self.height
        column = torch.arange(self.width, device=keys.device) / self.width
        frequency = row[:, None].maximum(column).expand(self.channels, -1, -1).flatten()
        block = (frequency * self.blocks).floor()
        return (block + chance.uniform(keys, block.shape)).argsort(dim=1, stable=True)

    def at(self, number: Tensor) -> Tensor:
        """The vectors of these numbers [n], as [n, C, H, W]."""
        plane = self.height * self.width
        channel, place = number // plane, number % plane
        q = self.down[place // self.width, :, None] * self.along[place % self.width, None, :]
        chosen = channel[:, None] == torch.arange(self.channels, device=number.device)
        return chosen[:, :, None, None] * q[:, None]


def cosines(n: int) -> Tensor:
    """The orthonormal DCT-II matrix [n, n]: row k is a cosine of frequency k."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi * k * (2 * i + 1) / (2 * n)) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows
