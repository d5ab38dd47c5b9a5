"""The Square Attack: random search over windows, guided by scores."""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena import chance
from arena.actions.lp import L2, Linf
from arena.attacks.descent import require_perturbations
from arena.core import Player, Strategy, Turn, decide
from arena.fields import Count, Share
from arena.knowledge import INVALID, REFUSED, ScoreView, View

HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the search after each of which the paper halves the window's area (section 5)."""


@dataclass(frozen=True)
class Square(Strategy):
    """Andriushchenko et al. 2020 (1912.00049): Algorithm 1, with Algorithm 2 (L-inf) or 3 (L2).

    Random search. In L-inf a window of the displacement is set to plus or minus eps; in L2 the
    length that two windows have moves into one. What lowers the cost of the answer, or at equal
    cost the surrogate of the scores, stays. An example leaves when no answer would cost less, or
    when its budget is spent. Law: no output is answered at a higher cost than its given input.

    The last two axes are the plane of the windows and those before them are channels; features
    [B, D] are a plane of height 1. A window that would be higher than the plane is wider instead.

    Differs from the paper: the given input is asked about first; the objective is the player's cost
    where the paper has the margin; windows reach the last row and column, which the published code
    never does after the stripes; an L-inf draw that would change nothing is turned around; the
    first bumps of L2 tile all of the plane. At most `steps + 1` queries an example.

    Attributes:
        steps: Displacements tried, the starting one included.
        p_init: Share of the plane that the first window covers; halved as in the paper, with its
            schedule for 10 000 steps scaled to `steps` (not to the budget: whoever has fewer
            queries sees the first part of the same search).
    """

    steps: Count = 1000
    p_init: Share = 0.8

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": ScoreView}

    def check(self, player: Player) -> None:
        """Raises ValueError if the space is no L-inf or L2 ball, or the cost has no surrogate."""
        _space(player)

    def respond(self, turn: Turn) -> Tensor:
        """The best inputs found, [B, ...]."""
        view = turn.see("defender", ScoreView)
        return turn.each_batch(lambda rows: self._search(turn, view, rows))

    def _search(self, turn: Turn, view: ScoreView, rows: Tensor) -> Tensor:
        player, classes = turn.player, turn.data.classes
        y, keys = turn.data.y[rows], turn.keys[rows]
        x = turn.data.x[rows]
        height, width = (1, 1, *x.shape[1:])[-2:]
        given = x.reshape(len(x), -1, height, width)

        def ask(at: Tensor, x: Tensor) -> tuple[Tensor, Tensor, int]:
            """Cost and surrogate [b] for the examples `at`, and how many answers there are."""
            scores = view.scores(x.reshape(-1, *turn.data.shape), rows[at])
            label = decide(scores, classes)
            lost = label == INVALID  # no mistake, and no guide
            cost = player.cost.answered(torch.where(lost, y[at], label), y[at])
            guide = player.cost.surrogate(scores, y[at], classes)
            guide = torch.where(lost | guide.isnan(), float("inf"), guide)
            return cost, guide, scores.shape[1]

        on = (view.remaining(rows) > 0).nonzero().flatten()
        if len(on) == 0:
            return x
        best, space = given.clone(), _space(player)
        moves = _Squares(space, given) if isinstance(space, Linf) else _Bumps(space, given)
        cost, guide = torch.full((2, len(x)), float("inf"), device=x.device)
        cost[on], guide[on], answers = ask(on, given[on])
        honest_cost, honest_guide = cost.clone(), guide.clone()
        options = [*range(classes), *[REFUSED] * (answers > classes)]
        prices = [player.cost.answered(torch.full_like(y, label), y) for label in options]
        floor = torch.stack(prices).amin(0)

        for step in range(self.steps):
            on = on[(cost[on] > floor[on]) & (view.remaining(rows[on]) > 0)]
            if len(on) == 0:
                break
            key = chance.fold(keys[on], step)
            if step == 0:
                x = moves.start(on, key)
            else:
                p = self.p_init / 2 ** bisect_left(HALVINGS, step / self.steps)
                x = moves.move(on, best[on], key, p)
            new_cost, new_guide, _ = ask(on, x)
            better = (new_cost < cost[on]) | ((new_cost == cost[on]) & (new_guide < guide[on]))
            # The start is taken as it is: perhaps worse than the input, but on the ball's rim.
            better |= step == 0
            won = on[better]
            best[won], cost[won], guide[won] = x[better], new_cost[better], new_guide[better]
        worse = (honest_cost < cost) | ((honest_cost == cost) & (honest_guide < guide))
        return torch.where(worse[:, None, None, None], given, best).reshape(-1, *turn.data.shape)


