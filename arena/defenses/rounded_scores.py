"""Answering with rounded scores, lest the last digits show a black box which way to go."""

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
    """Publishes probabilities of so many decimals; answers are those of the model within.

    Tramer et al. 2016 (1609.02943), section 7, proposed it against the theft of models. Each
    probability is rounded down, and the units that are then missing from the sum go to the largest
    remainders: a row still sums to 1 exactly, where rounding each to the nearest would not, and no
    two classes change their order (they may tie). No decimals at all leave a 1 for one class.

    Only what is let out changes: whoever has the parameters sees the logits, and a certificate of
    the model within holds as it did.

    Attributes:
        of: The strategy whose scores they are; any that commits to a classifier with scores.
        decimals: Decimals of a published probability; 0 to 7, float32 has no more.
    """

    decimals: Annotated[int, Range(0, 7)] = 1

    def check(self, player: Player) -> None:
        """Raises ValueError if there are no scores to round, or the inner one does not fit."""
        if self.of.exposes is LabelView:
            raise ValueError(
                f"RoundedScores has nothing to round: of={type(self.of).__name__} commits to a "
                "model that answers with labels only"
            )
        self.of.check(player)

    def respond(self, turn: Turn) -> Classifier:
        """The inner strategy's classifier, its scores rounded."""
        return _rounding(self.of.respond(turn), self.decimals)

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> Classifier:
        """The inner strategy's, its scores rounded."""
        return _rounding(self.of.restore(state, data), self.decimals)


def rounded(probabilities: Tensor, decimals: int) -> Tensor:
    """Rows [B, K] that sum to 1, rounded to multiples of 10^-decimals that do too; float64."""
    unit = 10**decimals
    wanted = probabilities.double()
    wanted = wanted / wanted.sum(1, keepdim=True) * unit
    whole = wanted.floor()
    missing = unit - whole.sum(1, keepdim=True)
    rank = (wanted - whole).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    shown: Tensor = (whole + (rank < missing)) / unit
    return shown


class _Rounding(Classifier):
    """A classifier, but for the scores it lets out."""

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
    """Of a classifier that flips coins (`knowledge.Random`)."""

    def drawn(self, key: Tensor) -> Classifier:
        assert isinstance(self._of, Random)
        drawn = self._of.drawn(key)
        assert isinstance(drawn, Classifier)
        return _Rounding(drawn, self._decimals)


def _rounding(of: Classifier, decimals: int) -> Classifier:
    return (_RandomRounding if isinstance(of, Random) else _Rounding)(of, decimals)
