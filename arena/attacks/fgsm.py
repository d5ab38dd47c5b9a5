"""The fast gradient sign method: one step of full length."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, autograd

from arena.attacks.descent import require_perturbations
from arena.core import Player, Strategy, Turn
from arena.knowledge import View, WhiteBox


@dataclass(frozen=True)
class FGSM(Strategy):
    """Goodfellow et al. 2015 (1412.6572), section 4: x - eps * steepest(gradient), projected.

    In an L-inf ball the steepest direction is the sign. One pass and one gradient per example.
    """

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": WhiteBox}

    def check(self, player: Player) -> None:
        """Raises ValueError if the space or the cost does not fit a descent."""
        require_perturbations(player, "FGSM")

    def respond(self, turn: Turn) -> Tensor:
        """The inputs after one step, [B, ...]."""
        return turn.each_batch(lambda rows: self._step(turn, rows))

    def _step(self, turn: Turn, rows: Tensor) -> Tensor:
        space = require_perturbations(turn.player, "FGSM")
        given = turn.data[rows]
        x = given.x.detach().requires_grad_()
        logits = turn.see("defender", WhiteBox).logits(x, rows)
        surrogate = turn.player.cost.surrogate(logits, given.y, given.classes)
        (gradient,) = autograd.grad(surrogate.sum(), x)
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        return space.project(given.x, given.x - space.eps * space.steepest(gradient))
