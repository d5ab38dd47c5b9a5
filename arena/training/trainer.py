"""The training loop, and the base of every strategy that trains a network."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from arena import chance
from arena.classification import Learner
from arena.core import Labelled, Strategy, Task, Turn
from arena.fields import Count, Positive
from arena.knowledge import View, WhiteBox
from arena.store import Place, Store, fingerprint
from arena.training.classifiers import ModuleClassifier, committed, laid_out

_SAMPLE = 128  # examples on which a module in training is compared with guessing
_JUDGED = 100  # steps before the first comparison: after fewer, a module may not have learned yet


class Diverged(ValueError):
    """Training failed: the loss is not finite, or the answers are no better than guesses."""


@dataclass(frozen=True)
class Step:
    """What a loss is computed from.

    Attributes:
        batch: The examples, B of them.
        seed: Seed of this step's own randomness.
        progress: Share of the training that is done, in [0, 1).
        task: The attacker's declared actions and cost, if they are known.
        prepared: What `Trainer.prepared` returned before the first step.
        rows: The row numbers [B] of the examples in the training data; None outside a training.
    """

    batch: Labelled
    seed: int
    progress: float = 0.0
    task: Task | None = None
    prepared: Any = None
    rows: Tensor | None = None


@dataclass(frozen=True)
class Trainer(Strategy):
    """A defender that trains a model by minimising `loss` with Adam, and commits to it.

    Attributes:
        learner: The architecture. None only if knowledge of it was withheld.
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
        """A white box: the model is a differentiable module."""
        return WhiteBox

    def facts(self) -> dict[str, Any]:
        """The algorithm (this strategy without its learner) and the architecture (the learner)."""
        return {"algorithm": replace(self, learner=None), "architecture": self.learner}

    @abstractmethod
    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """The scalar to minimise on one batch."""

    def update(self, module: nn.Module, optimizer: torch.optim.Optimizer, step: Step) -> Tensor:
        """Updates the module by one batch and returns the loss; by default one optimizer step."""
        loss = self.loss(module, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def prepared(
        self, data: Labelled, seed: int, task: Task | None, learner: Learner, store: Store | None
    ) -> Any:
        """What the losses need in addition to the model in training, such as a teacher."""
        return None

    def sample(self, data: Labelled, rows: Tensor, start: Step) -> Labelled:
        """The examples on which a model in training is compared with guessing.

        By default the training inputs as they are. A training that changes its inputs returns them
        changed.
        """
        return data[rows]

    def train(
        self,
        data: Labelled,
        seed: int,
        task: Task | None = None,
        learner: Learner | None = None,
        store: Store | None = None,
    ) -> ModuleClassifier:
        """A model of `learner` (by default its own) trained on `data`: a function of the seed.

        With a `store`, the model is trained only if it is not stored. An interrupted training
        continues after its last stored epoch, to the same bits.

        Raises:
            Diverged: If the loss stops being finite, or the answers to the training data are no
                better than guesses. The message names the step, the likely cause and the place of
                the last good epoch.
            ValueError: If there is no learner.
        """
        learner = learner or self.learner
        if learner is None:
            raise ValueError(f"{type(self).__name__} has no learner to train; name one")
        device = data.x.device
        module = laid_out(learner.build(data.shape, data.classes, seed).to(device))
        with self._place(store, data, seed, task, learner) as place:
            if place.finished is not None:
                module.load_state_dict(place.finished)
            else:
                prepared = self.prepared(data, seed, task, learner, store)
                with _generators(device):
                    self._minimise(module, data, Step(data, seed, 0.0, task, prepared), place)
                place.finish(module.state_dict())
        return committed(module, data.classes)

    def _place(
        self,
        store: Store | None,
        data: Labelled,
        seed: int,
        task: Task | None,
        learner: Learner,
    ) -> AbstractContextManager[Place]:
        if store is None:
            return nullcontext(Place())
        examples = (len(data), data.classes, data.box, fingerprint(data.x, data.y))
        recipe = {"strategy": self, "learner": learner, "data": examples}
        return store.place(recipe | {"seed": seed, "task": task}, data.x.device)

    def _minimise(self, module: nn.Module, data: Labelled, start: Step, place: Place) -> None:
        optimizer = torch.optim.Adam(module.parameters(), self.lr, fused=True)
        shuffle = torch.Generator().manual_seed(chance.seed_of(start.seed, "shuffle"))
        begun = place.begun or {"epochs": 0, "learned": False}
        if place.begun:
            module.load_state_dict(begun["module"])
            optimizer.load_state_dict(begun["optimizer"])
        learned: bool = begun["learned"]
        for epoch in range(self.epochs):
            order = torch.randperm(len(data), generator=shuffle)
            if epoch < begun["epochs"]:
                continue
            # A module's own randomness (dropout, say) comes from torch's generators.
            torch.manual_seed(chance.seed_of(start.seed, "coins", epoch))
            order = order.to(data.x.device)
            batches = torch.split(order, self.batch_size)
            losses = []
            for number, rows in enumerate(batches):
                if not module.training:  # a loss may have put it in evaluation mode
                    module.train()
                step = replace(
                    start,
                    batch=data[rows],
                    rows=rows,
                    seed=chance.seed_of(start.seed, epoch, number),
                    progress=(epoch + number / len(batches)) / self.epochs,
                )
                losses.append(self.update(module, optimizer, step))
            self._check_finite(module, torch.stack(losses), epoch, place)
            if (epoch + 1) * len(batches) >= _JUDGED:
                guesses = _guesses(module, self.sample(data, order[:_SAMPLE], start))
                self._check_learned(guesses, learned, epoch, len(batches), place)
                learned = learned or guesses is None
            place.keep(partial(_progress, module, optimizer, epoch + 1, learned))

    def _check_finite(self, module: nn.Module, losses: Tensor, epoch: int, place: Place) -> None:
        broken = (~losses.isfinite()).nonzero()
        if len(broken):
            step = int(broken[0, 0])
            what = f"in epoch {epoch + 1} of {self.epochs}, step {step + 1} of {len(losses)}: the "
            raise self._diverged(f"{what}loss is {float(losses[step])}", "lower", "data", place)
        # No loss is computed after the last step, so the damage it does shows in none.
        if not all(bool(parameter.isfinite().all()) for parameter in module.parameters()):
            what = f"in epoch {epoch + 1} of {self.epochs}, in its last step: parameters are not"
            raise self._diverged(f"{what} finite", "lower", "data", place)

    def _check_learned(
        self, guesses: str | None, learned: bool, epoch: int, steps: int, place: Place
    ) -> None:
        last = epoch + 1 == self.epochs
        if guesses is None or not (learned or last):
            return
        what = f"by epoch {epoch + 1} of {self.epochs}, step {(epoch + 1) * steps}: {guesses}"
        if learned:
            raise self._diverged(f"{what}, after it had learned", "lower", "attack's eps", place)
        raise self._diverged(f"{what}, and never better", "change", "attack's eps", place)

    def _diverged(self, what: str, change: str, check: str, place: Place) -> Diverged:
        kept = f"; its last good epoch is in {place.path}" if place.path else ""
        return Diverged(
            f"{type(self).__name__} diverged {what}; "
            f"{change} lr={self.lr:g} or check the {check}{kept}"
        )

    def task(self, turn: Turn) -> Task | None:
        """The attacker's declared actions and cost if the training needs them; by default None."""
        return None

    def respond(self, turn: Turn) -> ModuleClassifier:
        """A model trained on the data that the defender was dealt."""
        return self.train(turn.data, turn.seed, self.task(turn), store=turn.store)

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> ModuleClassifier:
        """The model with these parameters."""
        assert self.learner is not None
        module = self.learner.build(data.shape, data.classes, seed=0)
        module.load_state_dict(state)
        return committed(module.to(data.x.device), data.classes)


@contextmanager
def _generators(device: torch.device) -> Iterator[None]:
    """Restores the state of torch's global generators afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _progress(
    module: nn.Module, optimizer: torch.optim.Optimizer, epochs: int, learned: bool
) -> dict[str, Any]:
    """Everything that the next epoch depends on, as copies."""
    optimizing = optimizer.state_dict()
    moments = {
        number: {name: value.clone() for name, value in state.items()}
        for number, state in optimizing["state"].items()
    }
    return {
        "epochs": epochs,
        "learned": learned,
        "module": {name: value.clone() for name, value in module.state_dict().items()},
        "optimizer": optimizing | {"state": moments},
    }


@torch.no_grad()
def _guesses(module: nn.Module, data: Labelled) -> str | None:
    """The evidence that the module's answers are no better than guesses; None if they are better.

    Answers count as guesses if the share of right ones is at most two standard deviations above
    1 / K, the expected share for uniform guesses among K classes.
    """
    was = module.training
    right = (module.eval()(data.x)[:, : data.classes].argmax(1) == data.y).double()
    module.train(was)
    share, even = float(right.mean()), 1 / data.classes
    bar = even + 2 * (even * (1 - even) / len(data)) ** 0.5
    if share > bar:
        return None
    return f"right on {share:.2f} of {len(data)} training examples, where a guess is on {even:.2f}"
