"""Sparse-RS: random search over which few features to change."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena import chance
from arena.actions.lp import L0
from arena.attacks.engines.scored import Scored, ScoreSearch
from arena.attacks.engines.spaces import serving
from arena.core import Player
from arena.fields import Count, Share

SCHEDULE = (0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the search after each of which the next divisor holds."""
DIVISORS = (1, 2, 4, 5, 6, 8, 10, 12, 15, 20)
"""What the share of replaced features is divided by (section 4.1 and the published code)."""


@dataclass(frozen=True)
class SparseRS(ScoreSearch):
    """Croce et al. 2022 (2006.12834), Algorithm 1, in its L0 version.

    A set of k = eps features is changed, each to an end of the box. Each step returns some of them
    to their given values and changes as many others instead. The step is kept if it lowers the cost
    of the answer or, at equal cost, the surrogate of the scores. The search starts at a random set.

    Differs from the paper: features are entries of the input, as in the L0 space, where the paper
    changes pixels across all channels; the given input is asked about first; the objective is the
    player's cost, where the paper has the margin; a feature that is given at an end of the box goes
    to the other end, so that every change has an effect; at least one feature is left out of the
    set, so that there is always one to change. Takes at most `steps + 1` queries per example.

    Attributes:
        steps: Sets tried, the first one included.
        alpha_init: Share of the set that is replaced at first. It is divided as in the paper, with
            the schedule for 10 000 steps scaled to `steps`; at least one feature is replaced.
    """

    steps: Count = 499
    alpha_init: Share = 0.3

    spaces: ClassVar[tuple[type[L0], ...]] = (L0,)

    def run(self, search: Scored, player: Player) -> None:
        """Offers a random set, then sets in which features of the held one are exchanged."""
        space, given = serving(player, "SparseRS", self.spaces), search.given.flatten(1)
        n = given.shape[1]
        k = min(space.eps, n - 1)
        if k == 0:
            return
        # The features of each example, those of its set first.
        noise = chance.uniform(chance.fold(search.keys, 0), (n,))
        features = noise.argsort(dim=1, stable=True)
        for step, on in search.steps(self.steps):
            key = chance.fold(search.keys[on], step + 1)
            x = search.x[on].flatten(1)
            if step == 0:
                entering = features[on, :k]
                x.scatter_(1, entering, _ends(key, given[on], entering, space.box))
                search.offer(on, x.reshape(-1, *search.given.shape[1:]), always=True)
                continue
            m = min(self.replaced(step, k), n - k)
            out = _subset(chance.fold(key, 0), k, m)
            into = k + _subset(chance.fold(key, 1), n - k, m)
            leaving, entering = features[on[:, None], out], features[on[:, None], into]
            x.scatter_(1, leaving, given[on[:, None], leaving])
            x.scatter_(1, entering, _ends(chance.fold(key, 2), given[on], entering, space.box))
            better = search.offer(on, x.reshape(-1, *search.given.shape[1:]))
            won = on[better][:, None]
            features[won, out[better]] = entering[better]
            features[won, into[better]] = leaving[better]

    def replaced(self, step: int, k: int) -> int:
        """How many of `k` features the step replaces."""
        divisor = DIVISORS[bisect_left(SCHEDULE, step / self.steps)]
        return max(int(self.alpha_init / divisor * k), 1)


def _ends(key: Tensor, given: Tensor, at: Tensor, box: tuple[float, float]) -> Tensor:
    """An end of the box for each of the features `at` [B, m]: random, but not the given value."""
    low, high = torch.tensor(box, device=given.device)
    value = given.gather(1, at)
    up = (chance.uniform(key, at.shape[1:]) < 0.5) & (value != high)
    return torch.where(up | (value == low), high, low)


def _subset(key: Tensor, n: int, m: int) -> Tensor:
    """Uniformly random subsets of 0 .. n - 1 of size m, [B, m] (Floyd's algorithm)."""
    chosen = torch.empty(len(key), 0, dtype=torch.int64, device=key.device)
    for last in range(n - m, n):
        draw = chance.integers(chance.fold(key, last), last + 1)[:, None]
        taken = (draw == chosen).any(1, keepdim=True)
        chosen = torch.cat([chosen, torch.where(taken, last, draw)], 1)
    return chosen
