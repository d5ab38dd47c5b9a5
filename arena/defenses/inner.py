"""The attacks that a training plays against itself."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from arena.core import Perturbations, Player, Strategy, Task, Turn
from arena.knowledge import Knowledge, Ledger, View, WhiteBox
from arena.learners.classifiers import committed
from arena.learners.training import Step, Trainer


def task_of(turn: Turn) -> Task:
    """The attacker's declared actions and cost, for a training that plays its part."""
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


def check_attack(attack: Strategy) -> None:
    """Raises ValueError if the attack needs more than a white box of a classifier."""
    if any(not issubclass(WhiteBox, kind) for kind in attack.needs.values()):
        raise ValueError(f"inner={type(attack).__name__} is not an attack on a classifier")


def attacked(attack: Strategy, module: nn.Module, step: Step, task: Task) -> Tensor:
    """What `attack` plays, [B, ...], against the module as it stands, in evaluation mode.

    The inner player has the attacker's declared actions and cost, and sees a white box.
    """
    knowledge, batch = Knowledge.white_box(), step.batch
    learning = [p for p in module.parameters() if p.requires_grad]
    model = committed(module, batch.classes)  # frozen: no parameter gradients in there
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
    module.train()
    for parameter in learning:
        parameter.requires_grad_(True)
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

    Of a divergence between two answers of the same model, say. `objective` maps inputs to one
    number an example, [B]; its parameters get no gradients from here.

    Args:
        objective: What to raise.
        x: The inputs around which `space` lies.
        start: Where to start.
        space: The attacker's declared actions.
        steps: Gradients to take.
        step: Step size, as a share of eps.
    """
    at = start
    for _ in range(steps):
        at = at.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(objective(at).sum(), at)
        moved = at.detach() + step * space.eps * space.steepest(slope)
        at = space.project(x, moved)
    return at.detach()
