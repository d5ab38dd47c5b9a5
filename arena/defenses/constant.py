"""A constant answer."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arena.classification import Classifier
from arena.core import Labelled, Strategy, Turn
from arena.fields import Whole
from arena.knowledge import LabelView, View
from arena.training.classifiers import ModuleClassifier


@dataclass(frozen=True)
class Constant(Strategy):
    """Commits to answering every input with one class: a stand-in where nobody defends.

    Attributes:
        answer: The class.
    """

    answer: Whole = 0

    @property
    def exposes(self) -> type[View]:
        """Labels: there is nothing to differentiate."""
        return LabelView

    def respond(self, turn: Turn) -> Classifier:
        """The constant answer.

        Raises:
            ValueError: If there is no such class.
        """
        if self.answer >= turn.data.classes:
            raise ValueError(
                f"Constant.answer={self.answer} is no class: the data have classes "
                f"0..{turn.data.classes - 1}"
            )
        return self.restore({}, turn.data)

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> Classifier:
        """The constant answer; it has no state."""
        return _Answering(self.answer, data.classes)


class _Answering(ModuleClassifier):
    widest = LabelView

    def __init__(self, answer: int, classes: int) -> None:
        super().__init__(nn.Identity(), classes)
        self._answer = answer

    def logits(self, x: Tensor) -> Tensor:
        answers = torch.full((len(x),), self._answer, device=x.device)
        return nn.functional.one_hot(answers, self.classes).float()
