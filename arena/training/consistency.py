"""Whether a model is a function of its input: the same answer in any batch and in any call."""

import torch
from torch import Tensor

from arena.classification import Classifier
from arena.core import first
from arena.knowledge import ScoreView

PROBES = 16
"""Inputs that are tried: three rows per input, one of them in a pass of its own."""

_ROUNDING, _ROUNDING_CUDA = 1e-3, 1e-2
"""Allowed change of the scores, as a share of their size.

Adding up in another order changes float32 scores by about 1e-6. CUDA may multiply by
TF32, with factors of 10 bits, in batches of some sizes and not in others.
"""

_DEPTH = 20.0
"""Scores further below the best count as this far below: a probability of 2e-9 is as good as 0."""


def check_consistent(model: Classifier, x: Tensor) -> None:
    """Checks that a model gives an input the same answer in different batches and calls.

    The first 16 inputs of `x` [B, ...] are answered together, in reverse order, and one at a time.
    Labels must agree exactly where the model gives only labels. Scores must agree up to rounding:
    0.1 % of their size (1 % on CUDA; four units in the last place in coarser arithmetic), so labels
    can differ only where two scores are that close. Randomness below this goes unnoticed. A model
    that declares itself random would fail, so do not call this for one.

    Raises:
        ValueError: If an input gets two answers, or none when it comes alone.
    """
    x = x[:PROBES]
    together = _answers(model, x)
    _compare(together, _answers(model, x.flip(0)).flip(0), "in reverse order")
    _compare(together, _alone(model, x), "one at a time")


@torch.no_grad()
def _answers(model: Classifier, x: Tensor) -> Tensor:
    """The model's scores [B, K or K + 1] if it can show them, else its labels [B]."""
    return model.logits(x) if issubclass(model.widest, ScoreView) else model.labels(x)


def _alone(model: Classifier, x: Tensor) -> Tensor:
    answers = []
    for i in range(len(x)):
        try:
            answers.append(_answers(model, x[i : i + 1]))
        except Exception as error:  # whatever a user's model raises
            raise ValueError(
                f"the model answers {len(x)} inputs together, but cannot answer input {i} of the "
                f"training data alone: {error}; mend it (eval(), no batch statistics)"
            ) from error
    return torch.cat(answers)


def _compare(answers: Tensor, again: Tensor, how: str) -> None:
    i = first(_differ(answers, again))
    if i is None:
        return
    if answers.is_floating_point():
        gap = float((answers[i] - again[i]).abs().max())
        found = f"its scores differ by {gap:.3g}"
    else:
        found = f"its label changes from {int(answers[i])} to {int(again[i])}"
    raise ValueError(
        f"the model answers input {i} of the training data differently {how}: {found}; declare it "
        "random (a module with `random = True` and forward(x, key)) or mend it (eval(), no batch "
        "statistics)"
    )


def _differ(answers: Tensor, again: Tensor) -> Tensor:
    """Whether [B] two answers differ by more than rounding."""
    if not answers.is_floating_point():
        return answers != again
    share = _ROUNDING_CUDA if answers.is_cuda else _ROUNDING
    share = max(share, 4 * torch.finfo(answers.dtype).eps)
    lowest = answers.amax(1, keepdim=True) - _DEPTH
    counted = answers.maximum(lowest)
    size = counted.nan_to_num(0.0, 0.0, 0.0).abs().amax(1, keepdim=True)
    change = (counted - again.maximum(lowest)).abs()
    same = (change <= share * size) | (answers == again) | (answers.isnan() & again.isnan())
    return ~same.all(1)
