"""Adversarial training: minimise the loss on an inner attack's answer to the current model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from arena.attacks.pgd import PGD
from arena.core import Player, Strategy, Task, Turn
from arena.defenses.inner import attacked, check_attack, declared, task_of
from arena.fields import Share
from arena.knowledge import View
from arena.learners.training import Step, Trainer


@dataclass(frozen=True)
class AdversarialTraining(Trainer):
    """Madry et al. 2018 (1706.06083), equation 2.1: min over models of max over perturbations.

    The inner player has the attacker's declared actions and cost and sees the model in training
    as a white box; any white-box attack can play it. With one step of `FGSM` it is the training of
    Goodfellow et al. 2015 (1412.6572).

    Attributes:
        inner: The inner attack.
        clean: Weight of the clean loss beside the adversarial one (0: Madry; 0.5: the mixture of
            1412.6572 and of 1611.01236).
    """

    inner: Strategy = PGD(steps=7, step=0.3, restarts=1)
    clean: Share = 0.0

    needs: ClassVar[Mapping[str, type[View]]] = {"attacker": View}

    def check(self, player: Player) -> None:
        """Raises ValueError if the inner attack needs more than a white box gives."""
        check_attack(self.inner)

    def task(self, turn: Turn) -> Task:
        """The attacker's declared actions and cost."""
        return task_of(turn)

    def loss(self, module: nn.Module, step: Step) -> Tensor:
        """Cross-entropy of the attacked batch, mixed with that of the clean one."""
        batch = step.batch
        moved = attacked(self.inner, module, step, declared(self, step))
        if self.clean == 0.0:
            return cross_entropy(module(moved), batch.y)
        logits = module(torch.cat([batch.x, moved])).chunk(2)
        clean, adversarial = (cross_entropy(half, batch.y) for half in logits)
        return self.clean * clean + (1.0 - self.clean) * adversarial
