"""JSMA: in each step, the two features move that most help one answer and hurt the others."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena.actions.lp import L0
from arena.attacks.engines.descent import Search
from arena.attacks.engines.losses import margin
from arena.attacks.engines.minimum_norm import MinimumNorm
from arena.attacks.engines.walks import Walks
from arena.classification import Perturbations
from arena.fields import Count

_FIRST = 32
"""How many features are paired before bounds say which others may matter."""


@dataclass(frozen=True)
class JSMA(MinimumNorm[None]):
    """Papernot et al. 2016 (1511.07528), Algorithms 2 and 3, on logits; for L0 spaces.

    Each step moves the pair of features p, q for which -(a_p + a_q)(b_p + b_q) is largest, among
    those with a_p + a_q > 0 > b_p + b_q. Here a is the gradient of the target's logit, and b that
    of the sum of all others (equation 8; with theta < 0 equation 9, both with their signs turned).
    A feature that has reached the end of the box is out. A walk ends at its first mistake, or when
    no pair is left. The paper's bound on the distortion is `steps`, at most two features each.

    The paper takes one target. An untargeted cost tries the likeliest answers that win, and keeps
    the mistake that changes the fewest features. All pairs are considered, as in the paper, but a
    bound rules most of them out before they are multiplied.

    A step takes two gradients and two passes, see `advance`; `steps + 1` of the passes judge.

    Attributes:
        theta: How far a feature moves, as a share of the box; down if negative.
        targets: How many of the winning answers to try, the likeliest first.
    """

    steps: Count = 57
    theta: float = 1.0
    targets: Count = 1

    spaces: ClassVar[tuple[type[Perturbations], ...]] = (L0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < abs(self.theta) <= 1:
            raise ValueError(f"JSMA.theta = {self.theta} must be between -1 and 1, and not 0")

    def variants(self, search: Search) -> int:
        """One walk per target."""
        return max(min(self.targets, search.options()), 1)

    def begin(self, search: Search, walks: Walks[None]) -> None:
        """Starts at the input, aimed at the target of the walk's number."""
        search.aim(walks, self.targets)

    def loss(self, search: Search, walks: Walks[None], logits: Tensor) -> Tensor:
        """Minus the target's logit, [L]; the same everywhere if no answer wins."""
        if walks.target is None:
            return 0 * logits.sum(1)
        return -logits.gather(1, walks.target[:, None]).squeeze(1)

    def advance(self, search: Search, walks: Walks[None], loss: Tensor, gradient: Tensor) -> Tensor:
        """Moves the most salient pair.

        The engine's pass gives one gradient; a second pass gives that of the sum of all logits.
        """
        x = walks.x.detach().requires_grad_()
        logits = search.view.logits(x, walks.rows)
        (total,) = torch.autograd.grad(logits.sum(), x)
        toward = -gradient.flatten(1)
        other = total.nan_to_num_(0.0, 0.0, 0.0).flatten(1) - toward
        low, high = search.space.box
        here = walks.x.flatten(1)
        if self.theta > 0:
            pair, found = most_salient(toward, -other, here < high)
        else:
            pair, found = most_salient(-toward, other, here > low)
        won = margin(logits.detach(), search.wins(walks.y), walks.target) < 0
        moves = found & ~won
        # The walks of one example leave together, once none of them moves. The engine counts this
        # step, after which they have made all their steps.
        left = loss.new_zeros(len(search.turn.data)).index_add_(0, walks.rows, moves.to(loss.dtype))
        walks.t = torch.where(left[walks.rows] > 0, walks.t, self.steps - 1)
        values = (here.gather(1, pair) + self.theta * (high - low)).clamp(low, high)
        moved = here.scatter(1, pair, values).reshape(walks.x.shape)
        return torch.where(walks.wide(moves), moved, walks.x)


def most_salient(up: Tensor, down: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """The pair p < q of `free` features that maximises (up_p + up_q)(down_p + down_q).

    Both factors have to be positive; all arguments are [L, n]. Returns the pairs [L, 2], the first
    of equal ones, and whether there is one, bool [L].
    """
    up, down = (part.masked_fill(~free, -torch.inf) for part in (up, down))
    # No pair with p is worth more: rounding is monotone, so this holds in floating point too.
    bound = [part + part.amax(1, keepdim=True) for part in (up, down)]
    most = bound[0].clamp(min=0) * bound[1].clamp(min=0)
    n = up.shape[1]
    best, _ = _best_pair(up, down, most.topk(min(_FIRST, n), dim=1).indices)
    width = int((most >= best.clamp(min=torch.finfo(best.dtype).tiny)[:, None]).sum(1).max())
    places = most.topk(min(max(width, 2), n), dim=1).indices.sort(dim=1).values
    best, pair = _best_pair(up, down, places)
    return pair, best > 0


def _best_pair(up: Tensor, down: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """The largest product [L] among `places` [L, k] and its pair [L, 2]; 0 where none is positive.

    Pairs that share their first place are compared at once, so that memory is [L, k].
    """
    a, b = up.gather(1, places), down.gather(1, places)
    best, first = torch.zeros_like(a[:, 0]), torch.zeros_like(places[:, 0])
    second = first.clone()
    for p in range(places.shape[1] - 1):
        both = (a[:, p, None] + a[:, p + 1 :]).clamp(min=0)
        value, q = (both * (b[:, p, None] + b[:, p + 1 :]).clamp(min=0)).max(1)
        better = value > best
        best = torch.where(better, value, best)
        first = torch.where(better, p, first)
        second = torch.where(better, q + p + 1, second)
    return best, places.gather(1, torch.stack([first, second], 1))
