"""The Square Attack: random search over windows, guided by scores."""

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from arena import chance
from arena.actions.lp import L1, L2, Linf
from arena.attacks.engines.scored import Scored, ScoreSearch
from arena.attacks.engines.spaces import serving
from arena.core import Player
from arena.fields import Count, Share

HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the search after each of which the paper halves the window's area (section 5)."""

OVERSHOOT = 8.0
"""Length of the bumps proposed in L1, in units of the room in the ball.

The projection makes them sparse by what it takes off. The published code has the number of
channels here, which on gray images takes off nothing.
"""

FILL = 4.0
"""Length of the displacements proposed in L2 before the projection, in units of eps.

The box cuts half of every bump where an input lies at its side, as most of a digit's pixels do.
From this far, the projection moves pixels that have room farther instead, up to `FILL` times their
share. The published code only cuts, and so moves by less than eps.
"""


@dataclass(frozen=True)
class Square(ScoreSearch):
    """Andriushchenko et al. 2020 (1912.00049): Algorithm 1, with Algorithm 2 (L-inf) or 3 (L2, L1).

    Random search. In L-inf a window of the displacement is set to plus or minus eps. In L2 the
    length of two windows moves into one of them, and likewise in L1 (Croce & Hein 2021,
    2103.01208). A step is kept if it lowers the cost of the answer or, at equal cost, the surrogate
    of the scores.

    The last two axes are the plane of the windows and those before them are channels; features [B,
    D] are a plane of height 1. A window that would be higher than the plane is wider instead.

    Differs from the paper: the given input is asked about first; the objective is the player's
    cost, where the paper has the margin; windows reach the last row and column, which the published
    code never does after the stripes; an L-inf draw that would change nothing is turned around; the
    first bumps of L2 and L1 tile all of the plane; in L1 bumps are proposed beyond the ball by
    `OVERSHOOT`, and in L2 whole displacements by `FILL`. Takes at most `steps + 1` queries per
    example.

    Attributes:
        steps: Displacements tried, the starting one included.
        p_init: Share of the plane that the first window covers; halved as in the paper, with its
            schedule for 10 000 steps.
        rescale: Whether to scale that schedule to `steps` (not to the budget: an attacker with
            fewer queries sees the first part of the same search). None: yes in L-inf and L1, where
            small windows soon find more; no in L2, where large windows were measured to find more
            for longer, with 500 to 5000 steps.
    """

    steps: Count = 499
    p_init: Share = 0.8
    rescale: bool | None = None

    spaces: ClassVar[tuple[type[Linf] | type[L2] | type[L1], ...]] = (Linf, L2, L1)

    def run(self, search: Scored, player: Player) -> None:
        """Offers the start, then one move of the held input per step."""
        space, given = serving(player, "Square", self.spaces), search.given
        moves = _Squares(space, given) if isinstance(space, Linf) else _Bumps(space, given)
        rescale = not isinstance(space, L2) if self.rescale is None else self.rescale
        whole = self.steps if rescale else 10_000
        for step, on in search.steps(self.steps):
            key = chance.fold(search.keys[on], step)
            if step == 0:
                # The start is taken even if it is worse than the input: it is on the ball's rim.
                search.offer(on, moves.start(on, key), always=True)
            else:
                p = self.p_init / 2 ** bisect_left(HALVINGS, step / whole)
                search.offer(on, moves.move(on, search.x[on], key, p))


class _Squares:
    """Algorithm 2: every value of `given` [B, C, H, W] is at an end of its own interval."""

    def __init__(self, space: Linf, given: Tensor) -> None:
        up, down = given + space.eps, given - space.eps
        self.ends = space.project(given, up), space.project(given, down)

    def start(self, at: Tensor, key: Tensor) -> Tensor:
        """Vertical stripes, a sign for each column and channel."""
        up, down = self.ends
        return torch.where(_heads(key, (up.shape[1], 1, up.shape[3])), up[at], down[at])

    def move(self, at: Tensor, best: Tensor, key: Tensor, p: float) -> Tensor:
        """A window of a share `p` of the plane, a sign for each channel."""
        c = best.shape[1]
        draw = chance.uniform(key, (2 + c,))
        inside, _ = _window(draw[:, :2], best, p, least=1)
        channel = torch.arange(c, device=key.device)[:, None]
        # Only the window is read and written: most windows are a few pixels.
        up, down = (end.flatten(2)[at[:, None, None], channel, inside] for end in self.ends)
        heads = draw[:, 2:, None] < 0.5
        inside = inside.expand(-1, c, -1)
        drawn = torch.where(heads, up, down)
        idle = (drawn == best.flatten(2).gather(2, inside)).flatten(1).all(1)[:, None, None]
        drawn = torch.where(idle, torch.where(heads, down, up), drawn)
        return best.flatten(2).scatter(2, inside, drawn).reshape(best.shape)


