"""Sign-OPT: descent on the distance to the boundary by the sign of its slope, from labels alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from arena import chance
from arena.attacks.engines.boundary_walk import BoundaryWalk, LabelWalks
from arena.attacks.engines.walks import wide
from arena.core import Turn
from arena.fields import Count, Share
from arena.knowledge import LabelView

SHORTEST = 1e-3
"""Length of a turn, as a share of the gap, below which it is given up."""


@dataclass(frozen=True)
class SignOPT(BoundaryWalk["_Turns"]):
    """Cheng et al. 2020 (1909.10773), Algorithm 1, played inside a ball.

    The distance to the boundary depends on the direction in which one looks for it. Begin with the
    direction of a first mistake. Ask in random nearby directions, at the same distance, whether
    there is a mistake: if so, the boundary is nearer there (section 3.1: a sign for a single
    query). Turn towards the mean of those directions, bisect again, and repeat. Distances are in
    the space's own geometry; in L-inf the descent stalls sooner than HopSkipJump does.
    `BoundaryWalk` says what a mistake is, when an example is done and what is played.

    Differs from the paper: the random directions hold low frequencies only, as GeoDA's do
    (2003.06468), without which it is no cheaper on images than HopSkipJump; the mean vote is
    subtracted from the votes, and the box cuts the directions before they are added up, as in
    HopSkipJump; the turn is along the space's steepest step, its length doubled for each estimate
    and halved until there is a mistake at the same distance; the t-th estimate takes sqrt(t) times
    as many queries, but not more than half of those left; the first direction is the first
    mistake's, not the best of many.

    Attributes:
        steps: Estimates and turns per example (T in the paper).
        initial_evals: Queries of the first estimate (Q).
        frequencies: Share of the frequencies, the lowest, of each of an input's last two axes in
            the random directions; 1 for all of them, as in the paper. Features [B, D] have no
            order, so all are taken.
    """

    steps: Count = 200
    initial_evals: Count = 40
    frequencies: Share = 0.5

    def walks(self, turn: Turn, view: LabelView, rows: Tensor) -> "_Turns":
        """Walks that turn along the chosen frequencies."""
        return _Turns(turn, view, rows, self.frequencies)

    def step(self, walks: "_Turns", on: Tensor, t: int) -> Tensor:
        """An estimate, a turn along it, and a bisection from there."""
        slope = walks.slope(on, int(self.initial_evals * math.sqrt(t)), t)
        moved, stuck = walks.turn(on, slope)
        return torch.cat([stuck, walks.bisect(moved)])


class _Turns(LabelWalks):
    """Walks that turn. `length` [b] is that of the last turn, in gaps."""

    def __init__(self, turn: Turn, view: LabelView, rows: Tensor, frequencies: float) -> None:
        super().__init__(turn, view, rows)
        self.length = torch.full_like(self.gap, 0.2)
        shape, device = self.given.shape[1:], self.given.device
        self.waves = [_waves(n, frequencies, device) for n in shape[-2:]] if len(shape) > 1 else []

    def slope(self, on: Tensor, evals: int, t: int) -> Tensor:
        """The unit steps [len(on), ...] towards where the boundary is nearer.

        Each walk asks about `evals` probes, or half as many as it has queries left.
        """
        point = self.point[on]
        gap = self.space.size(self.given[on], point)

        def probes(owner: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
            noise = self._noise(key)
            offset = wide(gap[owner] / math.sqrt(self.d), noise) * noise
            x = self.shrunk(on[owner], point[owner] + offset, gap[owner])
            return x, x - point[owner]

        voted, drift, mean = self.poll(on, evals, chance.fold(self.keys[on], t), probes)
        # The mean vote is the baseline; where all agree, it would leave nothing.
        mean = torch.where(mean.abs() == 1, 0.0, mean)
        return self.space.steepest(voted - wide(mean, voted) * drift)

    def turn(self, on: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Turns less and less, until that is a mistake: the walks that turned, and the others."""
        gap = self.space.size(self.given[on], self.point[on])
        length = 2 * self.length[on]
        moved = torch.zeros_like(on, dtype=torch.bool)
        todo = torch.arange(len(on), device=on.device)
        while True:
            left = self.view.remaining(self.rows[on[todo]]) > 0
            todo = todo[left & (length[todo] > SHORTEST)]
            if len(todo) == 0:
                break
            at = on[todo]
            far = self.point[at] + wide((length * gap)[todo], step) * step[todo]
            x = self.shrunk(at, far, gap[todo])
            won = self.mistaken(x, at)
            self.arrive(at[won], x[won])
            moved[todo[won]] = True
            todo = todo[~won]
            length[todo] /= 2
        # A walk that was stuck starts with a longer turn again: the next estimate is better.
        self.length[on] = length.clamp(min=10 * SHORTEST)
        return on[moved], on[~moved]

    def _noise(self, key: Tensor) -> Tensor:
        """Random directions [n, ...] of Euclidean length 1, made of `waves`."""
        shape = list(self.given.shape[1:])
        kept = shape[:-2] + [len(waves) for waves in self.waves] if self.waves else shape
        noise = chance.normal(key, kept)
        # Each turn replaces the last axis but one by a new last one; two bring back their order.
        # Added up wave by wave: the last bits of a matrix product depend on the batch size.
        for waves in self.waves:
            parts = noise.movedim(-2, 0)
            noise = parts[0][..., None] * waves[0]
            for part, wave in zip(parts[1:], waves[1:], strict=True):
                noise = noise + part[..., None] * wave
        length = noise.flatten(1).norm(dim=1)
        return noise / wide(length.clamp(min=torch.finfo(length.dtype).tiny), noise)


def _waves(n: int, share: float, device: torch.device) -> Tensor:
    """The lowest waves of the discrete cosine transform (DCT-II) of length n, [k, n], k >= 1."""
    order = torch.arange(max(round(share * n), 1), device=device)[:, None]
    waves = torch.cos(math.pi / n * order * (torch.arange(n, device=device) + 0.5))
    length: Tensor = torch.linalg.vector_norm(waves, dim=1, keepdim=True)
    return waves / length
