"""Any attack of foolbox (https://github.com/bethgelab/foolbox), as a strategy."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from arena.attacks.engines.borrowed import Borrowed, Job, load


@dataclass(frozen=True)
class Foolbox(Borrowed):
    """A foolbox attack by its class, such as `foolbox.attacks.LinfPGD`.

    A fixed-epsilon attack is told eps; foolbox clips what it returns, and the clipped output is
    judged. A minimum-norm attack is not told eps, and its output counts if it lies inside the ball.
    """

    requires: ClassVar[tuple[str, ...]] = ("foolbox",)

    def made(self, model: nn.Module, job: Job) -> Any:
        """The attack; ValueError if it measures in another norm."""
        attack = load(self.attack, "foolbox")(**self.options)
        p = getattr(attack.distance, "p", None)
        if p is not None and p != job.p:
            raise ValueError(
                f"{self.attack} measures in L{p:g}, the attacker's actions in L{job.p:g}; "
                "use the attack or the actions of the other's norm"
            )
        return attack

    def told(self, attack: Any) -> bool:
        """Whether it is a fixed-epsilon attack."""
        return isinstance(attack, load("foolbox.attacks.base.FixedEpsilonAttack", "foolbox"))

    def run(self, attack: Any, model: nn.Module, job: Job) -> Tensor:
        """Its output [b, ...], clipped to eps where it was told one."""
        wrapped = load("foolbox.PyTorchModel", "foolbox")(model, bounds=(0, 1), device=job.x.device)
        goal = "Misclassification" if job.target is None else "TargetedMisclassification"
        criterion = load(f"foolbox.criteria.{goal}", "foolbox")(job.labels)
        eps = job.eps if self.told(attack) else None
        moved: Tensor = attack(wrapped, job.x, criterion, epsilons=eps)[1]
        return moved
