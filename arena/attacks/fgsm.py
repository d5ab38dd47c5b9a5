"""The fast gradient sign method: one step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, autograd

from arena.attacks.engines.descent import require_perturbations
from arena.core import Player, Strategy, Turn
from arena.fields import Positive
from arena.knowledge import View, WhiteBox


@dataclass(frozen=True)
class FGSM(Strategy):
    """Goodfellow et al. 2015 (1412.6572), section 4: x - eps * steepest(gradient), projected.

    In an L-inf ball the steepest direction is the sign. One pass and one gradient per example. From
    a random place of the space with steps of 1.25 eps it is the attack of fast adversarial training
    (Wong, Rice & Kolter 2020, 2001.03994, Algorithm 3).

    Attributes:
        step: Length of the step, as a share of the space's eps.
        random_start: Start at random in the space; else at the input.
        labels: What the step leads away from: the true class, or what the model answers. Trained
            against steps from the truth, a model may learn to read the truth off the step (label
            leaking, Kurakin et al. 2017, 1611.01236, section 4).
    """

    step: Positive = 1.0
    random_start: bool = False
    labels: Literal["truth", "answer"] = "truth"

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
        x = space.sample(given.x, turn.keys[rows]) if self.random_start else given.x
        x = x.detach().requires_grad_()
        logits = turn.see("defender", WhiteBox).logits(x, rows)
        y = given.y
        if self.labels == "answer":
            y = logits.detach()[:, : given.classes].argmax(1)
        surrogate = turn.player.cost.surrogate(logits, y, given.classes)
        (gradient,) = autograd.grad(surrogate.sum(), x)
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        moved = x.detach() - self.step * space.eps * space.steepest(gradient)
        return space.project(given.x, moved)
