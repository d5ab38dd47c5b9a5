"""Retraining on revealed attacks: "just train on the attacks" [F9, F15]."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from arena.core import Labelled, Strategy, Turn
from arena.knowledge import SampleView, View
from arena.training.classifiers import ModuleClassifier
from arena.training.trainer import Trainer


@dataclass(frozen=True)
class Retrain(Strategy):
    """Trains a new model each round, on its own data and on the attacked inputs revealed to it.

    Attributes:
        recipe: How it trains.
        memory: Whether it trains on all batches revealed so far or only on the latest one.
    """

    recipe: Trainer
    memory: Literal["all", "latest"] = "all"

    needs: ClassVar[Mapping[str, type[View]]] = {"attacker": SampleView}

    @property
    def exposes(self) -> type[View]:
        """The same as its recipe."""
        return self.recipe.exposes

    def facts(self) -> dict[str, Any]:
        """The same as its recipe."""
        return self.recipe.facts()

    def respond(self, turn: Turn) -> ModuleClassifier:
        """A model trained on the defender's data and the revealed attacks."""
        samples = turn.see("attacker", SampleView).samples
        shown = samples if self.memory == "all" else samples[-1:]
        data = union(turn.data, *shown)
        return self.recipe.train(data, turn.seed, self.recipe.task(turn), store=turn.store)

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> ModuleClassifier:
        """The same as its recipe."""
        return self.recipe.restore(state, data)


def union(data: Labelled, *more: Labelled) -> Labelled:
    """All examples in one batch, in order."""
    parts = (data, *more)
    return replace(data, x=torch.cat([p.x for p in parts]), y=torch.cat([p.y for p in parts]))
