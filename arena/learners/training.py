"""The training loop, and the strategies that are a way of training."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from arena import chance
from arena.core import Labelled, Learner, Strategy, Task, Turn
from arena.fields import Count, Positive
from arena.knowledge import View, WhiteBox
from arena.learners.classifiers import ModuleClassifier, committed, laid_out


class Diverged(ValueError):
    """Training ended in parameters that are not finite."""


@dataclass(frozen=True)
class Trainer(Strategy):
    """A defender that commits to a model it trains by minimising `loss` with Adam.

    Attributes:
        learner: The architecture. None only where knowledge of it was withheld.
        epochs: Passes over the data.
        batch_size: Examples per step.
        lr: Adam's step size.
    """

    learner: Learner | None
    epochs: Count = 20
    batch_size: Count = 128
    lr: Positive = 2e-3

    @property
    def exposes(self) -> type[View]:
        """Everything: it is a differentiable module."""
        return WhiteBox

    def facts(self) -> dict[str, Any]:
        """The algorithm is this strategy without its learner; the architecture, the learner."""
        return {"algorithm": replace(self, learner=None), "architecture": self.learner}

    @abstractmethod
    def loss(self, module: nn.Module, batch: Labelled, seed: int, task: Task | None) -> Tensor:
        """The scalar to minimise on one batch; `task` says what an attacker may do, if known."""

    def train(
        self, data: Labelled, seed: int, task: Task | None = None, learner: Learner | None = None
    ) -> ModuleClassifier:
        """A model of `learner` (by default its own) trained on `data`: a function of the seed.

        Raises:
            Diverged: If the loss stops being finite, naming the epoch.
        """
        learner = learner or self.learner
        if learner is None:
            raise ValueError(f"{type(self).__name__} has no learner to train; name one")
        module = laid_out(learner.build(data.shape, data.classes, seed).to(data.x.device))
        optimizer = torch.optim.Adam(module.parameters(), self.lr, fused=True)
        shuffle = torch.Generator().manual_seed(chance.seed_of(seed, "shuffle"))
        for epoch in range(self.epochs):
            order = torch.randperm(len(data), generator=shuffle).to(data.x.device)
            total = torch.zeros((), device=data.x.device)
            for step, rows in enumerate(torch.split(order, self.batch_size)):
                if not module.training:  # a loss may have looked at it in evaluation mode
                    module.train()
                loss = self.loss(module, data[rows], chance.seed_of(seed, epoch, step), task)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += loss.detach()
            if not bool(total.isfinite()):
                raise Diverged(
                    f"{type(self).__name__} diverged in epoch {epoch + 1} of {self.epochs}: "
                    f"the loss is {float(total)}; lower lr={self.lr:g} or check the data"
                )
        # The last step's own damage shows in no loss.
        if not all(bool(parameter.isfinite().all()) for parameter in module.parameters()):
            raise Diverged(
                f"{type(self).__name__} diverged in its last step: parameters are not finite; "
                f"lower lr={self.lr:g} or check the data"
            )
        return committed(module, data.classes)

    def task(self, turn: Turn) -> Task | None:
        """What the training needs to know of the attacker; by default nothing."""
        return None

    def respond(self, turn: Turn) -> ModuleClassifier:
        """A model trained on what the defender was dealt."""
        return self.train(turn.data, turn.seed, self.task(turn))

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> ModuleClassifier:
        """The model with these parameters."""
        assert self.learner is not None
        module = self.learner.build(data.shape, data.classes, seed=0)
        module.load_state_dict(state)
        return committed(module.to(data.x.device), data.classes)
