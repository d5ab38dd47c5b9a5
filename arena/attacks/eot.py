"""Expectation over transformation: follow the mean answer of a random classifier."""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from arena import chance
from arena.attacks.engines.wrapped import AttackWrapper, WrappedView
from arena.core import Turn
from arena.fields import Count
from arena.knowledge import WhiteBox
from arena.transformations.transformation import Transformation


@dataclass(frozen=True)
class EOT(AttackWrapper):
    """Athalye et al. 2018 (1707.07397), section 2.1: attack an average over random transformations.

    Every pass of the inner attack becomes `draws` passes, and returns their mean. Each pass is a
    query (and, backward, a gradient) of its own. What is random is the defender, if it flips coins,
    which are fresh for each pass; the input, if a transformation is given; or both.

    Differs from the paper, which averages the loss. Here the loss is the inner attack's own, so the
    average is taken over what reaches it. The log of the mean probability (by default) gives the
    loss of the answer that a random defender gives on average. The mean of the logits keeps a
    gradient where some draws are sure of themselves. The memory of all passes of an average is held
    until the gradient is taken; therefore a batch has fewer examples, by a factor of `draws`.

    Attributes:
        draws: Passes to average.
        average: What is averaged: probabilities (the log of the mean is taken) or logits.
        transformation: The attacker's own distribution over transformations of the input.
    """

    draws: Count = 10
    average: Literal["probabilities", "logits"] = "probabilities"
    transformation: Transformation | None = None

    def respond(self, turn: Turn) -> Tensor:
        """What the attack finds, [B, ...], in batches in which all `draws` of an example fit."""
        return super().respond(replace(turn, batch_size=max(turn.batch_size // self.draws, 1)))

    def through(self, view: WhiteBox, turn: Turn) -> WhiteBox:
        """The view of the average."""
        # Not the coins of a wrapper within that averages over something else.
        seed = chance.seed_of(turn.seed, self.draws, self.transformation)
        return _MeanOfDraws(view, self, replace(turn, seed=seed).keys)


class _MeanOfDraws(WrappedView):
    """The mean of several passes; `keys` [n], one for each example of the turn."""

    def __init__(self, within: WhiteBox, how: EOT, keys: Tensor) -> None:
        super().__init__(within)
        self._how, self._keys = how, keys

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        draws = torch.stack([self._draw(x, rows) for _ in range(self._how.draws)])
        if self._how.average == "logits":
            return draws.mean(0)
        return draws.log_softmax(2).logsumexp(0) - math.log(len(draws))

    def on(self, rows: Tensor) -> Self:
        part = super().on(rows)
        part._keys = self._keys[rows]
        return part

    def _draw(self, x: Tensor, rows: Tensor) -> Tensor:
        """One pass. The ledger moves with every pass, so each meets coins of its own."""
        if (transformation := self._how.transformation) is not None:
            key = chance.fold(self._keys[rows], self._ledger.numbers(rows))
            x = transformation(x, key)
        return self._within.logits(x, rows)
