"""Adversarial training: minimise the loss on an inner attack's answer to the current model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena.attacks.pgd import PGD
from arena.core import Labelled, Player, Strategy, Task, Turn
from arena.fields import Share
from arena.knowledge import Knowledge, Ledger, View, WhiteBox
from arena.learners.classifiers import ModuleClassifier
from arena.learners.training import Trainer


@dataclass(frozen=True)
class AdversarialTraining(Trainer):
    """Madry et al. 2018 (1706.06083), equation 2.1: min over models of max over perturbations.

    The inner player has the attacker's declared actions and cost and sees the model in training
    as a white box; any white-box attack can play it.

    Attributes:
        inner: The inner attack.
        clean: Weight of the clean loss beside the adversarial one (0: Madry; 0.5: the mixture of
            1412.6572).
    """

    inner: Strategy = PGD(steps=7, step=0.3, restarts=1)
    clean: Share = 0.0

    needs: ClassVar[Mapping[str, type[View]]] = {"attacker": View}

    def check(self, player: Player) -> None:
        """Raises ValueError if the inner attack needs more than a white box gives."""
        if any(not issubclass(WhiteBox, kind) for kind in self.inner.needs.values()):
            raise ValueError(f"inner={type(self.inner).__name__} is not an attack on a classifier")

    def task(self, turn: Turn) -> Task:
        """The attacker's declared actions and cost."""
        task = turn.see("attacker", View).task
        assert isinstance(task, Task)
        return task

    def loss(self, module: nn.Module, batch: Labelled, seed: int, task: Task | None) -> Tensor:
        """Cross-entropy of the attacked batch, mixed with that of the clean one."""
        if task is None:
            raise ValueError("AdversarialTraining needs knowledge.task of the attacker")
        attacked = self.attacked(module, batch, seed, task)
        if self.clean == 0.0:
            return cross_entropy(module(attacked), batch.y)
        logits = module(torch.cat([batch.x, attacked])).chunk(2)
        clean, adversarial = (cross_entropy(half, batch.y) for half in logits)
        return self.clean * clean + (1.0 - self.clean) * adversarial

    def attacked(self, module: nn.Module, batch: Labelled, seed: int, task: Task) -> Tensor:
        """The inner attack's move against the model as it stands."""
        knowledge = Knowledge.white_box()
        learning = [p for p in module.parameters() if p.requires_grad]
        model = ModuleClassifier(module, batch.classes)  # frozen: no parameter gradients in there
        ledger = Ledger(len(batch), None, batch.x.device)
        view = WhiteBox("defender", knowledge, {"task": task}, model, ledger)
        turn = Turn(
            player=Player(task.actions, task.cost, knowledge, self.inner),
            round=0,
            data=batch,
            aside=None,
            last=None,
            seed=seed,
            batch_size=len(batch),
            look=lambda opponent, kind: view,
        )
        attacked: Tensor = self.inner.respond(turn)
        module.train()
        for parameter in learning:
            parameter.requires_grad_(True)
        return attacked
