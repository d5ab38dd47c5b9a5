"""The training loop, and the strategies that are a way of training."""

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

_SAMPLE = 128  # examples on which a module in training is asked whether it guesses
_JUDGED = 100  # steps before it is: a training of a few proves nothing


class Diverged(ValueError):
    """Training broke down: a loss that is not finite, or answers no better than guesses."""


@dataclass(frozen=True)
class Step:
    """What a loss has to go on.

    Attributes:
        batch: The examples.
        seed: Of this step's own randomness.
        progress: Share of the training that is done, in [0, 1).
        task: What an attacker may do, if it is known.
        prepared: What `Trainer.prepared` made before the first step.
        rows: The numbers [B] of the examples in the training data; None outside a training.
    """

    batch: Labelled
    seed: int
    progress: float = 0.0
    task: Task | None = None
    prepared: Any = None
    rows: Tensor | None = None


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
    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """The scalar to minimise on one batch."""

    def update(self, module: nn.Module, optimizer: torch.optim.Optimizer, step: Step) -> Tensor:
        """What is done with one batch: by default one step down the loss, which it returns."""
        loss = self.loss(module, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def prepared(
        self, data: Labelled, seed: int, task: Task | None, learner: Learner, store: Store | None
    ) -> Any:
        """What the losses need beside the model in training, such as a teacher."""
        return None

    def sample(self, data: Labelled, rows: Tensor, start: Step) -> Labelled:
        """What a model in training is asked about, to tell whether it guesses: what it trains on.

        By default the inputs as they are.
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

        With a `store`, it is trained if it is not there, and a training that was broken off is
        gone on with from its last epoch, to the same bits.

        Raises:
            Diverged: If the loss stops being finite, or the answers to the training data are no
                better than guesses, naming the step, the likely cause and where the last good epoch
                is kept.
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
            # A module's own coins (dropout, say) come from torch's generators.
            torch.manual_seed(chance.seed_of(start.seed, "coins", epoch))
            order = order.to(data.x.device)
            batches = torch.split(order, self.batch_size)
            losses = []
            for number, rows in enumerate(batches):
                if not module.training:  # a loss may have looked at it in evaluation mode
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
        # The last step's own damage shows in no loss.
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
        """What the training needs to know of the attacker; by default nothing."""
        return None

    def respond(self, turn: Turn) -> ModuleClassifier:
        """A model trained on what the defender was dealt."""
        return self.train(turn.data, turn.seed, self.task(turn), store=turn.store)

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> ModuleClassifier:
        """The model with these parameters."""
        assert self.learner is not None
        module = self.learner.build(data.shape, data.classes, seed=0)
        module.load_state_dict(state)
        return committed(module.to(data.x.device), data.classes)


@contextmanager
def _generators(device: torch.device) -> Iterator[None]:
    """Gives torch's own generators back as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _progress(
    module: nn.Module, optimizer: torch.optim.Optimizer, epochs: int, learned: bool
) -> dict[str, Any]:
    """What the next epoch depends on, in tensors of its own."""
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
    """What shows that the module's answers are no better than guesses; None if they are better.

    Right no more often than by two standard deviations above 1 / K: what a coin of K sides gets.
    """
    was = module.training
    right = (module.eval()(data.x)[:, : data.classes].argmax(1) == data.y).double()
    module.train(was)
    share, even = float(right.mean()), 1 / data.classes
    bar = even + 2 * (even * (1 - even) / len(data)) ** 0.5
    if share > bar:
        return None
    return f"right on {share:.2f} of {len(data)} training examples, where a guess is on {even:.2f}"
