"""How much a loss weighs against a distance, found for each walk by binary search."""

import torch
from torch import Tensor

from arena.attacks.engines.descent import Walks

_RAISE, _LOWER = 10.0, 4.0  # factors between weights while all searches failed, or all succeeded


def open_search(walks: Walks, weight: float) -> None:
    """Gives new walks a weight `c` and its bracket: the largest that failed, the least that won.

    `won` is whether this search has found a mistake, which is the method's to say.
    """
    none = torch.zeros_like(walks.t, dtype=walks.x.dtype)
    walks.own |= {
        "c": none + weight,
        "failed": none,
        "succeeded": none + torch.inf,
        "won": torch.zeros_like(walks.t, dtype=torch.bool),
    }


def close_search(walks: Walks, inner: int) -> Tensor:
    """Gives walks whose search of `inner` steps is over, bool [L] as returned, the next weight.

    The least weight that leads to a mistake leads to the nearest (Carlini & Wagner 2017,
    1608.04644, section V.A). The papers begin with a tiny one, raise it by factors of 10 and halve
    the bracket. Here the first weight may be lowered by factors too, and the bracket is halved on a
    scale of logarithms, so that few searches serve logits of any scale.
    """
    own = walks.own
    over = (walks.t + 1) % inner == 0
    lost, won = over & ~own["won"], over & own["won"]
    own["failed"] = failed = torch.where(lost, own["c"], own["failed"])
    own["succeeded"] = succeeded = torch.where(won, own["c"], own["succeeded"])
    lower = torch.where(failed > 0, (failed * succeeded).sqrt(), own["c"] / _LOWER)
    weight = torch.where(succeeded.isinf(), own["c"] * _RAISE, lower)
    own["c"] = torch.where(over, weight, own["c"])
    own["won"] = own["won"] & ~over
    return over
