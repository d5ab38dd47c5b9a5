"""Any evasion attack of ART (https://github.com/Trusted-AI/adversarial-robustness-toolbox)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from arena.attacks.engines.borrowed import Borrowed, Job, load, options_of


@dataclass(frozen=True)
class ART(Borrowed):
    """An evasion attack by its class, such as `art.attacks.evasion.ProjectedGradientDescent`.

    Attacks that take `eps` or `norm` get the game's. An output of those that take no eps counts if
    it lies inside the ball. The labels are always given, because ART would otherwise take the clean
    prediction for the truth. ART works in NumPy, so inputs pass through the CPU.
    """

    requires: ClassVar[tuple[str, ...]] = ("art",)

    def made(self, model: nn.Module, job: Job) -> Any:
        """The attack; ValueError if it cannot aim at the target."""
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
        """What it generates for the labels [b], or for those of the target."""
        moved = attack.generate(job.x.cpu().numpy(), y=job.labels.cpu().numpy())
        return torch.from_numpy(moved)
