"""Any evasion attack of ART (https://github.com/Trusted-AI/adversarial-robustness-toolbox)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from arena.attacks.engines.borrowed import Borrowed, Job, load, options_of


@dataclass(frozen=True)
class ART(Borrowed):
    """An evasion attack by its class, such as `art.attacks.evasion.ProjectedGradientDescent`.

    Those that take `eps` or `norm` are given the game's; those that take no eps count where they
    end inside the ball. The labels are always given: ART takes the clean prediction for the truth
    otherwise. ART works in NumPy, so inputs travel over the CPU.
    """

    requires: ClassVar[tuple[str, ...]] = ("art",)

    def made(self, model: nn.Module, job: Job) -> Any:
        """The attack; ValueError if it cannot be aimed."""
        make = load(self.attack, "art")
        classifier = load("art.estimators.classification.PyTorchClassifier", "art")(
            model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(job.x.shape[1:]),
            nb_classes=job.classes,
            clip_values=(0.0, 1.0),
            device_type="gpu" if job.x.is_cuda else "cpu",
        )
        game = {"eps": job.eps, "norm": job.p, "targeted": job.target is not None, "verbose": False}
        known = options_of(make, game)
        if job.target is not None and "targeted" not in known:
            raise ValueError(f"{self.attack} cannot aim at a class; use cost=error_rate")
        return make(classifier, **{**known, **self.options})

    def told(self, attack: Any) -> bool:
        """Whether it takes eps."""
        return bool(options_of(type(attack), {"eps": None}))

    def run(self, attack: Any, model: nn.Module, job: Job) -> Tensor:
        """What it generates for the labels, or for the target's."""
        moved = attack.generate(job.x.cpu().numpy(), y=job.labels.cpu().numpy())
        return torch.from_numpy(moved)
