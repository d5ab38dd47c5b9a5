"""The fast gradient sign method: one step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from arena.attacks.engines.descent import require_surrogate
from arena.attacks.engines.spaces import serving
from arena.attacks.engines.unjudged import last_of
from arena.classification import Perturbations
from arena.core import Player, Strategy, Turn
from arena.fields import Positive
from arena.knowledge import View, WhiteBox


@dataclass(frozen=True)
class FGSM(Strategy):
    """Goodfellow et al. 2015 (1412.6572), section 4: x - eps * steepest(gradient), projected.

    In an L-inf ball the steepest direction is the sign. One pass and one gradient per example. From
    a random place of the space, with steps of 1.25 eps, it is the attack of fast adversarial
    training (Wong, Rice & Kolter 2020, 2001.03994, Algorithm 3).

    Attributes:
        step: Length of the step, as a share of the space's eps.
        random_start: Start at random in the space; else at the input.
        labels: What the step leads away from: the true class ("truth"), or the model's answer
            ("answer"). A model trained against steps from the truth may learn to read the truth off
            the step (label leaking, Kurakin et al. 2017, 1611.01236, section 4).
    """

    step: Positive = 1.0
    random_start: bool = False
    labels: Literal["truth", "answer"] = "truth"

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": WhiteBox}
    spaces: ClassVar[tuple[type[Perturbations], ...]] = (Perturbations,)

    def check(self, player: Player) -> None:
        """Raises ValueError if the space is no ball, or the cost has no surrogate."""
        serving(player, "FGSM", self.spaces)
        require_surrogate(player, "FGSM")

    def respond(self, turn: Turn) -> Tensor:
        """The inputs after one step, [B, ...]."""
        space, keys = serving(turn.player, "FGSM", self.spaces), turn.keys
        view, classes = turn.see("defender", WhiteBox), turn.data.classes

        def answered(logits: Tensor) -> Tensor:
            return logits[:, :classes].argmax(1)

        def step(rows: Tensor) -> Tensor:
            x = turn.data.x[rows]
            if self.random_start:
                x = space.sample(x, keys[rows])
            away_from = answered if self.labels == "answer" else None
            return last_of(1, self.step, x, rows, turn, view, space, away_from)

        return turn.each_batch(step)
