"""Attacks that work by changing what another attack sees."""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from arena.attacks.pgd import PGD
from arena.core import Player, Strategy, Turn
from arena.knowledge import Answering, View, WhiteBox


class WrappedView(WhiteBox):
    """A white box seen through something; subclasses change `logits`.

    Its passes are those of the view within, and are charged to the same ledger. Probes (`labels`,
    `scores`) are not changed: they are the defender's own answers.
    """

    def __init__(self, within: WhiteBox) -> None:
        super().__init__(
            within._opponent,
            within.knowledge,
            within._facts,
            within._answering,
            within._ledger,
            within._meter,
        )
        self._within = within

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        """The logits of the view within, [B, K]."""
        return self._within.logits(x, rows)

    @property
    def module(self) -> nn.Module:
        """The module at the bottom, unchanged."""
        return self._within.module

    def over(self, answering: Answering) -> Self:
        """The same wrapper of a view of another classifier."""
        return self._around(self._within.over(answering))

    def on(self, rows: Tensor) -> Self:
        """The same wrapper for some of the examples; what it holds per example is cut to them."""
        return self._around(self._within.on(rows))

    def rounded(self, dtype: torch.dtype) -> Self:
        """The same wrapper of a view in a coarser arithmetic."""
        return self._around(self._within.rounded(dtype))

    def _around(self, within: WhiteBox) -> Self:
        other = copy.copy(self)
        WrappedView.__init__(other, within)
        return other


@dataclass(frozen=True)
class AttackWrapper(Strategy):
    """Plays another attack on a view that it has changed. Wrappers nest; the outermost acts first.

    Attributes:
        attack: Any attack on a white box.
    """

    attack: Strategy = PGD()

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": WhiteBox}

    faithful: ClassVar[bool] = False
    """Whether the view's answers are the defender's, so that what it answers wrong is a mistake."""

    def check(self, player: Player) -> None:
        """Raises ValueError if the attack does not look into a white box, or does not fit."""
        if self.attack.needs.get("defender") is not WhiteBox:
            raise ValueError(
                f"{type(self).__name__} changes what a white-box attack sees, and "
                f"attack={type(self.attack).__name__} is none; use one that follows gradients"
            )
        self.attack.check(player)

    @abstractmethod
    def through(self, view: WhiteBox, turn: Turn) -> WhiteBox:
        """The view that the attack gets in place of `view`."""

    def respond(self, turn: Turn) -> Tensor:
        """What the attack finds, [B, ...]."""

        def look(opponent: str, kind: type[View]) -> View:
            view = turn.look(opponent, kind)
            return self.through(view, turn) if isinstance(view, WhiteBox) else view

        inner = replace(turn, look=look, closing=turn.closing and self.faithful)
        moved: Tensor = self.attack.respond(inner)
        return moved
