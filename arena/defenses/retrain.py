"""Retraining on what was revealed: "just train on the attacks" [F9, F15]."""

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
    """Trains afresh each round on its own data and the attacked inputs that it was shown.

    Attributes:
        recipe: How it trains.
        memory: Train on everything revealed so far, or on the latest batch only.
    """

    recipe: Trainer
    memory: Literal["all", "latest"] = "all"

    needs: ClassVar[Mapping[str, type[View]]] = {"attacker": SampleView}

    @property
    def exposes(self) -> type[View]:
        """As its recipe."""
        return self.recipe.exposes

    def facts(self) -> dict[str, Any]:
        """As its recipe."""
        return self.recipe.facts()

    def respond(self, turn: Turn) -> ModuleClassifier:
        """A model trained on the defender's data and the revealed attacks."""
        samples = turn.see("attacker", SampleView).samples
        shown = samples if self.memory == "all" else samples[-1:]
        data = union(turn.data, *shown)
        return self.recipe.train(data, turn.seed, self.recipe.task(turn), store=turn.store)

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> ModuleClassifier:
        """As its recipe."""
        return self.recipe.restore(state, data)


def union(data: Labelled, *more: Labelled) -> Labelled:
    """All the examples together, in order."""
    parts = (data, *more)
    return replace(data, x=torch.cat([p.x for p in parts]), y=torch.cat([p.y for p in parts]))
