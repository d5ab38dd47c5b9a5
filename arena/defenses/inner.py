"""The inner attacks that a training plays against its own model."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from arena.attacks.pgd import PGD
from arena.classification import Perturbations
from arena.core import Labelled, Player, Strategy, Task, Turn
from arena.fields import Share
from arena.knowledge import Knowledge, View, WhiteBox
from arena.ledger import Ledger
from arena.training.classifiers import committed
from arena.training.trainer import Step, Trainer


@dataclass(frozen=True)
class InformedTraining(Trainer):
    """A training that plays the attacker's part, and so reads its declared actions and cost.

    Attributes:
        ramp: Share of the training over which the radius of the attacker's actions rises linearly
            from 0 to the declared one. At a large radius, a new model may never begin to learn
            without a ramp.
    """

    ramp: Share = 0.0

    needs: ClassVar[Mapping[str, type[View]]] = {"attacker": View}

    def task(self, turn: Turn) -> Task:
        """The attacker's declared actions and cost."""
        return task_of(turn)

    def faced(self, step: Step) -> Task:
        """The task that a step trains against: the declared one, with its radius on the ramp.

        Raises:
            ValueError: If the task is not known, or there is a ramp and its actions have no radius.
        """
        task, share = declared(self, step), raised(step, self.ramp)
        if self.ramp == 0.0:
            return task
        if not isinstance(task.actions, Perturbations):
            raise ValueError(
                f"{type(self).__name__}.ramp = {self.ramp:g} raises a radius, and "
                f"actions={type(task.actions).__name__} have none; set ramp=0"
            )
        return task if share == 1.0 else replace(task, actions=task.actions.shrunk(share))

    def perturbations(self, step: Step) -> Perturbations:
        """The actions of `faced`, for a training that takes gradient steps of its own in them.

        Raises:
            ValueError: If the actions are not known, or are not `Perturbations`.
        """
        space = self.faced(step).actions
        if not isinstance(space, Perturbations):
            raise ValueError(
                f"{type(self).__name__} perturbs inputs by gradients and cannot train against "
                f"actions={type(space).__name__}; use attacker/actions=linf, l2, l1 or l0, or "
                "AdversarialTraining with an inner attack that these actions allow"
            )
        return space


@dataclass(frozen=True)
class Attacked(InformedTraining):
    """A training whose loss is computed on what an inner attack makes of the batch.

    Attributes:
        inner: The inner attack; it may need no more than a white box.
    """

    inner: Strategy = PGD(steps=7, step=0.3, returns="last")

    def check(self, player: Player) -> None:
        """Raises ValueError if the inner attack needs more than a white box gives."""
        check_attack(self.inner)

    def moved(self, module: nn.Module, step: Step) -> Tensor:
        """What the inner attack plays, [B, ...]."""
        return attacked(self.inner, module, step, self.faced(step))

    @abstractmethod
    def against(self, module: nn.Module, batch: Labelled, moved: Tensor) -> Tensor:
        """The scalar to minimise if the attacker turns the batch into `moved` [B, ...]."""

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """The loss against what the inner attack plays."""
        return self.against(module, step.batch, self.moved(module, step))


def task_of(turn: Turn) -> Task:
    """The attacker's declared actions and cost."""
    task = turn.see("attacker", View).task
    assert isinstance(task, Task)
    return task


def declared(trainer: Trainer, step: Step) -> Task:
    """The task of a step.

    Raises:
        ValueError: If it is not known.
    """
    if step.task is None:
        raise ValueError(f"{type(trainer).__name__} needs knowledge.task of the attacker")
    return step.task


def raised(step: Step, ramp: float) -> float:
    """The height, from 0 to 1, of a ramp over the share `ramp` of the training."""
    return 1.0 if step.progress >= ramp else step.progress / ramp


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Puts the module in evaluation mode, without parameter gradients; restores both at the end."""
    learning = [p for p in module.parameters() if p.requires_grad]
    training = module.training
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        module.train(training)
        for parameter in learning:
            parameter.requires_grad_(True)


def check_attack(attack: Strategy) -> None:
    """Raises ValueError if the attack needs more than a white box of a classifier."""
    if any(not issubclass(WhiteBox, kind) for kind in attack.needs.values()):
        raise ValueError(f"inner={type(attack).__name__} is not an attack on a classifier")


def attacked(attack: Strategy, module: nn.Module, step: Step, task: Task) -> Tensor:
    """What `attack` plays, [B, ...], against the module in its present state, in evaluation mode.

    The inner attacker has the actions and cost of `task`, and a white box of the module.
    """
    knowledge, batch = Knowledge.white_box(), step.batch
    with frozen(module):
        model = committed(module, batch.classes)
        ledger = Ledger(len(batch), None, batch.x.device)
        view = WhiteBox("defender", knowledge, {"task": task}, model, ledger)
        turn = Turn(
            player=Player(task.actions, task.cost, knowledge, attack),
            round=0,
            data=batch,
            aside=None,
            last=None,
            seed=step.seed,
            batch_size=len(batch),
            look=lambda opponent, kind: view,
        )
        moved: Tensor = attack.respond(turn)
    return moved


def ascended(
    objective: Callable[[Tensor], Tensor],
    x: Tensor,
    start: Tensor,
    space: Perturbations,
    steps: int,
    step: float,
) -> Tensor:
    """Projected steepest ascent of an objective that is no player's cost, [B, ...].

    An example is the divergence between two answers of the same model. Parameters get no gradients
    from here; computing none saves time if the module is `frozen`.

    Args:
        objective: Maps inputs [B, ...] to one number per example, [B].
        x: The inputs [B, ...] around which `space` lies.
        start: Where to start, [B, ...].
        space: The attacker's declared actions.
        steps: Number of gradients.
        step: Step size, as a share of eps.
    """
    at, project = start, space.projection(x)
    for _ in range(steps):
        at = at.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(objective(at).sum(), at)
        at = project(torch.add(at.detach(), space.steepest(slope), alpha=step * space.eps))
    return at.detach()
