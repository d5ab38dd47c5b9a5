"""Projected gradient descent on the attacker's own cost, in its space's own geometry."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena import chance
from arena.attacks.descent import Best, require_perturbations
from arena.core import Player, Strategy, Turn, decide
from arena.fields import Count, Positive
from arena.knowledge import View, WhiteBox


@dataclass(frozen=True)
class PGD(Strategy):
    """Madry et al. 2018 (1706.06083), section 2.1, generalised to any space and cost.

    x_{t+1} = project(x_t - step * eps * steepest(gradient of the cost's surrogate)); for the
    negated error rate in an L-inf ball this is the paper's signed ascent on cross-entropy.
    Differs from the paper in that the best iterate is returned (by the cost of its answer, then by
    the surrogate), not the last. `steps` gradients and `steps + 1` passes per restart.

    Attributes:
        steps: Steps per restart.
        step: Step size, as a share of the space's eps.
        restarts: Starting points.
        random_start: Start at random in the space; else at the input (then give one restart).
    """

    steps: Count = 40
    step: Positive = 0.1
    restarts: Count = 1
    random_start: bool = True

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": WhiteBox}

    def check(self, player: Player) -> None:
        """Raises ValueError if the space or the cost does not fit a descent."""
        require_perturbations(player, type(self).__name__)
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"{self.restarts} restarts without random_start would all be the same")

    def respond(self, turn: Turn) -> Tensor:
        """The best inputs found, [B, ...]."""
        return turn.each_batch(lambda rows: self.attack(turn, rows))

    def attack(self, turn: Turn, rows: Tensor) -> Tensor:
        """The best inputs found for some rows of the turn's data."""
        view = turn.see("defender", WhiteBox)
        space = require_perturbations(turn.player, type(self).__name__)
        cost, given = turn.player.cost, turn.data[rows]
        keys, classes = turn.keys[rows], turn.data.classes
        best = Best(given.x)
        for restart in range(self.restarts):
            x = given.x
            if self.random_start:
                x = space.sample(given.x, chance.fold(keys, restart))
            for step in range(self.steps + 1):
                last = step == self.steps
                x = x.detach().requires_grad_(not last)
                logits = view.logits(x, rows)
                surrogate = cost.surrogate(logits, given.y, classes)
                labels = decide(logits.detach(), classes)
                best.offer(x.detach(), cost.answered(labels, given.y), surrogate.detach(), labels)
                if not last:
                    (gradient,) = torch.autograd.grad(surrogate.sum(), x)
                    direction = space.steepest(gradient.nan_to_num_(0.0, 0.0, 0.0))
                    moved = torch.add(x.detach(), direction, alpha=-self.step * space.eps)
                    x = space.project(given.x, moved)
        return best.x