class _Bumps:
    """Algorithm 3: `given` [B, C, H, W] is displaced by eps, more and more of it in a few bumps.

    In L1 lengths are sums, and bumps are proposed `OVERSHOOT` times as long as they may be, because
    their projection is sparse (2103.01208, section 5).
    """

    def __init__(self, space: L2 | L1, given: Tensor) -> None:
        self.space, self.given = space, given
        sums = isinstance(space, L1)
        self.order, self.bump, self.whole = (1, OVERSHOOT, 1.0) if sums else (2, 1.0, FILL)

    def start(self, at: Tensor, key: Tensor) -> Tensor:
        """Bumps on a grid of (about) five by five cells, a sign for each cell and channel."""
        _, c, height, width = self.given.shape
        h, w = max(height // 5, 1), max(width // 5, 1)
        row = torch.arange(height, device=key.device)
        column = torch.arange(width, device=key.device)
        cells = (math.ceil(height / h), math.ceil(width / w))
        turned = chance.integers(chance.fold(key, 0), 2, cells)[:, row // h][:, :, column // w]
        heads = _heads(chance.fold(key, 1), (c, *cells))[:, :, row // h][:, :, :, column // w]
        bump = _bumps(h, w).to(key.device)[turned, row[:, None] % h, column % w][:, None]
        delta = torch.where(heads, bump, -bump)
        return self._landed(at, self.bump * self.space.eps * _unit(delta, (1, 2, 3), self.order))

    def move(self, at: Tensor, best: Tensor, key: Tensor, p: float) -> Tensor:
        """Adds a bump to one window, which takes over the length of another."""
        c = best.shape[1]
        draw = chance.uniform(key, (5 + c,))
        taker, (h, w) = _window(draw[:, :2], best, p, least=3)
        giver, _ = _window(draw[:, 2:4], best, p, least=3)
        taker, giver = taker.expand(-1, c, -1), giver.expand(-1, c, -1)
        # Where two windows overlap, the taker has the common part.
        delta = (best - self.given[at]).flatten(2)
        kept = delta.gather(2, taker)
        delta.scatter_(2, taker, 0.0)
        lost = delta.gather(2, giver)
        delta.scatter_(2, giver, 0.0)

        both = self._powers(kept) + self._powers(lost)
        left = self.space.eps**self.order - (both + self._powers(delta)).sum(1, keepdim=True)
        length = self.bump * (both + left.clamp(min=0) / c) ** (1 / self.order)
        turned = (draw[:, 4] < 0.5).long()
        bump = _bumps(h, w).to(key.device).flatten(1)[turned][:, None]
        heads = draw[:, 5:, None] < 0.5
        mixed = torch.where(heads, bump, -bump) + _unit(kept, (2,), self.order)
        delta.scatter_(2, taker, length * _unit(mixed, (2,), self.order))
        return self._landed(at, delta.reshape(best.shape))

    def _powers(self, delta: Tensor) -> Tensor:
        """The share of eps ** order that parts [b, C, n] of a displacement take, [b, C, 1]."""
        return (delta.abs() ** self.order).sum(2, keepdim=True)

    def _landed(self, at: Tensor, delta: Tensor) -> Tensor:
        return self.space.project(self.given[at], self.given[at] + self.whole * delta)


def _heads(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Fair coins, bool [B, *shape]."""
    return chance.uniform(key, shape) < 0.5


def _window(draw: Tensor, plane: Tensor, p: float, least: int) -> tuple[Tensor, tuple[int, int]]:
    """A random window on `plane` [B, C, H, W], a square of a share `p` of its area if that fits.

    Returns its pixels [B, 1, h w], row by row, numbered as in the flattened plane, and its size
    h, w. All places at which it fits are equally likely where `draw` [B, 2] is uniform in [0, 1).
    """
    height, width = plane.shape[2:]
    area = p * height * width
    side = max(round(math.sqrt(area)), least)
    h = min(max(side, round(area / width)), height)
    w = min(max(side, round(area / height)), width)
    top, left = draw.unbind(1)
    top, left = (top * (height - h + 1)).long(), (left * (width - w + 1)).long()
    row = top[:, None] + torch.arange(h, device=draw.device)
    column = left[:, None] + torch.arange(w, device=draw.device)
    return (row[:, :, None] * width + column[:, None, :]).flatten(1)[:, None], (h, w)


@cache
def _bumps(h: int, w: int) -> Tensor:
    """The paper's eta, of unit length, [2, h, w]: a positive bump above a negative, or beside."""

    def bump(h: int, w: int) -> Tensor:
        # Equation 2 as a sum over rings: ring m from the center gets 1/(m+1)^2 + 1/(m+2)^2 + ...
        rings = 1 / torch.arange(1, max(h, w) // 2 + 2).square()
        row, column = torch.arange(h) - h // 2, torch.arange(w) - w // 2
        ring = row.abs()[:, None].maximum(column.abs())
        return _unit(rings.flip(0).cumsum(0).flip(0)[ring], (0, 1))

    def pair(h: int, w: int) -> Tensor:
        return _unit(torch.cat([bump(h // 2, w), -bump(h - h // 2, w)]), (0, 1))

    return torch.stack([pair(h, w), pair(w, h).T])


def _unit(v: Tensor, dims: tuple[int, ...], order: int = 2) -> Tensor:
    """`v` over its length along `dims`, Euclidean or a sum; zero where that is zero."""
    length: Tensor = torch.linalg.vector_norm(v, order, dims, keepdim=True)
    return v / length.clamp(min=torch.finfo(v.dtype).tiny)
