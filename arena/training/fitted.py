"""Strategies that fit a model in one step, as classical techniques do."""

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from arena.classification import Classifier, Learner
from arena.core import Labelled, Strategy, Task, Turn
from arena.knowledge import View, WhiteBox
from arena.store import Place, Store, fingerprint
from arena.training.classifiers import ModuleClassifier


def log_shares(shares: Tensor) -> Tensor:
    """Scores [B, K] of class shares [B, K]: their logs, where a share of 0 counts as 1e-6."""
    return shares.clamp(min=1e-6).log()


@dataclass(frozen=True)
class Fitted(Strategy):
    """A defender that commits to a model made of tensors that it fits to its data."""

    @property
    def exposes(self) -> type[View]:
        """A white box. A technique without gradients overrides this with `ScoreView`."""
        return WhiteBox

    def facts(self) -> dict[str, Any]:
        """The algorithm is this strategy."""
        return {"algorithm": self}

    @abstractmethod
    def fit(self, data: Labelled, seed: int) -> dict[str, Tensor]:
        """The tensors that the model is made of: a function of the data and the seed."""

    @abstractmethod
    def module(self, state: Mapping[str, Tensor], classes: int) -> nn.Module:
        """The module from inputs [B, ...] to logits [B, K] that is made of these tensors."""

    def train(
        self,
        data: Labelled,
        seed: int,
        task: Task | None = None,
        learner: Learner | None = None,
        store: Store | None = None,
    ) -> Classifier:
        """The model fitted to `data`. With a `store`, it is fitted only if it is not stored.

        `task` and `learner` are accepted because `Trainer.train` has them; they have no effect.
        """
        device = data.x.device
        examples = len(data), data.classes, data.box, fingerprint(data.x, data.y)
        recipe = {"strategy": self, "data": examples, "seed": seed}
        with store.place(recipe, device) if store else nullcontext(Place()) as place:
            state = place.finished
            if state is None:
                state = self.fit(data, seed)
                place.finish(state)
        return self.restore(state, data)

    def respond(self, turn: Turn) -> Classifier:
        """The model fitted to the data that the defender was dealt."""
        return self.train(turn.data, turn.seed, store=turn.store)

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> Classifier:
        """The model made of these tensors."""
        module = self.module(state, data.classes).to(data.x.device)
        return _Fit(module, data.classes, self.exposes, state)


class _Fit(ModuleClassifier):
    def __init__(
        self, module: nn.Module, classes: int, widest: type[View], state: Mapping[str, Tensor]
    ) -> None:
        super().__init__(module, classes)
        self.widest = widest
        self._state = dict(state)

    def state(self) -> dict[str, Tensor]:
        """The tensors that it was made of."""
        return self._state
