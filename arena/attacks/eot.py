"""Expectation over transformation: follow the mean of what a random classifier might answer."""

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

    Every pass of the inner attack becomes `draws` passes, each a query (and, backward, a gradient)
    of its own: of a random defender, which flips its coins afresh for each; of inputs transformed
    at random, where a transformation is given; or of both. It returns their mean.

    Differs from the paper, which averages the loss: the loss is the inner attack's own, so what is
    averaged is what reaches it. The log of the mean probability (by default) is the loss of the
    answer that a random defender gives on average; the mean of the logits keeps a gradient where
    some draws are sure of themselves. The memory of all passes of an average is held until the
    gradient is taken, so a batch has fewer examples, by the number of draws.

    Attributes:
        draws: Passes to average.
        average: What is averaged: probabilities (a log is taken of the mean) or logits.
        transformation: The attacker's own distribution over transformations of the input.
    """

    draws: Count = 10
    average: Literal["probabilities", "logits"] = "probabilities"
    transformation: Transformation | None = None

    def respond(self, turn: Turn) -> Tensor:
        """What the attack finds, in batches so small that all `draws` of one count as one."""
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
