"""Any attack of torchattacks (https://github.com/Harry24k/adversarial-attacks-pytorch)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from arena.attacks.engines.borrowed import Borrowed, Job, load, options_of


@dataclass(frozen=True)
class Torchattacks(Borrowed):
    """An attack of torchattacks by its class, such as `torchattacks.PGD`.

    Attacks that take `eps`, `norm` or `n_classes` get the game's. An output of those that take no
    eps (C&W, DeepFool, ...) counts if it lies inside the ball.
    """

    requires: ClassVar[tuple[str, ...]] = ("torchattacks",)

    def made(self, model: nn.Module, job: Job) -> Any:
        """The attack; ValueError if it cannot aim at the target."""
        make = load(self.attack, "torchattacks")
        norm = "Linf" if job.p == float("inf") else f"L{job.p:g}"
        game = options_of(make, {"eps": job.eps, "norm": norm, "n_classes": job.classes})
        attack = make(model, **{**game, **self.options})
        if job.target is not None:
            if "targeted" not in attack.supported_mode:
                raise ValueError(f"{self.attack} cannot aim at a class; use cost=error_rate")
            attack.set_mode_targeted_by_label(quiet=True)
        return attack

    def told(self, attack: Any) -> bool:
        """Whether it takes eps."""
        return bool(options_of(type(attack), {"eps": None}))

    def run(self, attack: Any, model: nn.Module, job: Job) -> Tensor:
        """Its output [b, ...] for the inputs with their labels, or with the target's."""
        moved: Tensor = attack(job.x, job.labels)
        return moved
