"""How a model becomes a defender's move: frozen, in evaluation mode, behind one interface.

A `torch.nn.Module` gives logits and gradients. A scikit-learn estimator or a plain function gives
scores or labels. No view of a model shows more than the model can give (`Classifier.widest`).

Shapes: B inputs [B, ...] float32, K classes.
"""

import copy
from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from arena.classification import Answers, Classifier, decide
from arena.core import first
from arena.knowledge import REFUSED, LabelView, ScoreView, View, WhiteBox

_TOGETHER = 128
"""Rows per pass on a CPU: with more, the activations outgrow its caches, and a row takes twice as
long."""

LOG_ZERO = -80.0
"""Stands for log 0 among log-probabilities, so that their differences are finite."""


class ModuleClassifier(Classifier):
    """A module from inputs to logits. The module itself is frozen: pass a copy to keep your own."""

    widest: type[View] = WhiteBox

    def __init__(self, module: nn.Module, classes: int) -> None:
        self._module = laid_out(module).eval().requires_grad_(False)
        self.classes = classes

    def logits(self, x: Tensor) -> Tensor:
        """The module's output [B, K], or [B, K + 1] if it may refuse."""
        return self._passed(x)

    def _passed(self, *given: Tensor) -> Tensor:
        """The module's output for arguments of B rows each, in as many passes as are fastest."""
        if given[0].is_cuda or len(given[0]) <= _TOGETHER:
            return self._pass(*given)
        parts = zip(*(torch.split(argument, _TOGETHER) for argument in given), strict=True)
        return torch.cat([self._pass(*part) for part in parts])

    def _pass(self, *given: Tensor) -> Tensor:
        try:
            logits: Tensor = self._module(*given)
        except RuntimeError as error:
            if "view" not in str(error):
                raise
            # A module that calls `view` on a convolution's output needs channels first in memory.
            _arrange(self._module, torch.contiguous_format)
            logits = self._module(*given)
        return logits

    def rounded(self, dtype: torch.dtype) -> "ModuleClassifier":
        """A copy that computes in `dtype`: it rounds its inputs and returns float32 logits."""
        return _Rounded(copy.deepcopy(self._module), self.classes, dtype)

    @property
    def module(self) -> nn.Module:
        """The frozen module."""
        return self._module

    def to(self, device: torch.device) -> "ModuleClassifier":
        """Itself, after moving the module to the device."""
        self._module.to(device)
        return self

    def state(self) -> dict[str, Tensor]:
        """The module's parameters and buffers."""
        return dict(self._module.state_dict())


class _Rounded(ModuleClassifier):
    def __init__(self, module: nn.Module, classes: int, dtype: torch.dtype) -> None:
        super().__init__(module.to(dtype), classes)
        self._dtype = dtype

    def _pass(self, *given: Tensor) -> Tensor:
        (x,) = given
        return super()._pass(x.to(self._dtype)).float()


def laid_out(module: nn.Module) -> nn.Module:
    """The same module, with channels last in memory if it convolves images on a CPU.

    Values stay the same, and a pass takes two thirds of the time. This was not measured on CUDA, so
    it is not done there.
    """
    on_cpu = all(tensor.device.type == "cpu" for tensor in module.parameters())
    if on_cpu and any(isinstance(part, nn.Conv2d) for part in module.modules()):
        _arrange(module, torch.channels_last)
    return module


def _arrange(module: nn.Module, layout: torch.memory_format) -> None:
    module.to(memory_format=layout)  # type: ignore[call-overload]


class RandomClassifier(ModuleClassifier):
    """A module that flips coins: `module(x, key)`, with `key` [B] as in `chance`.

    A view draws fresh coins for each pass, see `LabelView`. The game scores it with coins from the
    match's secret, several draws of them, which no view shows: what fooled one draw has to fool
    others. Asked without a key (`module(x)`), the module takes its coins from the input itself, so
    that every answer is a function of its arguments and nothing depends on the batch.
    """

    def drawn(self, key: Tensor) -> Classifier:
        """The classifier with these coins."""
        return _Drawn(self, key)

    def rounded(self, dtype: torch.dtype) -> "RandomClassifier":
        """Itself: coins are drawn in float32."""
        return self

    def logits_by(self, key: Tensor, x: Tensor) -> Tensor:
        """The module's output [B, K] for the coins `key` [B]."""
        return self._passed(x, key)


class _Drawn(Classifier):
    """A random classifier whose coins have been drawn, for as many inputs as there are keys."""

    def __init__(self, of: RandomClassifier, key: Tensor) -> None:
        self._of, self._key, self.classes = of, key, of.classes

    def logits(self, x: Tensor) -> Tensor:
        return self._of.logits_by(self._key, x)

    def published(self, logits: Tensor) -> Tensor:
        return self._of.published(logits)


def committed(module: nn.Module, classes: int) -> ModuleClassifier:
    """The move that commits to a module: a `RandomClassifier` if it says that it is `random`."""
    random = getattr(module, "random", False) is True
    return (RandomClassifier if random else ModuleClassifier)(module, classes)


