"""Rounded scores: the last digits of scores would show a black-box attacker where to go."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from arena.classification import Classifier
from arena.core import ActionSpace, Labelled, Player, Turn
from arena.defenses.wrapped import Outermost
from arena.fields import Range
from arena.knowledge import LabelView, Random
from arena.training.classifiers import LOG_ZERO


@dataclass(frozen=True)
class RoundedScores(Outermost):
    """Publishes probabilities with few decimals; the answers stay those of the inner model.

    Tramer et al. 2016 (1609.02943), section 7, proposed this against model theft. Each probability
    is rounded down, and the units missing from the sum go to the largest remainders. So a row still
    sums to exactly 1, which rounding to the nearest would not ensure, and no two classes change
    their order (they may tie). With 0 decimals, one class has probability 1.

    Only published scores change. An attacker with the parameters sees the logits, and certificates
    of the inner model still hold.

    Attributes:
        of: The strategy whose scores are rounded; it must commit to a classifier with scores.
        decimals: Decimals of a published probability, 0 to 7; float32 has no more.
    """

    decimals: Annotated[int, Range(0, 7)] = 1

    def check(self, player: Player) -> None:
        """Raises ValueError if there are no scores, or the inner strategy does not fit."""
        if self.of.exposes is LabelView:
            raise ValueError(
                f"RoundedScores has nothing to round: of={type(self.of).__name__} commits to a "
                "model that answers with labels only"
            )
        self.of.check(player)

    def respond(self, turn: Turn) -> Classifier:
        """The inner strategy's classifier with rounded scores."""
        return _rounding(self.of.respond(turn), self.decimals)

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> Classifier:
        """The inner strategy's classifier with rounded scores."""
        return _rounding(self.of.restore(state, data), self.decimals)


def rounded(probabilities: Tensor, decimals: int) -> Tensor:
    """Rows [B, K] that sum to 1, rounded to multiples of 10^-decimals; float64, sums still 1."""
    unit = 10**decimals
    wanted = probabilities.double()
    wanted = wanted / wanted.sum(1, keepdim=True) * unit
    whole = wanted.floor()
    missing = unit - whole.sum(1, keepdim=True)
    rank = (wanted - whole).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    shown: Tensor = (whole + (rank < missing)) / unit
    return shown


class _Rounding(Classifier):
    """The same classifier with rounded published scores."""

    def __init__(self, of: Classifier, decimals: int) -> None:
        self._of, self._decimals = of, decimals
        self.classes, self.widest = of.classes, of.widest

    def logits(self, x: Tensor) -> Tensor:
        return self._of.logits(x)

    def labels(self, x: Tensor) -> Tensor:
        return self._of.labels(x)

    def published(self, logits: Tensor) -> Tensor:
        exact: Tensor = self._of.published(logits).exp()
        return rounded(exact, self._decimals).log().clamp(min=LOG_ZERO).to(logits.dtype)

    def certified(self, given: Labelled, actions: ActionSpace) -> Tensor | None:
        return self._of.certified(given, actions)

    def rounded(self, dtype: torch.dtype) -> Classifier:
        return _rounding(self._of.rounded(dtype), self._decimals)

    @property
    def module(self) -> nn.Module:
        return self._of.module

    def to(self, device: torch.device) -> Classifier:
        return _rounding(self._of.to(device), self._decimals)

    def state(self) -> dict[str, Tensor]:
        return self._of.state()


class _RandomRounding(_Rounding):
    """The same for a random classifier (`knowledge.Random`)."""

    def drawn(self, key: Tensor) -> Classifier:
        assert isinstance(self._of, Random)
        drawn = self._of.drawn(key)
        assert isinstance(drawn, Classifier)
        return _Rounding(drawn, self._decimals)


def _rounding(of: Classifier, decimals: int) -> Classifier:
    return (_RandomRounding if isinstance(of, Random) else _Rounding)(of, decimals)
