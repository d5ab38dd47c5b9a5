"""What exact attacks on linear classifiers share: they read the weights off a white box."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arena.core import Turn
from arena.knowledge import WhiteBox

_TOLERANCE = 1e-4


@dataclass(frozen=True)
class LinearLogits:
    """Logits w x + b in float64: `weight` [K, n] for inputs of n features, `bias` [K]."""

    weight: Tensor
    bias: Tensor

    def logits(self, x: Tensor) -> Tensor:
        """Logits [B, K] of `x` [B, ...]."""
        return x.flatten(1).double() @ self.weight.T + self.bias


def linear(view: WhiteBox, turn: Turn) -> LinearLogits:
    """The weights behind a white box that is linear.

    Takes a pass, and a gradient per class, which are charged to the first example of the turn; and
    one pass per example over the inputs as dealt, to check that the logits are linear.

    Raises:
        ValueError: If the logits are not linear, or have a column for refusals.
    """
    data = turn.data
    row = torch.zeros(1, dtype=torch.int64, device=data.x.device)
    origin = torch.zeros_like(data.x[:1]).requires_grad_()
    logits = view.logits(origin, row)[0]
    if len(logits) != data.classes:
        raise ValueError("the defender refuses by a logit of its own; use defender/actions=label")
    weight = [torch.autograd.grad(logit, origin, retain_graph=True)[0] for logit in logits]
    found = LinearLogits(torch.cat(weight).flatten(1).double(), logits.detach().double())
    for rows in turn.batches():
        x = data.x[rows]
        with torch.no_grad():
            gap = (found.logits(x) - view.logits(x, rows)).abs().amax(1)
        size = (x.flatten(1).double().abs() @ found.weight.abs().T).amax(1) + 1.0
        if bool((gap > _TOLERANCE * size).any()):
            raise ValueError(
                f"{type(turn.player.strategy).__name__} is exact against linear classifiers only, "
                "and the defender's logits are not linear in its inputs; use learner=linear, "
                "naive_bayes or feature_deletion"
            )
    return found
