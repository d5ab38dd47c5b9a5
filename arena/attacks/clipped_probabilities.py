"""An attack on a model's probabilities, clipped in float32 as losses often clip them."""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from arena.attacks.engines.wrapped import AttackWrapper, WrappedView
from arena.attacks.fgsm import FGSM
from arena.core import Strategy, Turn
from arena.fields import Positive
from arena.knowledge import WhiteBox


@dataclass(frozen=True)
class ClippedProbabilities(AttackWrapper):
    """Plays an attack on log clip(softmax(logits), least, 1 - least), gradients included.

    Attacks here see logits, and follow losses whose gradients do not vanish where a model is sure.
    Other losses are computed from output probabilities, clipped so that their log stays finite
    (Keras clips at 1e-7). Such a loss has no gradient where the probabilities are within `least` of
    0 and 1, and a model with large logits seems to withstand it. That is how defensive distillation
    stood (Carlini & Wagner 2016, 1607.04311, section III), and what saturated models in general are
    praised for. Use this wrapper to see such a model as its author did; the attack without it is
    the better one.

    Attributes:
        least: Distance from 0 and from 1 at which a probability is clipped, below 1 / 2.
    """

    attack: Strategy = field(default_factory=FGSM)
    least: Positive = 1e-7

    # Two logits may differ where their probabilities, in float32, do not.
    faithful: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2**-24 <= self.least < 0.5:
            raise ValueError(
                f"ClippedProbabilities.least = {self.least:g} must be below 0.5, and at least "
                "2^-24 = 6e-8: a float32 is no closer to 1"
            )

    def through(self, view: WhiteBox, turn: Turn) -> WhiteBox:
        """The view of clipped log-probabilities."""
        return _Clipped(view, self.least)


class _Clipped(WrappedView):
    def __init__(self, within: WhiteBox, least: float) -> None:
        super().__init__(within)
        self._least = least

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        probabilities = self._within.logits(x, rows).softmax(1)
        return probabilities.clamp(self._least, 1.0 - self._least).log()
