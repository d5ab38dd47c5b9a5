"""A model that is given, and stays as it is: a user's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from arena.classification import Classifier
from arena.core import Labelled, Strategy, Turn
from arena.fields import Count
from arena.knowledge import View
from arena.training.classifiers import classifier


@dataclass(frozen=True)
class Fixed(Strategy):
    """Commits to the given model in every round.

    Attributes:
        model: A `torch.nn.Module` from inputs to logits (copied, frozen), a fitted scikit-learn
            estimator, a function from inputs to answers, or a `Classifier`.
        classes: Number of classes.
        answers: What a plain function returns: labels [B], or scores [B, K].
    """

    model: Any
    classes: Count = 10
    answers: Literal["labels", "scores"] = "labels"

    def __post_init__(self) -> None:
        super().__post_init__()
        model = classifier(self.model, self.classes, self.answers)
        if model.classes != self.classes:
            raise ValueError(f"Fixed(classes={self.classes}) of a model of {model.classes} classes")
        object.__setattr__(self, "model", model)

    @property
    def exposes(self) -> type[View]:
        """What the model can give: gradients, scores or labels."""
        widest: type[View] = self.model.widest
        return widest

    def respond(self, turn: Turn) -> Classifier:
        """The model.

        Raises:
            ValueError: If the data have another number of classes.
        """
        if turn.data.classes != self.classes:
            raise ValueError(
                f"Fixed(classes={self.classes}), but the data have {turn.data.classes} classes"
            )
        model: Classifier = self.model
        return model.to(turn.data.x.device)

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> Classifier:
        """The model: it never changes."""
        model: Classifier = self.model
        return model.to(data.x.device)
