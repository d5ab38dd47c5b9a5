"""A given model that never changes, such as a user's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from arena import chance
from arena.actions.decisions import Decisions
from arena.classification import Classifier
from arena.core import ActionSpace, IllegalMove, Labelled, Strategy, Turn, first
from arena.fields import Count
from arena.knowledge import INVALID, Answering, Random, ScoreView, View
from arena.training.classifiers import ModuleClassifier, classifier, columns
from arena.training.consistency import PROBES, check_consistent


@dataclass(frozen=True)
class Fixed(Strategy):
    """Commits to the given model in every round.

    Attributes:
        model: A `torch.nn.Module` from inputs to logits (copied, frozen), a fitted scikit-learn
            estimator, a function from inputs to answers, or a `Classifier`.
        classes: Number of classes.
        answers: What a plain function returns: labels [B], or scores [B, K].

    Raises:
        ValueError: If `model` is none of these, or has another number of classes.
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
        """The widest view that the model supports: gradients, scores or labels."""
        widest: type[View] = self.model.widest
        return widest

    def respond(self, turn: Turn) -> Classifier:
        """The model. In the first turn, it is tried on a few of the training inputs.

        Raises:
            ValueError: If the data have another number of classes, the model's scores another
                number of columns, or the model answers an input differently in another batch or
                call (see `check_consistent`).
            IllegalMove: If it refuses one of them and the player may not refuse.
        """
        if turn.data.classes != self.classes:
            raise ValueError(
                f"Fixed(classes={self.classes}), but the data have {turn.data.classes} classes"
            )
        model: Classifier = self.model.to(turn.data.x.device)
        if turn.last is None:
            _try(model, turn)
        return model

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> Classifier:
        """The model; it never changes."""
        model: Classifier = self.model
        return model.to(data.x.device)


def _try(model: Classifier, turn: Turn) -> None:
    """Tries a model on a few of the training inputs, before an attacker works on it.

    Of a model that declares itself random, only the shape of its scores is checked.
    """
    x = turn.data.x[:PROBES]
    if isinstance(model, Random):
        _check_columns(model, model.drawn(chance.keys(turn.seed, len(x), x.device)), x)
        return
    _check_columns(model, model, x)
    check_consistent(model, x)
    _check_legal(model, x, turn.player.actions)


@torch.no_grad()
def _check_columns(model: Classifier, answering: Answering, x: Tensor) -> None:
    if issubclass(model.widest, ScoreView):
        named = model.module if isinstance(model, ModuleClassifier) else model
        columns(answering.logits(x), len(x), model.classes, f"the {type(named).__name__}")


def _check_legal(model: Classifier, x: Tensor, actions: ActionSpace) -> None:
    """Checks labels against the actions; what NaN costs is for the game to say."""
    if not isinstance(actions, Decisions):
        return
    answers = model.answer(x)
    legal = actions.contains(x, answers) | (answers.labels == INVALID)
    if (i := first(~legal)) is not None:
        row = torch.tensor([i], device=x.device)
        raise IllegalMove(
            f"the model answers input {i} of the training data with {int(answers.labels[i])}: "
            f"{actions.explain(x[row], answers[row])}"
        )
