"""Defenses that are put around the model of another strategy."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from arena import chance
from arena.classification import Classifier
from arena.core import Labelled, Player, Strategy, Turn
from arena.knowledge import View, WhiteBox
from arena.training.classifiers import committed

_WITHIN = "model."


@dataclass(frozen=True)
class Around(Strategy):
    """A strategy around another one, whose needs, exposure and facts are those of the inner one.

    Attributes:
        of: The inner strategy.
    """

    of: Strategy

    @property
    def needs(self) -> Mapping[str, type[View]]:
        """What the inner strategy needs."""
        return self.of.needs

    @property
    def exposes(self) -> type[View]:
        """What the inner strategy exposes."""
        return self.of.exposes

    def facts(self) -> dict[str, Any]:
        """The facts of the inner strategy: what can be trained."""
        return self.of.facts()


@dataclass(frozen=True)
class Outermost(Around):
    """A strategy whose move shows less than its module; a wrapper of the module would undo that."""


def check_within(of: Strategy, around: Strategy, player: Player) -> None:
    """Raises ValueError unless `of` fits the player and its move is just a module."""
    name = type(around).__name__
    if isinstance(of, Outermost):
        raise ValueError(
            f"{name} is put around a module, and what of={type(of).__name__} does to the answers "
            f"would be lost; put {type(of).__name__} around {name}"
        )
    if of.exposes is not WhiteBox:
        raise ValueError(
            f"{name} is put around a module, and of={type(of).__name__} commits to a model that "
            f"shows {of.exposes.__name__} at most; use a strategy that trains a network"
        )
    of.check(player)


@dataclass(frozen=True)
class Wrapper(Around):
    """Commits to another strategy's model with something around it. Wrappers nest.

    Attributes:
        of: The inner strategy; it must commit to a module.
    """

    @property
    def reserve(self) -> float:
        """Share of the training data that the inner strategy does not see; `tune` gets it."""
        return 0.0

    def check(self, player: Player) -> None:
        """Raises ValueError if the inner strategy commits to no module, or does not fit."""
        check_within(self.of, self, player)

    @abstractmethod
    def around(self, model: nn.Module, data: Labelled) -> nn.Module:
        """The wrapped module: its attribute `model` is the given one; tuned values are buffers.

        Of `data`, only the shape, classes and box matter.
        """

    def tune(self, module: nn.Module, data: Labelled, turn: Turn) -> None:
        """Sets the buffers of the wrapped module on `data`, which the inner model has not seen."""
        return None

    def commit(self, module: nn.Module, data: Labelled) -> Classifier:
        """The move that commits to the wrapped module."""
        return committed(module, data.classes)

    def respond(self, turn: Turn) -> Classifier:
        """The inner strategy's model, wrapped and tuned."""
        inner, kept = self._shares(turn)
        model: Classifier = self.of.respond(inner)
        module = self.around(model.module, turn.data).to(turn.data.x.device).eval()
        if kept is not None:
            with torch.no_grad():
                self.tune(module, kept, turn)
        return self.commit(module, turn.data)

    def _shares(self, turn: Turn) -> tuple[Turn, Labelled | None]:
        """The inner strategy's turn, and the data that are reserved; None if none are."""
        if self.reserve == 0.0:
            return turn, None
        n = len(turn.data)
        cut = min(max(round(self.reserve * n), 1), n - 1)
        shuffle = torch.Generator().manual_seed(chance.seed_of(turn.seed, "reserve"))
        order = torch.randperm(n, generator=shuffle).to(turn.data.x.device)
        return replace(turn, data=turn.data[order[cut:]]), turn.data[order[:cut]]

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> Classifier:
        """The wrapped model with these parameters and buffers."""
        within = {k.removeprefix(_WITHIN): v for k, v in state.items() if k.startswith(_WITHIN)}
        model: Classifier = self.of.restore(within, data)
        module = self.around(model.module, data).to(data.x.device).eval()
        module.load_state_dict(state)
        return self.commit(module, data)
