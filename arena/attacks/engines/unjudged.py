"""Projected steps down a gradient, where only the last place counts."""

from collections.abc import Callable

import torch
from torch import Tensor

from arena.classification import Perturbations
from arena.core import Turn
from arena.knowledge import WhiteBox


def last_of(
    steps: int,
    length: float,
    x: Tensor,
    rows: Tensor,
    turn: Turn,
    view: WhiteBox,
    space: Perturbations,
    away_from: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The inputs [b, ...] after `steps` projected steps, whatever lies on the way.

    The engine of the descents (`Search`) looks at every answer, keeps the best place, lets walks
    leave, and looks once more at where the last step leads. Here nothing is judged, which takes
    `steps` passes and as many gradients. That is what a training needs in its inner loop, and all
    that a single step needs.

    Args:
        steps: The number of steps.
        length: The length of a step, as a share of the space's eps.
        x: Where to begin, [b, ...].
        rows: The examples that `x` belongs to, as row numbers of the turn's data, [b].
        turn: The player's turn; the surrogate of its cost is descended.
        view: The model to descend on.
        space: The player's space, in which every step ends.
        away_from: Maps the logits [b, K] at a place to the classes [b] that the step leads away
            from; None leads away from the true classes.
    """
    given = turn.data[rows]
    project = space.projection(given.x)
    for _ in range(steps):
        x = x.detach().requires_grad_()
        logits = view.logits(x, rows)
        y = given.y if away_from is None else away_from(logits.detach())
        loss = turn.player.cost.surrogate(logits, y, given.classes)
        (gradient,) = torch.autograd.grad(loss.sum(), x)
        direction = space.steepest(gradient.nan_to_num(0.0, 0.0, 0.0))
        x = project(torch.add(x.detach(), direction, alpha=-length * space.eps))
    return x