def columns(scores: Any, rows: int, classes: int, who: str) -> Tensor:
    """Returns the scores of `rows` inputs if they are [B, K], or [B, K + 1] with refusals last.

    Raises:
        ValueError: If they have another shape; the message names `who` returned them.
    """
    shaped = isinstance(scores, Tensor) and scores.ndim == 2 and len(scores) == rows
    if shaped and scores.shape[1] in (classes, classes + 1):
        return cast(Tensor, scores)
    found = f"shape {list(scores.shape)}" if isinstance(scores, Tensor) else _kind(scores)
    raise ValueError(
        f"{who} gave {found} for {rows} inputs, and there are {classes} classes: return "
        f"[B, {classes}], or [B, {classes + 1}] if the last column refuses"
    )


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"


class FunctionClassifier(Classifier):
    """A function from inputs [B, ...] to labels [B], or to scores that are used as logits.

    Labels are whole numbers of any type: a class in 0 .. K - 1, or `REFUSED` (-1). Scores are
    [B, K], or [B, K + 1] if the last column refuses.
    """

    def __init__(
        self, function: Callable[[Tensor], Any], classes: int, answers: Literal["labels", "scores"]
    ) -> None:
        self._function = function
        self.classes = classes
        self.widest = ScoreView if answers == "scores" else LabelView

    def _call(self, x: Tensor) -> Tensor:
        """The answers, [B] or [B, K].

        Raises:
            ValueError: If the function returned no array of the declared kind.
        """
        dims, want, other = (
            (2, "[B, K] scores", "labels")
            if self.widest is ScoreView
            else (1, "[B] labels", "scores")
        )
        given = self._function(x)
        try:
            answer = given if isinstance(given, Tensor) else torch.from_numpy(np.asarray(given))
        except (TypeError, ValueError):
            raise ValueError(
                f"the prediction function returned {_kind(given)}, which is no array of numbers; "
                f"return {want} for {len(x)} inputs"
            ) from None
        if answer.ndim != dims or len(answer) != len(x):
            raise ValueError(
                f"the prediction function gave shape {list(answer.shape)} for {len(x)} inputs; "
                f"return {want}, or say Fixed(answers={other})"
            )
        return answer.to(x.device)

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Its scores; for labels, log 1 for the label and log 0 for the other classes."""
        if self.widest is ScoreView:
            scores = self._call(x).float()
            return columns(scores, len(x), self.classes, "the prediction function")
        labels = self.labels(x)
        logits = torch.full((len(x), self.classes), LOG_ZERO, device=x.device)
        known = labels != REFUSED
        logits[known, labels[known]] = 0.0
        return logits

    @torch.no_grad()
    def labels(self, x: Tensor) -> Tensor:
        """Its labels, int64 [B].

        Raises:
            ValueError: If one is neither a class nor a refusal.
        """
        if self.widest is ScoreView:
            return decide(self.logits(x), self.classes)
        given = self._call(x)
        labels = given.long()
        # Whole numbers only: 2.9 is no class, and neither is NaN.
        wrong = (labels != given) | (labels < REFUSED) | (labels >= self.classes)
        if (i := first(wrong)) is not None:
            raise ValueError(
                f"the prediction function gave input {i} of {len(x)} the label "
                f"{given[i].item():g}; return a class in 0..{self.classes - 1}, or {REFUSED} to "
                "refuse"
            )
        return labels

    def answer(self, x: Tensor) -> Answers:
        """Its labels, refusals included; scores only if the function gives scores."""
        return super().answer(x) if self.widest is ScoreView else Answers(self.labels(x))


def from_estimator(estimator: Any, classes: int) -> FunctionClassifier:
    """A fitted scikit-learn estimator, which gets its inputs flattened: float32 [B, D].

    Classes that it has not seen get probability 0.

    Raises:
        ValueError: If it is not fitted, or its classes are not whole numbers in 0 .. K - 1.
    """
    known = getattr(estimator, "classes_", None)
    if known is None:
        raise ValueError(f"{type(estimator).__name__} has no classes_: fit it before it plays")
    columns = np.asarray(known)
    if columns.dtype.kind not in "iu" or columns.min() < 0 or columns.max() >= classes:
        raise ValueError(
            f"{type(estimator).__name__} knows classes {columns.tolist()[:5]}...; "
            f"fit it on labels 0..{classes - 1}"
        )

    def flat(x: Tensor) -> Any:
        return x.flatten(1).cpu().numpy()

    def log_scores(x: Tensor) -> Any:
        scores = np.full((len(x), classes), np.exp(LOG_ZERO))
        scores[:, columns] = estimator.predict_proba(flat(x))
        return np.log(np.maximum(scores, np.exp(LOG_ZERO)))

    if hasattr(estimator, "predict_proba"):
        return FunctionClassifier(log_scores, classes, "scores")
    return FunctionClassifier(lambda x: estimator.predict(flat(x)), classes, "labels")


def classifier(model: Any, classes: int, answers: Literal["labels", "scores"]) -> Classifier:
    """The move that commits to `model`: a module, an estimator, a function or a `Classifier`.

    A module is copied first, so that later changes to it have no effect on the match.

    Args:
        model: The model.
        classes: Number of classes K.
        answers: What a plain function returns.

    Raises:
        ValueError: If `model` is none of these.
    """
    if isinstance(model, Classifier):
        return model
    if isinstance(model, nn.Module):
        return committed(copy.deepcopy(model), classes)
    if hasattr(model, "predict"):
        return from_estimator(model, classes)
    if callable(model):
        return FunctionClassifier(model, classes, answers)
    raise ValueError(
        f"cannot play a {type(model).__name__}; give a torch.nn.Module, a fitted scikit-learn "
        "estimator or a function from inputs to labels"
    )
