"""SPSA: Adam on gradients estimated from simultaneous random signs."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena import chance
from arena.attacks.engines import losses
from arena.attacks.engines.adam import Adam
from arena.attacks.engines.estimated import EstimatedDescent
from arena.classification import Perturbations
from arena.core import Cost
from arena.fields import Count, Positive


@dataclass(frozen=True)
class SPSA(EstimatedDescent):
    """Uesato et al. 2018 (1802.05666), Algorithm 1, with Adam (1412.6980) and projected.

    The objective is the margin of logits between answers that lose and answers that win by the
    player's cost. Differs from the paper: the space may be any ball; probes are clipped to the box;
    the best point is played, not the last. `EstimatedDescent` says which queries are made.

    Attributes:
        steps: Estimates and steps per example.
        pairs: Pairs per estimate (n in the paper, thousands there).
        probe: Distance of the probes in every coordinate (delta), as a share of the box's width.
        step: Adam's step size (alpha), as a share of the box's width.
    """

    steps: Count = 19
    pairs: Count = 12
    probe: Positive = 0.01
    step: Positive = 0.03

    moments: ClassVar[int] = 2

    def guide(self, cost: Cost, scores: Tensor, y: Tensor, classes: int) -> Tensor:
        """The margin, [n]: the same of logits and of their log-softmax."""
        prices = losses.prices(cost, y, scores.shape[1], classes)
        return losses.margin(scores, losses.winning(prices))

    def directions(self, key: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Rademacher: every entry is plus or minus one."""
        return (chance.uniform(key, shape) < 0.5).float() * 2 - 1

    def stepped(
        self, x: Tensor, gradient: Tensor, memory: Tensor, t: int, space: Perturbations
    ) -> tuple[Tensor, Tensor]:
        """Adam's step; the memory is its two means."""
        low, high = space.box
        count = torch.tensor([t], device=x.device)
        direction = Adam(memory[0], memory[1]).direction(gradient, count)  # changes the memory
        return x - self.step * (high - low) * direction, memory