class _Squares:
    """Algorithm 2: every value of `given` [B, C, H, W] is at an end of its own interval."""

    def __init__(self, space: Linf, given: Tensor) -> None:
        self.up = space.project(given, given + space.eps)
        self.down = space.project(given, given - space.eps)

    def start(self, at: Tensor, key: Tensor) -> Tensor:
        """Vertical stripes, a sign for each column and channel."""
        _, c, _, w = self.up.shape
        return torch.where(_heads(key, (c, 1, w)), self.up[at], self.down[at])

    def move(self, at: Tensor, best: Tensor, key: Tensor, p: float) -> Tensor:
        """A window of a share `p` of the plane, a sign for each channel."""
        row, column, (h, w) = _window(chance.fold(key, 0), best, p, least=1)
        inside = _inside(row, column, h, w)
        heads = _heads(chance.fold(key, 1), (best.shape[1], 1, 1))
        x = torch.where(inside, torch.where(heads, self.up[at], self.down[at]), best)
        idle = (x == best).flatten(1).all(1)[:, None, None, None]
        return torch.where(inside, torch.where(heads ^ idle, self.up[at], self.down[at]), best)


class _Bumps:
    """Algorithm 3: `given` [B, C, H, W] is displaced by eps, more and more of it in a few bumps."""

    def __init__(self, space: L2, given: Tensor) -> None:
        self.space, self.given = space, given

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
        return self._landed(at, self.space.eps * _unit(delta, (1, 2, 3)))

    def move(self, at: Tensor, best: Tensor, key: Tensor, p: float) -> Tensor:
        """A bump is added to one window, which takes over the length of another."""
        row, column, (h, w) = _window(chance.fold(key, 0), best, p, least=3)
        taker = _inside(row, column, h, w)
        giver = _inside(*_window(chance.fold(key, 1), best, p, least=3)[:2], h, w)
        turned = chance.integers(chance.fold(key, 2), 2)[:, None, None]
        row, column = row.clamp(0, h - 1)[:, :, None], column.clamp(0, w - 1)[:, None, :]
        bump = _bumps(h, w).to(key.device)[turned, row, column][:, None] * taker
        heads = _heads(chance.fold(key, 3), (best.shape[1], 1, 1))

        delta = best - self.given[at]
        unused = (self.space.eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp(min=0)
        both = (delta * (taker | giver)).square().sum((2, 3), keepdim=True)
        length = (both + unused / best.shape[1]).sqrt()
        mixed = torch.where(heads, bump, -bump) + _unit(delta * taker, (2, 3))
        delta = torch.where(taker, length * _unit(mixed, (2, 3)), delta * ~giver)
        return self._landed(at, delta)

    def _landed(self, at: Tensor, delta: Tensor) -> Tensor:
        return self.space.project(self.given[at], self.given[at] + delta)


def _space(player: Player) -> Linf | L2:
    """The player's space; ValueError if there are no moves for it, or the cost has no surrogate."""
    space = require_perturbations(player, "Square")
    if not isinstance(space, Linf | L2):
        raise ValueError(f"Square moves in L-inf and L2 balls, not {space}; use actions=linf or l2")
    return space


def _heads(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Fair coins, bool [B, *shape]."""
    return chance.uniform(key, shape) < 0.5


def _window(
    key: Tensor, plane: Tensor, p: float, least: int
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """A random window on `plane` [B, C, H, W], a square of a share `p` of its area if that fits.

    Returns every row's [B, H] and column's [B, W] place in the window (negative or beyond its size
    if outside), and the window's size. All places at which it fits are equally likely.
    """
    height, width = plane.shape[2:]
    area = p * height * width
    side = max(round(math.sqrt(area)), least)
    h = min(max(side, round(area / width)), height)
    w = min(max(side, round(area / height)), width)
    top = chance.integers(chance.fold(key, 0), height - h + 1)
    left = chance.integers(chance.fold(key, 1), width - w + 1)
    row = torch.arange(height, device=key.device) - top[:, None]
    column = torch.arange(width, device=key.device) - left[:, None]
    return row, column, (h, w)


def _inside(row: Tensor, column: Tensor, h: int, w: int) -> Tensor:
    """Which pixels are in the window, bool [B, 1, H, W]."""
    row, column = (row >= 0) & (row < h), (column >= 0) & (column < w)
    return row[:, None, :, None] & column[:, None, None, :]


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


def _unit(v: Tensor, dims: tuple[int, ...]) -> Tensor:
    """`v` over its Euclidean length along `dims`; zero where that is zero."""
    return v / v.square().sum(dims, keepdim=True).sqrt().clamp(min=torch.finfo(v.dtype).tiny)
